"""What waits for a grant that is being committed: whoever fences its worker, and not the worker's own heartbeat. And
what a grant does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import LockNotAvailable

from groundplan.core.ids import new_id
from groundplan.gateway.budgets import grant_store
from groundplan.gateway.journal import ledger_store
from groundplan.identity.store import fence_silent
from groundplan.testing.database import Database

GRANTS = {
    "budget": "SELECT amount FROM grant_budget(gen_random_uuid(), %s, 'b', '2036-11', 9, 1, true, 1, 1, 0, false)",
    "limit": "SELECT amount FROM grant_limit(%s, 'requests/x', '2036-11', 9, 1, '2036-12-01', 1, 1, 0, false)",
}
HEARTBEAT = "UPDATE gateway SET heartbeat_at = now(), policy_ack = 1, health = '{}' WHERE epoch = %s AND state = 'live'"
FENCES: dict[str, Callable[[psycopg.Connection[Any], UUID], object]] = {
    "shipper": ledger_store.fence,
    "control": lambda conn, _: fence_silent(conn, 60.0),
}
grants = pytest.mark.parametrize("grant", GRANTS.values(), ids=GRANTS)


def register(database: Database) -> UUID:
    """A worker whose last heartbeat is long ago, so that it may be fenced."""
    epoch = new_id()
    with psycopg.connect(database.urls["gateway"]) as conn:
        conn.execute(
            """INSERT INTO gateway (epoch, host, home, pid, heartbeat_at)
               VALUES (%s, 'here', '/', 1, now() - interval '1 hour')""",
            (epoch,),
        )
    return epoch


def amount(conn: psycopg.Connection[Any], grant: str, epoch: UUID) -> int:
    row = conn.execute(grant.encode(), (epoch,)).fetchone()
    assert row is not None
    return int(row[0])


@grants
def test_a_heartbeat_does_not_wait_for_a_grant(database: Database, grant: str) -> None:
    """A commit takes as long as the flush of the log, and a heartbeat has a second."""
    epoch = register(database)
    with psycopg.connect(database.urls["gateway"]) as granting, psycopg.connect(database.urls["gateway"]) as beating:
        assert amount(granting, grant, epoch) == 1
        beating.execute("SET lock_timeout = '1s'")
        assert beating.execute(HEARTBEAT.encode(), (epoch,)).rowcount == 1
        beating.commit()
        assert amount(granting, grant, epoch) == 1, "nor the other way round"


@grants
@pytest.mark.parametrize("role", ["shipper", "control"])
def test_a_fence_waits_for_a_grant_under_way(database: Database, grant: str, role: Any) -> None:
    """Else the books of the worker would be closed without it; also where a heartbeat came between."""
    epoch = register(database)
    with psycopg.connect(database.urls["gateway"]) as granting, psycopg.connect(database.urls[role]) as fencing:
        assert amount(granting, grant, epoch) == 1
        with psycopg.connect(database.urls["gateway"]) as other:
            other.execute("UPDATE gateway SET ready = true WHERE epoch = %s", (epoch,))
        fencing.execute("SET lock_timeout = '200ms'")
        fencing.commit()
        with pytest.raises(LockNotAvailable):
            FENCES[role](fencing, epoch)
        fencing.rollback()
        granting.commit()
        FENCES[role](fencing, epoch)
        fencing.commit()
        assert amount(granting, grant, epoch) == 0


def test_a_heartbeat_does_not_wait_for_money_that_a_batch_hands_over(database: Database) -> None:
    """A fence does: the books of the worker would be closed without it."""
    epoch = register(database)
    with (
        psycopg.connect(database.urls["gateway"]) as moving,
        psycopg.connect(database.urls["gateway"]) as beating,
        psycopg.connect(database.urls["shipper"]) as fencing,
    ):
        moving.execute("SELECT move_hold(gen_random_uuid(), %s, 1)", (epoch,))
        beating.execute("SET lock_timeout = '1s'")
        assert beating.execute(HEARTBEAT.encode(), (epoch,)).rowcount == 1
        beating.commit()
        fencing.execute("SET lock_timeout = '200ms'")
        fencing.commit()
        with pytest.raises(LockNotAvailable):
            ledger_store.fence(fencing, epoch)


@grants
def test_nothing_is_granted_while_a_fence_is_committed(database: Database, grant: str) -> None:
    epoch = register(database)
    with (
        psycopg.connect(database.urls["gateway"]) as granting,
        psycopg.connect(database.urls["shipper"]) as fencing,
        ThreadPoolExecutor(1) as threads,
    ):
        ledger_store.fence(fencing, epoch)
        granted = threads.submit(amount, granting, grant, epoch)
        with pytest.raises(TimeoutError):
            granted.result(0.3)
        fencing.commit()
        assert granted.result(10) == 0


def test_two_connections_of_a_worker_may_register_it_at_the_same_moment(database: Database) -> None:
    """Whichever unique index of the two they meet in."""
    url, together = database.urls["gateway"], threading.Barrier(2)

    def enter(conn: psycopg.Connection[Any], epoch: UUID) -> None:
        together.wait(20)
        conn.execute(grant_store._REGISTER, (epoch, "here", "/", 1, epoch))

    with (
        psycopg.connect(url, autocommit=True) as first,
        psycopg.connect(url, autocommit=True) as second,
        ThreadPoolExecutor(2) as threads,
    ):
        for _ in range(500):
            epoch = new_id()
            for each in [threads.submit(enter, conn, epoch) for conn in (first, second)]:
                each.result(20)


def test_a_grant_does_not_wait_until_a_dead_workers_windows_are_closed(database: Database) -> None:
    """With each new window some old ones are deleted, those of dead workers, too: of many users there are thousands."""
    dead, living = register(database), register(database)
    with psycopg.connect(database.urls["owner"]) as conn:
        for name, ago in (("requests/old", "2 hours"), ("requests/new", "1 second")):
            conn.execute(
                """INSERT INTO limit_span (name, span, amount, granted, ends)
                   VALUES (%s, '2026-11-25T14:33', 9, 3, now() - %s::interval)""",
                (name, ago),
            )
            conn.execute(
                "INSERT INTO limit_slice (epoch, name, span, granted) VALUES (%s, %s, '2026-11-25T14:33', 3)",
                (dead, name),
            )
    with psycopg.connect(database.urls["shipper"]) as closing, psycopg.connect(database.urls["gateway"]) as granting:
        closing.execute("SELECT close_limits(%s)", (dead,))
        granting.execute("SET lock_timeout = '1s'")
        assert amount(granting, GRANTS["limit"], living) == 1
        granting.commit()
        closing.commit()
        left = closing.execute("SELECT name, closed FROM limit_slice WHERE epoch = %s", (dead,)).fetchall()
    assert left == [("requests/new", True)]
