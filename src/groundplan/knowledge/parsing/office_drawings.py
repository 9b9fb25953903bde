"""Words and numbers that Office files keep beside the text, in parts of their own: charts, diagrams, and the text boxes
of a sheet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.tabular import as_table

_A: Final = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C: Final = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_SHAPE: Final = "*/{http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing}cNvPr"
_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""The same once more, for older programs."""


def read_drawings(part: Any, parse: Callable[[bytes], Any], read: Collection[str] = ()) -> Iterator[Table | str]:
    """Each chart of a part as a table of its values, each paragraph of its diagrams (SmartArt). `parse` reads XML. A
    chart of the cells of sheets that are `read` gives its title alone."""
    for relation in part.rels.values():
        if relation.is_external:
            continue
        if relation.reltype.endswith("/chart"):
            root = parse(relation.target_part.blob)
            chart = None if read and _sheets(root) <= set(read) else _chart(root)
            if found := chart or _title(root):
                yield found
        elif relation.reltype.endswith("/diagramData"):
            for paragraph in parse(relation.target_part.blob).iter(f"{_A}p"):
                text = _said(paragraph)
                if text:
                    yield text


def shape_texts(element: Any) -> Iterator[str]:
    """Each paragraph of the shapes that a drawing shows."""
    for child in element:
        if child.tag == f"{_A}p":
            if text := _said(child):
                yield text
        elif child.tag != _FALLBACK and not _is_hidden(child):
            yield from shape_texts(child)


def _is_hidden(shape: Any) -> bool:
    told = shape.find(_SHAPE)
    return told is not None and told.get("hidden") in ("1", "true")


def _sheets(root: Any) -> set[str]:
    """The sheets in whose cells the values of a chart stand; an empty name for values of its own."""
    found = set()
    for values in (
        each for series in root.iter(f"{_C}ser") for kind in ("val", "yVal") for each in series.iterfind(f"{_C}{kind}")
    ):
        formula = values.findtext(f"{_C}numRef/{_C}f") or ""
        found.add(formula.strip("()").rpartition("!")[0].strip("'").replace("''", "'"))
    return found


def _chart(root: Any) -> Table | None:
    """A row for each category, or x, and a column for each series; None where it has no values."""
    heads: dict[int, str] = {}
    columns: list[tuple[str, dict[int, str]]] = []
    for series in root.iter(f"{_C}ser"):
        heads = {**_points(series, "cat", "xVal"), **heads}
        name = " ".join(value.text or "" for value in series.iterfind(f"{_C}tx//{_C}v"))
        columns.append((name, _points(series, "val", "yVal")))
    rows = sorted({at for _, values in columns for at in values})
    if not rows:
        return None
    cells = [["", *(name for name, _ in columns)]]
    cells += [[heads.get(at, str(at + 1)), *(values.get(at, "") for _, values in columns)] for at in rows]
    title = _title(root)
    table, _ = as_table(title or "chart", cells)
    return Table(name=table.name, columns=table.columns, rows=table.rows, title=title)


def _points(series: Any, *kinds: str) -> dict[int, str]:
    return {
        int(point.get("idx", "0")): " ".join((point.findtext(f"{_C}v") or "").split())
        for kind in kinds
        for point in series.iterfind(f"{_C}{kind}//{_C}pt")
    }


def _title(root: Any) -> str:
    """What stands above a chart, with what stands beside its axes."""
    above = " ".join(map(_said, root.iterfind(f"{_C}chart/{_C}title")))
    axes = ", ".join(filter(None, map(_said, root.iterfind(f"{_C}chart/{_C}plotArea/*/{_C}title"))))
    return f"{above} ({axes})" if above and axes else above or axes


def _said(element: Any) -> str:
    return " ".join("".join(_words(element)).split())


def _words(element: Any) -> Iterator[str]:
    for each in element.iter():
        if each.tag in (f"{_A}t", f"{_C}v"):
            yield each.text or ""
        elif each.tag in (f"{_A}br", f"{_A}p"):
            yield " "
