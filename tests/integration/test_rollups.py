"""Sums kept as facts arrive equal the facts themselves, to the picodollar, whatever comes late or breaks off."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.core.money import to_decimal
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import daily_attribution_store, rollup_store, spend_watch_store
from groundplan.testing.charges import charges_by_period
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
START = datetime(2026, 11, 1, 22, tzinfo=UTC)
EPOCHS = [new_id() for _ in range(3)]
PEOPLE = [None, new_id(), new_id()]
KEYS = [new_id(), None, new_id()]


@dataclass(frozen=True)
class Fact:
    """One call with one attempt, `minutes` after the start."""

    minutes: int
    workload: str
    status: str
    cost: int
    cached: int
    sources: int
    opened_first: bool
    epoch: int = 0
    person: int = 0
    feature: str = ""
    purpose: str = ""
    tier: str = ""
    made_of: str = "both"
    demo: bool = False


MADE_OF = ("both", "input", "more", "bound", "nothing", "unknown")


def made_of(fact: Fact) -> dict[str, list[int]] | None:
    """What its cost is made of: class -> [count, picodollars]."""
    half, rest = fact.cost // 3, fact.cost - fact.cost // 3
    return {
        "both": {"input": [3, half], "output": [2, rest]},
        "input": {"input": [3, fact.cost]},
        "more": {"input": [3, half], "output": [2, 0], "cache_read": [7, rest]},
        "bound": {"bound": [0, fact.cost]},
        "nothing": {},
        "unknown": None,
    }[fact.made_of]


facts = st.builds(
    Fact,
    minutes=st.integers(0, 60 * 30),
    workload=st.sampled_from(["support", "finance"]),
    status=st.sampled_from(["ok", "failed", "refused"]),
    cost=st.integers(0, 10**13),
    cached=st.integers(0, 10**6),
    sources=st.integers(0, 3),
    opened_first=st.booleans(),
    epoch=st.integers(0, 2),
    person=st.integers(0, 2),
    feature=st.sampled_from(["", "summary", "experiment/tone"]),
    purpose=st.sampled_from(["", "guardrail", "judge"]),
    tier=st.sampled_from(["", "batch"]),
    made_of=st.sampled_from(MADE_OF),
    demo=st.booleans(),
)
rounds = st.lists(
    st.tuples(st.lists(facts, max_size=6), st.sampled_from(["commit", "killed", "twice", "copied"]), st.booleans()),
    min_size=1,
    max_size=5,
)


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as opened:
        yield opened


def rows(made: list[Fact]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    calls, opened, settled = [], [], []
    for fact in made:
        id, at, cost = new_id(), START + timedelta(minutes=fact.minutes), to_decimal(fact.cost)
        detail: dict[str, Any] = {"sources": [[f"document-{n}", "a.md", 1, 2] for n in range(fact.sources)]}
        if fact.feature:
            detail["feature"] = fact.feature
        calls.append(
            (id, at, fact.workload, PEOPLE[fact.person], KEYS[fact.person], "team", "chat", fact.status, 200, None,
             "acme/m", "own", "rack", cost, cost, 3, 2, "none" if fact.cached % 2 else "exact", 1, EPOCHS[fact.epoch],
             fact.demo, 12.5, 3.5, detail, 0, to_decimal(fact.cached))
        )  # fmt: skip
        settled.append(_attempt(id, at, fact, "settled", cost, made_of(fact)))
        if fact.opened_first:
            opened.append(_attempt(id, at, fact, "open", Decimal(0), None))
    return calls, opened, settled


def _attempt(id: Any, at: datetime, fact: Fact, state: str, cost: Decimal, parts: Any) -> tuple[Any, ...]:
    outcome = "open" if state == "open" else "failed" if fact.status == "failed" else "ok"
    return (
        id, 0, at, "own", "rack", "acme/m", state, outcome, 200, cost, cost, {"input": 3}, False, [], 1.0,
        EPOCHS[fact.epoch], 0.0, None, None, fact.workload, 1, False, parts, fact.purpose, fact.tier,
    )  # fmt: skip


def write(conn: Conn, made: list[Fact], how: str) -> None:
    """As the shipper does: in one transaction; killed before it commits, or repeated because its answer was lost.
    Copied: new rows as such, where the shipper knows that they are."""
    calls, opened, settled = rows(made)
    charges = [(row[0], 0, row[2], "2026-11", row[13]) for row in calls]

    def once() -> None:
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, opened)
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, settled)
        ledger_store.insert_rows(conn, ledger_store.INSERT_CHARGES, charges)
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, calls)

    if how == "copied":
        shown = {row[0] for row in opened}
        with conn.transaction():
            ledger_store.copy_new(conn, ledger_store.INSERT_ATTEMPTS, opened)
            ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [row for row in settled if row[0] in shown])
            new = [row for row in settled if row[0] not in shown]
            ledger_store.copy_new(conn, ledger_store.INSERT_ATTEMPTS, new)
            ledger_store.copy_new(conn, ledger_store.INSERT_CHARGES, charges)
            ledger_store.copy_new(conn, ledger_store.INSERT_CALLS, calls)
        return
    if how == "killed":
        with conn.transaction(force_rollback=True):
            once()
    for _ in range(2 if how == "twice" else 1):
        with conn.transaction():
            once()


def raw(conn: Conn, since: datetime | None, until: datetime | None) -> list[tuple[Any, ...]]:
    return conn.execute(
        """SELECT workload, count(*) FILTER (WHERE status <> 'refused'), sum(cost_usd), sum(prefix_saved_usd),
             sum(prompt_tokens) FROM call WHERE at >= coalesce(%s, '-infinity'::timestamptz)
             AND at < coalesce(%s, 'infinity'::timestamptz) GROUP BY 1 ORDER BY 1""",
        (since, until),
    ).fetchall()


def summed(conn: Conn, since: datetime | None, until: datetime | None) -> list[tuple[Any, ...]]:
    found = rollup_store.calls_by(conn, ["workload"], wanted(since, until))
    names = ("workload", "calls", "cost_usd", "prefix_saved_usd", "prompt_tokens")
    return [tuple(row[name] or 0 for name in names) for row in found]


def wanted(since: datetime | None = None, until: datetime | None = None) -> dict[str, Any]:
    asked = {"workload": None, "status": None, "deployment": None, "demo": None}
    return {"since": since, "until": until, **asked}


def purposes(conn: Conn, since: datetime | None, until: datetime | None) -> dict[str, Decimal]:
    """What attempts cost by what they were made for."""
    rows = conn.execute(
        """SELECT purpose, sum(cost_usd) FROM attempt WHERE state <> 'open'
           AND at >= coalesce(%s, '-infinity'::timestamptz) AND at < coalesce(%s, 'infinity'::timestamptz)
           GROUP BY 1""",
        (since, until),
    ).fetchall()
    return dict(rows)


def check_months(conn: Conn) -> None:
    """People and sources of days in the middle of months, of whole months and of this one so far, as the calls tell."""
    first = datetime(2026, 10, 1, tzinfo=UTC)
    for since, until in itertools.pairwise([first, START.replace(hour=0), START.replace(hour=0) + timedelta(days=1),
                                            datetime(2026, 12, 1, tzinfo=UTC)]):  # fmt: skip
        for begin, end in ((since, until), (first, until), (since, until + timedelta(days=40))):
            expected = conn.execute(
                """SELECT workload, sum(cost_usd), count(*) FROM call WHERE status <> 'refused' AND at >= %s AND at < %s
                   GROUP BY 1 ORDER BY 1""",
                (begin, end),
            ).fetchall()
            names, _, costs, _ = daily_attribution_store.people_by_workload(conn, begin, end)
            people = list(zip(names, map(to_decimal, costs), strict=True))
            given = [(name, cost) for name, _, cost, _ in daily_attribution_store.sources_by_workload(conn, begin, end)]
            tags = [(name, cost) for name, _, cost, _ in daily_attribution_store.tags_by_workload(conn, begin, end)]
            for rows in (people, given, tags):
                sums: dict[str, Decimal] = {}
                for workload, cost in rows:
                    sums[workload] = sums.get(workload, Decimal(0)) + cost
                assert sums == {workload: cost for workload, cost, _ in expected}
            check_places(conn, begin, end)
            calls = sum(int(row["calls"]) for row in daily_attribution_store.cost_by_person(conn, begin, end, None, 10))
            assert calls == sum(count for _, _, count in expected)


def check_places(conn: Conn, begin: datetime, end: datetime) -> None:
    """Tokens and people of a place as the calls tell that a cache did not answer; of documents, all tokens of them."""
    where = "FROM call WHERE status <> 'refused' AND cache = 'none' AND at >= %s AND at < %s"
    people = conn.execute(
        f"""SELECT workload, coalesce((SELECT email FROM person p WHERE p.id = person_id), ''),
              sum(prompt_tokens + completion_tokens), count(*) {where} GROUP BY 1, 2""".encode(),
        (begin, end),
    ).fetchall()
    _, _, found = daily_attribution_store.people_at_places(conn, begin, end, ["deployment/own"])
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for workload, key, count, calls in zip(*found, strict=True):
        before = sums.get((workload, key), (0, 0))
        sums[workload, key] = before[0] + count, before[1] + calls
    assert sorted((*key, *sum_) for key, sum_ in sums.items()) == sorted(people)
    tokens = conn.execute(f"SELECT sum(prompt_tokens + completion_tokens) {where}".encode(), (begin, end)).fetchone()
    given = daily_attribution_store.sources_at_places(conn, begin, end, ["site/rack"])
    assert tokens is not None and sum(row[4] for row in given) == (tokens[0] or 0)
    assert daily_attribution_store.people_at_places(conn, begin, end, ["deployment/other", "site/none"])[0] == []


def check_parts(conn: Conn, found: list[dict[str, Any]]) -> None:
    """Each class as each attempt tells it."""
    expected = conn.execute(
        """SELECT p.part, sum(p.count), sum(p.usd) FROM attempt a, attempt_parts(a.cost_usd, a.parts) p
           WHERE a.state <> 'open' GROUP BY 1 HAVING sum(p.count) <> 0 OR sum(p.usd) <> 0 ORDER BY 1"""
    ).fetchall()
    assert [(r["part"], r["count"], r["cost_usd"]) for r in found if r["count"] or r["cost_usd"]] == expected


def check_times(conn: Conn) -> None:
    """How many answered calls are in the sums of times: each once in both, those of a demo once more."""
    rows = conn.execute(
        """SELECT what, sum(calls) FROM (SELECT * FROM latency_day UNION ALL SELECT * FROM latency_delta) l
           GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    row = conn.execute("SELECT count(*), count(*) FILTER (WHERE demo) FROM call WHERE status = 'ok'").fetchone()
    assert row is not None
    expected = {"first": row[0], "first demo": row[1], "whole": row[0]}
    assert dict(rows) == {what: calls for what, calls in expected.items() if calls}


def check_keys_and_hours(conn: Conn) -> None:
    """What calls of each key cost, and the hours by which what is usual is told."""
    expected = conn.execute(
        """SELECT workload, coalesce(key_id, %s), (at AT TIME ZONE 'UTC')::date, count(*), sum(cost_usd) FROM call
           WHERE status <> 'refused' GROUP BY 1, 2, 3""",
        (rollup_store.NOBODY,),
    ).fetchall()
    found = conn.execute(
        """SELECT workload, key, (hour AT TIME ZONE 'UTC')::date, sum(calls)::bigint, sum(cost_usd) FROM (
             SELECT workload, key, hour, calls, cost_usd FROM key_day
             UNION ALL SELECT workload, key, hour, calls, cost_usd FROM person_delta) k GROUP BY 1, 2, 3"""
    ).fetchall()
    assert set(found) == set(expected)
    ends = START, START + timedelta(hours=20)
    hours = conn.execute(
        """SELECT date_trunc('hour', at, 'UTC'), workload, count(*) FILTER (WHERE status <> 'refused'), sum(cost_usd),
             sum(prompt_tokens + completion_tokens), count(*) FILTER (WHERE cache = 'exact' AND status = 'ok')
           FROM call WHERE at >= %s AND at < %s GROUP BY 1, 2""",
        ends,
    ).fetchall()
    with conn.transaction():
        told = list(spend_watch_store.workload_sums_by_hour(conn, *ends))
    assert [row["workload"] for row in told] == sorted(row["workload"] for row in told)
    assert {tuple(row.values())[:6] for row in told} == set(hours)
    assert all(row["by_model"] == {"acme/m": row["calls"]} for row in told)


def check_steps(conn: Conn) -> None:
    """What calls and attempts the last two hours had, by steps of ten seconds."""
    calls = "SELECT step_of(at), workload, deployment, status, count(*), sum(cost_usd) FROM call GROUP BY 1, 2, 3, 4"
    attempts = """SELECT step_of(at), workload, deployment, site, count(*), count(*) FILTER (WHERE outcome = 'ok'),
                    count(*) FILTER (WHERE outcome = 'failed'), max(at) FILTER (WHERE outcome = 'ok'),
                    max(at) FILTER (WHERE outcome = 'failed')
                  FROM attempt WHERE state <> 'open' GROUP BY 1, 2, 3, 4"""
    kept = {
        "call": "deployment, status, sum(calls), sum(cost_usd)",
        "attempt": "deployment, site, sum(attempts), sum(ok), sum(failed), max(last_ok), max(last_failed)",
    }
    for table, query in (("call", calls), ("attempt", attempts)):
        facts = conn.execute(query.encode()).fetchall()
        found = conn.execute(
            f"""SELECT step, workload, {kept[table]} FROM (
                  SELECT * FROM {table}_step UNION ALL SELECT * FROM {table}_step_delta) s
                GROUP BY 1, 2, 3, 4""".encode()
        ).fetchall()
        old = max((row[0] for row in facts), default=START) - timedelta(hours=2)
        assert {row for row in found if row[0] >= old} == {row for row in facts if row[0] >= old}


def check_what_gateways_ask(conn: Conn) -> None:
    """Who used a workload lately, as a look at every call would tell."""
    names = ["support", "finance"]
    people = conn.execute(
        "SELECT DISTINCT workload, person_id FROM call WHERE status <> 'refused' AND person_id IS NOT NULL"
    ).fetchall()
    assert set(conn.execute("SELECT * FROM people_seen(%s, 36500)", (names,)).fetchall()) == set(people)
    assert conn.execute("SELECT * FROM people_seen('{}', 36500)").fetchall() == []


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rounds, st.lists(st.tuples(st.integers(-90, 60 * 32), st.integers(-90, 60 * 32)), min_size=2, max_size=4))
def test_sums_are_those_of_the_facts(conn: Conn, made: list[Any], times: list[tuple[int, int]]) -> None:
    conn.execute("TRUNCATE call, attempt, charge, call_delta, call_hour, call_day, part_delta, part_hour, part_day")
    conn.execute("TRUNCATE person_delta, person_day, person_whole, document_delta, document_day, document_whole")
    conn.execute("TRUNCATE person_month, document_month, person_place_delta, person_place_day, person_place_month")
    conn.execute("TRUNCATE person_running, document_running, person_place_running, document_place_running")
    conn.execute("UPDATE running_span SET since = NULL, until = NULL")
    conn.execute("TRUNCATE document_place_delta, document_place_day, document_place_month")
    conn.execute("TRUNCATE charge_delta, charge_total, latency_delta, latency_day, key_day")
    conn.execute("TRUNCATE call_step, call_step_delta, attempt_step, attempt_step_delta")
    for batch, how, folds in made:
        write(conn, batch, how)
        if folds:
            rollup_store.roll_up(conn)
    ranges = [(START + timedelta(minutes=a), START + timedelta(minutes=b)) for a, b in times if a <= b]
    for since, until in [(None, None), *ranges, *((a, None) for a, _ in ranges), *((None, b) for _, b in ranges)]:
        expected = [tuple(value or 0 for value in row) for row in raw(conn, since, until)]
        assert summed(conn, since, until) == expected
        attempts = conn.execute(
            """SELECT coalesce(sum(cost_usd), 0), count(*) FROM attempt WHERE state <> 'open'
               AND at >= coalesce(%s, '-infinity'::timestamptz) AND at < coalesce(%s, 'infinity'::timestamptz)""",
            (since, until),
        ).fetchone()
        parts = rollup_store.parts_by(conn, ["part"], wanted(since, until))
        if since is None and until is None:
            check_parts(conn, parts)
        number = sum(int(row["count"]) for row in parts if row["part"] == "attempt")
        assert (sum((row["cost_usd"] for row in parts), Decimal(0)), number) == attempts
        assert purposes(conn, since, until) == {
            row["purpose"]: row["cost_usd"]
            for row in rollup_store.parts_by(conn, ["purpose"], wanted(since, until))
        }  # fmt: skip
    of_calls = conn.execute("SELECT coalesce(sum(cost_usd), 0) FROM call WHERE status <> 'refused'").fetchone()
    ever = START - timedelta(days=2), START + timedelta(days=4)
    assert of_calls is not None
    found = [
        daily_attribution_store.cost_by_person(conn, *ever, None, 10),
        daily_attribution_store.cost_by_source(conn, *ever, None),
    ]
    assert [_usd(each) for each in found] == [of_calls[0]] * 2
    halves = [
        _usd(daily_attribution_store.cost_by_person(conn, *ever, name, 10))
        + _usd(daily_attribution_store.cost_by_source(conn, *ever, name))
        for name in ("support", "finance")
    ]
    assert sum(halves) == 2 * of_calls[0]
    check_months(conn)
    charges = conn.execute("SELECT budget, period, sum(cost_usd) FROM charge GROUP BY 1, 2").fetchall()
    assert charges_by_period(conn) == {(budget, period): usd for budget, period, usd in charges}
    check_what_gateways_ask(conn)
    check_times(conn)
    check_keys_and_hours(conn)
    check_steps(conn)


def _usd(found: list[dict[str, Any]]) -> Decimal:
    return sum((row["cost_usd"] for row in found), Decimal(0))


def test_whatever_an_attempt_is_made_of_is_summed(conn: Conn) -> None:
    made = [Fact(0, "support", "ok", 7 + place, 0, 2, False, made_of=kind) for place, kind in enumerate(MADE_OF)]
    write(conn, made, "copied")
    for kind in MADE_OF:  # also alone, for a statement is looked at as a whole
        write(conn, [Fact(0, "finance", "ok", 100, 0, 0, False, made_of=kind)], "commit")
    parts = rollup_store.parts_by(conn, ["part"], wanted())
    check_parts(conn, parts)
    assert {row["part"] for row in parts} == {"attempt", "input", "output", "cache_read", "bound", "whole"}


def test_a_fold_that_is_killed_changes_nothing(conn: Conn) -> None:
    write(conn, [Fact(0, "support", "ok", 7, 0, 2, False)], "commit")
    before = summed(conn, None, None)
    with conn.transaction(force_rollback=True):
        assert rollup_store.roll_up(conn) > 0
    assert summed(conn, None, None) == before
    assert rollup_store.roll_up(conn) > 0
    assert summed(conn, None, None) == before
    assert rollup_store.roll_up(conn) == 0


def test_two_that_fold_at_once_do_it_once(conn: Conn, database: Database) -> None:
    write(conn, [Fact(0, "support", "ok", 7, 0, 0, False)], "commit")
    with connect(database.urls["control"]) as other, other.transaction():
        assert rollup_store.roll_up(other) > 0
        assert rollup_store.roll_up(conn) == 0
    assert summed(conn, None, None) == raw(conn, None, None)


def test_what_is_filled_is_summarized_unless_a_vacuum_has_it(conn: Conn, database: Database) -> None:
    made = [Fact(0, "support", "ok", 7, 0, 3, False) for _ in range(700)]
    write(conn, made, "copied")
    with connect(database.urls["control"], autocommit=True) as control:
        with conn.transaction():
            conn.execute("LOCK TABLE call IN SHARE UPDATE EXCLUSIVE MODE")
            assert rollup_store.summarize_indexes(control) == 0
        rollup_store.summarize_indexes(control)
        assert rollup_store.summarize_indexes(control) == 0
    row = conn.execute("SELECT brin_summarize_new_values('call_shipped')").fetchone()
    pages = conn.execute("SELECT pg_relation_size('call') / 8192").fetchone()
    assert row == (0,) and pages is not None and pages[0] >= 32, "there are ranges of 16 pages"
    asked = conn.execute("SELECT relname FROM pg_class WHERE 'autosummarize=on' = ANY (reloptions)").fetchall()
    assert asked == [], "vacuum's list of such requests is short, and what does not fit is told in the log"


def test_percentiles_of_many_calls_are_within_two_percent(conn: Conn) -> None:
    made = [Fact(0, "support", "ok", 1, 0, 0, False) for _ in range(100)]
    calls, _, _ = rows(made)
    timed = [(*row[:21], float(place + 1), float(place + 1) / 2, *row[23:]) for place, row in enumerate(calls)]
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, timed)
    row = rollup_store.latencies(conn, None, None)[0]
    assert (row["workload"], int(row["calls"])) == ("support", 100)
    assert row["p50_ms"] == pytest.approx(50, rel=0.02)
    assert row["p95_ms"] == pytest.approx(95, rel=0.02)
    assert row["first_byte_p95_ms"] == pytest.approx(47.5, rel=0.02)


def test_shares_of_documents_sum_to_the_cost(conn: Conn) -> None:
    sources = json.dumps([["a", "x", 1, 2], ["b", "x", 1, 2], ["b", "y", 3, 4], ["c", "z", 1, 1]])
    found = conn.execute("SELECT document, share FROM document_shares(0.000000000005, %s)", (sources,)).fetchall()
    assert sorted(found) == [("a", Decimal("2E-12")), ("b", Decimal("2E-12")), ("c", Decimal("1E-12"))]
