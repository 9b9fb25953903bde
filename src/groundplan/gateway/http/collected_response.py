"""A response that is kept in memory instead of sent: of calls that the gateway makes itself."""

from __future__ import annotations

from groundplan.gateway.http.response import Response


class CollectedResponse(Response):
    """Obeys `Response` as far as answers in one piece go."""

    __slots__ = ("body", "status")

    def __init__(self) -> None:
        self.started = self.ended = False
        self.keep_alive = True
        self.status = 0
        self.body = b""

    @property
    def gone(self) -> bool:
        return False

    @property
    def peer(self) -> str:
        return ""

    @property
    def full(self) -> bool:
        return False

    def send(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = b"") -> None:  # noqa: ARG002
        self.started = self.ended = True
        self.status, self.body = status, body

    async def send_slowly(
        self,
        status: int,
        body: bytes | memoryview,
        headers: bytes = b"",
        content_type: bytes = b"",
        end: bytes = b"",
    ) -> None:
        self.send(status, b"".join((body, end)), headers, content_type)
