"""What a call was worth is kept once, for calls that are there, and as whoever reports it may."""

from __future__ import annotations

import dataclasses
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from groundplan.core.database import connect
from groundplan.core.errors import Conflict, NotFound
from groundplan.core.ids import new_id
from groundplan.ledger import outcome_store, route_store, ticket_store
from groundplan.ledger.outcome_store import Outcome
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)


@dataclasses.dataclass(frozen=True)
class Ledger:
    """A ledger with one call of the workload `assistant`."""

    database: Database
    call: UUID

    def outcome(self, **more: object) -> Outcome:
        made = Outcome(id=new_id(), call_id=self.call, accepted=True, value_usd=Decimal("1.5"), label="x", by="key:1")
        return msgspec.structs.replace(made, **more)

    def add(self, outcome: Outcome) -> None:
        with connect(self.database.urls["gateway"], autocommit=True) as conn:
            outcome_store.add(conn, outcome)

    def kept(self) -> list[tuple[object, ...]]:
        with connect(self.database.urls["gateway"]) as conn:
            return conn.execute("SELECT accepted, value_usd, label, by FROM outcome").fetchall()


@pytest.fixture
def ledger(database: Database) -> Ledger:
    call = new_id()
    with psycopg.connect(database.urls["shipper"]) as conn:
        conn.execute(
            "INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint,"
            " epoch, detail) VALUES (%s, now(), 'assistant', 'chat.completions', 'ok', 200, 0, 0, 1, %s, '{}')",
            (call, new_id()),
        )
    return Ledger(database, call)


def test_an_outcome_that_is_sent_again_is_kept_once(ledger: Ledger) -> None:
    outcome = ledger.outcome(workload="assistant")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ledger.add, [outcome] * 8))
    assert ledger.kept() == [(True, Decimal("1.5"), "x", "key:1")]


@pytest.mark.parametrize("other", [{"accepted": False}, {"value_usd": None}, {"label": "y"}, {"by": "key:2"}])
def test_an_id_that_says_something_else_is_refused(ledger: Ledger, other: dict[str, object]) -> None:
    outcome = ledger.outcome()
    ledger.add(outcome)
    with pytest.raises(Conflict, match="said something else") as refused:
        ledger.add(msgspec.structs.replace(outcome, **other))
    assert refused.value.code == "outcome_differs"
    assert len(ledger.kept()) == 1


def test_the_same_without_an_id_is_refused_with_what_to_do(ledger: Ledger) -> None:
    first = ledger.outcome(named=False, workload="assistant")
    ledger.add(first)
    with pytest.raises(Conflict, match="before") as refused:
        ledger.add(msgspec.structs.replace(first, id=new_id()))
    assert (refused.value.code, "`id` of your own" in refused.value.hint) == ("outcome_twice", True)
    ledger.add(msgspec.structs.replace(first, id=new_id(), by="key:2"))
    ledger.add(msgspec.structs.replace(first, id=new_id(), accepted=False))
    assert len(ledger.kept()) == 3, "somebody else, or something else, is another outcome"
    with pytest.raises(NotFound):
        ledger.add(msgspec.structs.replace(first, id=new_id(), call_id=new_id()))


def test_what_was_taken_back_may_be_accepted_again_without_an_id(ledger: Ledger) -> None:
    said = ledger.outcome(named=False)
    for accepted in (True, False, True, False, True):
        ledger.add(msgspec.structs.replace(said, id=new_id(), accepted=accepted))
        with pytest.raises(Conflict, match="before"):
            ledger.add(msgspec.structs.replace(said, id=new_id(), accepted=accepted))
    ledger.add(msgspec.structs.replace(said, id=new_id(), value_usd=Decimal(3)))
    ledger.add(msgspec.structs.replace(said, id=new_id()))
    with connect(ledger.database.urls["control"]) as conn:
        (told,) = conn.execute("SELECT (outcome_told(%s, NULL)).*", (said.call_id,)).fetchall()
    assert tuple(told) == (True, Decimal("1.5"), 7), "the newest counts, of each field"


@pytest.mark.parametrize("other", [{"workload": "payroll"}, {"call_id": new_id()}])
def test_only_a_call_of_the_workload_has_a_worth(ledger: Ledger, other: dict[str, object]) -> None:
    with pytest.raises(NotFound) as refused:
        ledger.add(ledger.outcome(**other))
    assert refused.value.code == "call_unknown"
    assert ledger.kept() == []


def test_a_gateway_reads_no_more_of_a_call_than_whose_it_is(ledger: Ledger) -> None:
    with connect(ledger.database.urls["gateway"]) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT detail FROM call")


RAW_TICKETS = """WITH told AS (
     SELECT DISTINCT ON (o.ticket, t.workload) o.ticket, t.workload, o.accepted, o.at
     FROM outcome o JOIN ticket_call t ON t.call_id = o.call_id ORDER BY o.ticket, t.workload, o.at DESC, o.id DESC),
   worth AS (
     SELECT DISTINCT ON (o.ticket, t.workload) o.ticket, t.workload, o.value_usd
     FROM outcome o JOIN ticket_call t ON t.call_id = o.call_id WHERE o.value_usd IS NOT NULL
     ORDER BY o.ticket, t.workload, o.at DESC, o.id DESC),
   sums AS (
     SELECT ticket, workload, count(*) FILTER (WHERE asked) AS calls, sum(cost_usd) AS cost_usd
     FROM ticket_call GROUP BY 1, 2)
   SELECT workload, count(*) FILTER (WHERE accepted), count(*) FILTER (WHERE NOT accepted), sum(calls)::bigint,
     sum(cost_usd), coalesce(sum(cost_usd) FILTER (WHERE accepted), 0),
     coalesce(sum(value_usd) FILTER (WHERE accepted), 0)
   FROM told JOIN sums USING (ticket, workload) LEFT JOIN worth USING (ticket, workload)
   WHERE at >= %(since)s AND at < %(until)s GROUP BY 1 ORDER BY 1"""


@pytest.mark.parametrize("seed", range(3))
def test_tickets_cost_and_are_worth_what_their_calls_and_outcomes_say(database: Database, seed: int) -> None:
    """In whatever order it was told, also late, twice at one time, and of calls of two workloads."""
    chance = random.Random(seed)
    with connect(database.urls["owner"], autocommit=True) as conn:
        calls = [(_call(conn, chance), f"T-{chance.randrange(6)}") for _ in range(40)]
        for call, ticket in calls:
            conn.execute(
                "INSERT INTO ticket_call SELECT id, %s, workload, at, %s, cost_usd FROM call WHERE id = %s",
                (ticket, chance.random() < 0.7, call),
            )
        for _ in range(60):
            call, ticket = chance.choice(calls)
            conn.execute(
                """INSERT INTO outcome (id, call_id, at, accepted, value_usd, label, by, ticket)
                   VALUES (%s, %s, %s, %s, %s, 'ticket', 'desk', %s)""",
                (new_id(), call, NOW - timedelta(hours=chance.randrange(90)), chance.choice([True, False]),
                 chance.choice([None, Decimal(chance.randrange(10**12)).scaleb(-12)]), ticket),
            )  # fmt: skip
        assert len(conn.execute("SELECT DISTINCT ticket FROM ticket_told").fetchall()) == 6
        for since, until in ((90, -1), (90, 40), (40, 20), (20, -1), (3, 2)):
            days = {"since": NOW - timedelta(hours=since), "until": NOW - timedelta(hours=until)}
            expected = conn.execute(RAW_TICKETS, days).fetchall()
            found = ticket_store.by_workload(conn, **days, workload=None)
            assert [tuple(row.values()) for row in found] == expected
            for row in expected:
                (own,) = ticket_store.by_workload(conn, **days, workload=row[0])
                assert tuple(own.values()) == row


def test_an_outcome_is_of_the_workload_of_its_call_also_when_that_is_archived(database: Database) -> None:
    chance = random.Random(1)
    with connect(database.urls["owner"], autocommit=True) as conn:
        calls = [_call(conn, chance) for _ in range(8)]
        conn.execute("INSERT INTO ticket_call SELECT id, 'T-1', workload, at, true, cost_usd FROM call")
        expected = dict(conn.execute("SELECT id, workload FROM call").fetchall())
        conn.execute("DELETE FROM call WHERE id = ANY(%s)", (calls[:4],))
        for place, call in enumerate(calls):
            conn.execute(
                """INSERT INTO outcome (id, call_id, at, accepted, label, by, workload)
                   VALUES (%s, %s, %s, %s, 'tone', 'ana', 'said')""",
                (new_id(), call, NOW, place % 3 > 0),
            )
        assert dict(conn.execute("SELECT call_id, workload FROM outcome").fetchall()) == expected
        judged = [
            route_store.judged_by_dimension(conn, name, NOW - timedelta(days=1), ["tone"]) for name in ("one", "two")
        ]
        accepted = {call: place % 3 > 0 for place, call in enumerate(calls)}
        for name, found in zip(("one", "two"), judged, strict=True):
            mine = [accepted[call] for call in calls if expected[call] == name]
            assert found == {"tone": (sum(mine), len(mine))}


def _call(conn: psycopg.Connection[Any], chance: random.Random) -> UUID:
    id = new_id()
    conn.execute(
        """INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint, epoch,
             detail) VALUES (%s, %s, %s, 'chat.completions', 'ok', 200, %s, 0, 1, %s, '{}')""",
        (id, NOW - timedelta(hours=chance.randrange(200)), chance.choice(["one", "two"]),
         Decimal(chance.randrange(10**13)).scaleb(-12), new_id()),
    )  # fmt: skip
    return id
