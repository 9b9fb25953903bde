"""Messages as upstreams speak them that have Anthropic's API themselves: bytes pass, a few fields are spliced in.

Anthropic's `input_tokens` leave out what the cache read and wrote; our totals hold them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics.prices.provider_usage import MessagesUsage
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.http.sse import append_field, format_named_event
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.messages.errors import shaped
from groundplan.gateway.surfaces.openai_relay import stream_error
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream, refuse_encoding
from groundplan.gateway.upstream.translation import call_ids
from groundplan.ledger.model import Usage

_encode = msgspec.json.Encoder().encode
_blocks = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Whole(msgspec.Struct, frozen=True):
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
    """As it begins: a tool has its name, thoughts that are not shown have all of their data."""

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


class _Counted(msgspec.Struct, frozen=True):
    input_tokens: int


_whole = msgspec.json.Decoder(_Whole).decode
_event = msgspec.json.Decoder(_Event).decode
_thinking = msgspec.json.Decoder(_Thinking).decode
_counted = msgspec.json.Decoder(_Counted).decode


def broken(reason: str, call_id: str) -> bytes:
    """The error event of a stream of which the client has a part."""
    message, hint = f"the answer broke off: {reason}", "What came so far is all there is; ask again."
    return format_named_event("error", shaped("api_error", message, call_id, code="stream_broken", hint=hint))


class MessagesRelay:
    """A stream of Anthropic's events on its way to the client: the last one is held, usage is added up."""

    __slots__ = ("_held", "_reported", "_stopped", "done", "output_bytes", "usage")

    def __init__(self) -> None:
        self._held: bytes | None = None
        self._reported: MessagesUsage | None = None
        self._stopped = False
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Events for the client after one more of the upstream's. Raises `Malformed`."""
        found = decode_upstream(_event, data, STREAM)
        if not found.type.isidentifier():
            raise Malformed("the upstream's stream has an event without a name")
        if found.type == "error":
            raise stream_error()
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
        return format_named_event(found.type, data)

    def _end(self, found: _Event) -> None:
        if found.usage is not None:
            self._reported = found.usage.after(self._reported)
            self.usage = self._reported.usage() or self.usage
        if found.delta is not None and found.delta.stop_reason:
            self._stopped = True

    @property
    def complete(self) -> bool:
        return self._stopped

    def closing_events(self, facts: bytes) -> bytes:
        """The event that ends it, with the facts; made here where the upstream left it out."""
        return format_named_event(
            "message_stop", append_field(self._held or b'{"type":"message_stop"}', b"groundplan", facts)
        )

    def error_event(self, reason: str, call_id: str) -> bytes:
        return broken(reason, call_id)


class AnthropicMessages:
    """See the module."""

    translated = False

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/messages"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The caller's bytes with model, max_tokens and leading system blocks spliced in. Raises `Invalid` for thinking
        that has no room below the cap."""
        changes: dict[str, bytes | None] = {"model": _encode(deployment.upstream_model)}
        if ask.cap != cap:
            _check_room(ask, cap)
            changes["max_tokens"] = b"%d" % cap
        if system:
            changes["system"] = _system(ask, system)
        given = bytes(ask.fields["messages"])
        plain = thought_signatures.without(given)
        if (told := call_ids.for_anthropic(plain or given) or plain) is not None:
            changes["messages"] = told
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """A whole answer. Raises `Malformed`."""
        found = decode_upstream(_whole, data)
        refuse_encoding(data)
        if found.type != "message":
            raise Malformed("the upstream's answer has no content")
        return UpstreamAnswer(data, found.usage.usage() if found.usage is not None else None)

    def new_relay(self, ask: Ask) -> Relay:  # noqa: ARG002 -- the protocol's signature
        return MessagesRelay()


def _check_room(ask: Ask, cap: int) -> None:
    """Every provider refuses to think as much as it may answer, or more; it is we who lowered that."""
    if (budget := thinking_budget(ask)) >= cap:
        raise Invalid(
            f"an answer may have {cap} tokens here, and thinking.budget_tokens is {budget}",
            code="thinking_above_cap",
            hint="Lower thinking.budget_tokens, or raise max_tokens as far as `limits.max_output` of the workload and "
            "`max_output` of the deployment let it.",
        )


def thinking_budget(ask: Ask) -> int:
    """Tokens that it may think; 0 where it says none, or what nobody reads: whoever is asked says what is wrong."""
    thinking = ask.fields.get("thinking")
    try:
        return 0 if thinking is None else _thinking(thinking).budget_tokens
    except msgspec.DecodeError:
        return 0


def _system(ask: Ask, system: list[str]) -> bytes:
    """The system field with ours in front of the caller's own."""
    lead: list[Any] = [{"type": "text", "text": text} for text in system]
    raw = bytes(ask.fields.get("system", b"null"))
    if raw.startswith(b"["):
        lead += _blocks(raw)
    elif raw.startswith(b'"') and raw != b'""':
        lead.append({"type": "text", "text": msgspec.Raw(raw)})
    return _encode(lead)


class TokenCount(AnthropicMessages):
    """`/messages/count_tokens` of such an upstream."""

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/messages/count_tokens"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:  # noqa: ARG002
        return replace_fields(ask.body, ask.fields, {"model": _encode(deployment.upstream_model)})

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """Raises `Malformed`."""
        decode_upstream(_counted, data)
        return UpstreamAnswer(data, Usage())
