"""The contract of an upstream for tasks other than chat, which the shipped scripted model keeps as any real one must:
answers are parsed with their usage, and each failure is detected as it is for chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from openai.types import ImageGenStreamEvent
from pydantic import BaseModel, Field
from tests.integration.sdk_types import parse_strictly
from tests.unit.call_rig import upstream

from groundplan.blueprint.model import Deployment, Rates
from groundplan.gateway.http.server import Request
from groundplan.gateway.http.sse import EventReader
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.images import IMAGES
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.moderations import MODERATIONS
from groundplan.gateway.surfaces.rerank import RERANK
from groundplan.gateway.surfaces.speech import SPEECH
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.http1_pool import Http1Pool
from groundplan.ledger.model import Usage, UsageDetails
from groundplan.testing.scripted import Script, ScriptedModel


class _Delta(BaseModel, extra="forbid"):
    """The official client has no types for the events of speech; these are from the API reference."""

    type: Literal["speech.audio.delta"]
    audio: str


class _Counts(BaseModel, extra="forbid"):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class _Done(BaseModel, extra="forbid"):
    type: Literal["speech.audio.done"]
    usage: _Counts


SpeechEvent = Annotated[_Delta | _Done, Field(discriminator="type")]
RATES = Rates(input=1, output=1, images={"any": 1})
DEPLOYMENT = Deployment(
    name="one", site="here", model="m", upstream_model="token-model", url="http://u/v1", rates=RATES, image_tokens=50
)
TASKS: dict[str, tuple[Interface, dict[str, Any], Usage | None]] = {
    "moderations": (MODERATIONS, {"model": "m", "input": "hello"}, None),
    "rerank": (RERANK, {"model": "m", "query": "a", "documents": ["a b", "c"]}, Usage(input=4)),
    "images": (
        IMAGES,
        {"model": "m", "prompt": "a b", "n": 2},
        Usage(input=2, output=100, images_made=2, details=UsageDetails(input_text=2)),
    ),
}


STREAMS: dict[str, tuple[Interface, dict[str, Any], Any, Usage]] = {
    "images": (
        IMAGES,
        {"model": "m", "prompt": "a b", "stream": True, "partial_images": 2},
        ImageGenStreamEvent,
        Usage(input=2, output=70, images_made=1, details=UsageDetails(input_text=2)),
    ),
    "speech": (
        SPEECH,
        {"model": "m", "input": "a b", "voice": "alloy", "stream_format": "sse"},
        SpeechEvent,
        Usage(input=2, output=10, characters=3),
    ),
}


@dataclass
class Provider:
    model: ScriptedModel
    pool: Http1Pool
    patience: float = 20.0
    """Timeout of each step in seconds."""

    async def ask(self, task: str) -> UpstreamAnswer:
        """Make a call as the gateway does: read, forward, send, parse."""
        interface, body, _ = TASKS[task]
        request = Request(0.0)
        request.body = json.dumps(body).encode()
        ask, codec = interface.read(request), interface.codec(DEPLOYMENT)
        data = codec.request_body(ask, DEPLOYMENT, 10, [])
        assert json.loads(data) == {**body, "model": "token-model"}
        connection = await self.pool.connect(self.patience)
        path = self.pool.prefix + codec.path(DEPLOYMENT)
        connection.send(b"POST %b HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b" % (path, len(data), data))
        try:
            assert await connection.read_head(self.patience) == 200
            return codec.parse_answer(await connection.read_body(self.patience), ask)
        finally:
            connection.release()

    async def stream(self, task: str) -> tuple[list[bytes], Relay]:
        """The data of every event of a stream, and the relay that was fed with them. Raises what reading raises."""
        interface, body, _, _ = STREAMS[task]
        request = Request(0.0)
        request.body = json.dumps(body).encode()
        ask, codec = interface.read(request), interface.codec(DEPLOYMENT)
        data, relay, events = codec.request_body(ask, DEPLOYMENT, 10, []), codec.new_relay(ask), list[bytes]()
        connection = await self.pool.connect(self.patience)
        path = self.pool.prefix + codec.path(DEPLOYMENT)
        connection.send(b"POST %b HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b" % (path, len(data), data))
        reader = EventReader()
        try:
            assert await connection.read_head(self.patience) == 200
            assert connection.headers[b"content-type"].startswith(b"text/event-stream")
            while (piece := await connection.read_chunk(self.patience)) is not None:
                for event in reader.feed(piece):
                    events.append(event)
                    relay.feed(event)
        finally:
            connection.release()
        return events, relay


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with upstream("contract") as (model, server, port):
        pool = Http1Pool(f"http://127.0.0.1:{port}/v1", server.loop)
        yield Provider(model, pool)
        pool.close()


@pytest.mark.parametrize("task", TASKS)
async def test_an_answer_is_parsed_with_its_usage(provider: Provider, task: str) -> None:
    answer = await provider.ask(task)
    assert answer.usage == TASKS[task][2] and json.loads(answer.data)
    assert provider.model.counted == 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", ["malformed", "empty", "error_event", "wrong_type"])
async def test_an_invalid_answer_is_detected(provider: Provider, task: str, mode: str) -> None:
    provider.model.script = Script(mode=mode)
    with pytest.raises(Malformed):
        await provider.ask(task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("mode", "kind"), [("cut", "cut"), ("down", "cut"), ("stall", "timeout")])
async def test_an_upstream_failure_is_reported_as_for_chat(provider: Provider, task: str, mode: str, kind: str) -> None:
    provider.model.script = Script(mode=mode)
    provider.patience = 1.0 if kind == "timeout" else provider.patience
    with pytest.raises(UpstreamFailure) as caught:
        await provider.ask(task)
    assert caught.value.kind == kind


@pytest.mark.parametrize("task", STREAMS)
async def test_a_stream_has_the_providers_event_types_and_its_usage_is_parsed(provider: Provider, task: str) -> None:
    events, relay = await provider.stream(task)
    for data in events:
        parse_strictly(STREAMS[task][2], data)
    assert relay.complete and relay.done and relay.usage == STREAMS[task][3]
    assert relay.output_bytes == 0, "images and audio are no text"


@pytest.mark.parametrize("task", STREAMS)
@pytest.mark.parametrize("mode", ["malformed", "error_event"])
async def test_an_invalid_stream_event_is_detected(provider: Provider, task: str, mode: str) -> None:
    provider.model.script = Script(mode=mode, at=0)
    with pytest.raises(Malformed):
        await provider.stream(task)


@pytest.mark.parametrize("task", STREAMS)
@pytest.mark.parametrize(("mode", "kind"), [("cut", "cut"), ("stall_late", "timeout")])
async def test_a_broken_stream_is_reported_as_for_chat(provider: Provider, task: str, mode: str, kind: str) -> None:
    provider.model.script = Script(mode=mode, at=-1)
    provider.patience = 1.0 if kind == "timeout" else provider.patience
    with pytest.raises(UpstreamFailure) as caught:
        await provider.stream(task)
    assert caught.value.kind == kind


@pytest.mark.parametrize("task", STREAMS)
async def test_a_stream_without_its_last_event_is_not_complete(provider: Provider, task: str) -> None:
    provider.model.script = Script(mode="no_finish", at=0)
    events, relay = await provider.stream(task)
    assert not relay.complete and relay.usage is None and len(events) == 1
