"""Changes top-level fields of a client's JSON object in its own bytes: unchanged parts keep their whitespace, order and
spelling. Pure; does not check the JSON, which was parsed before."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_match_name = re.compile(rb'[\s,]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+:\s*+', re.DOTALL).match
_encode = msgspec.json.Encoder().encode


def replace_fields(body: bytes, fields: Mapping[str, msgspec.Raw], changes: Mapping[str, bytes | None]) -> bytes:
    """`body` with the fields in `changes` set to other values (JSON); None removes a field, a new one is appended.

    `fields` are all top-level fields of `body` in order, each name once. If there is no body, or nothing of it would
    stay, the object is encoded anew.
    """
    present = dropped = 0
    added: list[bytes] = []
    for name, value in changes.items():
        if name in fields:
            present += 1
            if value is None:
                dropped += 1
        elif value is not None:
            added.append(b',"%b":%b' % (name.encode(), value))
    if not body or dropped == len(fields):
        return _reencode(fields, changes)
    parts = _splice(body, fields, changes, present, dropped > 0)
    if added:
        parts[-1] = parts[-1].rstrip()[:-1]
        parts += added
        parts.append(b"}")
    return b"".join(parts)


def _splice(
    body: bytes, fields: Mapping[str, msgspec.Raw], changes: Mapping[str, bytes | None], remaining: int, drops: bool
) -> list[bytes]:
    """Pieces of the body with `remaining` of its fields changed; the last piece reaches to the body's end."""
    parts: list[bytes] = []
    copied, at = 0, body.index(b"{") + 1
    has_kept = not drops
    for name, raw in fields.items():
        if not remaining:
            break
        found = _match_name(body, at)
        if found is None:
            raise AssertionError("the fields are not those of the body")
        before, start = at, found.end()
        at = start + len(raw)
        if name not in changes:
            has_kept = True
            continue
        remaining -= 1
        value = changes[name]
        if value is None:
            parts.append(body[copied:before])
            copied = at if has_kept else _after_comma(body, at)
        else:
            parts += (body[copied:start], value)
            copied, has_kept = at, True
    parts.append(body[copied:])
    return parts


def _after_comma(body: bytes, at: int) -> int:
    """Position after the comma that follows a removed first field."""
    return body.index(b",", at) + 1


def _reencode(fields: Mapping[str, msgspec.Raw], changes: Mapping[str, bytes | None]) -> bytes:
    merged: dict[str, msgspec.Raw] = dict(fields)
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = msgspec.Raw(value)
    return _encode(merged)
