"""Scanned pages and pictures: their text is recognised in a confined process where the extra is there, else told."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen import canvas
from tests import forked_parsers

from groundplan.core.errors import Invalid
from groundplan.knowledge.parsing.model import Job, Parsed, Refused
from groundplan.knowledge.parsing.ocr import lay_out
from groundplan.knowledge.parsing.prepare import parse_job
from groundplan.knowledge.parsing.sandbox import Sandbox

LINES = ("Travel policy 2026", "Trains are preferred to planes below 600 km.", "A hotel costs at most 140 EUR a night.")


@pytest.fixture(autouse=True)
def parsers_without_forking() -> Iterator[None]:
    with forked_parsers.without_forking():
        yield


def scan(lines: Sequence[str]) -> Image.Image:
    """A page as a scanner gives it."""
    image = Image.new("RGB", (1240, 700), "white")
    drawn, font = ImageDraw.Draw(image), ImageFont.load_default(size=36)
    for number, line in enumerate(lines):
        drawn.text((100, 80 + number * 90), line, fill="black", font=font)
    return image


def png(lines: Sequence[str]) -> bytes:
    held = io.BytesIO()
    scan(lines).save(held, "PNG")
    return held.getvalue()


def paper(*pages: Sequence[str] | str) -> bytes:
    """A PDF: a text for a page with text, lines for one that is a picture."""
    held = io.BytesIO()
    made = canvas.Canvas(held, pagesize=(595, 336))
    for page in pages:
        if isinstance(page, str):
            made.drawString(60, 200, page)
        else:
            made.drawImage(ImageReader(scan(page)), 0, 0, 595, 336)
        made.showPage()
    made.save()
    return held.getvalue()


def test_text_in_pictures_is_recognised_by_a_confined_process_and_nothing_else_is_read_anew() -> None:
    jobs = [
        Job(key="scan.pdf", data=paper(LINES)),
        Job(key="mixed.pdf", data=paper("This page has text.", LINES)),
        Job(key="photo.png", data=png(LINES)),
        Job(key="text.pdf", data=paper("Nothing to recognise.")),
    ]
    with Sandbox() as sandbox:
        found = {job.key: outcome for job, outcome in sandbox.parse_all(jobs)}
    texts = {}
    for key, outcome in found.items():
        assert isinstance(outcome, Parsed), outcome
        assert outcome.pictures == 0
        texts[key] = "\n".join(piece.text for piece in outcome.pieces)
    for key in ("scan.pdf", "mixed.pdf", "photo.png"):
        assert all(line in texts[key] for line in LINES), texts[key]
    assert texts["mixed.pdf"].startswith("This page has text.")
    assert "Nothing to recognise." in texts["text.pdf"]


def test_where_nothing_can_be_recognised_it_says_what_to_install() -> None:
    for job in (Job(key="scan.pdf", data=paper(LINES)), Job(key="photo.png", data=png(LINES))):
        with pytest.raises(Invalid) as caught:
            parse_job(job)
        assert caught.value.code == "document_scanned"
        assert "groundplan[ocr]" in (caught.value.hint or "")
    mixed = parse_job(Job(key="mixed.pdf", data=paper("This page has text.", LINES)))
    assert mixed.pictures == 1
    assert "1 of 2 pages have no text" in mixed.notes[0]


def test_a_broken_picture_and_an_extra_that_is_missing_cost_one_line() -> None:
    with Sandbox() as sandbox:
        outcome = sandbox.parse(Job(key="a.png", data=b"\x89PNG nothing"))
        assert isinstance(outcome, Refused)
        assert outcome.code == "document_broken"
        wanted = sandbox.parse(Job(key="a.pdf", data=paper("Text."), pdf="docling:/no/such/folder"))
    assert isinstance(wanted, Refused)
    assert wanted.code in ("extra_missing", "docling_models")
    assert "docling" in wanted.hint


def test_pieces_of_text_stand_as_on_the_page() -> None:
    lines = [
        (10.0, 20.0, 50.0, "right"),
        (11.0, 21.0, 5.0, "left"),
        (24.0, 34.0, 5.0, "next"),
        (60.0, 70.0, 5.0, "far"),
    ]
    assert lay_out(lines) == "left right\nnext\n\nfar"
    assert lay_out([]) == ""
