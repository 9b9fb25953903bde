"""The plan for a board as a PDF: the sections of `report` on A4 pages, with pictures as images. Nothing else.

Needs reportlab, of the extra `groundplan[placement]`. The same plan gives the same bytes.
"""

from __future__ import annotations

import importlib
import io
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from groundplan.api.placement.report import Section, Table
from groundplan.core.errors import Invalid
from groundplan.core.pdf_text import paragraph

INK, SOFT = "#1d2730", "#c9d1d8"
WIDTH, MARGIN = 595.28, 48.0
"""Points of an A4 page"""
SHARPNESS = 2.0


def report_pdf(report: Iterable[Section]) -> bytes:
    """All sections as one file. Raises `Invalid` where reportlab is not installed."""
    platypus, styles = _library("reportlab.platypus"), _styles()
    section_list, out = list(report), io.BytesIO()
    document = platypus.SimpleDocTemplate(
        out, pagesize=(WIDTH, 841.89), leftMargin=MARGIN, rightMargin=MARGIN, topMargin=MARGIN, bottomMargin=MARGIN,
        title=section_list[0].heading, author="Groundplan", invariant=1,
    )  # fmt: skip
    flow = [flowable for section in section_list for flowable in _section(platypus, styles, section)]
    document.build(flow, onFirstPage=_numbered, onLaterPages=_numbered)
    return out.getvalue()


def _numbered(canvas: Any, document: Any) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 8)
    canvas.drawRightString(WIDTH - MARGIN, MARGIN / 2, f"{document.page}")
    canvas.restoreState()


def _section(platypus: Any, styles: dict[str, Any], section: Section) -> Iterator[Any]:
    heading = [platypus.Paragraph(paragraph(section.heading), styles[f"h{section.level}"])]
    body: list[Any] = []
    if section.text:
        body.append(platypus.Paragraph(paragraph(section.text), styles["p"]))
    body += [platypus.Paragraph(paragraph(line), styles["li"], bulletText="-") for line in section.lines]
    if section.svg:
        body.append(_picture(platypus, section.svg))
    if section.table is not None:
        body.append(_table(platypus, styles, section.table))
    # a heading stays with what follows it
    yield platypus.KeepTogether([*heading, *body[:1]])
    yield from body[1:]


def _picture(platypus: Any, svg: str) -> Any:
    """A picture as an image; ink in the page's own colour is black on paper."""
    import vl_convert  # noqa: PLC0415 -- heavy

    png: bytes = vl_convert.svg_to_png(svg.replace("currentColor", INK), scale=SHARPNESS)
    width, height = (pixels / SHARPNESS for pixels in struct.unpack(">II", png[16:24]))
    shrunk = min(1.0, (WIDTH - 2 * MARGIN) / width)
    return platypus.Image(io.BytesIO(png), width * shrunk, height * shrunk, hAlign="LEFT")


def _table(platypus: Any, styles: dict[str, Any], table: Table) -> Any:
    count = len(table.head)
    rows = [
        [
            platypus.Paragraph(paragraph(cell), styles["right" if at in table.numbers else "cell"])
            for at, cell in enumerate(row)
        ]
        for row in (table.head, *table.rows)
    ]
    widths = [(WIDTH - 2 * MARGIN) / count] * count
    return platypus.Table(
        rows,
        colWidths=widths,
        repeatRows=1,
        style=[("LINEBELOW", (0, 0), (-1, -1), 0.4, SOFT), ("VALIGN", (0, 0), (-1, -1), "TOP")],
    )


def _styles() -> dict[str, Any]:
    style, colour = _library("reportlab.lib.styles").ParagraphStyle, INK
    plain = style("p", fontName="Helvetica", fontSize=9.5, leading=13, textColor=colour, spaceAfter=6)
    return {
        "p": plain,
        "li": style("li", plain, leftIndent=10, bulletIndent=0, spaceAfter=2),
        "h1": style("h1", plain, fontName="Helvetica-Bold", fontSize=18, leading=22, spaceAfter=10),
        "h2": style("h2", plain, fontName="Helvetica-Bold", fontSize=13, leading=16, spaceBefore=14, spaceAfter=6),
        "h3": style("h3", plain, fontName="Helvetica-Bold", fontSize=10.5, leading=14, spaceBefore=8, spaceAfter=3),
        "cell": style("cell", plain, fontSize=8, leading=10, spaceAfter=0),
        "right": style("right", plain, fontSize=8, leading=10, spaceAfter=0, alignment=2),
    }


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Invalid(
            "a PDF needs reportlab, which is not installed",
            code="extra_missing",
            hint="pip install 'groundplan[placement]', or write an HTML file: any browser prints it.",
        ) from error
