"""Reads e-mail as text: sender, recipients, date, subject, all text parts, and forwarded messages. Pure.

Attachments are named and not read. Who may read a message is not decided here: `PARTICIPANTS` come from its own header,
never from forwarded messages.
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
"""Metadata key: the addresses of the sender and the recipients."""
SENT: Final = "sent_at"
"""Metadata key: when the message was sent, in ISO form."""
MAX_FORWARDED: Final = 5
"""Deepest level of forwarded messages that is read; deeper ones are named as attachments."""
_BODY_SUBTYPES: Final = ("plain", "html")
_HEADER_ERRORS: Final = (AttributeError, IndexError, LookupError, OverflowError, TypeError, ValueError, MessageError)
"""The errors that the library raises for a malformed header field."""


@dataclass(slots=True)
class _MessageParts:
    blocks: list[str] = field(default_factory=list)
    attachments: list[str] = field(default_factory=list)
    """Names of the attachments, which are not read."""
    guesses: int = 0
    """Number of texts whose encoding was guessed."""


class _HeaderPolicy(EmailPolicy):
    """Reads header fields with unencoded letters as UTF-8, or else as Western European, and encoded words in the
    encoding that is meant by the name they give."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        with suppress(UnicodeEncodeError):  # raised for a value that is decoded already
            value = guess_text(value.encode("ascii", "surrogateescape"))[0]
        return super().header_fetch_parse(
            name, _ENCODED_WORD.sub(lambda word: f"=?{codec_for(word[1]) or 'utf-8'}?", value)
        )


_ENCODED_WORD: Final = re.compile(r"=\?([^?*\s]{1,40})(?:\*[^?\s]{0,40})?\?(?=[BbQq]\?)")
"""The start of an encoded word: the name of its encoding and, optionally, a language."""
_POLICY: Final = _HeaderPolicy()


def read_eml(data: bytes) -> TextDocument:
    """Read a message with the messages that it forwards. Raises `Invalid` (document_broken)."""
    message = email.message_from_bytes(data, policy=_POLICY)
    if not isinstance(message, EmailMessage) or not message.keys():
        raise Invalid("it is not an e-mail message", code="document_broken", hint="Export it again, as EML.")
    found = _MessageParts()
    _collect_part(message, found, 0)
    subject = _header(message, "subject").strip()
    blocks = [f"# {_one_line(subject) or 'Message without a subject'}", _header_lines(message), *found.blocks]
    if found.attachments:
        blocks.append("Attachments: " + ", ".join(found.attachments))
    unread = quantity(len(found.attachments), "attachment is", "attachments are")
    notes = [f"{unread} not read"] if found.attachments else []
    if found.guesses:
        texts = quantity(found.guesses, "text does", "texts do")
        notes.append(f"{texts} not say in which encoding: read as Western European")
    return TextDocument(
        clean("\n\n".join(block for block in blocks if block)) + "\n", markdown=True, title=subject or None,
        metadata=_message_metadata(message), notes=tuple(notes),
    )  # fmt: skip


def _header_lines(message: Message) -> str:
    lines = [(name, value) for name in ("from", "to", "cc", "date") if (value := _header(message, name))]
    return "\n".join(f"{name.title()}: {value}" for name, value in lines)


def _header(message: Message, name: str) -> str:
    """The value of a header field; as written if it is malformed."""
    try:
        return str(message.get(name, ""))
    except _HEADER_ERRORS:
        return next(str(value) for own, value in message.raw_items() if own.lower() == name)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _collect_part(part: Any, found: _MessageParts, depth: int) -> None:
    """Add all texts below a part, in order. A part with a malformed header is added as an attachment."""
    try:
        _collect_known_part(part, found, depth)
    except _HEADER_ERRORS:
        found.attachments.append("unnamed")


def _collect_known_part(part: Any, found: _MessageParts, depth: int) -> None:
    kind = part.get_content_type()
    if kind == "message/rfc822":
        _collect_forwarded(part, found, depth)
    elif kind == "multipart/alternative" and part.is_multipart():
        _collect_alternatives(part, found, depth)
    elif part.is_multipart():
        for each in _subparts(part):
            _collect_part(each, found, depth)
    elif _is_text(part):
        text, is_guess = _decode_body(part)
        found.blocks += [text] if text else []
        found.guesses += is_guess
    elif not _is_inline_picture(part):
        found.attachments.append(part.get_filename() or "unnamed")


def _subparts(part: Any) -> Iterator[Any]:
    content = part.get_payload()
    yield from content if isinstance(content, list) else ()


def _is_text(part: Any) -> bool:
    """Whether the part is shown with the message. A multipart without parts counts as text."""
    kind = part.get_content_maintype()
    return kind == "multipart" or (
        kind == "text" and part.get_content_disposition() != "attachment" and not part.get_filename()
        and part.get_content_subtype() in _BODY_SUBTYPES
    )  # fmt: skip


def _is_inline_picture(part: Any) -> bool:
    """Whether the part is a picture within the text, such as a logo in a signature."""
    named = part.get("content-id") is not None and part.get_content_disposition() != "attachment"
    return bool(named and part.get_content_maintype() == "image")


def _collect_alternatives(part: Any, found: _MessageParts, depth: int) -> None:
    """Add the best of several forms of the same text: plain text first, else the first form that is not empty. Parts
    that are no text, such as an invitation, are added as well."""
    parts = list(_subparts(part))
    bodies = [(part, _collect_separately(part, depth)) for part in parts if _has_body(part)]
    ranked = sorted(bodies, key=lambda each: each[0].get_content_type() != "text/plain")
    best = next((collected for _, collected in ranked if collected.blocks), _MessageParts())
    found.blocks += best.blocks
    found.guesses += best.guesses
    found.attachments += [name for _, collected in bodies for name in collected.attachments]
    for each in parts:
        if not _has_body(each):
            _collect_part(each, found, depth)


def _has_body(part: Any) -> bool:
    return part.is_multipart() or _is_text(part)


def _collect_separately(part: Any, depth: int) -> _MessageParts:
    own = _MessageParts()
    _collect_part(part, own, depth)
    return own


def _collect_forwarded(part: Any, found: _MessageParts, depth: int) -> None:
    """Add a forwarded message, with its own header above it."""
    inner = next(_subparts(part), None)
    if inner is None or depth >= MAX_FORWARDED:
        found.attachments.append(part.get_filename() or "unnamed")
        return
    subject = _one_line(_header(inner, "subject"))
    found.blocks += [f"## Message: {subject or 'without a subject'}", _header_lines(inner)]
    _collect_part(inner, found, depth + 1)


def _decode_body(body: Any) -> tuple[str, bool]:
    """(text of a part, whether its encoding was guessed). The encoding that an HTML page declares counts if its part
    declares none."""
    raw = body.get_payload(decode=True)
    data = raw if isinstance(raw, bytes) else b""
    is_page = body.get_content_type() == "text/html"
    text = decode_as(data, body.get_content_charset() or (declared_encoding(data) if is_page else None))
    is_guess = False
    if text is None:
        text, is_guess = guess_text(data)
    return (read_markup(text).text if is_page else text).strip(), is_guess


def _message_metadata(message: EmailMessage) -> dict[str, Any]:
    """When the message was sent, and every address that its header names as sender or recipient."""
    metadata: dict[str, Any] = {PARTICIPANTS: sorted(_participants(message))}
    with suppress(*_HEADER_ERRORS):
        if date := _header(message, "date"):
            metadata[SENT] = parsedate_to_datetime(date).isoformat()
    return metadata


def _participants(message: EmailMessage) -> set[str]:
    """The addresses of sender and recipients, in lower case; a malformed field has none."""
    found: set[str] = set()
    for name in ("from", "to", "cc", "bcc"):
        with suppress(*_HEADER_ERRORS):
            fields = message.get_all(name, [])
            found |= {address.addr_spec.lower() for each in fields for address in getattr(each, "addresses", ())}
    return {address for address in found if "@" in address}
