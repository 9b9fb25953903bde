"""The translating service while every thread of its loop waits for a client that blocks, as Bedrock's does: a hundred
and more answers of it hold up no other provider."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from groundplan.core.endpoints import lookup
from groundplan.core.home import Home
from groundplan.gateway.translate_app import serve
from groundplan.gateway.upstream.dial import resolver_of
from groundplan.gateway.upstream.providers import SERVICE, ProviderTarget
from groundplan.gateway.upstream.translation.blocking_clients import (
    THREADS,
    USES_BLOCKING_CLIENT,
    CancellableClient,
    LoopThreadPool,
    _TrackedConnection,
)
from groundplan.gateway.upstream.translation.translate import ProviderClients

pytest.importorskip("any_llm")


async def test_names_and_clients_of_others_wait_for_no_answer_that_blocks() -> None:
    loop, answered = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(LoopThreadPool())
    providers = ProviderClients()
    USES_BLOCKING_CLIENT.set(True)
    blocked = [loop.run_in_executor(None, answered.wait) for _ in range(THREADS + 1)]
    USES_BLOCKING_CLIENT.set(False)
    try:
        async with asyncio.timeout(30):
            assert await loop.getaddrinfo("localhost", 80), "whoever is connected to has to be found"
            assert await providers.client(ProviderTarget("one", "ollama", "http://127.0.0.1:9"), "") is not None
        assert not any(each.done() for each in blocked)
    finally:
        answered.set()
        await asyncio.wait(blocked)
        await providers.close()


def test_a_connection_whose_call_was_ended_serves_the_next_one() -> None:
    class Far:
        def connect(self) -> None: ...

        def request(self) -> None: ...

        def close(self) -> None: ...

    connection: Any = type("Owned", (_TrackedConnection, Far), {})()

    def converse() -> None:
        connection.connect()  # as over TLS, before it is known whose request goes out
        connection.request()

    first, second = [CancellableClient(SimpleNamespace(converse=converse)) for _ in range(2)]
    first.converse()
    first.cancel()
    second.converse()
    with pytest.raises(ConnectionAbortedError):
        first.converse()


async def test_a_client_is_loaded_and_made_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one of a provider loads its package, which may take seconds."""
    providers, going_on = ProviderClients(), threading.Event()

    def made(*_: Any) -> object:
        assert going_on.wait(10), "the loop stood still until the client was made"
        return object()

    monkeypatch.setattr(providers, "_create_client", made)
    making = asyncio.create_task(providers.client(ProviderTarget("one", "bedrock", "http://127.0.0.1:9"), ""))
    await asyncio.sleep(0.05)
    going_on.set()
    assert await making is not None


class Asked:
    """A provider's client, and in which thread of the loop it works."""

    client = None

    async def acompletion(self, **_: Any) -> str:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: threading.current_thread().name)


@pytest.mark.parametrize(("api", "threads"), [("bedrock", "answer"), ("gemini", "other")])
async def test_whoever_blocks_is_asked_in_threads_of_its_own(
    api: str, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_default_executor(LoopThreadPool())
    providers = ProviderClients()

    async def client(*_: Any) -> Asked:
        return Asked()

    monkeypatch.setattr(providers, "client", client)
    asked = asyncio.create_task(providers._call_library(ProviderTarget("one", api, "http://127.0.0.1:9"), "", {}))
    assert (await asked).startswith(threads)
    await providers.close()


async def test_names_are_not_looked_up_in_threads_that_others_wait_for(tmp_path: Path) -> None:
    """A crowd of calls to one that nobody answers for would have all of them."""
    home, loop = Home(tmp_path), asyncio.get_running_loop()
    home.create()
    serving = asyncio.create_task(serve(home, 0.1))
    async with asyncio.timeout(20):
        while lookup(home, SERVICE) is None:  # noqa: ASYNC110 -- it is written by another module
            await asyncio.sleep(0.01)
    assert loop.getaddrinfo == resolver_of(loop).getaddrinfo
    serving.cancel()
    await asyncio.wait([serving])
