"""Chunks of a chat stream with a whole `message`. Pure.

In place of deltas, as some local servers send it, it is one. Where it repeats what deltas said, in each chunk as
Perplexity's or in the last one as MiniMax's, it is removed: a text that guardrails have changed must not leave in a
repetition of it.
"""

from __future__ import annotations

import msgspec

from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream

_MESSAGE = b'"message"'
_ESCAPE = b"\\u"
_NULL = msgspec.Raw(b"null")
_EMPTY = msgspec.Raw(b"{}")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_encode = msgspec.json.Encoder().encode
_Fields = dict[str, msgspec.Raw]


class WholeMessages:
    """Of one stream: whether its messages stand in place of deltas."""

    __slots__ = ("_replace_deltas",)

    def __init__(self) -> None:
        self._replace_deltas = False

    def as_deltas(self, data: bytes, has_output: bool) -> list[bytes] | None:
        """The chunks with deltas alone that say the same: the text of a message that ends comes in one of its own, so
        that it can be checked before the end. None: the chunk has no message. `has_output`: deltas said something
        before. Raises `Malformed`."""
        if _MESSAGE not in data and _ESCAPE not in data:  # a name may be written with escapes
            return None
        fields = decode_upstream(_fields, data, STREAM)
        if bytes(raw := fields.get("choices", _NULL)) == b"null":
            return None
        choices = decode_upstream(_objects, bytes(raw), STREAM)
        if not any("message" in choice for choice in choices):
            return None
        if not has_output and any(_is_lone(choice) for choice in choices):
            self._replace_deltas = True
        ended = [_ending(choice) for choice in choices if self._replace_deltas and _is_lone(choice) and _ends(choice)]
        told = [self._with_delta(choice) for choice in choices]
        if not ended:
            return [_chunk(fields, told)]
        first = [{**choice, "finish_reason": _NULL} for choice in told]
        return [_chunk({name: raw for name, raw in fields.items() if name != "usage"}, first), _chunk(fields, ended)]

    def _with_delta(self, choice: _Fields) -> _Fields:
        rest = {name: raw for name, raw in choice.items() if name != "message"}
        if not _is_lone(choice):
            return rest
        return {**rest, "delta": _numbered(choice["message"]) if self._replace_deltas else _EMPTY}


def _is_lone(choice: _Fields) -> bool:
    """Whether a choice has a message and no delta."""
    return "message" in choice and bytes(choice.get("delta", _NULL)) == b"null"


def _ends(choice: _Fields) -> bool:
    return bytes(choice.get("finish_reason", _NULL)) != b"null"


def _ending(choice: _Fields) -> _Fields:
    """A choice with nothing but how it ended."""
    return {**{name: raw for name, raw in choice.items() if name not in ("message", "logprobs")}, "delta": _EMPTY}


def _chunk(fields: _Fields, choices: list[_Fields]) -> bytes:
    return _encode({**fields, "choices": choices})


def _numbered(message: msgspec.Raw) -> msgspec.Raw:
    """A message with numbered calls, as clients put the calls of a stream together by their numbers."""
    if b'"tool_calls"' not in bytes(message):
        return message
    fields = decode_upstream(_fields, bytes(message), STREAM)
    if bytes(fields.get("tool_calls", _NULL)) == b"null":
        return message
    calls = decode_upstream(_objects, bytes(fields["tool_calls"]), STREAM)
    numbered = [{"index": msgspec.Raw(b"%d" % number), **call} for number, call in enumerate(calls)]
    return msgspec.Raw(_encode({**fields, "tool_calls": numbered}))
