"""What changes while an answer is made that would be cached."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from tests.unit.call_rig import wait_until
from tests.unit.test_cached_answers import cache_rig, change_policy, upstream_calls


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
