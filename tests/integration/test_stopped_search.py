"""The search service is stopped (SIGSTOP): calls that need it end within their deadline with a refusal that says why,
calls that can do without it are answered, and it works again as soon as it goes on. Real processes.
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
    scripted_upstream,
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
"""Additional seconds that a busy machine may take."""
TRIES = 5


@dataclass
class Scene:
    stack: Stack
    search: Worker
    keys: dict[str, str]

    async def timed_call(self, name: str) -> tuple[int, str, float]:
        """Status, code and seconds of a call."""
        begun = time.monotonic()
        reply = await self.stack.chat(self.keys[name])
        return reply.status, "" if reply.status == 200 else reply.code, time.monotonic() - begun

    async def search_directly(self) -> Reply:
        """A search through the search endpoint."""
        return await self.stack.post("/api/knowledge/search", self.keys["patient"], {"query": "holidays"})

    async def search_by_tool(self) -> Reply:
        """The same search as an MCP tool."""
        open_request = {"name": "search", "arguments": {"query": "holidays"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": open_request}
        return await self.stack.post("/mcp", self.keys["patient"], body)


@pytest.fixture
async def scene(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    ensure(load_settings().models, MINILM.name)
    async with scripted_upstream("one") as (_, port), installation(database, tmp_path) as stack:
        optional = Grounding(sources=["handbook"], passages=2, max_bytes=2000, required=False)
        workloads = [
            workload("assistant", ["one"], grounding=GROUNDING, deadline_ms=DEADLINE_MS),
            workload("patient", ["one"], grounding=GROUNDING, deadline_ms=20_000),
            workload("optional", ["one"], grounding=optional, deadline_ms=2 * DEADLINE_MS),
        ]
        stack.apply(blueprint(1, [deployment("one", port)], workloads))
        stack.start()
        arguments = ["--home", str(stack.home.root)]
        environment = child_environment({"GROUNDPLAN_DATABASE_URL": database.dsn})
        search = fork_program("groundplan.gateway.search_app", arguments, 2, environment)
        try:
            await stack.wait_until_ready()
            person = stack.person("ana@acme.example")
            keys = {name: stack.key(name, person=person) for name in ("assistant", "patient", "optional")}
            await wait_until_announced(stack, search)
            created = Scene(stack, search, keys)
            for name in keys:
                assert (await created.timed_call(name))[0] == 200
            yield created
        finally:
            search.kill()
            search.wait()


async def wait_until_announced(stack: Stack, search: Worker, before: Endpoint | None = None) -> None:
    end = time.monotonic() + 60
    while lookup(stack.home, "search") in (None, before):
        assert search.poll() is None and time.monotonic() < end
        await asyncio.sleep(0.05)


@contextmanager
def stopped(search: Worker) -> Iterator[None]:
    os.kill(search.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(search.pid, signal.SIGCONT)


async def test_calls_are_refused_in_time_while_search_is_stopped_and_answered_afterwards(scene: Scene) -> None:
    with stopped(scene.search):
        for outcome in await asyncio.gather(*(scene.timed_call("assistant") for _ in range(20))):
            status, code, seconds = outcome
            assert (status, code) == (503, "grounding_unavailable")
            assert seconds < DEADLINE_MS / 1000 + SLACK, outcome
        status, _, seconds = await scene.timed_call("optional")
        assert status == 200 and seconds < 2 * DEADLINE_MS / 1000, (
            "it is answered without passages, within its deadline"
        )
    outcome = await scene.timed_call("assistant")
    assert outcome[:2] == (200, "") and outcome[2] < SLACK, outcome


async def test_a_stop_shorter_than_the_search_timeout_is_not_noticed(scene: Scene) -> None:
    with stopped(scene.search):
        calls = [asyncio.ensure_future(scene.timed_call("patient")) for _ in range(20)]
        await asyncio.sleep(2.0)
    assert {(status, code) for status, code, _ in await asyncio.gather(*calls)} == {(200, "")}


async def test_no_call_is_lost_while_search_and_gateway_are_stopped(scene: Scene) -> None:
    """As where the machine does."""
    worker = scene.stack.workers[0].pid
    with stopped(scene.search):
        calls = [asyncio.ensure_future(scene.timed_call("patient")) for _ in range(10)]
        await asyncio.sleep(0.1)
        os.kill(worker, signal.SIGSTOP)
        await asyncio.sleep(6.0)
        os.kill(worker, signal.SIGCONT)
        await asyncio.sleep(0.3)
    assert {(status, code) for status, code, _ in await asyncio.gather(*calls)} == {(200, "")}


async def test_no_search_is_computed_for_a_disconnected_client(scene: Scene) -> None:
    """If dozens of clients disconnected, a request after the stop does not wait for theirs."""
    endpoint = lookup(scene.stack.home, "search")
    assert endpoint is not None
    question = msgspec.json.encode(EmbedRequest(["some words of a text that is not short " * 20] * 8))
    begun = time.monotonic()
    await asyncio.to_thread(read_answer, open_request(endpoint, question))
    alone = time.monotonic() - begun
    with stopped(scene.search):
        for connection in [open_request(endpoint, question) for _ in range(60)]:
            connection.close()
    begun = time.monotonic()
    await asyncio.to_thread(read_answer, open_request(endpoint, question))
    assert time.monotonic() - begun < 20 * alone


def open_request(endpoint: Endpoint, body: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(endpoint.url.rpartition(":")[2])))
    head = f"POST /embed HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {endpoint.token}\r\ncontent-length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    return connection


def read_answer(request_socket: socket.socket) -> None:
    with request_socket:
        assert request_socket.recv(12) == b"HTTP/1.1 200"


async def test_calls_wait_for_a_restarting_search_service_and_not_for_a_removed_one(scene: Scene) -> None:
    """As its supervisor does within a tenth of a second. What a machine with much else to do starts later than calls
    wait says nothing."""
    for _ in range(TRIES):
        scene.search.kill()
        scene.search.wait()
        before, begun = lookup(scene.stack.home, "search"), time.monotonic()
        calls = [asyncio.ensure_future(scene.timed_call("patient")) for _ in range(20)]
        concurrent = [asyncio.ensure_future(asking) for asking in (scene.search_directly(), scene.search_by_tool())]
        await asyncio.sleep(0.1)
        arguments = ["--home", str(scene.stack.home.root)]
        environment = child_environment({"GROUNDPLAN_DATABASE_URL": scene.stack.database.dsn})
        scene.search = fork_program("groundplan.gateway.search_app", arguments, 2, environment)
        await wait_until_announced(scene.stack, scene.search, before)
        in_time = time.monotonic() - begun < RESTART_SECONDS - SLACK
        answers, (search, used) = await asyncio.gather(*calls), await asyncio.gather(*concurrent)
        if in_time:
            break
        await asyncio.sleep(GONE_SECONDS)
    assert in_time, "this machine never started it in the time that calls wait"
    assert {(status, code) for status, code, _ in answers} == {(200, "")}
    assert search.status == 200 and search.json["passages"] == [], search.body
    assert used.json["result"]["isError"] is False, used.body
    scene.search.kill()
    scene.search.wait()
    status, code, seconds = await scene.timed_call("patient")
    assert (status, code) == (503, "grounding_unavailable") and seconds < RESTART_SECONDS + SLACK
    status, code, seconds = await scene.timed_call("patient")
    assert (status, code) == (503, "grounding_unavailable") and seconds < SLACK, "it did not come back a moment ago"
    begun, refused = time.monotonic(), await scene.search_directly()
    assert (refused.status, refused.code) == (503, "grounding_unavailable") and time.monotonic() - begun < SLACK
