"""One request as it was parsed. Does not know what it means; it is read by `server`."""

from __future__ import annotations

from groundplan.gateway.http.body_stream import BodyStream


class Request:
    """One request, read completely unless it has a `stream`, from which its body is read. Header names are lower case;
    a repeated header keeps its last value. `client` is the subject of the certificate that the client proved to own,
    where one is asked for, else empty."""

    __slots__ = (
        "again", "body", "client", "form", "headers", "held", "keep_alive", "key", "method", "started", "stream",
        "target", "whose",
    )  # fmt: skip

    def __init__(
        self,
        started: float,
        method: bytes = b"",
        target: bytes = b"",
        headers: dict[bytes, bytes] | None = None,
        body: bytes = b"",
        keep_alive: bool = True,
        client: str = "",
        again: Request | None = None,
    ) -> None:
        self.again = again
        """One before it on its connection, of which it has every byte of the head but its Content-Length."""
        self.key = b""
        """Digest of the key that its head names, where somebody needed it: at the one that is had `again`."""
        self.stream: BodyStream | None = None
        self.form: object = None
        """What was read of a streamed form so far; before that the model that the path of its request names, if it
        does."""
        self.started = started
        self.method = method
        self.target = target
        self.headers: dict[bytes, bytes] = {} if headers is None else headers
        self.body = body
        self.keep_alive = keep_alive
        self.client = client
        self.held = 0
        self.whose = ""
        """Among whose large bodies what is held counts; empty: it is not large."""


def origin_form(target: bytes) -> bytes:
    """Path and query of a target that was sent with scheme and host, as to a proxy; others as they are."""
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return target
    host = len(rest.partition(b"/")[0].partition(b"?")[0])
    return rest[host:] if rest[host:].startswith(b"/") else b"/" + rest[host:]
