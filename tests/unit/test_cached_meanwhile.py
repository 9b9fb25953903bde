"""What changes while an answer is made that would be cached."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from tests.unit.call_rig import wait_until
from tests.unit.test_cached_answers import CACHE, cache_rig, change_policy, start_waiting_call, upstream_calls

from groundplan.gateway.caching.entry import LEFT


async def test_the_answer_to_a_person_who_leaves_during_the_call_is_not_cached(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        keys = rig.gateway.live.policy.keys
        change_policy(rig, keys={at: replace(key, person="ana") for at, key in keys.items()}, active=frozenset({"ana"}))
        one = rig.hold("one")
        call = asyncio.create_task(rig.chat())
        await wait_until(lambda: upstream_calls(rig) == 1)
        change_policy(rig, keys=keys, active=frozenset())
        one.release()
        assert (await call).status == 200
        assert len(rig.gateway.answer_cache) == 0


async def test_no_call_waits_for_more_than_two_that_fail(tmp_path: Path) -> None:
    async with cache_rig(tmp_path, workloads={"assistant": {"cache": CACHE, "attempts": 1}}) as rig:
        rig.play("one", mode="error", status=400, times=2)
        one = rig.hold("one")
        calls = [asyncio.create_task(rig.chat()) for _ in range(8)]
        await wait_until(lambda: rig.gateway.running_calls == 8 and upstream_calls(rig) == 1)
        one.release()
        await wait_until(lambda: upstream_calls(rig) == 2)
        one.release()
        await wait_until(lambda: upstream_calls(rig) == 8)  # the other six at once
        for _ in range(6):
            one.release()
        assert sorted(reply.status for reply in await asyncio.gather(*calls)) == [200] * 6 + [400] * 2
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"


async def test_a_client_that_leaves_is_no_failure(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        one, leader, follower = await start_waiting_call(rig)
        (flight,) = rig.gateway.answer_cache._flights.values()
        leader.cancel()
        assert await flight.outcome == LEFT
        await wait_until(lambda: upstream_calls(rig) == 2)
        for _ in range(2):
            one.release()
        assert (await follower).status == 200
