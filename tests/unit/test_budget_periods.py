"""A budget whose period ends while a call waits for it, or between its attempts: the next period is asked, and nobody
is told a wrong time or a wrong reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from tests.unit.call_rig import BOUND, LIMIT, FixedPolicy, Rig, call_rig, reliability
from tests.unit.test_limit_windows import Slow

from groundplan.blueprint.model import Budget
from groundplan.core.home import Home
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.batches import batch_runner, batch_store
from groundplan.gateway.batches.batch_check import CheckResult
from groundplan.gateway.batches.batch_runner import BatchRunner
from groundplan.gateway.call.attempts.reserve import reserve
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.ledger.model import Reservation
from groundplan.testing.clock import ManualClock
from groundplan.testing.journal import replay

LAST = datetime(2026, 11, 25, 23, 59, 59, 900_000, tzinfo=UTC)
"""A tenth of a second before the day is over."""
DAILY = Budget(name="daily", covers="workload/assistant", limit=LIMIT, period="day")
OLD, NEW = "2026-11-25", "2026-11-26"


class OfADay(Slow):
    """That says so of the daily budget only."""

    def was_refused_lately(self, name: str, period: str) -> bool:  # noqa: ARG002 -- the protocol's signature
        return name == DAILY.name


@asynccontextmanager
async def daily(folder: Path, seconds: float = 0.2, budget: Budget = DAILY, **settings: Any) -> AsyncIterator[Rig]:
    """A worker a moment before midnight, which takes `seconds` to hear that nothing is left."""
    async with call_rig(folder, workloads={"assistant": reliability(**settings)}) as rig:
        live, clock = rig.gateway.live, rig.gateway.clock
        assert isinstance(live, FixedPolicy) and live.catalog is not None and isinstance(clock, ManualClock)
        clock.set_now(LAST)
        plan = rig.plan("assistant")
        live.catalog.plans["assistant"] = replace(plan, budgets=(budget, *plan.budgets))
        rig.gateway.leases = rig.grants = OfADay(clock, seconds)
        yield rig


def spent(rig: Rig, period: str) -> int:
    return rig.slices.spent("daily", period)


async def test_a_call_that_waits_past_midnight_is_charged_to_the_new_day(tmp_path: Path) -> None:
    async with daily(tmp_path) as rig:
        rig.slices.add_grant("daily", NEW, LIMIT)
        reply = await rig.chat()
        assert (reply.status, rig.grants.requested_budgets) == (200, ["daily"]), reply.body
        assert spent(rig, OLD) == 0 < spent(rig, NEW)
        assert rig.slices.open_reservations == 0
        made = [each for each in await rig.records() if isinstance(each, Reservation)]
        assert [{charge.budget: charge.period for charge in each.charges} for each in made] == [
            {"daily": NEW, "all": "total"}
        ]


async def test_a_call_waiting_past_midnight_is_refused_by_the_new_days_budget(tmp_path: Path) -> None:
    async with daily(tmp_path) as rig:
        reply = await rig.chat()
        error = reply.json["error"]
        assert (reply.status, reply.code, error["budget"]) == (429, "budget_exhausted", "daily")
        assert error["frees_at"] == "2026-11-27T00:00:00+00:00"
        assert "retry-after" not in reply.headers, "clients for .NET would wait for it"
        assert len(rig.grants.requested_budgets) == 2 and rig.slices.open_reservations == 0


async def test_the_budget_of_a_continuing_day_is_requested_once(tmp_path: Path) -> None:
    async with daily(tmp_path, seconds=0.01) as rig:
        reply = await rig.chat()
        assert reply.json["error"]["frees_at"] == "2026-11-26T00:00:00+00:00"
        assert (len(rig.grants.requested_budgets), reply.headers["retry-after"]) == (1, "1")


async def test_a_day_in_a_time_zone_ends_at_its_midnight(tmp_path: Path) -> None:
    """Oslo is an hour ahead of UTC in winter: its days end at 23:00."""
    budget = Budget(name="daily", covers="workload/assistant", limit=LIMIT, period="day", timezone="Europe/Oslo")
    async with daily(tmp_path, budget=budget) as rig:
        clock = rig.gateway.clock
        assert isinstance(clock, ManualClock)
        clock.set_now(LAST.replace(hour=22))
        rig.slices.add_grant("daily", "2026-11-25T23:00..2026-11-26T23:00", LIMIT)
        assert (await rig.chat()).status == 200
        assert spent(rig, "2026-11-25T23:00..2026-11-26T23:00") > 0


async def test_an_attempt_after_midnight_is_charged_to_the_new_day_if_the_old_one_is_exhausted(
    tmp_path: Path,
) -> None:
    async with daily(tmp_path) as rig:
        rig.slices.add_grant("daily", OLD, BOUND)
        rig.slices.add_grant("daily", NEW, LIMIT)
        rig.play("one", mode="error", status=502)
        reply = await rig.chat()
        assert (reply.status, reply.headers["groundplan-deployment"]) == (200, "two"), reply.body
        assert spent(rig, OLD) == BOUND and 0 < spent(rig, NEW) <= BOUND
        state = replay(await rig.records())
        assert {key: amount for key, amount in state.spent.items() if key[0] == "daily"} == {
            ("daily", OLD): spent(rig, OLD), ("daily", NEW): spent(rig, NEW),
        }  # fmt: skip


@pytest.mark.parametrize("lasts", [True, False])
async def test_a_batch_from_before_midnight_takes_nothing_of_the_new_day(tmp_path: Path, lasts: bool) -> None:
    async with daily(tmp_path) as rig:
        rig.slices.add_grant("daily", NEW, LIMIT)
        answer = CollectedResponse()
        exchange = Exchange(new_id_bytes(), Request(0.0), answer, CHAT)

        async def steps(gateway: Gateway, exchange: Exchange) -> None:
            exchange.charges = [(DAILY, OLD)]
            await reserve(gateway, exchange, 0, BOUND, keeps_periods=lasts)
            gateway.slices.settle((exchange.id_bytes, 0), 0)

        assert rig.gateway.run_call is not None
        await rig.gateway.run_call(exchange, steps)
        await asyncio.sleep(0)
        if not lasts:
            assert exchange.charges == ((DAILY, NEW),) and answer.status != 429
            return
        assert answer.status == 429 and b'"frees_at":null' in answer.body and b"order it again" in answer.body


async def test_a_batch_that_waits_past_midnight_is_charged_to_the_new_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def hold(connection: Any, id: UUID, charges: Sequence[tuple[Budget, str]], number: int, total: int) -> Any:
        asked.append([period for _, period in charges])
        return None if asked[-1] == [NEW] else 0

    async def recall(*_: Any) -> None:
        assert isinstance(clock, ManualClock)
        clock.advance(0.2)

    @asynccontextmanager
    async def transaction() -> AsyncIterator[None]:
        with suppress(psycopg.Rollback):
            yield

    async def nothing(*_: Any) -> None:
        pass

    async with daily(tmp_path) as rig:
        clock = rig.gateway.clock
        assert isinstance(clock, ManualClock)
        runner = BatchRunner(rig.gateway, cast(Any, None), cast(Any, None), "", Blobs(Home(tmp_path)))
        monkeypatch.setattr(batch_store, "hold_budgets", hold)
        monkeypatch.setattr(batch_store, "recall_idle", recall)
        monkeypatch.setattr(runner, "_connect", nothing)
        monkeypatch.setattr(batch_runner, "_RECALL_S", 0.0)
        checked = CheckResult(charges=[(DAILY, OLD)], total=BOUND)
        connection, batch = SimpleNamespace(transaction=transaction, execute=nothing), SimpleNamespace(id=1)
        left = await runner._hold_budgets(cast(Any, connection), cast(Any, batch), checked)
        assert left is None and asked == [[OLD], [NEW]] and checked.charges == ((DAILY, NEW),)
