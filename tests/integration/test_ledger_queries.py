"""Reading the ledger: exact totals, pages that neither skip nor repeat, receipts with everything on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.core import audit
from groundplan.core.database import connect
from groundplan.core.errors import NotFound
from groundplan.core.ids import new_id
from groundplan.ledger import (
    daily_attribution_store,
    daily_store,
    opportunity_store,
    prompt_store,
    queries,
    rollup_store,
    spend_watch_store,
    traffic,
    traffic_store,
)
from groundplan.ledger.store import CallFilter
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
START = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
PICO = Decimal("0.000000000001")


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"]) as opened:
        yield opened


def add_call(
    conn: Conn,
    number: int,
    *,
    workload: str = "assistant",
    endpoint: str = "chat",
    status: str = "ok",
    cost: Decimal = PICO,
    states: tuple[str, ...] = ("settled",),
    cache: tuple[str, int, int] = ("none", 0, 0),
) -> UUID:
    """A call with one attempt for each state; the first attempts failed, the last one has the call's status."""
    id, at = new_id(), START + timedelta(seconds=number)
    kind, saved, prefix = cache
    detail = {
        "steps": [["identify", 12], ["serve", 3400]],
        "sources": [[str(id), "handbook/leave.md", 3, 9]],
        "flags": [],
    }
    conn.execute(
        """INSERT INTO call (id, at, workload, endpoint, status, http_status, deployment, site, model, cost_usd,
             reserved_usd, blueprint, epoch, duration_ms, first_byte_ms, detail, cache, saved_usd, prefix_saved_usd)
           VALUES (%s, %s, %s, %s, %s, 200, 'own', 'rack', 'acme/own', %s, 1, 1, %s, %s, 5, %s, %s, %s, %s)""",
        (
            *(id, at, workload, endpoint, status, cost, new_id(), number * 10, json.dumps(detail)),
            *(kind, PICO * saved, PICO * prefix),
        ),
    )
    for index, state in enumerate(states):
        last = index == len(states) - 1
        conn.execute(
            """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, http_status,
                 reserved_usd, cost_usd, usage, epoch, workload)
               VALUES (%s, %s, %s, %s, 'rack', 'acme/own', %s, %s, 200, 1, %s, '{"input": 7}', %s, %s)""",
            (
                *(id, index, at, f"own-{index}", state, status if last else "failed", cost if last else 0, new_id()),
                workload,
            ),
        )
        conn.execute("INSERT INTO charge VALUES (%s, %s, 'assistant', '2026-11', %s)", (id, index, cost if last else 0))
    return id


def test_an_empty_ledger_costs_nothing(conn: Conn) -> None:
    assert queries.cost_summary(conn) == {
        "total_usd": "0.000000000000",
        "saved_usd": "0.000000000000",
        "prefix_saved_usd": "0.000000000000",
        "calls": 0,
        "cached": 0,
        "open_reservations": 0,
        "crashed_attempts": 0,
        "by_workload": [],
    }
    assert queries.list_calls(conn) == {"calls": [], "next": None}


def test_totals_are_exact_and_do_not_count_refused_calls(conn: Conn) -> None:
    for number in range(3):
        add_call(conn, number, cost=PICO * 7)
    add_call(conn, 3, status="refused", cost=Decimal(0), states=())
    add_call(conn, 4, workload="support", cost=Decimal("12345.678901234567"), states=("crashed",), status="crashed")
    add_call(conn, 5, workload="support", cost=Decimal(0), states=("open",))
    nothing = {"cached": 0, "saved_usd": "0.000000000000", "prefix_saved_usd": "0.000000000000"}
    assert queries.cost_summary(conn) == {
        **nothing,
        "total_usd": "12345.678901234588",
        "calls": 5,
        "open_reservations": 1,
        "crashed_attempts": 1,
        "by_workload": [
            {"workload": "assistant", "total_usd": "0.000000000021", "calls": 3, **nothing},
            {"workload": "support", "total_usd": "12345.678901234567", "calls": 2, **nothing},
        ],
    }
    for other in (CallFilter(workload="assistant"), CallFilter(since=datetime(2999, 1, 1, tzinfo=UTC))):
        found = queries.cost_summary(conn, other)
        assert (found["open_reservations"], found["crashed_attempts"]) == (0, 0), "of others, or of another time"


@pytest.mark.parametrize("folded", [False, True])
def test_what_no_model_answers_is_listed_and_in_no_number_of_calls(conn: Conn, folded: bool) -> None:
    """No model answers them: neither what a call costs, nor how many are answered, nor how fast, is told by them."""
    for number, status in enumerate(("ok", "ok", "failed", "refused")):
        add_call(conn, number, status=status, cost=PICO * 6)
    others = ("chat.completions.estimate", "messages.count_tokens", "responses.input_tokens", "mcp")
    for number, endpoint in enumerate(others):
        for status in ("ok", "ok", "refused"):
            add_call(conn, 400 + number, endpoint=endpoint, status=status, cost=Decimal(0), states=())
    if folded:
        rollup_store.roll_up(conn)
    since, until, now = START.replace(hour=0, minute=0), START + timedelta(days=2), START + timedelta(minutes=10)
    wanted = {"since": since, "until": until, "workload": None, "status": None, "deployment": None, "demo": None}
    (sums,) = rollup_store.calls_by(conn, [], wanted)
    assert (sums["calls"], sums["refused"], sums["ok"], sums["cost_usd"]) == (3, 1, 2, PICO * 24)
    by_endpoint = {row["endpoint"]: row["calls"] for row in rollup_store.calls_by(conn, ["endpoint"], wanted)}
    assert by_endpoint == {"chat": 3, **dict.fromkeys(others, 2)}
    assert (
        queries.cost_summary(conn)["calls"] == 3 and queries.cost_summary(conn, CallFilter(since=since))["calls"] == 3
    )
    assert sum(day["calls"] for day in queries.daily_cost(conn)) == 3
    assert sum(row["calls"] for row in daily_attribution_store.cost_by_person(conn, since, until, None, 9)) == 3
    assert [row["calls"] for row in queries.latency(conn)] == [2]
    (day,) = daily_store.workload_days(conn, since, "assistant")
    assert (day["calls"], day["availability"]) == (3, pytest.approx(2 / 3))
    assert [row["calls"] for row in daily_store.workload_hours(conn, since, until, ["assistant"])] == [3]
    assert sum(row["calls"] for row in spend_watch_store.calls_by_minute(conn, since, until)) == 4
    assert sum(row["calls"] for row in spend_watch_store.workload_sums_by_hour(conn, since, until)) == 3
    told = traffic.traffic(conn, now, 15)
    assert (told["calls"], told["refused"], told["failed"], told["error_share"]) == (4, 1, 1, 0.3333)
    assert traffic_store.count_newest_calls(conn, since, until) == [{"workload": "assistant", "calls": 3}]
    for _ in range(5):
        for number in range(20, 23):
            add_call(conn, number, endpoint="chat" if number < 22 else "messages.count_tokens", cost=Decimal(0))
    (outputs,) = opportunity_store.answer_lengths(conn, since, ["assistant"])
    assert outputs["answers"] == 12
    assert daily_store.deployment_times(conn, since, until) == [], "twelve answers are too few"
    (looked,) = prompt_store.count_beyond_context(conn, since, until, None, {(1, "own"): 100}, (1.0, 1.0))
    assert looked["looked"] == 12
    assert len(queries.list_calls(conn)["calls"]) == 31


def test_what_caches_saved_is_told_apart_from_what_calls_cost(conn: Conn) -> None:
    add_call(conn, 0, cost=PICO * 7)
    for number, cache in enumerate([("exact", 7, 0), ("exact", 7, 0), ("replay", 0, 0), ("none", 0, 3)]):
        add_call(conn, number + 1, cost=Decimal(0), cache=cache)
    told = queries.cost_summary(conn)["by_workload"][0]
    assert (told["calls"], told["cached"], told["total_usd"]) == (5, 2, "0.000000000007")
    assert (told["saved_usd"], told["prefix_saved_usd"]) == ("0.000000000014", "0.000000000003")


def test_pages_neither_skip_nor_repeat(conn: Conn) -> None:
    ids = [str(add_call(conn, number // 2)) for number in range(7)]
    seen: list[str] = []
    before: UUID | None = None
    while True:
        page = queries.list_calls(conn, before=before, limit=3)
        seen += [call["id"] for call in page["calls"]]
        if page["next"] is None:
            break
        before = UUID(page["next"])
    assert sorted(seen) == sorted(ids) and len(seen) == len(set(seen)) == 7


def test_filters_narrow(conn: Conn) -> None:
    add_call(conn, 0)
    support = add_call(conn, 1, workload="support", status="failed")
    for wanted in (
        CallFilter(workload="support"),
        CallFilter(status="failed"),
        CallFilter(since=START + timedelta(seconds=1)),
    ):
        assert [call["id"] for call in queries.list_calls(conn, wanted)["calls"]] == [str(support)]
    for nothing in (CallFilter(person=new_id()), CallFilter(demo=True), CallFilter(until=START)):
        assert queries.list_calls(conn, nothing)["calls"] == []


def test_a_receipt_has_steps_attempts_passages_charges_and_its_place_in_the_log(conn: Conn) -> None:
    id = add_call(conn, 0, cost=PICO * 5, states=("settled", "settled"))
    audit.record_many(conn, [audit.Entry(id, START, "call", "system", "workload/assistant", {})])
    receipt = queries.receipt(conn, id)
    assert receipt["steps"] == [{"step": "identify", "ms": 0.012}, {"step": "serve", "ms": 3.4}]
    assert [(a["deployment"], a["outcome"], a["cost_usd"]) for a in receipt["attempts"]] == [
        ("own-0", "failed", "0.000000000000"),
        ("own-1", "ok", "0.000000000005"),
    ]
    assert receipt["attempts"][1]["charges"][0]["cost_usd"] == "0.000000000005"
    assert receipt["attempts"][1]["usage"] == {"input": 7}
    whole = {"term": "whole", "count": 0, "cost_usd": "0.000000000005", "basis": "measured"}
    assert [attempt["terms"] for attempt in receipt["attempts"]] == [[], [whole]]
    parts = {"output": [2, 3], "input": [7, 2], "cache_read": [0, 0]}
    conn.execute("UPDATE attempt SET parts = %s WHERE cost_usd > 0", (json.dumps(parts),))
    terms = queries.receipt(conn, id)["attempts"][1]["terms"]
    assert [(row["term"], row["count"], row["cost_usd"][-1]) for row in terms] == [
        ("output", 2, "3"),
        ("input", 7, "2"),
    ]
    assert (receipt["passages"][0]["path"], receipt["passages"][0]["first_line"]) == ("handbook/leave.md", 3)
    assert receipt["audit"] == {"entry": str(id), "index": None}
    assert json.loads(json.dumps(receipt)) == receipt
    with pytest.raises(NotFound):
        queries.receipt(conn, new_id())


def test_series_are_by_utc_day(conn: Conn) -> None:
    add_call(conn, 0, cost=PICO * 2)
    add_call(conn, 120, cost=PICO * 3)
    days = [(row["day"], row["cost_usd"], row["calls"]) for row in queries.daily_cost(conn)]
    assert days == [("2026-11-24", "0.000000000002", 1), ("2026-11-25", "0.000000000003", 1)]
    (speed,) = queries.latency(conn)
    assert (speed["calls"], speed["p50_ms"]) == (2, 600.0)
    assert queries.statuses(conn) == {"assistant": {"ok": 2}}


def test_budget_use_shows_limit_granted_and_spent(conn: Conn) -> None:
    add_call(conn, 0, cost=PICO * 2)
    assert queries.budget_use(conn, date(2026, 11, 25)) == []
    conn.execute("INSERT INTO budget_period VALUES ('assistant', '2026-11', 200, 50)")
    (use,) = queries.budget_use(conn, date(2026, 11, 25))
    assert (use["limit_usd"], use["granted_usd"], use["spent_usd"]) == (
        "200.000000000000",
        "50.000000000000",
        "0.000000000002",
    )
