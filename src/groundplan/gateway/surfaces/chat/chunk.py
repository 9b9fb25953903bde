"""What the gateway needs to know of one `chat.completion.chunk`. Pure; how events are cut is `http.sse`'s."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.gateway.call.meter import ReportedUsage
from groundplan.gateway.http.surrogates import replace_surrogates

_NULL = msgspec.Raw(b"null")


def size_of(raw: msgspec.Raw) -> int:
    """Bytes of a JSON value; 0 for null."""
    if raw is _NULL:
        return 0
    data = bytes(raw)
    return 0 if data == b"null" else len(data)


def _said(value: Any) -> int:
    """UTF-8 bytes of a text, or of the JSON of what is none."""
    return len(value.encode()) if isinstance(value, str) else len(msgspec.json.encode(value))


class _Delta(msgspec.Struct, frozen=True, gc=False):
    """What is said beside `content`, by whichever name upstreams have for it, is only counted; so are parts in place of
    a text, as some reasoning models send them."""

    content: Any = None
    tool_calls: msgspec.Raw = _NULL
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    function_call: Any = None

    def size(self) -> int:
        size = size_of(self.tool_calls)
        for value in (self.content, self.reasoning_content, self.reasoning, self.refusal, self.function_call):
            if value is not None:
                size += _said(value)
        return size


class _Choice(msgspec.Struct, frozen=True, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One `chat.completion.chunk`, as far as the gateway needs it."""

    choices: list[_Choice] = []
    usage: ReportedUsage | None = None
    error: msgspec.Raw = _NULL
    service_tier: Any = None

    def only_text(self) -> str | None:
        """The text of a chunk that has nothing else in it; None for any other chunk."""
        if self.usage is not None or self.error is not _NULL or len(self.choices) != 1:
            return None
        choice = self.choices[0]
        delta = choice.delta
        if (
            delta is None or choice.finish_reason or delta.tool_calls is not _NULL
            or delta.reasoning_content or delta.reasoning or delta.refusal or delta.function_call
        ):  # fmt: skip
            return None
        return delta.content if isinstance(delta.content, str) else None

    def output_bytes(self) -> int:
        """UTF-8 bytes of what this chunk adds to the answer: no fewer than its tokens."""
        size = 0
        for choice in self.choices:
            if choice.delta is not None:
                size += choice.delta.size()
        return size

    def failed(self) -> bool:
        return size_of(self.error) > 0

    def finishes(self) -> bool:
        return any(choice.finish_reason for choice in self.choices)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
read_chunk = msgspec.json.Decoder(Chunk).decode


def without_usage(data: bytes) -> bytes:
    """The chunk without `usage`, for a client that did not ask for it, or gets it behind the answer."""
    fields = _read(data)
    if fields.pop("usage", None) is None:
        return data
    return msgspec.json.encode(fields)


def only_usage(data: bytes) -> bytes:
    """The chunk with nothing of an answer, as OpenAI tells the usage."""
    return msgspec.json.encode({**_read(data), "choices": []})


def _read(data: bytes) -> dict[str, Any]:
    try:
        return dict(_fields(data))
    except msgspec.DecodeError as error:
        return dict(_fields(replace_surrogates(data, error)))
