"""The codec and relay for upstreams with Anthropic's own API: bytes pass, a few fields are spliced in.

Anthropic's `input_tokens` leave out what the cache read and wrote; our totals include them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics.prices.provider_usage import MessagesUsage
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.http.sse import MAX_EVENT, append_field, format_named_event
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.messages.errors import error_json
from groundplan.gateway.surfaces.messages.web_citations import without_foreign_citations
from groundplan.gateway.surfaces.openai_relay import stream_error
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream, refuse_encoding
from groundplan.gateway.upstream.translation import call_ids
from groundplan.ledger.model import Usage

_PENDING_TYPES = frozenset({"message_start", "ping"})
"""Types of events that are sent as soon as a request is accepted, and while it waits for a model."""
_encode = msgspec.json.Encoder().encode
_blocks = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Message(msgspec.Struct, frozen=True):
    type: str
    content: list[msgspec.Raw]
    usage: MessagesUsage | None = None


class _Start(msgspec.Struct, frozen=True):
    usage: MessagesUsage | None = None


class _Delta(msgspec.Struct, frozen=True):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    stop_reason: str | None = None

    def size(self) -> int:
        return sum(len(text.encode()) for text in (self.text, self.partial_json, self.thinking) if text)


class _Block(msgspec.Struct, frozen=True):
    """A content block as it begins: a tool use has its name, redacted thinking all of its data."""

    name: str | None = None
    text: str | None = None
    data: str | None = None

    def size(self) -> int:
        return sum(len(text.encode()) for text in (self.name, self.text, self.data) if text)


class _Event(msgspec.Struct, frozen=True):
    type: str
    content_block: _Block | None = None
    message: _Start | None = None
    delta: _Delta | None = None
    usage: MessagesUsage | None = None


class _Thinking(msgspec.Struct, frozen=True):
    budget_tokens: int = 0


class _TokenCount(msgspec.Struct, frozen=True):
    input_tokens: int


_message = msgspec.json.Decoder(_Message).decode
_event = msgspec.json.Decoder(_Event).decode
_thinking = msgspec.json.Decoder(_Thinking).decode
_token_count = msgspec.json.Decoder(_TokenCount).decode


def error_event(reason: str, call_id: str) -> bytes:
    """The error event that ends a stream of which the client has a part."""
    message, hint = f"the answer broke off: {reason}", "What came so far is all there is; ask again."
    return format_named_event("error", error_json("api_error", message, call_id, code="stream_broken", hint=hint))


class MessagesRelay:
    """Passes a stream of Anthropic's events on to the client: holds the last one back, and merges usage reports."""

    __slots__ = ("_early_events", "_held", "_reported", "_stopped", "done", "output_bytes", "usage")

    def __init__(self) -> None:
        self._early_events: bytes | None = b""
        """Events before the answer begins, held back; None: the answer has begun."""
        self._held: bytes | None = None
        self._reported: MessagesUsage | None = None
        self._stopped = False
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Take in one event of the upstream and return the events to send to the client. Raises `Malformed`."""
        found = decode_upstream(_event, data, STREAM)
        if not found.type.isidentifier():
            raise Malformed("the upstream's stream has an event without a name")
        if found.type == "error":
            raise stream_error(b"" if self._early_events is None else data)
        if found.type == "message_stop":
            self._held, self.done = data, True
            return b""
        if found.type == "message_start" and found.message is not None:
            self._reported = found.message.usage
        elif found.type == "message_delta":
            self._end(found)
        elif found.delta is not None:
            self.output_bytes += found.delta.size()
        elif found.content_block is not None:
            self.output_bytes += found.content_block.size()
        event_bytes = format_named_event(found.type, data)
        return event_bytes if self._early_events is None else self._hold_early(found.type, event_bytes)

    def _hold_early(self, kind: str, event_bytes: bytes) -> bytes:
        early = self._early_events or b""
        if kind in _PENDING_TYPES and len(early) < MAX_EVENT:
            self._early_events = early + event_bytes
            return b""
        self._early_events = None
        return early + event_bytes

    def _end(self, found: _Event) -> None:
        if found.usage is not None:
            self._reported = found.usage.completed_by(self._reported)
            self.usage = self._reported.usage() or self.usage
        if found.delta is not None and found.delta.stop_reason:
            self._stopped = True

    @property
    def complete(self) -> bool:
        return self._stopped

    def closing_events(self, facts: bytes) -> bytes:
        """Events still held back, and the final event with the facts; built here where the upstream sent none."""
        return (self._early_events or b"") + format_named_event(
            "message_stop", append_field(self._held or b'{"type":"message_stop"}', b"groundplan", facts)
        )

    def error_event(self, reason: str, call_id: str) -> bytes:
        return error_event(reason, call_id)


class AnthropicMessages:
    """The codec for upstreams with Anthropic's own API."""

    translated = False

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/messages"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The caller's bytes with model, max_tokens and leading system blocks spliced in. Raises `Invalid` where the
        thinking budget does not fit below the cap."""
        changes = _model_and_messages(ask, deployment)
        if ask.cap != cap:
            _check_thinking_budget(ask, cap)
            changes["max_tokens"] = b"%d" % cap
        if system:
            changes["system"] = _system_field(ask, system)
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """Parse a whole answer. Raises `Malformed`."""
        found = decode_upstream(_message, data)
        refuse_encoding(data)
        if found.type != "message":
            raise Malformed("the upstream's answer has no content")
        return UpstreamAnswer(data, found.usage.usage() if found.usage is not None else None)

    def new_relay(self, ask: Ask) -> Relay:  # noqa: ARG002 -- the protocol's signature
        return MessagesRelay()


def _model_and_messages(ask: Ask, deployment: Deployment) -> dict[str, bytes | None]:
    """The model, and the messages where they contain what another provider's answer brought in: signatures, ids and
    citations that Anthropic does not know."""
    changes: dict[str, bytes | None] = {"model": _encode(deployment.upstream_model)}
    given = bytes(ask.fields["messages"])
    plain = without_foreign_citations(given)
    plain = thought_signatures.without_signatures(plain or given) or plain
    if (told := call_ids.with_anthropic_ids(plain or given) or plain) is not None:
        changes["messages"] = told
    return changes


def _check_thinking_budget(ask: Ask, cap: int) -> None:
    """Raise `Invalid` for a thinking budget at or above the cap, which every provider refuses: it is the gateway that
    lowered the cap."""
    if (budget := thinking_budget(ask)) >= cap:
        raise Invalid(
            f"an answer may have {cap} tokens here, and thinking.budget_tokens is {budget}",
            code="thinking_above_cap",
            hint="Lower thinking.budget_tokens, or raise max_tokens as far as `limits.max_output` of the workload and "
            "`max_output` of the deployment let it.",
        )


def thinking_budget(ask: Ask) -> int:
    """The thinking budget in tokens; 0 where there is none, or an invalid one, which the upstream will refuse."""
    thinking = ask.fields.get("thinking")
    try:
        return 0 if thinking is None else _thinking(thinking).budget_tokens
    except msgspec.DecodeError:
        return 0


def _system_field(ask: Ask, system: list[str]) -> bytes:
    """The `system` field with the workload's texts before the caller's own."""
    lead: list[Any] = [{"type": "text", "text": text} for text in system]
    raw = bytes(ask.fields.get("system", b"null"))
    if raw.startswith(b"["):
        lead += _blocks(raw)
    elif raw.startswith(b'"') and raw != b'""':
        lead.append({"type": "text", "text": msgspec.Raw(raw)})
    return _encode(lead)


class TokenCount(AnthropicMessages):
    """The codec of `/messages/count_tokens` for these upstreams."""

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/messages/count_tokens"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:  # noqa: ARG002
        return replace_fields(ask.body, ask.fields, _model_and_messages(ask, deployment))

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """Raises `Malformed`."""
        decode_upstream(_token_count, data)
        return UpstreamAnswer(data, Usage())
