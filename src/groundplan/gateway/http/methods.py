"""Errors for HTTP methods that a path does not support. Which methods those are is up to each path."""

from __future__ import annotations

from groundplan.core.errors import Denied, Invalid
from groundplan.gateway.http.request import Request


class WrongMethod(Invalid):
    """The path does not support this method. `allowed`: the methods that it supports; GET implies HEAD."""

    status = 405

    def __init__(self, *allowed: bytes, hint: str = "") -> None:
        names = [each.decode() for each in allowed]
        told = hint or f"Send {' or '.join(names)}."
        super().__init__("this method is not for this path", code="method_not_allowed", hint=told)
        more = ["HEAD"] if "GET" in names else []
        self.header_lines = f"allow: {', '.join([*names, *more])}\r\n".encode()
        """The Allow header."""


class CrossOrigin(Denied):
    """A browser asks whether a page of another origin may call; none may."""

    def __init__(self) -> None:
        super().__init__(
            "no page in a browser may call from another origin, since it would show its key to whoever opens it",
            code="cross_origin",
            hint="Call from your server, or have one proxy serve the page and this gateway below one address.",
        )


def is_preflight(request: Request) -> bool:
    """Whether this is a browser's CORS preflight request."""
    return request.method == b"OPTIONS" and b"access-control-request-method" in request.headers


def allow_header(error: Exception) -> bytes:
    """The Allow header of a wrong-method error; empty for any other error."""
    return error.header_lines if isinstance(error, WrongMethod) else b""
