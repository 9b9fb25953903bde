"""The interface of an upstream connection and of a pool of them, and the error of a failed attempt. Types only; `http1`
and `http2` implement them.

Every failure says whether anything was sent (`sent`), because only that decides whether it may have been billed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from groundplan.gateway.stalls import READ_SECONDS

BODY_LIMIT = 64 << 20
UNRESERVED_BYTES = 1 << 20
"""Bytes of a body, or of an event of a stream, for which no memory is reserved: nearly all are smaller."""
IDENTITY_ENCODINGS = frozenset({b"", b"identity", b"none"})
"""Content-Encodings that mean uncompressed; servers say `none` so that nobody compresses their streams."""
FOREVER = 1e9
"""Seconds: no bound."""
MIN_WAIT_SECONDS = 0.001
"""The shortest wait, for bytes that have arrived already."""


Sink = Callable[[bytes], bool]
"""Takes bytes of a body as they arrive; False wakes the caller that waits in `read_chunk`."""


class UpstreamFailure(Exception):
    """An attempt gave no complete answer.

    `kind`: refused | connect_timeout | timeout | cut | malformed | crowded. `sent` False: certainly not billed. `hint`:
    what to do if asking again does not help. `retry_after`: seconds until asking again may help, where that is known.
    """

    def __init__(
        self, kind: str, message: str, *, sent: bool, hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.sent = sent
        self.hint = hint
        self.retry_after = retry_after


def remaining_wait(remaining: float) -> float:
    """Seconds to wait, at least `MIN_WAIT_SECONDS` for bytes that have arrived already. Raises `UpstreamFailure`
    (timeout) once the `remaining` time and the grace for reading have passed: bytes that keep coming and complete no
    answer count as silence."""
    if remaining <= -READ_SECONDS:
        raise UpstreamFailure("timeout", "the upstream did not answer in time", sent=True)
    return max(MIN_WAIT_SECONDS, remaining)


class BodyMemory(Protocol):
    """Reserves memory for a body, or an event of a stream, that may become large."""

    async def grow(self, size: int, seconds: float, unless: Callable[[], bool] | None = None) -> int:
        """Wait until the body may grow beyond its `size` bytes, for at most `seconds`; return the size up to which it
        may grow without asking again. The caller reads nothing meanwhile, except where `unless` returns true: then
        pausing would hold up others."""
        ...

    def shrink_to(self, size: int) -> None:
        """Release all but `size` bytes."""
        ...


class UpstreamConnection(Protocol):
    """One request to an upstream and its answer. `sent` of a failure says whether the request may have been billed.

    `call_deadline` (loop time): when the caller was promised an answer. Other limits in seconds count only the time in
    which the upstream could be heard (`stalls`); this one does not.
    """

    call_deadline: float

    @property
    def status(self) -> int:
        """0 until the head has arrived."""
        ...

    @property
    def headers(self) -> dict[bytes, bytes]: ...

    @property
    def is_sent(self) -> bool:
        """Whether anything of the request may have reached the upstream that it could work on, and bill."""
        ...

    def check_when_connected(self, check: Callable[[], Awaitable[None]]) -> bool:
        """Run `check` once there is a connection, and before the body of the request is sent; if it raises, the body is
        not sent, and `read_head` raises the same. False, with nothing to be run: it is connected already."""
        ...

    def send(self, data: bytes) -> None: ...
    async def read_head(self, seconds: float) -> int: ...
    def pump(self, sink: Sink, seconds: float, raw_sink: Sink | None = None) -> None: ...
    async def read_chunk(self, seconds: float) -> bytes | None: ...
    def take_buffered_body(self) -> bytes | None: ...
    async def read_body(
        self, seconds: float, max_seconds: float = FOREVER, memory: BodyMemory | None = None
    ) -> bytes: ...
    def blocks_others(self) -> bool:
        """Whether other calls cannot go on because this one is not read."""
        ...

    def release(self) -> None: ...
    def abort(self) -> None: ...


class Pool(Protocol):
    """The connections to one base URL. `prefix` is the path in front of an endpoint's own."""

    @property
    def prefix(self) -> bytes: ...

    @property
    def host_header(self) -> bytes: ...

    def take_idle(self) -> UpstreamConnection | None: ...
    async def connect(self, seconds: float, until: float = FOREVER) -> UpstreamConnection: ...
    def drop_idle(self) -> None: ...
    def retire(self) -> None: ...
    def interrupt(self, reason: str) -> None: ...
    def close(self) -> None: ...
