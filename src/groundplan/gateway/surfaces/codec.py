"""The protocols of codecs, which translate one surface for one kind of upstream, and of relays, which pass one stream
on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask


class Malformed(Exception):
    """An upstream's answer breaks the rules of its API; the message says how."""


class DeniedAnswer(Malformed):
    """A well-formed answer that a guardrail refuses; `error` says which."""

    def __init__(self, error: Denied) -> None:
        super().__init__(error.message)
        self.error = error


class ErrorAnswer(Malformed):
    """An upstream's error in an answer of status 200; `data` is the body or event that reports it."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


class UpstreamAnswer(msgspec.Struct, frozen=True):
    """A whole, parsed answer: its bytes for the client, and the usage where the upstream reported any."""

    data: bytes
    usage: Usage | None
    kind: bytes = b""
    """The Content-Type header line where the answer is not JSON."""


class Relay(Protocol):
    """The state of one stream on its way from an upstream to the client."""

    @property
    def usage(self) -> Usage | None:
        """The usage that the upstream reported last."""
        ...

    @property
    def output_bytes(self) -> int:
        """UTF-8 bytes of the answer so far: never fewer than its tokens."""
        ...

    @property
    def done(self) -> bool:
        """Whether the upstream said that nothing follows."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the answer reached its end, so that it may be settled as good."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take in one event of the upstream and return the events to send to the client. Raises `Malformed`.

        The last event of the stream is held back, so that `closing_events` can put the facts into it.
        """
        ...

    def closing_events(self, facts: bytes) -> bytes:
        """The events that end the stream once the call is settled; `facts` is the `groundplan` object."""
        ...

    def error_event(self, reason: str, call_id: str) -> bytes:
        """A well-formed error event, to end a stream of which the client has a part already."""
        ...


def final_usage(relay: Relay) -> Usage | None:
    """The usage that the upstream reported at the end of the stream; None before the end. Some upstreams report
    progress with each chunk, which is not what they bill for an answer that the client abandoned."""
    return relay.usage if relay.complete or relay.done else None


class Codec(Protocol):
    """Translates one surface's requests and answers for one kind of upstream."""

    translated: bool
    """Whether the upstream is reached through the local translating service."""

    def path(self, deployment: Deployment) -> bytes:
        """The path below the deployment's base URL."""
        ...

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The body for the upstream: the caller's own bytes with few, listed splices. `cap`: tokens of the answer;
        `system`: texts of the workload's, put before the caller's own."""
        ...

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Parse a whole answer of status 200. Raises `Malformed`."""
        ...

    def new_relay(self, ask: Ask) -> Relay:
        """A relay for a new stream."""
        ...
