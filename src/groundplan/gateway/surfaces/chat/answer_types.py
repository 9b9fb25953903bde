"""Types of chat answers, whole and in chunks, as far as other surfaces are translated from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from groundplan.core.ids import new_id
from groundplan.economics.prices.provider_usage import ChatUsage
from groundplan.gateway.surfaces.chat.annotations import ANNOTATIONS_LEFT_OUT, UrlCitation, has_others, listed_pages
from groundplan.gateway.surfaces.chat.call_ids import with_text_ids
from groundplan.gateway.surfaces.chat.chunk import NULL, json_size
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.openai_relay import refuse_unfinished
from groundplan.gateway.surfaces.thought_signatures import Extra, signed_id
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream

EMPTY_SIZE = len('""')
"""Bytes of an empty text or list."""
_is_name = re.compile(r"[A-Za-z0-9_.-]{1,40}", re.ASCII).fullmatch
_FINISH_REASONS = {
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "sensitive": "content_filter",
}
"""Finish reasons of Mistral and Z.ai that say in other words that an answer was cut off."""
_JSON_DELIMITER = re.compile(r'["\\{}\[\]]')
"""Characters that decide where a JSON value ends."""
CALLS_LEFT_OUT = "answer.tool_calls"


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: Any = None
    """JSON, or the object itself, as some servers send it; None or empty from some for a function without arguments."""


class CalledCustomTool(msgspec.Struct, frozen=True):
    """A call of a tool whose input is any text."""

    name: str
    input: str = ""


def _new_call_id() -> str:
    """A new id for a tool call."""
    return f"call_{new_id().hex}"


def _arguments_text(arguments: Any) -> str:
    """Arguments of a function as JSON; empty where there are none."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else _encode(arguments).decode()


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a function or of a custom tool; with neither it is of a kind that no other API has."""

    function: CalledFunction | None = None
    custom: CalledCustomTool | None = None
    id: str | None = None
    extra_content: Extra | None = None

    @property
    def call_id(self) -> str:
        """The call's id in other APIs, with its signature; a new one each time where the upstream gave none, as
        Gemini's OpenAI-shaped API does."""
        return signed_id(self.id or _new_call_id(), self.extra_content)

    @property
    def arguments(self) -> str:
        """A function's arguments as JSON; empty where there are none."""
        return "" if self.function is None else _arguments_text(self.function.arguments)


class Part(msgspec.Struct, frozen=True):
    """A part of a content that is a list, as Mistral's models send it; `summary`: reasoning at Databricks. Those of
    other types may have anything."""

    type: Any = ""
    text: Any = None
    thinking: msgspec.Raw = NULL
    summary: msgspec.Raw = NULL


REASONING_PARTS = ("thinking", "reasoning")
"""Types of parts with reasoning, of Mistral and Databricks."""
Content = str | list[Part] | None


_LEFT_OUT_OF_MESSAGES = ("images", "audio", "extra_content", "function_call", "executed_tools", "context")
_LEFT_OUT_OF_ANSWERS = ("prompt_filter_results", "search_results")
"""Fields that other APIs do not have, of messages and of whole answers and chunks."""


class _MessageFields(msgspec.Struct, frozen=True):
    """What a whole message and its pieces in a stream have in common. `images`: what Gemini's models draw, as Google,
    OpenRouter and `any-llm` send it; `extra_content`: a provider's own, such as the signature of a text;
    `function_call`: the only call of a function that OpenAI's first API had; `executed_tools`: what ran at Groq;
    `context`: what Azure found in documents of its own."""

    content: Content = None
    refusal: str | None = None
    annotations: msgspec.Raw = NULL
    reasoning_content: msgspec.Raw = NULL
    reasoning: msgspec.Raw = NULL
    images: msgspec.Raw = NULL
    audio: msgspec.Raw = NULL
    extra_content: msgspec.Raw = NULL
    function_call: msgspec.Raw = NULL
    executed_tools: msgspec.Raw = NULL
    context: msgspec.Raw = NULL

    @property
    def text(self) -> str:
        """The text, without reasoning and whatever else the content has."""
        if not isinstance(self.content, list):
            return self.content or ""
        return "".join(part.text for part in self.content if part.type == "text" and isinstance(part.text, str))

    @property
    def reasoning_bytes(self) -> int:
        """Bytes of reasoning, which other surfaces do not send on, but which is billed all the same."""
        return sum(map(json_size, self._reasoning))

    @property
    def _reasoning(self) -> list[msgspec.Raw]:
        parts = self.content if isinstance(self.content, list) else []
        return [
            self.reasoning_content,
            self.reasoning,
            *(raw for part in parts for raw in (part.thinking, part.summary)),
        ]

    @property
    def _is_plain(self) -> bool:
        """Whether there is nothing but texts and tool calls, as in nearly every piece of a stream."""
        return not isinstance(self.content, list) and (
            self.reasoning_content is self.reasoning is self.annotations is self.images is self.audio is NULL
            and self.extra_content is self.function_call is self.executed_tools is self.context is NULL
        )

    def untranslated(self, *, cites: bool = True) -> list[str]:
        """Names, for `groundplan.left_out`, of what Messages, Responses and Completions have no field for. `cites`:
        whether the API has one for web pages."""
        if self._is_plain:
            return []
        found = ["answer.reasoning"] if any(json_size(raw) > EMPTY_SIZE for raw in self._reasoning) else []
        found += _present(self, _LEFT_OUT_OF_MESSAGES)
        if json_size(self.annotations) > EMPTY_SIZE and not (cites and not has_others(self.annotations)):
            found.append(ANNOTATIONS_LEFT_OUT)
        for part in self.content if isinstance(self.content, list) else ():
            if part.type not in ("text", *REASONING_PARTS):
                named = isinstance(part.type, str) and _is_name(part.type)
                found.append(f"answer.{part.type}" if named else "answer.content")
            elif part.type == "text" and part.text is not None and not isinstance(part.text, str):
                found.append("answer.content")
        return found


def _present(value: msgspec.Struct, names: Iterable[str]) -> list[str]:
    """Names, for `groundplan.left_out`, of those of the fields that have a value which is not empty."""
    return [f"answer.{name}" for name in names if json_size(getattr(value, name)) > EMPTY_SIZE]


class AnswerMessage(_MessageFields, frozen=True):
    tool_calls: list[ToolCall] | None = None

    @property
    def known_calls(self) -> list[ToolCall]:
        """The calls of functions and custom tools."""
        return [call for call in self.tool_calls or () if call.function is not None or call.custom is not None]

    def untranslated(self, *, cites: bool = True) -> list[str]:
        found = _MessageFields.untranslated(self, cites=cites)
        return found if len(self.known_calls) == len(self.tool_calls or ()) else [*found, CALLS_LEFT_OUT]


class _Ended(msgspec.Struct, frozen=True):
    """What a whole choice and its pieces in a stream have in common. `content_filter_results`: what Azure's filters
    say."""

    reported_index: int | None = msgspec.field(default=0, name="index")
    reported_finish_reason: str | None = msgspec.field(default=None, name="finish_reason")
    stop_reason: Any = None
    content_filter_results: msgspec.Raw = NULL

    @property
    def index(self) -> int:
        return self.reported_index or 0

    @property
    def finish_reason(self) -> str | None:
        """The finish reason in OpenAI's words, where they have one for it."""
        return _FINISH_REASONS.get(self.reported_finish_reason or "", self.reported_finish_reason)


class Choice(_Ended, frozen=True, kw_only=True):
    message: AnswerMessage


class _Answer(msgspec.Struct, frozen=True):
    """What a whole answer and its chunks have in common. Some servers send no id, model or time, or another type: that
    is no reason to lose the answer. `reported_left_out`: what the local translating service left out of a provider's
    answer; `citations`, `search_results`: see `listed_pages`; `prompt_filter_results`: what Azure's filters say."""

    reported_id: Any = msgspec.field(default="", name="id")
    reported_model: Any = msgspec.field(default="", name="model")
    reported_created: Any = msgspec.field(default=0, name="created")
    usage: ChatUsage | None = None
    service_tier: Any = None
    system_fingerprint: Any = None
    reported_left_out: Any = msgspec.field(default=None, name="left_out")
    citations: msgspec.Raw = NULL
    search_results: msgspec.Raw = NULL
    prompt_filter_results: msgspec.Raw = NULL

    @property
    def id(self) -> str:
        """The id; empty if there is none."""
        return self.reported_id if isinstance(self.reported_id, str) else str(self.reported_id or "")

    @property
    def model(self) -> str:
        """The model's name; empty if there is none."""
        return self.reported_model if isinstance(self.reported_model, str) else ""

    @property
    def created(self) -> int:
        """Seconds since the epoch; 0 if there is no time."""
        return int(self.reported_created) if isinstance(self.reported_created, (int, float)) else 0

    @property
    def pages(self) -> list[UrlCitation]:
        """See `listed_pages`."""
        if self.citations is self.search_results is NULL:
            return []
        return listed_pages(self.citations, self.search_results)

    def _names_left_out(self, choices: Sequence[_Ended]) -> list[str]:
        """Names for `Ask.left_out`, without those of messages and of `citations`; a field `left_out` with which an
        upstream means something else has none."""
        names = self.reported_left_out
        found = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        if self.search_results is not NULL or self.prompt_filter_results is not NULL:
            found += _present(self, _LEFT_OUT_OF_ANSWERS)
        for choice in choices:
            if choice.content_filter_results is not NULL:
                found += _present(choice, ("content_filter_results",))
        return found


class Completion(_Answer, frozen=True, kw_only=True):
    choices: list[Choice]

    @property
    def left_out(self) -> list[str]:
        """See `_names_left_out`."""
        return self._names_left_out(self.choices)


class FunctionDelta(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: Any = None
    """A piece of JSON; the whole object from some servers."""


class CustomToolDelta(msgspec.Struct, frozen=True):
    name: str | None = None
    input: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A piece of a call of a function or of a custom tool; one with neither says nothing of them."""

    index: int | None = None
    """None: the server numbers no calls, as Google's, or not each piece."""
    id: str | None = None
    function: FunctionDelta | None = None
    extra_content: Extra | None = None
    custom: CustomToolDelta | None = None
    type: Any = None

    @property
    def name(self) -> str:
        """The tool's name; empty in all pieces but the first."""
        called = self.function or self.custom
        return "" if called is None else called.name or ""

    @property
    def text(self) -> str:
        """The arguments or the input in this piece."""
        if self.function is not None:
            return _arguments_text(self.function.arguments)
        return "" if self.custom is None else self.custom.input or ""

    @property
    def size(self) -> int:
        """Bytes of the name and the text in this piece."""
        return len(self.name.encode()) + len(self.text.encode())


class _ArgumentsScanner:
    """Tells when a JSON object that arrives in pieces is complete; scans each piece once."""

    __slots__ = ("_depth", "_escapes", "_quoted", "complete")

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escapes = False
        """Whether the text so far ends within a string, and behind a backslash that escapes the next character."""
        self.complete = False

    def read(self, text: str) -> None:
        position = int(self._escapes and bool(text))
        self._escapes = self._escapes and not text
        while (found := _JSON_DELIMITER.search(text, position)) is not None:
            delimiter, position = found[0], found.end()
            if delimiter == "\\":
                self._escapes = self._quoted and position == len(text)
                position += self._quoted
            elif delimiter == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if delimiter in "{[" else -1
                self.complete = self._depth == 0


class ToolCallSequencer:
    """Puts the pieces of tool calls in order, one call after the other, each call with an index of its own: some
    servers interleave the pieces of several calls, others give every call the index 0.

    A call waits until the arguments of the one before it are complete, or until `drain`.
    """

    __slots__ = ("_call_count", "_newest_by_index", "_open_arguments", "_open_call", "_seen_ids", "_waiting")

    def __init__(self) -> None:
        self._newest_by_index: dict[int | None, int] = {}
        """Our index of the newest call, by the server's index; that of the newest of all by None."""
        self._call_count = 0
        self._seen_ids: set[str] = set()
        self._open_call = -1
        """Our index of the call whose pieces are passed on now."""
        self._open_arguments = _ArgumentsScanner()
        """Scans the arguments of the open call."""
        self._waiting: dict[int, list[ToolCallDelta]] = {}

    def feed(self, piece: ToolCallDelta) -> list[ToolCallDelta]:
        """Take in one piece and return those that can be passed on now."""
        id = piece.id
        if self._is_first_delta(piece):
            self._seen_ids.add(piece.id or "")
            self._newest_by_index[piece.index] = self._newest_by_index[None] = self._call_count
            self._call_count += 1
            id = piece.id or _new_call_id()
        number = self._newest_by_index.get(piece.index, self._call_count - 1)
        piece = ToolCallDelta(number, id and signed_id(id, piece.extra_content), piece.function, custom=piece.custom)
        if number < self._open_call and not piece.text.strip():
            return []  # an empty piece to end a call that was passed on completely
        if number != self._open_call:
            self._waiting.setdefault(number, []).append(piece)
            return self._release()
        self._scan(piece)
        return [piece, *self._release()] if self._waiting else [piece]

    def _scan(self, piece: ToolCallDelta) -> None:
        """Scan a piece of the open call. The input of a custom tool has no end that could be known: it never counts as
        complete."""
        if piece.function is not None:
            self._open_arguments.read(_arguments_text(piece.function.arguments))

    def _is_first_delta(self, piece: ToolCallDelta) -> bool:
        """Whether a piece is the first of a call. One with a name and no id is, if the call under its index is
        complete: without ids nothing else tells calls apart."""
        number, named = self._newest_by_index.get(piece.index), bool(piece.name)
        if number is None and self._call_count and not (named or piece.id):
            return False  # the rest of the newest call, under another number than its beginning
        if number is None or (named and piece.id):
            return number is None or piece.id not in self._seen_ids
        return named and bool(piece.text.strip()) and number == self._open_call and self._open_arguments.complete

    def drain(self) -> list[ToolCallDelta]:
        """Return the pieces that still wait: no more will come."""
        return self._release(last=True) if self._waiting else []

    def _release(self, *, last: bool = False) -> list[ToolCallDelta]:
        found: list[ToolCallDelta] = []
        while self._waiting and (last or self._open_call < 0 or self._open_arguments.complete):
            self._open_call = min(self._waiting)
            pieces = self._waiting.pop(self._open_call)
            self._open_arguments = _ArgumentsScanner()
            for piece in pieces:
                self._scan(piece)
            found += pieces
        return found


class Delta(_MessageFields, frozen=True):
    tool_calls: list[ToolCallDelta] | None = None


class ChoiceDelta(_Ended, frozen=True, kw_only=True):
    delta: Delta | None = None


class Chunk(_Answer, frozen=True, kw_only=True):
    choices: list[ChoiceDelta] = []
    error: msgspec.Raw = NULL

    @property
    def left_out(self) -> list[str]:
        """See `_names_left_out`."""
        return self._names_left_out(self.choices)


_encode = msgspec.json.Encoder().encode
_completion = msgspec.json.Decoder(Completion).decode
_chunk = msgspec.json.Decoder(Chunk).decode


def parse_completion(data: bytes) -> Completion:
    """Parse a whole answer with at least one choice. Raises `Malformed`."""
    found = decode_upstream(_completion, with_text_ids(data))
    if not found.choices:
        raise Malformed("the upstream's answer has no content")
    for choice in found.choices:
        refuse_unfinished(choice.finish_reason)
    return found


def parse_chunk(data: bytes) -> Chunk:
    """Parse one event of a stream. Raises `Malformed`; an error event is for `refuse_failure`."""
    return decode_upstream(_chunk, with_text_ids(data, STREAM), STREAM)
