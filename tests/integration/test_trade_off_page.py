"""The trade-off of a workload over the API and in the console: points from the ledger, an empty state that says what to
do, and nothing of a workload that is not served."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.integration.test_api_control import run_control

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Database


def fill(url: str) -> None:
    """40 calls each of a good dear model, chosen by a rule, and of a cheap one; every second answer was judged."""
    at = datetime.now(UTC) - timedelta(hours=1)
    with connect(url, autocommit=True) as conn:
        for model, cost, good, route in (("acme/large", 0.01, 19, {"by": "rule legal"}), ("acme/mini", 0.001, 14, {})):
            rows: list[tuple[Any, ...]] = [
                (new_id(), at, "assistant", None, None, "care", "chat", "ok", 200, None, model, "own", "rack", cost, 0,
                 80, 20, "none", 1, new_id(), False, 900.0 + i, 300.0 + i, {"route": route} if route else {}, 0, 0)
                for i in range(40)
            ]  # fmt: skip
            ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
            for number, row in enumerate(rows[::2]):
                conn.execute(
                    "INSERT INTO outcome (id, call_id, accepted, by) VALUES (%s, %s, %s, 'ana')",
                    (new_id(), row[0], number < good),
                )


def test_points_come_from_the_ledger_and_are_drawn(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path, module="groundplan.console.app") as control:
        signed = control.follow_link()
        empty = control.ask("GET", "/cost/trade-off", **signed)
        assert (empty.status, "A point needs five calls" in str(empty.body)) == (200, True)
        assert control.ask("GET", "/api/routing/trade-off?workload=nobody").status == 404
        fill(database.urls["owner"])
        found = control.ask("GET", "/api/routing/trade-off?workload=assistant").body
        points = {point["name"]: point for point in found["points"]}
        assert set(points) == {"acme/large", "acme/mini", "rule legal"}
        mini = points["acme/mini"]
        assert (mini["calls"], mini["quality"]["mean"], mini["quality_from"]) == (40, 0.7, "accepted")
        assert mini["quality"]["low"] < 0.7 < mini["quality"]["high"]
        assert round(mini["cost"]["mean"], 6) == 0.001
        assert mini["frontier"] and points["acme/large"]["frontier"]
        page = str(control.ask("GET", "/cost/trade-off?workload=assistant", **signed).body)
        assert "<svg" in page and "acme/mini" in page and "frontier" in page
