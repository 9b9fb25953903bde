"""Reads the words and numbers that Office files keep in separate parts: charts, diagrams, and the text boxes of a
sheet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.tabular import as_table

_A: Final = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C: Final = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_SHAPE: Final = "*/{http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing}cNvPr"
_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""A second form of the same content, for older programs."""


def read_drawings(part: Any, parse: Callable[[bytes], Any], read_sheets: Collection[str] = ()) -> Iterator[Table | str]:
    """Each chart of a part as a table of its values, and each paragraph of its diagrams (SmartArt).

    `parse` parses XML. A chart whose values stand in the cells of `read_sheets` gives its title only.
    """
    for relation in part.rels.values():
        if relation.is_external:
            continue
        if relation.reltype.endswith("/chart"):
            root = parse(relation.target_part.blob)
            chart = None if read_sheets and _referenced_sheets(root) <= set(read_sheets) else _chart_table(root)
            if found := chart or _title(root):
                yield found
        elif relation.reltype.endswith("/diagramData"):
            for paragraph in parse(relation.target_part.blob).iter(f"{_A}p"):
                text = _element_text(paragraph)
                if text:
                    yield text


def shape_texts(element: Any) -> Iterator[str]:
    """Each paragraph of the visible shapes of a drawing."""
    for child in element:
        if child.tag == f"{_A}p":
            if text := _element_text(child):
                yield text
        elif child.tag != _FALLBACK and not _is_hidden(child):
            yield from shape_texts(child)


def _is_hidden(shape: Any) -> bool:
    properties = shape.find(_SHAPE)
    return properties is not None and properties.get("hidden") in ("1", "true")


def _referenced_sheets(root: Any) -> set[str]:
    """The sheets whose cells have the values of a chart; an empty name for values in the chart itself."""
    found = set()
    for values in (
        each for series in root.iter(f"{_C}ser") for kind in ("val", "yVal") for each in series.iterfind(f"{_C}{kind}")
    ):
        formula = values.findtext(f"{_C}numRef/{_C}f") or ""
        found.add(formula.strip("()").rpartition("!")[0].strip("'").replace("''", "'"))
    return found


def _chart_table(root: Any) -> Table | None:
    """A chart as a table: a row for each category, or x, and a column for each series; None if it has no values."""
    categories: dict[int, str] = {}
    columns: list[tuple[str, dict[int, str]]] = []
    for series in root.iter(f"{_C}ser"):
        categories = {**_point_values(series, "cat", "xVal"), **categories}
        name = " ".join(value.text or "" for value in series.iterfind(f"{_C}tx//{_C}v"))
        columns.append((name, _point_values(series, "val", "yVal")))
    rows = sorted({index for _, values in columns for index in values})
    if not rows:
        return None
    cells = [["", *(name for name, _ in columns)]]
    cells += [
        [categories.get(index, str(index + 1)), *(values.get(index, "") for _, values in columns)] for index in rows
    ]
    title = _title(root)
    table, _ = as_table(title or "chart", cells)
    return Table(name=table.name, columns=table.columns, rows=table.rows, title=title)


def _point_values(series: Any, *kinds: str) -> dict[int, str]:
    return {
        int(point.get("idx", "0")): " ".join((point.findtext(f"{_C}v") or "").split())
        for kind in kinds
        for point in series.iterfind(f"{_C}{kind}//{_C}pt")
    }


def _title(root: Any) -> str:
    """The title of a chart, with the titles of its axes in brackets."""
    above = " ".join(map(_element_text, root.iterfind(f"{_C}chart/{_C}title")))
    axes = ", ".join(filter(None, map(_element_text, root.iterfind(f"{_C}chart/{_C}plotArea/*/{_C}title"))))
    return f"{above} ({axes})" if above and axes else above or axes


def _element_text(element: Any) -> str:
    return " ".join("".join(_text_pieces(element)).split())


def _text_pieces(element: Any) -> Iterator[str]:
    for each in element.iter():
        if each.tag in (f"{_A}t", f"{_C}v"):
            yield each.text or ""
        elif each.tag in (f"{_A}br", f"{_A}p"):
            yield " "
