"""Serves Messages by an upstream's chat: whole answers are translated here, requests in `to_chat`, streams in
`from_chat_stream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.call.ask import Ask, note_left_out
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.body import unreadable_body
from groundplan.gateway.surfaces.chat.annotations import (
    UrlCitation,
    names_of_uncited,
    pages_once,
    url_citations,
    with_pages,
)
from groundplan.gateway.surfaces.chat.answer_types import AnswerMessage, ToolCall, parse_completion
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.messages.from_chat_stream import (
    CUSTOM_INPUT,
    MessagesChatRelay,
    message_usage,
    stop_reason,
)
from groundplan.gateway.surfaces.messages.to_chat import API, DEFAULT_EFFORT, Translation
from groundplan.gateway.surfaces.messages.web_citations import message_citation
from groundplan.gateway.surfaces.via_chat import ViaChat, chat_request
from groundplan.gateway.upstream import providers
from groundplan.ledger.model import Usage

_encode = msgspec.json.Encoder().encode
_arguments = msgspec.json.Decoder(dict[str, Any]).decode
_CUT_OFF = ("length", "content_filter")
"""Finish reasons of answers that were cut off."""


ABUSE_FIELDS = ("user",)
"""Fields that name the end user, by which a provider finds abuse. They do not affect the answer, and agents send them
in every request."""


class LazyTranslation:
    """A request's translation, made when it is first needed."""

    __slots__ = ("_body", "_translation")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._translation: Translation | None = None

    def translation(self) -> Translation:
        """The request translated to chat. Raises `Invalid`."""
        if self._translation is None:
            try:
                self._translation = Translation(self._body)
            except msgspec.DecodeError as error:
                raise unreadable_body(error, API) from error
        return self._translation


def translation_of(ask: Ask) -> Translation:
    """The request translated to chat. Raises `Invalid`."""
    if not isinstance(ask.parsed, LazyTranslation):
        raise AssertionError("not a request for a message")
    return ask.parsed.translation()


def chat_fields(ask: Ask) -> dict[str, msgspec.Raw]:
    """The fields of the chat request, without model and caps. Raises `Invalid`."""
    return chat_request(translation_of(ask).fields)


class MessagesByChat(ViaChat):
    """The codec for upstreams that serve messages by their chat."""

    droppable = ABUSE_FIELDS

    def chat_fields(self, ask: Ask, deployment: Deployment) -> dict[str, msgspec.Raw]:
        fields = chat_fields(ask)
        if translation_of(ask).asks_default_effort and providers.takes_effort(deployment):
            fields["reasoning_effort"] = msgspec.Raw(_encode(DEFAULT_EFFORT))
        return fields

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Translate a chat completion into a message. Raises `Malformed`."""
        found = parse_completion(data)
        choice = found.choices[0]
        annotated, pages = url_citations(choice.message.annotations), found.pages
        cited = with_pages(annotated, pages_once(pages)) if choice.message.text else []
        note_left_out(
            ask, [*found.left_out, *choice.message.untranslated(), *names_of_uncited(annotated, pages, cited)]
        )
        usage = None if found.usage is None else found.usage.usage(normalize_tier(found.service_tier))
        content = _content_blocks(choice.message, cited, cut=choice.finish_reason in _CUT_OFF)
        called = bool(choice.message.known_calls)
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
            "usage": message_usage(counted, normalize_tier(found.service_tier)),
        }
        return UpstreamAnswer(_encode(message), usage)

    def new_relay(self, ask: Ask) -> Relay:
        return MessagesChatRelay(ask.model, ask.size, ask.left_out)


def _content_blocks(message: AnswerMessage, cited: Sequence[UrlCitation] = (), *, cut: bool) -> list[dict[str, Any]]:
    """The content blocks of a chat message; `cited`: the web pages that its text cites. A tool call in which the answer
    was `cut` off has no complete arguments, so it is left out; the stop reason tells. Raises `Malformed`."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text} for text in (message.text, message.refusal) if text]
    if message.text and cited:
        content[0]["citations"] = [message_citation(citation) for citation in cited]
    calls = message.known_calls
    for number, call in enumerate(calls, 1):
        is_cut = cut and number == len(calls)
        try:
            name, given = _name_and_input(call, cut=is_cut)
        except DECODE_ERRORS as error:
            if is_cut:
                break
            raise Malformed("the upstream called a tool with arguments that are no JSON object") from error
        if given is not None:
            content.append({"type": "tool_use", "id": call.call_id, "name": name, "input": given})
    return content


def _name_and_input(call: ToolCall, *, cut: bool) -> tuple[str, dict[str, Any] | None]:
    """The name and the input of a call; None: the text of a custom tool in which the answer was `cut` off, of which
    nothing tells whether it is complete. Raises `DECODE_ERRORS` for arguments that are no object."""
    if call.function is not None:
        return call.function.name, _arguments(call.arguments or "{}")
    if call.custom is None:
        raise AssertionError("not a known call")
    return call.custom.name, None if cut else {CUSTOM_INPUT: call.custom.input}
