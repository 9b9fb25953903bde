"""Letters as they are compared where a name is looked for, however it was typed. Pure; without case folding."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SAME: Final = str.maketrans("\u2018\u2019\u02bc\u2032\u2010\u2012\u2013\u2212", "''''----")
"""Apostrophes and hyphens, which programs that write texts put in the place of those on a keyboard."""


def normalize_letters(text: str) -> str:
    """The text composed (NFKC), with one kind of apostrophe and hyphen; the SQL function `letters` does the same."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_SAME)


_LETTER: Final = "[0-9A-Za-z\u00c0-\u052f]"
"""Of writing in which no word is put before another without a space: Latin, Greek, Cyrillic."""
_BEGINS: Final = rf"(?:(?<!{_LETTER})|(?<=\\[nrt])|(?<=\\[0-7][0-7][0-7]))"
"""Behind no letter; what escapes of JSON and of PostgreSQL's bytes end with is none."""


def name_pattern(text: str) -> str:
    """A regular expression (Python's and PostgreSQL's) for a text that names somebody, where a word begins with it:
    `ana@acme.example` is not in `hana@acme.example`, nor in `dr.ana@acme.example`. It may go on behind the text, as
    names do that are inflected."""
    if re.match(_LETTER, text) is None:
        return re.escape(text)
    within = rf"(?<!{_LETTER}[.%+-])" if "@" in text else ""
    return f"{_BEGINS}{within}{re.escape(text)}"
