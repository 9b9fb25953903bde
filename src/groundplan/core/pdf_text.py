"""Text in any script for paragraphs of a reportlab PDF: each part is set in a font that has its letters.

Letters that Helvetica lacks are set in DejaVu Sans where the machine has it, else in a font that comes with reportlab;
Chinese, Japanese and Korean in fonts that PDF readers bring along, since none is here to embed. A letter that no font
has is written without its accent or as its code, `[U+0E01]`, never as a box. Needs reportlab, which the caller imports.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Final
from xml.sax.saxutils import escape

_ASIAN: Final = (("gb2312", "STSong-Light"), ("shift_jis", "HeiseiMin-W3"), ("euc_kr", "HYSMyeongJo-Medium"))
"""(encoding, font that has its letters); the first also has those of Greek and Cyrillic."""
_WIDE_FONTS: Final = ("DejaVuSans", "Vera")
"""Fonts with more letters, of which the first found is used; the last one comes with reportlab."""

_PLANE: Final = 0xFFFF
"""Text with higher codes could not be extracted from the file again."""


def paragraph(text: str) -> str:
    """Convert plain text to reportlab's markup."""
    if text.isascii():
        return escape(text)
    parts = []
    for font, letters in groupby(map(_font_and_letter, unicodedata.normalize("NFC", text)), key=lambda each: each[0]):
        said = escape("".join(letter for _, letter in letters))
        parts.append(f'<font name="{font}">{said}</font>' if font else said)
    return "".join(parts)


@lru_cache(maxsize=4096)
def _font_and_letter(letter: str) -> tuple[str, str]:
    """(font for a letter, empty for the default; the text to write)"""
    if _can_encode(letter, "cp1252"):
        return "", letter
    more, letters = _wide_font()
    if ord(letter) in letters:
        return more, letter
    for encoding, font in _ASIAN:
        if _can_encode(letter, encoding):
            return _registered(font), letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    for other in (plain, letter.casefold()):
        if len(other) == 1 and other != letter and not (found := _font_and_letter(other))[1].startswith("[U+"):
            return found
    return ("", "") if unicodedata.combining(letter) else ("", f"[U+{ord(letter):04X}]")


def _can_encode(letter: str, encoding: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=1)
def _wide_font() -> tuple[str, frozenset[int]]:
    """(name of the font with more letters, its code points)"""
    from reportlab.pdfbase import pdfmetrics  # noqa: PLC0415 -- an extra, and heavy
    from reportlab.pdfbase.ttfonts import TTFError, TTFont  # noqa: PLC0415

    for name in _WIDE_FONTS:
        with suppress(TTFError):
            font = TTFont(name, f"{name}.ttf")
            pdfmetrics.registerFont(font)
            return name, frozenset(code for code in font.face.charToGlyph if code <= _PLANE)
    return "", frozenset()


@lru_cache
def _registered(font: str) -> str:
    """Register a font with reportlab and return its name."""
    from reportlab.pdfbase import pdfmetrics  # noqa: PLC0415 -- an extra, and heavy
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont  # noqa: PLC0415

    pdfmetrics.registerFont(UnicodeCIDFont(font))
    return font
