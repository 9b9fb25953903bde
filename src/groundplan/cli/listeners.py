"""The listening sockets of one `up`: of the gateway, of the control API, and, if the gateway speaks TLS, one more for
local commands. An address that other machines can reach is only served with TLS."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from groundplan.core.errors import Invalid
from groundplan.core.settings import Settings
from groundplan.gateway.http.tls import ServerFiles
from groundplan.runtime.locks import open_listener

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Listeners:
    """The open sockets. `local` is where commands on this machine reach a gateway that speaks TLS, without a
    certificate."""

    public: socket.socket
    control: socket.socket
    host: str
    tls_files: ServerFiles | None = None
    local: socket.socket | None = None

    @property
    def gateway_url(self) -> str:
        """Base URL of the gateway for this machine."""
        return self.public_url if self.local is None else f"http://{LOOPBACK}:{_port(self.local)}/v1"

    @property
    def public_url(self) -> str:
        """Base URL of the gateway for other machines."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{name}]" if ":" in name else name
        return f"{'http' if self.tls_files is None else 'https'}://{host}:{_port(self.public)}/v1"

    @property
    def tls_paths(self) -> dict[str, str | None] | None:
        """Paths of certificate, key and client CA by name; None without TLS."""
        files = self.tls_files
        if files is None:
            return None
        ca = files.client_ca
        return {"cert": str(files.cert), "key": str(files.key), "client_ca": None if ca is None else str(ca)}

    @property
    def control_url(self) -> str:
        return f"http://{LOOPBACK}:{_port(self.control)}"

    def close_gateway(self) -> None:
        """Close the gateway's sockets, so that the system refuses new callers instead of letting them wait."""
        self.public.close()
        if self.local is not None:
            self.local.close()

    def close(self) -> None:
        self.close_gateway()
        self.control.close()


def _port(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


def with_tls(
    settings: Settings, host: str | None, cert: Path | None, key: Path | None, client_ca: Path | None
) -> Settings:
    """Settings with the gateway's address and TLS files from the command line."""
    return replace(
        settings,
        host=host or settings.host,
        tls_cert=cert.absolute() if cert is not None else settings.tls_cert,
        tls_key=key.absolute() if key is not None else settings.tls_key,
        tls_client_ca=client_ca.absolute() if client_ca is not None else settings.tls_client_ca,
    )


def tls_files(settings: Settings) -> ServerFiles | None:
    """The gateway's TLS files, checked by loading them; None without TLS. Raises `Invalid` (`tls_incomplete`,
    `tls_required`, `tls_unreadable`)."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and (key is not None or settings.tls_client_ca is not None):
        raise Invalid(
            "a key or client CA without a certificate", code="tls_incomplete", hint="Name it: --tls-cert FILE."
        )
    if cert is None:
        if not _is_loopback(settings.host):
            raise Invalid(
                f"{settings.host} can be reached from elsewhere, and keys would cross the network in the clear",
                code="tls_required",
                hint="Name a certificate: --tls-cert FILE --tls-key FILE. Or listen on 127.0.0.1, behind a proxy.",
            )
        return None
    files = ServerFiles(cert, key or cert, settings.tls_client_ca)
    files.context()
    return files


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_listeners(settings: Settings, port: int, control_port: int, *, patience: float = 0.0) -> Listeners:
    """Open all sockets; ports in use are tried again for `patience` seconds. Raises `Invalid` and `Unavailable` as
    `tls_files` and `open_listener` do."""
    files = tls_files(settings)
    public = open_listener(settings.host, port, patience=patience)
    try:
        local = open_listener(LOOPBACK, 0) if files is not None else None
        control = open_listener(LOOPBACK, control_port, option="--control-port", patience=patience)
    except BaseException:
        public.close()
        raise
    return Listeners(public, control, settings.host, files, local)
