"""Reads what the sums of charges add up to, for tests that compare them with the charges."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from psycopg import Connection


def charges_by_period(conn: Connection[Any]) -> dict[tuple[str, str], Decimal]:
    """(budget, period) -> USD charged, for every period."""
    rows = conn.execute(
        """SELECT budget, period, sum(cost_usd) FROM (
             SELECT * FROM charge_total UNION ALL SELECT * FROM charge_delta) c GROUP BY 1, 2"""
    )
    return {(budget, period): usd for budget, period, usd in rows}
