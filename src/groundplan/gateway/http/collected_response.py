"""A response that is kept in memory instead of sent: for calls that the gateway makes itself."""

from __future__ import annotations

from groundplan.gateway.http.response import Response


class CollectedResponse(Response):
    """Implements `Response` for answers in one piece."""

    __slots__ = ("body", "status")
    _sends_pieces = False

    def __init__(self) -> None:
        self.started = self.ended = False
        self.keep_alive = True
        self.status = 0
        self.body = b""

    @property
    def is_disconnected(self) -> bool:
        return False

    @property
    def peer_address(self) -> str:
        return ""

    @property
    def is_write_paused(self) -> bool:
        return False

    def send(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = b"") -> None:  # noqa: ARG002
        self.started = self.ended = True
        self.status, self.body = status, body
