"""Images and speech that are told while they are made: the rows of docs/streams.md about them, and what they cost."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import parse_reply
from tests.unit.call_rig import PATIENT, Rig, Stream, call_rig, reliability, wait_until
from tests.unit.raw_upstream import STREAM_HEAD, encode_events, json_response, post, raw_upstream_rig

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.gateway.http.server import Request
from groundplan.gateway.http.sse import MAX_EVENT
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.images import IMAGES
from groundplan.ledger.model import Reservation, Settlement

FAST = {"first_token_ms": 400, "idle_ms": 300}
PAINTER = {"kind": "images", "image_tokens": 60, "rates": Rates(input=PICO, output=100 * PICO)}
VOICE = {"kind": "speech", "max_output_tokens": 100, "rates": Rates(input=PICO, output=10 * PICO)}
TASKS: dict[str, tuple[dict[str, Any], str, dict[str, Any], str]] = {
    "images": (
        PAINTER,
        "/v1/images/generations",
        {"model": "auto", "prompt": "a red house", "stream": True, "partial_images": 3},
        "image_generation.completed",
    ),
    "speech": (
        VOICE,
        "/v1/audio/speech",
        {"model": "auto", "input": "hello there " * 20, "voice": "alloy", "stream_format": "sse"},
        "speech.audio.done",
    ),
}


class Media:
    """A worker with two deployments of one kind."""

    def __init__(self, rig: Rig, path: str, body: dict[str, Any], last: str) -> None:
        self.rig, self._path, self.body, self.last = rig, path, body, last

    def request(self, **more: Any) -> bytes:
        data = json.dumps({**self.body, **more}).encode()
        head = f"POST {self._path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n"
        return head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data

    async def ask(self, **more: Any) -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.rig.port)
        writer.write(self.request(**more))
        try:
            return Stream(parse_reply(await asyncio.wait_for(reader.read(), 20)))
        finally:
            writer.close()


@pytest.fixture(params=TASKS)
async def media(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Media]:
    place, path, body, last = TASKS[request.param]
    async with call_rig(tmp_path, more={"one": place | FAST, "two": place}) as rig:
        yield Media(rig, path, body, last)


@pytest.fixture
async def painter(tmp_path: Path) -> AsyncIterator[Media]:
    place, path, body, last = TASKS["images"]
    async with call_rig(tmp_path, more={"one": place | FAST, "two": place}) as rig:
        yield Media(rig, path, body, last)


def check_complete_stream(stream: Stream, media: Media, deployment: str) -> None:
    assert stream.status == 200 and stream.errors == [] and stream.headers["content-type"] == "text/event-stream"
    assert [each["type"] == media.last for each in stream.events] == [False] * (len(stream.events) - 1) + [True]
    assert stream.events[-1]["groundplan"]["deployment"] == deployment


async def test_media_that_are_told_while_they_are_made(media: Media) -> None:
    stream = await media.ask()
    check_complete_stream(stream, media, "one")
    made, told = stream.events[:-1], stream.events[-1]
    assert len(made) in (3, 6) and not told["groundplan"]["estimated"]
    (settled,) = await media.rig.settlements()
    rates, usage = PAINTER["rates"] if "b64_json" in told else VOICE["rates"], told["usage"]
    assert isinstance(rates, Rates)
    assert settled.cost * 1_000_000 == usage["input_tokens"] * rates.input + usage["output_tokens"] * rates.output
    await media.rig.books()


@pytest.mark.parametrize("mode", ["cut", "stall_late", "malformed", "error_event", "wrong_type", "empty", "error"])
async def test_media_that_break_before_their_first_event_come_from_elsewhere(media: Media, mode: str) -> None:
    media.rig.play("one", mode=mode, at=-1)
    check_complete_stream(await media.ask(), media, "two")
    first, second = await media.rig.settlements()
    assert (first.outcome, second.outcome) == ("not_billed" if mode == "error" else "failed", "ok")
    await media.rig.books()


@pytest.mark.parametrize("mode", ["cut", "stall_late", "malformed", "error_event", "no_finish", "huge"])
async def test_media_that_break_are_told_so_and_cost_their_most(media: Media, mode: str) -> None:
    if mode == "huge" and media.last.startswith("image"):
        mode = "comments"  # an image may be as large: see below
    if mode == "huge":
        media.rig.change_deployment("one", **PATIENT)  # megabytes take a busy machine some time
    media.rig.play("one", mode=mode, at=1, chunk_ms=20)
    stream = await media.ask()
    (error,) = stream.errors
    assert error["code"] == "stream_broken" and stream.events[-1] == {"error": error} and len(stream.events) == 3
    assert media.rig.models["two"].counted == 0, "another image, another voice: nothing goes on"
    made, settled = bound_and_settled(await media.rig.records())
    assert (settled.outcome, settled.cost, settled.estimated) == ("failed", made.bound, True)
    assert "no_usage" in settled.flags
    await media.rig.books()


BLOCKED = b'{"type":"error","error":{"type":"image_generation_user_error","code":"moderation_blocked","message":"no"}}'
PARTIAL = b'{"error":{"type":"image_generation_user_error","code":null,"param":"tools","message":"no"}}'
BUSY = b'{"error":{"code":"rate_limit_exceeded","message":"Try again in 7s"}}'


@pytest.mark.parametrize(("told", "status"), [(BLOCKED, 400), (PARTIAL, 400), (BUSY, 200), (b'{"error":"x"}', 200)])
async def test_a_stream_of_an_image_that_is_an_error_is_what_that_says(
    tmp_path: Path, told: bytes, status: int
) -> None:
    """What is refused for what was asked is its caller's matter: paid by nobody, and held against no deployment."""
    place, path, body, _ = TASKS["images"]
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(told), has_fallback=True, more={"one": place, "two": place}
    ) as rig:
        reply = await post(rig, path, body)
        assert reply.status == status, reply.body
        first, *_ = await rig.settlements()
        assert first.outcome == ("failed" if b'"x"' in told else "not_billed")
        if status == 400:
            assert json.loads(reply.body)["error"]["type"] == "image_generation_user_error"
        assert bool(rig.gateway.health._failures) == (status == 200) and rig.models["two"].counted == (status == 200)
        await rig.books()


SOUND = b"ID3" + bytes(500)


def sounding(kind: bytes, body: bytes = SOUND) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (kind, len(body)) + body


@pytest.mark.parametrize(
    ("kind", "told", "asks"),
    [
        (b"content-type: audio/mpeg\r\n", "audio/mpeg", "sse"),
        (b'content-type: audio/ogg; codecs="opus"\r\n', 'audio/ogg; codecs="opus"', "audio"),
        (b"", "application/octet-stream", "audio"),
        (b"content-type: Audio/WAV\r\n", "Audio/WAV", "audio"),
    ],
)
async def test_sound_is_sound_however_its_server_sends_it(tmp_path: Path, kind: bytes, told: str, asks: str) -> None:
    """Servers that know no `stream_format` answer with sound, and some of them do not say what it is."""
    place, path, body, _ = TASKS["speech"]
    async with raw_upstream_rig(tmp_path, sounding(kind), has_fallback=True, more={"one": place, "two": place}) as rig:
        reply = await post(rig, path, body | {"stream_format": asks})
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, SOUND, told), reply.body[:200]
        made, settled = bound_and_settled(await rig.records())
        assert (settled.outcome, settled.cost) == ("ok", made.bound), "how many tokens it had nobody says"
        await rig.books()


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (sounding(b"content-type: audio/mpeg\r\n", b""), "failed"),
        (json_response(b'{"error":{"code":429,"message":"slow down"}}'), "not_billed"),
        (json_response(b'{"audio":"AAAA"}'), "failed"),
    ],
)
@pytest.mark.parametrize("asks", ["sse", "audio"])
async def test_what_is_no_sound_comes_from_elsewhere(tmp_path: Path, first: bytes, outcome: str, asks: str) -> None:
    place, path, body, _ = TASKS["speech"]
    async with raw_upstream_rig(tmp_path, first, has_fallback=True, more={"one": place, "two": place}) as rig:
        reply = await post(rig, path, body | {"stream_format": asks})
        kind = "text/event-stream" if asks == "sse" else "audio/mpeg"
        assert (reply.status, reply.headers["content-type"]) == (200, kind), reply.body[:200]
        assert [each.outcome for each in await rig.settlements()] == [outcome, "ok"]
        await rig.books()


async def test_media_are_resumed_nowhere(tmp_path: Path) -> None:
    place, path, body, last = TASKS["images"]
    settings = {"assistant": reliability(on_broken_stream="resume")}
    async with call_rig(tmp_path, more={"one": place, "two": place}, workloads=settings) as rig:
        rig.play("one", mode="cut", at=1, chunk_ms=20)
        stream = await Media(rig, path, body, last).ask()
        assert [error["code"] for error in stream.errors] == ["stream_broken"] and rig.models["two"].counted == 0
        await rig.books()


@pytest.mark.parametrize(
    "usage", [{"input_tokens": -1, "output_tokens": -1}, {"input_tokens": 0, "output_tokens": 0}, {}, None]
)
async def test_media_without_usage_cost_their_most(media: Media, usage: dict[str, int] | None) -> None:
    media.rig.play("one", last={"usage": usage})
    check_complete_stream(await media.ask(), media, "one")
    made, settled = bound_and_settled(await media.rig.records())
    assert settled.cost == made.bound and settled.estimated and "no_usage" in settled.flags


async def test_media_whose_client_goes_away_are_cancelled(media: Media) -> None:
    media.rig.play("one", mode="stall_late", at=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", media.rig.port)
    writer.write(media.request())
    await reader.readuntil(b'"type"')
    writer.close()
    await wait_until(
        lambda: not media.rig.slices.open_reservations and not media.rig.gateway.call_counters.open_streams
    )
    made, settled = bound_and_settled(await media.rig.records())
    assert (settled.outcome, settled.cost) == ("cancelled", made.bound)


async def test_partial_images_are_reserved_for(painter: Media) -> None:
    """Three that are shown and the last one: as much as four images."""
    for more in ({"partial_images": 3}, {"partial_images": 0}, {"stream": False, "partial_images": None, "n": 4}):
        await painter.ask(**more)
    bounds = [record.bound for record in await painter.rig.records() if isinstance(record, Reservation)]
    output = 60 * 100 * PICO // 1_000_000
    assert bounds[0] - bounds[1] == 3 * output and bounds[0] == bounds[2]


async def test_fields_that_say_nothing_are_none(painter: Media) -> None:
    check_complete_stream(await painter.ask(svg=None, image=None, mask=None, partial_images=None), painter, "one")


async def test_an_image_without_its_data_is_none(painter: Media) -> None:
    catalog = painter.rig.gateway.live.catalog
    assert catalog is not None
    relay = IMAGES.codec(catalog.blueprint.deployments[0]).new_relay(read(painter.body))
    for data in (b'{"type":"image_generation.completed"}', b'{"type":"image_generation.partial_image","b64_json":""}'):
        with pytest.raises(Malformed, match="nothing in it"):
            relay.feed(data)
    assert not relay.complete


async def test_an_image_may_be_larger_than_an_event_of_text(painter: Media) -> None:
    painter.rig.change_deployment("one", **PATIENT)  # megabytes take a busy machine some time
    picture = base64.b64encode(bytes(MAX_EVENT)).decode()
    painter.rig.play("one", last={"b64_json": picture})
    stream = await painter.ask(partial_images=0)
    check_complete_stream(stream, painter, "one")
    assert stream.events[-1]["b64_json"] == picture


async def test_events_of_images_have_names(painter: Media) -> None:
    stream = await painter.ask(partial_images=1)
    lines = [line for line in stream.raw.split(b"\n") if line.startswith(b"event: ")]
    assert lines == [b"event: image_generation.partial_image", b"event: image_generation.completed"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"partial_images": 4}, "partial_range"),
        ({"partial_images": -1}, "partial_range"),
        ({"n": 2}, "copies_range"),
        ({"svg": {"model": "gpt-5"}}, "field_unsupported"),
        ({"output_format": "gif"}, "field_unsupported"),
        ({"frame_count": 16, "output_format": "png"}, "field_unsupported"),
        ({"num_outputs_per_prompt": 4}, "field_unsupported"),
        ({"image_url": "http://127.0.0.1/secret.png"}, "field_unsupported"),
        ({"image": ["http://127.0.0.1/secret.png"]}, "field_unsupported"),
        ({"file": "http://127.0.0.1/secret.png"}, "field_unsupported"),  # which LocalAI fetches
        ({"files": ["http://127.0.0.1/secret.png"]}, "field_unsupported"),
        ({"ref_images": ["http://127.0.0.1/secret.png"]}, "field_unsupported"),
        ({"Image_URLs": ["http://127.0.0.1/secret.png"]}, "duplicate_key"),
        ({"Num_Images": 4}, "duplicate_key"),
        ({"Size": "4096x4096"}, "duplicate_key"),
    ],
)
async def test_what_has_no_bound_is_refused_by_name(painter: Media, more: dict[str, Any], code: str) -> None:
    reply = await painter.ask(**more)
    assert reply.status == 400 and json.loads(reply.raw)["error"]["code"] == code
    assert next(iter(more)) in json.loads(reply.raw)["error"]["message"]
    assert painter.rig.models["one"].counted == 0


def read(body: dict[str, Any]) -> Any:
    request = Request(0.0)
    request.body = json.dumps(body).encode()
    return IMAGES.read(request)


def bound_and_settled(records: list[Any]) -> tuple[Reservation, Settlement]:
    (made,) = [record for record in records if isinstance(record, Reservation)]
    (settled,) = [record for record in records if isinstance(record, Settlement)]
    return made, settled
