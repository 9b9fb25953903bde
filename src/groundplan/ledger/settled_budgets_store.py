"""The SQL that forgets what was granted of budgets and given back, once nothing follows from it any more.

What budgets cost and held in their periods stays: these are the sums of it. Which periods are over is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import tuple_row


def periods(conn: Connection[Any]) -> list[str]:
    """All that any budget has or had."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            """WITH RECURSIVE every (period) AS (
                 SELECT min(period) FROM budget_period
                 UNION ALL SELECT (SELECT min(b.period) FROM budget_period b WHERE b.period > e.period)
                   FROM every e WHERE e.period IS NOT NULL)
               SELECT period FROM every WHERE period IS NOT NULL"""
        ).fetchall()
    return [period for (period,) in rows]


def forget(conn: Connection[Any], before: datetime, over: Sequence[str]) -> int:
    """Some of what is older than that, and of slices of those periods; how many rows."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT forget_settled(%s, %s)", (before, list(over))).fetchone()
    return 0 if row is None else int(row[0])


def forget_ended(conn: Connection[Any], before: datetime) -> int:
    """Some of what was held of budgets without an end whose keys or experiments ended before that, and of files that
    were deleted before; how many rows."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT forget_ended(%s)", (before,)).fetchone()
    return 0 if row is None else int(row[0])
