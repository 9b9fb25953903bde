"""The listening side of a worker: TLS versions, handshakes that do not end, and certificates that are renewed badly."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import Name, NameAttribute
from cryptography.x509.oid import NameOID
from tests.contract.ways import Authority
from tests.integration.gates import wait_until

from groundplan.gateway.http import connection, handshakes, listeners, tls
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.listeners import Listeners, ListenSockets, certificate_subject
from groundplan.gateway.http.server import Limits, Request, Response, Server
from groundplan.gateway.http.tls import ServerFiles
from groundplan.gateway.keepalive import FIRST_SECONDS, is_peer_gone


@asynccontextmanager
async def serving(
    files: ServerFiles | None, limits: Limits | None = None, own: bool = False
) -> AsyncIterator[tuple[Listeners, int]]:
    async def handle(request: Request, response: Response) -> None:
        response.send(200, (response.peer_address if request.target == b"/peer" else request.client_subject).encode())

    server = Server(handle, refusal_body, asyncio.get_running_loop(), limits)
    listening = socket.create_server(("127.0.0.1", 0))
    made = Listeners(server, ListenSockets(listening, files, close_sockets=own))
    await made.open()
    try:
        yield made, listening.getsockname()[1]
    finally:
        made.close()
        await server.drain(0.2)
        listening.close()
        await asyncio.sleep(0.02)


def trusting(authority: Authority, identity: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if identity is not None:
        context.load_cert_chain(*identity)
    return context


async def get_over_tls(port: int, context: ssl.SSLContext, path: str = "/") -> tuple[str, bytes]:
    """(serial number of the certificate that was shown, body of the answer)"""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 20)
        if not answer:
            raise ConnectionError("closed without an answer")
        return str(writer.get_extra_info("peercert")["serialNumber"]), answer.partition(b"\r\n\r\n")[2]
    finally:
        writer.close()


async def test_versions_before_tls_1_2_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = ServerFiles(*authority.issue("gateway", "127.0.0.1"))
    assert files.context().minimum_version == ssl.TLSVersion.TLSv1_2
    async with serving(files) as (_, port):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(authority)
            context.minimum_version = context.maximum_version = version
            assert (await get_over_tls(port, context))[1] == b""


async def test_a_client_in_its_handshake_is_answered_by_a_worker_that_ends(tmp_path: Path) -> None:
    """It was accepted before, and no other worker has it."""
    authority, loop = Authority(tmp_path), asyncio.get_running_loop()
    limits = Limits(drain_idle_seconds=20.0)
    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1")), limits) as (found, port):
        server, far = found._server, socket.socket()
        far.setblocking(False)
        await loop.sock_connect(far, ("127.0.0.1", port))
        await wait_until(lambda: len(server.handshakes) == 1)
        found.close()
        ending = asyncio.ensure_future(server.quiesce(20))
        await asyncio.sleep(0.2)
        reader, writer = await asyncio.open_connection(sock=far, ssl=trusting(authority), server_hostname="127.0.0.1")
        writer.write(b"GET / HTTP/1.1\r\nhost: g\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        assert b"200 OK" in answer and b"connection: close" in answer
        writer.close()
        await asyncio.wait_for(ending, 20)


async def test_a_client_that_never_ends_its_handshake_holds_up_no_worker_that_ends(tmp_path: Path) -> None:
    authority, limits = Authority(tmp_path), Limits(drain_idle_seconds=0.1)
    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1")), limits) as (found, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await wait_until(lambda: len(found._server.handshakes) == 1)
        found.close()
        await asyncio.wait_for(found._server.quiesce(1000), 9)
        writer.close()


async def test_an_unfinished_handshake_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "HANDSHAKE_SECONDS", 0.3)
    authority = Authority(tmp_path)
    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1"))) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01")
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: g\r\n\r\n")
        assert b"HTTP" not in await asyncio.wait_for(reader.read(), 20), "nothing is said in the clear"
        writer.close()


async def test_silent_connections_block_nobody(tmp_path: Path) -> None:
    """Nor takes more files than are set aside for those who are on their way."""
    authority = Authority(tmp_path)
    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1")), Limits(connections=100)) as (_, port):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        context = trusting(authority)
        answers = await asyncio.gather(*(get_over_tls(port, context, "/peer") for _ in range(20)))
        assert {body for _, body in answers} == {b"127.0.0.1"}
        ended = await asyncio.gather(*(_ended(reader) for reader, _ in silent))
        assert ended.count(False) <= 64
        for _, writer in silent:
            writer.close()
        assert (await get_over_tls(port, context))[1] == b""


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 0.5) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_clients_that_cannot_be_accepted_wait_without_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the system says; one that is gone by then keeps nobody waiting."""
    monkeypatch.setattr(handshakes, "_PAUSE_SECONDS", 0.05)
    authority, refused = Authority(tmp_path), list[OSError]()
    whole = socket.socket.accept
    left = list[OSError]()

    def accept(self: socket.socket) -> Any:
        if left:
            refused.append(left[-1])
            raise left.pop() if len(left) > 1 else left[0]
        return whole(self)

    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1"))) as (_, port):
        left[:] = [OSError(errno.EPERM, "Operation not permitted"), ConnectionAbortedError(errno.ECONNABORTED, "gone")]
        monkeypatch.setattr(socket.socket, "accept", accept)
        asking = asyncio.create_task(get_over_tls(port, trusting(authority)))
        await asyncio.sleep(0.3)
        assert 2 <= len(refused) <= 10
        assert len(caplog.records) == 1
        left.clear()
        assert (await asyncio.wait_for(asking, 10))[1] == b""


@pytest.mark.parametrize("within_tls", [False, True])
async def test_a_worker_that_accepts_no_more_keeps_no_client_waiting(tmp_path: Path, within_tls: bool) -> None:
    """By the system, for as long as running answers take, and then cut off with what it sent."""
    files = ServerFiles(*Authority(tmp_path).issue("gateway", "127.0.0.1")) if within_tls else None
    async with serving(files, own=True) as (made, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        made.close()
        await asyncio.sleep(0.02)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_silent_peers_are_probed_by_keepalive(tmp_path: Path) -> None:
    """And who is silent and there is kept for longer than whatever is in front keeps his connections."""
    authority = Authority(tmp_path)
    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1"))) as (made, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority))
        writer.write(b"GET / HTTP/1.1\r\nhost: g\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        (one,) = made._server.connections
        assert one.transport is not None and one.deadline > asyncio.get_running_loop().time() + 900
        taken = one.transport.get_extra_info("socket")
        assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == FIRST_SECONDS
        writer.close()


async def test_an_answer_whose_client_acknowledges_nothing_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel sends again for a quarter of an hour, and probes nobody meanwhile."""
    ended, looked = asyncio.Event(), asyncio.Event()

    async def endless(request: Request, response: Response) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def look(client: Any) -> bool:
        looked.set()
        return is_peer_gone(client)

    async with serving(None, Limits(client_check_seconds=0.02, sweep_seconds=0.02)) as (made, port):
        made._server.handler = endless
        monkeypatch.setattr(connection, "is_peer_gone", look)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: g\r\n\r\n")
        await asyncio.wait_for(looked.wait(), 20)
        assert not ended.is_set(), "it is there, and waits"
        monkeypatch.setattr(connection, "is_peer_gone", lambda _: True)
        await asyncio.wait_for(ended.wait(), 20)
        writer.close()


def test_a_peer_that_acknowledges_nothing_counts_as_gone() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as waiting:
        for _ in range(3):  # the system answers the first one, and says nothing to those behind it
            last = waiting.enter_context(socket.socket())
            last.setblocking(False)
            last.connect_ex(full.getsockname())
        first = waiting.enter_context(full.accept()[0])
        assert is_peer_gone(last) == hasattr(socket, "TCP_INFO") and not is_peer_gone(first)
    assert not is_peer_gone(first), "it is closed"


async def test_half_a_renewal_changes_nothing_until_the_other_half_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("gateway", "127.0.0.1")
    other, secret = authority.issue("renewed", "127.0.0.1")
    async with serving(ServerFiles(cert, key)) as (made, port):
        first, _ = await get_over_tls(port, trusting(authority))
        assert not made.reload_certificate(), "nothing has changed"
        ways: list[Callable[[], Any]] = [
            lambda: cert.write_bytes(other.read_bytes()),
            lambda: cert.write_text("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n"),
            lambda: cert.write_text(""),
            cert.unlink,
        ]
        for spoil in ways:
            spoil()
            assert not made.reload_certificate() and not made.reload_certificate()
            assert (await get_over_tls(port, trusting(authority)))[0] == first
        assert sum("stays" in each.message for each in caplog.records) == len(ways), "each is logged once"
        cert.write_bytes(other.read_bytes())
        key.write_bytes(secret.read_bytes())
        assert made.reload_certificate()
        assert (await get_over_tls(port, trusting(authority)))[0] != first


async def test_briefly_unreadable_certificate_files_are_loaded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may read them, or how many files may be open, changes, and nothing in the files tells of it."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("gateway", "127.0.0.1")
    other, secret = authority.issue("renewed", "127.0.0.1")
    async with serving(ServerFiles(cert, key)) as (made, port):
        first, _ = await get_over_tls(port, trusting(authority))
        cert.write_bytes(other.read_bytes())
        key.write_bytes(secret.read_bytes())
        with monkeypatch.context() as patched:
            patched.setattr(
                tls, "_load_cert_chain", lambda *_: (_ for _ in ()).throw(tls._unreadable(OSError(errno.EMFILE, "x")))
            )
            assert not made.reload_certificate() and not made.reload_certificate()
        assert made.reload_certificate() and not made.reload_certificate()
        assert (await get_over_tls(port, trusting(authority)))[0] != first


async def test_the_reason_for_a_refused_client_certificate_is_logged_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The client itself is told nothing: its connection ends within the handshake."""
    authority, robots = Authority(tmp_path), Authority(tmp_path, "robots")
    over, stranger = robots.issue("over", days=-1), authority.issue("stranger")
    files = ServerFiles(*authority.issue("gateway", "127.0.0.1"), robots.file)
    async with serving(files) as (_, port):
        for _ in range(2):
            for identity in (over, stranger, None):
                with pytest.raises((OSError, EOFError)):
                    await get_over_tls(port, trusting(authority, identity))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: g\r\n\r\n")  # no TLS: that is nobody's certificate
        writer.close()
        assert (await get_over_tls(port, trusting(authority, robots.issue("robot"))))[1] == b"CN=robot"
    lines = [
        each.message.removeprefix("the certificate of a client at 127.0.0.1 is refused: ") for each in caplog.records
    ]
    assert len(lines) == 3 and (lines[0], lines[2]) == ("certificate has expired", "none was shown")


async def test_a_removed_client_authority_is_no_longer_trusted(tmp_path: Path) -> None:
    authority, old, new = Authority(tmp_path), Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    robot, successor = old.issue("robot"), new.issue("successor")
    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1"), trusted)) as (made, port):
        assert (await get_over_tls(port, trusting(authority, robot)))[1] == b"CN=robot"
        with pytest.raises((OSError, EOFError)):
            await get_over_tls(port, trusting(authority, successor))
        with pytest.raises((OSError, EOFError)):
            await get_over_tls(port, trusting(authority))
        trusted.write_bytes(new.file.read_bytes())
        assert made.reload_certificate()
        assert (await get_over_tls(port, trusting(authority, successor)))[1] == b"CN=successor"
        with pytest.raises((OSError, EOFError)):
            await get_over_tls(port, trusting(authority, robot))


async def refused(port: int, context: ssl.SSLContext) -> None:
    with pytest.raises((OSError, EOFError)):
        await get_over_tls(port, context)


async def test_an_expired_or_revoked_client_certificate_ends_its_connection(tmp_path: Path) -> None:
    authority, callers = Authority(tmp_path), Authority(tmp_path, "callers")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(callers.file.read_bytes())
    robot, thief = callers.issue("robot"), callers.issue("thief")
    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1"), trusted)) as (made, port):
        await refused(port, trusting(authority, callers.issue("late", days=-1)))
        assert (await get_over_tls(port, trusting(authority, thief)))[1] == b"CN=thief"
        trusted.write_bytes(callers.file.read_bytes() + callers.revocation_list(thief[0]))
        assert made.reload_certificate()
        assert (await get_over_tls(port, trusting(authority, robot)))[1] == b"CN=robot"
        await refused(port, trusting(authority, thief))
        others = Authority(tmp_path, "others")
        trusted.write_bytes(trusted.read_bytes() + others.file.read_bytes())
        assert made.reload_certificate()
        await refused(port, trusting(authority, others.issue("other")))
        assert (await get_over_tls(port, trusting(authority, robot)))[1] == b"CN=robot", "whose authority has a list"
        trusted.write_bytes(callers.file.read_bytes() + callers.revocation_list(days=-1))
        assert made.reload_certificate()
        await refused(port, trusting(authority, robot))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_resumed_session_does_not_outlive_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    """For a resumed session no certificate is checked in the handshake."""
    authority, callers = Authority(tmp_path), Authority(tmp_path, "callers")
    context = trusting(authority, callers.issue("robot"))
    context.maximum_version = version
    async with serving(ServerFiles(*authority.issue("gateway", "127.0.0.1"), callers.file)) as (_, port):
        session, _, answer = await asyncio.to_thread(_get_again, port, context, None)
        assert answer == b"CN=robot"
        _, resumed, answer = await asyncio.to_thread(_get_again, port, context, session)
        assert (answer, resumed) == (b"CN=robot", version is ssl.TLSVersion.TLSv1_2)
        then = time.time() + 100 * 86400
        monkeypatch.setattr(time, "time", lambda: then)
        assert (await asyncio.to_thread(_get_again, port, context, session))[2] == b""


def _get_again(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[Any, bool, bytes]:
    """(session, whether an earlier one was resumed, body of the answer)"""
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as client,
    ):
        answer = b""
        with suppress(OSError):
            client.sendall(b"GET / HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n")
            while data := client.recv(4096):
                answer += data
        return client.session, bool(client.session_reused), answer.partition(b"\r\n\r\n")[2]


async def test_kept_connections_end_when_client_authorities_change(tmp_path: Path) -> None:
    authority, callers = Authority(tmp_path), Authority(tmp_path, "callers")
    (cert, key), trusted = authority.issue("gateway", "127.0.0.1"), tmp_path / "trusted.pem"
    trusted.write_bytes(callers.file.read_bytes())
    context, thief = trusting(authority, identity := callers.issue("thief")), identity[0]
    async with serving(ServerFiles(cert, key, trusted), Limits(drain_idle_seconds=0.3)) as (made, port):
        async with AsyncExitStack() as stack:
            kept = [await asyncio.open_connection("127.0.0.1", port, ssl=context) for _ in range(2)]
            for _, writer in kept:
                stack.callback(writer.close)
            told = [await _kept(*each) for each in kept]
            cert.write_bytes(cert.read_bytes() + b"\n")
            assert made.reload_certificate()
            told += [await _kept(*each) for each in kept]
            assert not any(b"connection: close" in each for each in told), "ours was replaced, not theirs"
            trusted.write_bytes(callers.file.read_bytes() + callers.revocation_list(thief))
            assert made.reload_certificate()
            assert b"connection: close" in await _kept(*kept[0]), "what was on its way is answered"
            assert await asyncio.wait_for(kept[1][0].read(), 20) == b"", "which says nothing"


async def _kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET /peer HTTP/1.1\r\nhost: g\r\n\r\n")
    return await asyncio.wait_for(reader.readuntil(b"127.0.0.1"), 20)


def test_a_subject_is_one_line_of_printable_text() -> None:
    class Shown(asyncio.BaseTransport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            subject = ((("organizationName", "acme"),), (("commonName", "robot\r\nERROR forged\x1b[2J" + "a" * 900),))
            return {"subject": subject} if name == "peercert" else default

    said = certificate_subject(Shown())
    assert said.startswith("CN=robot??ERROR forged?[2J") and len(said) == 400 and said.isprintable()
    assert certificate_subject(asyncio.BaseTransport()) == ""
    assert Name([NameAttribute(NameOID.COMMON_NAME, "robot")]).rfc4514_string() == "CN=robot", "the usual spelling"


@pytest.mark.parametrize("name", ["robot", "robot,O=acme", 'a "b" <c>; d+e\\', "#1", " a ", "jürgen"])
def test_different_subjects_have_different_texts(name: str) -> None:
    class Shown(asyncio.BaseTransport):
        def get_extra_info(self, asked: str, default: Any = None) -> Any:
            subject = ((("organizationName", "evil"),), (("commonName", name),))
            return {"subject": subject} if asked == "peercert" else default

    parts = [NameAttribute(NameOID.ORGANIZATION_NAME, "evil"), NameAttribute(NameOID.COMMON_NAME, name)]
    assert certificate_subject(Shown()) == Name(parts).rfc4514_string()


async def test_a_renewed_certificate_is_noticed_periodically_and_at_once_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("gateway", "127.0.0.1")
    assert listeners.FILE_CHECK_SECONDS <= 2.0, "as docs/transport.md says"
    async with serving(ServerFiles(cert, key)) as (made, port):
        shown = [(await get_over_tls(port, trusting(authority)))[0]]
        for name, seconds in (("renewed", 0.05), ("again", 1000.0)):
            monkeypatch.setattr(listeners, "FILE_CHECK_SECONDS", seconds)
            watching = asyncio.create_task(made.watch())
            await asyncio.sleep(0)
            other, secret = authority.issue(name, "127.0.0.1")
            cert.write_bytes(other.read_bytes())
            key.write_bytes(secret.read_bytes())
            if seconds > 1.0:
                made.check_soon()
            async with asyncio.timeout(20):
                while (serial := (await get_over_tls(port, trusting(authority)))[0]) in shown:  # noqa: ASYNC110 -- no event
                    await asyncio.sleep(0.02)
            shown.append(serial)
            watching.cancel()
