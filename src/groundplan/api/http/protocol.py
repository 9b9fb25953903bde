"""HTTP of the control port before any route: refuses malformed requests, and requests beyond a maximum number.

Both get errors in the usual shape. Content and authorization of requests are checked elsewhere.
"""

from __future__ import annotations

from typing import cast

import h11
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundplan.api.errors import response_for, scim_response
from groundplan.core.errors import Invalid, Unavailable

MAX_REQUESTS = 200
"""The most connections, and the most requests, at once: each may hold a thread or a live view."""


class ControlProtocol(H11Protocol):
    """One connection to the control port."""

    def handle_events(self) -> None:
        full = len(self.connections) > MAX_REQUESTS or len(self.tasks) >= MAX_REQUESTS
        self.app = cast("ASGI3Application", _refuse_overload) if full else self.config.loaded_app
        super().handle_events()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 -- has a message of its own
        answer = response_for(
            Invalid(
                "this is no request of HTTP/1.1", code="malformed_request",
                hint="The control port speaks plain HTTP: use http:// in its address, or terminate TLS in a "
                "proxy in front of it.",
            )
        )  # fmt: skip
        head = h11.Response(status_code=answer.status_code, headers=[*answer.raw_headers, (b"connection", b"close")])
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # otherwise a response has begun, and is cut off
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


async def _refuse_overload(scope: Scope, receive: Receive, send: Send) -> None:
    error = Unavailable(
        f"{MAX_REQUESTS} requests or live views are under way at the control port", code="control_full",
        hint="Try again in a moment. Close unused pages; programs should keep one connection.", retry_after=1.0,
    )  # fmt: skip
    answer = scim_response(Request(scope), response_for(error))
    answer.headers["connection"] = "close"
    await answer(scope, receive, send)
