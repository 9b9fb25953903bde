"""Changes that need approval: requested, renewed, applied, expired or withdrawn, each in the caller's transaction and
with its audit entry.

People's decisions about them are in `approvals`; `release` makes the blueprints. An approval is valid for the digest of
exactly this content.
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
from groundplan.core.words import display_value
from groundplan.governance import store
from groundplan.governance.approved_parts import GATEWAY_KINDS, PART_KINDS, declaration_digest
from groundplan.governance.model import REQUEST_DUTIES, ApprovalRequest, ApprovalStatus, Change, GrantedApproval, Need
from groundplan.governance.validity import Term
from groundplan.identity.store import next_policy_number


@dataclass(frozen=True, slots=True)
class UnapprovedContent:
    """Declared content that needs approvals, as `release` found it."""

    subject: str
    digest: str
    needs: tuple[Need, ...]
    summary: Mapping[str, Any]
    seats: int = 1


def set_pending_changes(
    conn: Connection[Any],
    actor: str,
    wanted: Iterable[UnapprovedContent],
    *,
    base: int,
    sources: Mapping[str, str],
    at: datetime,
) -> list[Change]:
    """Make `wanted`, and only these, the pending changes of declarations; returns them.

    Content that is pending already keeps its change and its approvals.
    """
    pending = {
        (change.subject, change.digest): change
        for change in store.changes(conn, ["pending"])
        if change.type not in REQUEST_DUTIES and change.renews is None
    }
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
        _insert_change(conn, change, sources)
        kept.append(change.id)
    for old in pending.values():
        store.set_state(conn, [old.id], "superseded", at)
        record_change(conn, "change.superseded", actor, old, at)
    return [change for change in store.changes(conn, ["pending"]) if change.id in kept]


def request_approval(
    conn: Connection[Any], actor: str, request: ApprovalRequest, *, seats: int, at: datetime
) -> Change:
    """Request approval of something outside a blueprint. The same content keeps its pending change; a model that is
    approved already may be requested again at another price.

    Raises `Invalid` (`approval_kind`), `Conflict` (`approved_already`).
    """
    duties = REQUEST_DUTIES.get(request.kind)
    if duties is None:
        raise Invalid(
            f"{request.kind!r} cannot be requested", code="approval_kind", hint=f"Ask for {', '.join(REQUEST_DUTIES)}."
        )
    digest, price = request_digest(request.kind, request.subject, request.declaration), dict(request.price)
    store.lock_requests(conn)  # before it is looked for: whoever asks for the same at this moment is told of one change
    for held in store.changes(conn, ["pending", "applied"]):
        if (held.type, held.subject, held.digest, held.price) == (request.kind, request.subject, digest, price):
            if held.state == "pending":
                return held
            raise Conflict("this is approved already", code="approved_already", hint=f"See change {held.id}.")
    needs = tuple(Need("company", duty) for duty in duties)
    texts = {
        name: None if value is None else display_value(value) for name, value in sorted(request.declaration.items())
    }
    summary: dict[str, Any] = {"fields": [{"field": name, "old": None, "new": text} for name, text in texts.items()]}
    summary |= {"price": price} if price else {}
    change = Change(
        new_id(), digest, request.kind, request.subject, 0, summary, needs, actor, at, "pending", None, None,
        seats=max(seats, 1), reason=request.reason,
    )  # fmt: skip
    _insert_change(conn, change, {})
    return find_change(conn, change.id)


def request_digest(kind: str, subject: str, what: Mapping[str, Any]) -> str:
    """Digest of a requested declaration. Raises `Invalid` (`approval_what`) for values that JSON cannot hold
    exactly."""
    try:
        return declaration_digest(kind, subject, what)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise Invalid(
            f"the declaration cannot be digested: {error}",
            code="approval_what",
            hint="Write whole numbers within ±2^53, others as text, and whole characters.",
        ) from error


def request_renewal(conn: Connection[Any], actor: str, change_id: UUID, reason: str, *, at: datetime) -> Change:
    """Request approval of the same content again before or after its approval has ended; serving goes on meanwhile.

    Raises `NotFound`, `Conflict` (`not_renewable`).
    """
    old = find_change(conn, change_id)
    waiting = [c for c in store.changes(conn, ["pending"]) if c.renews == old.id]
    if waiting:
        return waiting[0]
    if old.own_end_date is not None:
        hint = "Ask for another one, with an end of its own."
        raise Conflict(f"this {old.type} was asked for until {old.own_end_date}", code="not_renewable", hint=hint)
    if old.state != "applied" or old.expires_on is None:
        raise Conflict(
            f"this change is {old.state}", code="not_renewable", hint="Apply the declaration again to ask for it anew."
        )
    change = replace(
        old, id=new_id(), requested_by=actor, requested_at=at, state="pending", decided_at=None, blueprint=None,
        approvals=(), expires_on=None, grace_until=None, reason=reason, renews=old.id,
    )  # fmt: skip
    _insert_change(conn, change, {})
    return find_change(conn, change.id)


def apply_change(conn: Connection[Any], change: Change, blueprint: int | None, term: Term, *, at: datetime) -> None:
    """Mark a change as applied: it is valid from now until the end of `term`. A renewal replaces the change that it
    renews."""
    store.set_state(conn, [change.id], "applied", at, blueprint)
    store.set_term(conn, change.id, term.expires_on, term.grace_until)
    if change.renews is not None:
        store.set_state(conn, [change.renews], "superseded", at)
    if change.price:
        applied = [each for each in store.changes(conn, ["applied"]) if each.id != change.id]
        same = [each.id for each in applied if (each.type, each.digest) == (change.type, change.digest)]
        store.set_state(conn, same, "superseded", at)
    if change.type in GATEWAY_KINDS:
        next_policy_number(conn, change.type, change.subject, False)


def expire_change(conn: Connection[Any], change: Change, *, at: datetime) -> None:
    """Mark a change as expired: its approval has ended without a renewal."""
    store.set_state(conn, [change.id], "expired", at)
    if change.type in GATEWAY_KINDS:
        next_policy_number(conn, change.type, change.subject, True)
    record_change(conn, "approval.expired", audit.SYSTEM, change, at, expires_on=str(change.expires_on))


def supersede_changes(conn: Connection[Any], actor: str, kind: str, digest: str, *, at: datetime) -> None:
    """Supersede the pending and applied changes of a declaration that no longer exists: nothing is left to approve,
    announce or renew."""
    for change in store.changes(conn, ["pending", "applied"]):
        if (change.type, change.digest) == (kind, digest):
            store.set_state(conn, [change.id], "superseded", at)
            record_change(conn, "change.superseded", actor, change, at)


def withdraw_change(conn: Connection[Any], actor: str, change_id: UUID, *, at: datetime) -> Change:
    """Withdraw a pending or applied change, whoever approved it. The caller checks who may do so.

    Raises `NotFound`, `Conflict` (`change_settled`).
    """
    change = find_change(conn, change_id)
    if change.state not in ("pending", "applied"):
        raise settled_error(change)
    store.set_state(conn, [change.id], "withdrawn", at)
    if change.type in GATEWAY_KINDS:
        next_policy_number(conn, change.type, change.subject, True)
    record_change(conn, "change.withdrawn", actor, change, at)
    return find_change(conn, change_id)


def _insert_change(conn: Connection[Any], change: Change, sources: Mapping[str, str]) -> None:
    store.insert_change(conn, change, sources)
    needs = [f"{need.duty} of {need.subject}" for need in change.needs]
    more = {"reason": change.reason} if change.reason else {}
    record_change(conn, "change.requested", change.requested_by, change, change.requested_at, needs=needs, **more)


def approval_status(conn: Connection[Any]) -> ApprovalStatus:
    """Content that is approved today, and content that was served once and has lost an approval since."""
    approved: set[tuple[str, str]] = set()
    revoked: set[tuple[str, str]] = set()
    parts: dict[str, GrantedApproval] = {}
    for change in store.changes(conn, ["pending", "applied", "withdrawn", "expired"]):
        pair = (change.subject, change.digest)
        given = _granted_approval(change) if change.type in PART_KINDS else None
        if given is not None and (given.is_valid or not (change.digest in parts and parts[change.digest].is_valid)):
            parts[change.digest] = given
        if change.state in ("withdrawn", "expired"):
            if change.blueprint is not None:
                revoked.add(pair)
                approved.discard(pair)
        elif change.needs and change.is_complete:
            approved.add(pair)
            revoked.discard(pair)
    return ApprovalStatus(frozenset(approved), frozenset(revoked), parts)


def _granted_approval(change: Change) -> GrantedApproval | None:
    """The approval that a change represents; None where it never became valid."""
    if change.expires_on is None:
        return None
    return GrantedApproval(
        change.expires_on,
        change.grace_until or change.expires_on,
        withdrawn=change.state == "withdrawn",
        expired=change.state == "expired",
        price=change.price,
    )


def pending_changes(conn: Connection[Any]) -> list[Change]:
    """Pending changes, oldest first; `open_needs` of each names the missing approvals."""
    return store.changes(conn, ["pending"])


def find_change(conn: Connection[Any], change_id: UUID) -> Change:
    """The change with this id. Raises `NotFound` (`change_unknown`)."""
    change = store.change_by_id(conn, change_id)
    if change is None:
        raise NotFound(
            f"there is no change {change_id}", code="change_unknown", hint="List them: `groundplan changes list`."
        )
    return change


def settled_error(change: Change) -> Conflict:
    """The error for a decision about a change that is no longer pending: `change_settled`."""
    return Conflict(
        f"this change is {change.state}",
        code="change_settled",
        hint="Apply the declaration again to ask for it anew.",
    )


def record_change(conn: Connection[Any], action: str, actor: str, change: Change, at: datetime, **detail: Any) -> None:
    """Write the audit entry of a change, with its subject and digest."""
    body = {"subject": change.subject, "digest": change.digest, "base": change.base, **detail}
    audit.record(conn, action=action, actor=actor, subject=f"change/{change.id}", detail=body, at=at)
