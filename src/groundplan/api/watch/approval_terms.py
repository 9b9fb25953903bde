"""Background check of approval terms: announces expiries, reminds the people that pending changes wait for, and ends
expired approvals.

Approvals expire by date, without anybody's decision: after the grace period the content is removed from the blueprint.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.mail import store as mail_store
from groundplan.api.watch import exception_requests
from groundplan.governance import store as governance
from groundplan.governance.model import Change, Holder
from groundplan.governance.validity import ANNOUNCEMENT_DAYS, Term, due_announcement, phase
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding
from groundplan.release import service as release

LOOK_SECONDS = 5.0
KIND = "governance.approval_ends"


def process_approval_terms(services: Services) -> list[int]:
    """Update findings, send reminders and end expired approvals; returns the numbers of the blueprints that were
    made."""
    now = services.clock.now()
    with services.transaction() as conn:
        due = governance.expiring_changes(conn, now.date() + timedelta(days=ANNOUNCEMENT_DAYS[-1]))
        ended = [change for change in due if phase(_term(change), now.date()) == "over"]
        finding_store.replace_findings(
            conn, [_finding(change, now.date()) for change in due if change not in ended], kinds=(KIND,)
        )
        for change in due:
            _mail_announcement(conn, change, now)
        exception_requests.update_exception_findings(conn, now)
        served = release.current(conn)
        every = 3 if served is None else served.workspace.company.approvals.remind_days
        _mail_reminders(conn, governance.changes(conn, ["pending"]), now, every)
    numbers: list[int] = []
    for change in ended:
        with services.transaction() as conn:
            number = services.releases.expire_approval(conn, change.id)
            numbers += [] if number is None else [number]
    return numbers


def _term(change: Change) -> Term:
    assert change.expires_on is not None
    return Term(change.expires_on, change.grace_until or change.expires_on)


def _finding(change: Change, today: date) -> Finding:
    term = _term(change)
    if phase(term, today) == "grace":
        return Finding(
            kind=KIND,
            severity="critical",
            subject=change.subject,
            mark=str(change.id),
            message=f"The approval of {_description(change)} ended on {term.expires_on}; it is in its grace period.",
            hint=f"Request it again and have it approved before {term.grace_until}: `groundplan changes renew`.",
            due=term.grace_until,
        )
    days_left = (term.expires_on - today).days
    return Finding(
        kind=KIND,
        severity="high" if days_left <= ANNOUNCEMENT_DAYS[1] else "medium",
        subject=change.subject,
        mark=str(change.id),
        message=f"The approval of {_description(change)} ends on {term.expires_on}.",
        hint="Request another one, if it is still needed."
        if change.own_end_date is not None
        else "Request it again, so that the holders of its duties decide: Governance, the change, Request again.",
        due=term.expires_on,
    )


def _mail_announcement(conn: Connection[Any], change: Change, now: datetime) -> None:
    """Mail 30, 7 and 1 days ahead to the people who would have to approve it again."""
    days = due_announcement(_term(change), now.date())
    if days is None:
        return
    text = f"The approval of {_description(change)} ends on {change.expires_on}"
    for holder in _holders(conn, change):
        mark = f"ends:{change.id}:{days}:{holder.person_id}"
        mail_store.queue_mail(conn, mark, holder.person_id, text, _page_path(change), now)


def _mail_reminders(conn: Connection[Any], changes: Sequence[Change], now: datetime, every: int) -> None:
    """Mail at once and then every few days to the people whose approval is missing, except the requester. Done for all
    changes in one go: of thousands of workloads hundreds may be pending, and this runs every few seconds."""
    holders = governance.holders_of(
        conn, [(need.subject, need.duty) for change in changes for need in change.open_needs]
    )
    mails = [
        (f"waits:{change.id}:{(now - change.requested_at).days // every}:{person}", person, text, _page_path(change))
        for change in changes
        for text in [f"{_description(change)} waits for your approval"]
        for person in dict.fromkeys(
            person.person_id for need in change.open_needs for person in holders[need.subject, need.duty]
        )
        if change.requested_by != f"person:{person}"
    ]
    mail_store.queue_mails(conn, mails, now)


def _holders(conn: Connection[Any], change: Change) -> list[Holder]:
    holding = governance.holders_of(conn, [(need.subject, need.duty) for need in change.needs])
    return list(dict.fromkeys(holder for need in change.needs for holder in holding[need.subject, need.duty]))


def _description(change: Change) -> str:
    """The change in words; approvals beside a workload's content name their type."""
    own = change.type in ("rollout", "evidence", "exception")
    return f"{change.type} of {change.subject}" if own else change.subject


def _page_path(change: Change) -> str:
    return f"/governance/changes/{change.id}"
