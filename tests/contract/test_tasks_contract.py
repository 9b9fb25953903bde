"""What the gateway asks of an upstream besides talking, held by the shipped scripted model as by any real one: right
answers are understood with their usage, and each way of failing is noticed as it is for chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from openai.types import ImageGenStreamEvent
from pydantic import BaseModel, Field
from tests.integration.sdk_types import strict
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
    """The client has no types for the events of speech: these are the API reference's."""

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
PLACE = Deployment(
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
class Far:
    model: ScriptedModel
    pool: Http1Pool
    patience: float = 20.0
    """Seconds that each step may take."""

    async def ask(self, task: str) -> UpstreamAnswer:
        """As the gateway does: read, forwarded, sent, understood."""
        interface, body, _ = TASKS[task]
        request = Request(0.0)
        request.body = json.dumps(body).encode()
        ask, codec = interface.read(request), interface.codec(PLACE)
        data = codec.request_body(ask, PLACE, 10, [])
        assert json.loads(data) == {**body, "model": "token-model"}
        connection = await self.pool.connect(self.patience)
        path = self.pool.prefix + codec.path(PLACE)
        connection.send(b"POST %b HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b" % (path, len(data), data))
        try:
            assert await connection.read_head(self.patience) == 200
            return codec.parse_answer(await connection.read_body(self.patience), ask)
        finally:
            connection.release()

    async def told(self, task: str) -> tuple[list[bytes], Relay]:
        """Data of every event of a stream, and the relay that took them. Raises what waiting raises."""
        interface, body, _, _ = STREAMS[task]
        request = Request(0.0)
        request.body = json.dumps(body).encode()
        ask, codec = interface.read(request), interface.codec(PLACE)
        data, relay, found = codec.request_body(ask, PLACE, 10, []), codec.new_relay(ask), list[bytes]()
        connection = await self.pool.connect(self.patience)
        path = self.pool.prefix + codec.path(PLACE)
        connection.send(b"POST %b HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b" % (path, len(data), data))
        reader = EventReader()
        try:
            assert await connection.read_head(self.patience) == 200
            assert connection.headers[b"content-type"].startswith(b"text/event-stream")
            while (piece := await connection.read_chunk(self.patience)) is not None:
                for event in reader.feed(piece):
                    found.append(event)
                    relay.feed(event)
        finally:
            connection.release()
        return found, relay


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    async with upstream("contract") as (model, server, port):
        pool = Http1Pool(f"http://127.0.0.1:{port}/v1", server.loop)
        yield Far(model, pool)
        pool.close()


@pytest.mark.parametrize("task", TASKS)
async def test_an_answer_is_understood_with_what_it_used(far: Far, task: str) -> None:
    answered = await far.ask(task)
    assert answered.usage == TASKS[task][2] and json.loads(answered.data)
    assert far.model.counted == 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", ["malformed", "empty", "error_event", "wrong_type"])
async def test_an_answer_that_is_none_is_noticed(far: Far, task: str, mode: str) -> None:
    far.model.script = Script(mode=mode)
    with pytest.raises(Malformed):
        await far.ask(task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("mode", "kind"), [("cut", "cut"), ("down", "cut"), ("stall", "timeout")])
async def test_an_upstream_that_fails_fails_as_in_chat(far: Far, task: str, mode: str, kind: str) -> None:
    far.model.script = Script(mode=mode)
    far.patience = 1.0 if kind == "timeout" else far.patience
    with pytest.raises(UpstreamFailure) as caught:
        await far.ask(task)
    assert caught.value.kind == kind


@pytest.mark.parametrize("task", STREAMS)
async def test_a_stream_is_the_providers_own_and_its_usage_is_understood(far: Far, task: str) -> None:
    found, relay = await far.told(task)
    for data in found:
        strict(STREAMS[task][2], data)
    assert relay.complete and relay.done and relay.usage == STREAMS[task][3]
    assert relay.output_bytes == 0, "pictures and sound are no text"


@pytest.mark.parametrize("task", STREAMS)
@pytest.mark.parametrize("mode", ["malformed", "error_event"])
async def test_a_stream_that_goes_wrong_is_noticed(far: Far, task: str, mode: str) -> None:
    far.model.script = Script(mode=mode, at=0)
    with pytest.raises(Malformed):
        await far.told(task)


@pytest.mark.parametrize("task", STREAMS)
@pytest.mark.parametrize(("mode", "kind"), [("cut", "cut"), ("stall_late", "timeout")])
async def test_a_stream_that_breaks_breaks_as_in_chat(far: Far, task: str, mode: str, kind: str) -> None:
    far.model.script = Script(mode=mode, at=-1)
    far.patience = 1.0 if kind == "timeout" else far.patience
    with pytest.raises(UpstreamFailure) as caught:
        await far.told(task)
    assert caught.value.kind == kind


@pytest.mark.parametrize("task", STREAMS)
async def test_a_stream_that_ends_too_early_is_not_complete(far: Far, task: str) -> None:
    far.model.script = Script(mode="no_finish", at=0)
    found, relay = await far.told(task)
    assert not relay.complete and relay.usage is None and len(found) == 1
