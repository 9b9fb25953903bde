"""A relay that wraps another one, to see or change what it sends to the client. The rest is delegated."""

from __future__ import annotations

from groundplan.gateway.surfaces.codec import Relay
from groundplan.ledger.model import Usage


class RelayWrapper:
    """A `Relay` that delegates to an inner one; subclasses override `feed` and `closing_events` to change its bytes."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Relay) -> None:
        self._inner = inner

    @property
    def innermost(self) -> Relay:
        """The relay inside all wrappers."""
        return self._inner.innermost if isinstance(self._inner, RelayWrapper) else self._inner

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def output_bytes(self) -> int:
        return self._inner.output_bytes

    @property
    def done(self) -> bool:
        return self._inner.done

    @property
    def complete(self) -> bool:
        return self._inner.complete

    def feed(self, data: bytes) -> bytes:
        return self._inner.feed(data)

    def closing_events(self, facts: bytes) -> bytes:
        return self._inner.closing_events(facts)

    def error_event(self, reason: str, call_id: str) -> bytes:
        return self._inner.error_event(reason, call_id)
