"""Own budgets of keys for good: of those whose keys ended long ago a worker knows nothing any more, and nothing is
granted twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from tests.integration.test_lease_client import COST, FixedClock, disconnect, granted, patience, until, worker

from groundplan.blueprint.model import Budget
from groundplan.core.ids import new_id
from groundplan.gateway.budgets import lease_client
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.policy import remaining
from groundplan.gateway.policy.ended_key_budgets import unusable_budgets
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.ledger.model import Charge
from groundplan.testing.database import Database

MADE = datetime(2026, 8, 1, tzinfo=UTC)
TOTAL = "total"


def id_of(at: datetime) -> str:
    """As one that was made then."""
    return str(UUID(int=int(at.timestamp() * 1000) << 80 | new_id().int & (1 << 80) - 1))


def a_key(first: str) -> KeyEntry:
    """The last of its line."""
    return KeyEntry(
        id=str(new_id()), workload="w", person="", acts_for_others=False, revoked=True, expires=0.0, family=first
    )  # fmt: skip


async def test_of_budgets_whose_keys_ended_long_ago_nothing_stays_and_nothing_is_granted_twice(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_client, "_TICK_S", 0.01)
    firsts = [id_of(MADE) for _ in range(20)]
    keys = {first.encode(): a_key(first) for first in firsts}
    names = [f"key/{first}" for first in firsts]
    async with worker(database, tmp_path) as one:
        leases, slices, granted_of = one.leases, one.slices, one.leases._grants.granted.amounts
        leases.set_ended_key_lookup(lambda budgets: unusable_budgets(budgets, keys, one.clock.now().timestamp()))
        tokens, company = [(new_id().bytes, 0) for _ in [*names, "all"]], ("all", TOTAL)
        with patience():
            for name, token in zip([*names, "all"], tokens, strict=True):
                budget = Budget(name=name, covers=name, limit=10 * COST, period=TOTAL)
                assert await leases.acquire(token, [Charge(name, TOTAL, 3 * COST)], [budget]) is None
        for token in tokens[1:]:
            slices.settle(token, COST)
        one.clock.moment += timedelta(days=1, minutes=1)
        await until(lambda: one.clock.advance_minute() and leases._last_minute > "2026-11-26T12:05")
        assert len(granted_of) == len(leases._accounts) == 21, "they ended, and are known"
        for first in firsts[:-1]:
            del keys[first.encode()]
        one.clock.moment += timedelta(days=1, minutes=1)
        stays = [(names[0], TOTAL), (names[-1], TOTAL), company]
        await until(lambda: one.clock.advance_minute() and sorted(granted_of) == sorted(stays))
        assert sorted(leases._accounts) == sorted(slices.granted_keys()) == sorted(stays), "of one a call goes on"
        assert all(granted(database, name, TOTAL) == COST for name in names[1:-1]), "what was idle went back"
        before = leases._grants._connection
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            disconnect(conn)
        await until(lambda: leases.connected and leases._grants._connection is not before)
        await leases.book_unrequested([(name, TOTAL) for name in names])
        assert sorted(slices.granted_keys()) == sorted(stays), "nothing comes back that was spent and given back"
        slices.settle(tokens[0], COST)
        await until(lambda: one.clock.advance_minute() and sorted(granted_of) == sorted(stays[1:]))
    assert all(granted(database, name, TOTAL) == COST for name in names)


def test_a_budget_is_outlived_where_no_key_of_its_line_is_known() -> None:
    old, young = id_of(MADE), id_of(MADE + timedelta(days=199))
    now = MADE.timestamp() + 200 * 86_400
    named = {f"key/{old}", f"key/{young}"}
    other = {b"o": a_key("other")}
    assert unusable_budgets(named, other, now) == {f"key/{old}"}, "one that was made lately is not read yet"
    assert unusable_budgets(named, other | {b"1": a_key(old)}, now) == set()
    assert unusable_budgets(named, {}, now) == set(), "live policy was not read"


async def test_what_was_left_of_a_budget_is_known_no_more_once_its_key_has_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more than are asked about in one second."""
    monkeypatch.setattr(remaining, "BUDGETS_PER_REFRESH", 4)
    each = [Budget(name=f"key/{n}", covers=f"key/{n}", limit=10 * COST, period=TOTAL) for n in range(10)]
    keys = {b.name.encode(): KeyEntry(b.name, "w", "", False, False, None, budget=b) for b in each}
    with psycopg.connect(database.urls["owner"]) as conn, conn.cursor() as cursor:
        cursor.executemany("INSERT INTO budget_period VALUES (%s, 'total', 1, 0.5)", [(b.name,) for b in each])
    found = remaining.RemainingBudgets(Slices(), FixedClock())
    async with await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
        for _ in range(3):
            await found.refresh(connection, [], keys, 1.0)
        assert len(found.taken_elsewhere) == 10
        living = {name: key for name, key in keys.items() if name != b"key/0"}
        for _ in range(3):
            await found.refresh(connection, [], living, 1.0)
        assert set(found.taken_elsewhere) == {(b.name, TOTAL) for b in each[1:]}
