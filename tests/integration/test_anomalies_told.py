"""The watch over the ledger: a loop becomes a finding that names who, and closes when it is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from groundplan.api import anomalies
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import finding_store
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)


def add(conn: Any, key: Any, minute: int, count: int, status: str = "ok") -> None:
    at = NOW - timedelta(minutes=minute)
    rows: list[tuple[Any, ...]] = [
        (new_id(), at, "support", None, key, "care", "chat", status, 200, None, "acme/m", "own", "rack", 0, 0, 3, 2,
         "none", 1, new_id(), False, 12.5, 3.5, {}, 0, 0)
        for _ in range(count)
    ]  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)


def test_a_loop_is_told_with_its_caller_and_closes_when_it_is_over(database: Database) -> None:
    key = new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        conn.execute(
            "INSERT INTO api_key (id, hash, prefix, workload, created_by) VALUES (%s, %s, 'gp_abc', 'support', 'test')",
            (key, key.bytes),
        )
        for minute in range(1, 6):
            add(conn, key, minute, 30, "refused" if minute == 1 else "ok")
        told = anomalies.look(conn, NOW)
        assert (told.opened, told.closed) == (1, 0)
        assert anomalies.look(conn, NOW).opened == 0
        found = finding_store.findings(conn, kinds=["cost."])[0]
        assert (found["kind"], found["subject"], found["severity"]) == ("cost.anomaly", "workload/support", "high")
        assert "(key gp_abc) makes 30 calls a minute" in found["message"]
        assert found["detail"]["kind"] == "runaway"
        assert anomalies.look(conn, NOW + timedelta(hours=2)).closed == 1


def test_a_loop_that_goes_on_stays_told(database: Database) -> None:
    key = new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        for minute in range(-240, 6):
            add(conn, key, minute, 30)
        told = anomalies.look(conn, NOW)
        assert told.opened == 1
        # as the watch that told it would have: findings are opened at the time of the database
        conn.execute("UPDATE finding SET at = %s", (NOW,))
        for hours in (1, 2, 3, 4):
            told = anomalies.look(conn, NOW + timedelta(hours=hours))
            assert (told.opened, told.kept, told.closed) == (0, 1, 0), hours
        assert anomalies.look(conn, NOW + timedelta(hours=6)).closed == 1
