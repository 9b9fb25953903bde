"""What is asked for, and until when it holds, each in the caller's transaction and with its audit entry.

Who says yes or no to it is in `approvals`; `release` makes the blueprints. An approval holds for the digest of exactly
this content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import rfc8785
from psycopg import Connection

from groundplan.core import audit
from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.core.words import written
from groundplan.governance import store
from groundplan.governance.approved_parts import AT_GATEWAYS, KINDS, asked_digest
from groundplan.governance.model import ASKED, Asked, Change, Given, Need, Standing
from groundplan.governance.validity import Term
from groundplan.identity.store import next_policy_number


@dataclass(frozen=True, slots=True)
class Wanted:
    """Content that needs approvals, as `release` found it."""

    subject: str
    digest: str
    needs: tuple[Need, ...]
    summary: Mapping[str, Any]
    seats: int = 1


def request(
    conn: Connection[Any],
    actor: str,
    wanted: Iterable[Wanted],
    *,
    base: int,
    sources: Mapping[str, str],
    at: datetime,
) -> list[Change]:
    """Make these, and only these, the pending changes. The same content keeps its change and its approvals."""
    own = [change for change in store.changes(conn, ["pending"]) if change.type not in ASKED and change.renews is None]
    pending = {(change.subject, change.digest): change for change in own}
    kept: list[UUID] = []
    for item in wanted:
        same = pending.pop((item.subject, item.digest), None)
        if same is not None:
            store.update_change(conn, same.id, item.needs, sources)
            kept.append(same.id)
            continue
        change = Change(
            id=new_id(),
            digest=item.digest,
            type=item.subject.partition("/")[0],
            subject=item.subject,
            base=base,
            summary=dict(item.summary),
            needs=item.needs,
            requested_by=actor,
            requested_at=at,
            state="pending",
            decided_at=None,
            blueprint=None,
            seats=item.seats,
        )
        _ask(conn, change, sources)
        kept.append(change.id)
    for old in pending.values():
        store.set_state(conn, [old.id], "superseded", at)
        record_change(conn, "change.superseded", actor, old, at)
    return [change for change in store.changes(conn, ["pending"]) if change.id in kept]


def ask(conn: Connection[Any], actor: str, asked: Asked, *, seats: int, at: datetime) -> Change:
    """Ask for something beside the blueprint. The same content keeps its pending change; a model that is approved
    already is asked for again at another price.

    Raises `Invalid` (`approval_kind`), `Conflict` (`approved_already`).
    """
    duties = ASKED.get(asked.kind)
    if duties is None:
        raise Invalid(f"{asked.kind!r} cannot be requested", code="approval_kind", hint=f"Ask for {', '.join(ASKED)}.")
    digest, price = digest_asked(asked.kind, asked.subject, asked.what), dict(asked.price)
    store.hold_asked(conn)  # before it is looked for: whoever asks for the same at this moment is told of one change
    for held in store.changes(conn, ["pending", "applied"]):
        if (held.type, held.subject, held.digest, held.price) == (asked.kind, asked.subject, digest, price):
            if held.state == "pending":
                return held
            raise Conflict("this is approved already", code="approved_already", hint=f"See change {held.id}.")
    needs = tuple(Need("company", duty) for duty in duties)
    told = {name: None if value is None else written(value) for name, value in sorted(asked.what.items())}
    summary: dict[str, Any] = {"fields": [{"field": name, "old": None, "new": text} for name, text in told.items()]}
    summary |= {"price": price} if price else {}
    change = Change(
        new_id(), digest, asked.kind, asked.subject, 0, summary, needs, actor, at, "pending", None, None,
        seats=max(seats, 1), reason=asked.reason,
    )  # fmt: skip
    _ask(conn, change, {})
    return find_change(conn, change.id)


def digest_asked(kind: str, subject: str, what: Mapping[str, Any]) -> str:
    """Raises `Invalid` (`approval_what`) for what JSON cannot hold exactly."""
    try:
        return asked_digest(kind, subject, what)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise Invalid(
            f"the declaration cannot be digested: {error}",
            code="approval_what",
            hint="Write whole numbers within ±2^53, others as text, and whole characters.",
        ) from error


def renew(conn: Connection[Any], actor: str, change_id: UUID, reason: str, *, at: datetime) -> Change:
    """Ask for the same content again before or after its approval has ended; what is served goes on meanwhile.

    Raises `NotFound`, `Conflict` (`not_renewable`).
    """
    old = find_change(conn, change_id)
    waiting = [c for c in store.changes(conn, ["pending"]) if c.renews == old.id]
    if waiting:
        return waiting[0]
    if old.ends_itself is not None:
        hint = "Ask for another one, with an end of its own."
        raise Conflict(f"this {old.type} was asked for until {old.ends_itself}", code="not_renewable", hint=hint)
    if old.state != "applied" or old.expires_on is None:
        raise Conflict(
            f"this change is {old.state}", code="not_renewable", hint="Apply the declaration again to ask for it anew."
        )
    change = replace(
        old, id=new_id(), requested_by=actor, requested_at=at, state="pending", decided_at=None, blueprint=None,
        approvals=(), expires_on=None, grace_until=None, reason=reason, renews=old.id,
    )  # fmt: skip
    _ask(conn, change, {})
    return find_change(conn, change.id)


def settle(conn: Connection[Any], change: Change, blueprint: int | None, term: Term, *, at: datetime) -> None:
    """What was asked for holds from now until its end; a renewal takes the place of what it renews."""
    store.set_state(conn, [change.id], "applied", at, blueprint)
    store.set_term(conn, change.id, term.expires_on, term.grace_until)
    if change.renews is not None:
        store.set_state(conn, [change.renews], "superseded", at)
    if change.price:
        applied = [each for each in store.changes(conn, ["applied"]) if each.id != change.id]
        same = [each.id for each in applied if (each.type, each.digest) == (change.type, change.digest)]
        store.set_state(conn, same, "superseded", at)
    if change.type in AT_GATEWAYS:
        next_policy_number(conn, change.type, change.subject, False)


def expire(conn: Connection[Any], change: Change, *, at: datetime) -> None:
    """The approval has ended, and nobody gave it again."""
    store.set_state(conn, [change.id], "expired", at)
    if change.type in AT_GATEWAYS:
        next_policy_number(conn, change.type, change.subject, True)
    record_change(conn, "approval.expired", audit.SYSTEM, change, at, expires_on=str(change.expires_on))


def drop(conn: Connection[Any], actor: str, kind: str, digest: str, *, at: datetime) -> None:
    """What was asked for, or is approved, is no more: nothing is left to approve, to announce or to renew."""
    for change in store.changes(conn, ["pending", "applied"]):
        if (change.type, change.digest) == (kind, digest):
            store.set_state(conn, [change.id], "superseded", at)
            record_change(conn, "change.superseded", actor, change, at)


def end(conn: Connection[Any], actor: str, change_id: UUID, *, at: datetime) -> Change:
    """What was asked for or approved holds no longer, whoever approved it. Who may do so is the caller's to know.

    Raises `NotFound`, `Conflict` (`change_settled`).
    """
    change = find_change(conn, change_id)
    if change.state not in ("pending", "applied"):
        raise already_settled(change)
    store.set_state(conn, [change.id], "withdrawn", at)
    if change.type in AT_GATEWAYS:
        next_policy_number(conn, change.type, change.subject, True)
    record_change(conn, "change.withdrawn", actor, change, at)
    return find_change(conn, change_id)


def _ask(conn: Connection[Any], change: Change, sources: Mapping[str, str]) -> None:
    store.insert_change(conn, change, sources)
    needs = [f"{need.duty} of {need.subject}" for need in change.needs]
    more = {"reason": change.reason} if change.reason else {}
    record_change(conn, "change.requested", change.requested_by, change, change.requested_at, needs=needs, **more)


def standing(conn: Connection[Any]) -> Standing:
    """Which content is approved today, and which was served once and has lost an approval since."""
    approved: set[tuple[str, str]] = set()
    revoked: set[tuple[str, str]] = set()
    parts: dict[str, Given] = {}
    for change in store.changes(conn, ["pending", "applied", "withdrawn", "expired"]):
        pair = (change.subject, change.digest)
        given = _given(change) if change.type in KINDS else None
        if given is not None and (given.stands or not (change.digest in parts and parts[change.digest].stands)):
            parts[change.digest] = given
        if change.state in ("withdrawn", "expired"):
            if change.blueprint is not None:
                revoked.add(pair)
                approved.discard(pair)
        elif change.needs and change.complete:
            approved.add(pair)
            revoked.discard(pair)
    return Standing(frozenset(approved), frozenset(revoked), parts)


def _given(change: Change) -> Given | None:
    """The approval that a change is; None where it never held."""
    if change.expires_on is None:
        return None
    return Given(
        change.expires_on,
        change.grace_until or change.expires_on,
        withdrawn=change.state == "withdrawn",
        expired=change.state == "expired",
        price=change.price,
    )


def pending(conn: Connection[Any]) -> list[Change]:
    """Changes that wait, oldest first; `waits_for` of each says for whom."""
    return store.changes(conn, ["pending"])


def find_change(conn: Connection[Any], change_id: UUID) -> Change:
    """Raises `NotFound`."""
    change = store.change_by_id(conn, change_id)
    if change is None:
        raise NotFound(
            f"there is no change {change_id}", code="change_unknown", hint="List them: `groundplan changes list`."
        )
    return change


def already_settled(change: Change) -> Conflict:
    """The error of whoever comes too late: `change_settled`."""
    return Conflict(
        f"this change is {change.state}",
        code="change_settled",
        hint="Apply the declaration again to ask for it anew.",
    )


def record_change(conn: Connection[Any], action: str, actor: str, change: Change, at: datetime, **detail: Any) -> None:
    """Its entry in the audit log, with what it is about and its digest."""
    body = {"subject": change.subject, "digest": change.digest, "base": change.base, **detail}
    audit.record(conn, action=action, actor=actor, subject=f"change/{change.id}", detail=body, at=at)
