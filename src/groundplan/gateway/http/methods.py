"""How what is at a path is asked. Which methods those are is each path's."""

from __future__ import annotations

from groundplan.core.errors import Denied, Invalid
from groundplan.gateway.http.request import Request


class WrongMethod(Invalid):
    """What is at this path is asked otherwise. `allowed`: the methods for it, of which GET is HEAD, too."""

    status = 405

    def __init__(self, *allowed: bytes, hint: str = "") -> None:
        names = [each.decode() for each in allowed]
        told = hint or f"Send {' or '.join(names)}."
        super().__init__("this method is not for this path", code="method_not_allowed", hint=told)
        more = ["HEAD"] if "GET" in names else []
        self.lines = f"allow: {', '.join([*names, *more])}\r\n".encode()
        """The header that says so."""


class CrossOrigin(Denied):
    """A browser asks whether a page of another origin may call: none may."""

    def __init__(self) -> None:
        super().__init__(
            "no page in a browser may call from another origin, since it would show its key to whoever opens it",
            code="cross_origin",
            hint="Call from your server, or have one proxy serve the page and this gateway below one address.",
        )


def is_preflight(request: Request) -> bool:
    """Whether a browser asks first what a page wants to send."""
    return request.method == b"OPTIONS" and b"access-control-request-method" in request.headers


def lines_of(error: Exception) -> bytes:
    """What the answer to a wrong method has to say, and no other."""
    return error.lines if isinstance(error, WrongMethod) else b""
