"""Whom an upstream connection trusts, what is told where it does not, and what upstream and proxy may not do to us."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.contract.h2_server import H2Server
from tests.contract.ways import Authority, ConnectProxy, http1, proxy, server_context
from tests.integration.gates import until
from tests.integration.gateway_stack import deployment

from groundplan.blueprint.model import Tls
from groundplan.core.errors import Invalid
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.stalls import stall_monitor_of
from groundplan.gateway.upstream import answer_memory, http2
from groundplan.gateway.upstream.connection import Pool, UpstreamConnection, UpstreamFailure
from groundplan.gateway.upstream.http2 import Http2Connection
from groundplan.gateway.upstream.pools import ConnectionSettings, Pools, connection_settings

REQUEST = b"POST /v1/x HTTP/1.1\r\nhost: u\r\ncontent-length: 2\r\n\r\nhi"
PATIENCE = 20.0
"""Seconds for what comes at once, and later where the machine is busy."""


async def echo(request: Request, response: Response) -> None:
    response.send(200, request.body)


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    made = Pools(asyncio.get_running_loop())
    yield made
    made.close()
    await asyncio.sleep(0.05)


async def asked(pool: Pool) -> bytes:
    connection = await pool.connect(PATIENCE)
    try:
        connection.send(REQUEST)
        await connection.read_head(PATIENCE)
        return await connection.read_body(PATIENCE)
    finally:
        connection.release()


async def failure(pool: Pool) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await asked(pool)
    return caught.value


@pytest.mark.parametrize("version", [1, 2])
async def test_a_certificate_of_another_authority_is_refused_before_anything_is_sent(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    async with http1(echo, server_context(theirs)) as port:
        url = f"https://127.0.0.1:{port}/v1"
        refused = await failure(pools.of(ConnectionSettings(url, Tls(ca=f"file:{ours.file}"), version)))
        assert refused.kind == "refused" and not refused.sent
        untrusted = await failure(pools.of(ConnectionSettings(url, None, version)))
        assert untrusted.kind == "refused" and not untrusted.sent
        assert await asked(pools.of(ConnectionSettings(url, Tls(ca=f"file:{theirs.file}"), version))) == b"hi"


@pytest.mark.parametrize("version", [1, 2])
async def test_a_declared_authority_is_trusted_instead_of_the_systems_and_beside_others_of_its_file(
    pools: Pools, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, systems = Authority(tmp_path, "ours"), Authority(tmp_path, "systems")
    monkeypatch.setenv("SSL_CERT_FILE", str(systems.file))
    async with http1(echo, server_context(systems)) as port:
        url = f"https://127.0.0.1:{port}/v1"
        assert await asked(pools.of(ConnectionSettings(url, None, version))) == b"hi"
        refused = await failure(pools.of(ConnectionSettings(url, Tls(ca=f"file:{ours.file}"), version)))
        assert refused.kind == "refused" and not refused.sent
        both = tmp_path / "both.pem"
        both.write_bytes(ours.file.read_bytes() + systems.file.read_bytes())
        assert await asked(pools.of(ConnectionSettings(url, Tls(ca=f"file:{both}"), version))) == b"hi"


@pytest.mark.parametrize("version", [1, 2])
async def test_an_authority_made_by_hand_is_trusted_where_it_is_declared(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    """Python 3.13 asks for extensions that a company's own authority often has not, and curl does not ask for."""
    plain = Authority(tmp_path, "plain", plain=True)
    async with http1(echo, server_context(plain)) as port:
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{plain.file}"), version)
        assert await asked(pools.of(wire)) == b"hi"


@pytest.mark.parametrize("version", [1, 2])
async def test_a_certificate_that_is_over_is_refused_before_anything_is_sent(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority, days=-1)) as port:
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}"), version)
        refused = await failure(pools.of(wire))
        assert refused.kind == "refused" and not refused.sent


async def test_a_certificate_that_was_revoked_is_refused_where_the_list_is_declared(
    pools: Pools, tmp_path: Path
) -> None:
    authority, trusted = Authority(tmp_path), tmp_path / "trusted.pem"
    context, ca = server_context(authority), authority.file.read_bytes()
    trusted.write_bytes(ca + authority.revoked())
    async with http1(echo, context) as port:
        url, tls = f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{trusted}")
        assert await asked(pools.of(ConnectionSettings(url, tls))) == b"hi"
        trusted.write_bytes(ca + authority.revoked(tmp_path / "server.pem"))
        refused = await failure(pools.of(ConnectionSettings(url, tls)))
        assert refused.kind == "refused" and not refused.sent
        with pytest.raises(Invalid, match="http: 1") as caught:
            pools.of(ConnectionSettings(url, tls, 2))  # its library looks at no such list
        assert caught.value.code == "tls_unreadable"


async def test_the_name_in_the_certificate_is_the_hosts_or_the_declared_one(pools: Pools, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority, "model.acme.example")) as port:
        url, ca = f"https://127.0.0.1:{port}/v1", f"file:{authority.file}"
        refused = await failure(pools.of(ConnectionSettings(url, Tls(ca=ca))))
        assert refused.kind == "refused" and not refused.sent and "certificate is not accepted" in str(refused)
        assert not (await failure(pools.of(ConnectionSettings(url, Tls(ca=ca, server_name="other.acme.example"))))).sent
        assert await asked(pools.of(ConnectionSettings(url, Tls(ca=ca, server_name="model.acme.example")))) == b"hi"


async def test_an_upstream_that_misses_our_certificate_was_not_asked_anything(pools: Pools, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context, told = server_context(authority, client_ca=authority.file), threading.Event()

    def serve(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as secure:
            with contextlib.suppress(ssl.SSLError):
                secure.do_handshake()
            told.wait(PATIENCE)  # closing at once would reset the alert away

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(asyncio.to_thread(serve, listener))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        refused = await failure(pools.of(ConnectionSettings(url, Tls(ca=f"file:{authority.file}"))))
        told.set()
        await serving
    assert refused.kind == "refused" and not refused.sent and "CERTIFICATE_REQUIRED" in str(refused)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_renewed_client_certificate_is_taken_up_and_calls_in_flight_go_on(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    authority = Authority(tmp_path)
    context = server_context(authority, client_ca=authority.file)
    cert, key = authority.issue("client")
    seen: list[str] = []
    gate = asyncio.Event()

    async def who(request: Request, response: Response) -> None:
        transport: Any = response._connection.transport
        seen.append(dict(part[0] for part in transport.get_extra_info("peercert")["subject"])["commonName"])
        await gate.wait()
        response.send(200, request.body)

    async with http1(who, context) as port:
        tls = Tls(ca=f"file:{authority.file}", cert=f"file:{cert}", key=f"file:{key}")
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, version)
        before = pools.of(wire)
        running = asyncio.create_task(asked(before))
        async with asyncio.timeout(PATIENCE):
            while not seen:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
        again, secret = authority.issue("renewed")
        cert.write_bytes(again.read_bytes())
        key.write_bytes(secret.read_bytes())
        after = pools.of(wire)
        assert after is not before and pools.of(wire) is after
        gate.set()
        assert await running == b"hi" and before.take_idle() is None
        assert await asked(after) == b"hi" and seen == ["client", "renewed"]


@pytest.mark.parametrize("version", [1, 2])
async def test_whoever_is_answered_by_a_certificate_before_this_one_is_told_of_the_end_too(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    came = asyncio.Event()

    async def stall(request: Request, response: Response) -> None:
        came.set()
        await asyncio.Event().wait()

    async with http1(stall, server_context(authority, client_ca=authority.file)) as port:
        tls = Tls(ca=f"file:{authority.file}", cert=f"file:{cert}", key=f"file:{key}")
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, version)
        running = asyncio.create_task(asked(pools.of(wire)))
        async with asyncio.timeout(PATIENCE):
            await came.wait()
        again, secret = authority.issue("renewed")
        cert.write_bytes(again.read_bytes())
        key.write_bytes(secret.read_bytes())
        pools.of(wire)
        pools.interrupt("this gateway is being stopped")
        with pytest.raises(UpstreamFailure, match="being stopped"):
            async with asyncio.timeout(PATIENCE):
                await running


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("meanwhile", ["another's key", "half a certificate", "no file"])
async def test_files_that_cannot_be_used_any_more_change_nothing(
    pools: Pools, tmp_path: Path, version: int, meanwhile: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificate and key are two files: while one of them is renewed they do not belong together."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    seen: list[str] = []

    async def who(request: Request, response: Response) -> None:
        transport: Any = response._connection.transport
        seen.append(dict(part[0] for part in transport.get_extra_info("peercert")["subject"])["commonName"])
        response.send(200, request.body)

    async with http1(who, server_context(authority, client_ca=authority.file)) as port:
        tls = Tls(ca=f"file:{authority.file}", cert=f"file:{cert}", key=f"file:{key}")
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, version)
        before = pools.of(wire)
        again, secret = authority.issue("renewed")
        if meanwhile == "no file":
            cert.unlink()
        else:
            cert.write_bytes(again.read_bytes()[: None if meanwhile == "another's key" else 100])
        for _ in range(2):
            assert pools.of(wire) is before and await asked(before) == b"hi"
        assert [record.levelname for record in caplog.records if "as before" in record.message] == ["WARNING"]
        cert.write_bytes(again.read_bytes())
        key.write_bytes(secret.read_bytes())
        after = pools.of(wire)
        assert after is not before and await asked(after) == b"hi" and seen == ["client", "client", "renewed"]


@pytest.mark.parametrize("version", [1, 2])
async def test_files_that_cannot_be_used_are_not_read_for_each_call(
    pools: Pools, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the authorities of a system holds up all other calls for as long as twenty of them take."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    tried: list[str] = []

    def noted(*names: object, **named: object) -> ssl.SSLContext:
        tried.append("context")
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    transport = http2._make_transport

    def transported(scheme: str, far: http2.Http2Options) -> Any:
        tried.append("transport")
        return transport(scheme, far)

    monkeypatch.setattr(ssl, "create_default_context", noted)
    monkeypatch.setattr(http2, "_make_transport", transported)
    wire = ConnectionSettings("https://127.0.0.1:9/v1", Tls(cert=f"file:{cert}", key=f"file:{key}"), version)
    before = pools.of(wire)
    again, secret = authority.issue("renewed")
    cert.write_bytes(again.read_bytes())
    tried.clear()
    for _ in range(5):
        assert pools.of(wire) is before
    assert len(tried) == 1, "once, as long as they stay as they are"
    never = ConnectionSettings("https://127.0.0.1:9/v2", Tls(cert=f"file:{cert}", key=f"file:{key}"), version)
    for _ in range(5):
        with pytest.raises(Invalid, match="cannot be"):
            pools.of(never)
    assert len(tried) == 2
    key.write_bytes(secret.read_bytes())
    assert pools.of(wire) is not before, "at once where they are others"
    assert pools.of(never) is not before


async def test_files_that_cannot_be_used_are_told_without_their_content(pools: Pools, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nTOPSECRET\n-----END CERTIFICATE-----\n")
    for tls in (Tls(ca="file:/nowhere.pem"), Tls(ca=f"file:{broken}"), Tls(cert=f"file:{broken}")):
        for version in (1, 2):
            with pytest.raises(Invalid) as caught:
                pools.of(ConnectionSettings("https://127.0.0.1:1/v1", tls, version))
            assert caught.value.code == "tls_unreadable" and "TOPSECRET" not in str(caught.value)
    with pytest.raises(Invalid):
        pools.of(ConnectionSettings("https://127.0.0.1:1/v1", Tls(ca="env:CA")))


@pytest.mark.parametrize("version", [1, 2])
async def test_a_proxy_that_refuses_was_never_passed(pools: Pools, tmp_path: Path, version: int) -> None:
    authority = Authority(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("user:wrong")
    async with http1(echo, server_context(authority)) as port, proxy(ConnectProxy("user:right")) as made:
        tls, address = Tls(ca=f"file:{authority.file}"), f"http://127.0.0.1:{made.port}"
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, version, address, f"file:{secret}")
        refused = await failure(pools.of(wire))
        assert refused.kind == "refused" and not refused.sent
        secret.write_text("user:right")
        assert await asked(pools.of(wire)) == b"hi"
        assert made.asked == [f"127.0.0.1:{port}"] * 2


async def test_who_leaves_while_a_proxy_is_asked_leaves_nothing_to_complain_of(pools: Pools) -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    async with http1(echo) as port, proxy(ConnectProxy()) as made:
        pool = pools.of(ConnectionSettings(f"http://127.0.0.1:{port}/v1", None, 1, f"http://127.0.0.1:{made.port}"))
        for turns in range(12):
            connecting = asyncio.ensure_future(pool.connect(5))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.wait([connecting])
            if not connecting.cancelled():
                connecting.result().abort()
            await asyncio.sleep(0.002)
            gc.collect()
    assert told == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nsurprise", "more than its answer"),
        (b"SSH-2.0\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 20_000, "no end"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\n\r\n", "302"),
        (b"", "closed"),
    ],
)
async def test_a_proxy_that_does_not_keep_to_the_rules_opens_no_way(pools: Pools, answer: bytes, told: str) -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if answer:
            with contextlib.suppress(ConnectionError):
                await reader.read()
        left.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    refused = await failure(pools.of(ConnectionSettings("https://model.acme.example/v1", None, 1, address)))
    assert refused.kind == "refused" and not refused.sent and told in str(refused)
    async with asyncio.timeout(PATIENCE):
        await left.wait()  # nobody keeps the connection that led nowhere
    server.close()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nx: a\rset-cookie: b\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ],
)
async def test_an_answer_that_could_be_read_in_two_ways_or_hides_its_size_fails(pools: Pools, raw: bytes) -> None:
    async with answering(raw) as url:
        failed = await failure(pools.of(ConnectionSettings(url)))
        assert failed.kind == "malformed" and failed.sent


@pytest.mark.parametrize("version", [1, 2])
async def test_an_answer_that_is_larger_than_any_may_be_is_given_up(
    pools: Pools, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority)) as port:
        pool = pools.of(ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}"), version))
        assert await asked(pool) == b"hi"
        monkeypatch.setattr(f"groundplan.gateway.upstream.http{version}.BODY_LIMIT", 1)
        failed = await failure(pool)
        assert failed.kind == "malformed" and failed.sent and "too large" in str(failed)


async def test_bytes_behind_an_answer_become_no_part_of_it_nor_of_the_next(pools: Pools) -> None:
    first = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    async with answering(first + b"HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\nevil") as url:
        pool = pools.of(ConnectionSettings(url))
        connection: UpstreamConnection = await pool.connect(PATIENCE)
        connection.send(REQUEST)
        assert await connection.read_head(PATIENCE) == 200
        assert await connection.read_body(PATIENCE) == b"hi"
        connection.release()
        assert pool.take_idle() is None


async def test_a_body_that_is_sent_in_parts_arrives_whole(pools: Pools, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority)) as port:
        pool = pools.of(ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}")))
        connection = await pool.connect(PATIENCE)
        connection.send(b"POST /v1/x HTTP/1.1\r\nhost: u\r\ncontent-length: 6\r\n\r\nab")
        connection.send(b"cd")
        connection.send(b"ef")
        assert await connection.read_head(PATIENCE) == 200
        assert await connection.read_body(PATIENCE) == b"abcdef"
        connection.release()


@pytest.mark.parametrize("secure", [True, False])
async def test_a_connection_that_ends_after_the_request_went_out_may_have_been_billed(
    pools: Pools, tmp_path: Path, secure: bool
) -> None:
    authority, server = Authority(tmp_path), H2Server(0)
    server.drops = True
    async with server.listening(server_context(authority) if secure else None):
        url = f"http{'s' if secure else ''}://127.0.0.1:{server.port}/v1"
        tls = Tls(ca=f"file:{authority.file}") if secure else None
        failed = await failure(pools.of(ConnectionSettings(url, tls, 2)))
        assert server.requests == 1, "the upstream was asked once, whatever the client library does by itself"
        assert failed.sent and failed.kind == "cut"


@pytest.mark.parametrize(("refuses", "billed"), [("stream", False), ("connection", False), ("begun", True)])
async def test_a_request_that_its_server_did_not_look_at_was_not_billed(
    pools: Pools, refuses: str, billed: bool
) -> None:
    """It says so itself; whoever has begun to answer cannot say so."""
    server = H2Server(0)
    server.refuses = refuses
    async with server.listening(None):
        failed = await failure(pools.of(ConnectionSettings(f"http://127.0.0.1:{server.port}/v1", None, 2)))
        assert (failed.sent, failed.kind) == (billed, "cut" if billed else "refused")


async def test_an_answer_over_http2_that_is_shorter_than_it_says_was_cut(pools: Pools) -> None:
    """A stream that is reset without an error is at its end, to the library: half a sound was told as a whole one."""
    server = H2Server(0)
    server.refuses = "rest"
    async with server.listening(None):
        failed = await failure(pools.of(ConnectionSettings(f"http://127.0.0.1:{server.port}/v1", None, 2)))
        assert (failed.sent, failed.kind) == (True, "cut")


@pytest.mark.parametrize("version", [1, 2])
async def test_whoever_is_sent_elsewhere_goes_nowhere(pools: Pools, tmp_path: Path, version: int) -> None:
    """Else prompts and keys would go to where nobody declared."""
    authority, came = Authority(tmp_path), list[bytes]()

    async def away(request: Request, response: Response) -> None:
        came.append(request.target)
        response.send(307, b"{}", b"location: /v1/elsewhere\r\n")

    async with http1(away, server_context(authority)) as port:
        pool = pools.of(ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}"), version))
        connection = await pool.connect(PATIENCE)
        connection.send(REQUEST)
        assert await connection.read_head(PATIENCE) == 307 and len(came) == 1
        connection.release()


async def test_a_head_that_is_larger_than_any_may_be_is_given_up(pools: Pools, tmp_path: Path) -> None:
    """A server that does not speak HTTP/2 is spoken to over HTTP/1.1, whose heads the library takes as they are."""
    authority = Authority(tmp_path)

    async def long(_: Request, response: Response) -> None:
        response.send(200, b"{}", b"x-long: %b\r\n" % (b"a" * 70_000))

    async with http1(long, server_context(authority)) as port:
        failed = await failure(
            pools.of(ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}"), 2))
        )
        assert (failed.sent, failed.kind) == (True, "malformed")


@pytest.mark.parametrize(("head", "kind"), [("packed", "malformed"), ("long", "cut")])
async def test_a_head_over_http2_that_hides_its_size_or_has_no_end_is_not_read(
    pools: Pools, head: str, kind: str
) -> None:
    server = H2Server(0)
    server.refuses = head
    async with server.listening(None):
        failed = await failure(pools.of(ConnectionSettings(f"http://127.0.0.1:{server.port}/v1", None, 2)))
        assert (failed.sent, failed.kind) == (True, kind)


async def test_a_head_over_http2_of_nearly_16_kib_is_read(pools: Pools) -> None:
    server = H2Server(0)
    server.refuses = "fits"
    async with server.listening(None):
        connection = await pools.of(ConnectionSettings(f"http://127.0.0.1:{server.port}/v1", None, 2)).connect(PATIENCE)
        connection.send(REQUEST)
        assert (await connection.read_head(PATIENCE), await connection.read_body(PATIENCE)) == (200, b"{}")
        connection.release()


async def test_a_connection_that_does_not_come_about_in_time_was_not_billed(pools: Pools) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"  # accepts, and never speaks TLS
        failed = await failure(pools.of(ConnectionSettings(url, None, 2, connect_ms=300)))
        assert failed.kind == "connect_timeout" and not failed.sent


async def test_who_stood_still_while_a_connection_came_about_connects_again(pools: Pools, tmp_path: Path) -> None:
    """To the library over HTTP/2 that was the upstream's silence; nothing was sent by then."""
    authority, loop = Authority(tmp_path), asyncio.get_running_loop()
    stalls = stall_monitor_of(loop)
    stalls.start()
    async with http1(echo, server_context(authority)) as port:
        tls = Tls(ca=f"file:{authority.file}")
        connection = await pools.of(ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, 2, connect_ms=300)).connect(
            PATIENCE
        )
        connection.send(REQUEST)
        status = loop.create_task(connection.read_head(PATIENCE))
        await asyncio.sleep(0)
        time.sleep(0.8)  # noqa: ASYNC251 -- that is what it is about
        assert (await status, await connection.read_body(PATIENCE)) == (200, b"hi")
        connection.release()
    stalls.stop()


async def test_as_long_as_is_declared_is_waited_for_a_proxy_that_speaks_tls(pools: Pools) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        made = deployment("a", 1, connect_ms=300, proxy=f"https://127.0.0.1:{listener.getsockname()[1]}")
        began = time.perf_counter()
        failed = await failure(pools.of(connection_settings(made, "https://127.0.0.1:1/v1")))
        assert (failed.kind, failed.sent) == ("connect_timeout", False) and time.perf_counter() - began < 1.8


async def test_proxies_of_the_environment_are_not_read(
    pools: Pools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority)) as secure, http1(echo) as behind:
        async with H2Server(behind).listening(None) as front:
            ca = Tls(ca=f"file:{authority.file}")
            for host in ("127.0.0.1", "localhost"):
                assert await asked(pools.of(ConnectionSettings(f"https://{host}:{secure}/v1", ca, 2))) == b"hi"
                assert await asked(pools.of(ConnectionSettings(f"http://{host}:{front.port}/v1", None, 2))) == b"hi"


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("version", [1, 2])
async def test_whoever_waits_is_told_when_connections_are_broken_off(
    pools: Pools, version: int, begun: bool, read: bool
) -> None:
    """Also who asks later; and the upstream learns it at once."""
    came, left = asyncio.Event(), asyncio.Event()

    async def stall(request: Request, response: Response) -> None:
        if begun:
            response.write(b"data: {}\n\n", response.start(200, b"content-type: text/event-stream\r\n"))
        came.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def waits(connection: UpstreamConnection) -> None:
        await connection.read_head(PATIENCE)
        while await connection.read_chunk(PATIENCE) is not None:
            pass

    async with http1(stall) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool = pools.of(
            ConnectionSettings(f"http://127.0.0.1:{front.port if version == 2 else behind}/v1", None, version)
        )
        connection = await pool.connect(PATIENCE)
        connection.send(REQUEST)
        waiting = asyncio.create_task(waits(connection)) if read else None
        if begun and not read:
            await connection.read_head(PATIENCE)
        await came.wait()
        pool.interrupt("the deployment is stopped")
        await left.wait()
        with pytest.raises(UpstreamFailure, match="the deployment is stopped") as caught:
            await (waiting or waits(connection))
        connection.release()
        assert caught.value.kind == "cut" and caught.value.sent


async def test_answers_that_nobody_reads_on_keep_no_later_one_from_coming_over_http2(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not read of them fills the window of their connection."""

    async def large(request: Request, response: Response) -> None:
        response.send(200, bytes(3 << 20) if request.target == b"/v1/large" else b"{}")

    monkeypatch.setattr(http2, "STALL_SECONDS", 0.4)
    async with http1(large) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool, slow = (
            pools.of(ConnectionSettings(f"http://127.0.0.1:{front.port}/v1", None, 2)),
            list[UpstreamConnection](),
        )
        for _ in range(3):
            slow.append(await pool.connect(PATIENCE))
            slow[-1].send(REQUEST.replace(b"/v1/x", b"/v1/large"))
            await slow[-1].read_head(PATIENCE)
            assert await slow[-1].read_chunk(PATIENCE)
        await asyncio.sleep(0.8)
        for _ in range(2):
            connection = await pool.connect(PATIENCE)
            connection.send(REQUEST)
            assert (await connection.read_head(PATIENCE), await connection.read_body(PATIENCE)) == (200, b"{}")
            connection.release()
        assert len(front.transports) == 2, "one connection for all that come after them"
        for each in slow:
            each.release()


def _gives_back(share: answer_memory.MemoryShare, _: object) -> None:
    share.release()


async def test_answers_that_wait_for_room_keep_none_that_is_read_from_coming_over_http2(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the room could not give it back, and they would wait for each other; others may not have it."""

    goes_on = asyncio.Event()

    async def large(request: Request, response: Response) -> None:
        response.write(b"a", response.start(200, b""))
        if request.target == b"/v1/x":
            await goes_on.wait()
        response.end(bytes(5 << 20))

    monkeypatch.setattr(http2, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(answer_memory, "CHECK_SECONDS", 0.05)
    async with http1(large) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool, shared = (
            pools.of(ConnectionSettings(f"http://127.0.0.1:{front.port}/v1", None, 2)),
            answer_memory.AnswerMemory(1),
        )
        first, others = answer_memory.MemoryShare(shared), [answer_memory.MemoryShare(shared) for _ in range(3)]
        calls = [await pool.connect(PATIENCE) for _ in (first, *others)]
        for call in calls:
            call.send(REQUEST if call is calls[0] else REQUEST.replace(b"/v1/x", b"/v1/large"))
            await call.read_head(PATIENCE)
        assert shared.try_resize(first, 1 << 20) and len(front.transports) == 1
        waiting = [
            asyncio.create_task(c.read_body(PATIENCE, PATIENCE, s)) for c, s in zip(calls[1:], others, strict=True)
        ]
        await until(lambda: shared.waiting_count == len(others))
        await asyncio.sleep(0.15)
        assert shared.waiting_count == len(others), "nobody is held up"
        goes_on.set()
        assert len(await calls[0].read_body(PATIENCE)) == 1 + (5 << 20)
        first.release()
        for share, task in zip(others, waiting, strict=True):
            task.add_done_callback(partial(_gives_back, share))
        assert [len(data) for data in await asyncio.gather(*waiting)] == [1 + (5 << 20)] * len(others)
        for call in calls:
            call.release()


@pytest.mark.parametrize("version", [1, 2])
async def test_whoever_waits_is_told_where_somebody_else_closes_the_connection(pools: Pools, version: int) -> None:
    """As the kill of a stream does: it is the end of an answer, and nobody's cancellation."""
    came = asyncio.Event()

    async def stall(request: Request, response: Response) -> None:
        response.write(b"data: {}\n\n", response.start(200, b"content-type: text/event-stream\r\n"))
        came.set()
        await asyncio.Event().wait()

    async with http1(stall) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool = pools.of(
            ConnectionSettings(f"http://127.0.0.1:{front.port if version == 2 else behind}/v1", None, version)
        )
        connection = await pool.connect(PATIENCE)
        connection.send(REQUEST)
        assert await connection.read_head(PATIENCE) == 200 and await connection.read_chunk(PATIENCE) is not None
        waiting = asyncio.create_task(connection.read_chunk(PATIENCE))
        await asyncio.sleep(0.05)
        connection.abort()
        with pytest.raises(UpstreamFailure) as caught:
            await waiting
        connection.release()
        assert caught.value.kind == "cut" and caught.value.sent


@pytest.mark.parametrize("version", [1, 2])
async def test_nothing_is_sent_through_a_pool_that_is_closed_and_what_waits_ends(version: int) -> None:
    loop = asyncio.get_running_loop()
    pools, came = Pools(loop), asyncio.Event()

    async def stall(request: Request, response: Response) -> None:
        came.set()
        await asyncio.Event().wait()

    async with http1(stall) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool = pools.of(
            ConnectionSettings(f"http://127.0.0.1:{front.port if version == 2 else behind}/v1", None, version)
        )
        first = await pool.connect(PATIENCE)
        second = await pool.connect(PATIENCE)
        first.send(REQUEST)
        waiting = asyncio.create_task(first.read_head(PATIENCE))
        await came.wait()
        pools.close()
        with pytest.raises(UpstreamFailure) as caught:
            await waiting
        assert caught.value.kind == "cut" and caught.value.sent
        with pytest.raises(UpstreamFailure) as caught:
            second.send(REQUEST)
            await second.read_head(PATIENCE)
        assert not caught.value.sent


def http2_calls() -> int:
    return sum(type(one) is Http2Connection for one in gc.get_objects())


async def test_a_call_over_http2_that_is_done_is_freed_at_once(pools: Pools) -> None:
    async with http1(echo) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool = pools.of(ConnectionSettings(f"http://127.0.0.1:{front.port}/v1", None, 2))
        assert await asked(pool) == b"hi"
        gc.collect()
        before = http2_calls()
        gc.disable()
        try:
            for _ in range(5):
                assert await asked(pool) == b"hi"
            while http2_calls() > before:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_a_call_over_http2_that_is_given_up_is_freed_at_once(pools: Pools) -> None:
    """Before it went out, while it waits for a head, and in the middle of its answer."""

    async def some(request: Request, response: Response) -> None:
        response.write(b"some", response.start(200, b"content-type: text/plain\r\n"))
        await asyncio.Event().wait()

    async def read(connection: UpstreamConnection) -> None:
        connection.send(REQUEST)
        await connection.read_head(PATIENCE)
        while await connection.read_chunk(PATIENCE) is not None:
            pass

    async with http1(some) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool = pools.of(ConnectionSettings(f"http://127.0.0.1:{front.port}/v1", None, 2))
        gc.collect()
        before = http2_calls()
        gc.disable()
        try:
            for wait in (0, 0.001, 0.002, 0.005, 0.05):
                connection = await pool.connect(PATIENCE)
                reading = asyncio.create_task(read(connection))
                await asyncio.sleep(wait)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                connection.release()
                del connection, reading
            while http2_calls() > before:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
        finally:
            gc.enable()
