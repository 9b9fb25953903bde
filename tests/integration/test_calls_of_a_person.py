"""The calls of one person are those that the ledger has of them, and found without a look at everybody's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.people import database_with_people

from groundplan.core.ids import new_id
from groundplan.ledger import queries, rollup_store
from groundplan.ledger.store import CallFilter
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
FIRST = datetime(2026, 9, 20, tzinfo=UTC)
PEOPLE = [new_id() for _ in range(2)]
STATUS = ("ok", "failed", "refused")
hours = st.integers(0, 80)
made = st.lists(st.tuples(hours, st.integers(0, 1), st.sampled_from(STATUS), st.sampled_from(["one", "two"])))


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with database_with_people(database, PEOPLE) as opened:
        yield opened


def add(conn: Conn, calls: list[tuple[int, int, str, str]]) -> None:
    for hour, person, status, workload in calls:
        conn.execute(
            """INSERT INTO call (id, at, workload, person_id, endpoint, status, http_status, cost_usd, reserved_usd,
                 blueprint, epoch, detail)
               VALUES (%s, %s, %s, %s, %s, %s, 200, 0, 0, 1, %s, '{}')""",
            (new_id(), FIRST + timedelta(hours=hour), workload, PEOPLE[person], _what(hour), status, new_id()),
        )


def _what(hour: int) -> str:
    """Some are none: no sum counts them."""
    return "chat" if hour % 3 else ("messages.count_tokens", "chat.estimate", "mcp")[hour // 3 % 3]


def by_facts(conn: Conn, wanted: CallFilter) -> list[str]:
    rows = conn.execute(
        """SELECT id::text FROM call WHERE person_id = %(person)s
             AND (%(status)s::text IS NULL OR status = %(status)s) AND (%(workload)s::text IS NULL OR
               workload = %(workload)s) AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
             AND (%(until)s::timestamptz IS NULL OR at < %(until)s) ORDER BY at DESC, id DESC""",
        wanted.parameters(),
    ).fetchall()
    return [row[0] for row in rows]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    made, made, st.sampled_from([None, *STATUS]), st.sampled_from([None, "one"]), st.none() | hours, st.none() | hours,
    st.integers(1, 5),
)  # fmt: skip
def test_pages_list_each_call_of_a_person_once(
    conn: Conn, folded: list[Any], new: list[Any], status: str | None, workload: str | None, since: int | None,
    until: int | None, limit: int,
) -> None:  # fmt: skip
    conn.execute("TRUNCATE call, person_delta, person_day, person_whole, person_month")
    add(conn, folded)
    rollup_store.roll_up(conn)
    add(conn, new)
    begin, end = (None if hour is None else FIRST + timedelta(hours=hour) for hour in (since, until))
    wanted = CallFilter(person=PEOPLE[0], status=status, workload=workload, since=begin, until=end)
    found: list[str] = []
    before: str | None = ""
    while before is not None:
        page = queries.list_calls(conn, wanted, before=UUID(before) if before else None, limit=limit)
        assert len(page["calls"]) <= limit
        found += [str(call["id"]) for call in page["calls"]]
        before = page["next"] and str(page["next"])
    assert found == by_facts(conn, wanted)


def calls_read(conn: Conn) -> int:
    row = conn.execute(
        """SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'call'"""
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("folded", [False, True])
def test_a_filter_with_few_matches_reads_few_other_calls(conn: Conn, folded: bool) -> None:
    add(conn, [(hour % 70, 0, "refused" if hour % 9 == 0 else "ok", "one") for hour in range(1500)])
    add(conn, [(75, 1, "ok", "two"), (3, 1, "refused", "two")])
    if folded:
        rollup_store.roll_up(conn)
    conn.execute("ANALYZE call")
    rare = ((CallFilter(status="failed"), 0), (CallFilter(deployment="none"), 0))
    for wanted, count in ((CallFilter(person=new_id()), 0), (CallFilter(person=PEOPLE[1]), 2), *rare):
        with conn.transaction():
            before = calls_read(conn)
            assert len(queries.list_calls(conn, wanted)["calls"]) == count
            assert calls_read(conn) - before <= 5


@pytest.mark.parametrize("status", ["failed", "refused"])
@pytest.mark.parametrize("workload", [None, "one"])
def test_calls_by_status_equal_those_in_the_ledger(conn: Conn, status: str, workload: str | None) -> None:
    calls = [(hour * 7 % 200, hour % 2, STATUS[hour % 3], "one" if hour % 4 else "two") for hour in range(40)]
    add(conn, calls[:25])
    rollup_store.roll_up(conn)
    add(conn, calls[25:])
    for since, until in ((None, None), (FIRST + timedelta(hours=30), FIRST + timedelta(hours=150))):
        wanted = CallFilter(status=status, workload=workload, since=since, until=until)
        both = [CallFilter(status=status, workload=workload, since=since, until=until, person=who) for who in PEOPLE]
        rows = conn.execute("SELECT id::text FROM call ORDER BY at DESC, id DESC").fetchall()
        mine = {id for each in both for id in by_facts(conn, each)}
        found, before = list[str](), None
        while True:
            page = queries.list_calls(conn, wanted, before=before, limit=3)
            found += [call["id"] for call in page["calls"]]
            if page["next"] is None:
                break
            before = UUID(page["next"])
        assert found == [id for (id,) in rows if id in mine] and len(found) > 2
