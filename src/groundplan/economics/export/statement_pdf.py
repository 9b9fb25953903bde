"""A team's statement as PDF, to be filed or sent: the same lines and sums as its CSV, made with reportlab.

The same statement makes the same bytes. Needs the extra `groundplan[economics]`; without it, it is refused with how to
get it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from groundplan.core.errors import Invalid
from groundplan.core.money import format_usd
from groundplan.core.pdf_text import paragraph
from groundplan.economics.export.statement import Statement

Row = tuple[str, ...]
_GREY, _PALE = "#7a8794", "#eef1f4"
_MARGIN = 48
_WIDTHS = (92.0, 74.0, 58.0, 156.0, 119.0)
"""Points of the columns of lines."""


def statement_pdf(statement: Statement, company: str) -> bytes:
    """A4, one file. Raises `Invalid` (`extra_missing`)."""
    try:
        from reportlab.lib.pagesizes import A4  # noqa: PLC0415 -- an extra, and heavy
        from reportlab.lib.styles import getSampleStyleSheet  # noqa: PLC0415
        from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer  # noqa: PLC0415
    except ImportError as error:
        raise Invalid(
            "PDF statements need an optional package", code="extra_missing", hint="pip install 'groundplan[economics]'"
        ) from error
    styles = getSampleStyleSheet()
    title = f"{statement.kind.capitalize()}: {statement.team}"
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out, pagesize=A4, leftMargin=_MARGIN, rightMargin=_MARGIN, topMargin=_MARGIN, bottomMargin=_MARGIN,
        title=title, author=company, invariant=1,
    )  # fmt: skip
    story: list[Any] = [
        Paragraph(paragraph(title), styles["Title"]),
        Paragraph(_lead(statement, company), styles["Normal"]),
    ]
    for name, sums in (("By workload", statement.by_workload()), ("By term", statement.by_term())):
        story += [Paragraph(name, styles["Heading2"]), _table([(key, format_usd(amount)) for key, amount in sums])]
    lines = [
        (line.workload or "idle and uncarried", line.term, line.basis, f"{line.rule} ({line.source})",
         format_usd(line.amount))
        for line in statement.lines
    ]  # fmt: skip
    head = ("Workload", "Term", "Known", "Rule (source)", "USD")
    total = ("Total", "", "", "", format_usd(statement.total))
    story += [Paragraph("Line by line", styles["Heading2"]), _table([head, *lines, total], _WIDTHS), Spacer(1, 12)]
    story.append(Paragraph(f"Together {format_usd(statement.total)} USD.", styles["Normal"]))
    document.build(story, onFirstPage=_foot, onLaterPages=_foot)
    return out.getvalue()


def _lead(statement: Statement, company: str) -> str:
    center = f" Cost center {statement.cost_center}." if statement.cost_center else ""
    which = "The month before" if statement.over else "The same days of the month before"
    before = "" if statement.previous is None else f" {which}: {format_usd(statement.previous)} USD."
    grows = "" if statement.over else " The month is not over: the sum will grow."
    known = ", ".join(f"{name} {format_usd(amount)}" for name, amount in statement.by_basis())
    return paragraph(
        f"{company}, {statement.first.isoformat()} to {statement.last.isoformat()}: "
        f"{format_usd(statement.total)} USD ({known or 'nothing was spent'}).{before}{grows}{center}"
    )


def _table(rows: Sequence[Row], widths: tuple[float, ...] | None = None) -> Any:
    from reportlab.lib.colors import HexColor  # noqa: PLC0415 -- an extra, and heavy
    from reportlab.lib.styles import ParagraphStyle  # noqa: PLC0415
    from reportlab.platypus import Paragraph, Table  # noqa: PLC0415

    if not rows:
        rows = [("nothing", format_usd(0))]
    left = ParagraphStyle("cell", fontName="Helvetica", fontSize=8, leading=10)
    right = ParagraphStyle("number", parent=left, fontName="Courier", alignment=2)
    cells = [[Paragraph(paragraph(text), right if place == len(row) - 1 else left) for place, text in enumerate(row)]
             for row in rows]  # fmt: skip
    table = Table(cells, colWidths=widths or (380, 119), repeatRows=1 if widths else 0, hAlign="LEFT")
    lines = [("LINEBELOW", (0, 0), (-1, -1), 0.25, HexColor(_GREY)), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    if widths:
        lines += [("BACKGROUND", (0, 0), (-1, 0), HexColor(_PALE)), ("BACKGROUND", (0, -1), (-1, -1), HexColor(_PALE))]
    table.setStyle(lines)
    return table


def _foot(canvas: Any, document: Any) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 7)
    canvas.drawRightString(document.pagesize[0] - _MARGIN, _MARGIN / 2, f"page {document.page}")
    canvas.restoreState()
