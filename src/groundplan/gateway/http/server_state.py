"""State that all connections of one server share: its limits, its clock, and the memory for request bodies.

Does not know the connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from groundplan.gateway.http.bounds import Limits
from groundplan.gateway.http.disconnects import DisconnectWatcher
from groundplan.gateway.http.request import Request

MAX_WORKLOAD_SHARE = 0.6
"""Share of `total_body_bytes` that large bodies of one workload may take: less than what is left to the least important
workload."""


class ServerState:
    """The part of a server that its connections and responses use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self.loop = loop
        self.now = loop.time
        self.limits = limits
        self._unrestricted_bytes = limits.total_body_bytes // 2
        """Bytes of bodies beyond which the memory is reserved for known callers."""
        self.unchecked_body_bytes = min(limits.body_bytes, limits.unknown_caller_body_bytes)
        """A body up to this size is read without checking who sends it."""
        self.read_client_subject: Callable[[asyncio.BaseTransport], str | None] | None = None
        """Returns the subject of the client's certificate, or None if it has expired; None where the server asks for no
        certificate."""
        self.is_streamed: Callable[[Request], bool] | None = None
        """Whether the handler reads this request's body while it arrives; decided from the head."""
        self.memory_share: Callable[[Request], float] | None = None
        """Share of `total_body_bytes` up to which this request's body is read once more than half is taken; 0: an
        unknown caller. Decided from the head."""
        self.workload_name: Callable[[Request], str] | None = None
        """Name of the request's workload, empty if unknown; decided from the head."""
        self._large_bytes: dict[str, int] = {}
        """Bytes of large bodies that are held, by workload."""
        self.accepts_websocket: Callable[[Request], bool] | None = None
        """Whether the handler accepts this request as a WebSocket; decided from the head."""
        self.held_bytes = 0
        """Bytes of bodies that are being read or answered."""
        self.refused_bodies = 0
        """Number of requests that were refused because there was no memory for their bodies."""
        self.draining = False
        self.disconnects = DisconnectWatcher(loop)
        self.date_line = b""
        """The Date header line, renewed by each sweep."""

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes of a body fit into the total."""
        return self.held_bytes + size <= self.limits.total_body_bytes

    def reserve_body(self, request: Request, size: int) -> bool:
        """Count `size` more bytes of a body. False, with nothing counted, if all bodies together or those of its
        workload would be too many, or if the remaining memory is reserved for more important callers."""
        if self.held_bytes + size > self._unrestricted_bytes and not self.has_room_for(request, size):
            return False
        if (
            request.held_bytes + size > self.limits.large_body_bytes
            and self.workload_name is not None
            and not self._reserve_for_workload(request, size)
        ):
            return False
        self.held_bytes += size
        request.held_bytes += size
        return True

    def _reserve_for_workload(self, request: Request, size: int) -> bool:
        """Count `size` more bytes among the large bodies of the request's workload; False if these would leave too
        little to others."""
        whose = request.charged_workload
        if not whose:
            whose, size = "" if self.workload_name is None else self.workload_name(request), request.held_bytes + size
            if not whose:
                return True  # unknown callers are bounded all together
        held = self._large_bytes.get(whose, 0) + size
        if held > self.limits.total_body_bytes * MAX_WORKLOAD_SHARE:
            return False
        self._large_bytes[whose], request.charged_workload = held, whose
        return True

    def has_room_for(self, request: Request, size: int) -> bool:
        """Whether `size` more bytes of this request's body may be held once more than half of the memory is taken: the
        last of it is for the most important workloads."""
        return self.held_bytes + size <= self.limits.total_body_bytes * (
            1.0 if self.memory_share is None else self.memory_share(request)
        )

    def is_known_caller(self, request: Request) -> bool:
        """Whether the request's caller is known, so that its body is read however many unknown callers there are."""
        return self.memory_share is None or self.memory_share(request) > 0

    def would_be_scarce(self, size: int) -> bool:
        """Whether `size` more bytes would fit only into the memory that is reserved for known callers."""
        return self.held_bytes + size > self._unrestricted_bytes

    def release_body(self, request: Request) -> None:
        """Give back the memory of a request's body that is no longer needed."""
        if request.charged_workload:
            remaining = self._large_bytes.pop(request.charged_workload) - request.held_bytes
            if remaining:
                self._large_bytes[request.charged_workload] = remaining
            request.charged_workload = ""
        self.held_bytes -= request.held_bytes
        request.held_bytes = 0
