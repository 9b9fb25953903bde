"""However a call ends at whichever of its waits, nothing of it is left, each attempt is settled once, and whoever comes
next is served."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.unit.call_rig import Rig, call_rig, read_records, reliability
from tests.unit.interrupted import ENDS, Cut, How, Seen, books, cutting, seen, settles, watch

from groundplan.blueprint.model import Cache, Guardrails, Judge
from groundplan.testing.journal import replay
from groundplan.testing.scripted import Script

_numbers = itertools.count()
HEDGED = {"assistant": reliability(hedge={"after_ms": 3, "at_most": 1.0}) | {"attempts": 3}}
DRAINED = {"one": {"billing_on_cancel": "drain"}, "two": {"billing_on_cancel": "drain"}}


@dataclass(frozen=True)
class Scene:
    """A kind of call. `beside`: the same is asked by somebody else while it runs (`same`), or something else
    before it (`other`)."""

    plays: dict[str, dict[str, Any]]
    hows: tuple[How, ...] = ("just_ready", "again", "memory")
    stream: bool = False
    beside: str = ""
    headers: str = ""
    rig: dict[str, Any] = field(default_factory=dict)


SCENES = {
    "plain": Scene({"one": {"latency_ms": 1}}, (*ENDS, "memory")),
    "stream": Scene({"one": {"chunk_ms": 1, "tokens": 3}}, ("gone", "again", "os_error"), stream=True),
    "read to its end": Scene({"one": {"latency_ms": 3}}, rig={"more": DRAINED}),
    "hedged": Scene({"one": {"latency_ms": 12}, "two": {"latency_ms": 2}}, rig={"workloads": HEDGED, "more": DRAINED}),
    "hedged in vain": Scene(
        {"one": {"latency_ms": 6, "mode": "error", "status": 502}, "two": {"mode": "error", "status": 503}},
        rig={"names": ("one", "two", "three"), "workloads": HEDGED},
    ),
    "resumed": Scene(
        {"one": {"mode": "cut", "at": 2, "tokens": 6}},
        stream=True,
        rig={"workloads": {"assistant": reliability(on_broken_stream="resume")}},
    ),
    "waits for a place": Scene(
        {"one": {"latency_ms": 15}}, beside="other", rig={"names": ("one",), "more": {"one": {"concurrent": 1}}}
    ),
    "shared": Scene(
        {"one": {"latency_ms": 6}},
        beside="same",
        rig={"workloads": {"assistant": {"cache": Cache(seconds=60, max_bytes=1 << 20, scope="workload")}}},
    ),
    "judged": Scene(
        {"one": {"chunk_ms": 1, "tokens": 2}, "two": {"say": "no"}},
        stream=True,
        rig={
            "workloads": {
                "assistant": {
                    "guardrails": Guardrails(
                        budget_ms=10_000, judge=Judge(deployment="two", question="?", refuse_on="yes")
                    )
                }
            }
        },
    ),
    "named": Scene({"one": {"latency_ms": 1}}, (*ENDS, "memory"), headers="idempotency-key: "),
}  # fmt: skip


def request(scene: Scene, text: str, mark: str) -> bytes:
    asked = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
    data = json.dumps(asked | {"stream": scene.stream}).encode()
    named = f"{scene.headers}{next(_numbers)}\r\n" if scene.headers else ""
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n"
    return f"{head}{named}{mark}content-length: {len(data)}\r\n\r\n".encode() + data


async def answer(rig: Rig, asked: bytes, connected: Callable[[asyncio.WriteTransport], None] = lambda _: None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    connected(writer.transport)
    writer.write(asked)
    try:
        with suppress(OSError):
            return await asyncio.wait_for(reader.read(), 20)
        return b""
    finally:
        writer.close()


async def cut_once(rig: Rig, scene: Scene, cut: Cut) -> None:
    """A call that is cut, and whoever asks beside it, who is served whatever becomes of it."""

    def connected(transport: asyncio.WriteTransport) -> None:
        cut.leave = transport.abort

    text = f"{next(_numbers)}"
    other = request(scene, text if scene.beside == "same" else f"{text} other", "")
    before = sum(model.counted for model in rig.models.values())
    with cutting(rig.server, cut):
        if scene.beside == "other":
            beside = asyncio.create_task(answer(rig, other), context=contextvars.Context())
            async with asyncio.timeout(20):
                while sum(model.counted for model in rig.models.values()) == before:  # noqa: ASYNC110 -- of a server
                    await asyncio.sleep(0.001)
        cutting_one = asyncio.create_task(answer(rig, request(scene, text, "x-cut: 1\r\n"), connected))
        if scene.beside == "same":
            while not rig.gateway.answer_cache._flights and not cutting_one.done():  # noqa: ASYNC110 -- of a server
                await asyncio.sleep(0)
            beside = asyncio.create_task(answer(rig, other), context=contextvars.Context())
        await cutting_one
        if scene.beside:
            assert (await beside).startswith(b"HTTP/1.1 200"), (cut.how, cut.at, cut.where)


@asynccontextmanager
async def scened(folder: Path, scene: Scene) -> AsyncIterator[tuple[Rig, Seen, list[str]]]:
    """A worker after one such call, what it holds then, and what its loop complains of."""
    told: list[str] = []
    loop = asyncio.get_running_loop()
    async with call_rig(folder, **scene.rig) as rig:
        for name, script in scene.plays.items():
            rig.models[name].script = Script(**script)
        await cut_once(rig, scene, Cut(0, "cancelled"))
        nothing = Seen({}, seen(rig).timers, asyncio.all_tasks())
        assert await settles(rig, nothing) == []
        watch(loop)
        loop.set_exception_handler(lambda _, context: told.append(f"{context['message']}: {context.get('exception')}"))
        try:
            yield rig, nothing, told
        finally:
            loop.set_task_factory(None)
            loop.set_exception_handler(None)


@pytest.mark.parametrize("name", SCENES)
async def test_a_call_that_ends_at_any_of_its_waits_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    scene = SCENES[name]
    async with scened(tmp_path, scene) as (rig, nothing, told):
        for how in scene.hows:
            missed = 0
            for at in itertools.count(1):
                cut = Cut(at, how)
                await cut_once(rig, scene, cut)
                left = await settles(rig, nothing)
                cut.over = True
                if how in ENDS and cut.ended is not None and not isinstance(cut.ended, asyncio.CancelledError):
                    left.append(f"ended with {cut.ended!r}")
                assert left == [], (how, at, cut.where)
                missed = 0 if cut.reached else missed + 1
                if missed == 2:  # how often it waits depends on what is there at once
                    break
        gc.collect()
        assert [each for each in told if "interrupted" not in each] + books(rig) == []
        spent = replay(read_records(rig.gateway.journal.folder)).spent
        assert rig.slices.spent("all", "total") == sum(spent.values())
