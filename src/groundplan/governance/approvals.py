"""What people say to what is asked for: approve, refuse, withdraw, each in the caller's transaction and audited.

The operator never approves, but may refuse: by that less runs. Nobody approves what they, or a program with a token
that they made, asked for; only where separation is solo the one person there is may, and such approvals are marked and
no evidence.
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
from groundplan.governance.approved_parts import AT_GATEWAYS
from groundplan.governance.model import Approval, Change, Need
from groundplan.governance.service import already_settled, find_change, record_change
from groundplan.identity import rights_store
from groundplan.identity.model import PROVEN
from groundplan.identity.store import next_policy_number


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


def approve(
    conn: Connection[Any], approver: Approver, change_id: UUID, answer: Answer, *, separation: str, at: datetime
) -> Change:
    """Record an approval of the needs (all, or the named one) whose duty the person holds; returns the change after it.

    Raises `NotFound`, `Conflict` (`change_settled`, `change_lapsed`), `Denied` (`self_approval`,
    `duty_missing`).
    """
    return _decide(conn, approver, change_id, _Ruling("approved", answer, separation, at))


def refuse(
    conn: Connection[Any], approver: Approver | None, change_id: UUID, answer: Answer, *, separation: str, at: datetime
) -> Change:
    """Say no by a duty that the person holds, or as the operator (None); the change is refused for good. Raises as
    `approve` does."""
    if approver is None:
        change = find_change(conn, change_id)
        if change.state != "pending":
            raise already_settled(change)
        record_change(conn, "change.refused", audit.OPERATOR, change, at, comment=answer.comment)
    else:
        change = _decide(conn, approver, change_id, _Ruling("refused", answer, separation, at))
    store.set_state(conn, [change.id], "refused", at)
    return find_change(conn, change_id)


def withdraw(conn: Connection[Any], actor: str, change_id: UUID, *, at: datetime) -> tuple[Change, bool]:
    """Take back what the actor asked for (a pending change) or approved. Returns the change, and whether served content
    has lost its approval by it, so that `release` must make a blueprint without it.

    Raises `NotFound`, `Conflict` (`change_settled`, `withdraw_by_lowering`) or `Denied` (`not_yours`).
    """
    change = find_change(conn, change_id)
    mine = [a for a in change.approvals if a.stands and audit.person_actor(a.person_id) == actor]
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
            if change.type in AT_GATEWAYS:
                next_policy_number(conn, change.type, change.subject, True)
        return find_change(conn, change_id), change.state == "applied"
    if change.state != "pending":
        raise already_settled(change)
    if change.requested_by != actor:
        raise Denied(
            "you neither asked for this change nor approved it",
            code="not_yours",
            hint="Who asked for it can withdraw it; who holds its duties can refuse it.",
        )
    store.set_state(conn, [change.id], "withdrawn", at)
    record_change(conn, "change.withdrawn", actor, change, at)
    return find_change(conn, change_id), False


def _decide(conn: Connection[Any], approver: Approver, change_id: UUID, ruling: _Ruling) -> Change:
    change = find_change(conn, change_id)
    if change.state != "pending":
        raise already_settled(change)
    if ruling.decision == "approved" and change.ends_itself is not None and change.ends_itself < ruling.at.date():
        hint = "Ask for another one, with an end that is still to come."
        raise Conflict("its requested time is over", code="change_lapsed", hint=hint)
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
    record_change(conn, f"change.{ruling.decision}", approver.actor, change, ruling.at, **detail)
    return find_change(conn, change_id)


def _unproven(approver: Approver) -> Denied:
    told = "with a passkey that nobody has confirmed yet" if approver.proof == "unconfirmed" else "by a link"
    return Denied(
        f"you signed in {told}, which whoever holds the operator's token could have done: that approves nothing",
        code="approval_unproven",
        hint="Sign in with your passkey or at the company's sign-in; register a passkey on the page Sign-in.",
    )


def _held(conn: Connection[Any], approver: Approver, asked: Iterable[Need]) -> list[Need]:
    """The needs whose duty this person holds."""
    asked = list(asked)
    holding = store.holders_of(conn, [(need.subject, need.duty) for need in asked])
    return [
        need
        for need in asked
        if any(holder.person_id == approver.person_id for holder in holding[need.subject, need.duty])
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


def _who(conn: Connection[Any], needs: Iterable[Need], besides: UUID) -> str:
    """Who could approve instead, in words."""
    needs = list(needs)
    holding = store.holders_of(conn, [(need.subject, need.duty) for need in needs])
    found = [
        f"{need.duty} of {need.subject}: {', '.join(emails) or 'nobody yet'}"
        for need in needs
        for emails in [[h.email for h in holding[need.subject, need.duty] if h.person_id != besides]]
    ]
    return f"Ask {'; '.join(found)}."
