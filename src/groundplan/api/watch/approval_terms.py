"""Background check of approval terms: announces ends, reminds the people that pending changes wait for, ends what is
over.

Approvals end by date, without anybody's decision: after the grace period the content is removed from the blueprint.
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
    """Update findings, send reminders and end approvals; the numbers of the blueprints made because something ended."""
    now = services.clock.now()
    with services.transaction() as conn:
        due = governance.expiring_changes(conn, now.date() + timedelta(days=ANNOUNCEMENT_DAYS[-1]))
        over = [change for change in due if phase(_term(change), now.date()) == "over"]
        finding_store.replace_findings(
            conn, [_finding(each, now.date()) for each in due if each not in over], kinds=(KIND,)
        )
        for change in due:
            _mail_announcement(conn, change, now)
        exception_requests.update_exception_findings(conn, now)
        served = release.current(conn)
        every = 3 if served is None else served.workspace.company.approvals.remind_days
        _mail_reminders(conn, governance.changes(conn, ["pending"]), now, every)
    made: list[int] = []
    for change in over:
        with services.transaction() as conn:
            number = services.releases.expire_approval(conn, change.id)
            made += [] if number is None else [number]
    return made


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
    left = (term.expires_on - today).days
    return Finding(
        kind=KIND,
        severity="high" if left <= ANNOUNCEMENT_DAYS[1] else "medium",
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
    holding = governance.holders_of(conn, [(need.subject, need.duty) for each in changes for need in each.open_needs])
    told = [
        (f"waits:{each.id}:{(now - each.requested_at).days // every}:{who}", who, text, _page_path(each))
        for each in changes
        for text in [f"{_description(each)} waits for your approval"]
        for who in dict.fromkeys(who.person_id for need in each.open_needs for who in holding[need.subject, need.duty])
        if each.requested_by != f"person:{who}"
    ]
    mail_store.queue_mails(conn, told, now)


def _holders(conn: Connection[Any], change: Change) -> list[Holder]:
    holding = governance.holders_of(conn, [(need.subject, need.duty) for need in change.needs])
    return list(dict.fromkeys(holder for need in change.needs for holder in holding[need.subject, need.duty]))


def _description(change: Change) -> str:
    """The change in words; approvals beside a workload's content name their type."""
    own = change.type in ("rollout", "evidence", "exception")
    return f"{change.type} of {change.subject}" if own else change.subject


def _page_path(change: Change) -> str:
    return f"/governance/changes/{change.id}"
