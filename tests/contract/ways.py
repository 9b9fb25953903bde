"""Pools over every kind of connection to an upstream, with real servers on loopback: TLS with a private CA, HTTP/2,
CONNECT proxies."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.closing import close
from tests.contract.h2_server import H2Server

from groundplan.blueprint.model import Tls
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Server
from groundplan.gateway.upstream.connection import Pool
from groundplan.gateway.upstream.pools import ConnectionSettings, Pools

CONNECTION_KINDS = (
    "http1",
    "tls",
    "mtls",
    "proxy",
    "proxy-tls",
    "h2",
    "h2c",
    "h2-mtls",
    "h2-proxy",
    "h2-tls-proxy",
    "tls-proxy",
)


class Authority:
    """A certificate authority in a folder. `plain`: its certificates have only the extensions that `openssl req -x509`
    adds."""

    def __init__(self, folder: Path, name: str = "ca", days: int = 60, *, plain: bool = False) -> None:
        self.folder = folder
        self._days = days
        self._plain = plain
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])
        self._certificate = self._sign(self._name, self._key, None)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName] | None,
        days: int | None = None,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=90))
            .not_valid_after(now + timedelta(days=self._days if days is None else days, hours=1))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        usage = dict.fromkeys(
            (
                "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
                "decipher_only",
            ),
            False,
        )  # fmt: skip
        is_authority = names is None
        if not self._plain:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(issuer, critical=False).add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, **usage),
                critical=True,
            )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def revocation_list(self, *certs: Path, days: int = 7) -> bytes:
        """The certificate revocation list (PEM) with these certificates, which expires after `days`."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name).last_update(now - timedelta(days=30))
        builder = builder.next_update(now + timedelta(days=days))
        for cert in certs:
            serial = x509.load_pem_x509_certificate(cert.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(days=1))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *hosts: str, days: int | None = None) -> tuple[Path, Path]:
        """Certificate and key files for a subject, valid for `hosts` (IP addresses or names)."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, names or [x509.DNSName("nobody.example")], days)
        cert, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert, secret


def server_context(
    authority: Authority, *hosts: str, client_ca: Path | None = None, days: int | None = None
) -> ssl.SSLContext:
    """The context of a server whose certificate names `hosts` (127.0.0.1 and localhost if there are none)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", *(hosts or ("127.0.0.1", "localhost")), days=days))
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


@dataclass
class ConnectProxy:
    """A CONNECT proxy. `credentials` (`user:password`) are required if not empty; `status` is its answer; `asked` has
    the requested addresses."""

    credentials: str = ""
    status: int = 200
    asked: list[str] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, name, _ = head.split(b" ", 2)
            credentials = base64.b64encode(self.credentials.encode())
            allowed = not self.credentials or b"roxy-authorization: basic " + credentials.lower() in head.lower()
            self.asked.append(name.decode())
            if method != b"CONNECT" or not allowed or self.status != 200:
                status = 407 if not allowed else self.status
                writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
                return
            host, _, port = name.decode().rpartition(":")
            upstream_reader, upstream_writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
            await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer), return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            writer.close()


@asynccontextmanager
async def proxy(connect_proxy: ConnectProxy, context: ssl.SSLContext | None = None) -> AsyncIterator[ConnectProxy]:
    server = await asyncio.start_server(connect_proxy.serve, "127.0.0.1", 0, ssl=context)
    connect_proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield connect_proxy
    finally:
        server.close()


@asynccontextmanager
async def http1(
    handle: Callable[[Any, Any], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve a handler over HTTP/1.1; yields the port."""
    loop = asyncio.get_running_loop()
    server = Server(handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        await close(listener, server)


@dataclass
class PoolSetup:
    """A pool of connections of one kind to a server, its settings, and the proxy on the way, if any."""

    pool: Pool
    wire: ConnectionSettings
    proxy: ConnectProxy | None


@asynccontextmanager
async def pool_to(kind: str, handle: Callable[[Any, Any], Awaitable[None]], folder: Path) -> AsyncIterator[PoolSetup]:
    """Serve `handle` as an upstream that is reached by connections of `kind`, one of `CONNECTION_KINDS`."""
    authority = Authority(folder)
    async with AsyncExitStack() as stack:
        is_http2, uses_tls = kind.startswith("h2"), kind not in ("http1", "proxy", "h2c")
        uses_mtls, uses_proxy = "mtls" in kind, "proxy" in kind
        tls = Tls(ca=f"file:{authority.file}") if uses_tls else None
        if uses_mtls:
            cert, key = authority.issue("gateway")
            tls = Tls(ca=f"file:{authority.file}", cert=f"file:{cert}", key=f"file:{key}")
        client_ca = authority.file if uses_mtls else None
        context = server_context(authority, client_ca=client_ca) if uses_tls else None
        if is_http2:
            server = H2Server(await stack.enter_async_context(http1(handle)))
            port = (await stack.enter_async_context(server.listening(context))).port
        else:
            port = await stack.enter_async_context(http1(handle, context))
        connect_proxy, address = None, None
        if uses_proxy:
            proxy_context = server_context(authority) if kind.endswith("tls-proxy") else None
            connect_proxy = await stack.enter_async_context(proxy(ConnectProxy("user:pass word"), proxy_context))
            address = f"{'https' if proxy_context else 'http'}://127.0.0.1:{connect_proxy.port}"
            (folder / "proxy.key").write_text("user:pass word\n")
        wire = ConnectionSettings(
            f"{'https' if uses_tls else 'http'}://127.0.0.1:{port}/v1",
            tls,
            2 if is_http2 else 1,
            address,
            f"file:{folder / 'proxy.key'}" if uses_proxy else None,
        )
        pools = Pools(asyncio.get_running_loop())
        yield PoolSetup(pools.of(wire), wire, connect_proxy)
        pools.close()
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.02)  # transports close in the loop's next rounds
