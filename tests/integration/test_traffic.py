"""Traffic of the last minutes and health of deployments, from a real ledger."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from msgspec.structs import replace
from tests.unit.test_release_units import PLACE, WORKLOAD, blueprint

from groundplan.api.routes.traffic import deployment_sites
from groundplan.core.ids import new_id
from groundplan.ledger import rollup_store, traffic, traffic_store
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


def test_times_of_many_calls_are_of_a_sample_in_which_steps_weigh_as_they_were_called(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 quick calls at once, of which 30 are looked at, and a slow one in each of 20 other steps."""
    monkeypatch.setattr(traffic_store, "SAMPLE_ABOVE", 419)
    with psycopg.connect(database.superuser) as conn:
        for place in range(400):
            put(conn, 5, ms=10, workload="w" if place % 2 else "v", deployment="d" if place % 4 else "e")
        for place in range(20):
            put(conn, 20 + 10 * place, ms=1_000)
        put(conn, 25, "refused")
        put(conn, 25, "failed", ms=9_000)
        found = traffic.traffic(conn, NOW, 5)
        assert found["sampled"] and (found["p50_ms"], found["p95_ms"]) == (10, 10)
        assert [step["p95_ms"] for step in found["steps"] if step["ok"]] == [1_000] * 20 + [10]
        assert (found["calls"], found["refused"], found["failed"], found["cost_usd"]) == (
            422, 1, 1, "211.000000000000",
        )  # fmt: skip
        one = traffic.traffic(conn, NOW, 5, workload="w")
        assert not one["sampled"] and one["calls"] == 222, "each workload has few enough"
        monkeypatch.setattr(traffic_store, "SAMPLE_ABOVE", 100)
        one = traffic.traffic(conn, NOW, 5, workload="w", deployment="d")
        assert (one["sampled"], one["calls"], one["p50_ms"]) == (True, 222, 10)
        assert one["p95_ms"] == 1_000, "20 of 220"
        assert traffic.traffic(conn, NOW, 5, status="failed")["p95_ms"] is None
        assert traffic.traffic(conn, NOW, 5, workload="nobody")["calls"] == 0


def worker(conn: Any, health: dict[str, str], ago: str = "0s", state: str = "live") -> None:
    conn.execute(
        """INSERT INTO gateway (epoch, host, home, pid, state, heartbeat_at, health)
           VALUES (%s, 'h', 'h', 1, %s, now() - %s::interval, %s)""",
        (new_id(), state, ago, json.dumps(health)),
    )


@pytest.mark.parametrize("many", [1, 2])
def test_a_deployment_is_as_the_worst_living_worker_sees_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Its first byte is of a sample with more attempts than `many`."""
    monkeypatch.setattr(traffic_store, "SAMPLE_ABOVE", many)
    with psycopg.connect(database.superuser) as conn:
        for health in ({"a": "open: it fails"}, {"a": "half_open: it was slow", "b": "half_open: "}):
            worker(conn, health)
        for count in (9, 12):
            worker(conn, {"d": f"open: {count} failures in a row"})
        worker(conn, {"e": "closed: the key env:A rests: not accepted"})
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
        found = traffic.deployment_health(conn, datetime.now(UTC), 15, [(name, "s") for name in "abcde"])
    assert [(one["state"], one["workers_open"], one["workers"]) for one in found] == [
        ("open", 2, 5), ("half_open", 1, 5), ("closed", 0, 5), ("open", 2, 5), ("closed", 0, 5),
    ]  # fmt: skip
    whys = ["it fails", "", "", "12 failures in a row", "the key env:A rests: not accepted"]
    assert [one["why"] for one in found] == whys, "each reason once"
    assert (found[0]["attempts"], found[0]["ok"], found[0]["failed"], found[0]["first_byte_p95_ms"]) == (2, 1, 1, 7)
    assert found[2]["attempts"] == 0 and found[2]["last_ok"] is None


def test_an_attempt_counts_once_it_is_settled(database: Database) -> None:
    now = datetime.now(UTC)
    with psycopg.connect(database.superuser) as conn:
        call, epoch = new_id(), new_id()
        conn.execute(
            """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, reserved_usd,
                 cost_usd, usage, epoch) VALUES (%s, 0, %s, 'a', 's', 'm', 'open', '', 1, 0, '{}', %s)""",
            (call, now, epoch),
        )
        assert traffic.deployment_health(conn, now, 15, [("a", "s")])[0]["attempts"] == 0
        conn.execute("UPDATE attempt SET state = 'settled', outcome = 'failed' WHERE call_id = %s", (call,))
        conn.execute("UPDATE attempt SET flags = '{seen}' WHERE call_id = %s", (call,))
        found = traffic.deployment_health(conn, now, 15, [("a", "s")])[0]
        assert (found["attempts"], found["ok"], found["failed"], found["last_ok"]) == (1, 0, 1, None)
        assert set(traffic.failing_deployments(conn, now - timedelta(seconds=60), {"a": "s"})) == {"a"}


def test_wrong_requests_are_no_failures_of_their_deployment(database: Database) -> None:
    """What callers sent wrongly says nothing about the deployment that refused it; folded or not."""
    with psycopg.connect(database.superuser) as conn:
        for outcome, status in (
            ("not_billed", 400), ("failed", 413), ("not_billed", 422), ("failed", 500), ("not_billed", 429),
            ("failed", None), ("ok", 200), ("cancelled", 400),
        ):  # fmt: skip
            conn.execute(
                """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, http_status,
                     reserved_usd, cost_usd, usage, epoch)
                   VALUES (%s, 0, now(), 'a', 's', 'm', 'settled', %s, %s, 1, 0, '{}', %s)""",
                (new_id(), outcome, status, new_id()),
            )
        for _ in range(2):
            found = traffic.deployment_health(conn, datetime.now(UTC), 15, [("a", "s")])[0]
            counts = [found[name] for name in ("attempts", "ok", "failed", "wrong_requests")]
            assert counts == [8, 1, 3, 3]
            rollup_store.roll_up(conn)


def test_without_a_worker_nobody_knows(database: Database) -> None:
    with psycopg.connect(database.superuser) as conn:
        assert traffic.deployment_health(conn, NOW, 15, [("a", "s")])[0]["state"] == "unknown"


def test_a_look_that_takes_too_long_is_given_up(database: Database) -> None:
    with psycopg.connect(database.superuser) as conn:
        traffic_store.limit_time(conn, 50)
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(5)")
        conn.rollback()
        assert conn.execute("SELECT current_setting('statement_timeout')").fetchone() == ("0",), "for this look only"


def test_of_one_workload_only_its_own_deployments_are_reported() -> None:
    """The page of its calls would otherwise say that deployments fail which it never uses."""
    other = replace(PLACE, name="other")
    plan = replace(blueprint(replace(WORKLOAD, deployments=[PLACE.name])), deployments=[PLACE, other])
    assert deployment_sites(plan, None, None) == [(PLACE.name, PLACE.site), ("other", PLACE.site)]
    assert deployment_sites(plan, WORKLOAD.name, None) == [(PLACE.name, PLACE.site)]
    assert deployment_sites(plan, None, "other") == [("other", PLACE.site)]
    assert deployment_sites(plan, "unknown", None) == []
