"""How a surface is spoken to a deployment, and a whole stream of it: what each codec and each relay keeps to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask


class Malformed(Exception):
    """An upstream's answer is not what its API promises; the message says what is wrong with it."""


class Stopped(Malformed):
    """An answer that the upstream gave as promised, and that a check refuses."""

    def __init__(self, error: Denied) -> None:
        super().__init__(error.message)
        self.error = error


class Declined(Malformed):
    """An answer of status 200 that is an error: `data` says which."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


class Answered(msgspec.Struct, frozen=True):
    """A whole answer that was understood: its bytes for the client, and usage where the upstream reported any."""

    data: bytes
    usage: Usage | None
    kind: bytes = b""
    """Header line of its Content-Type, where it is no JSON."""


class Relay(Protocol):
    """State of one stream on its way to the client."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def output_bytes(self) -> int:
        """UTF-8 bytes of the answer so far: no fewer than its tokens."""
        ...

    @property
    def done(self) -> bool:
        """The upstream said that nothing follows."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the answer reached its end, so that it may be settled as good."""
        ...

    def take(self, data: bytes) -> bytes:
        """Events for the client after one more event of the upstream. Raises `Malformed`.

        The last event that the client gets anyway is held back, so that `last` can put the facts into it.
        """
        ...

    def last(self, facts: bytes) -> bytes:
        """The rest of the stream once the call is settled; `facts` is the `groundplan` object."""
        ...

    def broken(self, reason: str, call_id: str) -> bytes:
        """The end of a stream of which the client has a part already: a well-formed error event."""
        ...


def final_usage(relay: Relay) -> Usage | None:
    """What the upstream said at the end of a stream that it used. Some say with each chunk how far they are, which is
    not what they bill for an answer that nobody waited for."""
    return relay.usage if relay.complete or relay.done else None


class Codec(Protocol):
    """One surface as one kind of upstream speaks it."""

    translated: bool
    """The upstream's provider is reached through the local translating service."""

    def path(self, deployment: Deployment) -> bytes:
        """Below the deployment's base URL."""
        ...

    def forward(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """Body for the upstream: the caller's own bytes but for listed splices."""
        ...

    def answer(self, data: bytes, ask: Ask) -> Answered:
        """A whole answer of status 200. Raises `Malformed`."""
        ...

    def relay(self, ask: Ask) -> Relay:
        """A new stream."""
        ...
