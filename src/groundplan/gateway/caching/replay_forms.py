"""Decides for each surface whether an answer is complete, so that it may be given again, and converts it between its
two forms: a whole body, and the events of a stream.

A form is converted only if nothing is lost: an answer with anything unknown here is left as it came. Pure; `cache`
decides what is kept, and for whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from groundplan.gateway.http.sse import DONE
from groundplan.gateway.http.strict_json import DECODE_ERRORS

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any]).decode

_COMPLETE_REASONS = frozenset({"stop", "tool_calls", "function_call"})
"""Finish reasons of a complete answer; `length` and `content_filter` mean that it was cut."""
_COMPLETE_STOPS = frozenset({"end_turn", "tool_use", "stop_sequence"})
_HEAD = ("id", "created", "model", "system_fingerprint", "service_tier")
_TEXTS = ("content", "refusal", "reasoning_content")


class ReplayForms(Protocol):
    """The replay rules of one surface."""

    ignored_fields: frozenset[str]
    """Fields of a request that its answer does not depend on, or that are compared otherwise (cap, copies)."""

    def is_complete(self, data: bytes, copies: int) -> bool:
        """Whether a whole answer is complete."""
        ...

    def is_complete_stream(self, events: Sequence[bytes], copies: int) -> bool:
        """Whether a stream is complete."""
        ...

    def converts(self, *, stream: bool) -> bool:
        """Whether an answer that came as a stream (`stream`), or whole, can be converted to the other form."""
        ...

    def to_events(self, data: bytes) -> tuple[bytes, ...] | None:
        """A whole answer as the upstream could have streamed it, usage included; None where something would be
        lost."""
        ...

    def to_whole(self, events: Sequence[bytes]) -> bytes | None:
        """A stream as the upstream could have answered at once; None where something would be lost."""
        ...


class _WouldLose(Exception):
    """The conversion would lose something."""


_UNKNOWN_SHAPE = (*DECODE_ERRORS, _WouldLose, LookupError, TypeError, AttributeError)
"""Exceptions that an answer of unknown shape raises."""


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Ends(msgspec.Struct):
    choices: list[_Choice] = []


_ends = msgspec.json.Decoder(_Ends).decode


def _check_rest_empty(fields: dict[str, Any], known: Sequence[str]) -> None:
    """Raise `_WouldLose` if any unknown field has a value."""
    for name, value in fields.items():
        if name not in known and value not in (None, [], {}):
            raise _WouldLose


class _SingleForm:
    """The rules of a surface whose answers are never converted."""

    def converts(self, *, stream: bool) -> bool:  # noqa: ARG002 -- the protocol's signature
        return False

    def to_events(self, data: bytes) -> tuple[bytes, ...] | None:  # noqa: ARG002 -- the protocol's signature
        return None

    def to_whole(self, events: Sequence[bytes]) -> bytes | None:  # noqa: ARG002 -- the protocol's signature
        return None


class ChatReplayForms:
    """Chat completions."""

    ignored_fields = frozenset(
        {
            "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "metadata", "store", "stream",
            "stream_options", "max_tokens", "max_completion_tokens", "n",
        }
    )  # fmt: skip

    def is_complete(self, data: bytes, copies: int) -> bool:
        try:
            choices = _ends(data).choices
        except DECODE_ERRORS:
            return False
        return len(choices) == copies and all(choice.finish_reason in _COMPLETE_REASONS for choice in choices)

    def is_complete_stream(self, events: Sequence[bytes], copies: int) -> bool:
        ends: dict[int, str] = {}
        try:
            for data in events:
                if data != DONE:
                    ends.update({c.index: c.finish_reason for c in _ends(data).choices if c.finish_reason})
        except DECODE_ERRORS:
            return False
        return len(ends) == copies and _COMPLETE_REASONS.issuperset(ends.values())

    def converts(self, *, stream: bool) -> bool:  # noqa: ARG002 -- the protocol's signature
        return True

    def to_events(self, data: bytes) -> tuple[bytes, ...] | None:
        try:
            return tuple(_chunks_of(_object(data)))
        except _UNKNOWN_SHAPE:
            return None

    def to_whole(self, events: Sequence[bytes]) -> bytes | None:
        try:
            return _encode(_answer_of([_object(data) for data in events if data != DONE]))
        except _UNKNOWN_SHAPE:
            return None


class EmbeddingsReplayForms(_SingleForm):
    """Embeddings, which are never streamed."""

    ignored_fields = frozenset({"user"})

    def is_complete(self, data: bytes, copies: int) -> bool:  # noqa: ARG002 -- the protocol's signature
        return True

    def is_complete_stream(self, events: Sequence[bytes], copies: int) -> bool:  # noqa: ARG002
        return False


class _Stop(msgspec.Struct):
    stop_reason: str | None = None


class _MessageEvent(msgspec.Struct):
    type: str = ""
    delta: _Stop | None = None


_stop = msgspec.json.Decoder(_Stop).decode
_message_event = msgspec.json.Decoder(_MessageEvent).decode


class MessagesReplayForms(_SingleForm):
    """Anthropic's Messages."""

    ignored_fields = frozenset({"metadata", "stream", "max_tokens"})

    def is_complete(self, data: bytes, copies: int) -> bool:  # noqa: ARG002 -- the protocol's signature
        try:
            return _stop(data).stop_reason in _COMPLETE_STOPS
        except DECODE_ERRORS:
            return False

    def is_complete_stream(self, events: Sequence[bytes], copies: int) -> bool:
        """Whether a stream of an upstream that speaks Messages, or chat completions, is complete."""
        try:
            found = [_message_event(data) for data in events if data != DONE]
        except DECODE_ERRORS:
            return False
        if not found or not found[0].type:
            return CHAT_REPLAY_FORMS.is_complete_stream(events, copies)
        stops = [each.delta.stop_reason for each in found if each.type == "message_delta" and each.delta is not None]
        return found[-1].type == "message_stop" and bool(stops) and stops[-1] in _COMPLETE_STOPS


class CompletionsReplayForms(_SingleForm):
    """The older completions, from an upstream's own endpoint or from its chat."""

    ignored_fields = frozenset({"user", "stream", "stream_options", "max_tokens"})

    def is_complete(self, data: bytes, copies: int) -> bool:  # noqa: ARG002 -- `best_of` makes more than are told
        try:
            choices = _ends(data).choices
        except DECODE_ERRORS:
            return False
        return bool(choices) and all(choice.finish_reason == "stop" for choice in choices)

    def is_complete_stream(self, events: Sequence[bytes], copies: int) -> bool:  # noqa: ARG002
        try:
            ends = [c.finish_reason for data in events if data != DONE for c in _ends(data).choices if c.finish_reason]
        except DECODE_ERRORS:
            return False
        return bool(ends) and all(end == "stop" for end in ends)


class _Response(msgspec.Struct):
    status: str | None = None


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    response: msgspec.Raw = msgspec.Raw(b"{}")


_response = msgspec.json.Decoder(_Response).decode
_response_event = msgspec.json.Decoder(_ResponseEvent).decode


class ResponsesReplayForms(_SingleForm):
    """OpenAI's Responses. An answer repeats its request's settings, so these fields are not ignored: `user` and
    `metadata` of one client never reach another. A native stream can also be given whole."""

    ignored_fields = frozenset({"store", "stream", "stream_options"})

    def is_complete(self, data: bytes, copies: int) -> bool:  # noqa: ARG002 -- the protocol's signature
        try:
            return _response(data).status == "completed"
        except DECODE_ERRORS:
            return False

    def is_complete_stream(self, events: Sequence[bytes], copies: int) -> bool:
        """Whether a stream of an upstream that speaks Responses, or chat completions, is complete. vLLM ends a cut
        answer with the event `completed`, and only the response in it says otherwise."""
        try:
            found = [_response_event(data) for data in events if data != DONE]
        except DECODE_ERRORS:
            return False
        if not found or not found[0].type:
            return CHAT_REPLAY_FORMS.is_complete_stream(events, copies)
        return found[-1].type == "response.completed" and self.is_complete(bytes(found[-1].response), copies)

    def converts(self, *, stream: bool) -> bool:
        return stream

    def to_whole(self, events: Sequence[bytes]) -> bytes | None:
        try:
            found = [_response_event(data) for data in events if data != DONE]
        except DECODE_ERRORS:
            return None
        return bytes(found[-1].response) if found and found[-1].type == "response.completed" else None


# a whole chat answer as chunks ----------------------------------------------------------------------------------------


def _chunks_of(answer: dict[str, Any]) -> list[bytes]:
    _check_rest_empty(answer, (*_HEAD, "object", "choices", "usage"))
    head = {name: answer[name] for name in _HEAD if name in answer} | {"object": "chat.completion.chunk"}
    chunks: list[dict[str, Any]] = []
    for choice in answer["choices"]:
        _check_rest_empty(choice, ("index", "message", "finish_reason", "logprobs"))
        index = choice["index"]
        text = {"index": index, "delta": _delta(choice["message"]), "finish_reason": None}
        if choice.get("logprobs") is not None:
            text["logprobs"] = choice["logprobs"]
        chunks.append({**head, "choices": [text]})
    for choice in answer["choices"]:
        end = {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
        chunks.append({**head, "choices": [end]})
    chunks.append({**head, "choices": [], "usage": answer["usage"]})
    return [*map(_encode, chunks), DONE]


def _delta(message: dict[str, Any]) -> dict[str, Any]:
    _check_rest_empty(message, ("role", "tool_calls", *_TEXTS))
    delta = {name: value for name, value in message.items() if value not in (None, [])}
    if delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(message["tool_calls"])]
    return {"role": "assistant", **delta}


# chunks as a whole chat answer ----------------------------------------------------------------------------------------


def _answer_of(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    head: dict[str, Any] = {}
    usage = None
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        _check_rest_empty(chunk, (*_HEAD, "object", "choices", "usage", "obfuscation"))
        head = {name: chunk[name] for name in _HEAD if chunk.get(name) is not None} | head
        usage = chunk.get("usage") or usage
        for part in chunk.get("choices") or []:
            index = part["index"]
            choice = choices.setdefault(index, {"index": index, "message": {"role": "assistant", "content": None}})
            _add_choice_chunk(choice, part)
    if usage is None or not choices:
        raise _WouldLose
    ordered = [choices[index] for index in sorted(choices)]
    return {**head, "object": "chat.completion", "choices": ordered, "usage": usage}


def _add_choice_chunk(choice: dict[str, Any], part: dict[str, Any]) -> None:
    _check_rest_empty(part, ("index", "delta", "finish_reason", "logprobs"))
    message, delta = choice["message"], part.get("delta") or {}
    _check_rest_empty(delta, ("role", "tool_calls", *_TEXTS))
    for name in _TEXTS:
        if delta.get(name) is not None:
            message[name] = (message.get(name) or "") + delta[name]
    for call in delta.get("tool_calls") or []:
        _add_tool_call_chunk(message.setdefault("tool_calls", []), call)
    for name, found in (part.get("logprobs") or {}).items():
        if found:
            choice.setdefault("logprobs", {}).setdefault(name, []).extend(found)
    if part.get("finish_reason") is not None:
        choice["finish_reason"] = part["finish_reason"]


def _add_tool_call_chunk(calls: list[dict[str, Any]], part: dict[str, Any]) -> None:
    _check_rest_empty(part, ("index", "id", "type", "function"))
    index = part["index"]
    if index == len(calls):
        calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
    call, function = calls[index], part.get("function") or {}
    _check_rest_empty(function, ("name", "arguments"))
    if part.get("id") and call["id"] not in (None, part["id"]):
        raise _WouldLose  # another call under the same number
    for name in ("id", "type"):
        if part.get(name):
            call[name] = part[name]
    for name in ("name", "arguments"):
        call["function"][name] += function.get(name) or ""


CHAT_REPLAY_FORMS = ChatReplayForms()
EMBEDDINGS_REPLAY_FORMS = EmbeddingsReplayForms()
MESSAGES_REPLAY_FORMS = MessagesReplayForms()
COMPLETIONS_REPLAY_FORMS = CompletionsReplayForms()
RESPONSES_REPLAY_FORMS = ResponsesReplayForms()
