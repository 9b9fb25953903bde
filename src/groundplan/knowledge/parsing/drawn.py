"""Words and numbers that Word and PowerPoint keep beside the text, in parts of their own: charts and diagrams. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.tabular import as_table

_A: Final = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C: Final = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"


def drawn(part: Any, parse: Callable[[bytes], Any]) -> Iterator[Table | str]:
    """Each chart of a part as a table of its values, each paragraph of its diagrams (SmartArt). `parse` reads XML."""
    for relation in part.rels.values():
        if relation.is_external:
            continue
        if relation.reltype.endswith("/chart"):
            chart = _chart(parse(relation.target_part.blob))
            if chart is not None:
                yield chart
        elif relation.reltype.endswith("/diagramData"):
            for paragraph in parse(relation.target_part.blob).iter(f"{_A}p"):
                text = _said(paragraph)
                if text:
                    yield text


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
    title = " ".join(map(_said, root.iterfind(f"{_C}chart/{_C}title")))
    table, _ = as_table(title or "chart", cells)
    return Table(name=table.name, columns=table.columns, rows=table.rows, title=title)


def _points(series: Any, *kinds: str) -> dict[int, str]:
    return {
        int(point.get("idx", "0")): " ".join((point.findtext(f"{_C}v") or "").split())
        for kind in kinds
        for point in series.iterfind(f"{_C}{kind}//{_C}pt")
    }


def _said(element: Any) -> str:
    return " ".join("".join(text.text or "" for text in element.iter(f"{_A}t")).split())
