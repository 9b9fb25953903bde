"""Reads one `chat.completion.chunk`, as far as the gateway needs it. Pure; events are split in `http.sse`."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.economics.prices.provider_usage import ChatUsage
from groundplan.gateway.http.surrogates import replace_surrogates

NULL = msgspec.Raw(b"null")


def json_size(raw: msgspec.Raw) -> int:
    """Bytes of a JSON value; 0 for null."""
    if raw is NULL:
        return 0
    data = bytes(raw)
    return 0 if data == b"null" else len(data)


def _content_bytes(value: Any) -> int:
    """UTF-8 bytes of a text, or of the JSON of any other value."""
    return len(value.encode()) if isinstance(value, str) else len(msgspec.json.encode(value))


class _Delta(msgspec.Struct, frozen=True, gc=False):
    """Reasoning, under any name that upstreams have for it, is only counted; so are parts in place of a text in
    `content`, as some reasoning models send them."""

    content: Any = None
    tool_calls: msgspec.Raw = NULL
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    function_call: Any = None

    def size(self) -> int:
        size = json_size(self.tool_calls)
        for value in (self.content, self.reasoning_content, self.reasoning, self.refusal, self.function_call):
            if value is not None:
                size += _content_bytes(value)
        return size


class _Choice(msgspec.Struct, frozen=True, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None
    message: msgspec.Raw = NULL


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One `chat.completion.chunk`, as far as the gateway needs it."""

    choices: list[_Choice] = []
    usage: ChatUsage | None = None
    error: msgspec.Raw = NULL
    service_tier: Any = None

    def plain_text(self) -> str | None:
        """The text of a chunk with nothing but text; None for any other chunk."""
        if self.usage is not None or self.error is not NULL or len(self.choices) != 1:
            return None
        choice = self.choices[0]
        delta = choice.delta
        if (
            delta is None or choice.finish_reason or delta.tool_calls is not NULL
            or delta.reasoning_content or delta.reasoning or delta.refusal or delta.function_call
            or choice.message is not NULL
        ):  # fmt: skip
            return None
        return delta.content if isinstance(delta.content, str) else None

    def output_bytes(self) -> int:
        """UTF-8 bytes that this chunk adds to the answer: never fewer than its tokens."""
        size = 0
        for choice in self.choices:
            if choice.delta is not None:
                size += choice.delta.size()
        return size

    def is_error(self) -> bool:
        return json_size(self.error) > 0

    def has_whole_message(self) -> bool:
        """Whether a choice has a `message`: see `whole_messages`."""
        return any(choice.message is not NULL for choice in self.choices)

    def has_finish_reason(self) -> bool:
        return any(choice.finish_reason for choice in self.choices)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
read_chunk = msgspec.json.Decoder(Chunk).decode


def remove_usage(data: bytes) -> bytes:
    """The chunk without `usage`, for a client that did not ask for it, or gets it in a later chunk."""
    fields = _read(data)
    if fields.pop("usage", None) is None:
        return data
    return msgspec.json.encode(fields)


def usage_chunk(data: bytes) -> bytes:
    """The chunk with its usage but without choices, as OpenAI reports the usage."""
    return msgspec.json.encode({**_read(data), "choices": []})


def _read(data: bytes) -> dict[str, Any]:
    try:
        return dict(_fields(data))
    except msgspec.DecodeError as error:
        return dict(_fields(replace_surrogates(data, error)))
