"""The contract of an upstream, which the shipped scripted model keeps as any real one must, over real sockets and every
kind of connection."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.ways import CONNECTION_KINDS, PoolSetup, pool_to
from tests.integration.gates import wait_until

from groundplan.economics.prices.provider_usage import ChatUsage
from groundplan.gateway.http.sse import EventReader
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.messages.native import MessagesRelay
from groundplan.gateway.upstream.connection import UpstreamConnection, UpstreamFailure
from groundplan.gateway.upstream.http1_pool import Http1Pool
from groundplan.testing.scripted import Script, ScriptedModel
from groundplan.testing.scripted_chat import answer_text

PATIENCE = 20.0
"""Timeout in seconds of steps that take no time, except on a busy machine."""


class Upstream:
    def __init__(self, model: ScriptedModel, setup: PoolSetup) -> None:
        self.model = model
        self.setup = setup
        self.pool = setup.pool
        self.keeps_connections = not setup.wire.needs_library
        """Whether the pool returns idle connections, which a library does by itself."""

    async def ask(self, path: bytes, body: Any, lines: bytes = b"") -> UpstreamConnection:
        connection = self.pool.take_idle() or await self.pool.connect(PATIENCE)
        data = json.dumps(body).encode()
        head = b"POST %b%b HTTP/1.1\r\nhost: u\r\n%bcontent-length: %d\r\n\r\n"
        connection.send(head % (self.pool.prefix, path, lines, len(data)) + data)
        return connection

    async def chat(self, **more: Any) -> UpstreamConnection:
        body = {"model": "m", "messages": [{"role": "user", "content": "Where is it?"}], "max_tokens": 8, **more}
        return await self.ask(b"/chat/completions", body)


@pytest.fixture(params=CONNECTION_KINDS)
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    model = ScriptedModel("contract")
    async with pool_to(request.param, model.handle, tmp_path) as setup:
        yield Upstream(model, setup)


async def messages(upstream: Upstream, **more: Any) -> UpstreamConnection:
    body = {"model": "m", "messages": [{"role": "user", "content": "Where is it?"}], "max_tokens": 8, **more}
    return await upstream.ask(b"/messages", body, b"anthropic-version: 2023-06-01\r\n")


async def test_a_message_has_content_and_usage_within_the_cap(upstream: Upstream) -> None:
    connection = await messages(upstream, max_tokens=2)
    assert await connection.read_head(PATIENCE) == 200
    answer = json.loads(await connection.read_body(PATIENCE))
    connection.release()
    assert answer["stop_reason"] == "max_tokens" and answer["content"][0]["text"] == "You asked:"
    assert answer["usage"]["output_tokens"] == 2


async def test_a_message_stream_ends_with_usage_and_stop(upstream: Upstream) -> None:
    connection = await messages(upstream, stream=True)
    assert await connection.read_head(PATIENCE) == 200
    reader, relay = EventReader(), MessagesRelay()
    while (data := await connection.read_chunk(PATIENCE)) is not None:
        for each in reader.feed(data):
            relay.feed(each)
    connection.release()
    assert relay.done and relay.complete and relay.usage is not None and relay.usage.output == 5


@pytest.mark.parametrize("mode", ["cut", "malformed", "error_event", "no_finish", "empty"])
async def test_a_message_stream_fails_like_a_chat_stream(upstream: Upstream, mode: str) -> None:
    upstream.model.script = Script(mode=mode)
    connection = await messages(upstream, stream=True)
    reader, relay = EventReader(), MessagesRelay()
    with pytest.raises((UpstreamFailure, Malformed, EOFError)):
        assert await connection.read_head(PATIENCE) == 200
        while (data := await connection.read_chunk(PATIENCE)) is not None:
            for each in reader.feed(data):
                relay.feed(each)
        raise EOFError
    connection.release()
    assert not relay.complete


async def test_a_json_answer_has_content_and_usage_within_the_cap(upstream: Upstream) -> None:
    connection = await upstream.chat(max_tokens=2, n=3)
    assert await connection.read_head(PATIENCE) == 200
    answer = json.loads(await connection.read_body(PATIENCE))
    connection.release()
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 3
    assert answer["usage"]["completion_tokens"] == 6
    assert upstream.pool.take_idle() is (connection if upstream.keeps_connections else None)


async def test_a_buffered_answer_is_returned_at_once_and_only_once(upstream: Upstream) -> None:
    for _ in range(2):
        connection = await upstream.chat(max_tokens=2)
        assert await connection.read_head(PATIENCE) == 200
        data = connection.take_buffered_body()
        assert (data is not None) or not upstream.keeps_connections, "a small answer arrives with its head"
        answer = json.loads(data if data is not None else await connection.read_body(PATIENCE))
        assert answer["usage"]["completion_tokens"] == 2 and connection.take_buffered_body() is None
        assert await connection.read_chunk(PATIENCE) is None, "the answer has been read to its end"
        connection.release()


async def test_an_incomplete_answer_is_awaited(upstream: Upstream) -> None:
    connection = await upstream.chat(stream=True)
    assert await connection.read_head(PATIENCE) == 200
    assert connection.take_buffered_body() is None, "the answer is not complete yet"
    assert b"[DONE]" in await connection.read_body(PATIENCE)
    connection.release()


async def test_a_stream_ends_with_finish_usage_and_done(upstream: Upstream) -> None:
    connection = await upstream.chat(stream=True, stream_options={"include_usage": True})
    assert await connection.read_head(PATIENCE) == 200
    reader, events = EventReader(), list[bytes]()
    while (data := await connection.read_chunk(PATIENCE)) is not None:
        events += reader.feed(data)
    connection.release()
    *parts, usage, done = events
    assert (
        done == b"[DONE]" and json.loads(usage)["choices"] == [] and json.loads(usage)["usage"]["completion_tokens"] > 0
    )
    assert json.loads(parts[-1])["choices"][0]["finish_reason"] == "stop"
    text = "".join(json.loads(part)["choices"][0]["delta"].get("content", "") for part in parts)
    assert text.strip() == "You asked: Where is it?"


async def test_embeddings_are_deterministic_and_one_for_each_input(upstream: Upstream) -> None:
    answers = []
    for _ in range(2):
        connection = await upstream.ask(b"/embeddings", {"model": "m", "input": ["a", "b"]})
        assert await connection.read_head(PATIENCE) == 200
        answers.append(json.loads(await connection.read_body(PATIENCE)))
        connection.release()
    assert answers[0] == answers[1] and len(answers[0]["data"]) == 2


@pytest.mark.parametrize(
    ("script", "kind"), [(Script(mode="down"), "cut"), (Script(mode="cut"), "cut"), (Script(mode="stall"), "timeout")]
)
async def test_each_kind_of_failure_is_distinguished(upstream: Upstream, script: Script, kind: str) -> None:
    upstream.model.script = script
    connection = await upstream.chat()
    wait = 0.3 if script.mode == "stall" else PATIENCE
    with pytest.raises(UpstreamFailure) as caught:
        await connection.read_head(wait)
        await connection.read_body(wait)
    connection.release()
    assert caught.value.kind == kind and caught.value.sent
    assert upstream.pool.take_idle() is None


async def test_an_error_answer_keeps_the_connection(upstream: Upstream) -> None:
    upstream.model.script = Script(mode="error", status=503)
    connection = await upstream.chat()
    assert await connection.read_head(PATIENCE) == 503
    assert json.loads(await connection.read_body(PATIENCE))["error"]["code"] == "scripted_error"
    connection.release()
    assert upstream.pool.take_idle() is (connection if upstream.keeps_connections else None)


async def test_the_scripts_after_and_miscount_apply(upstream: Upstream) -> None:
    upstream.model.script = Script(mode="miscount", after=1)
    counts = []
    for _ in range(2):
        connection = await upstream.chat()
        await connection.read_head(PATIENCE)
        counts.append(json.loads(await connection.read_body(PATIENCE))["usage"]["completion_tokens"])
        connection.release()
    assert counts == [5, 22]


async def test_a_refused_connection_is_a_request_not_sent() -> None:
    pool = Http1Pool("http://127.0.0.1:9/v1", asyncio.get_running_loop())
    with pytest.raises(UpstreamFailure) as caught:
        await pool.connect(PATIENCE)
    assert caught.value.kind == "refused" and not caught.value.sent


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"SSH-2.0-x\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "cut"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000, "malformed"),
        (b"", "cut"),
    ],
)
async def test_answers_that_violate_http_fail(raw: bytes, kind: str) -> None:
    async with raw_server(lambda _: raw) as pool:
        connection = await pool.connect(PATIENCE)
        connection.send(b"GET / HTTP/1.1\r\nhost: u\r\n\r\n")
        with pytest.raises(UpstreamFailure) as caught:
            await connection.read_head(PATIENCE)
            await connection.read_body(PATIENCE)
        connection.release()
        assert caught.value.kind == kind


@pytest.mark.parametrize(
    "lines", [b"".join(b"x-%d: %b\r\n" % (n, b"a" * 900) for n in range(2000)), b"x: " + b"a" * 2_000_000]
)
async def test_trailers_are_bounded_while_nobody_reads(lines: bytes) -> None:
    """The gateway reads nothing while it waits for memory or for a slow client."""
    async with raw_server(
        lambda _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n" + lines
    ) as pool:
        connection = await pool.connect(PATIENCE)
        connection.send(b"GET / HTTP/1.1\r\nhost: u\r\n\r\n")
        assert await connection.read_head(PATIENCE) == 200
        await wait_until(lambda: connection.lost)
        with pytest.raises(UpstreamFailure) as caught:
            await connection.read_body(PATIENCE)
        connection.release()
        assert caught.value.kind == "malformed"


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 000 X\r\n", b"HTTP/1.1 099 X\r\n", b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n"]
)
async def test_an_answer_behind_one_that_is_refused_is_not_taken_for_it(head: bytes) -> None:
    second = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with raw_server(lambda _: head + b"content-length: 5\r\n\r\nhello" + second) as pool:
        connection = await pool.connect(PATIENCE)
        connection.send(b"GET / HTTP/1.1\r\nhost: u\r\n\r\n")
        with pytest.raises(UpstreamFailure) as caught:
            await connection.read_head(PATIENCE)
        connection.release()
        assert caught.value.kind == "malformed" and pool.take_idle() is None


async def test_early_hints_and_a_body_that_ends_with_the_connection_are_read() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it"
    async with raw_server(lambda _: raw) as pool:
        connection = await pool.connect(PATIENCE)
        assert connection.transport is not None
        client_socket = connection.transport.get_extra_info("socket")
        assert client_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (
            "networks drop connections that are silent for minutes"
        )
        connection.send(b"GET / HTTP/1.1\r\nhost: u\r\n\r\n")
        assert await connection.read_head(PATIENCE) == 200
        assert await connection.read_body(PATIENCE) == b"all of it"
        connection.release()
        assert pool.take_idle() is None


class raw_server:  # noqa: N801 -- used like a function
    """Answers the first bytes with what `answer` makes of them, and closes."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer

    async def __aenter__(self) -> Http1Pool:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._pool = Http1Pool(
            f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}", asyncio.get_running_loop()
        )
        return self._pool

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._answer(await reader.read(100)))
        await writer.drain()
        writer.close()


def test_the_scripted_answer_quotes_the_matching_passage() -> None:
    passages = (
        "Answer from these.\n\n[1] Leave (a.md, lines 1-2)\nStaff have 30 days. Ask your lead.\n\n[2] Other\nNo.\n"
    )
    messages = [("system", passages), ("user", "How many days do staff have?")]
    assert answer_text(messages) == "According to the passage [1]: Staff have 30 days."
    assert ChatUsage().usage() is None
