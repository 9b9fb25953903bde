"""Whether a JSON body means the same to every parser: no object in it may bear one name twice.

RFC 8259 leaves open which of two values counts, so what we checked (the last) need not be what an upstream reads (the
first). To some parsers (those of Go and .NET) `Model` is `model`, so capital letters make no other name of one by which
anything is decided.
Most bodies are proven good by counting alone, without a second parse. Does not look at values.

The count: each name is followed by `":`, whose quote is not escaped, so the text holds at least as many of these as
there are names, and there are at least as many names as whoever parsed it knows to be distinct. Where both ends are
equal, no name is there twice. A space between name and colon would hide a name from the count, so then, as where the
ends differ, the body is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import msgspec

from groundplan.core.errors import Invalid

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises, also for what is nested deeper than it bears."""
_decode = msgspec.json.Decoder().decode
_QUOTE, _OPEN, _ESCAPE, _SPACE = ord('"'), ord("["), ord("\\"), b" \t\r\n"
_TAB, _LF, _CR = b"\t\n\r"
_LARGE, _COLONS = 4096, 400
_DENSE = 256
"""Bytes that are looked at in the time of one search."""
MOST_DEPTH = 500
"""Levels of nesting; parsers differ in what they bear, and so do versions of Python."""
MOST_PARTS = 500_000
MOST_STRINGS = 1_000_000
"""Objects and lists in one body, and names and texts: more than any API takes, and as many as can be looked at while
other calls wait."""
_STRINGS = re.compile(rb'"[^"]*+"?')
"""Also one without an end."""
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
_AT_ONCE = 256
"""Brackets that are only counted where they cannot reach too deep."""
_ORDINARY = frozenset(
    {
        "role", "content", "type", "text", "name", "tool_calls", "tool_call_id", "function", "arguments", "id", "index",
        "image_url", "url", "detail", "cache_control", "source", "media_type", "data", "input", "output", "call_id",
        "description", "parameters", "input_schema", "strict", "json_schema", "schema", "properties", "required",
        "items", "enum", "additionalProperties", "format", "default", "title", "minimum", "maximum", "minLength",
        "maxLength", "minItems", "maxItems", "pattern", "anyOf", "oneOf", "allOf", "$ref", "$defs", "const",
    }
)  # fmt: skip
"""Names of which most objects are made, none of them another one in other letters."""
_DECISIVE = frozenset(
    {
        "role", "content", "type", "text", "image_url", "input_audio", "file", "file_data", "file_id", "file_url",
        "url", "source", "media_type", "data", "input", "function", "include_usage", "tool_calls", "arguments",
    }
)  # fmt: skip
"""Names below the top that say what is sent, to whom and at what cost. Others are data, such as a function's own."""


class _Twice(Exception):
    """The name that is there twice."""


def refuse_depth(body: bytes) -> None:
    """Raise `Invalid` where a body is nested deeper than `MOST_DEPTH`, or has more than `MOST_PARTS` or `MOST_STRINGS`;
    only one with so many brackets, or quotes, is looked at."""
    if len(body) <= MOST_DEPTH:
        return  # as many bytes as levels are borne
    small = len(body) <= _LARGE
    if len(body) > 4 * MOST_STRINGS and body.count(b'"') - body.count(b'\\"') > 2 * MOST_STRINGS:
        raise _too_many(f"{MOST_STRINGS} names and texts")
    if body.count(b"[") + body.count(b"{") <= MOST_DEPTH if small else _few_brackets(body):
        return
    marks = _brackets(body)
    if marks.count(b"[") > MOST_PARTS:
        raise _too_many(f"{MOST_PARTS} objects and lists")
    depth = 0
    for at in range(0, len(marks), _AT_ONCE):
        part = marks[at : at + _AT_ONCE]
        opened = part.count(b"[")
        if depth + opened > MOST_DEPTH and _deepest(part, depth) > MOST_DEPTH:
            raise Invalid(
                f"the body is nested more than {MOST_DEPTH} levels deep",
                code="body_not_json",
                hint="Send JSON that is nested less.",
            )
        depth += 2 * opened - len(part)


def _brackets(body: bytes) -> bytes:
    """The brackets of a JSON body that are not in its strings, all as `[` and `]`, up to where it is none. Escapes are
    taken out, then all but brackets and quotes, then strings in which there are no brackets: that is a tenth of the
    time that it takes to look for each string."""
    if _ESCAPE in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(_ONE_KIND, _NO_MARKS).replace(b'""', b"")
    return _STRINGS.sub(b"", marks) if _QUOTE in marks else marks


def _too_many(what: str) -> Invalid:
    return Invalid(f"the body has more than {what}", code="body_too_complex", hint="Send fewer at a time.")


def _deepest(marks: bytes, depth: int) -> int:
    """The deepest level that is reached by these brackets, after `depth`."""
    deepest = depth
    for mark in marks:
        depth += 1 if mark == _OPEN else -1
        if depth > deepest:
            deepest = depth
    return deepest


def _few_brackets(body: bytes) -> bool:
    """Whether there are no more than levels that are borne. In a large body that has few, to search for each takes a
    fraction of a look at every byte."""
    most, found = min(MOST_DEPTH, len(body) // _DENSE), 0
    for mark in (b"[", b"{"):
        at = body.find(mark)
        while at >= 0:
            found += 1
            if found > most:
                return most < MOST_DEPTH and body.count(b"[") + body.count(b"{") <= MOST_DEPTH
            at = body.find(mark, at + 1)
    return True


def refuse_duplicates(body: bytes, known: int) -> None:
    """Raise `Invalid` (`duplicate_key`) where an object of a valid JSON `body` bears a name twice.

    `known` is how many distinct names in small letters, in all its objects together, are known to be there; 0 is always
    right. May raise `RecursionError`.
    """
    counted = _counted(body) if len(body) > _LARGE else _counted_whole(body)
    if counted is not None and counted == known:
        return
    if counted and (counted := counted - _escaped(body)) == known:
        return
    try:
        if counted is None or counted != _names(_decode(body)):
            _exact(body.decode())
    except _Twice as twice:
        raise Invalid(
            f"{str(twice)[:60]!r} is given twice in one object, and which of them counts is anybody's guess",
            code="duplicate_key",
            hint="Send each name once.",
        ) from twice


def refuse_spellings(names: Collection[str], read: Collection[str]) -> None:
    """Raise `Invalid` (`duplicate_key`) where one of the `names` at the top is one of those that are `read`, but for
    small and capital letters."""
    for name in names:
        small = name.casefold()
        if small != name and small in read:
            raise Invalid(
                f"{name[:60]!r} is {small[:60]!r} to some parsers, and to others it is not",
                code="duplicate_key",
                hint=f"Write {small[:60]}.",
            )


def _counted(body: bytes) -> int | None:
    """How often a quote and a colon follow each other; None where there may be space between a name and its colon."""
    found, at, looked = 0, body.find(b":"), 0
    while at >= 0:
        before = body[at - 1]
        if before == _QUOTE:
            found += 1
        elif before in _SPACE and _after_quote(body, at - 1):
            return None
        looked += 1
        if looked > _COLONS:
            return _counted_whole(body)
        at = body.find(b":", at + 1)
    return found


def _after_quote(body: bytes, at: int) -> bool:
    """Whether there is a quote before the space that ends at `at`."""
    while body[at] in _SPACE:
        at -= 1
    return body[at] == _QUOTE


def _counted_whole(body: bytes) -> int | None:
    """The same for a small body, or one with many colons, where a look at each takes longer. Line ends and tabs stand
    outside of strings only."""
    if body.find(b" :") >= 0:  # `in` would take five times as long: it tries bytes for a number first
        return None
    if (_LF in body or _TAB in body or _CR in body) and (b"\n:" in body or b"\t:" in body or b"\r:" in body):
        return None
    return body.count(b'":')


def _escaped(body: bytes) -> int:
    """How many of the quotes that a colon follows are in texts, such as of code: each has a backslash before it, which
    is not the second of two."""
    return 0 if b'\\\\"' in body else body.count(b'\\":')


def _names(value: Any) -> int:
    """Distinct names in all objects."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return 0
    found = 0
    if kind is dict:
        found = len(value)
        if found > 1 and not _ORDINARY.issuperset(value):
            text = "".join(value)
            if not (text.islower() and text.isascii()):
                _refuse_twins(value)
    for each in value.values() if kind is dict else value:
        kind = type(each)
        if kind is dict or kind is list:
            found += _names(each)
    return found


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _Twice(name)
        seen.add(name)
    _refuse_twins(seen)


def _refuse_twins(names: Collection[str]) -> None:
    """Raise `_Twice` where one of the names is another one in other letters that something is decided by."""
    if len(set(map(str.casefold, names))) < len(names):
        for name in names:
            small = name.casefold()
            if small != name and small in _DECISIVE and small in names:
                raise _Twice(name)


_exact = json.JSONDecoder(object_pairs_hook=_once, parse_int=str, parse_float=str).decode
"""Numbers stay text: one of thousands of digits is none to Python."""
