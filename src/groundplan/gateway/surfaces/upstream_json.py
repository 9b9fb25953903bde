"""Decodes JSON from upstreams: whatever is wrong with it raises `Malformed`, except that a wrong usage costs only the
report, never the answer, and that `choices: null` is an empty list. Knows no surface.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import replace_surrogates
from groundplan.gateway.surfaces.codec import Codec, Malformed, UpstreamAnswer

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask

ANSWER = "the upstream's answer is not what the API promises"
STREAM = "the upstream's stream is not what the API promises"
_WRONG_USAGE = re.compile(r" - at `\$((?:\.\w+)*?)\.usage\b")
_NULL_CHOICES = "got `null` - at `$.choices`"
_IMPOSSIBLE_USAGE = b'{"prompt_tokens":-1,"input_tokens":-1,"output_tokens":-1}'
"""A usage report that every reader rejects as impossible."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Decoded = TypeVar("Decoded")


def parse_answer(codec: Codec, data: bytes, ask: Ask) -> UpstreamAnswer:
    """Parse a whole answer of status 200 with a codec, which may decode some parts of it only when they are needed.
    Raises `Malformed`, and `Invalid` as the codec does."""
    try:
        return codec.parse_answer(data, ask)
    except DECODE_ERRORS as error:
        raise Malformed(ANSWER) from error


def decode_upstream(read: Callable[[bytes], Decoded], data: bytes, promise: str = ANSWER) -> Decoded:
    """Decode an answer or event with `read`. A usage of the wrong types becomes an impossible one, half of a surrogate
    pair a replacement character. Raises `Malformed` with the message `promise`."""
    try:
        return read(data)
    except msgspec.DecodeError as error:
        try:
            if (found := _WRONG_USAGE.search(str(error))) is not None:
                return read(_with_impossible_usage(data, found[1].split(".")[1:]))
            if str(error).endswith(_NULL_CHOICES):
                return read(with_empty_choices(data))
            return read(replace_surrogates(data, error))
        except DECODE_ERRORS:
            pass
        raise Malformed(promise) from error
    except DECODE_ERRORS as error:
        raise Malformed(promise) from error


def _with_impossible_usage(data: bytes, parents: list[str]) -> bytes:
    """The JSON with its usage replaced. `parents`: names of the objects that lead to the one with the usage."""
    fields = _fields(data)
    name, *below = (*parents, "usage")
    fields[name] = msgspec.Raw(_with_impossible_usage(bytes(fields[name]), below[:-1]) if below else _IMPOSSIBLE_USAGE)
    return msgspec.json.encode(fields)


def with_empty_choices(data: bytes) -> bytes:
    """An event with an empty list in place of null `choices`, which servers written in Go send where there are none.
    OpenAI's clients iterate over the list."""
    try:
        fields = _fields(data)
    except DECODE_ERRORS:
        return data
    none = "choices" in fields and bytes(fields["choices"]) == b"null"
    return msgspec.json.encode({**fields, "choices": []}) if none else data


def refuse_encoding(data: bytes) -> None:
    """Raise `Malformed` where a whole answer is not UTF-8, which its decoder need not have noticed."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise Malformed(ANSWER) from error
