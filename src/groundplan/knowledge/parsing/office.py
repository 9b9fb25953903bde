"""DOCX, XLSX and PPTX as Markdown with their tables. Macros and archives that unpack without end are refused.

The libraries are those of `groundplan[knowledge]`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from groundplan.core.errors import Invalid, TooLarge
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.text import Read, as_table, bounded, clean, markdown_table

MAX_UNPACKED = 256 << 20
MAX_RATIO = 200
MAX_PARTS = 20_000
MAX_ROWS = 200_000


def opened(data: bytes) -> io.BytesIO:
    """The bytes as a file, after a look at its directory. Raises `Invalid` and `TooLarge`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Invalid(
            "it is no Office file, or encrypted", code="document_broken", hint="Save it anew, without a password."
        ) from error
    unpacked = sum(part.file_size for part in parts)
    packed = sum(part.compress_size for part in parts)
    if unpacked > MAX_UNPACKED or len(parts) > MAX_PARTS or (unpacked > 10 << 20 and unpacked > MAX_RATIO * packed):
        raise TooLarge(
            f"it unpacks to {unpacked >> 20} MiB in {len(parts)} parts", code="document_bomb",
            hint="Do not keep a file that you do not know; else split it into parts.",
        )  # fmt: skip
    if any(part.filename.lower().endswith(("vbaproject.bin", "vbadata.xml")) for part in parts):
        raise Invalid("it has macros", code="document_macro", hint="Save it without macros (.docx, .xlsx, .pptx).")
    return io.BytesIO(data)


def docx(data: bytes) -> Read:
    """A Word document: headings, paragraphs, lists and tables in their order, those in text boxes and content controls
    too; at the end its notes, headers and footers."""
    import docx as word  # noqa: PLC0415 -- heavy
    from docx.table import Table as WordTable  # noqa: PLC0415
    from docx.text.paragraph import Paragraph  # noqa: PLC0415

    document = word.Document(opened(data))
    blocks: list[str] = []
    tables: list[Table] = []
    for element in _blocks(document.element.body):
        if element.tag == _PARAGRAPH:
            text = _words(element)
            blocks += [_styled(Paragraph(element, document), text)] if text else []
            continue
        rows = _cells(WordTable(element, document), lambda cell: _words(cell._tc))
        if len(rows) > 1:
            tables.append(as_table(f"table {len(tables) + 1}", rows)[0])
            blocks.append(markdown_table(tables[-1]).rstrip())
        elif rows:
            blocks.append(" ".join(rows[0]))
    blocks += _beside(document.part)
    told = document.core_properties
    return Read(
        _joined(blocks), markdown=True, title=told.title or None, tables=tuple(tables),
        told={"page_author": told.author} if told.author else {},
    )  # fmt: skip


_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_PARAGRAPH, _TABLE, _BOX = f"{_W}p", f"{_W}tbl", f"{_W}txbxContent"
_TEXTS = frozenset({f"{_W}t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"})
"""Of words and of formulas."""
_SIGNS = {f"{_W}tab": " ", f"{_W}ptab": " ", f"{_W}br": " ", f"{_W}cr": " ", f"{_W}noBreakHyphen": "-"}
"""What is an element and no letter."""
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""The same once more, for older programs."""
_UNSEEN = frozenset({_FALLBACK, f"{_W}del", f"{_W}moveFrom"})
_BESIDE = ("/footnotes", "/endnotes", "/header", "/footer")


def _blocks(element: Any) -> Iterator[Any]:
    """Paragraphs and tables, whatever stands around them."""
    for child in element:
        if child.tag in (_PARAGRAPH, _TABLE):
            yield child
            for box in _boxes(child):
                yield from _blocks(box)
        elif child.tag not in _UNSEEN:
            yield from _blocks(child)


def _boxes(element: Any) -> Iterator[Any]:
    for child in element:
        if child.tag == _BOX:
            yield child
        elif child.tag not in _UNSEEN:
            yield from _boxes(child)


def _words(element: Any) -> str:
    """The text as it is shown: with insertions, without what is deleted or stands in a box of its own."""
    return " ".join("".join(_pieces(element)).split())


def _pieces(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag in _TEXTS:
            yield child.text or ""
        elif child.tag in _SIGNS:
            yield _SIGNS[child.tag]
        elif child.tag != _BOX and child.tag not in _UNSEEN:
            yield from _pieces(child)
            if child.tag == _PARAGRAPH:
                yield " "


def _beside(part: Any) -> list[str]:
    """What stands in notes, headers and footers, each text once."""
    from docx.oxml import parse_xml  # noqa: PLC0415 -- heavy

    found: dict[str, None] = {}
    for relation in part.rels.values():
        if not relation.is_external and relation.reltype.endswith(_BESIDE):
            for block in _blocks(parse_xml(relation.target_part.blob)):
                found[_words(block)] = None
    return [text for text in found if text]


def _styled(item: Any, text: str) -> str:
    style = (item.style.name or "") if item.style is not None else ""
    if style == "Title":
        return f"# {text}"
    if style.startswith("Heading ") and style[8:].isdigit():
        return "#" * min(6, int(style[8:])) + f" {text}"
    return f"- {text}" if style.startswith("List") else text


def _cells(table: Any, text_of: Callable[[Any], str] = lambda cell: cell.text) -> list[list[str]]:
    """Text of each cell; one that reaches over several is repeated, so that no value is lost."""
    return [[" ".join(text_of(cell).split()) for cell in row.cells] for row in table.rows]


def xlsx(data: bytes) -> Read:
    """A workbook: each sheet with a heading as a table; values, not formulas."""
    import openpyxl  # noqa: PLC0415 -- heavy

    book = openpyxl.load_workbook(opened(data), read_only=True, data_only=True)
    blocks: list[str] = []
    tables: list[Table] = []
    notes: tuple[str, ...] = ()
    for sheet in book.worksheets:
        rows = list(_rows(sheet))
        if not rows:
            continue
        table, more = as_table(str(sheet.title), rows)
        notes += more
        tables.append(table)
        blocks += [f"# {clean(str(sheet.title))}", markdown_table(table).rstrip()]
    title = book.properties.title
    return Read(bounded(_joined(blocks)), markdown=True, title=title or None, notes=notes, tables=tuple(tables))


def _rows(sheet: Any) -> Iterator[list[str]]:
    for number, row in enumerate(sheet.iter_rows(values_only=True)):
        if number >= MAX_ROWS:
            raise TooLarge(
                f"sheet {sheet.title} has more than {MAX_ROWS} rows", code="document_too_large",
                hint="Read it from its database as a source of type sql.",
            )  # fmt: skip
        cells = ["" if value is None else str(value) for value in row]
        if any(cells):
            yield cells


def pptx(data: bytes) -> Read:
    """A presentation: each slide with its title, its texts, tables and notes."""
    from pptx import Presentation  # noqa: PLC0415 -- heavy

    show = Presentation(opened(data))
    blocks: list[str] = []
    tables: list[Table] = []
    for number, slide in enumerate(show.slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text.split()) if title is not None and title.has_text_frame else ""
        blocks.append(f"# {heading or f'Slide {number}'}")
        for shape in _shapes(slide.shapes):
            if title is not None and shape.shape_id == title.shape_id:
                continue
            if shape.has_text_frame:
                blocks += [" ".join(each.text.split()) for each in shape.text_frame.paragraphs if each.text.strip()]
            if shape.has_table:
                tables.append(as_table(f"slide {number}", _cells(shape.table))[0])
                blocks.append(markdown_table(tables[-1]).rstrip())
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            said = " ".join(slide.notes_slide.notes_text_frame.text.split())
            blocks += [f"Notes: {said}"] if said else []
    return Read(_joined(blocks), markdown=True, title=show.core_properties.title or None, tables=tuple(tables))


def _shapes(shapes: Any) -> Iterator[Any]:
    """Those of groups too, in their order."""
    waiting = [iter(shapes)]
    while waiting:
        shape = next(waiting[-1], None)
        if shape is None:
            waiting.pop()
        elif hasattr(shape, "shapes"):
            waiting.append(iter(shape.shapes))
        else:
            yield shape


def _joined(blocks: list[str]) -> str:
    return clean("\n\n".join(blocks)) + "\n"
