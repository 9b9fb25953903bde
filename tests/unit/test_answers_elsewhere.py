"""Answers kept for an Idempotency-Key that another worker of the same HOME made, or did not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply, parse
from tests.unit.call_rig import Fixed, Rig, call_rig, until

from groundplan.blueprint.model import Guardrails
from groundplan.core.money import PICO
from groundplan.economics.experiment.model import AB, Experiment
from groundplan.gateway.caching.idempotency import Kept
from groundplan.gateway.caching.sharing import AnswerDesk
from groundplan.ledger.model import Finish

MASKING = {"assistant": {"guardrails": Guardrails(input={"personal_data": "mask"})}}


@asynccontextmanager
async def two_workers(folder: Path) -> AsyncIterator[tuple[Rig, Rig]]:
    """Under one policy, so with the same key."""
    async with call_rig(folder, workloads=MASKING) as first, call_rig(folder, workloads=MASKING) as second:
        follow(first, second)
        yield first, second


@asynccontextmanager
async def desk_of(rig: Rig) -> AsyncIterator[None]:
    desk = AnswerDesk(rig.gateway.answers)
    await desk.open()
    yield
    await desk.close()


def follow(first: Rig, second: Rig, **changes: Any) -> None:
    live, other = first.gateway.live, second.gateway.live
    assert isinstance(live, Fixed) and isinstance(other, Fixed)
    live.policy = other.policy = replace(live.policy, **changes)


async def ask(rig: Rig, says: str, key: bytes = b"once") -> Reply:
    asked = rig.request(messages=[{"role": "user", "content": says}])
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(asked.replace(b"\r\n\r\n", b"\r\nidempotency-key: %b\r\n\r\n" % key, 1))
    try:
        return parse(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()


async def test_another_worker_replays_what_a_guardrail_masked_and_counts_it_in_no_experiment(tmp_path: Path) -> None:
    """What was asked is compared as it was sent, and who answers from memory tries nothing."""
    experiment = Experiment(
        id="e", name="small", workload="assistant", type=AB, candidate="two", share=1.0, budget=PICO
    )
    async with two_workers(tmp_path) as (first, second):
        follow(first, second, experiments={"assistant": experiment})
        async with desk_of(first):
            made = await ask(first, "I am ana@acme.example")
            again = await ask(second, "I am ana@acme.example")
            assert (again.status, again.body) == (200, made.body) and again.headers["groundplan-replay"] == "true"
            assert (told := await ask(second, "I am ben@acme.example")).code == "idempotency_mismatch", told.body
        ends = [[each for each in await rig.records() if isinstance(each, Finish)] for rig in (first, second)]
        assert [(end.cache, bool(end.route)) for end in (*ends[0], ends[1][0])] == [("none", True), ("replay", False)]


async def test_those_who_wait_for_another_workers_answer_get_it_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_workers(tmp_path) as (first, second), desk_of(first):
        made = await ask(first, "Hi")
        answers, asked, go = first.gateway.answers, list[bytes](), asyncio.Event()
        give = answers.give

        async def slowly(digest: bytes, body: bytes) -> Kept | None:
            asked.append(digest)
            await go.wait()
            return await give(digest, body)

        monkeypatch.setattr(answers, "give", slowly)
        calls = [asyncio.create_task(ask(second, "Hi")) for _ in range(3)]
        await until(lambda: second.gateway.running == 3 and bool(asked))
        go.set()
        assert [(reply.status, reply.body) for reply in await asyncio.gather(*calls)] == [(200, made.body)] * 3
        assert len(asked) == 1


async def test_what_another_worker_was_asked_is_not_made_again_where_its_answer_cannot_be_had(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, second):
        assert (await ask(first, "Hi")).status == 200
        refused = await ask(second, "Hi")
        assert (refused.status, refused.code) == (409, "idempotency_replayed")
        assert sum(model.counted for model in second.models.values()) == second.slices.open_count == 0
        assert (await ask(second, "Hi", b"another")).status == 200
