"""What was granted of budgets, and lines of batches, go once nothing follows from them; no sum changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.api.retention import forget_sessions, forget_settled
from groundplan.core.clock import SystemClock
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.policy.live import LiveView
from groundplan.ledger import batch_queries, queries
from groundplan.testing import ManualClock
from groundplan.testing.charges import charges_by_period
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 25, 14, 33, tzinfo=UTC)
Conn = psycopg.Connection[tuple[Any, ...]]
OVER, PRESENT = "2026-05", "2026"


class World:
    def __init__(self, conn: Conn, control: Conn) -> None:
        self.conn = conn

        def transaction() -> AbstractContextManager[Conn]:
            return nullcontext(control)

        control.autocommit = True
        self.services: Any = SimpleNamespace(transaction=transaction, clock=ManualClock(NOW))
        for period in (OVER, PRESENT):
            self.do("INSERT INTO budget_period VALUES ('b', %s, 9, 4)", period)

    def do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = self.conn.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []

    def worker(self, ended: str, state: str = "fenced", *, done: bool | None = True, host: str = "h") -> UUID:
        """With two slices and their grants."""
        epoch = new_id()
        self.do(
            "INSERT INTO gateway (epoch, host, home, pid, state, heartbeat_at) VALUES (%s, %s, '/', 1, %s, %s)",
            epoch, host, state, ended,
        )  # fmt: skip
        if done is not None:
            self.do("INSERT INTO shipped (epoch, segment, position, done) VALUES (%s, 1, 64, %s)", epoch, done)
        for period in (OVER, PRESENT):
            self.do(
                "INSERT INTO budget_slice (epoch, budget, period, granted_usd, closed) VALUES (%s, 'b', %s, 1, %s)",
                epoch, period, state != "live",
            )  # fmt: skip
            self.do(
                "INSERT INTO budget_movement VALUES (%s, %s, 'b', %s, 1, 'grant', %s)", new_id(), epoch, period, ended
            )
        return epoch

    def left(self, table: str) -> set[tuple[UUID, str]]:
        return set(self.do(f"SELECT epoch, period FROM {table}"))


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    control = database.urls["control"]
    with psycopg.connect(database.superuser, autocommit=True) as conn, psycopg.connect(control) as other:
        yield World(conn, other)


def test_movements_go_with_the_worker_and_slices_with_their_period(world: World) -> None:
    over, rest = world.worker("2026-06-01"), world.worker("2026-06-01")
    limited = world.worker("2026-06-01")
    for epoch in (rest, limited):
        world.do("DELETE FROM budget_slice WHERE epoch = %s AND period = %s", epoch, PRESENT)
    world.do("INSERT INTO limit_span (name, span, amount, granted, ends) VALUES ('l', '2026', 9, 5, 'infinity')")
    world.do("INSERT INTO limit_slice (epoch, name, span, granted, released) VALUES (%s, 'l', '2026', 3, 1)", limited)
    kept = [
        world.worker("2026-11-01"),
        world.worker("2026-06-01", "live", done=False),
        world.worker("2026-06-01", "fenced", done=False),
        world.worker("2026-06-01", "stopped", done=None),
        world.worker("2026-06-01", "fenced"),
    ]
    world.do("UPDATE budget_slice SET closed = false WHERE epoch = %s AND period = %s", kept[-1], PRESENT)
    assert forget_settled(world.services) == 4 + 6
    assert forget_settled(world.services) == 0
    both = {(epoch, period) for epoch in kept for period in (OVER, PRESENT)}
    assert {epoch for (epoch,) in world.do("SELECT epoch FROM gateway")} == {over, limited, *kept}, (
        "one has a slice that goes on, one a part of a limit"
    )
    assert world.left("budget_movement") == both
    assert world.left("budget_slice") == both | {(over, PRESENT)}, "a late journal is compared with it"
    assert world.do("SELECT period, granted_usd FROM budget_period ORDER BY 1") == [(PRESENT, 4), (OVER, 4)]


def test_lines_of_a_batch_go_once_their_calls_have_left_and_its_cost_stays(world: World) -> None:
    batch = world.worker("2026-06-01", "stopped", done=None, host="batch")
    world.do("DELETE FROM budget_slice")
    calls = [new_id(), new_id()]
    world.do("INSERT INTO api_file VALUES (%s, 'w', %s, 'batch', 'f', 1)", file := new_id(), new_id())
    world.do(
        """INSERT INTO batch (id, workload, key_id, person, endpoint, input_file, completion_window, status, expires_at,
             ended_at, total, left_usd) VALUES (%s, 'w', %s, '', '/v1', %s, '24h', 'completed', %s, %s, 2, 1)""",
        batch, new_id(), file, "2026-06-02", "2026-06-01",
    )  # fmt: skip
    for number, call in enumerate(calls):
        world.do(
            """INSERT INTO batch_line (batch_id, number, custom_id, place, length, held_usd, state, call_id, ok)
               VALUES (%s, %s, %s, 0, 1, 1, 'done', %s, true)""",
            batch, number, str(number), call,
        )  # fmt: skip
    world.do(
        """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, reserved_usd, cost_usd,
             usage, epoch) VALUES (%s, 0, '2026-06-01', 'd', 's', 'm', 'settled', 'ok', 1, 0.5, '{}', %s)""",
        calls[1], new_id(),
    )  # fmt: skip

    def lines() -> list[tuple[Any, ...]]:
        forget_settled(world.services)
        assert world.do("SELECT epoch FROM gateway") == world.do("SELECT DISTINCT batch_id FROM batch_line")
        (shown,) = batch_queries.list_batches(world.conn, None, 9)
        assert (shown["cost_usd"], shown["completed"], shown["failed"]) == ("1.500000000000", 2, 0)
        return world.do("SELECT number FROM batch_line ORDER BY 1")

    assert lines() == [(0,), (1,)], "nothing leaves here"
    world.do("INSERT INTO archived_day VALUES ('2026-06-05', '/', 0, 0, 0, 0, '')")
    world.do("INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (%s, 'b', %s, 1)", batch, PRESENT)
    assert lines() == [(0,), (1,)], "its books are not closed"
    world.do("DELETE FROM budget_slice")
    assert lines() == [(1,)]
    world.do("DELETE FROM attempt; UPDATE batch SET left_usd = 1.5")
    assert lines() == []


async def test_a_worker_that_was_forgotten_and_wakes_is_fenced(
    world: World, database: Database, tmp_path: Path
) -> None:
    """What it holds of budgets was given back as its books were closed."""
    epoch = world.worker("2026-06-01", done=True)
    world.do("DELETE FROM budget_slice")
    world.do("INSERT INTO lost_worker (epoch, declared_by) VALUES (%s, 'ana')", epoch)
    forget_settled(world.services)
    assert world.do("SELECT epoch FROM gateway") == world.do("SELECT epoch FROM lost_worker") == []
    view = LiveView(database.urls["gateway"], Home(tmp_path), epoch, SystemClock(), Slices())
    await asyncio.wait_for(view._follow(), 30)
    assert view.fenced.is_set() and world.do("SELECT epoch FROM gateway") == []


def test_what_only_the_worker_itself_asked_for_goes(world: World) -> None:
    """What it was charged of facts that left, and movements that its journal told late."""
    epoch, lives = world.worker("2026-06-01"), world.worker("2026-11-25", "live", done=False)
    for each in (epoch, lives):
        world.do("INSERT INTO archived_charge VALUES (%s, 'b', %s, 1)", each, OVER)
    world.do("DELETE FROM budget_slice WHERE epoch = %s", epoch)
    for at in ("2026-08-01", "2026-11-20"):
        world.do("INSERT INTO budget_movement VALUES (%s, %s, 'b', %s, 1, 'release', %s)", new_id(), new_id(), OVER, at)
    forget_settled(world.services)
    assert world.do("SELECT epoch FROM archived_charge") == [(lives,)]
    assert world.do("SELECT at::date::text FROM budget_movement WHERE type = 'release'") == [("2026-11-20",)]


LONG_AGO, LATELY, LATER = (datetime(2026, month, 1, tzinfo=UTC) for month in (6, 11, 12))


def a_key(world: World, first: UUID | None, ended: datetime | None, number: int) -> UUID:
    """Of a line, if any; revoked or expired, or whichever is first, as its number says."""
    id = new_id()
    revoked, expires = ((ended, None), (None, ended), (ended, LATER), (LATER, ended))[number % 4]
    world.do(
        """INSERT INTO api_key (id, hash, prefix, workload, created_by, revoked_at, expires_at, family, budget_usd,
             budget_period) VALUES (%s, %s, 'gp', 'w', 'ana', %s, %s, %s, 5, 'total')""",
        id, id.bytes, revoked, expires, first,
    )  # fmt: skip
    return id


def sums(world: World) -> list[Any]:
    """All that any report adds up of budgets."""
    return [
        charges_by_period(world.conn),
        batch_queries.list_batches(world.conn, None, 9),
        world.do("SELECT budget, period, limit_usd, granted_usd FROM budget_period ORDER BY 1, 2"),
        world.do("SELECT id, workload, budget_usd FROM api_key ORDER BY 1"),
    ]


def test_what_was_held_of_a_budget_for_good_goes_once_its_keys_have_ended_and_no_sum_changes(world: World) -> None:
    """Lines of one, two or three keys that ended long ago, lately or not at all: those go of which all ended long ago.
    With the last of it goes the worker."""
    dice = random.Random(412)
    gone: set[str] = set()
    workers = [world.worker("2026-06-01") for _ in range(3)] + [world.worker("2026-06-01", "live", done=False)]
    world.do("DELETE FROM budget_slice WHERE epoch = ANY(%s)", workers[:3])
    ended = (LONG_AGO, LONG_AGO, LONG_AGO, LATELY, None)
    for number in range(60):
        ends = [dice.choice(ended) for _ in range(dice.choice((1, 1, 2, 3)))] if number else [LONG_AGO]
        first = a_key(world, None, ends[0], number)
        for each in ends[1:]:
            a_key(world, first, each, number)
        name = f"key/{first}"
        gone |= {name} if set(ends) == {LONG_AGO} else set()
        world.do("INSERT INTO budget_period VALUES (%s, 'total', 5, %s)", name, usd := Decimal(number) / 1_000_000)
        world.do("INSERT INTO charge_total VALUES (%s, 'total', %s)", name, usd)
        for worker in workers[1:] if number else workers:
            world.do(
                "INSERT INTO budget_slice (epoch, budget, period, granted_usd, closed) VALUES (%s, %s, %s, %s, %s)",
                worker, name, "total", usd, worker != workers[-1],
            )  # fmt: skip
    before, shown = sums(world), queries.budget_use(world.conn, NOW)
    forget_settled(world.services)
    assert sums(world) == before and 5 < len(gone) < 55
    assert queries.budget_use(world.conn, NOW) == [row for row in shown if row["budget"] not in gone]
    left = world.do("SELECT epoch, budget FROM budget_slice WHERE period = 'total'")
    assert {budget for epoch, budget in left if epoch == workers[1]}.isdisjoint(gone)
    assert len([budget for epoch, budget in left if epoch == workers[1]]) == 60 - len(gone)
    assert len([budget for epoch, budget in left if epoch == workers[-1]]) == 60, "who serves has what it has"
    assert {epoch for (epoch,) in world.do("SELECT epoch FROM gateway")} == set(workers[1:])


def test_what_was_held_of_a_budget_for_good_stays_until_the_books_of_its_worker_are_closed(world: World) -> None:
    name = f"key/{a_key(world, None, LONG_AGO, 0)}"
    world.do("INSERT INTO budget_period VALUES (%s, 'total', 5, 1)", name)
    gone = [world.worker("2026-06-01"), world.worker("2026-06-01", "stopped", done=None, host="batch")]
    stays = [
        world.worker("2026-11-01"), world.worker("2026-06-01", "live", done=False),
        world.worker("2026-06-01", done=False), world.worker("2026-06-01", done=None), world.worker("2026-06-01"),
    ]  # fmt: skip
    world.do("DELETE FROM budget_movement")
    world.do("DELETE FROM budget_slice WHERE period = %s", OVER)
    world.do("UPDATE budget_slice SET closed = false WHERE epoch = %s", stays[-1])
    for each in (*gone, *stays):
        world.do(
            "INSERT INTO budget_slice (epoch, budget, period, granted_usd, closed) VALUES (%s, %s, 'total', 1, true)",
            each, name,
        )  # fmt: skip
    assert forget_settled(world.services) == len(gone) + 1, "and its own period is over"
    assert {epoch for epoch, period in world.left("budget_slice") if period == "total"} == set(stays)


def test_what_was_held_for_an_experiment_goes_once_that_ended(world: World) -> None:
    worker = world.worker("2026-06-01")
    budgets = {}
    for state, at in (("ended", LONG_AGO), ("ended", LATELY), ("running", None)):
        world.do(
            """INSERT INTO experiment (id, name, workload, type, candidate, share, split, tolerance, guard_tolerance,
                 budget_usd, until, asked_by, state, ended_at)
               VALUES (%s, 'e', 'w', 'ab', 'd', 1, 'person', 0, 0, 1, now(), 'ana', %s, %s)""",
            id := new_id(), state, at,
        )  # fmt: skip
        budgets[state, at] = f"experiment/{id}"
    for name in (*budgets.values(), "key/nobody", "declared"):
        world.do("INSERT INTO budget_period VALUES (%s, 'total', 5, 1)", name)
        world.do(
            "INSERT INTO budget_slice (epoch, budget, period, granted_usd, closed) VALUES (%s, %s, 'total', 1, true)",
            worker, name,
        )  # fmt: skip
    forget_settled(world.services)
    left = {name for (name,) in world.do("SELECT budget FROM budget_slice WHERE period = 'total'")}
    assert left == {budgets["ended", LATELY], budgets["running", None], "key/nobody", "declared"}


def test_files_that_are_deleted_leave_no_row_but_for_those_of_batches(world: World) -> None:
    """Who reads the row of one is a batch that was ordered with it, or that made it."""
    files = {}
    for name, purpose, at in (
        ("old", "user_data", LONG_AGO), ("sent", "batch", LONG_AGO), ("read", "batch", LONG_AGO),
        ("made", "batch_output", LONG_AGO), ("new", "user_data", LATELY), ("kept", "user_data", None),
    ):  # fmt: skip
        files[name] = new_id()
        world.do(
            """INSERT INTO api_file (id, workload, key_id, purpose, filename, bytes, deleted_at)
               VALUES (%s, 'w', %s, %s, '', 1, %s)""",
            files[name], new_id(), purpose, at,
        )  # fmt: skip
    world.do(
        """INSERT INTO batch (id, workload, key_id, person, endpoint, input_file, output_file, completion_window,
             status, expires_at) VALUES (%s, 'w', %s, '', '/v1', %s, %s, '24h', 'completed', now())""",
        new_id(), new_id(), files["read"], files["made"],
    )  # fmt: skip
    shown = batch_queries.file_totals(world.conn, None)
    assert forget_settled(world.services) == 2
    assert batch_queries.file_totals(world.conn, None) == shown
    left = {id for (id,) in world.do("SELECT id FROM api_file")}
    assert left == {files[name] for name in ("read", "made", "new", "kept")}


def test_calls_at_the_same_time_of_a_dead_worker_leave_nothing(world: World) -> None:
    epoch = world.worker("2026-06-01", "live", done=False)
    world.do("INSERT INTO limit_span (name, span, amount, granted, ends) VALUES ('l', 'now', 9, 5, 'infinity')")
    world.do("INSERT INTO limit_slice (epoch, name, span, granted, released) VALUES (%s, 'l', 'now', 3, 1)", epoch)
    for _ in range(2):
        world.do("SELECT close_limits(%s)", epoch)
        assert world.do("SELECT granted FROM limit_span") == [(3,)]
        assert world.do("SELECT epoch FROM limit_slice") == []
    world.do("SELECT return_limit(%s, 'l', 'now', 3)", epoch)
    assert world.do("SELECT granted FROM limit_span") == [(3,)]


def test_sessions_that_are_long_over_go_but_for_the_last_sign_in_of_each_at_the_companys_own(world: World) -> None:
    """Of these it is asked later whether somebody can sign in there."""
    world.do("INSERT INTO person (id, email, name) VALUES (%s, 'a@acme.example', 'A')", who := new_id())
    for number, (expires, proof) in enumerate((
        ("2026-05-01", "link"), ("2026-05-01", "oidc"), ("2026-06-01", "oidc"), ("2026-11-01", "passkey"),
    )):  # fmt: skip
        world.do(
            "INSERT INTO console_session (hash, person_id, csrf, expires_at, proof) VALUES (%s, %s, '', %s, %s)",
            bytes([number]), who, expires, proof,
        )  # fmt: skip
        world.do("INSERT INTO login_link (hash, expires_at) VALUES (%s, %s)", bytes([number]), expires)
    assert forget_sessions(world.services) == 5
    left = world.do("SELECT expires_at::date::text, proof FROM console_session ORDER BY 1")
    assert left == [("2026-06-01", "oidc"), ("2026-11-01", "passkey")]
    assert forget_sessions(world.services) == 0
