"""What plans read of days is what the calls of these days say: exactly, or within 2 % where it is a median."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.ledger import daily_store, rollup_store
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
NOW = datetime(2026, 11, 24, 15, 20, tzinfo=UTC)
SINCE = NOW - timedelta(days=6)
DAY = datetime(2026, 11, 18, tzinfo=UTC)
PEOPLE = [new_id() for _ in range(4)]


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as opened:
        yield opened


def add(conn: Conn, at: datetime, **more: Any) -> None:
    row = {
        "id": new_id(), "at": at, "workload": "support", "status": "ok", "deployment": "first", "person": PEOPLE[0],
        "cache": "none", "first": 10.0, "whole": 110.0, "tokens": 11, "outcome": "ok", **more,
    }  # fmt: skip
    conn.execute(
        """INSERT INTO call (id, at, workload, endpoint, status, http_status, deployment, cost_usd, reserved_usd,
             blueprint, epoch, first_byte_ms, duration_ms, prompt_tokens, completion_tokens, person_id, cache, detail)
           VALUES (%(id)s, %(at)s, %(workload)s, 'chat', %(status)s, 200, %(deployment)s, 0.5, 1, 1, %(id)s, %(first)s,
             %(whole)s, 20, %(tokens)s, %(person)s, %(cache)s, '{}')""",
        row,
    )
    conn.execute(
        """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, reserved_usd, cost_usd,
             usage, epoch)
           VALUES (%(id)s, 0, %(at)s, %(deployment)s, 's', 'm', 'settled', %(outcome)s, 1, 0.5, '{}', %(id)s)""",
        row,
    )


def made_up(conn: Conn, count: int) -> None:
    chance = Random(7)
    for number in range(count):
        status = chance.choice(["ok", "ok", "ok", "cancelled", "failed", "refused"])
        add(
            conn,
            NOW - timedelta(minutes=chance.randint(0, 9 * 24 * 60), seconds=number % 60),
            workload=chance.choice(["support", "support", "finance"]), status=status,
            deployment=chance.choice(["first", "second"]), person=chance.choice([None, *PEOPLE]),
            cache=chance.choice(["none", "none", "exact"]), first=chance.uniform(5, 500),
            whole=chance.uniform(500, 5000), tokens=chance.randint(2, 400),
            outcome="ok" if status != "failed" else "failed",
        )  # fmt: skip
        if number % 50 == 0:
            rollup_store.roll_up(conn)


def test_days_of_workloads_are_those_of_their_calls(conn: Conn) -> None:
    made_up(conn, 400)
    expected = conn.execute(
        """SELECT workload, (at AT TIME ZONE 'UTC')::date::text, count(*), sum(cost_usd)::float,
             sum(prompt_tokens + completion_tokens),
             (count(*) FILTER (WHERE status IN ('ok', 'cancelled')))::float / count(*),
             percentile_disc(0.5) WITHIN GROUP (ORDER BY first_byte_ms) FILTER (WHERE status = 'ok'),
             percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE status = 'ok'),
             count(DISTINCT person_id)
           FROM call WHERE at >= %s AND status <> 'refused' GROUP BY 1, 2 ORDER BY 1, 2""",
        (DAY,),
    ).fetchall()
    names = ("workload", "day", "calls", "usd", "tokens", "availability")
    found = daily_store.workload_days(conn, SINCE)
    assert len(found) == 14, "whole days, the first of them too"
    assert [tuple(row[name] for name in names) for row in found] == [row[:6] for row in expected]
    for row, (*_, first, _, _) in zip(found, expected, strict=True):
        assert row["first_token_ms"] == pytest.approx(first, rel=0.02) and row["duration_ms"] is None
    for workload in ("support", "finance"):
        mine = [row for row in expected if row[0] == workload]
        for row, facts in zip(daily_store.workload_days(conn, SINCE, workload), mine, strict=True):
            assert (row["calls"], row["first_token_ms"], row["duration_ms"]) == (
                facts[2], pytest.approx(facts[6], rel=0.02), pytest.approx(facts[7], rel=0.02),
            )  # fmt: skip
        assert daily_store.people_days(conn, SINCE, workload) == {row[1]: row[8] for row in mine}


def test_what_few_calls_of_deployments_took_is_of_all_of_them(conn: Conn) -> None:
    made_up(conn, 400)
    served = """status = 'ok' AND cache = 'none'"""
    per_token = """percentile_cont(0.5) WITHIN GROUP (ORDER BY
      greatest(duration_ms - first_byte_ms, 0) / greatest(completion_tokens - 1, 1))"""
    expected = conn.execute(
        f"""SELECT deployment, percentile_cont(0.5) WITHIN GROUP (ORDER BY first_byte_ms), {per_token}, count(*),
              (SELECT (count(*) FILTER (WHERE outcome = 'ok'))::float / count(*) FROM attempt a
               WHERE a.deployment = c.deployment AND a.at >= %s)
            FROM call c WHERE at >= %s AND {served} GROUP BY 1 ORDER BY 1""".encode(),
        (DAY, SINCE),
    ).fetchall()
    names = ("deployment", "first_token_ms", "per_token_ms", "calls", "availability")
    times = daily_store.deployment_times(conn, SINCE, NOW)
    assert [tuple(row[name] for name in names) for row in times] == expected
    days = conn.execute(
        f"""SELECT deployment, (at AT TIME ZONE 'UTC')::date::text, count(*), avg(prompt_tokens)::float,
              avg(completion_tokens)::float, sum(duration_ms),
              percentile_cont(0.5) WITHIN GROUP (ORDER BY first_byte_ms), {per_token}
            FROM call WHERE at >= %s AND {served} GROUP BY 1, 2 HAVING count(*) >= 5 ORDER BY 1, 2""".encode(),
        (DAY,),
    ).fetchall()
    found = daily_store.deployment_days(conn, DAY, NOW)
    assert [tuple(row.values())[:2] for row in found] == [row[:2] for row in days]
    for row, facts in zip(found, days, strict=True):
        assert tuple(row.values())[2:] == pytest.approx(facts[2:])


def test_of_many_calls_of_an_hour_the_newest_are_looked_at_and_all_are_counted(
    conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 calls, 21 are in the hour of NOW; one failed. Looked at are 10 and 11 that were answered."""
    monkeypatch.setattr(daily_store, "SAMPLE", 11)
    for number in range(40):
        add(conn, NOW - timedelta(minutes=number), whole=200 if number < 21 else 1000, first=20 if number < 21 else 90)
    add(conn, NOW - timedelta(minutes=2), outcome="failed", status="failed")
    (row,) = daily_store.deployment_days(conn, DAY, NOW)
    assert (row["calls"], row["first_token_ms"]) == (40, 90)
    assert row["busy_ms"] == pytest.approx(40 * (10 * 200 + 11 * 1000) / 21)
    (times,) = daily_store.deployment_times(conn, DAY, NOW)
    assert (times["calls"], times["availability"]) == (21, pytest.approx(40 / 41))
