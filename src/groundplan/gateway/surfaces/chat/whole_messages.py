"""Chunks of a chat stream with a whole `message`. Pure.

In place of a delta, as some local servers send it, it is the delta. Beside one it repeats all that was sent so far, as
Perplexity does, and is removed: a text that guardrails have changed must not leave in a repetition of it.
"""

from __future__ import annotations

import msgspec

from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream

_MESSAGE = b'"message"'
_ESCAPE = b"\\u"
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def with_deltas(data: bytes) -> bytes:
    """The chunk with a delta in place of each message. Raises `Malformed`."""
    if _MESSAGE not in data and _ESCAPE not in data:  # a name may be written with escapes
        return data
    fields = decode_upstream(_fields, data, STREAM)
    if "choices" not in fields or bytes(fields["choices"]) == b"null":
        return data
    choices = decode_upstream(_objects, bytes(fields["choices"]), STREAM)
    if not any("message" in choice for choice in choices):
        return data
    fields["choices"] = msgspec.Raw(msgspec.json.encode([_with_delta(choice) for choice in choices]))
    return msgspec.json.encode(fields)


def _with_delta(choice: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    rest = {name: value for name, value in choice.items() if name != "message"}
    if bytes(choice.get("delta", b"null")) != b"null" or "message" not in choice:
        return rest
    return {**rest, "delta": _as_delta(choice["message"])}


def _as_delta(message: msgspec.Raw) -> msgspec.Raw:
    """A message with numbered calls, as clients put the calls of a stream together by their numbers."""
    if b'"tool_calls"' not in bytes(message):
        return message
    fields = decode_upstream(_fields, bytes(message), STREAM)
    if bytes(fields.get("tool_calls", b"null")) == b"null":
        return message
    calls = decode_upstream(_objects, bytes(fields["tool_calls"]), STREAM)
    numbered = [{"index": msgspec.Raw(b"%d" % number), **call} for number, call in enumerate(calls)]
    return msgspec.Raw(msgspec.json.encode({**fields, "tool_calls": numbered}))
