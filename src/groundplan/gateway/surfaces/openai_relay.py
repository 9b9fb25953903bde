"""What the relays of OpenAI-shaped streams share: how a stream ends, which answers are errors, and how an interrupted
one is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from groundplan.economics.prices.provider_usage import ChatUsage, normalize_tier
from groundplan.gateway.http.chunk_template import ChunkTemplate
from groundplan.gateway.http.errors import error_body, message_with_hint
from groundplan.gateway.http.sse import DONE, format_event
from groundplan.gateway.surfaces.codec import ErrorAnswer, Malformed
from groundplan.gateway.upstream.provider_refusals import is_error_chunk
from groundplan.ledger.model import Usage

_UNFINISHED = frozenset({"error", "abort", "network_error", "overloaded_error", "insufficient_system_resource"})
"""Values of `finish_reason` that say an answer of status 200 was not finished: in the words of OpenRouter, LiteLLM and
Mistral, of vLLM and SGLang where they are stopped, of Z.ai, Portkey and DeepSeek."""


def stream_error(data: bytes = b"") -> Malformed:
    """The exception for an error that the upstream reported in its stream; `data` is the event that reports it."""
    return ErrorAnswer("the upstream reported an error in its stream", data)


def refuse_unfinished(reason: object) -> None:
    """Raise `Malformed` where a `finish_reason` says that the upstream could not finish its answer."""
    if isinstance(reason, str) and reason in _UNFINISHED:
        raise Malformed(f"the upstream did not finish its answer: {reason}")


class _Choice(Protocol):
    @property
    def finish_reason(self) -> str | None: ...


class _Chunk(Protocol):
    @property
    def choices(self) -> Sequence[_Choice]: ...
    @property
    def usage(self) -> ChatUsage | None: ...
    @property
    def error(self) -> msgspec.Raw: ...


class _Reporting(Protocol):
    usage: Usage | None
    done: bool


def refuse_failure(relay: _Reporting, chunk: _Chunk, data: bytes, tier: object, *, copies: int = 1) -> None:
    """Raise `Malformed` where `chunk`, read from `data`, says that the answer failed; the usage that it reports is what
    the provider bills, as nothing follows. `tier`: the service tier that the upstream named last."""
    if bytes(chunk.error) != b"null" or (not chunk.choices and is_error_chunk(data)):
        _take_last_usage(relay, chunk.usage, tier)
        raise stream_error(data)
    try:
        for choice in chunk.choices:
            if choice.finish_reason:
                refuse_unfinished(choice.finish_reason)
    except Malformed:
        if copies == 1:  # of several, some upstreams report the usage of each by itself
            _take_last_usage(relay, chunk.usage, tier)
        raise


def _take_last_usage(relay: _Reporting, report: ChatUsage | None, tier: object) -> None:
    usage = None if report is None else report.usage(normalize_tier(tier))
    if usage is not None and usage.input:  # zeros only fill the field: the prompt was read
        relay.usage, relay.done = usage, True


class OpenAIRelay:
    """A `Relay`. Subclasses say what one event gives the client, when the answer is complete, and how it ends."""

    __slots__ = ("done", "output_bytes", "template", "usage")

    def __init__(self) -> None:
        self.template: ChunkTemplate | None = None
        """What chunks with nothing but a text look like; None: not known, or no more such chunks may come."""
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.done = False

    def try_pass_through(self, data: bytes) -> bool:
        """Whether `data` from the upstream is whole events that can be sent on as they came, without parsing each; if
        so, their text is counted."""
        size = -1 if self.template is None else self.template.text_bytes(data)
        if size < 0:
            return False
        self.output_bytes += size
        return True

    def feed(self, data: bytes) -> bytes:
        """Take in one event of the upstream and return the events to send to the client. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        return self._feed(data)

    def _feed(self, data: bytes) -> bytes:
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        raise NotImplementedError

    def closing_events(self, facts: bytes) -> bytes:
        raise NotImplementedError

    def error_event(self, reason: str, call_id: str) -> bytes:
        """An error event for a client that has a part of the answer already: the rest will not come."""
        hint = "What came so far is all there is; ask again."
        message = f"the answer broke off: {reason}"
        return format_event(
            error_body(message_with_hint(message, hint), "stream_broken", hint, "api_error", call_id=call_id)
        )
