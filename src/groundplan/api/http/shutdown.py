"""Running requests at shutdown: those that are not answered in time get an error.

Nothing waits here, and no work is cancelled: threads end with the process, and PostgreSQL rolls back what was not
committed.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundplan.api.errors import response_for, scim_response
from groundplan.core.errors import Unavailable


class _OpenRequest:
    """A running request; it can be refused until the application has begun its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._begun = False
        self.refused = False

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._begun = True
            await self._send(message)

    async def refuse(self) -> None:
        """Respond that it was not finished in time, unless the response has begun."""
        if self._begun or self.refused:
            return
        self.refused = True
        error = Unavailable(
            "the control process is stopping, and this request did not finish in time", code="control_ends",
            hint="Check whether it took effect before you repeat it.", retry_after=2.0,
        )  # fmt: skip
        await scim_response(Request(self._scope), response_for(error))(self._scope, self._receive, self._send)


class OpenRequests:
    """An ASGI application that tracks its running requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: set[_OpenRequest] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _OpenRequest(scope, receive, send)
        self._open.add(request)
        try:
            await self._app(scope, receive, request.send)
        finally:
            self._open.discard(request)

    async def refuse(self) -> int:
        """Refuse all requests whose responses have not begun; returns the number of running requests."""
        open_requests = list(self._open)
        for request in open_requests:
            await request.refuse()
        return len(open_requests)
