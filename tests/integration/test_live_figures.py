"""What the overview tells of the last minute: which sites fail, and how many calls each workload gets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.ledger import rollup_store, traffic, traffic_store
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"], autocommit=True) as opened:
        yield opened


@pytest.fixture
def shipper(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as opened:
        yield opened


def attempt(
    conn: Conn,
    site: str,
    outcome: str,
    number: int = 0,
    call: Any = None,
    *,
    deployment: str = "one",
    status: int = 200,
) -> Any:
    """One attempt now; open with an empty outcome."""
    id = call or new_id()
    conn.execute(
        """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, http_status, reserved_usd,
             cost_usd, usage, epoch, workload)
           VALUES (%s, %s, now(), %s, %s, 'acme/one', %s, %s, %s, 1, 0, '{}', %s, 'assistant')""",
        (id, number, deployment, site, "settled" if outcome else "open", outcome, status, new_id()),
    )
    time.sleep(0.002)  # ids are ordered by the millisecond
    return id


SITES = {"one": "here", "two": "here", "away": "there"}


def failing(conn: Conn) -> set[str]:
    return set(traffic.failing_deployments(conn, datetime.now(UTC) - timedelta(seconds=60), SITES))


def test_a_deployment_fails_while_its_newest_attempt_did(conn: Conn, shipper: Conn) -> None:
    attempt(shipper, "here", "ok")
    assert failing(conn) == set()
    call = attempt(shipper, "here", "failed")
    attempt(shipper, "there", "not_billed", deployment="away")
    attempt(shipper, "there", "", deployment="away")
    assert failing(conn) == {"one", "away"}
    attempt(shipper, "here", "ok", 1, call)
    assert failing(conn) == {"away"}
    attempt(shipper, "here", "failed", deployment="two")
    assert failing(conn) == {"two", "away"}
    attempt(shipper, "there", "ok", deployment="two")
    assert failing(conn) == {"two", "away"}, "what it did at another site says nothing"


def test_a_deployment_that_refuses_a_wrong_request_does_not_fail(conn: Conn, shipper: Conn) -> None:
    attempt(shipper, "here", "not_billed", status=400)
    assert failing(conn) == set()
    attempt(shipper, "here", "failed", status=503)
    attempt(shipper, "here", "not_billed", status=400)
    assert failing(conn) == {"one"}, "the newest that tells something failed"
    attempt(shipper, "here", "ok")
    attempt(shipper, "here", "not_billed", status=400)
    assert failing(conn) == set()


def test_no_response_at_all_is_told_from_an_error(conn: Conn, shipper: Conn) -> None:
    attempt(shipper, "here", "failed", status=0)
    attempt(shipper, "here", "failed", deployment="two", status=500)
    since = datetime.now(UTC) - timedelta(seconds=60)
    assert traffic.failing_deployments(conn, since, SITES) == {"one": True, "two": False}


def test_a_deployment_that_nobody_tries_fails_while_a_breaker_is_open(conn: Conn, shipper: Conn) -> None:
    health = {"one": "open: it asked to be called later", "two": "half_open: 3 failures in a row", "away": "open: slow"}
    shipper.execute(
        "INSERT INTO gateway (epoch, host, home, pid, state, heartbeat_at, health)"
        " VALUES (%s, 'h', 'h', 1, 'live', now(), %s)",
        (new_id(), Jsonb(health)),
    )
    attempt(shipper, "there", "ok", deployment="away")
    assert failing(conn) == {"one"}, "the newest attempt at another worker was answered"


def test_what_was_folded_counts_as_well_and_what_is_long_ago_does_not(conn: Conn, shipper: Conn) -> None:
    attempt(shipper, "here", "failed")
    for outcome, names in (("", {"one"}), ("ok", set()), ("failed", {"one"})):  # all within a step or two
        attempt(shipper, "here", outcome)
        rollup_store.roll_up(shipper)
        assert failing(conn) == names
    time.sleep(0.05)
    assert traffic.failing_deployments(conn, datetime.now(UTC), SITES) == {}


def call(conn: Conn, workload: str, at: datetime, status: str = "ok") -> Any:
    id = new_id()
    conn.execute(
        """INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint, epoch,
             duration_ms, detail) VALUES (%s, %s, %s, 'chat', %s, 200, 0, 0, 1, %s, 1, '{}')""",
        (id, at, workload, status, new_id()),
    )
    return id


def test_calls_a_minute_are_those_of_the_last_one(conn: Conn, shipper: Conn) -> None:
    now = datetime.now(UTC)
    for ago in (1, 20, 50, 70):
        call(shipper, "assistant", now - timedelta(seconds=ago))
    call(shipper, "assistant", now - timedelta(seconds=1), "refused")
    call(shipper, "search", now - timedelta(seconds=5))
    assert traffic.calls_per_minute(conn, now) == {"assistant": 3.0, "search": 1.0}


@pytest.mark.parametrize("second", [0, 0.5, 1, 4, 9.9])
def test_of_many_calls_those_of_six_whole_steps_are_told(
    conn: Conn, shipper: Conn, monkeypatch: pytest.MonkeyPatch, second: float
) -> None:
    """Up to the newest step that is over for a second; folded or not."""
    monkeypatch.setattr(traffic, "EXACT_BELOW", 2)
    monkeypatch.setattr(traffic_store, "count_newest_calls", None)
    began = datetime(2026, 11, 25, 12, 0, tzinfo=UTC) - timedelta(seconds=0 if second >= 1 else 10)
    for ago in (-0.1, 0.1, 10, 20, 59.9, 60, 60.1, 70):
        call(shipper, "assistant", began - timedelta(seconds=ago))
    call(shipper, "assistant", began - timedelta(seconds=5), "refused")
    call(shipper, "search", began + timedelta(seconds=1))
    now = datetime(2026, 11, 25, 12, 0, tzinfo=UTC) + timedelta(seconds=second)
    for _ in range(2):
        assert traffic.calls_per_minute(conn, now) == {"assistant": 5.0}
        rollup_store.roll_up(shipper)


def test_the_site_that_answers_is_that_of_the_newest_answer(conn: Conn, shipper: Conn) -> None:
    """Also of a call that began long before, and among calls that a cache answered; what failed tells nothing."""
    now = datetime.now(UTC)

    def answered(workload: str, began: float, site: str, tried: float, outcome: str = "ok") -> None:
        id = call(shipper, workload, now - timedelta(seconds=began))
        shipper.execute(
            """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, http_status,
                 reserved_usd, cost_usd, usage, epoch, workload)
               VALUES (%s, 0, %s, 'one', %s, 'acme/one', 'settled', %s, 200, 1, 0, '{}', %s, %s)""",
            (id, now - timedelta(seconds=tried), site, outcome, new_id(), workload),
        )

    answered("assistant", 4, "cloud", 4)
    answered("assistant", 45, "rack", 2)
    answered("assistant", 1, "cloud", 1, "failed")
    call(shipper, "assistant", now)
    answered("search", 3, "cloud", 3)
    answered("old", 20, "cloud", 20)
    answered("unasked", 1, "cloud", 1)
    found = traffic.answering_sites(conn, ["assistant", "old", "search"], now - timedelta(seconds=10))
    assert found == {"assistant": "rack", "search": "cloud"}
