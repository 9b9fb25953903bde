"""The SQL of outcomes and of quantities that declared costs charge for, by workload."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select

Row = dict[str, Any]


def review_minutes(conn: Connection[Any], since: datetime, until: datetime) -> list[Row]:
    """(day, workload, minutes, said): time that people spent on held answers which they decided on that day, UTC;
    `reported_units` is the part that they stated instead of being measured."""
    return select(
        conn,
        """SELECT (decided_at AT TIME ZONE 'UTC')::date AS day, workload, sum(minutes) AS minutes,
             coalesce(sum(minutes) FILTER (WHERE minutes_said), 0) AS said FROM held_call
           WHERE decided_at >= %(since)s AND decided_at < %(until)s AND minutes IS NOT NULL GROUP BY 1, 2""",
        {"since": since, "until": until},
    )


def review_minutes_of_call(conn: Connection[Any], call: UUID, day: date) -> tuple[Decimal, Decimal]:
    """(measured minutes, stated minutes) of reviewing an answer that was decided on that day, UTC."""
    rows = select(
        conn,
        """SELECT minutes, minutes_said FROM held_call WHERE id = %(call)s AND minutes IS NOT NULL
             AND (decided_at AT TIME ZONE 'UTC')::date = %(day)s""",
        {"call": call, "day": day},
    )
    counted, stated = (sum((r["minutes"] for r in rows if r["minutes_said"] is of), Decimal(0)) for of in (False, True))
    return counted, stated


def source_bytes(conn: Connection[Any]) -> dict[str, int]:
    """Source -> bytes of its searchable text now."""
    rows = select(
        conn,
        """SELECT d.source, sum(octet_length(c.text))::bigint AS bytes FROM chunk c
           JOIN document d ON d.id = c.document_id WHERE d.deleted_at IS NULL GROUP BY 1""",
        {},
    )
    return {row["source"]: int(row["bytes"]) for row in rows}


def outcomes(conn: Connection[Any], since: datetime, until: datetime) -> list[Row]:
    """(workload, reported, accepted, value_usd) of calls of whole days; a call counts once, by its newest outcome."""
    return select(
        conn,
        """SELECT workload, sum(reported)::bigint AS reported, sum(accepted)::bigint AS accepted,
             sum(value_usd) AS value_usd
           FROM (SELECT * FROM outcome_day UNION ALL SELECT * FROM outcome_delta) o
           WHERE hour >= date_trunc('day', %(since)s, 'UTC') AND hour < %(until)s
           GROUP BY 1 HAVING sum(reported) > 0 ORDER BY 1""",
        {"since": since, "until": until},
    )


def active_people(conn: Connection[Any], emails: list[str]) -> dict[str, UUID]:
    """email -> id of the active people among them."""
    rows = select(conn, "SELECT email, id FROM person WHERE active AND email = ANY(%(emails)s)", {"emails": emails})
    return {row["email"]: row["id"] for row in rows}
