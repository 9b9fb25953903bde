"""A call that waits for a limit while its window ends: the next window is asked, and nobody is told a wrong reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.call_rig import NoMoreGrants, Rig, call_rig, reliability

from groundplan.blueprint.model import Limit
from groundplan.gateway.budgets.periods import current_key
from groundplan.ledger.model import Charge
from groundplan.testing.clock import ManualClock

LAST = datetime(2026, 11, 25, 12, 0, 59, 900_000, tzinfo=UTC)
"""A tenth of a second before the minute is over."""


class Slow(NoMoreGrants):
    """A grants that takes a while to say that nothing is left."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds = clock, seconds

    async def acquire(
        self, token: tuple[bytes, int], charges: Sequence[Charge], declared: Any, blueprint: int = 0
    ) -> Charge | None:
        short = await super().acquire(token, charges, declared, blueprint)
        self._clock.advance(self._seconds)
        return short


def slow(rig: Rig, seconds: float) -> NoMoreGrants:
    clock = rig.gateway.clock
    assert isinstance(clock, ManualClock)
    clock.set_now(LAST)
    rig.gateway.leases = grants = Slow(clock, seconds)
    return grants


def minute(rig: Rig) -> str:
    return current_key("minute", "", "UTC", rig.gateway.clock.seconds())


@pytest.mark.parametrize("covers", ["workload/assistant", "deployment/one"])
@pytest.mark.parametrize("kind", ["requests", "tokens"])
async def test_a_call_waiting_past_the_window_uses_the_next_one(tmp_path: Path, covers: str, kind: str) -> None:
    limit = Limit(name="few", covers=covers, type=kind, amount=100_000, period="minute")
    async with call_rig(tmp_path, workloads={"assistant": reliability()}, limits=[limit]) as rig:
        grants, counters = slow(rig, 0.2), rig.gateway.limit_slices
        counters.add_grant(f"{kind}/few", "2026-11-25T12:01", 100_000)
        reply = await rig.chat()
        assert (reply.status, grants.requested_budgets) == (200, [f"{kind}/few"]), reply.body
        assert minute(rig) == "2026-11-25T12:01" and counters.open_reservations == 0
        assert counters.spent(f"{kind}/few", minute(rig)) > 0


async def test_a_call_waiting_past_the_window_is_refused_by_the_next_one(tmp_path: Path) -> None:
    limit = Limit(name="few", covers="workload/assistant", type="requests", amount=1, period="minute")
    async with call_rig(tmp_path, workloads={"assistant": reliability()}, limits=[limit]) as rig:
        grants = slow(rig, 0.2)
        reply = await rig.chat()
        assert (reply.status, reply.code, len(grants.requested_budgets)) == (429, "rate_limit_exceeded", 2)
        assert reply.json["error"]["frees_at"] == "2026-11-25T12:02:00+00:00"
        assert rig.gateway.limit_slices.open_reservations == 0
