"""Continues a stream that broke after its first byte: whether that is possible, and what the next deployment is asked.

How the streams of each surface are continued is in the package `resuming`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO

from msgspec.structs import replace

from groundplan.gateway.call.ask import NO_NAMES, Ask
from groundplan.gateway.resuming import chat, completions, messages, responses
from groundplan.gateway.resuming.continued_relay import ContinuedRelay, SentAnswer
from groundplan.gateway.surfaces.codec import Relay
from groundplan.ledger.model import Usage


@dataclass(frozen=True, slots=True)
class SurfaceContinuation:
    """How the streams of one surface are continued."""

    obstacle: Callable[[Ask], str]
    """Why the stream of a request cannot be continued; empty where it can."""
    rest_request: Callable[[Ask, SentAnswer, int], Ask]
    """(request, what was sent, most tokens of the whole answer) -> the request for the rest of the answer."""
    relay: type[ContinuedRelay]


_SURFACES = {
    chat.ENDPOINT: SurfaceContinuation(chat.obstacle, chat.rest_request, chat.ContinuedChat),
    completions.ENDPOINT: SurfaceContinuation(
        completions.obstacle, completions.rest_request, completions.ContinuedCompletion
    ),
    messages.ENDPOINT: SurfaceContinuation(messages.obstacle, messages.rest_request, messages.ContinuedMessage),
    responses.ENDPOINT: SurfaceContinuation(responses.obstacle, responses.rest_request, responses.ContinuedResponse),
}


@dataclass(slots=True)
class Continuation:
    """What an exchange keeps so that its stream can continue elsewhere. `ask` is the caller's own request."""

    ask: Ask
    request_obstacle: str
    """Why the request itself rules a continuation out; empty where it does not."""
    surface: SurfaceContinuation
    sent: SentAnswer | None = None
    left_out: frozenset[str] = NO_NAMES
    """Names of what is left out of the parts that were sent; see `Ask.left_out`."""

    def relay(self, inner: Relay) -> ContinuedRelay:
        """The relay for a new stream of the call: the first is passed on unchanged and remembered, later ones continue
        it."""
        return self.surface.relay(inner, self.sent)

    def obstacle(self, relay: Relay) -> str:
        """Why the broken stream of `relay` cannot be continued; empty where it can."""
        if self.request_obstacle:
            return self.request_obstacle
        if not isinstance(relay, ContinuedRelay):
            return ""
        if relay.has_unreadable_event:
            return "an event of it was not what its API promises"
        return relay.sent.obstacle if relay.sent is not None else ""

    def record_broken(self, relay: Relay, usage: Usage) -> None:
        """Remember what a broken stream had sent, and the usage of its attempt."""
        sent = relay.sent if isinstance(relay, ContinuedRelay) else None
        if sent is not None:
            self.sent = replace(sent, usage=sent.usage + usage)

    def rest_request(self, most: int, mask: Callable[[str], str] | None = None) -> Ask:
        """The client's request for the rest of the answer. The whole answer may have `most` output tokens, or fewer
        where the caller says so. `mask` masks again what guardrails had masked before the text was sent."""
        sent = self.sent
        if sent is None or not (sent.text or sent.text_events):
            return self.ask
        if mask is not None:
            sent = replace(sent, text_buffer=StringIO(mask(sent.text)))
        cap = most if self.ask.cap is None else min(self.ask.cap, most)
        return self.surface.rest_request(self.ask, sent, cap)


def can_continue(endpoint: str) -> bool:
    """Whether streams of this surface can be continued."""
    return endpoint in _SURFACES


def begin_continuation(ask: Ask, endpoint: str = chat.ENDPOINT) -> Continuation:
    """A continuation for a stream that has not begun, of a workload that resumes streams."""
    form = _SURFACES[endpoint]
    return Continuation(ask, form.obstacle(ask), form)
