"""What a provider answers that will not be asked now: it is asked once, since whoever asks it again is the gateway, and
nobody is asked in its place, wherever it says that its callers are to go."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

import pytest
from tests.closing import close
from tests.unit.test_providers_spoken import LLAMA, TRACE, place, request_body, spoken
from tests.unit.test_upstream_dial import saying_nothing

from groundplan.gateway.http.connection import Handler
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.upstream.translation import connection_per_call, translate
from groundplan.gateway.upstream.translation.failures import ProviderFailure

pytest.importorskip("any_llm")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
]
MODELS = {
    **{api: f"up-{api}" for api in ("anthropic", "azure", "bedrock", "cohere", "gemini", "groq", "mistral", "ollama")},
    "vertexai": "gemini-2",
}
CASES = [*MODELS.items(), ("vertexai", "mistral-small-2503"), ("vertexai", LLAMA)]


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = Server(handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        await close(listener, server)


@pytest.mark.parametrize(("api", "before"), [("bedrock", 1), ("cohere", 96), ("gemini", 1), ("vertexai", 1)])
async def test_a_refusal_of_one_of_several_texts_tells_what_those_before_it_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, before: int
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.unfit = "unfit"
        for texts, billed in (([*(["a"] * before), "unfit"], True), (["unfit", *(["a"] * before)], False)):
            body = json.dumps({"model": f"up-{api}", "input": texts}).encode()
            with pytest.raises(ProviderFailure) as refused:
                await providers.embed(place(api, wire, tmp_path), body)
            told = json.loads(refused.value.body)["error"]
            assert refused.value.status == 400 and ("billed_tokens" in told) is billed, told
            assert not billed or isinstance(told["billed_tokens"], int)


@pytest.mark.parametrize(("api", "model"), CASES)
@pytest.mark.parametrize("stream", [False, True])
async def test_no_client_of_a_provider_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, model: str, stream: bool
) -> None:
    reached: list[bytes] = []

    async def elsewhere(request: Request, response: Response) -> None:
        reached.append(request.target)
        response.send(404, b"{}")

    async def away(request: Request, response: Response) -> None:
        there = b"location: http://localhost:%d%b\r\n" % (to, request.target)
        response.end(b"{}", response.start(307, there))

    async with spoken(tmp_path, monkeypatch) as (providers, wire), serving(elsewhere) as to, serving(away) as port:
        wire.port = port
        with pytest.raises(ProviderFailure) as failed:
            await providers.chat(place(api, wire, tmp_path), request_body(api, model=model, stream=stream))
        assert failed.value.status == 503 and not reached, "and it is not billed"


@pytest.mark.parametrize(("api", "model"), CASES)
@pytest.mark.parametrize("status", [429, 503])
async def test_each_provider_is_asked_once_and_the_pause_that_it_asks_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, model: str, status: int
) -> None:
    """The library tells it of 429 only, and not of AWS's and Ollama's."""
    asked_for = 0

    async def busy(request: Request, response: Response) -> None:
        nonlocal asked_for
        asked_for += 1
        head = b"content-type: application/json\r\nretry-after: 7\r\nx-request-id: inner\r\n"
        response.end(b'{"message": "too busy"}', response.start(status, head))

    async with spoken(tmp_path, monkeypatch) as (providers, wire), serving(busy) as port:
        wire.port = port
        for stream in (False, True):
            with pytest.raises(ProviderFailure) as failed:
                await providers.chat(place(api, wire, tmp_path), request_body(api, model=model, stream=stream), TRACE)
            assert (failed.value.status, failed.value.retry_after) == (status, "7")
            assert "inner" not in failed.value.body.decode() and "too busy" in failed.value.body.decode()
        assert asked_for == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_google_is_followed_nowhere_by_the_client_that_it_has_without_aiohttp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """It asks through another one, which it makes itself."""
    monkeypatch.setattr(import_module("google.genai._api_client"), "has_aiohttp", False)
    await test_no_client_of_a_provider_goes_elsewhere(tmp_path, monkeypatch, "gemini", MODELS["gemini"], stream)


@pytest.mark.parametrize("api", sorted({*MODELS} - {"bedrock", "vertexai"}))
async def test_no_call_waits_in_a_client_for_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    """Most of them make a hundred connections by themselves."""
    here = asyncio.Barrier(101)

    async def when_all_are_here(_: Request, response: Response) -> None:
        await here.wait()
        response.send(503, b"{}")

    async with spoken(tmp_path, monkeypatch) as (providers, wire), serving(when_all_are_here) as port:
        wire.port = port
        where, body = place(api, wire, tmp_path), request_body(api, model=MODELS[api])
        async with asyncio.timeout(30):
            found = await asyncio.gather(*(providers.chat(where, body) for _ in range(101)), return_exceptions=True)
    assert all(isinstance(each, ProviderFailure) and each.status == 503 for each in found)


async def test_what_is_asked_by_a_package_that_is_not_there_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "azure.core.pipeline.transport._aiohttp", raising=False)
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        with pytest.raises(ProviderFailure) as failed:
            await providers.chat(place("azure", wire, tmp_path), request_body("azure"))
    assert failed.value.status == 503 and b"groundplan[providers]" in failed.value.body and not wire.asked


@pytest.mark.parametrize("api", sorted({*MODELS} - {"vertexai"}))
async def test_one_that_takes_no_connection_is_not_waited_for_as_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    """And costs nothing."""
    for module in (translate, connection_per_call):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.1)
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        with saying_nothing() as (_, wire.port), pytest.raises(ProviderFailure) as failed:
            async with asyncio.timeout(30):
                await providers.chat(place(api, wire, tmp_path), request_body(api, model=MODELS[api]))
    assert failed.value.status == 503
