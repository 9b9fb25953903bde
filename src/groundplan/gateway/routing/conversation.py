"""Recognises the calls of one conversation, and how much of it came before the newest question. Stores nothing.

A system message belongs to the application and is the same for all users: a conversation begins with the first user
message. Two that begin alike differ in the first answer, which every later call of a conversation repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.call.exchange import Exchange

HEADER = b"groundplan-conversation"
"""Header by which a caller names a conversation."""
MAX_NAME_BYTES = 200
"""Longer names are ignored."""
PREFIX_BYTES = 2048
"""Size of messages from which a conversation counts as long: providers' prompt caches begin at about that."""
_NULL = msgspec.Raw(b"null")
_RESPONSES = "responses"
"""The endpoint whose conversation is `input`, in items; everywhere else it is `messages`."""


class Message(msgspec.Struct):
    """The parts of a message by which conversations differ."""

    role: str = ""
    content: msgspec.Raw = _NULL
    tool_calls: msgspec.Raw = _NULL


class _Part(msgspec.Struct):
    text: str = ""
    image_url: msgspec.Raw = _NULL
    file_id: msgspec.Raw = _NULL
    file_data: msgspec.Raw = _NULL
    file_url: msgspec.Raw = _NULL


class _Item(msgspec.Struct):
    """An item of the input of a response."""

    role: str = ""
    type: str = "message"
    content: msgspec.Raw = _NULL
    call_id: msgspec.Raw = _NULL


_messages = msgspec.json.Decoder(list[Message]).decode
_items = msgspec.json.Decoder(list[_Item]).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_text = msgspec.json.Decoder(str).decode


@dataclass(frozen=True, slots=True)
class Conversation:
    """A long conversation. `key`: under which its model is remembered from now on; `known`: keys under which it may
    have been before, the surest first; empty where it begins with this call."""

    key: bytes
    known: tuple[bytes, ...]


def raw_messages(ask: Ask, endpoint: str) -> bytes:
    """The messages of a request as JSON, unparsed; empty where its endpoint has none."""
    return bytes(ask.fields.get("input" if endpoint == _RESPONSES else "messages", b""))


def messages_of(ask: Ask, endpoint: str) -> Sequence[Message]:
    """The messages of a request; empty where it has none that can be parsed."""
    raw = raw_messages(ask, endpoint)
    try:
        if not raw:
            return ()
        return _messages(raw) if endpoint != _RESPONSES else _response_messages(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _response_messages(raw: bytes) -> list[Message]:
    """The input of a response as messages. A text and the same text in parts are equal, since stored items come back in
    parts."""
    if raw[:1] == b'"':
        return [Message("user", _content(msgspec.Raw(raw)))]
    return [
        Message("assistant", tool_calls=item.call_id) if item.type == "function_call" else
        Message(item.role, _content(item.content))
        for item in _items(raw)
        if item.type in ("message", "function_call")
    ]  # fmt: skip


def _content(raw: msgspec.Raw) -> msgspec.Raw:
    data = bytes(raw)
    if data[:1] == b'"':
        return msgspec.Raw(msgspec.json.encode(_text(data)))
    if data[:1] != b"[":
        return raw
    parts = _parts(data)
    if all(part.image_url == part.file_id == part.file_data == part.file_url == _NULL for part in parts):
        return msgspec.Raw(msgspec.json.encode("".join(part.text for part in parts)))
    return msgspec.Raw(msgspec.json.encode(msgspec.json.decode(data)))


def message_count(ask: Ask, endpoint: str) -> int:
    """Messages of a conversation, as rules and routers count them."""
    if endpoint != _RESPONSES:
        return ask.messages
    try:
        raw = raw_messages(ask, endpoint)
        return len(_items(raw)) if raw[:1] == b"[" else 1
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ask.messages


def conversation_name(headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's name of the conversation; None without a valid one."""
    name = headers.get(HEADER)
    return name.decode("utf-8", "replace") if name and len(name) <= MAX_NAME_BYTES else None


def first_user_digest(messages: Sequence[Message]) -> str | None:
    """A digest of the first user message; None where there is none."""
    first = next((message for message in messages if message.role == "user"), None)
    return None if first is None else blake2b(bytes(first.content), digest_size=16).hexdigest()


def conversation_of(exchange: Exchange, ask: Ask) -> Conversation | None:
    """The conversation of a call; None where it is not long, or cannot be distinguished from others."""
    key = exchange.key
    if key is None or len(raw_messages(ask, exchange.endpoint)) < PREFIX_BYTES:
        return None
    whose = f"{key.family or key.id}\0{exchange.person}"
    name = conversation_name(exchange.request.headers)
    if name is not None:
        only = _digest(f"name\0{whose}\0{name}".encode())
        return Conversation(only, (only,))
    messages = messages_of(ask, exchange.endpoint)
    first = first_user_digest(messages)
    if first is None:
        return None
    start = _digest(f"begin\0{whose}\0{first}".encode())
    replies = (message for message in messages if message.role == "assistant")
    reply = next(replies, None)
    if reply is None:
        return Conversation(start, ())
    answered = _digest(start + bytes(reply.content) + b"\0" + bytes(reply.tool_calls))
    return Conversation(answered, (answered, start))


def bytes_before_question(ask: Ask, endpoint: str) -> int:
    """Bytes of text in a conversation before its newest question: the field `before` of training sets."""
    messages = messages_of(ask, endpoint)
    newest = max((at for at, message in enumerate(messages) if message.role == "user"), default=-1)
    return sum(_text_bytes(message.content) for at, message in enumerate(messages) if at != newest)


def _text_bytes(content: msgspec.Raw) -> int:
    try:
        return sum(len(text.encode("utf-8", "replace")) for text in _texts(bytes(content)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


def _texts(raw: bytes) -> Iterator[str]:
    if raw[:1] == b'"':
        yield _text(raw)
    elif raw[:1] == b"[":
        yield from (part.text for part in _parts(raw))


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
