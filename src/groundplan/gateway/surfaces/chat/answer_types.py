"""What of a chat's answer other surfaces are made of, whole or in chunks, as types."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from groundplan.core.ids import new_id
from groundplan.gateway.call.meter import ReportedUsage
from groundplan.gateway.surfaces.chat.chunk import json_size
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.openai_relay import refuse_unfinished, stream_error
from groundplan.gateway.surfaces.thought_signatures import Extra, marked
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream

NULL = msgspec.Raw(b"null")
_JSON_DELIMITER = re.compile(r'["\\{}\[\]]')
"""What tells where a value of JSON ends."""


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str | None = None
    """JSON; nothing at all for a function that takes nothing, from some servers."""


def _new_call_id() -> str:
    """Of a call of a tool."""
    return f"call_{new_id().hex}"


class ToolCall(msgspec.Struct, frozen=True):
    function: CalledFunction
    id: str | None = None
    extra_content: Extra | None = None

    @property
    def name(self) -> str:
        """Its id elsewhere; a new one each time where the upstream gave it none, as Gemini's OpenAI-shaped API does."""
        return marked(self.id or _new_call_id(), self.extra_content)


class Part(msgspec.Struct, frozen=True):
    """Of a content that is no text but is made of parts, as models that reason say it at Mistral."""

    type: str
    text: str | None = None
    thinking: msgspec.Raw = NULL


Content = str | list[Part] | None


def content_text(content: Content) -> str:
    """The text of a content. Raises `Malformed` where a part is neither a text nor what was thought."""
    if not isinstance(content, list):
        return content or ""
    for part in content:
        if part.type not in ("text", "thinking"):
            raise Malformed(f"the upstream's answer has a part of type {part.type[:40]}")
    return "".join(part.text or "" for part in content if part.type == "text")


class AnswerMessage(msgspec.Struct, frozen=True):
    content: Content = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        """Raises `Malformed`."""
        return content_text(self.content)


class Choice(msgspec.Struct, frozen=True):
    message: AnswerMessage
    index: int = 0
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Any = None


class Completion(msgspec.Struct, frozen=True):
    choices: list[Choice]
    id: str = ""
    model: str = ""
    created: int = 0
    usage: ReportedUsage | None = None
    service_tier: Any = None


class FunctionDelta(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: FunctionDelta = FunctionDelta()
    extra_content: Extra | None = None

    @property
    def size(self) -> int:
        """Bytes of what it says."""
        return len((self.function.name or "").encode()) + len((self.function.arguments or "").encode())


class _ArgumentsScanner:
    """Whether an object of JSON that comes in pieces is there whole; each piece is read once."""

    __slots__ = ("_depth", "_escapes", "_quoted", "whole")

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escapes = False
        """It ends within a string; behind a sign that takes the meaning of the next one."""
        self.whole = False

    def read(self, text: str) -> None:
        at = int(self._escapes and bool(text))
        self._escapes = self._escapes and not text
        while (found := _JSON_DELIMITER.search(text, at)) is not None:
            sign, at = found[0], found.end()
            if sign == "\\":
                self._escapes = self._quoted and at == len(text)
                at += self._quoted
            elif sign == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if sign in "{[" else -1
                self.whole = self._depth == 0


class ToolCallSequencer:
    """Pieces of tool calls, one call after the other and each under a number of its own: some servers mix the pieces of
    several calls, others give every call the number 0.

    A call waits while the one before it has no whole arguments yet; it is told at the end at the latest.
    """

    __slots__ = ("_count", "_ids", "_numbers", "_open", "_said", "_waiting")

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        """Ours, of the newest call under each of the server's."""
        self._count = 0
        self._ids: set[str] = set()
        self._open = -1
        """Number of the call that is told."""
        self._said = _ArgumentsScanner()
        """What it is made with, so far."""
        self._waiting: dict[int, list[ToolCallDelta]] = {}

    def after(self, piece: ToolCallDelta) -> list[ToolCallDelta]:
        """What can be told after one more piece."""
        id = piece.id
        if self._begins(piece):
            self._ids.add(piece.id or "")
            self._numbers[piece.index] = self._count
            self._count += 1
            id = piece.id or _new_call_id()
        number = self._numbers[piece.index]
        piece = ToolCallDelta(number, id and marked(id, piece.extra_content), piece.function)
        if number < self._open and not (piece.function.arguments or "").strip():
            return []  # an empty one to end a call that was told whole
        if number != self._open:
            self._waiting.setdefault(number, []).append(piece)
            return self._next()
        self._said.read(piece.function.arguments or "")
        return [piece, *self._next()] if self._waiting else [piece]

    def _begins(self, piece: ToolCallDelta) -> bool:
        """Whether it is the first one of a call. One that has a name and no id is, where the call under its number is
        whole: without ids nothing else tells them apart."""
        number, named = self._numbers.get(piece.index), bool(piece.function.name)
        if number is None or (named and piece.id):
            return number is None or piece.id not in self._ids
        more = bool((piece.function.arguments or "").strip())
        return named and more and number == self._open and self._said.whole

    def rest(self) -> list[ToolCallDelta]:
        """What is left: no more comes."""
        return self._next(last=True) if self._waiting else []

    def _next(self, *, last: bool = False) -> list[ToolCallDelta]:
        found: list[ToolCallDelta] = []
        while self._waiting and (last or self._open < 0 or self._said.whole):
            self._open = min(self._waiting)
            pieces = self._waiting.pop(self._open)
            self._said = _ArgumentsScanner()
            for piece in pieces:
                self._said.read(piece.function.arguments or "")
            found += pieces
        return found


class Delta(msgspec.Struct, frozen=True):
    content: Content = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    reasoning_content: msgspec.Raw = NULL
    reasoning: msgspec.Raw = NULL

    @property
    def thought(self) -> int:
        """Bytes of what is reasoned, which other surfaces do not tell; it is paid for all the same."""
        parts = self.content if isinstance(self.content, list) else []
        return sum(map(json_size, (self.reasoning_content, self.reasoning, *(part.thinking for part in parts))))

    @property
    def text(self) -> str:
        """Raises `Malformed`."""
        return content_text(self.content)


class ChoiceDelta(msgspec.Struct, frozen=True):
    delta: Delta | None = None
    index: int = 0
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Any = None


class Chunk(msgspec.Struct, frozen=True):
    id: str = ""
    model: str = ""
    created: int = 0
    choices: list[ChoiceDelta] = []
    usage: ReportedUsage | None = None
    error: msgspec.Raw = NULL
    service_tier: Any = None


_completion = msgspec.json.Decoder(Completion).decode
_chunk = msgspec.json.Decoder(Chunk).decode


def parse_completion(data: bytes) -> Completion:
    """A whole answer with one choice at least. Raises `Malformed`."""
    found = decode_upstream(_completion, data)
    if not found.choices:
        raise Malformed("the upstream's answer has no content")
    for choice in found.choices:
        refuse_unfinished(choice.finish_reason)
    return found


def parse_chunk(data: bytes) -> Chunk:
    """One event of a stream. Raises `Malformed`, also for an error in it."""
    found = decode_upstream(_chunk, data, STREAM)
    if bytes(found.error) != b"null":
        raise stream_error(data)
    for choice in found.choices:
        if choice.finish_reason:
            refuse_unfinished(choice.finish_reason)
    return found
