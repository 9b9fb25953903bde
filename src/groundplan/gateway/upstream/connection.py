"""What every way to an upstream offers for one call, and how it tells that it failed. Types only; `http1` and `http2`
are such ways.

Every failure says whether anything was sent (`sent`), because only that decides whether it may have been billed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from groundplan.gateway.stalls import READ_SECONDS

BODY_LIMIT = 64 << 20
UNCOUNTED = 1 << 20
"""Bytes of a body for which nobody is asked for room: nearly all have fewer."""
PLAIN = frozenset({b"", b"identity", b"none"})
"""Content-Encodings of what is not compressed; servers say `none` so that nobody compresses a stream of theirs."""
FOREVER = 1e9
"""Seconds: no bound."""
LEAST = 0.001
"""Seconds that are waited for what is there already."""


Sink = Callable[[bytes], bool]
"""Takes bytes of a body as they arrive; False: whoever waits for `chunk` is to be woken."""


class UpstreamFailure(Exception):
    """An attempt did not give a complete answer.

    `kind`: refused | connect_timeout | timeout | cut | malformed | crowded. `sent` False: certainly not billed.
    `hint`: what to do, where asking again does not help.
    """

    def __init__(self, kind: str, message: str, *, sent: bool, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.sent = sent
        self.hint = hint


def still(left: float) -> float:
    """Seconds to wait of those that are `left`: a moment at least, for what is there already. Raises `UpstreamFailure`
    where that has passed, too: what comes all the time, and is no sign of an answer, is silence."""
    if left <= -READ_SECONDS:
        raise UpstreamFailure("timeout", "the upstream did not answer in time", sent=True)
    return max(LEAST, left)


class Taker(Protocol):
    """Whoever reads a body that may be large, and sees that there is room for it."""

    async def grown(self, size: int, seconds: float, unless: Callable[[], bool] | None = None) -> int:
        """Returns once there is room for more than the `size` bytes that there are, within `seconds`; of how many they
        may become before it is to be asked again. Nothing is read meanwhile, unless that holds others up."""
        ...


class UpstreamConnection(Protocol):
    """What every way to an upstream offers for one call; `sent` of a failure says whether it may have been billed.

    `until`: of the loop's clock, when its caller was promised an answer. Seconds that somebody may be silent are of the
    time in which he could be heard (`stalls`); that one is not.
    """

    until: float

    @property
    def status(self) -> int:
        """0 until there is a head."""
        ...

    @property
    def headers(self) -> dict[bytes, bytes]: ...

    def send(self, data: bytes) -> None: ...
    async def head(self, seconds: float) -> int: ...
    def pump(self, sink: Sink, seconds: float, through: Sink | None = None) -> None: ...
    async def chunk(self, seconds: float) -> bytes | None: ...
    def whole(self) -> bytes | None: ...
    async def body(self, seconds: float, most: float = FOREVER, taker: Taker | None = None) -> bytes: ...
    def release(self) -> None: ...
    def abort(self) -> None: ...


class Pool(Protocol):
    """The connections to one base URL. `prefix` is the path in front of an endpoint's own."""

    @property
    def prefix(self) -> bytes: ...

    @property
    def host_header(self) -> bytes: ...

    def idle(self) -> UpstreamConnection | None: ...
    async def connect(self, seconds: float, until: float = FOREVER) -> UpstreamConnection: ...
    def drop_idle(self) -> None: ...
    def retire(self) -> None: ...
    def break_off(self, why: str) -> None: ...
    def close(self) -> None: ...
