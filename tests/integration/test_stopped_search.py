"""The search service stands still (SIGSTOP): calls that ask it end in their deadline with a refusal that says why;
those that can do without are answered, and it is there again as soon as it goes on. Real processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from tests.integration.gateway_stack import (
    GROUNDING,
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted,
    workload,
)
from tests.integration.nursery import Worker, fork_program

from groundplan.blueprint.content import Grounding
from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.settings import child_environment, load_settings
from groundplan.gateway.upstream.service_restart import GONE_SECONDS, RESTART_SECONDS
from groundplan.knowledge.embedding.wire import EmbedRequest
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import Database

DEADLINE_MS = 1500
SLACK = 1.0
"""Seconds that a busy machine may take besides."""
TRIES = 5


@dataclass
class Scene:
    stack: Stack
    search: Worker
    keys: dict[str, str]

    async def took(self, name: str) -> tuple[int, str, float]:
        """Status, code and seconds of a call."""
        begun = time.monotonic()
        reply = await self.stack.chat(self.keys[name])
        return reply.status, "" if reply.status == 200 else reply.code, time.monotonic() - begun

    async def searched(self) -> Reply:
        """A search by itself."""
        return await self.stack.post("/api/knowledge/search", self.keys["patient"], {"query": "holidays"})

    async def tool(self) -> Reply:
        """The same as a tool."""
        asked = {"name": "search", "arguments": {"query": "holidays"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked}
        return await self.stack.post("/mcp", self.keys["patient"], body)


@pytest.fixture
async def scene(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    ensure(load_settings().models, MINILM.name)
    async with scripted("one") as (_, port), installation(database, tmp_path) as stack:
        optional = Grounding(sources=["handbook"], passages=2, max_bytes=2000, required=False)
        declared = [
            workload("assistant", ["one"], grounding=GROUNDING, deadline_ms=DEADLINE_MS),
            workload("patient", ["one"], grounding=GROUNDING, deadline_ms=20_000),
            workload("optional", ["one"], grounding=optional, deadline_ms=2 * DEADLINE_MS),
        ]
        stack.apply(blueprint(1, [deployment("one", port)], declared))
        stack.start()
        told = ["--home", str(stack.home.root)]
        environment = child_environment({"GROUNDPLAN_DATABASE_URL": database.dsn})
        search = fork_program("groundplan.gateway.search_app", told, 2, environment)
        try:
            await stack.ready()
            person = stack.person("ana@acme.example")
            keys = {name: stack.key(name, person=person) for name in ("assistant", "patient", "optional")}
            await announced(stack, search)
            made = Scene(stack, search, keys)
            for name in keys:
                assert (await made.took(name))[0] == 200
            yield made
        finally:
            search.kill()
            search.wait()


async def announced(stack: Stack, search: Worker, before: Endpoint | None = None) -> None:
    end = time.monotonic() + 60
    while lookup(stack.home, "search") in (None, before):
        assert search.poll() is None and time.monotonic() < end
        await asyncio.sleep(0.05)


@contextmanager
def standing_still(search: Worker) -> Iterator[None]:
    os.kill(search.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(search.pid, signal.SIGCONT)


async def test_calls_are_refused_in_time_while_search_is_stopped_and_answered_afterwards(scene: Scene) -> None:
    with standing_still(scene.search):
        for told in await asyncio.gather(*(scene.took("assistant") for _ in range(20))):
            status, code, seconds = told
            assert (status, code) == (503, "grounding_unavailable")
            assert seconds < DEADLINE_MS / 1000 + SLACK, told
        status, _, seconds = await scene.took("optional")
        assert status == 200 and seconds < 2 * DEADLINE_MS / 1000, "it is answered without, in its deadline"
    told = await scene.took("assistant")
    assert told[:2] == (200, "") and told[2] < SLACK, told


async def test_a_stop_shorter_than_the_search_timeout_is_not_noticed(scene: Scene) -> None:
    with standing_still(scene.search):
        calls = [asyncio.ensure_future(scene.took("patient")) for _ in range(20)]
        await asyncio.sleep(2.0)
    assert {(status, code) for status, code, _ in await asyncio.gather(*calls)} == {(200, "")}


async def test_no_call_is_lost_while_search_and_gateway_are_stopped(scene: Scene) -> None:
    """As where the machine does."""
    worker = scene.stack.workers[0].pid
    with standing_still(scene.search):
        calls = [asyncio.ensure_future(scene.took("patient")) for _ in range(10)]
        await asyncio.sleep(0.1)
        os.kill(worker, signal.SIGSTOP)
        await asyncio.sleep(6.0)
        os.kill(worker, signal.SIGCONT)
        await asyncio.sleep(0.3)
    assert {(status, code) for status, code, _ in await asyncio.gather(*calls)} == {(200, "")}


async def test_no_search_is_computed_for_a_disconnected_client(scene: Scene) -> None:
    """Where callers gave up by the dozen, whoever asks when it goes on is not behind all of them."""
    endpoint = lookup(scene.stack.home, "search")
    assert endpoint is not None
    question = msgspec.json.encode(EmbedRequest(["some words of a text that is not short " * 20] * 8))
    begun = time.monotonic()
    await asyncio.to_thread(answered, asked(endpoint, question))
    alone = time.monotonic() - begun
    with standing_still(scene.search):
        for left in [asked(endpoint, question) for _ in range(60)]:
            left.close()
    begun = time.monotonic()
    await asyncio.to_thread(answered, asked(endpoint, question))
    assert time.monotonic() - begun < 20 * alone


def asked(endpoint: Endpoint, body: bytes) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", int(endpoint.url.rpartition(":")[2])))
    head = f"POST /embed HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {endpoint.token}\r\ncontent-length: {len(body)}"
    made.sendall(head.encode() + b"\r\n\r\n" + body)
    return made


def answered(made: socket.socket) -> None:
    with made:
        assert made.recv(12) == b"HTTP/1.1 200"


async def test_calls_wait_for_a_restarting_search_service_and_not_for_a_removed_one(scene: Scene) -> None:
    """As its supervisor does within a tenth of a second. What a machine with much else to do starts later than calls
    wait says nothing."""
    for _ in range(TRIES):
        scene.search.kill()
        scene.search.wait()
        before, begun = lookup(scene.stack.home, "search"), time.monotonic()
        calls = [asyncio.ensure_future(scene.took("patient")) for _ in range(20)]
        beside = [asyncio.ensure_future(asking) for asking in (scene.searched(), scene.tool())]
        await asyncio.sleep(0.1)
        told = ["--home", str(scene.stack.home.root)]
        environment = child_environment({"GROUNDPLAN_DATABASE_URL": scene.stack.database.dsn})
        scene.search = fork_program("groundplan.gateway.search_app", told, 2, environment)
        await announced(scene.stack, scene.search, before)
        in_time = time.monotonic() - begun < RESTART_SECONDS - SLACK
        answers, (searched, used) = await asyncio.gather(*calls), await asyncio.gather(*beside)
        if in_time:
            break
        await asyncio.sleep(GONE_SECONDS)
    assert in_time, "this machine never started it in the time that calls wait"
    assert {(status, code) for status, code, _ in answers} == {(200, "")}
    assert searched.status == 200 and searched.json["passages"] == [], searched.body
    assert used.json["result"]["isError"] is False, used.body
    scene.search.kill()
    scene.search.wait()
    status, code, seconds = await scene.took("patient")
    assert (status, code) == (503, "grounding_unavailable") and seconds < RESTART_SECONDS + SLACK
    status, code, seconds = await scene.took("patient")
    assert (status, code) == (503, "grounding_unavailable") and seconds < SLACK, "it did not come back a moment ago"
    begun, refused = time.monotonic(), await scene.searched()
    assert (refused.status, refused.code) == (503, "grounding_unavailable") and time.monotonic() - begun < SLACK
