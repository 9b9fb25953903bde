"""A limit of a team, over two replicas with a HOME each on one PostgreSQL: exact, whoever is called, wherever."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
from tests.integration.gates import gated, until
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted, workload
from tests.integration.test_limits import filled, granted, told

from groundplan.blueprint.model import Blueprint, Limit
from groundplan.core.money import PICO
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

MOST = 40


def declared(port: int, *limits: Limit, budget: int = 1000 * PICO) -> Blueprint:
    """Two workloads of the team care, one of another and one of none."""
    teams = {"assistant": "care", "desk": "care", "sales": "sales", "alone": None}
    made = blueprint(
        1,
        [deployment("one", port, first_token_ms=60_000)],
        [workload(name, ["one"], team=teams[name]) for name in teams],
        budget,
    )
    return msgspec.structs.replace(made, limits=list(limits))


@asynccontextmanager
async def replicas(
    database: Database, folder: Path, *limits: Limit, budget: int = 1000 * PICO
) -> AsyncIterator[tuple[ScriptedModel, Stack, Stack]]:
    """A model and two installations of one worker each, both ready; the second has the keys of the first."""
    async with scripted("one") as (model, port), installation(database, folder / "first") as first:
        async with installation(database, folder / "second") as second:
            shutil.copytree(first.home.keys, second.home.keys, dirs_exist_ok=True)
            first.apply(declared(port, *limits, budget=budget))
            for replica in (first, second):
                replica.start()
            end = time.monotonic() + 60
            while first.sql("SELECT count(DISTINCT home) FROM gateway WHERE ready AND blueprint = 1") != [(2,)]:
                assert time.monotonic() < end, "both replicas are ready"
                await asyncio.sleep(0.05)
            yield model, first, second


async def test_a_teams_requests_are_counted_exactly_over_two_replicas(database: Database, tmp_path: Path) -> None:
    of_team = Limit(name="of-care", covers="team/care", type="requests", amount=MOST, period="day")
    async with replicas(database, tmp_path, of_team) as (model, first, second):
        model.script = Script(tokens=1)
        keys = {name: first.key(name) for name in ("assistant", "desk", "sales", "alone")}
        asked = [(replica, name) for _ in range(15) for replica in (first, second) for name in ("assistant", "desk")]
        replies = await filled([partial(told, replica, keys[name]) for replica, name in asked], MOST)
        assert sorted(reply.status for reply in replies) == [200] * MOST + [429] * (len(asked) - MOST)
        assert model.counted == MOST
        refused = next(reply for reply in replies if reply.status == 429)
        assert (refused.code, refused.json["error"]["limit"]) == ("rate_limit_exceeded", "of-care")
        for replica in (first, second):
            assert [(await told(replica, keys[name])).status for name in ("assistant", "desk")] == [429, 429]
            for name in ("sales", "alone"):
                assert (await told(replica, keys[name])).status == 200, "calls of others are none of the team's"
        assert model.counted == MOST + 4
        assert first.sql("SELECT name, granted, amount FROM limit_span") == [("requests/of-care", MOST, MOST)]


async def test_a_teams_concurrent_calls_are_counted_over_two_replicas(database: Database, tmp_path: Path) -> None:
    slots = Limit(name="slots", covers="team/care", type="concurrent", amount=3, period="now")
    async with replicas(database, tmp_path, slots) as (model, first, second):
        model.script, gate = Script(tokens=1), gated(model)
        keys = {name: first.key(name) for name in ("assistant", "desk", "sales")}
        asked = [(first, "assistant"), (second, "desk"), (first, "desk"), (second, "assistant"), (second, "sales")]
        calls = [asyncio.create_task(granted(replica, keys[name])) for replica, name in asked]
        await until(lambda: model.counted == 4)
        refused = [(await told(replica, keys[name])).status for replica, name in asked[:4]]
        assert refused == [429] * 4 and model.counted == 4, "three of the team's, and the one of sales"
        for _ in range(8):
            gate.release()
        assert {reply.status for reply in await asyncio.gather(*calls)} == {200}
        again = await asyncio.gather(*(granted(second, keys["desk"]) for _ in range(3)))
        assert [reply.status for reply in again] == [200] * 3, "slots come to whoever needs them"


async def test_slices_idle_at_another_replica_count_as_remaining(database: Database, tmp_path: Path) -> None:
    """It is called back before anybody is refused; and what it spent a moment ago is not told to be left."""
    async with replicas(database, tmp_path, budget=PICO // 1000) as (model, first, second):
        model.script = Script(tokens=1)
        key = first.key("assistant")
        for seconds, left in ((0.0, "0.000990000000"), (1.5, "0.000980000000")):
            assert (await told(first, key)).status == 200
            await asyncio.sleep(seconds)  # in which the second one looks what others hold
            refused = await told(second, key, max_tokens=100)
            assert (refused.status, refused.code) == (429, "budget_exhausted")
            assert refused.json["error"]["remaining_usd"] == left
        assert (await told(second, key, max_tokens=98)).status == 200
