"""What all connections of one server share: its limits, its clock, and the room for the bodies of requests.

Knows no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from groundplan.gateway.http.bounds import Limits
from groundplan.gateway.http.request import Request

MOST_OF_ONE = 0.6
"""Of the room, that may be taken by large bodies of one workload: less than what is left to the least of them all."""


class ServerState:
    """The part of a server that its connections and answers look at."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self.loop = loop
        self.now = loop.time
        self.limits = limits
        self._plenty = limits.held // 2
        """Bytes of bodies above which room is for callers who are known."""
        self.at_once = min(limits.body, limits.stranger)
        """Bytes of a body of which nothing is asked before it is taken."""
        self.subject: Callable[[asyncio.BaseTransport], str] | None = None
        """Reads who a client is from its certificate, where one is asked for."""
        self.streams: Callable[[Request], bool] | None = None
        """Tells from its head whether a request's body is read by its handler while it arrives."""
        self.share: Callable[[Request], float] | None = None
        """Tells from its head of how much that is held all together there may be for a request's body to be read, where
        that is more than half; 0: of nobody who is known."""
        self.whose: Callable[[Request], str] | None = None
        """Tells from its head of which workload a request is; empty: of none."""
        self._large: dict[str, int] = {}
        """Bytes of large bodies that are held, by workload."""
        self.upgrades: Callable[[Request], bool] | None = None
        """Tells from its head whether a request's handler speaks WebSocket."""
        self.held = 0
        """Bytes of bodies that are being read or answered."""
        self.refused = 0
        """Requests for whose bodies there was no room."""
        self.draining = False
        self.date_line = b""
        """Header line with the time, made anew by each sweep."""

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes of a body may be held now."""
        return self.held + size <= self.limits.held

    def hold(self, request: Request, size: int) -> bool:
        """Count `size` more bytes of a body; False where all bodies together, or those of its workload, would be too
        many, or where the rest of the room is not for whoever sends it."""
        if self.held + size > self._plenty and not self.has_room_of(request, size):
            return False
        if request.held + size > self.limits.large and self.whose is not None and not self._holds_of(request, size):
            return False
        self.held += size
        request.held += size
        return True

    def _holds_of(self, request: Request, size: int) -> bool:
        """Count them among those of its workload; False where these would leave too little to others."""
        whose = request.whose
        if not whose:
            whose, size = "" if self.whose is None else self.whose(request), request.held + size
            if not whose:
                return True  # strangers are bounded all together
        held = self._large.get(whose, 0) + size
        if held > self.limits.held * MOST_OF_ONE:
            return False
        self._large[whose], request.whose = held, whose
        return True

    def has_room_of(self, request: Request, size: int) -> bool:
        """Whether `size` more bytes of the body of a request may be held where more than half is: the last of the room
        is for what matters most."""
        return self.held + size <= self.limits.held * (1.0 if self.share is None else self.share(request))

    def is_known(self, request: Request) -> bool:
        """Whether a request is of somebody whose body is read however many strangers there are."""
        return self.share is None or self.share(request) > 0

    def is_scarce(self, size: int) -> bool:
        """Whether there is room for `size` more bytes of a body of callers who are known alone."""
        return self.held + size > self._plenty

    def let_go(self, request: Request) -> None:
        """The body of a request is not needed any more."""
        if request.whose:
            left = self._large.pop(request.whose) - request.held
            if left:
                self._large[request.whose] = left
            request.whose = ""
        self.held -= request.held
        request.held = 0
