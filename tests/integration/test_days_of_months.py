"""What people and documents cost on any days, from months and days that are kept, is what their calls say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.ledger import days_store, rollup_store
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
FIRST = datetime(2026, 9, 20, tzinfo=UTC)
PEOPLE = [new_id() for _ in range(3)]
days = st.integers(0, 100)
calls = st.tuples(days, st.integers(0, 2), st.sampled_from(["one", "two"]), st.integers(0, 10**12))


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as opened:
        for place, person in enumerate(PEOPLE):
            opened.execute(
                "INSERT INTO person (id, email, name) VALUES (%s, %s, 'x')", (person, f"{place}@acme.example")
            )
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


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.lists(calls, max_size=12), st.lists(calls, max_size=4), st.lists(calls, max_size=2),
    st.lists(st.tuples(days, st.integers(1, 100)), min_size=1, max_size=6),
)  # fmt: skip
@example(
    # on each side of what is asked for, with a month that is nearly whole before and after the whole ones
    [(day, day % 3, "one", day + 1) for day in (10, 11, 12, 13, 14, 40, 41, 42, 71, 72, 100)], [(13, 0, "one", 5)], [],
    [(13, 28), (13, 56), (13, 59), (42, 25), (13, 20), (12, 29), (43, 100), (70, 31)],
)  # fmt: skip
def test_any_days_are_what_their_calls_say(
    conn: Conn, folded: list[Any], late: list[Any], waiting: list[Any], spans: list[tuple[int, int]]
) -> None:
    conn.execute("TRUNCATE call, person_delta, person_day, person_whole, person_month, person_place_day")
    conn.execute("TRUNCATE document_delta, document_day, document_whole, document_month, person_place_month")
    conn.execute("TRUNCATE person_place_delta, document_place_delta, document_place_day, document_place_month")
    for made in (folded, late):
        add(conn, made)
        rollup_store.fold(conn)
    add(conn, waiting)
    for day, length in spans:
        since, until = FIRST + timedelta(days=day), FIRST + timedelta(days=day + length)
        people = by_facts(conn, since, until, "p.email")
        assert sorted(days_store.people_by_workload(conn, since, until)) == people
        whole = sum((row[2] for row in people), Decimal(0)), sum(row[3] for row in people)
        documents = days_store.sources_by_workload(conn, since, until)
        assert sum((row[2] for row in documents), Decimal(0)) == whole[0]
        for workload in (None, "one"):
            mine = [row for row in people if workload in (None, row[0])]
            top = days_store.people(conn, since, until, workload, 10)
            assert sum(int(row["calls"]) for row in top) == sum(row[3] for row in mine)
            assert {row["person"] for row in top} == {row[1] for row in mine}
            (given,) = days_store.sources(conn, since, until, workload) or [{"documents": 0}]
            assert given["documents"] == len({row[1] for row in mine})
        places = days_store.placed(conn, "person", since, until, ["deployment/own"])
        assert sorted((row[0], row[1], row[4]) for row in places) == [(row[0], row[1], 7 * row[3]) for row in people]
