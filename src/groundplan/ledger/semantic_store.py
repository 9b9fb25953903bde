"""The SQL of daily figures of semantic matching, to which gateways add. Evaluates nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

from psycopg import Connection

from groundplan.core.database import select


def totals_by_workload(conn: Connection[Any], since: date) -> list[dict[str, Any]]:
    """(workload, looked, given, checked, wrong, spent_us, saved_usd) since that day, the largest savings first."""
    return select(
        conn,
        """SELECT workload, sum(looked)::bigint AS looked, sum(given)::bigint AS given,
                 sum(checked)::bigint AS checked, sum(wrong)::bigint AS wrong, sum(spent_us)::bigint AS spent_us,
                 sum(saved_usd) AS saved_usd
               FROM semantic_day WHERE day >= %s
               GROUP BY workload ORDER BY sum(saved_usd) DESC, workload""",
        (since,),
    )


def lookup_time_by_day(conn: Connection[Any], since: date, until: date) -> list[dict[str, Any]]:
    """(day, workload, spent_us) of look-ups on these days."""
    return select(
        conn,
        """SELECT day, workload, spent_us FROM semantic_day WHERE day BETWEEN %s AND %s AND spent_us > 0
               ORDER BY day, workload""",
        (since, until),
    )
