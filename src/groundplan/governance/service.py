"""Requests and approvals, each in the caller's transaction and with its audit entry. `release` makes the blueprints.

The operator never approves. Nobody approves what they, or a program with a token that they made, asked for; only where
separation is solo the one person there is may, and such approvals are marked and no evidence. An approval holds for the
digest of exactly this content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import rfc8785
from psycopg import Connection

from groundplan.core import audit
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.governance import store
from groundplan.governance.model import ASKED, Approval, Change, Given, Need, Standing
from groundplan.governance.parts import AT_GATEWAYS, KINDS, asked_digest
from groundplan.governance.validity import Term
from groundplan.identity import rights_store
from groundplan.identity.model import PROVEN
from groundplan.identity.store import next_policy_number

NO_PRICE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Approver:
    """Somebody who decides. `by`: the actor who really does, where one acts as this person in the demo.

    `proof`: how they signed in (`passkey | oidc` show that they were there; `recovery`, `unconfirmed` do not).
    """

    person_id: UUID
    proof: str
    by: str | None = None

    @property
    def proven(self) -> bool:
        return self.proof in PROVEN

    @property
    def demo(self) -> bool:
        return self.by is not None

    @property
    def actor(self) -> str:
        person = audit.person_actor(self.person_id)
        return person if self.by is None else audit.ActingAs(person, self.by)


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody says to a change, and to which of its needs: the named ones, or all whose duty they hold."""

    subject: str | None = None
    duty: str | None = None
    comment: str = ""

    def covers(self, need: Need) -> bool:
        return self.subject in (None, need.subject) and self.duty in (None, need.duty)


@dataclass(frozen=True, slots=True)
class _Ruling:
    """An answer with its sense (`approved | refused`), its time, and how strictly duties are separated."""

    decision: str
    answer: Answer
    separation: str
    at: datetime


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
    found: list[UUID] = []
    for item in wanted:
        same = pending.pop((item.subject, item.digest), None)
        if same is not None:
            store.update_change(conn, same.id, item.needs, sources)
            found.append(same.id)
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
        found.append(change.id)
    for old in pending.values():
        store.set_state(conn, [old.id], "superseded", at)
        _record(conn, "change.superseded", actor, old, at)
    return [change for change in store.changes(conn, ["pending"]) if change.id in found]


def ask(
    conn: Connection[Any], actor: str, kind: str, subject: str, what: Mapping[str, Any], reason: str, *, seats: int,
    at: datetime, price: Mapping[str, int] = NO_PRICE,
) -> Change:  # fmt: skip
    """Ask for something beside the blueprint: a model into use, data for a purpose, a policy, an exception, a rollout,
    evidence. Approvals are bound to the digest of `what` is declared. The same content keeps its pending change. A
    model's `price` is noted beside it; one that is approved already is asked for again at another price.

    Raises `Invalid` (`approval_kind`), `Conflict` (`approved_already`).
    """
    duties = ASKED.get(kind)
    if duties is None:
        raise Invalid(f"nothing is asked for as {kind!r}", code="approval_kind", hint=f"Ask for {', '.join(ASKED)}.")
    digest = digest_asked(kind, subject, what)
    for held in store.changes(conn, ["pending", "applied"]):
        if (held.type, held.subject, held.digest, held.price) == (kind, subject, digest, dict(price)):
            if held.state == "pending":
                return held
            raise Conflict("this is approved already", code="approved_already", hint=f"See change {held.id}.")
    needs = tuple(Need("company", duty) for duty in duties)
    summary: dict[str, Any] = {
        "fields": [{"field": name, "old": None, "new": value} for name, value in sorted(what.items())]
    }
    summary |= {"price": dict(price)} if price else {}
    change = Change(
        new_id(), digest, kind, subject, 0, summary, needs, actor, at, "pending", None, None,
        seats=max(seats, 1), reason=reason,
    )  # fmt: skip
    _ask(conn, change, {})
    return _found(conn, change.id)


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
    old = _found(conn, change_id)
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
    return _found(conn, change.id)


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
    _record(conn, "approval.expired", audit.SYSTEM, change, at, expires_on=str(change.expires_on))


def drop(conn: Connection[Any], actor: str, kind: str, digest: str, *, at: datetime) -> None:
    """What was asked for, or is approved, is no more: nothing is left to approve, to announce or to renew."""
    for change in store.changes(conn, ["pending", "applied"]):
        if (change.type, change.digest) == (kind, digest):
            store.set_state(conn, [change.id], "superseded", at)
            _record(conn, "change.superseded", actor, change, at)


def end(conn: Connection[Any], actor: str, change_id: UUID, *, at: datetime) -> Change:
    """What was asked for or approved holds no longer, whoever approved it. Who may do so is the caller's to know.

    Raises `NotFound`, `Conflict` (`change_settled`).
    """
    change = _found(conn, change_id)
    if change.state not in ("pending", "applied"):
        raise _settled(change)
    store.set_state(conn, [change.id], "withdrawn", at)
    if change.type in AT_GATEWAYS:
        next_policy_number(conn, change.type, change.subject, True)
    _record(conn, "change.withdrawn", actor, change, at)
    return _found(conn, change_id)


def _ask(conn: Connection[Any], change: Change, sources: Mapping[str, str]) -> None:
    store.insert_change(conn, change, sources)
    needs = [f"{need.duty} of {need.subject}" for need in change.needs]
    more = {"reason": change.reason} if change.reason else {}
    _record(conn, "change.requested", change.requested_by, change, change.requested_at, needs=needs, **more)


def approve(
    conn: Connection[Any], approver: Approver, change_id: UUID, answer: Answer, *, separation: str, at: datetime
) -> Change:
    """Record an approval of the needs (all, or the named one) whose duty the person holds; returns the change after it.

    Raises `NotFound`, `Conflict` (`change_settled`, `change_lapsed`), `Denied` (`self_approval`,
    `duty_missing`).
    """
    return _decide(conn, approver, change_id, _Ruling("approved", answer, separation, at))


def refuse(
    conn: Connection[Any], approver: Approver, change_id: UUID, answer: Answer, *, separation: str, at: datetime
) -> Change:
    """Say no by a duty that the person holds; the change is refused for good. Raises as `approve` does."""
    change = _decide(conn, approver, change_id, _Ruling("refused", answer, separation, at))
    store.set_state(conn, [change.id], "refused", at)
    return _found(conn, change_id)


def withdraw(conn: Connection[Any], actor: str, change_id: UUID, *, at: datetime) -> tuple[Change, bool]:
    """Take back what the actor asked for (a pending change) or approved. Returns the change, and whether served content
    has lost its approval by it, so that `release` must make a blueprint without it.

    Raises `NotFound`, `Conflict` (`change_settled`, `withdraw_by_lowering`) or `Denied` (`not_yours`).
    """
    change = _found(conn, change_id)
    mine = [a for a in change.approvals if a.stands and audit.person_actor(a.person_id) == actor]
    if mine and change.state == "applied" and change.type in ("budget", "company", "rule"):
        raise Conflict(
            f"{change.subject} was changed by this change and is in force",
            code="withdraw_by_lowering",
            hint="Lower a budget or a cap, or write the rule as it was, in the workspace, and apply.",
        )
    if mine:
        store.withdraw_approvals(conn, change.id, mine[0].person_id, at)
        _record(conn, "approval.withdrawn", actor, change, at, duties=sorted({a.duty for a in mine}))
        if change.state == "applied":
            store.set_state(conn, [change.id], "withdrawn", at)
            if change.type in AT_GATEWAYS:
                next_policy_number(conn, change.type, change.subject, True)
        return _found(conn, change_id), change.state == "applied"
    if change.state != "pending":
        raise _settled(change)
    if change.requested_by != actor:
        raise Denied(
            "you neither asked for this change nor approved it",
            code="not_yours",
            hint="Who asked for it can withdraw it; who holds its duties can refuse it.",
        )
    store.set_state(conn, [change.id], "withdrawn", at)
    _record(conn, "change.withdrawn", actor, change, at)
    return _found(conn, change_id), False


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


def _decide(conn: Connection[Any], approver: Approver, change_id: UUID, ruling: _Ruling) -> Change:
    change = _found(conn, change_id)
    if change.state != "pending":
        raise _settled(change)
    if ruling.decision == "approved" and change.ends_itself is not None and change.ends_itself < ruling.at.date():
        hint = "Ask for another one, with an end that is still to come."
        raise Conflict("the time that it was asked for is over", code="change_lapsed", hint=hint)
    asked = [need for need in change.needs if ruling.answer.covers(need)]
    held = _held(conn, approver, asked)
    alone = ruling.separation == "solo" and store.active_people(conn) == 1
    own = rights_store.behind(conn, change.requested_by) == approver.actor
    if own and not alone and ruling.decision == "approved":
        named = (held or asked or list(change.needs))[0].duty
        raise Denied(
            f"You asked for this change; somebody else with the duty {named} must approve it.",
            code="self_approval",
            hint=_who(conn, change.needs, approver.person_id),
        )
    if ruling.decision == "approved" and not (approver.proven or approver.demo or alone):
        raise _unproven(approver)
    if not held:
        duties = ", ".join(sorted({need.duty for need in asked or change.needs}))
        raise Denied(
            f"you hold none of the duties that this change waits for: {duties}",
            code="duty_missing",
            hint=_who(conn, change.needs, approver.person_id),
        )
    for need in held:
        store.insert_approval(conn, _approval(change, need, approver, ruling, alone))
    detail = {
        "duties": sorted({need.duty for need in held}),
        "unseparated": alone,
        "demo": approver.demo,
        "proof": approver.proof,
    }
    _record(conn, f"change.{ruling.decision}", approver.actor, change, ruling.at, **detail)
    return _found(conn, change_id)


def _unproven(approver: Approver) -> Denied:
    told = "with a passkey that nobody has confirmed yet" if approver.proof == "unconfirmed" else "by a link"
    return Denied(
        f"you signed in {told}, which whoever holds the operator's token could have done: that approves nothing",
        code="approval_unproven",
        hint="Sign in with your passkey or at the company's sign-in; register a passkey on the page Sign-in.",
    )


def _held(conn: Connection[Any], approver: Approver, asked: Iterable[Need]) -> list[Need]:
    """The needs whose duty this person holds."""
    return [
        need
        for need in asked
        if any(holder.person_id == approver.person_id for holder in store.holders(conn, need.subject, need.duty))
    ]


def _approval(change: Change, need: Need, approver: Approver, ruling: _Ruling, unseparated: bool) -> Approval:
    return Approval(
        id=new_id(),
        change_id=change.id,
        digest=change.digest,
        duty=need.duty,
        subject=need.subject,
        person_id=approver.person_id,
        person="",
        decision=ruling.decision,
        comment=ruling.answer.comment,
        unseparated=unseparated,
        demo=approver.demo,
        at=ruling.at,
        proof="demo" if approver.demo else approver.proof,
    )


def _found(conn: Connection[Any], change_id: UUID) -> Change:
    change = store.change_by_id(conn, change_id)
    if change is None:
        raise NotFound(f"there is no change {change_id}", hint="`groundplan status` lists what is pending.")
    return change


def _settled(change: Change) -> Conflict:
    return Conflict(
        f"this change is {change.state}",
        code="change_settled",
        hint="Apply the declaration again to ask for it anew.",
    )


def _who(conn: Connection[Any], needs: Iterable[Need], besides: UUID) -> str:
    """Who could approve instead, in words."""
    found = [
        f"{need.duty} of {need.subject}: {', '.join(emails) or 'nobody yet'}"
        for need in needs
        for emails in [[h.email for h in store.holders(conn, need.subject, need.duty) if h.person_id != besides]]
    ]
    return f"Ask {'; '.join(found)}."


def _record(conn: Connection[Any], action: str, actor: str, change: Change, at: datetime, **detail: Any) -> None:
    body = {"subject": change.subject, "digest": change.digest, "base": change.base, **detail}
    audit.record(conn, action=action, actor=actor, subject=f"change/{change.id}", detail=body, at=at)
