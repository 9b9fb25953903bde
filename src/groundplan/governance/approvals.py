"""Decisions of people about changes: approve, refuse, withdraw, each in the caller's transaction and audited.

The operator never approves, but may refuse, since that only reduces what runs. Nobody approves a change requested by
themselves or by a program with a token that they made; only where separation is `solo` may the company's one person do
so, and such approvals are marked and are no evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core import audit
from groundplan.core.errors import Conflict, Denied
from groundplan.core.ids import new_id
from groundplan.governance import store
from groundplan.governance.approved_parts import GATEWAY_KINDS
from groundplan.governance.model import Approval, Change, Need
from groundplan.governance.service import find_change, record_change, settled_error
from groundplan.identity import rights_store
from groundplan.identity.model import PROVEN
from groundplan.identity.store import next_policy_number


@dataclass(frozen=True, slots=True)
class Approver:
    """The person who decides. `real_actor`: who really does, where somebody acts as this person in the demo.

    `proof`: how the person signed in (`passkey | oidc` prove presence; `recovery`, `unconfirmed` do not).
    """

    person_id: UUID
    proof: str
    real_actor: str | None = None

    @property
    def is_proven(self) -> bool:
        return self.proof in PROVEN

    @property
    def is_demo(self) -> bool:
        return self.real_actor is not None

    @property
    def actor(self) -> str:
        person = audit.person_actor(self.person_id)
        return person if self.real_actor is None else audit.ActingAs(person, self.real_actor)


@dataclass(frozen=True, slots=True)
class Answer:
    """A comment on a change and the needs that it decides: those named by subject and duty, or (None) all whose duty
    the person holds."""

    subject: str | None = None
    duty: str | None = None
    comment: str = ""

    def covers(self, need: Need) -> bool:
        return self.subject in (None, need.subject) and self.duty in (None, need.duty)


@dataclass(frozen=True, slots=True)
class _Ruling:
    """An answer with its decision (`approved | refused`), its time, and how strictly duties are separated."""

    decision: str
    answer: Answer
    separation: str
    at: datetime


def approve(
    conn: Connection[Any], approver: Approver, change_id: UUID, answer: Answer, *, separation: str, at: datetime
) -> Change:
    """Record an approval of the needs (all, or the named one) whose duty the person holds; returns the change after it.

    Raises `NotFound`, `Conflict` (`change_settled`, `change_lapsed`), `Denied` (`self_approval`,
    `duty_missing`).
    """
    return _record_decision(conn, approver, change_id, _Ruling("approved", answer, separation, at))


def refuse(
    conn: Connection[Any], approver: Approver | None, change_id: UUID, answer: Answer, *, separation: str, at: datetime
) -> Change:
    """Refuse a change for good, by a duty that the person holds or as the operator (None). Raises as `approve` does."""
    if approver is None:
        change = find_change(conn, change_id)
        if change.state != "pending":
            raise settled_error(change)
        record_change(conn, "change.refused", audit.OPERATOR, change, at, comment=answer.comment)
    else:
        change = _record_decision(conn, approver, change_id, _Ruling("refused", answer, separation, at))
    store.set_state(conn, [change.id], "refused", at)
    return find_change(conn, change_id)


def withdraw(conn: Connection[Any], actor: str, change_id: UUID, *, at: datetime) -> tuple[Change, bool]:
    """Withdraw a request (a pending change) or an approval of the actor. Returns the change, and whether served content
    lost its approval by this, so that `release` must make a blueprint without it.

    Raises `NotFound`, `Conflict` (`change_settled`, `withdraw_by_lowering`) or `Denied` (`not_yours`).
    """
    change = find_change(conn, change_id)
    mine = [a for a in change.approvals if a.is_valid and audit.person_actor(a.person_id) == actor]
    if mine and change.state == "applied" and change.type in ("budget", "company", "rule"):
        raise Conflict(
            f"{change.subject} was changed by this change and is in force",
            code="withdraw_by_lowering",
            hint="Lower a budget or a cap, or write the rule as it was, in the workspace, and apply.",
        )
    if mine:
        store.withdraw_approvals(conn, change.id, mine[0].person_id, at)
        record_change(conn, "approval.withdrawn", actor, change, at, duties=sorted({a.duty for a in mine}))
        if change.state == "applied":
            store.set_state(conn, [change.id], "withdrawn", at)
            if change.type in GATEWAY_KINDS:
                next_policy_number(conn, change.type, change.subject, True)
        return find_change(conn, change_id), change.state == "applied"
    if change.state != "pending":
        raise settled_error(change)
    if change.requested_by != actor:
        raise Denied(
            "you neither asked for this change nor approved it",
            code="not_yours",
            hint="Who asked for it can withdraw it; who holds its duties can refuse it.",
        )
    store.set_state(conn, [change.id], "withdrawn", at)
    record_change(conn, "change.withdrawn", actor, change, at)
    return find_change(conn, change_id), False


def _record_decision(conn: Connection[Any], approver: Approver, change_id: UUID, ruling: _Ruling) -> Change:
    change = find_change(conn, change_id)
    if change.state != "pending":
        raise settled_error(change)
    if ruling.decision == "approved" and change.own_end_date is not None and change.own_end_date < ruling.at.date():
        hint = "Ask for another one, with an end that is still to come."
        raise Conflict("its requested time is over", code="change_lapsed", hint=hint)
    asked = [need for need in change.needs if ruling.answer.covers(need)]
    held = _needs_held_by(conn, approver, asked)
    alone = ruling.separation == "solo" and store.count_active_people(conn) == 1
    own = rights_store.responsible_actor(conn, change.requested_by) == approver.actor
    if own and not alone and ruling.decision == "approved":
        named = (held or asked or list(change.needs))[0].duty
        raise Denied(
            f"You asked for this change; somebody else with the duty {named} must approve it.",
            code="self_approval",
            hint=_approvers_hint(conn, change.needs, approver.person_id),
        )
    if ruling.decision == "approved" and not (approver.is_proven or approver.is_demo or alone):
        raise _unproven_error(approver)
    if not held:
        duties = ", ".join(sorted({need.duty for need in asked or change.needs}))
        raise Denied(
            f"you hold none of the duties that this change waits for: {duties}",
            code="duty_missing",
            hint=_approvers_hint(conn, change.needs, approver.person_id),
        )
    for need in held:
        store.insert_approval(conn, _new_approval(change, need, approver, ruling, alone))
    detail = {
        "duties": sorted({need.duty for need in held}),
        "unseparated": alone,
        "demo": approver.is_demo,
        "proof": approver.proof,
    }
    record_change(conn, f"change.{ruling.decision}", approver.actor, change, ruling.at, **detail)
    return find_change(conn, change_id)


def _unproven_error(approver: Approver) -> Denied:
    told = "with a passkey that nobody has confirmed yet" if approver.proof == "unconfirmed" else "by a link"
    return Denied(
        f"you signed in {told}, which whoever holds the operator's token could have done: that approves nothing",
        code="approval_unproven",
        hint="Sign in with your passkey or at the company's sign-in; register a passkey on the page Sign-in.",
    )


def _needs_held_by(conn: Connection[Any], approver: Approver, asked: Iterable[Need]) -> list[Need]:
    """The needs whose duty this person holds."""
    asked = list(asked)
    holding = store.holders_of(conn, [(need.subject, need.duty) for need in asked])
    return [
        need
        for need in asked
        if any(holder.person_id == approver.person_id for holder in holding[need.subject, need.duty])
    ]


def _new_approval(change: Change, need: Need, approver: Approver, ruling: _Ruling, unseparated: bool) -> Approval:
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
        demo=approver.is_demo,
        at=ruling.at,
        proof="demo" if approver.is_demo else approver.proof,
    )


def _approvers_hint(conn: Connection[Any], needs: Iterable[Need], besides: UUID) -> str:
    """Hint that names who could approve instead."""
    needs = list(needs)
    holding = store.holders_of(conn, [(need.subject, need.duty) for need in needs])
    found = [
        f"{need.duty} of {need.subject}: {', '.join(emails) or 'nobody yet'}"
        for need in needs
        for emails in [[h.email for h in holding[need.subject, need.duty] if h.person_id != besides]]
    ]
    return f"Ask {'; '.join(found)}."
