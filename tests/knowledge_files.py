"""Files of every kind for tests, made in memory; among them those that want to harm their reader."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import docx
import openpyxl
import pptx
from pptx.util import Inches

PRICES = (("Pump", "Price"), ("P-100", "1,250 EUR"), ("P-200", "2,400 EUR"))


def word(*, title: str = "Returns") -> bytes:
    document = docx.Document()
    document.core_properties.title = title
    document.add_heading("Returns", 1)
    document.add_paragraph("Pumps may be returned within 30 days.")
    table = document.add_table(rows=0, cols=2)
    for row in PRICES:
        cells = table.add_row().cells
        cells[0].text, cells[1].text = row
    document.add_paragraph("Freight is not refunded.", style="List Bullet")
    return _saved(document)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    for row in PRICES:
        sheet.append(row)
    return _saved(book)


def slides() -> bytes:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Prices"
    table = slide.shapes.add_table(3, 2, Inches(1), Inches(1), Inches(4), Inches(2)).table
    for at, row in enumerate(PRICES):
        for column, text in enumerate(row):
            table.cell(at, column).text = text
    slide.notes_slide.notes_text_frame.text = "Say that freight is extra."
    return _saved(show)


def pdf(
    lines: Sequence[str] = ("Pumps may be returned within 30 days.",), *, table: bool = False, pages: int = 1
) -> bytes:
    """A PDF with the lines on each page and, if asked, a ruled table below."""
    drawing = ["BT /F1 12 Tf 72 720 Td 16 TL"] + [f"({line}) Tj T*" for line in lines] + ["ET"]
    if table:
        for at in range(len(PRICES) + 1):
            drawing.append(f"72 {600 - 20 * at} m 372 {600 - 20 * at} l S")
        for x in (72, 222, 372):
            drawing.append(f"{x} 600 m {x} {600 - 20 * len(PRICES)} l S")
        for at, row in enumerate(PRICES):
            for column, text in enumerate(row):
                drawing.append(f"BT /F1 10 Tf {78 + 150 * column} {586 - 20 * at} Td ({text}) Tj ET")
    stream = "\n".join(drawing).encode()
    kids = " ".join(["3 0 R"] * pages)
    return _pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>".encode(),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
            b" /Resources << /Font << /F1 5 0 R >> >> >>",
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
    )


def picture_pdf() -> bytes:
    """A page with nothing that is text."""
    return pdf(())


def zip_bomb() -> bytes:
    """A workbook of a few kilobytes that unpacks to 24 MiB, a thousand times its size."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (24 << 20))
    return target.getvalue()


def with_macro(data: bytes) -> bytes:
    target = io.BytesIO(data)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("word/vbaProject.bin", b"Sub AutoOpen()")
    return target.getvalue()


def _pdf(objects: Sequence[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for place in places:
        out += b"%010d 00000 n \n" % place
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def _saved(document: object) -> bytes:
    target = io.BytesIO()
    document.save(target)  # type: ignore[attr-defined]
    return target.getvalue()
