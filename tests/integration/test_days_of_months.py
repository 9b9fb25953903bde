"""What people and documents cost on any days, from months and days that are kept, is what their calls say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.integration.people import database_with_people

from groundplan.core.ids import new_id
from groundplan.core.money import to_decimal
from groundplan.ledger import daily_attribution_store, rollup_store
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
FIRST = datetime(2026, 9, 20, tzinfo=UTC)
PEOPLE = [new_id() for _ in range(3)]
days = st.integers(0, 100)
calls = st.tuples(days, st.integers(0, 2), st.sampled_from(["one", "two"]), st.integers(0, 10**12))


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with database_with_people(database, PEOPLE) as opened:
        yield opened


def add(conn: Conn, made: list[tuple[int, int, str, int]]) -> None:
    for day, person, workload, cost in made:
        conn.execute(
            """INSERT INTO call (id, at, workload, person_id, endpoint, status, http_status, cost_usd, reserved_usd,
                 blueprint, epoch, deployment, site, prompt_tokens, detail)
               VALUES (%s, %s, %s, %s, 'chat', 'ok', 200, %s, 0, 1, %s, 'own', 'rack', 7, %s)""",
            (
                new_id(), FIRST + timedelta(days=day, hours=5), workload, PEOPLE[person], Decimal(cost).scaleb(-12),
                new_id(), f'{{"sources": [["document-{person}", "a.md", 1, 2]]}}',
            ),
        )  # fmt: skip


def by_facts(conn: Conn, since: datetime, until: datetime, key: str) -> list[tuple[Any, ...]]:
    return conn.execute(
        f"""SELECT c.workload, {key}, sum(c.cost_usd), count(*) FROM call c LEFT JOIN person p ON p.id = c.person_id
            WHERE c.at >= %s AND c.at < %s GROUP BY 1, 2 ORDER BY 1, 2""".encode(),
        (since, until),
    ).fetchall()


def by_person(rows: Iterable[tuple[str, str, int, int]]) -> list[tuple[Any, ...]]:
    """Each person once."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for workload, person, amount, calls in rows:
        before = sums.get((workload, person), (0, 0))
        sums[workload, person] = before[0] + amount, before[1] + calls
    return sorted((*key, *both) for key, both in sums.items())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.lists(calls, max_size=12), st.lists(calls, max_size=4), st.lists(calls, max_size=2),
    st.lists(st.tuples(days, st.integers(1, 100)), min_size=1, max_size=6),
)  # fmt: skip
@example(
    # on each side of what is asked for, with a month that is nearly whole before and after the whole ones
    [(day, day % 3, "one", day + 1) for day in (10, 11, 12, 13, 14, 40, 41, 42, 71, 72, 100)],
    [(13, 1, "one", 5), (41, 2, "one", 6), (20, 2, "one", 7), (12, 1, "two", 8)], [],
    [(13, 28), (13, 56), (13, 59), (42, 25), (13, 20), (12, 29), (43, 100), (70, 31)],
)  # fmt: skip
def test_any_days_are_what_their_calls_say(
    conn: Conn, folded: list[Any], late: list[Any], waiting: list[Any], spans: list[tuple[int, int]]
) -> None:
    conn.execute("TRUNCATE call, person_delta, person_day, person_whole, person_month, person_place_day")
    conn.execute("TRUNCATE document_delta, document_day, document_whole, document_month, person_place_month")
    conn.execute("TRUNCATE person_place_delta, document_place_delta, document_place_day, document_place_month")
    conn.execute("TRUNCATE person_running, document_running, person_place_running, document_place_running")
    conn.execute("UPDATE running_span SET since = NULL, until = NULL")
    for made in (folded, late):
        add(conn, made)
        rollup_store.roll_up(conn)
    add(conn, waiting)
    for day, length in spans:
        since, until = FIRST + timedelta(days=day), FIRST + timedelta(days=day + length)
        people = by_facts(conn, since, until, "p.email")
        paid = by_person(zip(*daily_attribution_store.people_by_workload(conn, since, until), strict=True))
        assert [(*who, to_decimal(cost), count) for *who, cost, count in paid] == people
        whole = sum((row[2] for row in people), Decimal(0)), sum(row[3] for row in people)
        documents = daily_attribution_store.sources_by_workload(conn, since, until)
        assert sum((row[2] for row in documents), Decimal(0)) == whole[0]
        for workload in (None, "one"):
            mine = [row for row in people if workload in (None, row[0])]
            top = daily_attribution_store.cost_by_person(conn, since, until, workload, 10)
            assert sum(int(row["calls"]) for row in top) == sum(row[3] for row in mine)
            assert {row["person"] for row in top} == {row[1] for row in mine}
            (given,) = daily_attribution_store.cost_by_source(conn, since, until, workload) or [{"documents": 0}]
            assert given["documents"] == len({row[1] for row in mine})
        deployments, sites, there = daily_attribution_store.people_at_places(conn, since, until, ["deployment/own"])
        assert {*zip(deployments, sites, strict=True)} <= {("own", "rack")}
        made = by_person(zip(*there, strict=True))
        assert made == [(row[0], row[1], 7 * row[3], row[3]) for row in people]


def read(conn: Conn, table: str) -> int:
    """Rows of a table that this transaction, and some before it, looked at."""
    row = conn.execute(
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = %s", (table,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_months_that_are_there_already_are_taken_in_one_after_the_other(conn: Conn) -> None:
    """As after the step of the schema: every answer is exact at every moment, and in the end reads no day."""
    made = [(day, day % 3, "one", day + 1) for day in range(66)]
    add(conn, made)
    rollup_store.roll_up(conn)
    conn.execute("TRUNCATE person_running, document_running, person_place_running, document_place_running")
    conn.execute("UPDATE running_span SET since = NULL, until = NULL")
    since, until = FIRST + timedelta(days=3), FIRST + timedelta(days=50)
    days_read = []
    for _ in range(4):
        with conn.transaction():
            conn.execute("SET LOCAL enable_seqscan = off")  # which so few rows are not worth avoiding
            before = read(conn, "person_day")
            people = by_person(zip(*daily_attribution_store.people_by_workload(conn, since, until), strict=True))
            days_read.append(read(conn, "person_day") - before)
        assert [(*who, to_decimal(cost), count) for *who, cost, count in people] == by_facts(
            conn, since, until, "p.email"
        )
        rollup_store.roll_up(conn)
    assert days_read[0] >= 17 and days_read[-1] <= 1, "no day, but the newest for which it is"
    spans = conn.execute("SELECT DISTINCT since, until FROM running_span WHERE name LIKE 'person%'").fetchall()
    assert spans == [(datetime(2026, 9, 1, tzinfo=UTC), FIRST + timedelta(days=65))]
    kept = conn.execute(
        "SELECT sum(cardinality(days)), sum(cost_usd[cardinality(days)]) FROM person_running"
    ).fetchone()
    assert kept == (65, sum(to_decimal(cost) for day, *_, cost in made if day < 65))


def test_a_time_that_has_not_come_makes_no_day_over(conn: Conn) -> None:
    ahead = (datetime.now(UTC) - FIRST).days + 400
    add(conn, [(1, 0, "one", 3), (2, 0, "one", 4), (ahead, 0, "one", 5)])
    rollup_store.roll_up(conn)
    (span,) = conn.execute("SELECT until FROM running_span WHERE name = 'person'").fetchall()
    assert span == (FIRST + timedelta(days=2),)
    _, _, amounts, _ = daily_attribution_store.people_by_workload(conn, FIRST, FIRST + timedelta(days=ahead + 1))
    assert sum(amounts) == 12
