"""Background job: once a week, three lines to each owner: what their workloads cost, what changed, and why.

Sent on Monday for the week before, once to each person, or until Wednesday where nothing ran on Monday. Without a mail
server nothing is queued. Amounts are those of the cost book, so allocated costs count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.cost import book as cost_book
from groundplan.api.cost import daily_usage as cost_use
from groundplan.api.cost import store as cost_store
from groundplan.api.cost.book import Days
from groundplan.api.mail import store as mail_store
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.money import short_usd
from groundplan.economics.allocate.model import Line
from groundplan.economics.allocate.variance import TermCost
from groundplan.economics.allocate.variance import explain_change as of_change
from groundplan.ledger import finding_store, rollup_store
from groundplan.ledger.finding import SEVERITIES

Calls = Mapping[str, int]
LOOK_SECONDS = 3600.0
DUTIES = ("business", "product", "finance")
SEND_HOUR = 6
"""The hour of Monday, UTC, from which on it is sent."""
LAST_WEEKDAY = 2
"""The last weekday (Monday is 0) on which it is sent, if it could not be sent before."""


def queue_if_due(services: Services) -> int:
    """Queue the weekly mails if they are due; returns how many."""
    now = services.clock.now()
    if (
        services.settings.mail_url is None
        or now.weekday() > LAST_WEEKDAY
        or (now.weekday() == 0 and now.hour < SEND_HOUR)
    ):
        return 0
    with services.transaction() as conn:
        return queue_weekly_mails(conn, now)


def queue_weekly_mails(conn: Connection[Any], now: datetime) -> int:
    """Queue the mails for the week before that of `now`, in the caller's transaction; returns how many."""
    blueprint = current_or_none(conn)
    if blueprint is None:
        return 0
    monday = now.date() - timedelta(days=now.weekday())
    week = Days(monday - timedelta(days=7), monday - timedelta(days=1))
    lines, before = (cost_book.cost_lines(conn, days, monday) for days in (week, week.before))
    calls = tuple(_calls(conn, days) for days in (week, week.before))
    findings = finding_store.list_findings(conn, kinds=["cost."], closed=True, since=week.since, limit=500)
    owned: dict[str, set[str]] = {}
    for workload in blueprint.workloads:
        for duty in DUTIES:
            for email in workload.owners.get(duty, []):
                owned.setdefault(email, set()).add(workload.name)
    people = cost_store.active_people(conn, sorted(owned))
    count = 0
    for email, workloads in sorted(owned.items()):
        if email in people:
            own, then = _lines_of(lines, workloads), _lines_of(before, workloads)
            largest = _largest_change(own, then)
            unusual = _unusual_messages(findings, workloads, week, largest[0][0] if largest else "")
            text = "\n".join(three_lines(own, then, unusual, calls))
            mark = f"cost/week/{monday.isocalendar().year}-{monday.isocalendar().week:02d}/{people[email]}"
            count += mail_store.queue_mail(conn, mark, people[email], text, "/cost", now)
    return count


def three_lines(
    lines: Sequence[Line], before: Sequence[Line], unusual: Sequence[str], calls: tuple[Calls, ...] = ({}, {})
) -> list[str]:
    """Three lines: the cost, the largest change, and its reason: the parts of the change and the most relevant finding.
    `calls`: (workload -> calls) of this week and the one before."""
    now, then = (sum(line.amount for line in period_lines) for period_lines in (lines, before))
    change = f", {(now - then) / then:+,.0%} on the week before" if then > 0 else ""
    largest = _largest_change(lines, before)
    if largest is None:
        change_line = "Nothing changed."
    else:
        (workload, term), amount = largest
        sign = "+" if amount > 0 else "-"
        change_line = f"Most changed: {term} of {workload or 'nobody in particular'}, {sign}{short_usd(abs(amount))}."
    unusual_text = f"Unusual: {unusual[0]}" if unusual else "Nothing unusual was found."
    explanation = "" if largest is None else _why(largest[0], lines, before, calls)
    reason = f"Why: {explanation}. {unusual_text}" if explanation else unusual_text
    return [f"Your AI workloads cost {short_usd(now)} last week{change}.", change_line, reason]


def _why(key: tuple[str, str], lines: Sequence[Line], before: Sequence[Line], calls: tuple[Calls, ...]) -> str:
    """The parts of the change of one workload's term, and the deployment with most of it."""
    now, then = (
        [line for line in period_lines if (line.workload, line.term) == key] for period_lines in (lines, before)
    )
    explanation = of_change(
        *(_spent(period_lines, counts.get(key[0], 0)) for period_lines, counts in ((then, calls[1]), (now, calls[0])))
    )
    at: dict[str, int] = {}
    for period_lines, sign in ((now, 1), (then, -1)):
        for line in period_lines:
            at[line.deployment] = at.get(line.deployment, 0) + sign * line.amount
    deployment = max(at, key=lambda name: (abs(at[name]), name), default="")
    return f"{explanation}, mostly at {deployment}" if explanation and deployment and len(at) > 1 else explanation


def _spent(lines: Sequence[Line], calls: int) -> TermCost:
    unit = next((line.unit for line in lines if line.unit), "")
    return TermCost(sum(line.amount for line in lines), sum(line.quantity for line in lines), calls, unit)


def _calls(conn: Connection[Any], days: Days) -> Calls:
    rows = rollup_store.calls_by(conn, ["workload"], cost_use.all_calls_of(days.first, days.last))
    return {row["workload"]: int(row["calls"] or 0) for row in rows}


def _largest_change(lines: Sequence[Line], before: Sequence[Line]) -> tuple[tuple[str, str], int] | None:
    sums: dict[tuple[str, str], int] = {}
    for period_lines, sign in ((lines, 1), (before, -1)):
        for line in period_lines:
            key = (line.workload, line.term)
            sums[key] = sums.get(key, 0) + sign * line.amount
    largest = max(sums, key=lambda name: (abs(sums[name]), name), default=None)
    return None if largest is None or sums[largest] == 0 else (largest, sums[largest])


def _lines_of(lines: Sequence[Line], workloads: set[str]) -> list[Line]:
    return [line for line in lines if line.workload in workloads]


def _unusual_messages(findings: Sequence[dict[str, Any]], workloads: set[str], week: Days, changed: str) -> list[str]:
    """Messages of the week's findings with their weekday (UTC): first those of the workload that changed most, then by
    severity."""
    subjects = {f"workload/{name}" for name in workloads}
    of_week = [row for row in findings if row["subject"] in subjects and week.since <= row["at"] < week.until]
    first = sorted(
        of_week, key=lambda row: (row["subject"] != f"workload/{changed}", SEVERITIES.index(row["severity"]))
    )
    return [f"on {row['at'].astimezone(UTC):%A}, {row['message']}" for row in first]
