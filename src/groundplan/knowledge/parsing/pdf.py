"""Reads PDF as text with its tables. Scanned pages have no text: they are reported, or recognised by `ocr`.

The libraries for PDF are those of `groundplan[knowledge]`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from groundplan.core.errors import Invalid, TooLarge
from groundplan.knowledge.parsing import ocr, pdf_forms, unruled_tables
from groundplan.knowledge.parsing.model import MAX_CHARACTERS, Table
from groundplan.knowledge.parsing.tabular import as_table, markdown_table
from groundplan.knowledge.parsing.text import TextDocument, clean

MAX_PAGES = 2000
MAX_RULED_PAGES = 60
"""Pages on which tables with ruling lines are searched: it takes a hundred times as long as reading their text."""
MAX_UNRULED_PAGES = 300
"""Pages on which tables without ruling lines are searched: it takes several times as long as reading their text."""
_MAX_ROW_WORDS = 12
_MARGIN = 0.25
"""Share of a page's height, at its top and bottom, in which a table that spans pages begins and ends."""
_MAX_SHIFT = 3.0
"""Points by which the edges of a table and of its continuation on the next page may differ."""


def read_pdf(data: bytes, *, recognised: bool = False) -> TextDocument:
    """Read the text of each page, then its tables; with `recognised`, also the text of pages that are pictures.

    Raises `Invalid` (document_broken, document_scanned) and `TooLarge`.
    """
    import pypdfium2  # noqa: PLC0415 -- heavy
    from pypdfium2 import PdfiumError  # noqa: PLC0415

    try:
        document = pypdfium2.PdfDocument(data)
    except PdfiumError as error:
        raise Invalid(
            "it is not a PDF, or needs a password", code="document_broken", hint="Save it again, without a password."
        ) from error
    form_notes = pdf_forms.prepare_forms(document)
    count = len(document)
    if count > MAX_PAGES:
        raise TooLarge(f"it has {count} pages", code="document_too_large", hint=f"Split it at {MAX_PAGES} pages.")
    texts = _page_texts(document, count)
    doubts: tuple[str, ...] = ()
    if recognised:
        recognised_texts, doubts = ocr.read_pages(
            document, [number for number, text in enumerate(texts) if not text.strip()]
        )
        texts = [recognised_texts.get(number, text) for number, text in enumerate(texts)]
    if not any(text.strip() for text in texts):
        raise Invalid("it has no text: its pages are pictures", code="document_scanned", hint=ocr.HINT)
    ruled_pages = [number for number in range(count) if _has_ruling_lines(document, number)]
    ruled_pages, skipped_pages = ruled_pages[:MAX_RULED_PAGES], ruled_pages[MAX_RULED_PAGES:]
    other_pages = [number for number in range(count) if number not in skipped_pages]
    tables_by_page = _find_unruled_tables(document, texts, other_pages) | (
        _find_ruled_tables(data, ruled_pages) if ruled_pages else {}
    )
    blocks: list[str] = []
    tables: list[Table] = []
    for number, text in enumerate(texts):
        blocks.append(text.strip())
        for table in tables_by_page.get(number, []):
            tables.append(table)
            blocks.append(markdown_table(table).rstrip())
    empty = sum(not text.strip() for text in texts)
    notes = (*form_notes, *doubts, *((f"{empty} of {count} pages have no text: they are pictures",) if empty else ()))
    if skipped_pages:
        notes += (
            f"what may be tables on {len(skipped_pages)} pages, from page {skipped_pages[0] + 1} on, "
            "is read as text only",
        )
    metadata = document.get_metadata_dict(skip_empty=True)
    return TextDocument(
        clean("\n\n".join(block for block in blocks if block)) + "\n", markdown=True, title=metadata.get("Title"),
        notes=notes, tables=tuple(tables), pictures=0 if recognised else empty,
        metadata={"page_author": metadata["Author"]} if "Author" in metadata else {},
    )  # fmt: skip


def _page_texts(document: Any, count: int) -> list[str]:
    """The text of each page; stops with `TooLarge` as soon as it is longer than `MAX_CHARACTERS`."""
    texts: list[str] = []
    left = MAX_CHARACTERS
    for number in range(count):
        texts.append(_page_text(document, number))
        left -= len(texts[-1])
        if left < 0:
            raise TooLarge("its text has no end", code="document_too_large", hint="Split it into parts.")
    return texts


def _page_text(document: Any, number: int) -> str:
    """The text that the page shows, with the values of its form fields and its annotations."""
    page = document[number]
    values = pdf_forms.field_values(document, page)
    if values is not None:
        pdf_forms.flatten(page)
        page.close()
        page = document[number]
    text = str(page.get_textpage().get_text_bounded())
    page.close()
    compact_text = "".join(text.split())
    return "\n".join([text, *(value for value in values or () if "".join(value.split()) not in compact_text)])


def _has_ruling_lines(document: Any, number: int) -> bool:
    """Whether the page has enough lines for a ruled table."""
    page = document[number]
    paths = 0
    for item in page.get_objects(max_depth=2):
        paths += item.type == 2  # FPDF_PAGEOBJ_PATH
        if paths >= 4:
            break
    page.close()
    return paths >= 4


def _find_unruled_tables(document: Any, texts: Sequence[str], pages: Sequence[int]) -> dict[int, list[Table]]:
    """Tables without ruling lines on these pages, by page number."""
    found: dict[int, list[Table]] = {}
    for number in [number for number in pages if _may_have_unruled_table(texts[number])][:MAX_UNRULED_PAGES]:
        tables = unruled_tables.find_tables(_page_signs(document, number))
        if tables:
            name = f"page {number + 1}, table "
            found[number] = [as_table(f"{name}{place}", rows)[0] for place, rows in enumerate(tables, 1)]
    return found


def _may_have_unruled_table(text: str) -> bool:
    """Whether two consecutive lines could be rows of a table: each with a number and few words."""
    rows = [any(map(str.isdigit, line)) and len(line.split()) <= _MAX_ROW_WORDS for line in text.splitlines()]
    return any(map(all, pairwise(rows)))


def _page_signs(document: Any, number: int) -> list[unruled_tables.PageSign]:
    """Each character of a page with the box of its line."""
    page = document[number]
    text = page.get_textpage()
    count = text.count_chars()
    found = []
    for at in range(count if count <= unruled_tables.MAX_SIGNS else 0):
        sign = text.get_text_range(at, 1)
        if sign.strip():
            left, bottom, right, top = text.get_charbox(at, loose=True)
            found.append(unruled_tables.PageSign(left, bottom, right, top, sign))
    page.close()
    return found


def _find_ruled_tables(data: bytes, pages: list[int]) -> dict[int, list[Table]]:
    """Tables with ruling lines on these pages, by page number; a table that spans pages belongs to the first one."""
    import pdfplumber  # noqa: PLC0415 -- heavy

    found: dict[int, list[list[list[str]]]] = {}
    continuation_pages: set[int] = set()
    last: _RuledTable | None = None
    with pdfplumber.open(io.BytesIO(data), pages=[number + 1 for number in pages]) as document:
        for number, page in zip(pages, document.pages, strict=True):
            for place, ruled in enumerate(_ruled_tables(number, page)):
                if place == 0 and last is not None and _continues(last, ruled):
                    continuation_pages.add(number)
                    cells = last.cells
                    cells.extend(ruled.cells[1:] if ruled.cells[0] == cells[0] else ruled.cells)
                    last = replace(ruled, cells=cells)
                else:
                    found.setdefault(number, []).append(ruled.cells)
                    last = ruled
    kept = {number: [cells for cells in every if len(cells) > 1] for number, every in found.items()}
    return {number: [] for number in continuation_pages} | {
        number: [as_table(f"page {number + 1}, table {at}", cells)[0] for at, cells in enumerate(every, 1)]
        for number, every in kept.items()
        if every
    }


def _ruled_tables(number: int, page: Any) -> Iterator[_RuledTable]:
    """The ruled tables of a page that have several columns."""
    for each in page.find_tables():
        cells = [[" ".join((cell or "").split()) for cell in row] for row in each.extract()]
        if cells and len(cells[0]) > 1:
            left, top, right, bottom = each.bbox
            yield _RuledTable(number, left, top / page.height, right, bottom / page.height, cells)


@dataclass(frozen=True, slots=True)
class _RuledTable:
    """A ruled table on a page; `left` and `right` in points, `top` and `bottom` as shares of the page's height."""

    page: int
    left: float
    top: float
    right: float
    bottom: float
    cells: list[list[str]]


def _continues(before: _RuledTable, after: _RuledTable) -> bool:
    """Whether a table at the top of a page continues the one at the bottom of the page before.

    It must be as wide, at the same place, and repeat the head or have none: then its first row has a number in a column
    whose head has none.
    """
    head, first = before.cells[0], after.cells[0]
    if after.page != before.page + 1 or len(first) != len(head) or before.bottom < 1 - _MARGIN or after.top > _MARGIN:
        return False
    if abs(before.left - after.left) > _MAX_SHIFT or abs(before.right - after.right) > _MAX_SHIFT:
        return False
    return first == head or any(_has_digit(own) and not _has_digit(name) for own, name in zip(first, head, strict=True))


def _has_digit(cell: str) -> bool:
    return any(map(str.isdigit, cell))
