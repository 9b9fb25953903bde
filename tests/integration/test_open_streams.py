"""Many streams at once through one worker: all end well, and its memory stays where the first round left it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gates import hold_answers, wait_until
from tests.integration.gateway_stack import (
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    workload,
)

from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

STREAMS = 200
OWN = 5
"""Connections that the worker may open for itself as calls come."""


def resident(pid: int) -> float:
    """MiB of the process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no such process")


def connections(pid: int) -> int:
    """Files and connections that the process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def together(stack: Stack, key: str, model: ScriptedModel, gate: asyncio.Semaphore) -> tuple[int, list[Any]]:
    """(open connections of the worker as all streams begin, the last event of each stream)."""
    before = model.counted
    asked = [asyncio.create_task(stack.chat(key, stream=True)) for _ in range(STREAMS)]
    await wait_until(lambda: model.counted == before + STREAMS, 100)
    most = connections(stack.workers[0].pid)
    for _ in asked:
        gate.release()
    replies = await asyncio.gather(*asked)
    assert {reply.status for reply in replies} == {200}, [r.body[:300] for r in replies if r.status != 200][:2]
    return most, [parse_events(reply.body)[-1] for reply in replies]


@pytest.mark.timeout(300)
async def test_two_hundred_streams_at_once_leave_nothing_behind(database: Database, tmp_path: Path) -> None:
    async with installation(database, tmp_path) as stack, scripted_upstream("one") as (model, port):
        model.script, gate = Script(chunk_ms=150, tokens=15), hold_answers(model)
        waits = {"connect_ms": 30_000, "first_token_ms": 100_000, "idle_ms": 30_000}
        stack.apply(blueprint(1, [deployment("one", port, **waits)], [workload("assistant", ["one"])]))
        stack.start()
        await stack.wait_until_ready()
        key, pid = stack.key(), stack.workers[0].pid
        most, last = await together(stack, key, model, gate)
        assert most > 2 * STREAMS and last == ["[DONE]"] * STREAMS
        settled = resident(pid)
        for _ in range(2):
            _, last = await together(stack, key, model, gate)
            assert last == ["[DONE]"] * STREAMS
        assert resident(pid) < settled + 8, "memory grows with the number of streams that were, not that are"
        await wait_until(lambda: connections(pid) <= most - STREAMS + OWN)
