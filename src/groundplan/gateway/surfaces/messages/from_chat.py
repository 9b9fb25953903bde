"""Messages by way of an upstream's chat: the request in `to_chat`, its answer here, its stream in
`from_chat_stream`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.body import unreadable_body
from groundplan.gateway.surfaces.chat.answer_types import AnswerMessage, parse_completion
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.messages.from_chat_stream import MessagesChatRelay, reported, stop_reason
from groundplan.gateway.surfaces.messages.to_chat import Translation
from groundplan.gateway.surfaces.via_chat import ViaChat, chat_request
from groundplan.ledger.model import Usage

_encode = msgspec.json.Encoder().encode
_arguments = msgspec.json.Decoder(dict[str, Any]).decode
_CUT = ("length", "content_filter")
"""Reasons to finish that come in the middle of something."""


FOR_ABUSE = ("user",)
"""For whom it is asked, by which a provider finds who abuses it: nothing of an answer depends on it. Agents say it in
every request."""


class LazyTranslation:
    """A request's translation, made when it is first needed."""

    __slots__ = ("_body", "_made")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._made: Translation | None = None

    def translation(self) -> Translation:
        """Raises `Invalid`."""
        if self._made is None:
            try:
                self._made = Translation(self._body)
            except msgspec.DecodeError as error:
                raise unreadable_body(error) from error
            except (KeyError, TypeError, AttributeError) as error:
                hint = "See Anthropic's Messages API."
                raise Invalid(f"the body has a wrong field near {error}", code="body_invalid", hint=hint) from error
        return self._made


def translation_of(ask: Ask) -> Translation:
    """Raises `Invalid`."""
    if not isinstance(ask.typed, LazyTranslation):
        raise AssertionError("not a request for a message")
    return ask.typed.translation()


def chat_fields(ask: Ask) -> dict[str, msgspec.Raw]:
    """The request in chat, but for model and caps. Raises `Invalid`."""
    return chat_request(translation_of(ask).fields)


class MessagesByChat(ViaChat):
    """See the module."""

    droppable = FOR_ABUSE

    def chat_fields(self, ask: Ask) -> dict[str, msgspec.Raw]:
        return chat_fields(ask)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """The message that a completion means. Raises `Malformed`."""
        found = parse_completion(data)
        choice = found.choices[0]
        usage = None if found.usage is None else found.usage.usage(normalize_tier(found.service_tier))
        content = _content(choice.message, cut=choice.finish_reason in _CUT)
        called = bool(choice.message.tool_calls)
        reason, sequence = stop_reason(choice.finish_reason, choice.stop_reason, calls=called)
        counted = usage or Usage(input=-(-ask.size // 4), output=-(-len(_encode(content)) // 4))
        message = {
            "id": f"msg_{found.id}",
            "type": "message",
            "role": "assistant",
            "model": found.model or ask.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": reported(counted),
        }
        return UpstreamAnswer(_encode(message), usage)

    def new_relay(self, ask: Ask) -> Relay:
        return MessagesChatRelay(ask.model, ask.size)


def _content(said: AnswerMessage, *, cut: bool) -> list[dict[str, Any]]:
    """The blocks that a message of chat means. A call in which the answer was `cut` off has no arguments that could be
    told as values, so it is left out; why the message ended tells it. Raises `Malformed`."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text} for text in (said.text, said.refusal) if text]
    calls = said.tool_calls or ()
    for number, call in enumerate(calls, 1):
        try:
            arguments = _arguments(call.function.arguments or "{}")
        except DECODE_ERRORS as error:
            if cut and number == len(calls):
                break
            raise Malformed("the upstream called a tool with arguments that are no JSON object") from error
        content.append({"type": "tool_use", "id": call.name, "name": call.function.name, "input": arguments})
    return content
