"""A head that a client sends again is not parsed again, and means what the parser would have found."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.closing import close

from groundplan.core.errors import Unauthenticated
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.call import identify
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.identify import key_digest
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.head_cache import MAX_MISSES, HeadCache
from groundplan.gateway.http.server import Connection, Limits, Request, Response, Server
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.surfaces.chat.surface import CHAT

HEADS = [
    b"POST /v1 HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n",
    b"POST /v1 HTTP/1.1\r\nHost: x\r\nContent-Length:%d\r\nAuthorization: Bearer gp_a\r\n\r\n",
    b"POST /v1?a=b HTTP/1.1\r\nhost: x\r\nx-a: content-length: 5\r\ncontent-length: \t%d\r\nconnection: close\r\n\r\n",
    b"GET /v1 HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\nx-b: 1\r\nx-b: 2\r\n\r\n",
]


class Parsed:
    """One request by the parser alone."""

    def __init__(self) -> None:
        self.target, self.body, self.ended = b"", b"", 0
        self.headers: dict[bytes, bytes] = {}

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended += 1


def parsed(data: bytes) -> tuple[Parsed, Request | None]:
    """What the parser finds; the request, where it is one and nothing else."""
    found = Parsed()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        return found, None
    if found.ended != 1:
        return found, None
    request = Request(1.0)
    request.method, request.target, request.headers = parser.get_method(), found.target, found.headers
    request.body, request.keep_alive = found.body, parser.should_keep_alive()
    return found, request


def facts(request: Request) -> tuple[object, ...]:
    return request.method, request.target, request.headers, request.body, request.keep_alive


@given(st.sampled_from(HEADS), st.binary(max_size=120), st.binary(max_size=1200))
def test_the_same_head_with_another_body_is_a_cache_hit(head: bytes, first: bytes, second: bytes) -> None:
    known = HeadCache()
    data = head % len(first) + first
    known.remember(data, parsed(data)[1])
    again = known.match(head % len(second) + second, 2.0)
    _, expected = parsed(head % len(second) + second)
    assert again is not None and expected is not None and facts(again) == facts(expected)
    assert again.started == 2.0


@given(st.sampled_from(HEADS), st.data())
def test_a_cached_head_always_equals_the_parsers_result(head: bytes, data: st.DataObject) -> None:
    """Bytes changed, put in and left out anywhere, in the head that is learned and in the one that comes."""
    known = HeadCache()
    for _ in range(2):
        sent = bytearray(head % 3 + b"abc" + data.draw(st.sampled_from([b"", b"", b"x", head % 0])))
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(sent)))
            sent[at : at + data.draw(st.integers(0, 3))] = data.draw(
                st.sampled_from([b"", b"0", b"+", b"-1", b" ", b"\n", b"\r\n", b"\r\ncontent-length: 9", b":", b"_"])
            )
        found = known.match(bytes(sent), 0.0)
        _, request = parsed(bytes(sent))
        if found is not None:
            assert request is not None and facts(found) == facts(request)
        known.remember(bytes(sent), request)


@pytest.mark.parametrize(
    "lines",
    [
        b"content-length: 3\r\nexpect: 100-continue\r\n", b"content-length: 3\r\nupgrade: h2c\r\n",
        b"transfer-encoding: chunked\r\n", b"x: 1\r\n",
    ],
)  # fmt: skip
def test_heads_that_need_more_than_their_body_are_parsed(lines: bytes) -> None:
    known, request = HeadCache(), Request(0.0)
    data = b"POST / HTTP/1.1\r\nhost: x\r\n" + lines + b"\r\nabc"
    request.headers = {line.partition(b":")[0]: line.partition(b": ")[2] for line in lines.split(b"\r\n") if line}
    known.remember(data, request)
    assert known.match(data, 0.0) is None


@pytest.mark.parametrize("digits", [b"+3", b"-3", b"3_0", b"3 ", b" 3", b"", b"0x3", b"\xb3", b"000000000003"])
def test_a_content_length_consists_of_digits_only(digits: bytes) -> None:
    known, data = HeadCache(), HEADS[1] % 3 + b"abc"
    known.remember(data, parsed(data)[1])
    assert known.match(data, 0.0) is not None
    assert known.match(data.replace(b"Content-Length:3", b"Content-Length:" + digits), 0.0) is None


def test_no_body_is_kept_with_its_head() -> None:
    """A connection that is kept and asks nothing holds no more than its head."""
    known, data = HeadCache(), HEADS[1] % 3 + b"abc"
    known.remember(data, parsed(data)[1])
    assert known._request is not None and known._request.body == b""
    assert len(known._prefix) + len(known._suffix) < len(data) - 3


def test_the_api_key_of_a_cached_head_is_hashed_once_and_looked_up_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[dict[bytes, bytes]] = []

    def digest_of(headers: dict[bytes, bytes]) -> bytes:
        hashed.append(headers)
        return key_digest(headers)

    monkeypatch.setattr(identify, "key_digest", digest_of)
    known, head = HeadCache(), HEADS[1] % 2 + b"{}"
    known.remember(head, parsed(head)[1])
    key = KeyEntry("k", "w", "", False, False, None)
    policy = Policy(1, {hashlib.sha256(b"gp_a").digest(): key}, {}, frozenset(), frozenset())

    def asked(data: bytes, policy: Policy) -> KeyEntry | None:
        request = known.match(data, 1.0) or parsed(data)[1]
        assert request is not None
        exchange = Exchange(new_id_bytes(), request, CollectedResponse(), CHAT)
        identify.identify(exchange, policy, 0.0)
        return exchange.key

    assert [asked(HEADS[1] % size + b"x" * size, policy) for size in (2, 2, 7)] == [key] * 3 and len(hashed) == 1
    with pytest.raises(Unauthenticated, match="not known"):  # a key of somebody else beside it
        asked(head.replace(b"gp_a", b"gp_b"), policy)
    with pytest.raises(Unauthenticated, match="revoked"):
        asked(head, replace(policy, keys={digest: replace(each, revoked=True) for digest, each in policy.keys.items()}))
    with pytest.raises(Unauthenticated, match="not known"):
        asked(head, replace(policy, keys={}))
    assert len(hashed) == 2


def test_http_1_0_is_always_parsed_and_unrepeated_heads_are_evicted() -> None:
    known = HeadCache()
    old = b"POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx"
    known.remember(old, parsed(old)[1])
    assert known.match(old, 0.0) is None
    for number in range(MAX_MISSES):
        data = b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx" % number
        known.remember(data, parsed(data)[1])
    assert known.match(data, 0.0) is None


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[tuple[Server, int]]:
    async def handle(request: Request, response: Response) -> None:
        await asyncio.sleep(0.1 if request.body == b"slow" else 0)
        response.send(200, request.headers.get(b"x-name", b"") + b"|" + request.body)

    loop = asyncio.get_running_loop()
    server = Server(handle, refusal_body, loop, limits)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    yield server, listener.sockets[0].getsockname()[1]
    await close(listener, server, 0.1)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        self.writer.write(data)
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), await self.reader.readexactly(length)


def post(name: bytes, body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nX-Name: %b\r\nContent-Length: %d\r\n\r\n%b" % (name, len(body), body)


async def test_a_connection_is_answered_correctly_in_any_order_of_requests() -> None:
    async with serving(Limits(body_bytes=10_000, unknown_caller_body_bytes=500)) as (server, port):
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        for name, body in ((b"a", b"1"), (b"a", b"22"), (b"b", b"333"), (b"b", b""), (b"b", b"x" * 9000), (b"b", b"y")):
            assert await client.ask(post(name, body)) == (200, name + b"|" + body)
        (connection,) = server.connections
        assert isinstance(connection, Connection) and connection._head_cache.match(post(b"b", b"z"), 0.0) is not None
        client.writer.write(post(b"b", b"one") + post(b"b", b"two")[:-1])
        assert await client.ask(b"") == (200, b"b|one")
        assert await client.ask(b"o") == (200, b"b|two")
        assert await client.ask(post(b"b", b"end")) == (200, b"b|end")
        assert server.held_bytes == 0, "nothing is held of what was answered"
        status, body = await client.ask(post(b"b", b"x" * 20_000))
        assert status == 413 and b"too" in body
        client.writer.close()


async def test_a_cached_head_is_not_used_while_another_request_is_in_progress() -> None:
    """It may be a part of the body that is coming, and is answered in its turn."""
    async with serving(Limits()) as (_, port):
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        assert await client.ask(post(b"a", b"1")) == (200, b"a|1")
        client.writer.write(post(b"a", b"slow"))
        await asyncio.sleep(0.02)
        client.writer.write(post(b"a", b"quick"))
        assert [await client.ask(b"") for _ in range(2)] == [(200, b"a|slow"), (200, b"a|quick")]
        inner = post(b"a", b"inner")
        client.writer.write(post(b"a", b"slow"))
        await asyncio.sleep(0.02)
        client.writer.write(post(b"a", inner)[: -len(inner)])
        assert await client.ask(b"") == (200, b"a|slow")
        assert await client.ask(inner) == (200, b"a|" + inner)
        client.writer.close()


async def test_bodies_of_known_heads_count_as_held() -> None:
    """What all of them may hold together is refused as ever."""
    async with serving(Limits(total_body_bytes=100)) as (server, port):
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        assert await client.ask(post(b"a", b"1")) == (200, b"a|1")
        server.held_bytes += 99
        status, _ = await client.ask(post(b"a", b"22"))
        assert status == 503
        server.held_bytes -= 99
        client.writer.close()
