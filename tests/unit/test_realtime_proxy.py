"""Conversations whose upstream is reached through a proxy: a tunnel, inside which they are as anywhere else."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from msgspec import structs
from tests.contract.ways import Authority, ConnectProxy, proxy, server_context
from tests.unit.call_rig import FixedPolicy, Rig, call_rig
from tests.unit.test_realtime_upstreams import conversing, port_of
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from groundplan.blueprint.model import Tls
from groundplan.gateway.call.pipeline import is_realtime
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.upstream.tunnel import Proxy, TunnelRefused, open_tunnel_socket

CREDENTIALS = "user:pass word"
KEY = {"Authorization": "Bearer assistant"}


def prepared(rig: Rig) -> str:
    """The address of conversations at this worker, which takes them from now on."""
    rig.server.accepts_websocket, rig.gateway.ready = is_realtime, True
    return f"ws://127.0.0.1:{rig.port}/v1/realtime?model=talker"


async def upstream(connection: ServerConnection) -> None:
    await connection.send('{"type":"session.created","session":{}}')
    used = '{"input_tokens":5,"output_tokens":3}'
    async for _ in connection:
        await connection.send('{"type":"response.created","response":{}}')
        await connection.send(f'{{"type":"response.done","response":{{"status":"completed","usage":{used}}}}}')


async def test_a_conversation_goes_through_a_proxy_with_its_password(tmp_path: Path) -> None:
    (key := tmp_path / "proxy.key").write_text(CREDENTIALS)
    async with proxy(ConnectProxy(CREDENTIALS)) as way:
        more = {"proxy": f"http://127.0.0.1:{way.port}", "proxy_key": f"file:{key}"}
        async with conversing(tmp_path / "home", upstream, {}, **more) as (rig, client), asyncio.timeout(30):
            await client.send('{"type":"response.create"}')
            while '"response.done"' not in str(await client.recv()):
                pass
            (only,) = await rig.settlements()
            assert (only.outcome, only.usage.output, len(way.asked)) == ("ok", 3, 1)


async def test_tls_is_with_the_upstream_and_not_with_the_proxy(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = Tls(ca=f"file:{authority.file}", server_name="talker.example")
    context = server_context(authority, "talker.example")
    async with proxy(ConnectProxy()) as way, serve(upstream, "127.0.0.1", 0, ssl=context) as server:
        port, through = port_of(server), f"http://127.0.0.1:{way.port}"
        places = {"talker": {"kind": "realtime", "max_output_tokens": 20, "tls": tls, "proxy": through}}
        async with call_rig(tmp_path / "home", ["talker"], more=places) as rig, asyncio.timeout(30):
            live = rig.gateway.live
            assert isinstance(live, FixedPolicy) and live.catalog is not None
            (talker,) = live.catalog.blueprint.deployments
            secured = structs.replace(talker, url=f"https://127.0.0.1:{port}/v1")
            live.catalog = index(structs.replace(live.catalog.blueprint, deployments=[secured]))
            async with connect(prepared(rig), additional_headers=KEY) as client:
                assert '"session.created"' in str(await client.recv())
        assert way.asked == [f"127.0.0.1:{port}"]


async def test_why_a_proxy_refuses_is_told(tmp_path: Path) -> None:
    async with proxy(ConnectProxy(status=503)) as way:
        places = {"talker": {"kind": "realtime", "max_output_tokens": 20, "proxy": f"http://127.0.0.1:{way.port}"}}
        async with call_rig(tmp_path, ["talker"], more=places) as rig, asyncio.timeout(30):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(prepared(rig), additional_headers=KEY):
                    pass
            assert refused.value.response.status_code == 503
            assert b"the proxy opened no way: it answered 503" in (refused.value.response.body or b"")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", "it answered 407"),
        (b"SSH-2.0-x\r\n\r\n", "it does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "it sent more than its answer"),
        (b"HTTP/1.1 200 OK\r\n", "it closed the connection"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 20_000, "its answer has no end"),
    ],
)
async def test_a_proxy_that_violates_the_protocol_opens_no_socket(answer: bytes, reason: str) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(TunnelRefused, match=reason):
        await open_tunnel_socket(asyncio.get_running_loop(), Proxy("127.0.0.1", port), ("far.example", 443))
    server.close()


async def test_an_opened_tunnel_is_a_socket_to_the_upstream() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        await writer.drain()
        writer.close()

    far, loop = await asyncio.start_server(echo, "127.0.0.1", 0), asyncio.get_running_loop()
    address: tuple[str, int] = far.sockets[0].getsockname()
    async with proxy(ConnectProxy()) as way:
        found = await open_tunnel_socket(loop, Proxy("127.0.0.1", way.port), address)
        assert isinstance(found, socket.socket)
        await loop.sock_sendall(found, b"hello")
        assert await loop.sock_recv(found, 100) == b"hello"
        found.close()
    far.close()
