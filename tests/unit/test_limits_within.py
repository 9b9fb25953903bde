"""What the gateway asks within a call, such as a guardrail's judge, is a part of that call: it takes no call of a day
and no place of a caller, and could not be made otherwise where its own call has the last one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.call_rig import Rig, call_rig, wait_until

from groundplan.blueprint.model import Guardrails, Judge, Limit

JUDGE = Judge(deployment="two", question="Is it advice?", refuse_on="yes")
COVERS = "workload/assistant"


def day(rig: Rig) -> str:
    return rig.gateway.clock.now().date().isoformat()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_last_call_of_a_day_is_judged(tmp_path: Path, stream: bool) -> None:
    settings = {"guardrails": Guardrails(judge=JUDGE, budget_ms=10_000), "calls_per_day": 1}
    async with call_rig(tmp_path, workloads={"assistant": settings}) as rig:
        rig.gateway.limit_slices.add_grant("requests/assistant#calls", day(rig), 1)
        rig.play("two", say="no")
        first, second = [await rig.chat(model="one", max_tokens=100, stream=stream) for _ in range(2)]
        assert (first.status, rig.models["two"].counted) == (200, 1), first.body
        assert (second.status, second.code) == (429, "calls_per_day")
        assert rig.gateway.limit_slices.spent("requests/assistant#calls", day(rig)) == 1


async def test_a_call_holding_the_only_slot_is_judged(tmp_path: Path) -> None:
    limits = [
        Limit(name="alone", covers=COVERS, type="concurrent", amount=1, period="now"),
        Limit(name="few", covers=COVERS, type="requests", amount=9, period="day"),
    ]
    settings = {"guardrails": Guardrails(judge=JUDGE, budget_ms=10_000)}
    async with call_rig(tmp_path, workloads={"assistant": settings}, limits=limits) as rig:
        rig.gateway.limit_slices.add_grant("concurrent/alone", "now", 1)
        rig.gateway.limit_slices.add_grant("requests/few", day(rig), 9)
        rig.play("two", say="no")
        reply = await rig.chat(model="one", max_tokens=100)
        assert (reply.status, rig.models["two"].counted) == (200, 1), reply.body
        assert rig.gateway.limit_slices.available("concurrent/alone", "now") == 1
        assert rig.gateway.limit_slices.spent("requests/few", day(rig)) == 2, "a declared limit counts both"


async def test_an_answer_is_judged_although_the_worker_became_full_meanwhile(tmp_path: Path) -> None:
    """Whatever is refused is refused early: by then the answer is paid for."""
    settings = {"guardrails": Guardrails(judge=JUDGE, budget_ms=10_000)}
    async with call_rig(tmp_path, workloads={"assistant": settings}) as rig:
        rig.play("two", say="no")
        one = rig.hold("one")
        asked = asyncio.create_task(rig.chat(model="one", max_tokens=100))
        await wait_until(lambda: rig.models["one"].counted == 1)
        rig.gateway.pressure.level = 0
        refused = await rig.chat(model="one")
        assert (refused.status, refused.code) == (503, "overloaded")
        one.release()
        reply = await asked
        assert (reply.status, rig.models["two"].counted) == (200, 1), reply.body
