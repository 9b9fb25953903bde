"""PDF as text with its tables, and e-mail. Scanned pages have no text: that is told, or `recognise` is asked.

The libraries for PDF are those of `groundplan[knowledge]`.
"""

from __future__ import annotations

import email
import email.policy
import io
from collections.abc import Sequence
from contextlib import suppress
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

from groundplan.core.errors import Invalid, TooLarge
from groundplan.knowledge.parsing import aligned, recognise
from groundplan.knowledge.parsing.model import MAX_CHARACTERS, Table
from groundplan.knowledge.parsing.page import html
from groundplan.knowledge.parsing.text import Read, as_table, clean, markdown_table

PARTICIPANTS = "sent_participants"
"""Told of a message: the addresses of who wrote and who got it."""
SENT = "sent_at"
"""Told of a message: when it was sent, in ISO form."""
MAX_PAGES = 2000
TABLE_PAGES = 60
"""Tables with lines are looked for on so many pages: it takes a hundred times as long as reading their text."""
ALIGNED_PAGES = 300
"""Tables without lines are looked for on so many pages that may have one: it takes some times as long as their text."""
_MOST_WORDS = 12


def pdf(data: bytes, *, recognised: bool = False) -> Read:
    """The text of each page, then its tables; with `recognised` that of pages which are pictures, too.

    Raises `Invalid` (document_broken, document_scanned) and `TooLarge`.
    """
    import pypdfium2  # noqa: PLC0415 -- heavy
    from pypdfium2 import PdfiumError  # noqa: PLC0415

    try:
        document = pypdfium2.PdfDocument(data)
    except PdfiumError as error:
        raise Invalid(
            "it is no PDF, or needs a password", code="document_broken", hint="Save it anew, without a password."
        ) from error
    count = len(document)
    if count > MAX_PAGES:
        raise TooLarge(f"it has {count} pages", code="document_too_large", hint=f"Split it at {MAX_PAGES} pages.")
    texts = _texts(document, count)
    doubts: tuple[str, ...] = ()
    if recognised:
        found_, doubts = recognise.pages(document, [at for at, text in enumerate(texts) if not text.strip()])
        texts = [found_.get(at, text) for at, text in enumerate(texts)]
    if not any(text.strip() for text in texts):
        raise Invalid(
            f"its {count} pages have no text, they are pictures", code="document_scanned", hint=recognise.HINT
        )
    lined = [number for number in range(count) if _ruled(document, number)]
    lined, left = lined[:TABLE_PAGES], lined[TABLE_PAGES:]
    others = [number for number in range(count) if number not in left]
    found = _aligned(document, texts, others) | (_tables(data, lined) if lined else {})
    blocks: list[str] = []
    tables: list[Table] = []
    for number, text in enumerate(texts):
        blocks.append(text.strip())
        for table in found.get(number, []):
            tables.append(table)
            blocks.append(markdown_table(table).rstrip())
    empty = sum(not text.strip() for text in texts)
    notes = (*doubts, *((f"{empty} of {count} pages have no text: they are pictures",) if empty else ()))
    if left:
        notes += (f"what may be tables on {len(left)} pages, from page {left[0] + 1} on, is read as text only",)
    told = document.get_metadata_dict(skip_empty=True)
    return Read(
        clean("\n\n".join(block for block in blocks if block)) + "\n", markdown=True, title=told.get("Title"),
        notes=notes, tables=tuple(tables), pictures=0 if recognised else empty,
        told={"page_author": told["Author"]} if "Author" in told else {},
    )  # fmt: skip


def _texts(document: Any, count: int) -> list[str]:
    """The text of each page, given up as soon as it is more than anybody reads."""
    texts: list[str] = []
    left = MAX_CHARACTERS
    for number in range(count):
        texts.append(_page_text(document, number))
        left -= len(texts[-1])
        if left < 0:
            raise TooLarge("its text has no end", code="document_too_large", hint="Split it into parts.")
    return texts


def _page_text(document: Any, number: int) -> str:
    page = document[number]
    text = str(page.get_textpage().get_text_bounded())
    page.close()
    return text


def _ruled(document: Any, number: int) -> bool:
    """Whether the page has lines enough to be a table."""
    page = document[number]
    paths = 0
    for item in page.get_objects(max_depth=2):
        paths += item.type == 2  # FPDF_PAGEOBJ_PATH
        if paths >= 4:
            break
    page.close()
    return paths >= 4


def _aligned(document: Any, texts: Sequence[str], pages: Sequence[int]) -> dict[int, list[Table]]:
    """Tables without lines on these pages, by their number."""
    found: dict[int, list[Table]] = {}
    for number in [number for number in pages if _may_be_aligned(texts[number])][:ALIGNED_PAGES]:
        tables = aligned.tables(_signs(document, number))
        if tables:
            name = f"page {number + 1}, table "
            found[number] = [as_table(f"{name}{place}", rows)[0] for place, rows in enumerate(tables, 1)]
    return found


def _may_be_aligned(text: str) -> bool:
    """Whether two lines beside each other could be rows: with a number, and few words."""
    rows = [any(map(str.isdigit, line)) and len(line.split()) <= _MOST_WORDS for line in text.splitlines()]
    return any(map(all, pairwise(rows)))


def _signs(document: Any, number: int) -> list[aligned.Sign]:
    """Each sign of a page with the box of its line."""
    page = document[number]
    text = page.get_textpage()
    count = text.count_chars()
    found = []
    for at in range(count if count <= aligned.MAX_SIGNS else 0):
        sign = text.get_text_range(at, 1)
        if sign.strip():
            left, bottom, right, top = text.get_charbox(at, loose=True)
            found.append(aligned.Sign(left, bottom, right, top, sign))
    page.close()
    return found


def _tables(data: bytes, pages: list[int]) -> dict[int, list[Table]]:
    import pdfplumber  # noqa: PLC0415 -- heavy

    found: dict[int, list[Table]] = {}
    with pdfplumber.open(io.BytesIO(data), pages=[number + 1 for number in pages]) as document:
        for number, page in zip(pages, document.pages, strict=True):
            for rows in page.extract_tables():
                cells = [[" ".join((cell or "").split()) for cell in row] for row in rows]
                if len(cells) > 1 and len(cells[0]) > 1:
                    name = f"page {number + 1}, table {len(found.get(number, [])) + 1}"
                    found.setdefault(number, []).append(as_table(name, cells)[0])
    return found


def eml(data: bytes) -> Read:
    """A message: who wrote to whom when and about what, and its text; attachments are only named."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    if not isinstance(message, EmailMessage) or not message.keys():
        raise Invalid("it is no message", code="document_broken", hint="Export it as EML anew.")
    subject = str(message.get("subject", "")).strip()
    head = [f"{name.title()}: {message[name]}" for name in ("from", "to", "cc", "date") if message.get(name)]
    body = message.get_body(preferencelist=("plain", "html"))
    text = "" if body is None else _content(body)
    names = [part.get_filename() or "unnamed" for part in message.iter_attachments()]
    blocks = [f"# {subject or 'Message without a subject'}", "\n".join(head), text.strip()]
    if names:
        blocks.append("Attachments: " + ", ".join(names))
    notes = (f"{len(names)} attachments are not read",) if names else ()
    return Read(
        clean("\n\n".join(block for block in blocks if block)) + "\n", markdown=True, title=subject or None,
        told=_sent(message), notes=notes,
    )  # fmt: skip


def _content(body: Any) -> str:
    try:
        content = body.get_content()
    except (LookupError, UnicodeError):
        raw = body.get_payload(decode=True)
        content = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""
    text = content if isinstance(content, str) else ""
    return html(text.encode()).text if body.get_content_type() == "text/html" else text


def _sent(message: EmailMessage) -> dict[str, Any]:
    """When, and between whom: every address that its head names as writer or receiver."""
    told: dict[str, Any] = {PARTICIPANTS: sorted(_addresses(message))}
    with suppress(ValueError):
        if message.get("date"):
            told[SENT] = parsedate_to_datetime(str(message["date"])).isoformat()
    return told


def _addresses(message: EmailMessage) -> set[str]:
    fields = [each for name in ("from", "to", "cc", "bcc") for each in message.get_all(name, [])]
    found = {address.addr_spec.lower() for each in fields for address in getattr(each, "addresses", ())}
    return {address for address in found if "@" in address}
