"""Text of any writing is in a PDF as it was written, or by its code; never as a box."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pdfplumber
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate

from groundplan.core import pdf_text


def make_pdf(*texts: str) -> bytes:
    out = io.BytesIO()
    style = getSampleStyleSheet()["Normal"]
    SimpleDocTemplate(out, invariant=1).build([Paragraph(pdf_text.paragraph(text), style) for text in texts])
    return out.getvalue()


def read(data: bytes) -> str:
    with pdfplumber.open(io.BytesIO(data)) as document:
        return "\n".join(page.extract_text() or "" for page in document.pages)


@pytest.fixture
def fallback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without DejaVu Sans."""
    monkeypatch.setattr(pdf_text, "_WIDE_FONTS", ("NoSuchFont", "Vera"))
    for kept in (pdf_text._wide_font, pdf_text._font_and_letter):
        kept.cache_clear()
    yield
    for kept in (pdf_text._wide_font, pdf_text._font_and_letter):
        kept.cache_clear()


@pytest.mark.parametrize(
    "text", ["Umsätze < 5 € & “mehr”", "договор 12 с ООО", "契约十二号、预算", "한국어 계약", "ありがとう カタカナ"]
)
def test_what_is_written_can_be_read(text: str) -> None:
    assert text in read(make_pdf(text))


def test_what_no_font_has_stands_without_its_accent_or_as_its_code(fallback: None) -> None:
    assert read(make_pdf("Łódź ą Ελλάς ไ 😀")).startswith("Łódz a Ελλασ [U+0E44] [U+1F600]")


def test_a_letter_and_its_accent_are_one(fallback: None) -> None:
    assert read(make_pdf("e\u0301")) == "é"


def test_the_same_text_gives_the_same_bytes() -> None:
    assert make_pdf("Łódź договор 契約") == make_pdf("Łódź договор 契約")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_any_text_can_be_written(text: str) -> None:
    assert make_pdf(text).startswith(b"%PDF-")
    assert "■" not in read(make_pdf(text)) or "■" in text
