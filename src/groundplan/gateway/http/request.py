"""One parsed request. Does not interpret it; `connection` creates requests, the server's handler reads them."""

from __future__ import annotations

from groundplan.gateway.http.body_stream import BodyStream


class Request:
    """One request, read completely unless it has a `stream`, from which its handler reads the body. Header names are
    lower case; a repeated header keeps its last value. `client_subject` is the subject of the certificate that the
    client proved to own, empty where none is asked for."""

    __slots__ = (
        "body",
        "charged_workload",
        "client_subject",
        "headers",
        "held_bytes",
        "keep_alive",
        "key_digest",
        "method",
        "same_head_request",
        "started",
        "stream",
        "target",
        "upload_state",
    )  # fmt: skip

    def __init__(
        self,
        started: float,
        method: bytes = b"",
        target: bytes = b"",
        headers: dict[bytes, bytes] | None = None,
        body: bytes = b"",
        keep_alive: bool = True,
        client_subject: str = "",
        same_head_request: Request | None = None,
    ) -> None:
        self.same_head_request = same_head_request
        """An earlier request on the same connection whose head had the same bytes but for its Content-Length."""
        self.key_digest = b""
        """Digest of the API key in the head, once somebody has computed it; of a request with a `same_head_request`, it
        is stored there."""
        self.stream: BodyStream | None = None
        self.upload_state: object = None
        """What has been read of a streamed form (`Upload`); before that, the name of the model that the request's path
        contains, if any."""
        self.started = started
        self.method = method
        self.target = target
        self.headers: dict[bytes, bytes] = {} if headers is None else headers
        self.body = body
        self.keep_alive = keep_alive
        self.client_subject = client_subject
        self.held_bytes = 0
        self.charged_workload = ""
        """The workload that the body's memory is charged to; empty: the body is not large."""


def origin_form(target: bytes) -> bytes:
    """Path and query of a target that was sent in absolute form, as to a proxy; other targets unchanged."""
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return target
    host = len(rest.partition(b"/")[0].partition(b"?")[0])
    return rest[host:] if rest[host:].startswith(b"/") else b"/" + rest[host:]
