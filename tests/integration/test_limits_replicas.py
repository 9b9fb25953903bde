"""A limit of a team, over two replicas with a HOME each on one PostgreSQL: exact for all workloads at all replicas."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
from tests.integration.gates import hold_answers, wait_until
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_limits import chat_until_admitted, chat_with_retries, run_until_served

from groundplan.blueprint.model import Blueprint, Limit
from groundplan.core.money import PICO
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

MOST = 40


def team_blueprint(port: int, *limits: Limit, budget: int = 1000 * PICO) -> Blueprint:
    """Two workloads of the team care, one of another team and one without a team."""
    teams = {"assistant": "care", "desk": "care", "sales": "sales", "alone": None}
    made = blueprint(
        1,
        [deployment("one", port, first_token_ms=60_000)],
        [workload(name, ["one"], team=teams[name]) for name in teams],
        budget,
    )
    return msgspec.structs.replace(made, limits=list(limits))


@asynccontextmanager
async def run_replicas(
    database: Database, folder: Path, *limits: Limit, budget: int = 1000 * PICO
) -> AsyncIterator[tuple[ScriptedModel, Stack, Stack]]:
    """A model and two installations of one worker each, both ready; the second has the keys of the first."""
    async with scripted_upstream("one") as (model, port), installation(database, folder / "first") as first:
        async with installation(database, folder / "second") as second:
            shutil.copytree(first.home.keys, second.home.keys, dirs_exist_ok=True)
            first.apply(team_blueprint(port, *limits, budget=budget))
            for replica in (first, second):
                replica.start()
            end = time.monotonic() + 60
            while first.sql("SELECT count(DISTINCT home) FROM gateway WHERE ready AND blueprint = 1") != [(2,)]:
                assert time.monotonic() < end, "both replicas are ready"
                await asyncio.sleep(0.05)
            yield model, first, second


async def test_a_teams_requests_are_counted_exactly_over_two_replicas(database: Database, tmp_path: Path) -> None:
    of_team = Limit(name="of-care", covers="team/care", type="requests", amount=MOST, period="day")
    async with run_replicas(database, tmp_path, of_team) as (model, first, second):
        model.script = Script(tokens=1)
        keys = {name: first.key(name) for name in ("assistant", "desk", "sales", "alone")}
        targets = [(replica, name) for _ in range(15) for replica in (first, second) for name in ("assistant", "desk")]
        replies = await run_until_served(
            [partial(chat_with_retries, replica, keys[name]) for replica, name in targets], MOST
        )
        assert sorted(reply.status for reply in replies) == [200] * MOST + [429] * (len(targets) - MOST)
        assert model.counted == MOST
        refused = next(reply for reply in replies if reply.status == 429)
        assert (refused.code, refused.json["error"]["limit"]) == ("rate_limit_exceeded", "of-care")
        for replica in (first, second):
            assert [(await chat_with_retries(replica, keys[name])).status for name in ("assistant", "desk")] == [
                429,
                429,
            ]
            for name in ("sales", "alone"):
                assert (await chat_with_retries(replica, keys[name])).status == 200, (
                    "calls of others are none of the team's"
                )
        assert model.counted == MOST + 4
        assert first.sql("SELECT name, granted, amount FROM limit_span") == [("requests/of-care", MOST, MOST)]


async def test_a_teams_concurrent_calls_are_counted_over_two_replicas(database: Database, tmp_path: Path) -> None:
    slots = Limit(name="slots", covers="team/care", type="concurrent", amount=3, period="now")
    async with run_replicas(database, tmp_path, slots) as (model, first, second):
        model.script, gate = Script(tokens=1), hold_answers(model)
        keys = {name: first.key(name) for name in ("assistant", "desk", "sales")}
        targets = [(first, "assistant"), (second, "desk"), (first, "desk"), (second, "assistant"), (second, "sales")]
        calls = [asyncio.create_task(chat_until_admitted(replica, keys[name])) for replica, name in targets]
        await wait_until(lambda: model.counted == 4)
        refused = [(await chat_with_retries(replica, keys[name])).status for replica, name in targets[:4]]
        assert refused == [429] * 4 and model.counted == 4, "three of the team's, and the one of sales"
        for _ in range(8):
            gate.release()
        assert {reply.status for reply in await asyncio.gather(*calls)} == {200}
        served_later = await asyncio.gather(*(chat_until_admitted(second, keys["desk"]) for _ in range(3)))
        assert [reply.status for reply in served_later] == [200] * 3, "slots come to whoever needs them"


async def test_slices_idle_at_another_replica_count_as_remaining(database: Database, tmp_path: Path) -> None:
    """Idle slices are recalled before a call is refused; what was spent a moment ago does not count as remaining."""
    async with run_replicas(database, tmp_path, budget=PICO // 1000) as (model, first, second):
        model.script = Script(tokens=1)
        key = first.key("assistant")
        for seconds, left in ((0.0, "0.000990000000"), (1.5, "0.000980000000")):
            assert (await chat_with_retries(first, key)).status == 200
            await asyncio.sleep(seconds)  # until the second replica has read what others hold
            refused = await chat_with_retries(second, key, max_tokens=100)
            assert (refused.status, refused.code) == (429, "budget_exhausted")
            assert refused.json["error"]["remaining_usd"] == left
        assert (await chat_with_retries(second, key, max_tokens=98)).status == 200
