"""How a deployment is reached beyond its address: TLS, HTTP version, proxy. Types only; nothing here opens a file."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema

from groundplan.catalog.base import Strict

DIRECT = "direct"
_PROXY = re.compile(r"https?://(?P<authority>[A-Za-z0-9.\-_~\[\]:@%]{1,300})/?", re.ASCII)


def _proxy(value: object) -> str:
    if value == DIRECT:
        return DIRECT
    match = _PROXY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write http://HOST:PORT or https://HOST:PORT without path, or direct")
    if "@" in match["authority"]:
        raise ValueError("a URL must not hold credentials: write proxy_key: env:NAME, which holds user:password")
    try:
        parts = urlsplit(match[0])
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("write a host, and a port from 1 to 65535 if any")
    return match[0].rstrip("/")


ProxyUrl = Annotated[
    str,
    BeforeValidator(_proxy),
    WithJsonSchema(
        {"type": "string", "pattern": "^(https?://[^@/]+|direct)$", "examples": ["http://proxy.acme.example:3128"]}
    ),
]
FileReference = Annotated[str, StringConstraints(pattern=r"^file:/[^\x00-\x1f]{1,1000}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$")]
HttpVersion = Literal[1, 2]


class TlsDoc(Strict):
    """How an upstream is verified, and who we are to it. Files are PEM and may be renewed while we run."""

    ca: FileReference | None = None
    """Certificates that are trusted for this upstream: `file:/path`. Default: those that the system trusts."""
    cert: FileReference | None = None
    """Our certificate, for an upstream that asks for one: `file:/path`."""
    key: FileReference | None = None
    """Its private key: `file:/path`, without a passphrase. Default: in the same file."""
    server_name: HostName | None = None
    """The name that the upstream's certificate must bear, where it is not the host of the url. With `http: 1` only."""
