"""A deployment with several keys at its provider, on a real worker: each within its own limit, refused ones rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.closing import close
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, workload

from groundplan.blueprint.model import ProviderKey
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel


class Provider:
    """A scripted model that knows who calls: keys in `refuses` get that status."""

    def __init__(self) -> None:
        self.model = ScriptedModel("one")
        self.model.script = Script(tokens=2)
        self.seen: Counter[str] = Counter()
        self.refuses: dict[str, int] = {}

    async def handle(self, request: Request, response: Response) -> None:
        key = request.headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        self.seen[key] += 1
        if key in self.refuses:
            response.send(self.refuses[key], b'{"error":{"message":"no"}}')
        else:
            await self.model.handle(request, response)


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[Provider, int]]:
    made, loop = Provider(), asyncio.get_running_loop()
    server = Server(made.handle, lambda refusal, *_: refusal.message.encode(), loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    try:
        yield made, listener.sockets[0].getsockname()[1]
    finally:
        await close(listener, server)


async def started(stack: Stack, port: int, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> str:
    keys = [ProviderKey(key=f"env:PROVIDER_{name}", **limits) for name in ("A", "B")]
    monkeypatch.setenv("PROVIDER_A", "key-of-the-first")
    monkeypatch.setenv("PROVIDER_B", "key-of-the-second")
    stack.apply(blueprint(1, [deployment("one", port, keys=keys)], [workload("assistant", ["one"], attempts=1)]))
    stack.start()
    await stack.wait_until_ready()
    return stack.key()


async def test_calls_are_spread_over_the_keys(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider() as (made, port), installation(database, tmp_path) as stack:
        key = await started(stack, port, monkeypatch)
        assert {(await stack.chat(key)).status for _ in range(10)} == {200}
        assert made.seen == {"key-of-the-first": 5, "key-of-the-second": 5}


@pytest.mark.parametrize("status", [401, 402, 429])
async def test_a_refused_key_rests_and_the_other_one_answers_in_the_same_attempt(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async with provider() as (made, port), installation(database, tmp_path) as stack:
        made.refuses = {"key-of-the-first": status}
        key = await started(stack, port, monkeypatch)
        assert {(await stack.chat(key)).status for _ in range(6)} == {200}
        assert made.seen == {"key-of-the-first": 1, "key-of-the-second": 6}
        made.refuses = {"key-of-the-second": status}
        refused = await stack.chat(key)
        assert (refused.status, refused.code) == (503, "upstream_failed")
        assert b"key-of-the-first" not in refused.body and b"key-of-the-second" not in refused.body


async def test_each_key_has_its_own_limit(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with provider() as (made, port), installation(database, tmp_path) as stack:
        key = await started(stack, port, monkeypatch, requests=[(3, "day")])
        replies = [await stack.chat(key) for _ in range(8)]
        assert [reply.status for reply in replies] == [200] * 6 + [429] * 2
        assert replies[-1].json["error"]["covers"].endswith("of deployment/one")
        assert made.seen == {"key-of-the-first": 3, "key-of-the-second": 3}
