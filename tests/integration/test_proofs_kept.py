"""What evidence asks of the ledger is read from kept sums, and is what every call of those days says one by one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.api.cost import store as cost_store
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.ledger import outcome_store, proof_store, rollup_store
from groundplan.ledger.outcome_store import Outcome
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
NOW = datetime(2026, 11, 24, 15, 20, tzinfo=UTC)
SINCE = datetime(2026, 10, 25, tzinfo=UTC)
RAW = """WITH mine AS MATERIALIZED (
     SELECT id, at, status, deployment, cost_usd, first_byte_ms, jsonb_array_length(detail -> 'sources') > 0 AS grounded
     FROM call WHERE workload = %(workload)s AND at >= %(since)s AND NOT demo AND status <> 'refused')
   SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM mine WHERE status = 'ok'),
     (SELECT coalesce(sum(cost_usd), 0) FROM mine), (SELECT id FROM mine ORDER BY at DESC LIMIT 1),
     (SELECT id FROM mine WHERE grounded ORDER BY at DESC LIMIT 1),
     (SELECT id FROM mine WHERE status = 'ok' AND deployment <> %(primary)s ORDER BY at DESC LIMIT 1),
     (SELECT m.id FROM (SELECT id, at FROM mine ORDER BY at DESC LIMIT 200) m WHERE EXISTS (
        SELECT 1 FROM audit_entry e WHERE e.id = m.id AND e.leaf_index IS NOT NULL) ORDER BY m.at DESC LIMIT 1),
     (SELECT count(*) FROM outcome o JOIN mine m ON m.id = o.call_id),
     (SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY first_byte_ms) FROM mine WHERE status = 'ok')"""
NAMES = (
    "calls", "ok", "cost_usd", "call", "grounded_call", "fallback_call", "logged_call", "outcomes", "first_byte_p95_ms",
)  # fmt: skip


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as opened:
        yield opened


def add(conn: Conn, at: datetime, **more: Any) -> UUID:
    row = {
        "id": new_id(), "at": at, "workload": "support", "status": "ok", "deployment": "first", "cost_usd": Decimal(1),
        "first_byte_ms": 10.0, "demo": False, "sources": [], **more,
    }  # fmt: skip
    row["detail"] = json.dumps({"sources": row["sources"]})
    conn.execute(
        """INSERT INTO call (id, at, workload, endpoint, status, http_status, deployment, cost_usd, reserved_usd,
             blueprint, epoch, first_byte_ms, demo, detail)
           VALUES (%(id)s, %(at)s, %(workload)s, 'chat', %(status)s, 200, %(deployment)s, %(cost_usd)s, 1, 1, %(id)s,
             %(first_byte_ms)s, %(demo)s, %(detail)s)""",
        row,
    )
    return UUID(str(row["id"]))


def report(conn: Conn, call: UUID, accepted: bool | None = True, value: int | None = None) -> None:
    usd = None if value is None else Decimal(value)
    outcome_store.add(conn, Outcome(id=new_id(), call_id=call, accepted=accepted, value_usd=usd, label=None, by="test"))


def logged(conn: Conn, call: UUID, index: int) -> None:
    conn.execute(
        """INSERT INTO audit_entry (id, at, action, actor, subject, body, leaf_index)
           VALUES (%s, now(), 'call', 'x', 'y', '', %s)""",
        (call, index),
    )


def workload_proofs(conn: Conn, workload: str = "support", primary: str | None = "first") -> dict[str, Any]:
    sums = proof_store.workload_sums(conn, SINCE)
    found = proof_store.proofs(conn, {workload: primary, "another": None}, SINCE, sums)
    assert found.keys() == {workload, "another"}
    return found[workload]


def compare(conn: Conn, workload: str, primary: str | None) -> dict[str, Any]:
    raw = conn.execute(RAW, {"workload": workload, "primary": primary, "since": SINCE}).fetchone()
    assert raw is not None
    expected, found = dict(zip(NAMES, raw, strict=True)), workload_proofs(conn, workload, primary)
    assert found.keys() == expected.keys()
    p95, near = expected.pop("first_byte_p95_ms"), found.pop("first_byte_p95_ms")
    assert near == (None if p95 is None else pytest.approx(p95, rel=0.02))
    assert found == expected
    return found


@pytest.mark.parametrize("seed", range(2))
def test_sums_say_what_every_call_says(conn: Conn, seed: int) -> None:
    chance = random.Random(seed)
    calls = []
    for number in range(90):
        calls.append(
            add(
                conn,
                NOW - timedelta(minutes=chance.randint(0, 45 * 24 * 60), seconds=number),
                workload=chance.choice(["support", "support", "finance"]),
                status=chance.choice(["ok", "ok", "ok", "failed", "refused"]),
                deployment=chance.choice(["first", "first", "second", None]),
                cost_usd=Decimal(chance.randint(0, 10**12)).scaleb(-12),
                first_byte_ms=chance.choice([None, chance.uniform(0.5, 900)]),
                demo=chance.random() < 0.3,
                sources=[["d", "a.md", 1, 2]] if chance.random() < 0.2 else [],
            )
        )
        if chance.random() < 0.1:
            rollup_store.roll_up(conn)
    for index, call in enumerate(chance.sample(calls, 40)):
        report(conn, call, chance.choice([True, False, None]))
        if index % 3 == 0:
            logged(conn, call, index)
    for workload in ("support", "finance", "nobody"):
        for primary in ("first", "second", None):
            compare(conn, workload, primary)


def test_the_newest_two_hundred_may_be_on_several_days(conn: Conn) -> None:
    oldest = [add(conn, NOW - timedelta(days=2, minutes=n)) for n in range(3)]
    for n in range(198):
        add(conn, NOW - timedelta(minutes=n % 600))
    logged(conn, oldest[2], 1)
    assert compare(conn, "support", "first")["logged_call"] is None
    logged(conn, oldest[1], 2)
    assert compare(conn, "support", "first")["logged_call"] == oldest[1]


def test_behind_many_others_the_first_of_that_day_is_the_example(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_store, "NEWEST", 2)
    first = add(conn, NOW - timedelta(minutes=90), sources=[["d", "a.md", 1, 2]], deployment="second")
    later = add(conn, NOW - timedelta(minutes=60), sources=[["d", "a.md", 1, 2]], deployment="second")
    add(conn, NOW - timedelta(minutes=30))
    assert [workload_proofs(conn)[name] for name in ("grounded_call", "fallback_call")] == [later, later]
    add(conn, NOW - timedelta(minutes=20))
    assert [workload_proofs(conn)[name] for name in ("grounded_call", "fallback_call")] == [first, first]
    hours = [(NOW - timedelta(minutes=ago)).hour for ago in (90, 60)]
    rollup_store.roll_up(conn)
    assert workload_proofs(conn)["fallback_call"] == (first if hours[0] == hours[1] else later), (
        "the first of its newest hour"
    )


def test_a_call_counts_once_by_its_newest_outcome(conn: Conn) -> None:
    today = NOW.replace(hour=0, minute=0)
    call, other = add(conn, NOW), add(conn, NOW)
    report(conn, call, True, 5)
    report(conn, call, False, 2)
    report(conn, other, True, 7)
    for fold in (False, True):
        if fold:
            rollup_store.roll_up(conn)
        rows = cost_store.outcomes(conn, today, today + timedelta(days=1))
        assert [(r["workload"], r["reported"], r["accepted"], r["value_usd"]) for r in rows] == [
            ("support", 2, 1, Decimal(7))
        ], "what was not accepted is worth nothing"
        assert workload_proofs(conn)["outcomes"] == 3
    assert cost_store.outcomes(conn, today - timedelta(days=1), today) == []


def test_of_several_outcomes_each_field_counts_as_its_newest(conn: Conn) -> None:
    today = NOW.replace(hour=0, minute=0)
    call, other = add(conn, NOW), add(conn, NOW)
    report(conn, call, True, 4)
    report(conn, call, True, None)  # a thumb that names no value
    report(conn, other, True, None)
    report(conn, other, None, 5)  # a value that comes later
    for fold in (False, True):
        if fold:
            rollup_store.roll_up(conn)
        (row,) = cost_store.outcomes(conn, today, today + timedelta(days=1))
        assert (row["reported"], row["accepted"], row["value_usd"]) == (2, 2, Decimal(9))
    for accepted, value, worth in ((False, None, 5), (False, 3, 5), (True, None, 8), (False, None, 5), (True, 1, 6)):
        report(conn, call, accepted, value)
        (row,) = cost_store.outcomes(conn, today, today + timedelta(days=1))
        told_now = (row["reported"], row["accepted"], row["value_usd"])
        assert told_now == (2, 1 + accepted, Decimal(worth)), (
            "what was taken back is worth nothing until it is accepted"
        )


def test_thumbs_of_readers_are_outcomes_of_their_calls(conn: Conn) -> None:
    calls = [add(conn, NOW) for _ in range(3)]
    for call, kind in zip(calls, ("up", "down", "click"), strict=True):
        conn.execute(
            "INSERT INTO knowledge_signal (id, at, workload, kind, call_id) VALUES (%s, %s, 'support', %s, %s)",
            (new_id(), NOW, kind, call),
        )
    assert outcome_store.take_reviews(conn, NOW - timedelta(days=1)) == 2
    assert outcome_store.take_reviews(conn, NOW - timedelta(days=1)) == 0
    found = conn.execute("SELECT call_id, accepted, label FROM outcome").fetchall()
    assert set(found) == {(calls[0], True, "thumb"), (calls[1], False, "thumb")}


def test_hours_of_whole_days_are_told_apart(conn: Conn) -> None:
    for hour in (3, 3, 17):
        add(conn, SINCE + timedelta(days=2, hours=hour))
    rollup_store.roll_up(conn)
    wanted = {
        "since": SINCE, "until": NOW, "workload": None, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
    rows = rollup_store.calls_by(conn, ["hour"], wanted)
    assert [(row["hour"].astimezone(UTC).hour, int(row["calls"])) for row in rows] == [(3, 2), (17, 1)]


def test_what_reviewers_decided_is_the_outcome_of_their_calls(conn: Conn) -> None:
    states = ("released", "refused", "lapsed", "waiting", "released")
    calls = [add(conn, NOW) for _ in states]
    calls[4] = new_id()  # its call is not in the ledger yet
    for call, state in zip(calls, states, strict=True):
        conn.execute(
            """INSERT INTO held_call (id, kind, workload, key_id, gateway, due_at, state, decided_by, decided_at)
               VALUES (%s, 'answer', 'support', %s, %s, %s, %s, %s, %s)""",
            (call, call, call, NOW, state, None if state in ("lapsed", "waiting") else "ana@acme.example", NOW),
        )
    assert outcome_store.take_reviews(conn, NOW - timedelta(days=1)) == 2
    assert outcome_store.take_reviews(conn, NOW - timedelta(days=1)) == 0
    add(conn, NOW, id=calls[4])
    assert outcome_store.take_reviews(conn, NOW + timedelta(seconds=1)) == 0
    assert outcome_store.take_reviews(conn, NOW) == 1
    found = conn.execute("SELECT call_id, accepted, label, by FROM outcome").fetchall()
    assert {row[0]: row[1] for row in found} == {calls[0]: True, calls[1]: False, calls[4]: True}
    assert {row[2:] for row in found} == {("review", "ana@acme.example")}
    today = NOW.replace(hour=0, minute=0)
    (row,) = cost_store.outcomes(conn, today, today + timedelta(days=1))
    assert (row["reported"], row["accepted"]) == (3, 2)
