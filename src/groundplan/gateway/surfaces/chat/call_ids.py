"""Ids of tool calls in chat answers: text, as OpenAI promises it, also from servers that number their calls. Clients
with types refuse an answer in which one is a number. Pure."""

from __future__ import annotations

import re

import msgspec

from groundplan.gateway.surfaces.upstream_json import ANSWER, decode_upstream

_CALLS = b'"tool_calls"'
_find_number = re.compile(rb'"id"\s*:\s*[-0-9]').search
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def with_text_ids(data: bytes, promise: str = ANSWER) -> bytes:
    """A whole answer or a chunk with the ids of its tool calls as text; the same object where they are. Raises
    `Malformed` with the message `promise`."""
    if _CALLS not in data or _find_number(data) is None:
        return data
    return decode_upstream(_with_text_ids, data, promise)


def _with_text_ids(data: bytes) -> bytes:
    for holder in ("message", "delta"):
        data = _quote(data, "choices", holder, "tool_calls", "id")
    return data


def _quote(value: bytes, *path: str) -> bytes:
    """JSON with the number at `path` as text, in each item of the lists on the way."""
    if value[:1] == b"[":
        return _encode([msgspec.Raw(_quote(bytes(each), *path)) for each in _list(value)])
    if not path:
        return b'"%b"' % value if value[:1] in b"-0123456789" else value
    if value[:1] != b"{":
        return value
    fields, (name, *rest) = _fields(value), path
    if name in fields:
        fields[name] = msgspec.Raw(_quote(bytes(fields[name]), *rest))
    return _encode(fields)
