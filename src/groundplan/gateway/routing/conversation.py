"""By what calls of one conversation are known, and how much of it came before the newest question. Nothing is kept.

A system message is the application's, and the same for everybody: a conversation begins at the first thing that a user
said. Two that begin alike are told apart by the first answer, which every later call of a conversation repeats.
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
"""By which a caller names a conversation."""
LONGEST = 200
"""Bytes of such a name."""
PREFIX_BYTES = 2048
"""Of messages, from which on a conversation is long: providers' caches of prompts begin at about as much."""
_NULL = msgspec.Raw(b"null")
_RESPONSES = "responses"
"""The endpoint whose conversation is `input`, in items; everywhere else it is `messages`."""


class Message(msgspec.Struct):
    """What of a message tells one conversation from another."""

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
    """Of the input of a response."""

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
    """One that is long. `key`: under which its model is remembered; `known`: under which it may be, the surest first.
    Nothing is known of one that begins with this call."""

    key: bytes
    known: tuple[bytes, ...]


def turns(ask: Ask, endpoint: str) -> bytes:
    """The conversation of a request as it was sent, JSON; empty where its endpoint has none."""
    return bytes(ask.fields.get("input" if endpoint == _RESPONSES else "messages", b""))


def messages_of(ask: Ask, endpoint: str) -> Sequence[Message]:
    """Those of a request; empty where it has none that can be read."""
    raw = turns(ask, endpoint)
    try:
        if not raw:
            return ()
        return _messages(raw) if endpoint != _RESPONSES else _said(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _said(raw: bytes) -> list[Message]:
    """The input of a response as messages. The same words are the same content, as a text or in parts, since stored
    items come back in parts."""
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


def length(ask: Ask, endpoint: str) -> int:
    """Messages of a conversation, as rules and routers count them."""
    if endpoint != _RESPONSES:
        return ask.messages
    try:
        raw = turns(ask, endpoint)
        return len(_items(raw)) if raw[:1] == b"[" else 1
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ask.messages


def named(headers: Mapping[bytes, bytes]) -> str | None:
    """What the caller calls the conversation."""
    name = headers.get(HEADER)
    return name.decode("utf-8", "replace") if name and len(name) <= LONGEST else None


def begin(messages: Sequence[Message]) -> str | None:
    """A digest of the first thing that a user said; None where nobody said anything."""
    first = next((message for message in messages if message.role == "user"), None)
    return None if first is None else blake2b(bytes(first.content), digest_size=16).hexdigest()


def conversation(exchange: Exchange, ask: Ask) -> Conversation | None:
    """The conversation of a call; None: it is not long, or cannot be told from others."""
    key = exchange.key
    if key is None or len(turns(ask, exchange.endpoint)) < PREFIX_BYTES:
        return None
    whose = f"{key.family or key.id}\0{exchange.person}"
    name = named(exchange.request.headers)
    if name is not None:
        only = _digest(f"name\0{whose}\0{name}".encode())
        return Conversation(only, (only,))
    messages = messages_of(ask, exchange.endpoint)
    first = begin(messages)
    if first is None:
        return None
    start = _digest(f"begin\0{whose}\0{first}".encode())
    replies = (message for message in messages if message.role == "assistant")
    reply = next(replies, None)
    if reply is None:
        return Conversation(start, ())
    answered = _digest(start + bytes(reply.content) + b"\0" + bytes(reply.tool_calls))
    return Conversation(answered, (answered, start))


def before(ask: Ask, endpoint: str) -> int:
    """Bytes of the texts of a conversation before its newest question: what a set for training tells as `before`."""
    messages = messages_of(ask, endpoint)
    newest = max((at for at, message in enumerate(messages) if message.role == "user"), default=-1)
    return sum(_bytes(message.content) for at, message in enumerate(messages) if at != newest)


def _bytes(content: msgspec.Raw) -> int:
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
