"""What of a chat's answer other surfaces are made of, whole or in chunks, as types."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import msgspec

from groundplan.gateway.call.meter import ReportedUsage
from groundplan.gateway.surfaces.interface import Malformed
from groundplan.gateway.surfaces.upstream_json import STREAM, understood

NULL = msgspec.Raw(b"null")


class Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str | None = None
    """JSON; nothing at all for a function that takes nothing, from some servers."""


class Call(msgspec.Struct, frozen=True):
    id: str
    function: Function


class Said(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct, frozen=True):
    message: Said
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


class PieceOfFunction(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class PieceOfCall(msgspec.Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: PieceOfFunction = PieceOfFunction()

    def another(self, ids: Set[str]) -> bool:
        """Whether it begins a call that is none of those with `ids`, whatever its number: some servers give every call
        the number 0."""
        return bool(self.id and self.function.name) and self.id not in ids


class Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[PieceOfCall] | None = None
    reasoning_content: msgspec.Raw = NULL
    reasoning: msgspec.Raw = NULL

    @property
    def thought(self) -> int:
        """Bytes of what is reasoned, which other surfaces do not tell; it is paid for all the same."""
        return sum(len(bytes(raw)) for raw in (self.reasoning_content, self.reasoning) if bytes(raw) != b"null")


class PieceOfChoice(msgspec.Struct, frozen=True):
    delta: Delta | None = None
    index: int = 0
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Any = None


class Chunk(msgspec.Struct, frozen=True):
    id: str = ""
    model: str = ""
    created: int = 0
    choices: list[PieceOfChoice] = []
    usage: ReportedUsage | None = None
    error: msgspec.Raw = NULL
    service_tier: Any = None


_completion = msgspec.json.Decoder(Completion).decode
_chunk = msgspec.json.Decoder(Chunk).decode


def completion(data: bytes) -> Completion:
    """A whole answer with one choice at least. Raises `Malformed`."""
    found = understood(_completion, data)
    if not found.choices:
        raise Malformed("the upstream's answer has no content")
    return found


def chunk(data: bytes) -> Chunk:
    """One event of a stream. Raises `Malformed`, also for an error in it."""
    found = understood(_chunk, data, STREAM)
    if bytes(found.error) != b"null":
        raise Malformed("the upstream reported an error in its stream")
    return found
