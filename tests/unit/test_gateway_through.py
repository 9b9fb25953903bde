"""Chunks of HTTP/1.1 that go straight through to the client: however an upstream frames its stream, the client gets the
same answer, and it is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.raw_upstream import CHUNKED_STREAM_HEAD, DONE, chunk, encode_events, raw_upstream_rig

from groundplan.blueprint.model import Keep
from groundplan.gateway.call.delivery.stream import Streaming
from groundplan.gateway.http.chunk_template import ChunkTemplate

TEXTS = [" one", " two", "\n", " drei", " fünf", "", "six", " seven"]
EVENTS = [
    encode_events(chunk({"role": "assistant", "content": ""})),
    *(encode_events(chunk({"content": text})) for text in TEXTS),
]
PAIRS = list(zip(EVENTS[1::2], EVENTS[2::2], strict=True))
LAST = encode_events(chunk({}, "stop"), DONE)


def frame(data: bytes, size: bytes = b"%x", more: bytes = b"") -> bytes:
    return size % len(data) + more + b"\r\n" + data + b"\r\n"


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


END = frame(LAST) + b"0\r\n\r\n"
WAYS: dict[str, list[bytes]] = {
    "each": [*map(frame, EVENTS), END],
    "two in a read": [frame(EVENTS[0]), *(frame(a) + frame(b) for a, b in PAIRS), END],
    "two in a chunk": [frame(EVENTS[0]), *(frame(a + b) for a, b in PAIRS), END],
    "all in a read": [b"".join(map(frame, EVENTS)) + END],
    "all in a chunk": [frame(b"".join(EVENTS)), END],
    "in pieces": [*map(frame, EVENTS[:3]), *cut(b"".join(map(frame, EVENTS[3:])) + END, 50)],
    "a chunk is a part": [*map(frame, EVENTS[:3]), *map(frame, cut(b"".join(EVENTS[3:]), 50)), END],
    "large letters": [frame(each, b"%X") for each in EVENTS] + [END],
    "zeros": [frame(each, b"000%x") for each in EVENTS] + [END],
    "extensions": [*map(frame, EVENTS[:3]), frame(EVENTS[3], more=b";a=b"), *map(frame, EVENTS[4:]), END],
    "comments": [*map(frame, EVENTS[:4]), frame(b": still here\n\n"), *map(frame, EVENTS[4:]), END],
    "half an event": [*map(frame, (*EVENTS[:4], EVENTS[4][:20], EVENTS[4][20:], *EVENTS[5:])), END],
}  # fmt: skip


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What went straight through."""
    found: list[bytes] = []
    real = Streaming._try_pass_through

    def spied(self: Streaming, data: bytes) -> bool:
        went = real(self, data)
        if went:
            found.append(data)
        return went

    monkeypatch.setattr(Streaming, "_try_pass_through", spied)
    return found


@pytest.mark.parametrize("way", list(WAYS))
async def test_an_answer_is_the_same_in_every_framing(tmp_path: Path, through: list[bytes], way: str) -> None:
    async with raw_upstream_rig(tmp_path, CHUNKED_STREAM_HEAD, *WAYS[way]) as rig:
        stream = await rig.stream()
        assert (stream.text, stream.finish, stream.done, stream.errors) == ("".join(TEXTS), ["stop"], True, [])
        (only,) = await rig.settlements()
        assert (only.outcome, only.flags) == ("ok", ["no_usage"])
        assert only.usage.output == min(20, len("".join(TEXTS).encode())), "what was not reported is counted"
    if way == "each":
        assert through, "nearly all of it"
    if way in ("two in a chunk", "large letters", "zeros"):
        assert not through


async def test_data_is_forwarded_in_the_loop_turn_in_which_it_arrives(
    tmp_path: Path, through: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the first token, whose upstream may have been given longer than what follows it."""
    pumped: list[bytes] = []
    real = Streaming._pump

    def spied(self: Streaming, data: bytes) -> bool:
        goes_on = real(self, data)
        if goes_on:
            pumped.append(data)
        return goes_on

    monkeypatch.setattr(Streaming, "_pump", spied)
    times = {"one": {"first_token_ms": 9000, "idle_ms": 5000, "first_token_declared": True}}
    async with raw_upstream_rig(tmp_path, CHUNKED_STREAM_HEAD + frame(EVENTS[0]), *WAYS["each"][1:], more=times) as rig:
        assert (await rig.stream()).text == "".join(TEXTS)
    assert pumped[:1] == [EVENTS[1]]
    assert len(pumped) + len(through) == len(TEXTS)


async def test_a_stream_that_breaks_in_pass_through_is_counted_and_reported(
    tmp_path: Path, through: list[bytes]
) -> None:
    async with raw_upstream_rig(tmp_path, CHUNKED_STREAM_HEAD, *map(frame, EVENTS)) as rig:
        stream = await rig.stream()
        assert (stream.text, stream.done, len(stream.errors)) == ("".join(TEXTS), False, 1)
        (only,) = await rig.settlements()
        assert only.outcome == "failed" and only.usage.output == min(20, len("".join(TEXTS).encode()))
    assert through


async def test_stored_content_of_a_pass_through_is_complete(tmp_path: Path, through: list[bytes]) -> None:
    kept = {"assistant": {"keep": Keep(content="full", seconds=60)}}
    async with raw_upstream_rig(tmp_path, CHUNKED_STREAM_HEAD, *WAYS["each"], workloads=kept) as rig:
        assert (await rig.stream()).text == "".join(TEXTS)
    assert not through


async def test_a_client_of_http_1_0_gets_no_chunks(tmp_path: Path, through: list[bytes]) -> None:
    async with raw_upstream_rig(tmp_path, CHUNKED_STREAM_HEAD, *WAYS["each"]) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        told = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        body = told.partition(b"\r\n\r\n")[2]
        assert body.startswith(b"data: ") and b"\r\n" not in body and b" seven" in body
    assert not through


class Body:
    """What the parser makes of the same bytes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)


NOISY: dict[str, Any] = {"obfuscation": "ab"}


@given(st.data(), st.sampled_from([{}, NOISY]))
def test_a_forwarded_frame_is_one_complete_chunk_for_the_parser(data: st.DataObject, more: dict[str, Any]) -> None:
    """Bytes changed, put in and left out anywhere."""
    alike = ChunkTemplate.of(chunk({"content": "a"}, **more))
    assert alike is not None
    text = data.draw(st.sampled_from(["", "word", "é", '"', "\n"]))
    sent = bytearray(frame(encode_events(chunk({"content": text}, **more))))
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(sent)) | st.integers(0, 6))
        sent[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b"0", b"a", b"\r\n", b";", b"\n", b'"', b"\xff", b" "])
        )
    size = alike.framed_text_bytes(bytes(sent))
    if size < 0:
        return
    body = Body()
    parser = httptools.HttpResponseParser(body)
    parser.feed_data(CHUNKED_STREAM_HEAD)
    parser.feed_data(bytes(sent))
    assert len(body.parts) == 1 and alike.text_bytes(body.parts[0]) == size
    parser.feed_data(frame(b"next"))
    assert body.parts[1:] == [b"next"], "it was all of a chunk"


@pytest.mark.parametrize("more", [{}, NOISY])
@pytest.mark.parametrize("where", ["text", "noise"])
@pytest.mark.parametrize("put", [b'","finish_reason":"stop","x":"', b"\\", b"\n", b"\x00", b"\x1f", b"\x7f", b"\r"])
def test_varying_fields_of_a_frame_cannot_hide_data(more: dict[str, Any], where: str, put: bytes) -> None:
    """Neither in the text nor in the noise, whose chunk is as long as its frame says."""
    alike = ChunkTemplate.of(chunk({"content": "a"}, **more))
    assert alike is not None
    plain = chunk({"content": "TEXT"}, **({**more, "obfuscation": "NOISE"} if more else {}))
    assert alike.framed_text_bytes(frame(encode_events(plain))) == 4
    hidden = plain.replace(b"TEXT" if where == "text" or not more else b"NOISE", b"a" + put + b"b")
    assert alike.framed_text_bytes(frame(encode_events(hidden))) == alike.text_bytes(encode_events(hidden)) == -1


@pytest.mark.parametrize("more", [{}, NOISY])
def test_a_text_without_its_end_is_no_frame(more: dict[str, Any]) -> None:
    """The mark that begins a text must not be taken for the one that ends it, too."""
    alike = ChunkTemplate.of(chunk({"content": "a"}, **more))
    assert alike is not None
    sent = encode_events(chunk({"content": ""}, **more).replace(b'"content": ""', b'"content": "'))
    assert alike.framed_text_bytes(frame(sent)) == alike.text_bytes(sent) == -1


def test_frames_of_every_length_agree_with_the_parser() -> None:
    alike = ChunkTemplate.of(chunk({"content": "a"}))
    assert alike is not None
    for size in (*range(300), *range(3900, 4200)):
        sent = frame(encode_events(chunk({"content": "x" * size})))
        assert alike.framed_text_bytes(sent) == (size if len(sent) < 4096 + 7 else -1)
        for wrong in (sent.replace(b'"content": "', b'"content": "x'), sent[:-3] + b"\r\n", b"0" + sent, sent + b"0"):
            assert alike.framed_text_bytes(wrong) == -1
