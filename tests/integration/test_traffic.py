"""Traffic of the last minutes and health of deployments, from a real ledger."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.core.ids import new_id
from groundplan.ledger import traffic, traffic_store
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 25, 12, 0, 3, tzinfo=UTC)


def put(conn: Any, ago: float, status: str = "ok", workload: str = "w", deployment: str = "d", ms: float = 10) -> UUID:
    call = new_id()
    conn.execute(
        """INSERT INTO call (id, at, workload, endpoint, status, http_status, deployment, cost_usd, reserved_usd,
             blueprint, epoch, duration_ms, detail) VALUES (%s, %s, %s, 'e', %s, 200, %s, 0.5, 1, 1, %s, %s, '{}')""",
        (call, NOW - timedelta(seconds=ago), workload, status, deployment, new_id(), ms),
    )
    return call


def test_steps_of_ten_seconds_cover_all_of_the_time_and_add_up(database: Database) -> None:
    with psycopg.connect(database.superuser) as conn:
        for ago, status in (
            (1, "ok"),
            (2, "ok"),
            (12, "failed"),
            (14, "refused"),
            (290, "crashed"),
            (285, "cancelled"),
        ):
            put(conn, ago, status)
        put(conn, 400, "failed")
        found = traffic.traffic(conn, NOW, 5)
    assert len(found["steps"]) == 30
    first, last = (datetime.fromisoformat(found["steps"][at]["at"]) for at in (0, -1))
    assert last <= NOW < last + timedelta(seconds=10) and last - first == timedelta(seconds=290)
    assert [sum(step[name] for step in found["steps"]) for name in ("calls", "ok", "refused", "failed")] == [6, 2, 1, 2]
    assert (found["calls"], found["refused"], found["failed"]) == (6, 1, 2)
    assert found["error_share"] == 0.4, "refused calls are not the model's errors"
    assert found["per_minute"] == 1.2 and found["cost_usd"] == "3.000000000000"


def test_percentiles_are_of_answered_calls_and_filters_hold(database: Database) -> None:
    with psycopg.connect(database.superuser) as conn:
        for ms in range(1, 101):
            put(conn, 5, ms=float(ms))
        put(conn, 5, "failed", ms=9_000)
        put(conn, 5, workload="other", deployment="e", ms=5_000)
        found = traffic.traffic(conn, NOW, 5, workload="w")
        assert found["p50_ms"] == 50.5 and 95 <= found["p95_ms"] <= 96
        assert traffic.traffic(conn, NOW, 5, deployment="e")["p50_ms"] == 5_000
        assert traffic.traffic(conn, NOW, 5, status="failed")["calls"] == 1
        assert traffic.traffic(conn, NOW, 5, workload="nobody")["p95_ms"] is None


def worker(conn: Any, health: dict[str, str], ago: str = "0s", state: str = "live") -> None:
    conn.execute(
        """INSERT INTO gateway (epoch, host, home, pid, state, heartbeat_at, health)
           VALUES (%s, 'h', 'h', 1, %s, now() - %s::interval, %s)""",
        (new_id(), state, ago, json.dumps(health)),
    )


def test_a_deployment_is_as_the_worst_living_worker_sees_it(database: Database) -> None:
    with psycopg.connect(database.superuser) as conn:
        for health in ({"a": "open: it fails"}, {"a": "half_open: it was slow", "b": "half_open: "}):
            worker(conn, health)
        worker(conn, {"c": "open"}, ago="1h")
        worker(conn, {"c": "open"}, state="stopped")
        call = new_id()
        conn.execute(
            """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, reserved_usd,
                 cost_usd, usage, epoch, first_byte_ms)
               VALUES (%s, 0, now(), 'a', 's', 'm', 'settled', 'ok', 1, 1, '{}', %s, 7),
                 (%s, 1, now(), 'a', 's', 'm', 'settled', 'failed', 1, 1, '{}', %s, NULL)""",
            (call, new_id(), call, new_id()),
        )
        found = traffic.deployments(conn, datetime.now(UTC), 15, [(name, "s") for name in "abc"])
    assert [(one["state"], one["workers_open"], one["workers"]) for one in found] == [
        ("open", 2, 2), ("half_open", 1, 2), ("closed", 0, 2),
    ]  # fmt: skip
    assert [one["why"] for one in found] == ["it fails", "", ""]
    assert (found[0]["attempts"], found[0]["ok"], found[0]["failed"], found[0]["first_byte_p95_ms"]) == (2, 1, 1, 7)
    assert found[2]["attempts"] == 0 and found[2]["last_ok"] is None


def test_without_a_worker_nobody_knows(database: Database) -> None:
    with psycopg.connect(database.superuser) as conn:
        assert traffic.deployments(conn, NOW, 15, [("a", "s")])[0]["state"] == "unknown"


def test_a_look_that_takes_too_long_is_given_up(database: Database) -> None:
    with psycopg.connect(database.superuser) as conn:
        traffic_store.limit_time(conn, 50)
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(5)")
        conn.rollback()
        assert conn.execute("SELECT current_setting('statement_timeout')").fetchone() == ("0",), "for this look only"
