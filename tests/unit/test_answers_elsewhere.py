"""Answers kept for an Idempotency-Key that another worker of the same HOME made, or did not."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply, parse_reply
from tests.unit.call_rig import FixedPolicy, Rig, call_rig, wait_until

from groundplan.blueprint.model import Guardrails
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.economics.experiment.model import AB, Experiment
from groundplan.gateway.caching.idempotency import Holder, IdempotentAnswers, KeptAnswer
from groundplan.gateway.caching.sharing import AnswerServer
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
    desk = AnswerServer(rig.gateway.idempotent_answers)
    await desk.open()
    yield
    await desk.close()


def follow(first: Rig, second: Rig, **changes: Any) -> None:
    live, other = first.gateway.live, second.gateway.live
    assert isinstance(live, FixedPolicy) and isinstance(other, FixedPolicy)
    live.policy = other.policy = replace(live.policy, **changes)


async def ask(rig: Rig, says: str, key: bytes = b"once") -> Reply:
    asked = rig.request(messages=[{"role": "user", "content": says}])
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(asked.replace(b"\r\n\r\n", b"\r\nidempotency-key: %b\r\n\r\n" % key, 1))
    try:
        return parse_reply(await asyncio.wait_for(reader.read(), 20))
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


async def test_calls_waiting_for_another_workers_answer_get_it_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_workers(tmp_path) as (first, second), desk_of(first):
        made = await ask(first, "Hi")
        answers, asked, go = first.gateway.idempotent_answers, list[bytes](), asyncio.Event()
        give = answers.find_for_worker

        async def slowly(digest: bytes, body: bytes) -> KeptAnswer | None:
            asked.append(digest)
            await go.wait()
            return await give(digest, body)

        monkeypatch.setattr(answers, "find_for_worker", slowly)
        calls = [asyncio.create_task(ask(second, "Hi")) for _ in range(3)]
        await wait_until(lambda: second.gateway.running_calls == 3 and bool(asked))
        go.set()
        assert [(reply.status, reply.body) for reply in await asyncio.gather(*calls)] == [(200, made.body)] * 3
        assert len(asked) == 1


async def test_a_call_made_by_another_worker_is_not_repeated_if_its_answer_is_unavailable(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, second):
        assert (await ask(first, "Hi")).status == 200
        refused = await ask(second, "Hi")
        assert (refused.status, refused.code) == (409, "idempotency_replayed")
        assert sum(model.counted for model in second.models.values()) == second.slices.open_reservations == 0
        assert (await ask(second, "Hi", b"another")).status == 200


def on_sync(monkeypatch: pytest.MonkeyPatch, then: Callable[[Path], None]) -> None:
    """Have `then` called with each file of keys before it is synced."""
    sync = os.fdatasync

    def disk(file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        if path.name.startswith("idempotency-"):
            then(path)
        sync(file)

    monkeypatch.setattr(os, "fdatasync", disk)


async def test_a_sent_call_is_not_repeated_after_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the request is at the provider already, and paid, while nobody has its answer."""
    durable, left = dict[str, bytes](), list[dict[str, bytes]]()
    on_sync(monkeypatch, lambda path: durable.update({path.name: path.read_bytes()}))
    async with call_rig(tmp_path / "one", ["one"]) as rig:
        model = rig.models["one"]
        counted = model._count_attempt

        async def count(request: Any) -> None:
            left.append(dict(durable))
            await counted(request)

        monkeypatch.setattr(model, "_count_attempt", count)
        assert (await ask(rig, "Hi")).status == 200
        (digest,) = rig.gateway.idempotent_answers._entries
        now = rig.gateway.clock.now().timestamp()
    folder = tmp_path / "after"
    folder.mkdir()
    for name, data in left[0].items():
        (folder / name).write_bytes(data)
    after = IdempotentAnswers(folder, new_id(), now)
    after.open(Holder(2, bytes(32)))
    assert after.claim(digest, now) == [Holder(1, bytes(32))]
    after.close()


async def test_calls_with_idempotency_keys_share_a_sync_and_other_calls_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, go = list[Path](), threading.Event()

    def slowly(path: Path) -> None:
        synced.append(path)
        go.wait(20)

    on_sync(monkeypatch, slowly)
    async with call_rig(tmp_path, ["one"]) as rig:
        calls = [asyncio.create_task(ask(rig, "Hi", b"key %d" % number)) for number in range(20)]
        try:
            await wait_until(lambda: len(rig.gateway.idempotent_answers._entries) == 20 and bool(synced))
            assert (await rig.chat()).status == 200 and rig.models["one"].counted == 1
        finally:
            go.set()
        assert [reply.status for reply in await asyncio.gather(*calls)] == [200] * 20
        assert len(synced) <= 3
        await rig.books()


async def test_nothing_is_sent_if_the_disk_cannot_store_its_idempotency_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]

    def fail(_: Path) -> None:
        if broken[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    on_sync(monkeypatch, fail)
    async with call_rig(tmp_path, ["one"]) as rig:
        refused = await ask(rig, "Hi")
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "journal_unavailable", "1")
        assert sum(model.counted for model in rig.models.values()) == 0
        assert (await rig.chat()).status == 200, "a call without a key needs none"
        broken[0] = False
        assert (await ask(rig, "Hi")).status == 200
        assert sum(model.counted for model in rig.models.values()) == 2
        await rig.books()
