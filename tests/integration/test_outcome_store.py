"""What a call was worth is kept once, for calls that are there, and as whoever reports it may."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID

import msgspec
import psycopg
import pytest

from groundplan.core.database import connect
from groundplan.core.errors import Conflict, NotFound
from groundplan.core.ids import new_id
from groundplan.ledger import outcome_store
from groundplan.ledger.outcome_store import Outcome
from groundplan.testing.database import Database


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


@pytest.mark.parametrize("other", [{"workload": "payroll"}, {"call_id": new_id()}])
def test_only_a_call_of_the_workload_has_a_worth(ledger: Ledger, other: dict[str, object]) -> None:
    with pytest.raises(NotFound) as refused:
        ledger.add(ledger.outcome(**other))
    assert refused.value.code == "call_unknown"
    assert ledger.kept() == []


def test_a_gateway_reads_no_more_of_a_call_than_whose_it_is(ledger: Ledger) -> None:
    with connect(ledger.database.urls["gateway"]) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT detail FROM call")
