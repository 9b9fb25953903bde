"""Going on with a stream that broke after its first byte: whether that may be, and what the next deployment is asked.

How each surface's stream goes on is in the room `resuming`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO

from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.resuming import chat, completions, messages, responses
from groundplan.gateway.resuming.story import Continued, Sent
from groundplan.gateway.surfaces.codec import Relay
from groundplan.ledger.model import Usage


@dataclass(frozen=True, slots=True)
class Form:
    """How one surface goes on."""

    forbidden: Callable[[Ask], str]
    """Why a stream that is asked so cannot be continued; empty where it can."""
    rest: Callable[[Ask, Sent, int], Ask]
    """The caller's ask for the rest of the answer, of which the whole may have so many tokens."""
    relay: type[Continued]


_FORMS = {
    chat.ENDPOINT: Form(chat.forbidden, chat.rest, chat.ContinuedChat),
    completions.ENDPOINT: Form(completions.forbidden, completions.rest, completions.ContinuedCompletion),
    messages.ENDPOINT: Form(messages.forbidden, messages.rest, messages.ContinuedMessage),
    responses.ENDPOINT: Form(responses.forbidden, responses.rest, responses.ContinuedResponse),
}


@dataclass(slots=True)
class Continuation:
    """The part of an exchange that lets its stream go on elsewhere. `ask` is the caller's own."""

    ask: Ask
    why_not: str
    """The ask itself forbids it; empty where it does not."""
    form: Form
    sent: Sent | None = None

    def relay(self, inner: Relay) -> Continued:
        """Around a new stream; its first one is passed on as it is, and remembered."""
        return self.form.relay(inner, self.sent)

    def refusal(self, relay: Relay) -> str:
        """Why the broken stream of `relay` cannot be continued; empty where it can."""
        if self.why_not:
            return self.why_not
        if not isinstance(relay, Continued):
            return ""
        if relay.unknown:
            return "an event of it was not what its API promises"
        return relay.sent.seam if relay.sent is not None else ""

    def broke(self, relay: Relay, usage: Usage) -> None:
        """Remember what was sent by a stream that broke and used so much."""
        sent = relay.sent if isinstance(relay, Continued) else None
        if sent is not None:
            self.sent = replace(sent, usage=sent.usage + usage)

    def rest(self, most: int, hide: Callable[[str], str] | None = None) -> Ask:
        """The caller's ask, for the rest of the answer, of which the whole may have `most` output tokens, or fewer
        where the caller says so. `hide`: what of the text a model may see, where guardrails have masked any of it."""
        sent = self.sent
        if sent is None or not (sent.text or sent.pieces):
            return self.ask
        if hide is not None:
            sent = replace(sent, said=StringIO(hide(sent.text)))
        cap = most if self.ask.cap is None else min(self.ask.cap, most)
        return self.form.rest(self.ask, sent, cap)


def goes_on(endpoint: str) -> bool:
    """Whether streams of this surface can be continued."""
    return endpoint in _FORMS


def continuation(ask: Ask, endpoint: str = chat.ENDPOINT) -> Continuation:
    """For a stream of a workload that resumes."""
    form = _FORMS[endpoint]
    return Continuation(ask, form.forbidden(ask), form)
