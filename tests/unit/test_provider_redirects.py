"""Whoever answers with a redirect gets nothing sent elsewhere: neither a prompt nor a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.closing import close
from tests.unit.test_providers_spoken import LLAMA, asked, place, spoken

from groundplan.gateway.http.server import Handler, Request, Response, Server
from groundplan.gateway.surfaces.answers import of_refusal
from groundplan.gateway.upstream.translate import Failed

pytest.importorskip("any_llm")
MODELS = {
    **{api: f"up-{api}" for api in ("anthropic", "azure", "bedrock", "cohere", "gemini", "groq", "mistral", "ollama")},
    "vertexai": "gemini-2",
}
CASES = [*MODELS.items(), ("vertexai", "mistral-small-2503"), ("vertexai", LLAMA)]


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = Server(handle, of_refusal, loop)
    listener = await loop.create_server(server.protocol, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        await close(listener, server)


@pytest.mark.parametrize(("api", "model"), CASES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated")
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
        with pytest.raises(Failed) as failed:
            await providers.chat(place(api, wire, tmp_path), asked(api, model=model, stream=stream))
        assert failed.value.status == 503 and not reached, "and it is not billed"
