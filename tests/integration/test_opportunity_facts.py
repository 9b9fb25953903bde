"""What calls were made of is summed by workload and deployment from the ledger, failed attempts apart."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from tests.integration.test_ledger_queries import START, add_call

from groundplan.core.database import connect
from groundplan.ledger import opportunity_store, queries
from groundplan.testing.database import Database


def test_spent_is_summed_with_what_failed_apart(database: Database) -> None:
    with connect(database.urls["owner"]) as conn:
        add_call(conn, 1, cost=Decimal(2), states=("settled", "settled"))
        add_call(conn, 2, cost=Decimal(3))
        add_call(conn, 3, workload="other", cost=Decimal(4))
        add_call(conn, -99999, cost=Decimal(50))
        call = add_call(conn, 4, cost=Decimal(1), status="failed")
        conn.execute(
            """UPDATE call SET detail = detail || '{"route": {"model": "m", "by": "rule x"}}' WHERE id = %s""", (call,)
        )
        rows = opportunity_store.spent(conn, START, "assistant")
        told = queries.receipt(conn, call)
    found = {row["deployment"]: row for row in rows}
    assert set(found) == {"own-0", "own-1"}
    assert (found["own-1"]["calls"], found["own-1"]["cost_usd"]) == (1, Decimal(2))
    assert (found["own-0"]["calls"], found["own-0"]["cost_usd"], found["own-0"]["input"]) == (3, Decimal(4), 21)
    assert (found["own-0"]["wasted_usd"], found["own-0"]["wasted_attempts"]) == (Decimal(1), 1)
    assert told["route"] == {"model": "m", "by": "rule x"}


def test_only_the_days_asked_for_count(database: Database) -> None:
    with connect(database.urls["owner"]) as conn:
        add_call(conn, 1, cost=Decimal(2))
        assert opportunity_store.spent(conn, START + timedelta(days=1)) == []
        assert len(opportunity_store.spent(conn, START - timedelta(days=1))) == 1
