"""Reads DOCX and PPTX as Markdown with their tables. Files with macros and decompression bombs are refused.

The libraries are those of `groundplan[knowledge]`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from groundplan.core.errors import Invalid, TooLarge
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.office_drawings import read_drawings
from groundplan.knowledge.parsing.tabular import as_table, markdown_table
from groundplan.knowledge.parsing.text import TextDocument, clean

MAX_UNPACKED = 256 << 20
MAX_RATIO = 200
MAX_PARTS = 20_000


def open_package(data: bytes) -> io.BytesIO:
    """The bytes as a file, after a check of the archive's directory. Raises `Invalid` and `TooLarge`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Invalid(
            "it is not an Office file, or it is encrypted",
            code="document_broken",
            hint="Save it again, without a password.",
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


def read_docx(data: bytes) -> TextDocument:
    """Read a Word document: headings, paragraphs, lists and tables in order, with those in text boxes and content
    controls; at the end its notes, headers and footers."""
    import docx as word  # noqa: PLC0415 -- heavy
    from docx.oxml import parse_xml  # noqa: PLC0415
    from docx.table import Table as WordTable  # noqa: PLC0415
    from docx.text.paragraph import Paragraph  # noqa: PLC0415

    document = word.Document(open_package(data))
    blocks: list[str] = []
    tables: list[Table] = []
    for element in _block_elements(document.element.body):
        if element.tag == _PARAGRAPH:
            text = _visible_text(element)
            blocks += [_markdown_paragraph(Paragraph(element, document), text)] if text else []
            continue
        rows = _table_cells(WordTable(element, document))
        if len(rows) > 1:
            tables.append(as_table(f"table {len(tables) + 1}", rows)[0])
            blocks.append(markdown_table(tables[-1]).rstrip())
        elif rows:
            blocks.append(" ".join(rows[0]))
    _append_drawings(document.part, parse_xml, blocks, tables)
    blocks += _supplementary_texts(document.part)
    properties = document.core_properties
    return TextDocument(
        join_blocks(blocks), markdown=True, title=properties.title or None, tables=tuple(tables),
        metadata={"page_author": properties.author} if properties.author else {},
    )  # fmt: skip


_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_PARAGRAPH, _TABLE, _BOX = f"{_W}p", f"{_W}tbl", f"{_W}txbxContent"
_TEXT_ELEMENTS = frozenset({f"{_W}t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"})
"""Elements with the text of words and of formulas."""
_SIGN_ELEMENTS = {f"{_W}tab": " ", f"{_W}ptab": " ", f"{_W}br": " ", f"{_W}cr": " ", f"{_W}noBreakHyphen": "-"}
"""Elements that stand for a character."""
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""A second form of the same content, for older programs."""
_SKIPPED = frozenset({_FALLBACK, f"{_W}del", f"{_W}moveFrom"})
_RUN, _HIDDEN = f"{_W}r", f"{_W}rPr/{_W}vanish"
_OFF = frozenset({"0", "false", "off", "none"})
_SUPPLEMENTARY = ("/footnotes", "/endnotes", "/header", "/footer")


def _block_elements(element: Any) -> Iterator[Any]:
    """The paragraphs and tables below an element, in order."""
    for child in element:
        if child.tag in (_PARAGRAPH, _TABLE):
            yield child
            for box in _text_boxes(child):
                yield from _block_elements(box)
        elif child.tag not in _SKIPPED:
            yield from _block_elements(child)


def _text_boxes(element: Any) -> Iterator[Any]:
    for child in element:
        if child.tag == _BOX:
            yield child
        elif child.tag not in _SKIPPED:
            yield from _text_boxes(child)


def _visible_text(element: Any) -> str:
    """The text as it is shown: with insertions, without deleted and hidden text and without text boxes."""
    return " ".join("".join(_text_pieces(element)).split())


def _text_pieces(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag in _TEXT_ELEMENTS:
            yield child.text or ""
        elif child.tag in _SIGN_ELEMENTS:
            yield _SIGN_ELEMENTS[child.tag]
        elif child.tag != _BOX and child.tag not in _SKIPPED and not _is_hidden(child):
            yield from _text_pieces(child)
            if child.tag == _PARAGRAPH:
                yield " "


def _is_hidden(element: Any) -> bool:
    """Whether Word hides the run: the person who approves the document does not see it."""
    mark = element.find(_HIDDEN) if element.tag == _RUN else None
    return mark is not None and str(mark.get(f"{_W}val", "1")).lower() not in _OFF


def _supplementary_texts(part: Any) -> list[str]:
    """The texts of notes, headers and footers, each text once."""
    from docx.oxml import parse_xml  # noqa: PLC0415 -- heavy

    found: dict[str, None] = {}
    for relation in part.rels.values():
        if not relation.is_external and relation.reltype.endswith(_SUPPLEMENTARY):
            for block in _block_elements(parse_xml(relation.target_part.blob)):
                found[_visible_text(block)] = None
    return [text for text in found if text]


def _markdown_paragraph(item: Any, text: str) -> str:
    style = (item.style.name or "") if item.style is not None else ""
    if style == "Title":
        return f"# {text}"
    if style.startswith("Heading ") and style[8:].isdigit():
        return "#" * min(6, int(style[8:])) + f" {text}"
    return f"- {text}" if style.startswith("List") else text


def _table_cells(table: Any) -> list[list[str]]:
    """Text of each cell; one that reaches over several is repeated, so that no value is lost."""
    return [[_visible_text(cell._tc) for cell in row.cells] for row in table.rows]


def read_pptx(data: bytes) -> TextDocument:
    """A presentation: each slide with its title, its texts, tables, charts, diagrams and notes."""
    from pptx import Presentation  # noqa: PLC0415 -- heavy
    from pptx.oxml import parse_xml  # noqa: PLC0415

    presentation = Presentation(open_package(data))
    blocks: list[str] = []
    tables: list[Table] = []
    for number, slide in enumerate(presentation.slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text.split()) if title is not None and title.has_text_frame else ""
        blocks.append(f"# {heading or f'Slide {number}'}")
        for shape in _visible_shapes(slide.shapes):
            if title is not None and shape.shape_id == title.shape_id:
                continue
            if shape.has_text_frame:
                blocks += [" ".join(each.text.split()) for each in shape.text_frame.paragraphs if each.text.strip()]
            if shape.has_table:
                tables.append(as_table(f"slide {number}", _slide_cells(shape.table))[0])
                blocks.append(markdown_table(tables[-1]).rstrip())
        _append_drawings(slide.part, parse_xml, blocks, tables)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = " ".join(slide.notes_slide.notes_text_frame.text.split())
            blocks += [f"Notes: {notes}"] if notes else []
    return TextDocument(
        join_blocks(blocks), markdown=True, title=presentation.core_properties.title or None, tables=tuple(tables)
    )


def _slide_cells(table: Any) -> list[list[str]]:
    """The cells of a table by row. Only the first of merged cells has a text in the file; here all have it."""
    cells = [[" ".join(cell.text.split()) for cell in row.cells] for row in table.rows]
    for at, row in enumerate(table.rows):
        for place, cell in enumerate(row.cells):
            if cell.is_merge_origin:
                text = cells[at][place]
                for below in cells[at : at + cell.span_height]:
                    below[place : place + cell.span_width] = [text] * len(below[place : place + cell.span_width])
    return cells


def _visible_shapes(shapes: Any) -> Iterator[Any]:
    """The visible shapes in order, with those of groups."""
    waiting = [iter(shapes)]
    while waiting:
        shape = next(waiting[-1], None)
        if shape is None:
            waiting.pop()
        elif str(shape._element._nvXxPr.cNvPr.get("hidden", "0")).lower() not in _OFF:
            continue  # the person who approves the slides does not see it
        elif hasattr(shape, "shapes"):
            waiting.append(iter(shape.shapes))
        else:
            yield shape


def _append_drawings(part: Any, parse: Callable[[bytes], Any], blocks: list[str], tables: list[Table]) -> None:
    """Add the contents of charts and diagrams."""
    for each in read_drawings(part, parse):
        if isinstance(each, Table):
            tables.append(each)
        blocks.append(each if isinstance(each, str) else markdown_table(each).rstrip())


def join_blocks(blocks: list[str]) -> str:
    return clean("\n\n".join(blocks)) + "\n"
