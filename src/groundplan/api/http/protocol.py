"""HTTP of the control port before any route: refuses malformed requests, and bounds connections, requests and the
memory of their bodies.

Refusals get errors in the usual shape. Content and authorization of requests are checked elsewhere: until a body is
complete nobody knows whose request it is, so that connections which wait for their client give way to new ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import h11
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundplan.api.errors import response_for, scim_response
from groundplan.core.errors import GroundplanError, Invalid, Unavailable

MAX_REQUESTS = 200
"""The most connections, and the most requests, at once: each may hold a thread or a live view. Requests whose client
has left may be as many again."""
MAX_BODIES_BYTES = 128 << 20
"""The most bytes of bodies of requests that are not answered yet, in total: one may have 16 MiB."""


class ControlProtocol(H11Protocol):
    """One connection to the control port."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.waiting_since = time.monotonic()
        """When the request that is received began, or the wait for it; or when the client stopped reading."""
        self.body_bytes = 0
        """What was received of the request that is not answered yet."""
        super().connection_made(transport)
        if len(self._open_connections()) > MAX_REQUESTS:
            self._close_longest_waiting(lambda other: other is not self and other.waits_for_client())

    def data_received(self, data: bytes) -> None:
        if self._is_idle():
            self.waiting_since = time.monotonic()
        self.body_bytes += len(data)
        super().data_received(data)
        while sum(connection.body_bytes for connection in self._open_connections()) > MAX_BODIES_BYTES:
            if not self._close_longest_waiting(ControlProtocol.waits_for_body):
                break

    def pause_writing(self) -> None:
        self.waiting_since = time.monotonic()
        super().pause_writing()

    def on_response_complete(self) -> None:
        self.waiting_since = time.monotonic()
        self.body_bytes = 0
        super().on_response_complete()

    def waits_for_client(self) -> bool:
        """Whether the client is to act next: send a request, the rest of a body, or read an answer."""
        return self._has_no_request() or self.waits_for_body() or self.flow.write_paused

    def waits_for_body(self) -> bool:
        """Whether the rest of a body is to come, and nothing of what has come waits to be read here."""
        return not self._has_no_request() and self.cycle.more_body and not self.flow.read_paused

    def _has_no_request(self) -> bool:
        """Whether no request is under way whose head is complete."""
        return self.cycle is None or self.cycle.response_complete

    def _is_idle(self) -> bool:
        """Whether nothing of the next request was received."""
        return self._has_no_request() and not self.conn.trailing_data[0]

    def _open_connections(self) -> list[ControlProtocol]:
        every = (connection for connection in self.connections if isinstance(connection, ControlProtocol))
        return [connection for connection in every if not connection.transport.is_closing()]

    def _close_longest_waiting(self, does_wait: Callable[[ControlProtocol], bool]) -> bool:
        """Close the connection that has waited longest of those that `does_wait` holds for; False if there is none."""
        waiting = [connection for connection in self._open_connections() if does_wait(connection)]
        if waiting:
            min(waiting, key=lambda connection: connection.waiting_since).give_way()
        return bool(waiting)

    def give_way(self) -> None:
        """Close this connection; a client that is sending a body gets an error."""
        if self.flow.write_paused:
            self.transport.abort()
        elif self._has_no_request():
            self.transport.close()
        else:
            self._answer_and_close(_overload("more bodies of requests are received than the control port can hold"))

    def handle_events(self) -> None:
        full = len(self._open_connections()) > MAX_REQUESTS or len(self.tasks) >= 2 * MAX_REQUESTS
        self.app = cast("ASGI3Application", _refuse_overload) if full else self.config.loaded_app
        super().handle_events()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 -- has a message of its own
        self._answer_and_close(
            Invalid(
                "this is no request of HTTP/1.1", code="malformed_request",
                hint="The control port speaks plain HTTP: use http:// in its address, or terminate TLS in a "
                "proxy in front of it.",
            )
        )  # fmt: skip

    def _answer_and_close(self, error: GroundplanError) -> None:
        answer = response_for(error)
        head = h11.Response(status_code=answer.status_code, headers=[*answer.raw_headers, (b"connection", b"close")])
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # otherwise a response has begun, and is cut off
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _overload(message: str) -> Unavailable:
    hint = "Try again in a moment. Close unused pages; programs should keep one connection."
    return Unavailable(message, code="control_full", hint=hint, retry_after=1.0)


async def _refuse_overload(scope: Scope, receive: Receive, send: Send) -> None:
    error = _overload(f"{MAX_REQUESTS} requests or live views are under way at the control port")
    answer = scim_response(Request(scope), response_for(error))
    answer.headers["connection"] = "close"
    await answer(scope, receive, send)
