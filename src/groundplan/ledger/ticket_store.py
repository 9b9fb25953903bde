"""The SQL of tickets: the state of a ticket as an outcome of the calls that worked on it, and the cost of these calls.

The database chooses the call that represents a ticket (`tell_ticket`), so that the ticket counts once, whoever reports
it. One statement reports one ticket; reporting the same event again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, LiteralString
from uuid import UUID

import msgspec
from psycopg import AsyncConnection, Connection

from groundplan.core.database import select
from groundplan.core.errors import Conflict, NotFound

TICKET_FORM: Final = r"[A-Za-z0-9#][A-Za-z0-9._/#:-]{0,63}"
State = Literal["resolved", "unresolved", "open"]
"""`unresolved`: reopened, or closed without being solved. `open`: being worked on; this takes back an earlier
`resolved` and otherwise has no effect."""

_REPORT: LiteralString = """SELECT told_id, told_call, told_workload, told_as FROM tell_ticket(
    %(ticket)s, %(workload)s, %(event)s, %(accepted)s, %(value_usd)s, %(at)s, %(by)s, %(only_back)s)"""


class TicketReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report of a ticket's state. A report with the same `event` is the same report; with `workload` only the
    ticket's calls of that workload count."""

    ticket: str
    state: State
    at: datetime
    event: str
    by: str
    value_usd: Decimal | None = None
    workload: str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "ticket": self.ticket, "workload": self.workload, "event": self.event, "by": self.by, "at": self.at,
            "accepted": self.state == "resolved", "value_usd": self.value_usd, "only_back": self.state == "open",
        }  # fmt: skip


class TicketOutcome(msgspec.Struct, frozen=True):
    """The outcome stored for the call that represents the ticket in one workload."""

    id: UUID
    call_id: UUID
    workload: str
    told: Literal["new", "same", "waiting"]


class DuplicateReports(msgspec.Struct, frozen=True):
    """Excess counts of tickets that several workloads worked on: what must be subtracted to count each ticket once."""

    reported: int = 0
    accepted: int = 0
    value_usd: Decimal = Decimal(0)


def report_json(told: TicketReport, kept: list[TicketOutcome]) -> dict[str, Any]:
    """The response to a report."""
    rows = [{"id": str(e.id), "call_id": str(e.call_id), "workload": e.workload, "told": e.told} for e in kept]
    return {"ticket": told.ticket, "state": told.state, "outcomes": rows}


def report(conn: Connection[Any], told: TicketReport) -> list[TicketOutcome]:
    """Store a report. Raises `NotFound` (`ticket_unknown`) and `Conflict` (`outcome_differs`)."""
    return _check_rows(conn.execute(_REPORT, told.parameters).fetchall(), told)


async def report_async(conn: AsyncConnection[Any], told: TicketReport) -> list[TicketOutcome]:
    """`report` for a request path; the connection is in autocommit mode."""
    return _check_rows(await (await conn.execute(_REPORT, told.parameters)).fetchall(), told)


def workloads_by_ticket(conn: Connection[Any], tickets: list[str]) -> dict[str, frozenset[str]]:
    """Ticket -> workloads of the calls that worked on it; tickets without calls are left out."""
    rows = conn.execute(
        "SELECT ticket, array_agg(DISTINCT workload) FROM ticket_call WHERE ticket = ANY(%s) GROUP BY ticket",
        (tickets,),
    ).fetchall()
    return {ticket: frozenset(workloads) for ticket, workloads in rows}


def _check_rows(rows: list[tuple[Any, ...]], told: TicketReport) -> list[TicketOutcome]:
    if not rows:
        of = f" of the workload {told.workload}" if told.workload else ""
        raise NotFound(
            f"no call{of} worked on the ticket {told.ticket}",
            code="ticket_unknown",
            hint="Send the header groundplan-ticket with its calls; they appear within a second.",
        )
    if any(row[3] == "differs" for row in rows):
        raise Conflict(
            f"the same was told of the ticket {told.ticket} before, and said something else",
            code="outcome_differs",
            hint="What was told is not changed; tell it under another `id`, or with another time.",
        )
    return [TicketOutcome(*row) for row in rows]


def by_workload(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> list[dict[str, Any]]:
    """(workload, resolved, unresolved, calls, cost_usd, resolved_usd, value_usd) of tickets whose last report is from
    that time, with all their calls of any time."""
    return select(
        conn,
        """WITH told AS MATERIALIZED (
                 SELECT ticket, workload, accepted, value_usd FROM ticket_told
                 WHERE at >= %(since)s AND at < %(until)s AND (%(workload)s::text IS NULL OR workload = %(workload)s)),
               tickets AS (
                 SELECT workload, count(*) FILTER (WHERE accepted) AS resolved,
                   count(*) FILTER (WHERE NOT accepted) AS unresolved,
                   coalesce(sum(value_usd) FILTER (WHERE accepted), 0) AS value_usd
                 FROM told GROUP BY 1)
               SELECT workload, t.resolved, t.unresolved, s.calls, s.cost_usd, s.resolved_usd, t.value_usd
               FROM tickets t JOIN (
                 SELECT workload, count(*) FILTER (WHERE c.asked) AS calls, sum(c.cost_usd) AS cost_usd,
                   coalesce(sum(c.cost_usd) FILTER (WHERE told.accepted), 0) AS resolved_usd
                 FROM told JOIN ticket_call c USING (ticket, workload) GROUP BY 1) s USING (workload) ORDER BY 1""",
        {"since": since, "until": until, "workload": workload},
    )


def duplicate_reports(
    conn: Connection[Any], since: datetime, until: datetime, workloads: Sequence[str]
) -> DuplicateReports:
    """The excess of tickets that were reported to several of these workloads: reports, acceptances and values beyond
    one per ticket. Tickets belong to the day of the call that represents them, like outcomes."""
    row = conn.execute(
        """WITH told AS (
             SELECT k.ticket, count(*) AS reported, count(*) FILTER (WHERE k.accepted) AS accepted,
               coalesce(sum(k.value_usd) FILTER (WHERE k.accepted), 0) AS value_usd,
               coalesce(max(k.value_usd) FILTER (WHERE k.accepted), 0) AS once
             FROM ticket_told k JOIN outcome o ON o.id = k.id JOIN ticket_call t ON t.call_id = o.call_id
             WHERE k.workload = ANY(%(workloads)s) AND t.at >= date_trunc('day', %(since)s::timestamptz, 'UTC')
               AND t.at < %(until)s GROUP BY 1 HAVING count(*) > 1)
           SELECT coalesce(sum(reported - 1), 0)::bigint, coalesce(sum(greatest(accepted - 1, 0)), 0)::bigint,
             coalesce(sum(value_usd - once), 0) FROM told""",
        {"workloads": list(workloads), "since": since, "until": until},
    ).fetchone()
    assert row is not None
    return DuplicateReports(int(row[0]), int(row[1]), Decimal(row[2]))
