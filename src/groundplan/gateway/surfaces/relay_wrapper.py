"""A relay around another one, which sees or changes what that gives the client. Everything else is the inner one's."""

from __future__ import annotations

from groundplan.gateway.surfaces.codec import Relay
from groundplan.ledger.model import Usage


class RelayWrapper:
    """Obeys `Relay`; whoever stands around another relay says what `take` and `last` do with its bytes."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Relay) -> None:
        self._inner = inner

    @property
    def innermost(self) -> Relay:
        """The one around which all others stand."""
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

    def take(self, data: bytes) -> bytes:
        return self._inner.take(data)

    def last(self, facts: bytes) -> bytes:
        return self._inner.last(facts)

    def broken(self, reason: str, call_id: str) -> bytes:
        return self._inner.broken(reason, call_id)
