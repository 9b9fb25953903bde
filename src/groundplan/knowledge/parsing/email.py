"""E-mail as text: who wrote to whom when and about what, every text of it, and what it forwards. Pure.

Attachments are named and not read. Who may read a message is not decided here: `PARTICIPANTS` are those of its own
head, never those of what it forwards.
"""

from __future__ import annotations

import email
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.errors import MessageError
from email.message import EmailMessage, Message
from email.policy import EmailPolicy
from email.utils import parsedate_to_datetime
from typing import Any, Final

from groundplan.core.errors import Invalid
from groundplan.core.words import quantity
from groundplan.knowledge.parsing.charsets import codec_for, decode_as, guess_text
from groundplan.knowledge.parsing.html import declared_encoding, read_markup
from groundplan.knowledge.parsing.text import TextDocument, clean

PARTICIPANTS: Final = "sent_participants"
"""Told of a message: the addresses of who wrote and who got it."""
SENT: Final = "sent_at"
"""Told of a message: when it was sent, in ISO form."""
MAX_FORWARDED: Final = 5
"""Messages within messages: what is deeper is named as an attachment."""
_BODIES: Final = ("plain", "html")
_MISREAD: Final = (AttributeError, IndexError, LookupError, TypeError, ValueError, MessageError)
"""What the library says of a field that is written as none should be."""


@dataclass(slots=True)
class _Found:
    blocks: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Of what is not read."""
    guesses: int = 0
    """Texts whose encoding was guessed."""


class _Heads(EmailPolicy):
    """Fields with letters that are not encoded: they are UTF-8, or else Western European. Those that are encoded are in
    what is meant by the name they give."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        with suppress(UnicodeEncodeError):  # what was understood before
            value = guess_text(value.encode("ascii", "surrogateescape"))[0]
        return super().header_fetch_parse(name, _ENCODED.sub(lambda word: f"=?{codec_for(word[1]) or 'utf-8'}?", value))


_ENCODED: Final = re.compile(r"=\?([^?*\s]{1,40})(?:\*[^?\s]{0,40})?\?(?=[BbQq]\?)")
"""The beginning of encoded words, with the name of their encoding and maybe a language."""
_HEADS: Final = _Heads()


def read_eml(data: bytes) -> TextDocument:
    """A message with its texts and those that it forwards. Raises `Invalid` (document_broken)."""
    message = email.message_from_bytes(data, policy=_HEADS)
    if not isinstance(message, EmailMessage) or not message.keys():
        raise Invalid("it is not an e-mail message", code="document_broken", hint="Export it again, as EML.")
    found = _Found()
    _take(message, found, 0)
    subject = _field(message, "subject").strip()
    blocks = [f"# {_one_line(subject) or 'Message without a subject'}", _head(message), *found.blocks]
    if found.names:
        blocks.append("Attachments: " + ", ".join(found.names))
    unread = quantity(len(found.names), "attachment is", "attachments are")
    notes = [f"{unread} not read"] if found.names else []
    if found.guesses:
        texts = quantity(found.guesses, "text does", "texts do")
        notes.append(f"{texts} not say in which encoding: read as Western European")
    return TextDocument(
        clean("\n\n".join(block for block in blocks if block)) + "\n", markdown=True, title=subject or None,
        told=_sent(message), notes=tuple(notes),
    )  # fmt: skip


def _head(message: Message) -> str:
    lines = [(name, value) for name in ("from", "to", "cc", "date") if (value := _field(message, name))]
    return "\n".join(f"{name.title()}: {value}" for name, value in lines)


def _field(message: Message, name: str) -> str:
    """A field of a head, as it is written where it cannot be understood."""
    try:
        return str(message.get(name, ""))
    except _MISREAD:
        return next(str(value) for own, value in message.raw_items() if own.lower() == name)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _take(part: Any, found: _Found, depth: int) -> None:
    """Every text below a part, in its order. A part whose head cannot be understood is named."""
    try:
        _read(part, found, depth)
    except _MISREAD:
        found.names.append("unnamed")


def _read(part: Any, found: _Found, depth: int) -> None:
    kind = part.get_content_type()
    if kind == "message/rfc822":
        _forwarded(part, found, depth)
    elif kind == "multipart/alternative" and part.is_multipart():
        _alternative(part, found, depth)
    elif part.is_multipart():
        for each in _parts(part):
            _take(each, found, depth)
    elif _is_text(part):
        text, is_guess = _content(part)
        found.blocks += [text] if text else []
        found.guesses += is_guess
    elif not _is_drawn(part):
        found.names.append(part.get_filename() or "unnamed")


def _parts(part: Any) -> Iterator[Any]:
    content = part.get_payload()
    yield from content if isinstance(content, list) else ()


def _is_text(part: Any) -> bool:
    """Whether it is shown with the message; what says that it has several parts, and has none, is text."""
    kind = part.get_content_maintype()
    return kind == "multipart" or (
        kind == "text" and part.get_content_disposition() != "attachment" and not part.get_filename()
        and part.get_content_subtype() in _BODIES
    )  # fmt: skip


def _is_drawn(part: Any) -> bool:
    """Whether it is a picture that stands among the words, such as that of a signature."""
    named = part.get("content-id") is not None and part.get_content_disposition() != "attachment"
    return bool(named and part.get_content_maintype() == "image")


def _alternative(part: Any, found: _Found, depth: int) -> None:
    """The same once as text and once as a page: the first of these that says anything. What is neither is read or named
    besides, such as an invitation."""
    parts = list(_parts(part))
    bodies = [(part, _texts_of(part, depth)) for part in parts if _has_body(part)]
    ranked = sorted(bodies, key=lambda each: each[0].get_content_type() != "text/plain")
    best = next((own for _, own in ranked if own.blocks), _Found())
    found.blocks += best.blocks
    found.guesses += best.guesses
    found.names += [name for _, own in bodies for name in own.names]
    for each in parts:
        if not _has_body(each):
            _take(each, found, depth)


def _has_body(part: Any) -> bool:
    return part.is_multipart() or _is_text(part)


def _texts_of(part: Any, depth: int) -> _Found:
    own = _Found()
    _take(part, own, depth)
    return own


def _forwarded(part: Any, found: _Found, depth: int) -> None:
    """A message in a message, with its own head above it."""
    inner = next(_parts(part), None)
    if inner is None or depth >= MAX_FORWARDED:
        found.names.append(part.get_filename() or "unnamed")
        return
    subject = _one_line(_field(inner, "subject"))
    found.blocks += [f"## Message: {subject or 'without a subject'}", _head(inner)]
    _take(inner, found, depth + 1)


def _content(body: Any) -> tuple[str, bool]:
    """A text, in the encoding of its part; True where that was guessed. What a page says of itself counts where its
    part says nothing."""
    raw = body.get_payload(decode=True)
    data = raw if isinstance(raw, bytes) else b""
    is_page = body.get_content_type() == "text/html"
    text = decode_as(data, body.get_content_charset() or (declared_encoding(data) if is_page else None))
    is_guess = False
    if text is None:
        text, is_guess = guess_text(data)
    return (read_markup(text).text if is_page else text).strip(), is_guess


def _sent(message: EmailMessage) -> dict[str, Any]:
    """When, and between whom: every address that its head names as writer or receiver."""
    told: dict[str, Any] = {PARTICIPANTS: sorted(_addresses(message))}
    with suppress(*_MISREAD):
        if date := _field(message, "date"):
            told[SENT] = parsedate_to_datetime(date).isoformat()
    return told


def _addresses(message: EmailMessage) -> set[str]:
    """A field that cannot be understood names nobody."""
    found: set[str] = set()
    for name in ("from", "to", "cc", "bcc"):
        with suppress(*_MISREAD):
            fields = message.get_all(name, [])
            found |= {address.addr_spec.lower() for each in fields for address in getattr(each, "addresses", ())}
    return {address for address in found if "@" in address}
