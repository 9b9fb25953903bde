"""Files of every kind for tests, created in memory; among them malicious ones."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence

import docx
import openpyxl
import pptx
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from pptx.util import Inches

from groundplan.knowledge.parsing.model import Job, Parsed
from groundplan.knowledge.parsing.prepare import parse_job

PRICES = (("Pump", "Price"), ("P-100", "1,250 EUR"), ("P-200", "2,400 EUR"))


def word_document(*, title: str = "Returns") -> bytes:
    document = docx.Document()
    document.core_properties.title = title
    document.add_heading("Returns", 1)
    document.add_paragraph("Pumps may be returned within 30 days.")
    table = document.add_table(rows=0, cols=2)
    for row in PRICES:
        cells = table.add_row().cells
        cells[0].text, cells[1].text = row
    document.add_paragraph("Freight is not refunded.", style="List Bullet")
    return _save(document)


def word_with_parts() -> bytes:
    """A document with text in its header, nested tables, boxes, controls, insertions and footnotes."""
    document = docx.Document()
    document.add_paragraph("Returns.")
    document.sections[0].header.paragraphs[0].text = "What stands in the header"
    table = document.add_table(rows=2, cols=1)
    table.cell(1, 0).add_table(rows=1, cols=1).cell(0, 0).text = "What stands in a nested table"
    cell_content = f"""<w:p {nsdecls("w", "m")}><w:r><w:pict><w:txbxContent><w:p><w:r>
      <w:t>What stands in a box of a cell</w:t></w:r></w:p></w:txbxContent></w:pict></w:r>
      <w:r><w:t>Part A</w:t><w:noBreakHyphen/><w:t>12</w:t></w:r>
      <m:oMath><m:r><m:t>y=3x</m:t></m:r></m:oMath></w:p>"""
    table.cell(1, 0)._tc.append(parse_xml(cell_content))

    def run(text: str, tag: str = "t") -> str:
        return f"<w:r><w:{tag}>{text}</w:{tag}></w:r>"

    box = f"<w:txbxContent><w:p>{run('What stands in a box.')}</w:p></w:txbxContent>"
    body = f"""<w:body {nsdecls("w")} xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">
      <w:sdt><w:sdtContent><w:p>{run("What stands in a control")}</w:p></w:sdtContent></w:sdt>
      <w:p><w:ins w:id="1">{run("What stands inserted")}</w:ins>
        <w:del w:id="2">{run("taken out", "delText")}</w:del>
        <w:r><mc:AlternateContent><mc:Choice Requires="wps">{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>
        </mc:AlternateContent></w:r></w:p></w:body>"""
    for element in reversed(list(parse_xml(body))):
        document.element.body.insert(0, element)
    note = f"<w:footnote><w:p>{run('What stands in a note')}</w:p></w:footnote>"
    notes = f"<w:footnotes {nsdecls('w')}>{note}</w:footnotes>"
    part_name = PackURI("/word/footnotes.xml")
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
    document.part.relate_to(
        Part(part_name, kind, notes.encode(), document.part.package),
        "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes",
    )
    return _save(document)


def grouped_slides() -> bytes:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[6])
    group = slide.shapes.add_group_shape().shapes.add_group_shape()
    box = group.shapes.add_textbox(Inches(1), Inches(1), Inches(4), Inches(1))
    box.text_frame.text = "What stands in a group within a group."
    return _save(show)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    for row in PRICES:
        sheet.append(row)
    return _save(book)


def slides() -> bytes:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Prices"
    table = slide.shapes.add_table(3, 2, Inches(1), Inches(1), Inches(4), Inches(2)).table
    for row_index, row in enumerate(PRICES):
        for column, text in enumerate(row):
            table.cell(row_index, column).text = text
    slide.notes_slide.notes_text_frame.text = "Say that freight is extra."
    return _save(show)


def pdf(
    lines: Sequence[str] = ("Pumps may be returned within 30 days.",), *, table: bool = False, pages: int = 1,
    drawn: Sequence[str] = (),
) -> bytes:  # fmt: skip
    """A PDF with `lines` on each page and, with `table`, a ruled table below; `drawn`: further operators."""
    drawing = ["BT /F1 12 Tf 72 720 Td 16 TL"] + [f"({line}) Tj T*" for line in lines] + ["ET"]
    drawing += drawn
    if table:
        for row_index in range(len(PRICES) + 1):
            drawing.append(f"72 {600 - 20 * row_index} m 372 {600 - 20 * row_index} l S")
        for x in (72, 222, 372):
            drawing.append(f"{x} 600 m {x} {600 - 20 * len(PRICES)} l S")
        for row_index, row in enumerate(PRICES):
            for column, text in enumerate(row):
                drawing.append(f"BT /F1 10 Tf {78 + 150 * column} {586 - 20 * row_index} Td ({text}) Tj ET")
    stream = "\n".join(drawing).encode()
    kids = " ".join(["3 0 R"] * pages)
    return pdf_of(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>".encode(),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
            b" /Resources << /Font << /F1 5 0 R >> >> >>",
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
    )


def pages(*drawings: Sequence[str]) -> bytes:
    """A PDF with a drawing on each page."""
    streams = ["\n".join(drawing).encode() for drawing in drawings]
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(streams)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(streams)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for index, stream in enumerate(streams):
        page = f"/MediaBox [0 0 612 792] /Contents {5 + 2 * index} 0 R /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {page} >>".encode())
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    return pdf_of(objects)


def placed_pdf(*words: tuple[float, float, str]) -> bytes:
    """A PDF page with each text at its (x, y), and no ruled lines."""
    return pdf((), drawn=[f"BT /F1 10 Tf {x} {y} Td ({text}) Tj ET" for x, y, text in words])


def picture_pdf() -> bytes:
    """A PDF page without any text."""
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


def pdf_of(objects: Sequence[bytes]) -> bytes:
    """A PDF of these objects, the first of which is its catalogue."""
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        out += b"%010d 00000 n \n" % offset
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def _save(document: object) -> bytes:
    target = io.BytesIO()
    document.save(target)  # type: ignore[attr-defined]
    return target.getvalue()


def parse_file(name: str, data: bytes) -> Parsed:
    return parse_job(Job(key=name, data=data, tables=True))


def full_text(document: Parsed) -> str:
    return "\n".join(piece.text for piece in document.pieces)


def make_workbook(fill: object, name: str = "S") -> bytes:
    workbook_ = openpyxl.Workbook()
    workbook_.active.title = name
    fill(workbook_.active)  # type: ignore[operator]
    target = io.BytesIO()
    workbook_.save(target)
    return target.getvalue()


def edit_archive(data: bytes, part: str, old: str, new: str) -> bytes:
    """A copy of an archive in whose `part` matches of the pattern `old` are replaced by `new`."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(target, "w") as other:
        for each in archive.namelist():
            content = archive.read(each)
            if each == part:
                assert re.search(old.encode(), content)
                content = re.sub(old.encode(), new.encode(), content)
            other.writestr(each, content)
    return target.getvalue()
