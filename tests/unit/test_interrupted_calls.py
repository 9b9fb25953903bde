"""A call that is interrupted in any way at any of its waits leaves nothing behind: each attempt is settled once, and
the next call is served."""

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
from tests.unit.interrupted import (
    CLIENT_GONE_KINDS,
    HeldResources,
    Interruption,
    InterruptionKind,
    find_leftovers,
    held_resources,
    interrupting,
    journal_faults,
    track_call_tasks,
)

from groundplan.blueprint.model import Cache, Guardrails, Judge
from groundplan.testing.journal import replay
from groundplan.testing.scripted import Script

_numbers = itertools.count()
HEDGED = {"assistant": reliability(hedge={"after_ms": 3, "at_most": 1.0}) | {"attempts": 3}}
DRAINED = {"one": {"billing_on_cancel": "drain"}, "two": {"billing_on_cancel": "drain"}}


@dataclass(frozen=True)
class Scene:
    """A kind of call: the scripts of its upstreams, the interruptions to try, and what its request is like.

    `concurrent_call`: another client makes the `same` call while it runs, or an `other` one before it."""

    scripts: dict[str, dict[str, Any]]
    kinds: tuple[InterruptionKind, ...] = ("just_ready", "again", "memory")
    is_stream: bool = False
    concurrent_call: str = ""
    key_header: str = ""
    rig_options: dict[str, Any] = field(default_factory=dict)


SCENES = {
    "plain": Scene({"one": {"latency_ms": 1}}, (*CLIENT_GONE_KINDS, "memory")),
    "stream": Scene({"one": {"chunk_ms": 1, "tokens": 3}}, ("gone", "again", "os_error"), is_stream=True),
    "read to its end": Scene({"one": {"latency_ms": 3}}, rig_options={"more": DRAINED}),
    "hedged": Scene(
        {"one": {"latency_ms": 12}, "two": {"latency_ms": 2}}, rig_options={"workloads": HEDGED, "more": DRAINED}
    ),
    "hedged in vain": Scene(
        {"one": {"latency_ms": 6, "mode": "error", "status": 502}, "two": {"mode": "error", "status": 503}},
        rig_options={"names": ("one", "two", "three"), "workloads": HEDGED},
    ),
    "resumed": Scene(
        {"one": {"mode": "cut", "at": 2, "tokens": 6}},
        is_stream=True,
        rig_options={"workloads": {"assistant": reliability(on_broken_stream="resume")}},
    ),
    "waits for a place": Scene(
        {"one": {"latency_ms": 15}},
        concurrent_call="other",
        rig_options={"names": ("one",), "more": {"one": {"concurrent": 1}}},
    ),
    "shared": Scene(
        {"one": {"latency_ms": 6}},
        concurrent_call="same",
        rig_options={"workloads": {"assistant": {"cache": Cache(seconds=60, max_bytes=1 << 20, scope="workload")}}},
    ),
    "judged": Scene(
        {"one": {"chunk_ms": 1, "tokens": 2}, "two": {"say": "no"}},
        is_stream=True,
        rig_options={
            "workloads": {
                "assistant": {
                    "guardrails": Guardrails(
                        budget_ms=10_000, judge=Judge(deployment="two", question="?", refuse_on="yes")
                    )
                }
            }
        },
    ),
    "named": Scene({"one": {"latency_ms": 1}}, (*CLIENT_GONE_KINDS, "memory"), key_header="idempotency-key: "),
}


def request_bytes(scene: Scene, text: str, mark: str) -> bytes:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
    data = json.dumps(body | {"stream": scene.is_stream}).encode()
    key_header = f"{scene.key_header}{next(_numbers)}\r\n" if scene.key_header else ""
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n"
    return f"{head}{key_header}{mark}content-length: {len(data)}\r\n\r\n".encode() + data


async def send_request(
    rig: Rig, data: bytes, on_connect: Callable[[asyncio.WriteTransport], None] = lambda _: None
) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    on_connect(writer.transport)
    writer.write(data)
    try:
        with suppress(OSError):
            return await asyncio.wait_for(reader.read(), 20)
        return b""
    finally:
        writer.close()


async def make_interrupted_call(rig: Rig, scene: Scene, interruption: Interruption) -> None:
    """Make the interrupted call and, if the scene has one, the concurrent call, which must be served in any case."""

    def on_connect(transport: asyncio.WriteTransport) -> None:
        interruption.disconnect_client = transport.abort

    text = f"{next(_numbers)}"
    other_request = request_bytes(scene, text if scene.concurrent_call == "same" else f"{text} other", "")
    counted_before = sum(model.counted for model in rig.models.values())
    with interrupting(rig.server, interruption):
        if scene.concurrent_call == "other":
            other_call = asyncio.create_task(send_request(rig, other_request), context=contextvars.Context())
            async with asyncio.timeout(20):
                while sum(model.counted for model in rig.models.values()) == counted_before:  # noqa: ASYNC110 -- of a server
                    await asyncio.sleep(0.001)
        interrupted_call = asyncio.create_task(
            send_request(rig, request_bytes(scene, text, "x-cut: 1\r\n"), on_connect)
        )
        if scene.concurrent_call == "same":
            while not rig.gateway.answer_cache._flights and not interrupted_call.done():  # noqa: ASYNC110 -- of a server
                await asyncio.sleep(0)
            other_call = asyncio.create_task(send_request(rig, other_request), context=contextvars.Context())
        await interrupted_call
        if scene.concurrent_call:
            assert (await other_call).startswith(b"HTTP/1.1 200"), (
                interruption.kind,
                interruption.wait_number,
                interruption.interrupted_line,
            )


@asynccontextmanager
async def run_scene(folder: Path, scene: Scene) -> AsyncIterator[tuple[Rig, HeldResources, list[str]]]:
    """A worker that made one such call; what it holds when idle; and the errors that its loop reports from then on."""
    loop_errors: list[str] = []
    loop = asyncio.get_running_loop()
    async with call_rig(folder, **scene.rig_options) as rig:
        for name, script in scene.scripts.items():
            rig.models[name].script = Script(**script)
        await make_interrupted_call(rig, scene, Interruption(0, "cancelled"))
        idle = HeldResources({}, held_resources(rig).timers, asyncio.all_tasks())
        assert await find_leftovers(rig, idle) == []
        track_call_tasks(loop)
        loop.set_exception_handler(
            lambda _, context: loop_errors.append(f"{context['message']}: {context.get('exception')}")
        )
        try:
            yield rig, idle, loop_errors
        finally:
            loop.set_task_factory(None)
            loop.set_exception_handler(None)


@pytest.mark.parametrize("name", SCENES)
async def test_a_call_interrupted_at_any_wait_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    scene = SCENES[name]
    async with run_scene(tmp_path, scene) as (rig, idle, loop_errors):
        for kind in scene.kinds:
            missed_in_a_row = 0
            for wait_number in itertools.count(1):
                interruption = Interruption(wait_number, kind)
                await make_interrupted_call(rig, scene, interruption)
                leftovers = await find_leftovers(rig, idle)
                interruption.is_over = True
                if (
                    kind in CLIENT_GONE_KINDS
                    and interruption.error is not None
                    and not isinstance(interruption.error, asyncio.CancelledError)
                ):
                    leftovers.append(f"ended with {interruption.error!r}")
                assert leftovers == [], (kind, wait_number, interruption.interrupted_line)
                missed_in_a_row = 0 if interruption.is_reached else missed_in_a_row + 1
                if missed_in_a_row == 2:  # the number of waits varies with what has arrived already
                    break
        gc.collect()
        assert [each for each in loop_errors if "interrupted" not in each] + journal_faults(rig) == []
        spent = replay(read_records(rig.gateway.journal.folder)).spent
        assert rig.slices.spent("all", "total") == sum(spent.values())
