"""What savings are found in is read from kept sums and from the newest calls: each question with calls that count and
calls that do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.integration.test_ledger_queries import START, add_call

from groundplan.api.calls import replays
from groundplan.api.cost import levers
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import opportunity_store, queries, rollup_store
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
SINCE = START - timedelta(minutes=5)


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as opened:
        yield opened


def attempt(
    conn: Conn, outcome: str, parts: dict[str, list[int]], *, call: UUID | None = None, number: int = 0, late: int = 0,
    purpose: str = "", flags: Sequence[str] = (), tier: str = "",
) -> None:  # fmt: skip
    cost = Decimal(sum(amount for _, amount in parts.values())).scaleb(-12)
    row: tuple[Any, ...] = (
        call or new_id(), number, START + timedelta(minutes=late), "own", "rack", "acme/own", "settled", outcome, 200,
        cost, cost, {}, False, list(flags), 1.0, new_id(), 0.0, None, None, "assistant", 1, False, parts, purpose, tier,
    )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [row])


@pytest.mark.parametrize("folded", [False, True])
def test_spent_is_summed_with_what_failed_and_what_was_bound_apart(conn: Conn, folded: bool) -> None:
    attempt(conn, "ok", {"input": [700, 10], "cache_read": [300, 1], "output": [90, 20], "reasoning": [10, 5]})
    attempt(conn, "failed", {"bound": [0, 400]})
    for cut_off in ("cancelled", "crashed"):
        attempt(conn, cut_off, {"bound": [0, 1000]})
    attempt(conn, "ok", {"bound": [0, 50]}, tier="batch long")
    attempt(conn, "not_billed", {})
    attempt(conn, "ok", {"input": [1, 1]}, late=-90)
    attempt(conn, "ok", {"input": [50, 7]}, purpose="guardrail")
    if folded:
        rollup_store.roll_up(conn)
    assert opportunity_store.spend_by_deployment(conn, SINCE, "other") == []
    row, judged = opportunity_store.spend_by_deployment(conn, SINCE, "assistant")
    assert (judged["purpose"], judged["calls"], judged["input"]) == ("guardrail", 1, 50) and row["purpose"] == ""
    assert (row["workload"], row["deployment"], row["model"]) == ("assistant", "own", "acme/own")
    assert (row["calls"], row["unanswered"], row["failed_attempts"]) == (5, 3, 1), "what nobody billed sent nothing"
    assert (row["batch_calls"], row["batch_usd"] * 10**12) == (1, 50)
    assert (row["input"], row["cache_read"], row["output"]) == (1000, 300, 100)
    timed, _ = opportunity_store.spend_by_deployment(conn, SINCE, "assistant", hours=True)
    assert timed == {**row, "hours": {START.hour: (5, 1000, 300, 100)}}
    pico = [row[name] * 10**12 for name in ("cost_usd", "failed_usd", "bound_usd")]
    assert pico == [2486, 400, 50], "what failed by itself is told, and no other lever counts it"


def test_a_receipt_still_says_its_route(conn: Conn) -> None:
    call = add_call(conn, 4, cost=Decimal(1), status="failed")
    conn.execute(
        """UPDATE call SET detail = detail || '{"route": {"model": "m", "by": "rule x"}}' WHERE id = %s""", (call,)
    )
    assert queries.receipt(conn, call)["route"] == {"model": "m", "by": "rule x"}


def test_outputs_are_those_of_answers_that_a_model_gave(conn: Conn) -> None:
    for number, tokens in enumerate((10, 40, 20)):
        call = add_call(conn, number, cost=Decimal("0.25"))
        conn.execute("UPDATE call SET completion_tokens = %s WHERE id = %s", (tokens, call))
    for more in ({"status": "failed"}, {"cache": ("exact", 0, 0)}, {"workload": "other"}, {}):
        call = add_call(conn, 9, **more)
        conn.execute("UPDATE call SET completion_tokens = 999 WHERE id = %s", (call,))
    conn.execute("""UPDATE call SET detail = detail || '{"of": "x"}' WHERE id = %s""", (call,))  # a guardrail's judge
    (row,) = opportunity_store.answer_lengths(conn, SINCE, ["assistant", "nobody"])
    assert (row["workload"], row["answers"], row["longest"], row["common"]) == ("assistant", 3, 40, 40)
    assert row["set_aside_usd"] == Decimal("2.25")
    assert opportunity_store.answer_lengths(conn, START + timedelta(hours=1), ["assistant"]) == []


def add_call_with_sources(conn: Conn, number: int, sources: list[list[Any]], **more: Any) -> UUID:
    call = add_call(conn, number, **{"cost": Decimal(3), **more})
    conn.execute("UPDATE call SET detail = %s WHERE id = %s", (Jsonb({"sources": sources}), call))
    return call


def test_grounded_calls_come_with_their_newest_outcome(conn: Conn) -> None:
    first = add_call_with_sources(conn, 1, [["d", "a.md", 1, 9], ["e", "b.md", 1, 2]])
    add_call_with_sources(conn, 2, [["d", "a.md", 1, 9]])
    add_call_with_sources(conn, 3, [])
    add_call_with_sources(conn, 4, [["d", "a.md", 1, 9]], cache=("exact", 0, 0))
    add_call_with_sources(conn, 5, [["d", "a.md", 1, 9]], status="failed")
    judge = add_call_with_sources(conn, 6, [])
    conn.execute("""UPDATE call SET detail = detail || '{"of": "x"}' WHERE id = %s""", (judge,))
    for accepted in (False, True, None):  # the last one says what it was worth alone
        conn.execute(
            "INSERT INTO outcome (id, call_id, accepted, value_usd, by) VALUES (%s, %s, %s, 1, 'test')",
            (new_id(), first, accepted),
        )
    conn.execute("UPDATE call SET team = 'care' WHERE id = %s", (first,))
    rows = opportunity_store.grounded_calls(conn, SINCE, ["assistant"])
    assert {row["looked"] for row in rows} == {3}, "one was given none; what a cache answered is not looked at"
    found = sorted((len(row["sources"]), row["accepted"], row["team"], row["cost_usd"]) for row in rows)
    assert found == [(1, None, "", Decimal(3)), (2, True, "care", Decimal(3))]


def tried(conn: Conn, *outcomes: str, cost: int = 10, purpose: str = "") -> None:
    """One call; each attempt with its outcome and flags."""
    call = new_id()
    for number, (outcome, *flags) in enumerate(each.split() for each in outcomes):
        attempt(conn, outcome, {"input": [1, cost]}, call=call, number=number, flags=flags, purpose=purpose)


def test_retries_are_told_with_what_they_rescued(conn: Conn) -> None:
    tried(conn, "failed", "ok")
    tried(conn, "failed", "failed", "failed")
    tried(conn, "ok")
    tried(conn, "failed", "failed", purpose="guardrail")
    (row,) = opportunity_store.retried_calls(conn, SINCE)
    assert (row["workload"], row["calls"], row["rescued"], row["lost_usd"] * 10**12) == ("assistant", 2, 1, 20)
    (lost,) = opportunity_store.failed_retries(conn, SINCE)
    assert (lost["workload"], lost["deployment"], lost["attempts"]) == ("assistant", "own", 2)
    assert lost["cost_usd"] == row["lost_usd"]
    assert opportunity_store.retried_calls(conn, START + timedelta(hours=1)) == []
    assert opportunity_store.failed_retries(conn, START + timedelta(hours=1)) == []


def test_what_was_cut_off_raced_or_escalated_is_no_useless_retry(conn: Conn) -> None:
    tried(conn, "failed", "crashed crash", cost=1)
    tried(conn, "failed", "cancelled", cost=10)
    for race in (
        ["ok", "cancelled hedge"], ["cancelled", "ok hedge"], ["cancelled", "cancelled hedge"], ["failed", "ok hedge"],
        ["failed", "failed hedge"], ["cancelled"],
    ):  # fmt: skip
        tried(conn, *race, cost=100)
    tried(conn, "ok cascade", "failed", cost=1000)
    tried(conn, "ok cascade", "ok", cost=1000)
    assert opportunity_store.retried_calls(conn, SINCE) == [] == opportunity_store.failed_retries(conn, SINCE)
    tried(conn, "failed", "cancelled", "ok hedge")
    tried(conn, "ok cascade", "failed", "failed", cost=7)
    (again,) = opportunity_store.retried_calls(conn, SINCE)
    assert (again["calls"], again["rescued"], again["lost_usd"] * 10**12) == (2, 1, 7), (
        "the further try that a race answered was answered; who is asked after a try is tried again, too"
    )
    (lost,) = opportunity_store.failed_retries(conn, SINCE)
    assert (lost["attempts"], lost["cost_usd"]) == (1, again["lost_usd"])


def test_kept_content_is_counted_with_who_read_it(conn: Conn) -> None:
    for n, name in enumerate(["assistant", "assistant", "other"]):
        conn.execute(
            """INSERT INTO content (call_id, at, workload, kind, expires_at, sealed, found, cut)
               VALUES (%s, %s, %s, 'full', %s, %s, '{}', false)""",
            (new_id(), START, name, START + timedelta(days=30), "x" * (n + 1)),
        )
    conn.execute(
        """INSERT INTO audit_entry (id, at, action, actor, subject, body)
           VALUES (%s, %s, 'content.read', 'ana', 'workload/other', ''),
             (%s, %s, 'content.replayed', 'system', 'workload/other', '')""",
        (new_id(), START, new_id(), START),
    )
    rows = {row["workload"]: row for row in opportunity_store.stored_content_use(conn, SINCE)}
    assert (rows["assistant"]["calls"], rows["assistant"]["reads"], rows["other"]["reads"]) == (2, 0, 2)
    assert float(rows["assistant"]["gigabytes"]) == 3e-9
    assert {row["reads"] for row in opportunity_store.stored_content_use(conn, START + timedelta(days=1))} == {0}
    for fold in (False, True):
        if fold:
            rollup_store.roll_up(conn)
        kept = conn.execute(
            "SELECT workload, count(*), sum(octet_length(sealed)) FROM content GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert [(row["workload"], row["calls"], row["bytes"]) for row in rollup_store.content_sizes(conn)] == kept
        conn.execute("DELETE FROM content WHERE call_id = (SELECT min(call_id::text)::uuid FROM content)")
        assert sum(row["calls"] for row in rollup_store.content_sizes(conn)) == sum(row[1] for row in kept) - 1


def test_active_hours_are_counted_where_they_are_few(conn: Conn) -> None:
    for hour in (2, 2, 26, 50):
        call = add_call(conn, hour * 3600, cost=Decimal(2))
        conn.execute('UPDATE call SET detail = detail || \'{"feature": "x"}\' WHERE id = %s', (call,))
    add_call(conn, 5, status="failed")
    for number in range(6):
        add_call(conn, number * 3600, workload="other")
    rollup_store.roll_up(conn)
    rows = opportunity_store.active_hours(conn, SINCE, 4)
    (row,) = [each for each in rows if each["workload"] == "assistant"]
    assert (row["hours"], row["calls"], row["cost_usd"]) == (3, 4, Decimal(8))
    assert (row["busiest"], row["busiest_calls"]) == (1, 4)
    assert {each["workload"] for each in rows} == {"assistant"}
    assert opportunity_store.active_hours(conn, START + timedelta(days=9), 4) == []


def called(conn: Conn, days: int, workload: str = "assistant", feature: str = "", cache: str = "none") -> None:
    """So many days before."""
    row: tuple[Any, ...] = (
        new_id(), START - timedelta(days=days), workload, None, None, None, "chat", "ok", 200, None, "acme/own", "own",
        "rack", Decimal(1), Decimal(1), 3, 2, cache, 1, new_id(), False, 12.5, 3.5, {"feature": feature}, 0, 0,
    )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [row])


def test_a_workload_is_seen_since_its_first_call_of_those_days(conn: Conn) -> None:
    for days, workload in ((40, "old"), (2, "old"), (3, "new"), (0, "new")):
        called(conn, days, workload)
    since = START - timedelta(days=30)
    first = {"old": (START - timedelta(days=2)).date(), "new": (START - timedelta(days=3)).date()}
    assert opportunity_store.first_call_days(conn, since) == first
    noon = datetime.combine(START.date(), time(12), UTC)
    assert levers._days_observed(conn, since, noon) == {"old": 2.5, "new": 3.5}


def test_calls_a_month_are_those_of_the_days_that_there_are(conn: Conn) -> None:
    """Nine calls in three days are ninety a month, without what an experiment made, what was in memory already, and
    what their guardrail asked."""
    for place in range(9):
        called(conn, place % 3, feature="orders")
    called(conn, 1, feature="experiment/shadow")
    for cache in ("exact", "semantic"):
        called(conn, 2, feature="orders", cache=cache)
    for _ in range(9):  # a guardrail's judge, which is the same model, for each call
        attempt(conn, "ok", {"input": [9, 9]}, purpose="guardrail", late=-24 * 60)
        called(conn, 1, feature="orders")
    run = SimpleNamespace(workload="assistant", current="own")
    midnight = datetime.combine(START.date(), time(), UTC) + timedelta(days=1)
    assert replays._monthly_calls(conn, run, midnight) == {"orders": 90.0}  # type: ignore[arg-type]
    later = replays._monthly_calls(conn, run, midnight + timedelta(days=20))  # type: ignore[arg-type]
    assert later["orders"] == pytest.approx(9 * 30 / 23)
