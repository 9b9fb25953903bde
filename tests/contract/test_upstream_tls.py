"""Which upstreams a connection trusts, how failures are reported, and what upstreams and proxies cannot do."""

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
from tests.integration.gates import wait_until
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
"""Timeout in seconds of steps that take no time, except on a busy machine."""


async def echo(request: Request, response: Response) -> None:
    response.send(200, request.body)


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    made = Pools(asyncio.get_running_loop())
    yield made
    made.close()
    await asyncio.sleep(0.05)


async def response_body(pool: Pool) -> bytes:
    connection = await pool.connect(PATIENCE)
    try:
        connection.send(REQUEST)
        await connection.read_head(PATIENCE)
        return await connection.read_body(PATIENCE)
    finally:
        connection.release()


async def failure(pool: Pool) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await response_body(pool)
    return caught.value


@pytest.mark.parametrize("version", [1, 2])
async def test_a_certificate_of_another_authority_is_refused_before_anything_is_sent(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    declared, other = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    async with http1(echo, server_context(other)) as port:
        url = f"https://127.0.0.1:{port}/v1"
        refused = await failure(pools.of(ConnectionSettings(url, Tls(ca=f"file:{declared.file}"), version)))
        assert refused.kind == "refused" and not refused.sent
        untrusted = await failure(pools.of(ConnectionSettings(url, None, version)))
        assert untrusted.kind == "refused" and not untrusted.sent
        assert await response_body(pools.of(ConnectionSettings(url, Tls(ca=f"file:{other.file}"), version))) == b"hi"


@pytest.mark.parametrize("version", [1, 2])
async def test_a_declared_authority_replaces_those_of_the_system_and_a_file_may_have_several(
    pools: Pools, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared, systems = Authority(tmp_path, "ours"), Authority(tmp_path, "systems")
    monkeypatch.setenv("SSL_CERT_FILE", str(systems.file))
    async with http1(echo, server_context(systems)) as port:
        url = f"https://127.0.0.1:{port}/v1"
        assert await response_body(pools.of(ConnectionSettings(url, None, version))) == b"hi"
        refused = await failure(pools.of(ConnectionSettings(url, Tls(ca=f"file:{declared.file}"), version)))
        assert refused.kind == "refused" and not refused.sent
        both_authorities = tmp_path / "both.pem"
        both_authorities.write_bytes(declared.file.read_bytes() + systems.file.read_bytes())
        assert (
            await response_body(pools.of(ConnectionSettings(url, Tls(ca=f"file:{both_authorities}"), version))) == b"hi"
        )


@pytest.mark.parametrize("version", [1, 2])
async def test_a_declared_authority_without_optional_extensions_is_trusted(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    """Python 3.13 requires extensions that a company's own authority often lacks, and that curl does not require."""
    plain = Authority(tmp_path, "plain", plain=True)
    async with http1(echo, server_context(plain)) as port:
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{plain.file}"), version)
        assert await response_body(pools.of(wire)) == b"hi"


@pytest.mark.parametrize("version", [1, 2])
async def test_an_expired_certificate_is_refused_before_anything_is_sent(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority, days=-1)) as port:
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}"), version)
        refused = await failure(pools.of(wire))
        assert refused.kind == "refused" and not refused.sent


async def test_a_revoked_certificate_is_refused_if_its_list_is_declared(pools: Pools, tmp_path: Path) -> None:
    authority, trusted = Authority(tmp_path), tmp_path / "trusted.pem"
    context, ca = server_context(authority), authority.file.read_bytes()
    trusted.write_bytes(ca + authority.revocation_list())
    async with http1(echo, context) as port:
        url, tls = f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{trusted}")
        assert await response_body(pools.of(ConnectionSettings(url, tls))) == b"hi"
        trusted.write_bytes(ca + authority.revocation_list(tmp_path / "server.pem"))
        refused = await failure(pools.of(ConnectionSettings(url, tls)))
        assert refused.kind == "refused" and not refused.sent
        with pytest.raises(Invalid, match="http: 1") as caught:
            pools.of(ConnectionSettings(url, tls, 2))  # the HTTP/2 library ignores revocation lists
        assert caught.value.code == "tls_unreadable"


async def test_the_certificate_must_name_the_host_or_the_declared_server_name(pools: Pools, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority, "model.acme.example")) as port:
        url, ca = f"https://127.0.0.1:{port}/v1", f"file:{authority.file}"
        refused = await failure(pools.of(ConnectionSettings(url, Tls(ca=ca))))
        assert refused.kind == "refused" and not refused.sent and "certificate is not accepted" in str(refused)
        assert not (await failure(pools.of(ConnectionSettings(url, Tls(ca=ca, server_name="other.acme.example"))))).sent
        assert (
            await response_body(pools.of(ConnectionSettings(url, Tls(ca=ca, server_name="model.acme.example"))))
            == b"hi"
        )


async def test_an_upstream_that_requires_a_client_certificate_gets_no_request_without_one(
    pools: Pools, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context, alert_read = server_context(authority, client_ca=authority.file), threading.Event()

    def serve(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as secure:
            with contextlib.suppress(ssl.SSLError):
                secure.do_handshake()
            alert_read.wait(PATIENCE)  # closing at once would discard the alert

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(asyncio.to_thread(serve, listener))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        refused = await failure(pools.of(ConnectionSettings(url, Tls(ca=f"file:{authority.file}"))))
        alert_read.set()
        await serving
    assert refused.kind == "refused" and not refused.sent and "CERTIFICATE_REQUIRED" in str(refused)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_renewed_client_certificate_is_used_and_calls_in_flight_go_on(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    authority = Authority(tmp_path)
    context = server_context(authority, client_ca=authority.file)
    cert, key = authority.issue("client")
    client_names: list[str] = []
    may_answer = asyncio.Event()

    async def record_client(request: Request, response: Response) -> None:
        transport: Any = response._connection.transport
        client_names.append(dict(part[0] for part in transport.get_extra_info("peercert")["subject"])["commonName"])
        await may_answer.wait()
        response.send(200, request.body)

    async with http1(record_client, context) as port:
        tls = Tls(ca=f"file:{authority.file}", cert=f"file:{cert}", key=f"file:{key}")
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, version)
        before = pools.of(wire)
        running = asyncio.create_task(response_body(before))
        async with asyncio.timeout(PATIENCE):
            while not client_names:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
        new_cert, new_key = authority.issue("renewed")
        cert.write_bytes(new_cert.read_bytes())
        key.write_bytes(new_key.read_bytes())
        after = pools.of(wire)
        assert after is not before and pools.of(wire) is after
        may_answer.set()
        assert await running == b"hi" and before.take_idle() is None
        assert await response_body(after) == b"hi" and client_names == ["client", "renewed"]


@pytest.mark.parametrize("version", [1, 2])
async def test_an_interruption_also_reaches_calls_that_use_the_previous_certificate(
    pools: Pools, tmp_path: Path, version: int
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    request_received = asyncio.Event()

    async def stall(request: Request, response: Response) -> None:
        request_received.set()
        await asyncio.Event().wait()

    async with http1(stall, server_context(authority, client_ca=authority.file)) as port:
        tls = Tls(ca=f"file:{authority.file}", cert=f"file:{cert}", key=f"file:{key}")
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, version)
        running = asyncio.create_task(response_body(pools.of(wire)))
        async with asyncio.timeout(PATIENCE):
            await request_received.wait()
        new_cert, new_key = authority.issue("renewed")
        cert.write_bytes(new_cert.read_bytes())
        key.write_bytes(new_key.read_bytes())
        pools.of(wire)
        pools.interrupt("this gateway is being stopped")
        with pytest.raises(UpstreamFailure, match="being stopped"):
            async with asyncio.timeout(PATIENCE):
                await running


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("meanwhile", ["another's key", "half a certificate", "no file"])
async def test_certificate_files_that_became_unusable_change_nothing(
    pools: Pools, tmp_path: Path, version: int, meanwhile: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificate and key are two files, which do not match while only one of them is renewed."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    client_names: list[str] = []

    async def record_client(request: Request, response: Response) -> None:
        transport: Any = response._connection.transport
        client_names.append(dict(part[0] for part in transport.get_extra_info("peercert")["subject"])["commonName"])
        response.send(200, request.body)

    async with http1(record_client, server_context(authority, client_ca=authority.file)) as port:
        tls = Tls(ca=f"file:{authority.file}", cert=f"file:{cert}", key=f"file:{key}")
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, version)
        before = pools.of(wire)
        new_cert, new_key = authority.issue("renewed")
        if meanwhile == "no file":
            cert.unlink()
        else:
            cert.write_bytes(new_cert.read_bytes()[: None if meanwhile == "another's key" else 100])
        for _ in range(2):
            assert pools.of(wire) is before and await response_body(before) == b"hi"
        assert [record.levelname for record in caplog.records if "as before" in record.message] == ["WARNING"]
        cert.write_bytes(new_cert.read_bytes())
        key.write_bytes(new_key.read_bytes())
        after = pools.of(wire)
        assert (
            after is not before
            and await response_body(after) == b"hi"
            and client_names == ["client", "client", "renewed"]
        )


@pytest.mark.parametrize("version", [1, 2])
async def test_unusable_certificate_files_are_not_read_for_each_call(
    pools: Pools, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the system's authorities blocks all other calls for as long as twenty calls take."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    attempts_to_load: list[str] = []

    def record_context(*names: object, **named: object) -> ssl.SSLContext:
        attempts_to_load.append("context")
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    transport = http2._make_transport

    def record_transport(scheme: str, far: http2.Http2Options) -> Any:
        attempts_to_load.append("transport")
        return transport(scheme, far)

    monkeypatch.setattr(ssl, "create_default_context", record_context)
    monkeypatch.setattr(http2, "_make_transport", record_transport)
    wire = ConnectionSettings("https://127.0.0.1:9/v1", Tls(cert=f"file:{cert}", key=f"file:{key}"), version)
    before = pools.of(wire)
    new_cert, new_key = authority.issue("renewed")
    cert.write_bytes(new_cert.read_bytes())
    attempts_to_load.clear()
    for _ in range(5):
        assert pools.of(wire) is before
    assert len(attempts_to_load) == 1, "once, as long as the files do not change"
    unusable = ConnectionSettings("https://127.0.0.1:9/v2", Tls(cert=f"file:{cert}", key=f"file:{key}"), version)
    for _ in range(5):
        with pytest.raises(Invalid, match="cannot be"):
            pools.of(unusable)
    assert len(attempts_to_load) == 2
    key.write_bytes(new_key.read_bytes())
    assert pools.of(wire) is not before, "at once when the files have changed"
    assert pools.of(unusable) is not before


async def test_unusable_certificate_files_are_reported_without_their_content(pools: Pools, tmp_path: Path) -> None:
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
async def test_a_request_is_not_sent_if_the_proxy_refuses(pools: Pools, tmp_path: Path, version: int) -> None:
    authority = Authority(tmp_path)
    credentials = tmp_path / "secret"
    credentials.write_text("user:wrong")
    async with http1(echo, server_context(authority)) as port, proxy(ConnectProxy("user:right")) as connect_proxy:
        tls, address = Tls(ca=f"file:{authority.file}"), f"http://127.0.0.1:{connect_proxy.port}"
        wire = ConnectionSettings(f"https://127.0.0.1:{port}/v1", tls, version, address, f"file:{credentials}")
        refused = await failure(pools.of(wire))
        assert refused.kind == "refused" and not refused.sent
        credentials.write_text("user:right")
        assert await response_body(pools.of(wire)) == b"hi"
        assert connect_proxy.asked == [f"127.0.0.1:{port}"] * 2


async def test_cancelling_a_connection_through_a_proxy_leaves_no_unhandled_exception(pools: Pools) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    async with http1(echo) as port, proxy(ConnectProxy()) as connect_proxy:
        pool = pools.of(
            ConnectionSettings(f"http://127.0.0.1:{port}/v1", None, 1, f"http://127.0.0.1:{connect_proxy.port}")
        )
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
    assert reported == []


@pytest.mark.parametrize(
    ("answer", "reported"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nsurprise", "more than its answer"),
        (b"SSH-2.0\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 20_000, "no end"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\n\r\n", "302"),
        (b"", "closed"),
    ],
)
async def test_a_proxy_that_violates_the_protocol_gives_no_connection(
    pools: Pools, answer: bytes, reported: str
) -> None:
    request_ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if answer:
            with contextlib.suppress(ConnectionError):
                await reader.read()
        request_ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    refused = await failure(pools.of(ConnectionSettings("https://model.acme.example/v1", None, 1, address)))
    assert refused.kind == "refused" and not refused.sent and reported in str(refused)
    async with asyncio.timeout(PATIENCE):
        await request_ended.wait()  # the connection is not kept
    server.close()


@asynccontextmanager
async def serve_answer(answer: bytes) -> AsyncIterator[str]:
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
async def test_an_answer_with_ambiguous_framing_or_hidden_size_fails(pools: Pools, raw: bytes) -> None:
    async with serve_answer(raw) as url:
        failed = await failure(pools.of(ConnectionSettings(url)))
        assert failed.kind == "malformed" and failed.sent


@pytest.mark.parametrize("version", [1, 2])
async def test_an_answer_beyond_the_maximum_size_fails(
    pools: Pools, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority)) as port:
        pool = pools.of(ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}"), version))
        assert await response_body(pool) == b"hi"
        monkeypatch.setattr(f"groundplan.gateway.upstream.http{version}.BODY_LIMIT", 1)
        failed = await failure(pool)
        assert failed.kind == "malformed" and failed.sent and "too large" in str(failed)


async def test_bytes_after_an_answer_are_part_of_neither_it_nor_the_next(pools: Pools) -> None:
    first = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    async with serve_answer(first + b"HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\nevil") as url:
        pool = pools.of(ConnectionSettings(url))
        connection: UpstreamConnection = await pool.connect(PATIENCE)
        connection.send(REQUEST)
        assert await connection.read_head(PATIENCE) == 200
        assert await connection.read_body(PATIENCE) == b"hi"
        connection.release()
        assert pool.take_idle() is None


async def test_a_body_that_is_sent_in_parts_arrives_complete(pools: Pools, tmp_path: Path) -> None:
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
async def test_a_connection_that_ends_after_the_request_was_sent_may_have_been_billed(
    pools: Pools, tmp_path: Path, secure: bool
) -> None:
    authority, server = Authority(tmp_path), H2Server(0)
    server.drops_connection = True
    async with server.listening(server_context(authority) if secure else None):
        url = f"http{'s' if secure else ''}://127.0.0.1:{server.port}/v1"
        tls = Tls(ca=f"file:{authority.file}") if secure else None
        failed = await failure(pools.of(ConnectionSettings(url, tls, 2)))
        assert server.requests == 1, "the upstream was asked once, whatever the client library does by itself"
        assert failed.sent and failed.kind == "cut"


@pytest.mark.parametrize(("refuses", "billed"), [("stream", False), ("connection", False), ("begun", True)])
async def test_a_request_that_the_server_refused_unprocessed_was_not_billed(
    pools: Pools, refuses: str, billed: bool
) -> None:
    """The server says so itself; after the beginning of an answer it cannot."""
    server = H2Server(0)
    server.refusal = refuses
    async with server.listening(None):
        failed = await failure(pools.of(ConnectionSettings(f"http://127.0.0.1:{server.port}/v1", None, 2)))
        assert (failed.sent, failed.kind) == (billed, "cut" if billed else "refused")


async def test_an_http2_answer_shorter_than_its_content_length_was_cut(pools: Pools) -> None:
    """The library takes a reset without an error for the end: half an audio file passed for a complete one."""
    server = H2Server(0)
    server.refusal = "rest"
    async with server.listening(None):
        failed = await failure(pools.of(ConnectionSettings(f"http://127.0.0.1:{server.port}/v1", None, 2)))
        assert (failed.sent, failed.kind) == (True, "cut")


@pytest.mark.parametrize("version", [1, 2])
async def test_redirects_are_not_followed(pools: Pools, tmp_path: Path, version: int) -> None:
    """Otherwise prompts and keys would be sent to an address that was not declared."""
    authority, targets = Authority(tmp_path), list[bytes]()

    async def away(request: Request, response: Response) -> None:
        targets.append(request.target)
        response.send(307, b"{}", b"location: /v1/elsewhere\r\n")

    async with http1(away, server_context(authority)) as port:
        pool = pools.of(ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}"), version))
        connection = await pool.connect(PATIENCE)
        connection.send(REQUEST)
        assert await connection.read_head(PATIENCE) == 307 and len(targets) == 1
        connection.release()


async def test_a_head_beyond_the_maximum_size_fails(pools: Pools, tmp_path: Path) -> None:
    """A server without HTTP/2 is used over HTTP/1.1, for whose heads the library has no limit."""
    authority = Authority(tmp_path)

    async def long(_: Request, response: Response) -> None:
        response.send(200, b"{}", b"x-long: %b\r\n" % (b"a" * 70_000))

    async with http1(long, server_context(authority)) as port:
        failed = await failure(
            pools.of(ConnectionSettings(f"https://127.0.0.1:{port}/v1", Tls(ca=f"file:{authority.file}"), 2))
        )
        assert (failed.sent, failed.kind) == (True, "malformed")


@pytest.mark.parametrize(("head", "kind"), [("packed", "malformed"), ("long", "cut")])
async def test_a_compressed_or_too_large_http2_head_fails(pools: Pools, head: str, kind: str) -> None:
    server = H2Server(0)
    server.refusal = head
    async with server.listening(None):
        failed = await failure(pools.of(ConnectionSettings(f"http://127.0.0.1:{server.port}/v1", None, 2)))
        assert (failed.sent, failed.kind) == (True, kind)


async def test_an_http2_head_of_nearly_16_kib_is_read(pools: Pools) -> None:
    server = H2Server(0)
    server.refusal = "fits"
    async with server.listening(None):
        connection = await pools.of(ConnectionSettings(f"http://127.0.0.1:{server.port}/v1", None, 2)).connect(PATIENCE)
        connection.send(REQUEST)
        assert (await connection.read_head(PATIENCE), await connection.read_body(PATIENCE)) == (200, b"{}")
        connection.release()


async def test_a_connection_that_timed_out_while_connecting_was_not_billed(pools: Pools) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"  # accepts, and never speaks TLS
        failed = await failure(pools.of(ConnectionSettings(url, None, 2, connect_ms=300)))
        assert failed.kind == "connect_timeout" and not failed.sent


async def test_a_process_that_was_stopped_while_connecting_connects_again(pools: Pools, tmp_path: Path) -> None:
    """The HTTP/2 library takes it for a silent upstream; nothing had been sent by then."""
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


async def test_the_declared_timeout_applies_to_the_tls_handshake_with_a_proxy(pools: Pools) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        declared_deployment = deployment("a", 1, connect_ms=300, proxy=f"https://127.0.0.1:{listener.getsockname()[1]}")
        began = time.perf_counter()
        failed = await failure(pools.of(connection_settings(declared_deployment, "https://127.0.0.1:1/v1")))
        assert (failed.kind, failed.sent) == ("connect_timeout", False) and time.perf_counter() - began < 1.8


async def test_proxies_of_the_environment_are_not_used(
    pools: Pools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    authority = Authority(tmp_path)
    async with http1(echo, server_context(authority)) as secure, http1(echo) as behind:
        async with H2Server(behind).listening(None) as front:
            ca = Tls(ca=f"file:{authority.file}")
            for host in ("127.0.0.1", "localhost"):
                assert await response_body(pools.of(ConnectionSettings(f"https://{host}:{secure}/v1", ca, 2))) == b"hi"
                assert (
                    await response_body(pools.of(ConnectionSettings(f"http://{host}:{front.port}/v1", None, 2)))
                    == b"hi"
                )


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("version", [1, 2])
async def test_an_interruption_ends_calls_that_wait(pools: Pools, version: int, begun: bool, read: bool) -> None:
    """Also if it reads only later; and the upstream's connection ends at once."""
    request_received, request_ended = asyncio.Event(), asyncio.Event()

    async def stall(request: Request, response: Response) -> None:
        if begun:
            response.write(b"data: {}\n\n", response.start(200, b"content-type: text/event-stream\r\n"))
        request_received.set()
        try:
            await asyncio.Event().wait()
        finally:
            request_ended.set()

    async def read_answer(connection: UpstreamConnection) -> None:
        await connection.read_head(PATIENCE)
        while await connection.read_chunk(PATIENCE) is not None:
            pass

    async with http1(stall) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool = pools.of(
            ConnectionSettings(f"http://127.0.0.1:{front.port if version == 2 else behind}/v1", None, version)
        )
        connection = await pool.connect(PATIENCE)
        connection.send(REQUEST)
        waiting = asyncio.create_task(read_answer(connection)) if read else None
        if begun and not read:
            await connection.read_head(PATIENCE)
        await request_received.wait()
        pool.interrupt("the deployment is stopped")
        await request_ended.wait()
        with pytest.raises(UpstreamFailure, match="the deployment is stopped") as caught:
            await (waiting or read_answer(connection))
        connection.release()
        assert caught.value.kind == "cut" and caught.value.sent


async def test_unread_http2_answers_do_not_block_later_ones(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their unread data fills the flow-control window of the connection."""

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


def _release_share(share: answer_memory.MemoryShare, _: object) -> None:
    share.release()


async def test_http2_answers_that_wait_for_memory_do_not_block_those_that_are_read(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the call that has the memory could not finish and release it: a deadlock."""

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
        await wait_until(lambda: shared.waiting_count == len(others))
        await asyncio.sleep(0.15)
        assert shared.waiting_count == len(others), "nobody is held up"
        goes_on.set()
        assert len(await calls[0].read_body(PATIENCE)) == 1 + (5 << 20)
        first.release()
        for share, task in zip(others, waiting, strict=True):
            task.add_done_callback(partial(_release_share, share))
        assert [len(data) for data in await asyncio.gather(*waiting)] == [1 + (5 << 20)] * len(others)
        for call in calls:
            call.release()


@pytest.mark.parametrize("version", [1, 2])
async def test_aborting_a_connection_ends_the_read_that_waits(pools: Pools, version: int) -> None:
    """As the kill of a stream does: the read fails with a cut answer, and is not cancelled."""
    request_received = asyncio.Event()

    async def stall(request: Request, response: Response) -> None:
        response.write(b"data: {}\n\n", response.start(200, b"content-type: text/event-stream\r\n"))
        request_received.set()
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
async def test_a_closed_pool_sends_nothing_and_ends_calls_that_wait(version: int) -> None:
    loop = asyncio.get_running_loop()
    pools, request_received = Pools(loop), asyncio.Event()

    async def stall(request: Request, response: Response) -> None:
        request_received.set()
        await asyncio.Event().wait()

    async with http1(stall) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool = pools.of(
            ConnectionSettings(f"http://127.0.0.1:{front.port if version == 2 else behind}/v1", None, version)
        )
        first = await pool.connect(PATIENCE)
        second = await pool.connect(PATIENCE)
        first.send(REQUEST)
        waiting = asyncio.create_task(first.read_head(PATIENCE))
        await request_received.wait()
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


async def test_a_finished_http2_call_is_freed_at_once(pools: Pools) -> None:
    async with http1(echo) as behind, H2Server(behind).listening(None) as front, asyncio.timeout(PATIENCE):
        pool = pools.of(ConnectionSettings(f"http://127.0.0.1:{front.port}/v1", None, 2))
        assert await response_body(pool) == b"hi"
        gc.collect()
        before = http2_calls()
        gc.disable()
        try:
            for _ in range(5):
                assert await response_body(pool) == b"hi"
            while http2_calls() > before:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_an_abandoned_http2_call_is_freed_at_once(pools: Pools) -> None:
    """Before it is sent, while it waits for a head, and in the middle of its answer."""

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
