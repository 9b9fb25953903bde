"""Reading JSON that an upstream sent: whatever is wrong with it is one error, but what is wrong with its usage costs
only the report, never the answer, and `choices` that are null are none. Knows no surface.
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
_IN_USAGE = re.compile(r" - at `\$((?:\.\w+)*?)\.usage\b")
_NO_LIST = "got `null` - at `$.choices`"
_UNTRUE = b'{"prompt_tokens":-1,"input_tokens":-1,"output_tokens":-1}'
"""A usage that nobody takes for true."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Read = TypeVar("Read")


def answer_of(codec: Codec, data: bytes, ask: Ask) -> UpstreamAnswer:
    """What a codec makes of a whole answer of status 200, of which it reads some parts only where they are needed.
    Raises `Malformed`, and `Invalid` as the codec does."""
    try:
        return codec.parse_answer(data, ask)
    except DECODE_ERRORS as error:
        raise Malformed(ANSWER) from error


def understood(read: Callable[[bytes], Read], data: bytes, promise: str = ANSWER) -> Read:
    """What `read` makes of an answer or event. A usage of the wrong types is read as one that cannot be true, half of a
    character as a sign for one. Raises `Malformed` with `promise`."""
    try:
        return read(data)
    except msgspec.DecodeError as error:
        try:
            if (found := _IN_USAGE.search(str(error))) is not None:
                return read(_with_untrue_usage(data, found[1].split(".")[1:]))
            if str(error).endswith(_NO_LIST):
                return read(with_choices(data))
            return read(replace_surrogates(data, error))
        except DECODE_ERRORS:
            pass
        raise Malformed(promise) from error
    except DECODE_ERRORS as error:
        raise Malformed(promise) from error


def _with_untrue_usage(data: bytes, parents: list[str]) -> bytes:
    """`parents`: names of the objects in which the one with the usage is."""
    fields = _fields(data)
    name, *below = (*parents, "usage")
    fields[name] = msgspec.Raw(_with_untrue_usage(bytes(fields[name]), below[:-1]) if below else _UNTRUE)
    return msgspec.json.encode(fields)


def with_choices(data: bytes) -> bytes:
    """An event with an empty list in place of `choices` that are null: so servers written in Go tell that there are
    none. OpenAI's clients go through the list."""
    try:
        fields = _fields(data)
    except DECODE_ERRORS:
        return data
    none = "choices" in fields and bytes(fields["choices"]) == b"null"
    return msgspec.json.encode({**fields, "choices": []}) if none else data


def refuse_encoding(data: bytes) -> None:
    """Raise `Malformed` where a whole answer is no UTF-8, which its decoder need not have noticed."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise Malformed(ANSWER) from error
