"""What a worker does whose journal cannot be made, as on a full disk: until it can, callers get an error that says so,
unless another worker of this HOME answers them.

Whoever started it listens, so that they would wait for nobody otherwise. Nothing is sent anywhere from here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home
from groundplan.gateway.call.pipeline import is_realtime
from groundplan.gateway.http.listeners import Listeners, ListenSockets, is_serving, serving_file
from groundplan.gateway.http.request import Request
from groundplan.gateway.http.response import Response
from groundplan.gateway.http.server import Server
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.surfaces.messages import errors as messages_errors

STAY_SECONDS = 12.0
"""Then it ends, and says why: another one is started in its place."""
AGAIN_SECONDS = 0.5
_log = logging.getLogger(__name__)


async def journal_of(home: Home, sockets: ListenSockets, make: Callable[[], Journal]) -> Journal:
    """What `make` makes, as soon as it can. Raises its `Unavailable` where that takes too long."""
    try:
        return make()
    except Unavailable as error:
        problem = error
    _log.error("%s", problem)
    refusing = _Refusing(home, sockets)
    loop = asyncio.get_running_loop()
    end = loop.time() + STAY_SECONDS
    try:
        while loop.time() < end:
            await refusing.look(problem)
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                return make()
            except Unavailable as error:
                problem = error
        raise problem
    finally:
        await refusing.close()


class _Refusing:
    """Answers callers in the meantime, while nobody else does."""

    def __init__(self, home: Home, sockets: ListenSockets) -> None:
        self._home = home
        self._sockets = replace(sockets, close_sockets=False)  # which are listened on again
        self._front: Listeners | None = None
        self._server: Server | None = None

    async def look(self, problem: GroundplanError) -> None:
        """Begin, or end, as others do not answer, or do."""
        self._problem = problem
        if _answered(self._home):
            await self.close()
        elif self._front is None:
            self._server = Server(self._handle, messages_errors.refusal_body, asyncio.get_running_loop())
            self._server.accepts_websocket = is_realtime
            self._front = Listeners(self._server, self._sockets)
            await self._front.open()

    async def _handle(self, request: Request, response: Response) -> None:
        if request.target.partition(b"?")[0] == b"/livez":
            response.send(200, b'{"live":true}')
            return
        messages_errors.set_request_id(request, response)
        anthropic = messages_errors.is_anthropic_request(request)
        messages_errors.send_error(response, self._problem, anthropic=anthropic)

    async def close(self) -> None:
        if self._front is not None and self._server is not None:
            self._front.close()
            await self._server.drain(0.5)
        self._front = self._server = None


def _answered(home: Home) -> bool:
    """Whether any worker of it serves."""
    try:
        pids = [int(path.name) for path in serving_file(home, 0).parent.iterdir() if path.name.isdigit()]
    except OSError:
        return False
    return any(is_serving(home, pid) for pid in pids)
