"""The SQL that deletes records of granted and returned budget slices once nothing depends on them any more.

The sums of what was charged and held in each period are kept. The caller decides which periods are over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import tuple_row


def list_periods(conn: Connection[Any]) -> list[str]:
    """All periods of all budgets, past and present."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            """WITH RECURSIVE every (period) AS (
                 SELECT min(period) FROM budget_period
                 UNION ALL SELECT (SELECT min(b.period) FROM budget_period b WHERE b.period > e.period)
                   FROM every e WHERE e.period IS NOT NULL)
               SELECT period FROM every WHERE period IS NOT NULL"""
        ).fetchall()
    return [period for (period,) in rows]


def forget_settled(conn: Connection[Any], before: datetime, over: Sequence[str]) -> int:
    """Delete a batch of records older than `before`, of slices in the periods `over`; returns the number of rows."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT forget_settled(%s, %s)", (before, list(over))).fetchone()
    return 0 if row is None else int(row[0])


def forget_ended(conn: Connection[Any], before: datetime) -> int:
    """Delete a batch of records of unlimited budgets whose keys or experiments ended before `before`, and of files that
    were deleted before then; returns the number of rows."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT forget_ended(%s)", (before,)).fetchone()
    return 0 if row is None else int(row[0])
