"""What the relays of OpenAI's streams have in common: how a stream ends, which answers are errors, and how a broken one
is reported.
"""

from __future__ import annotations

from groundplan.gateway.http.chunk_template import ChunkTemplate
from groundplan.gateway.http.errors import error_body, worded
from groundplan.gateway.http.sse import DONE, event
from groundplan.gateway.surfaces.codec import Declined, Malformed
from groundplan.ledger.model import Usage

_UNFINISHED = frozenset({"error", "abort", "network_error", "overloaded_error", "insufficient_system_resource"})
"""Why answers of status 200 end that were not finished, in the words of OpenRouter, LiteLLM and Mistral, of vLLM and
SGLang where they are stopped, of Z.ai, Portkey and DeepSeek."""


def failed(data: bytes = b"") -> Malformed:
    """`data`: the event that says so."""
    return Declined("the upstream reported an error in its stream", data)


def refuse_unfinished(reason: object) -> None:
    """Raise `Malformed` for an answer of which its upstream says that it could not finish it."""
    if isinstance(reason, str) and reason in _UNFINISHED:
        raise Malformed(f"the upstream did not finish its answer: {reason}")


class OpenAIRelay:
    """Obeys `Relay`. Subclasses say what one event gives the client, when the answer is complete, and how it ends."""

    __slots__ = ("done", "output_bytes", "template", "usage")

    def __init__(self) -> None:
        self.template: ChunkTemplate | None = None
        """What chunks with nothing but a text look like; None: not known, or there are to be no more of them."""
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.done = False

    def passes(self, data: bytes) -> bool:
        """Whether `data`, which the upstream sent, is whole events that go on as they came without a look at each;
        then they are counted."""
        size = -1 if self.template is None else self.template.text_bytes(data)
        if size < 0:
            return False
        self.output_bytes += size
        return True

    def take(self, data: bytes) -> bytes:
        """Events for the client after one more of the upstream's. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        return self._take(data)

    def _take(self, data: bytes) -> bytes:
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        raise NotImplementedError

    def last(self, facts: bytes) -> bytes:
        raise NotImplementedError

    def broken(self, reason: str, call_id: str) -> bytes:
        """The client has a part already: tell it that the rest will not come."""
        hint = "What came so far is all there is; ask again."
        message = f"the answer broke off: {reason}"
        return event(error_body(worded(message, hint), "stream_broken", hint, "api_error", call_id=call_id))
