"""What becomes of requests where their process is to end: whoever is not answered in time is told so.

It waits for nothing itself, and ends no work: what a thread does ends with the process, and PostgreSQL undoes what was
not committed.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundplan.api.errors import response_for, scim_response
from groundplan.core.errors import Unavailable


class _OpenRequest:
    """A request, whose answer is the application's or, where that has not begun, ours."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._begun = False
        self.refused = False

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._begun = True
            await self._send(message)

    async def refuse(self) -> None:
        """Answer that it was not done in time; nothing where its answer has begun."""
        if self._begun or self.refused:
            return
        self.refused = True
        error = Unavailable(
            "the control process ends, and this took longer than that may wait", code="control_ends",
            hint="Look whether it was done before you ask for it again.", retry_after=2.0,
        )  # fmt: skip
        await scim_response(Request(self._scope), response_for(error))(self._scope, self._receive, self._send)


class OpenRequests:
    """The application, and which of its requests are under way."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: set[_OpenRequest] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = _OpenRequest(scope, receive, send)
        self._open.add(asked)
        try:
            await self._app(scope, receive, asked.send)
        finally:
            self._open.discard(asked)

    async def refuse(self) -> int:
        """Answer all whose answers have not begun; how many are under way."""
        left = list(self._open)
        for asked in left:
            await asked.refuse()
        return len(left)
