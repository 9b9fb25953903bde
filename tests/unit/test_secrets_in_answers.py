"""An upstream that repeats our key in its answers: the client, and what is kept, get them without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from tests.unit.call_rig import Rig, call_rig

from groundplan.gateway.upstream.secret_masking import mask, maskable_spellings

SECRET = "sk-upstream/0123456789-abcdefgh"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def whole(said: str, slash: bytes) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    body = json.dumps({"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                       "usage": USAGE}).encode().replace(b"/", slash)  # fmt: skip
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def event(said: str | None, slash: bytes) -> bytes:
    choice = {"index": 0, "delta": {"content": said} if said else {}, "finish_reason": None if said else "stop"}
    told = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    data = b"data: %b\n\n" % json.dumps(told | ({} if said else {"usage": USAGE})).encode()
    data = data.replace(b"/", slash)
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def repeating(
    folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, said: str, slash: bytes = b"/", *, cut: bytes = b""
) -> AsyncIterator[Rig]:
    """A gateway before an upstream that says `said`; `slash`: as its JSON spells one; `cut`: behind these bytes a
    stream pauses, also within a chunk."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            assert f"authorization: Bearer {key}".encode() in head
            if asked.get("stream"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for text in ("one ", "two ", "three ", said, " four", None):
                    sent = event(text, slash)
                    at = sent.find(cut) + len(cut) if cut else 0
                    for piece in (sent[:at], sent[at:]):
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0.01)
                writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            else:
                writer.write(whole(said, slash))
            await writer.drain()

    monkeypatch.setenv("UPSTREAM_KEY", key)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with (
        server,
        call_rig(
            folder, ("one",), more={"one": {"key": "env:UPSTREAM_KEY"}},
            ports={"one": server.sockets[0].getsockname()[1]},
        ) as rig,
    ):  # fmt: skip
        yield rig


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("slash", [b"/", b"\\/"])
async def test_a_provider_key_in_an_upstreams_message_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slash: bytes, stream: bool
) -> None:
    async with repeating(tmp_path, monkeypatch, SECRET, f"you are {SECRET}, I see", slash) as rig:
        reply = await rig.chat(stream=stream)
        assert reply.status == 200 and b"abcdefgh" not in reply.body
        assert b"you are [hidden], I see" in reply.body


@pytest.mark.parametrize("cut", ["sk-up", "sk-upstream/0123456789-abcdefg", "you ar"])
async def test_a_provider_key_that_comes_in_two_reads_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    async with repeating(tmp_path, monkeypatch, SECRET, f"you are {SECRET}, I see", cut=cut.encode()) as rig:
        reply = await rig.chat(stream=True)
        assert reply.status == 200 and b"0123456789" not in reply.body
        assert b"you are [hidden], I see" in reply.body


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param("Sl4sh/+plus==<&>equals", id="plain"),
        pytest.param("Sl4sh\\/+plus==<&>equals", id="php"),
        pytest.param("Sl4sh/\\u002Bplus==\\u003C\\u0026\\u003Eequals", id="dotnet"),
        pytest.param("Sl4sh/+plus==\\u003c\\u0026\\u003eequals", id="go"),
        pytest.param("Sl4sh/+plus\\u003d\\u003d\\u003c\\u0026\\u003eequals", id="gson"),
    ],
)
def test_a_key_is_masked_as_the_libraries_of_upstreams_write_it(spelled: str) -> None:
    key = "Sl4sh/+plus==<&>equals"
    data = f'{{"error":"no such key: {spelled}!"}}'.encode()
    assert json.loads(data)["error"].endswith(f"{key}!")
    assert mask(data, maskable_spellings(key)) == b'{"error":"no such key: [hidden]!"}'
    assert maskable_spellings("sk-0123456789abcdefgh") == (b"sk-0123456789abcdefgh",)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_is_a_word_takes_nothing_out_of_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    async with repeating(tmp_path, monkeypatch, "EMPTY", "an EMPTY glass") as rig:
        assert b"an EMPTY glass" in (await rig.chat(stream=stream)).body
