"""Scripts without spaces between words: their characters, and the units that are used as words. Pure.

No dictionary is used: pairs of consecutive characters match texts with the same words, and few others. Where the order
of words is compared, each character is a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

_UNSPACED: Final = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf"  # Lao
    "\u1000-\u103f\u1050-\u108f"  # Burmese
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u3005-\u3007\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7a3"  # Hangul: its words have spaces, and particles at their ends
)
RUN: Final = re.compile(f"[{_UNSPACED}]+")
"""A run of characters of such scripts; digits and punctuation do not belong to one."""
_WIDTH: Final = re.compile("[\u2f00-\u2fdf\uff00-\uffef]+")
"""Full-width letters, half-width kana, and radicals of Han characters, as PDFs have them."""


def normalise(text: str) -> str:
    """The text with each character in its usual form: letters composed with their accents, of ordinary width."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _WIDTH.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text))


def characters(run: str) -> list[str]:
    """The characters of a run, with combining marks attached to their letters."""
    letters: list[str] = list(run)
    if not run.isalnum():
        letters = []
        for one in run:
            if one.isalnum() or not letters:
                letters.append(one)
            else:
                letters[-1] += one
    return letters


def bigrams(run: str) -> list[str]:
    """The overlapping pairs of characters of a run; a single character by itself."""
    letters = characters(run)
    return [first + second for first, second in pairwise(letters)] or letters


def split_scripts(text: str) -> Iterator[tuple[str, bool]]:
    """(part of the text, whether its script has no spaces between words), in order."""
    if text.isascii():
        yield text, False
        return
    text, end = normalise(text), 0
    for run in RUN.finditer(text):
        if run.start() > end:
            yield text[end : run.start()], False
        yield run[0], True
        end = run.end()
    if end < len(text):
        yield text[end:], False


def split_unspaced(text: str) -> tuple[str, list[str]]:
    """(the text with a blank for each run of an unspaced script, the runs)."""
    if text.isascii():
        return text, []
    text = normalise(text)
    return RUN.sub(" ", text), RUN.findall(text)


def space_out(text: str) -> str:
    """The text with a blank on both sides of each character of a run, so that each is a word."""
    if text.isascii():
        return text
    return RUN.sub(lambda found: f" {' '.join(characters(found[0]))} ", normalise(text))


def is_unspaced(words: Sequence[str]) -> bool:
    """Whether most of these words are characters of such scripts: then two or three of them correspond to a word."""
    return not all(map(str.isascii, words)) and 2 * sum(RUN.match(word) is not None for word in words) > len(words)
