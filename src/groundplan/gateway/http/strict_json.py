"""Checks that a JSON body means the same to every parser: no object in it may contain a name twice.

RFC 8259 leaves open which of two values counts, so the one that was checked here (the last) need not be the one that an
upstream reads (the first). To some parsers (those of Go and .NET) `Model` is `model`, so names that decide something
must not differ in capital letters only, and in messages and tools, names that are read have small letters. Most bodies
are proven good by counting alone, without a second parse. Does not look at values.

The count: each name is followed by `":`, whose quote is not escaped, so the text contains at least as many of these as
there are names, and there are at least as many names as the parser knows to be distinct. If both bounds are equal, no
name is there twice. A space between name and colon would hide a name from the count, so then, and if the bounds differ,
the body is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import msgspec

from groundplan.core.errors import Invalid

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises, also for JSON that is nested too deeply for it."""
_decode = msgspec.json.Decoder().decode
_QUOTE, _OPEN, _ESCAPE, _SPACE = ord('"'), ord("["), ord("\\"), b" \t\r\n"
_TAB, _LF, _CR = b"\t\n\r"
_LARGE_BODY, _MAX_COLONS = 4096, 400
_BYTES_PER_SEARCH = 256
"""Bytes that can be scanned in the time of one search."""
MAX_DEPTH = 500
"""Levels of nesting; parsers differ in how many they accept, and so do versions of Python."""
MAX_CONTAINERS = 500_000
MAX_STRINGS = 1_000_000
"""Objects and lists in one body, and names and strings: more than any API takes, and as many as can be checked while
other calls wait."""
_STRINGS = re.compile(rb'"[^"]*+"?')
"""Also a string without an end."""
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
_MARKS_PER_STEP = 256
"""Brackets that are only counted where they cannot nest too deeply."""
_ORDINARY_NAMES = frozenset(
    {
        "role", "content", "type", "text", "name", "tool_calls", "tool_call_id", "function", "arguments", "id", "index",
        "image_url", "url", "detail", "cache_control", "source", "media_type", "data", "input", "output", "call_id",
        "description", "parameters", "input_schema", "strict", "json_schema", "schema", "properties", "required",
        "items", "enum", "additionalProperties", "format", "default", "title", "minimum", "maximum", "minLength",
        "maxLength", "minItems", "maxItems", "pattern", "anyOf", "oneOf", "allOf", "$ref", "$defs", "const",
    }
)  # fmt: skip
"""Names that occur in most objects; none of them equals another one but for capital letters."""
_DECISIVE_NAMES = frozenset(
    {
        "role", "content", "type", "text", "image_url", "input_audio", "file", "file_data", "file_id", "file_url",
        "url", "source", "media_type", "data", "input", "function", "include_usage", "tool_calls", "arguments",
    }
)  # fmt: skip
"""Names below the top level that decide what is sent, to whom and at what cost. Other names are data, such as a
function's arguments."""
ITEM_FIELDS = frozenset(
    {
        "messages", "input", "item", "system", "tools", "functions", "reasoning", "stream_options", "cache_control",
        "prompt_cache_options", "context_management",
    }
)  # fmt: skip
"""Top-level fields with objects that surfaces read: messages, items, tools and settings."""
_NESTED_FIELDS = frozenset(
    {
        "content", "output", "source", "image_url", "input_audio", "file", "function", "tool", "tools", "tool_calls",
        "cache_control", "prompt_cache_breakpoint", "edits",
    }
)  # fmt: skip
"""Fields of these objects whose objects surfaces read, too. All else is data, such as arguments and schemas."""
ITEM_NAMES = _DECISIVE_NAMES | {
    "output", "audio", "video_url", "audio_url", "image_embeds", "audio_embeds", "image_pil", "format", "id", "name",
    "tool", "tools", "tool_name", "execution", "encrypted_content", "cache_control", "prompt_cache_breakpoint", "ttl",
    "mode", "edits",
}  # fmt: skip
"""Names that surfaces read in these objects."""


class _DuplicateName(Exception):
    """A name that an object contains twice."""


def check_complexity(body: bytes) -> None:
    """Raise `Invalid` if a body is nested deeper than `MAX_DEPTH`, or has more than `MAX_CONTAINERS` or `MAX_STRINGS`.
    Only a body with enough brackets or quotes is examined."""
    if len(body) <= MAX_DEPTH:
        return  # too few bytes to be nested too deeply
    small = len(body) <= _LARGE_BODY
    if len(body) > 4 * MAX_STRINGS and body.count(b'"') - body.count(b'\\"') > 2 * MAX_STRINGS:
        raise _too_many(f"{MAX_STRINGS} names and texts")
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH if small else _has_few_brackets(body):
        return
    marks = _brackets(body)
    if marks.count(b"[") > MAX_CONTAINERS:
        raise _too_many(f"{MAX_CONTAINERS} objects and lists")
    depth = 0
    for at in range(0, len(marks), _MARKS_PER_STEP):
        part = marks[at : at + _MARKS_PER_STEP]
        opened = part.count(b"[")
        if depth + opened > MAX_DEPTH and _deepest(part, depth) > MAX_DEPTH:
            raise Invalid(
                f"the body is nested more than {MAX_DEPTH} levels deep",
                code="body_not_json",
                hint="Send JSON that is nested less.",
            )
        depth += 2 * opened - len(part)


def _brackets(body: bytes) -> bytes:
    """The brackets of a JSON body that are not in strings, all as `[` and `]`, up to where it is not valid JSON.
    Escapes are removed, then all but brackets and quotes, then strings without brackets: a tenth of the time of
    searching for each string."""
    if _ESCAPE in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(_BRACES_TO_BRACKETS, _NOT_MARKS).replace(b'""', b"")
    return _STRINGS.sub(b"", marks) if _QUOTE in marks else marks


def _too_many(what: str) -> Invalid:
    return Invalid(f"the body has more than {what}", code="body_too_complex", hint="Send fewer at a time.")


def _deepest(marks: bytes, depth: int) -> int:
    """The deepest level that these brackets reach, starting at `depth`."""
    deepest = depth
    for mark in marks:
        depth += 1 if mark == _OPEN else -1
        if depth > deepest:
            deepest = depth
    return deepest


def _has_few_brackets(body: bytes) -> bool:
    """Whether there are no more brackets than allowed levels. In a large body with few brackets, searching for each
    takes a fraction of scanning every byte."""
    limit, found = min(MAX_DEPTH, len(body) // _BYTES_PER_SEARCH), 0
    for mark in (b"[", b"{"):
        at = body.find(mark)
        while at >= 0:
            found += 1
            if found > limit:
                return limit < MAX_DEPTH and body.count(b"[") + body.count(b"{") <= MAX_DEPTH
            at = body.find(mark, at + 1)
    return True


def check_duplicate_names(body: bytes, distinct_names: int) -> None:
    """Raise `Invalid` (`duplicate_key`) if an object of a valid JSON `body` contains a name twice, or if a message,
    item, part or tool has a name that differs from one that is read there only in capital letters.

    `distinct_names` is how many distinct lower-case names, in all its objects together, are known to be there; 0 is
    always right. May raise `RecursionError`.
    """
    counted = _count_names(body) if len(body) > _LARGE_BODY else _count_names_at_once(body)
    if counted is not None and counted == distinct_names:
        return
    if counted and (counted := counted - _count_escaped(body)) == distinct_names:
        return
    respelled = list[dict[str, Any]]()
    try:
        value = None if counted is None else _decode(body)
        if value is None or counted != _count_distinct_names(value, respelled):
            _check_items(_check_exactly(body.decode()))
        elif respelled:
            _check_items(value)
    except _DuplicateName as twice:
        raise Invalid(
            f"{str(twice)[:60]!r} is given twice in one object, and which of them counts is anybody's guess",
            code="duplicate_key",
            hint="Send each name once.",
        ) from twice


def check_name_spelling(names: Collection[str], read: Collection[str]) -> None:
    """Raise `Invalid` (`duplicate_key`) if one of the `names` of an object differs from one in `read` only in capital
    letters."""
    for name in names:
        small = name.casefold()
        if small != name and small in read:
            raise Invalid(
                f"{name[:60]!r} is {small[:60]!r} to some parsers, and to others it is not",
                code="duplicate_key",
                hint=f"Write {small[:60]}.",
            )


def _check_items(body: Any) -> None:
    """Check the names of all messages, items, parts and tools of a decoded body. Raises `Invalid`."""
    for name in ITEM_FIELDS.intersection(body) if isinstance(body, dict) else ():
        check_item_spelling(body[name])


def check_item_spelling(value: Any) -> None:
    """Raise `Invalid` (`duplicate_key`) for a name of a message, item, part or tool, or of one in a list of them, that
    differs from one that is read there only in capital letters."""
    if isinstance(value, dict):
        check_name_spelling(value, ITEM_NAMES)
        for name in _NESTED_FIELDS.intersection(value):
            check_item_spelling(value[name])
    elif isinstance(value, list):
        for each in value:
            check_item_spelling(each)


def _count_names(body: bytes) -> int | None:
    """How often a quote is followed by a colon; None if there may be a space between a name and its colon."""
    found, at, looked = 0, body.find(b":"), 0
    while at >= 0:
        before = body[at - 1]
        if before == _QUOTE:
            found += 1
        elif before in _SPACE and _follows_quote(body, at - 1):
            return None
        looked += 1
        if looked > _MAX_COLONS:
            return _count_names_at_once(body)
        at = body.find(b":", at + 1)
    return found


def _follows_quote(body: bytes, at: int) -> bool:
    """Whether a quote stands before the space that ends at `at`."""
    while body[at] in _SPACE:
        at -= 1
    return body[at] == _QUOTE


def _count_names_at_once(body: bytes) -> int | None:
    """As `_count_names`, for a small body, or one with many colons, where finding each takes longer. Line ends and tabs
    stand outside of strings only."""
    if body.find(b" :") >= 0:  # `in` would take five times as long: it tries bytes as an integer first
        return None
    if (_LF in body or _TAB in body or _CR in body) and (b"\n:" in body or b"\t:" in body or b"\r:" in body):
        return None
    return body.count(b'":')


def _count_escaped(body: bytes) -> int:
    """How many of the quotes that a colon follows are within strings, such as of code: a backslash precedes each, and
    is not the second of two."""
    return 0 if b'\\\\"' in body else body.count(b'\\":')


def _count_distinct_names(value: Any, respelled: list[dict[str, Any]]) -> int:
    """Number of distinct names in all objects. Adds to `respelled` the objects with a name of `ITEM_NAMES` in other
    letters."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return 0
    found = 0
    if kind is dict:
        found = len(value)
        if found and not _ORDINARY_NAMES.issuperset(value):
            text = "".join(value)
            if not (text.islower() and text.isascii()):
                _check_decisive_names(value)
                if any(name not in ITEM_NAMES and name.casefold() in ITEM_NAMES for name in value):
                    respelled.append(value)
    for each in value.values() if kind is dict else value:
        kind = type(each)
        if kind is dict or kind is list:
            found += _count_distinct_names(each, respelled)
    return found


def _check_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _DuplicateName(name)
        seen.add(name)
    _check_decisive_names(seen)
    return dict(pairs)


def _check_decisive_names(names: Collection[str]) -> None:
    """Raise `_DuplicateName` if two of the names differ only in capital letters and decide something."""
    if len(set(map(str.casefold, names))) < len(names):
        for name in names:
            small = name.casefold()
            if small != name and small in _DECISIVE_NAMES and small in names:
                raise _DuplicateName(name)


_check_exactly = json.JSONDecoder(object_pairs_hook=_check_pairs, parse_int=str, parse_float=str).decode
"""Numbers stay text: Python refuses to convert one of thousands of digits."""
