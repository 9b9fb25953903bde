"""Text of any writing for paragraphs of a PDF that reportlab makes: each part in a font that has its letters.

What Helvetica lacks is set in DejaVu Sans where the machine has it, else in what comes with reportlab; Chinese,
Japanese and Korean in fonts that readers of PDF bring along, since none is here to be put in. What no font has stands
without its accent, or as its code, `[U+0E01]`, never as a box. Needs reportlab, which the caller imports.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Final
from xml.sax.saxutils import escape

_ASIAN: Final = (("gb2312", "STSong-Light"), ("shift_jis", "HeiseiMin-W3"), ("euc_kr", "HYSMyeongJo-Medium"))
"""An encoding whose letters a font has; the first has those of Greek and Cyrillic, too."""
_MORE: Final = ("DejaVuSans", "Vera")
"""Fonts with more letters, the first that is found; the last one comes with reportlab."""

_PLANE: Final = 0xFFFF
"""Codes above it are not written so that they can be read out of the file again."""


def paragraph(text: str) -> str:
    """The markup of plain text."""
    if text.isascii():
        return escape(text)
    parts = []
    for font, letters in groupby(map(_shown, unicodedata.normalize("NFC", text)), key=lambda each: each[0]):
        said = escape("".join(letter for _, letter in letters))
        parts.append(f'<font name="{font}">{said}</font>' if font else said)
    return "".join(parts)


@lru_cache(maxsize=4096)
def _shown(letter: str) -> tuple[str, str]:
    """(the font that has it, or none where any has; what is written)"""
    if _can(letter, "cp1252"):
        return "", letter
    more, letters = _more()
    if ord(letter) in letters:
        return more, letter
    for encoding, font in _ASIAN:
        if _can(letter, encoding):
            return _known(font), letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    for other in (plain, letter.casefold()):
        if len(other) == 1 and other != letter and not (found := _shown(other))[1].startswith("[U+"):
            return found
    return ("", "") if unicodedata.combining(letter) else ("", f"[U+{ord(letter):04X}]")


def _can(letter: str, encoding: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=1)
def _more() -> tuple[str, frozenset[int]]:
    """(name of the font with more letters, which those are)"""
    from reportlab.pdfbase import pdfmetrics  # noqa: PLC0415 -- an extra, and heavy
    from reportlab.pdfbase.ttfonts import TTFError, TTFont  # noqa: PLC0415

    for name in _MORE:
        with suppress(TTFError):
            font = TTFont(name, f"{name}.ttf")
            pdfmetrics.registerFont(font)
            return name, frozenset(code for code in font.face.charToGlyph if code <= _PLANE)
    return "", frozenset()


@lru_cache
def _known(font: str) -> str:
    """A font's name, once reportlab knows it."""
    from reportlab.pdfbase import pdfmetrics  # noqa: PLC0415 -- an extra, and heavy
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont  # noqa: PLC0415

    pdfmetrics.registerFont(UnicodeCIDFont(font))
    return font
