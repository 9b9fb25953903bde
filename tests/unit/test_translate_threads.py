"""The translating service while every thread of its loop waits for a client that blocks, as Bedrock's does: a hundred
and more answers of it hold up no other provider."""

from __future__ import annotations

import asyncio
import threading

import pytest

from groundplan.gateway.translate_app import Loop
from groundplan.gateway.upstream.blocking import InContext
from groundplan.gateway.upstream.providers import Place
from groundplan.gateway.upstream.translate import Providers

pytest.importorskip("any_llm")


async def _others(answered: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(InContext(2, "answer"))
    providers = Providers()
    blocked = [loop.run_in_executor(None, answered.wait) for _ in range(3)]
    try:
        async with asyncio.timeout(30):
            assert await loop.getaddrinfo("localhost", 80), "whoever is connected to has to be found"
            assert await providers.client(Place("one", "ollama", "http://127.0.0.1:9"), "") is not None
        assert not any(each.done() for each in blocked)
    finally:
        answered.set()
        await asyncio.wait(blocked)
        await providers.close()


def test_names_and_clients_of_others_wait_for_no_answer_that_blocks() -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(_others(threading.Event()))
