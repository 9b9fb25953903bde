"""Normalises letters for finding names however they were typed. Pure; does not fold case."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SAME: Final = str.maketrans("\u2018\u2019\u02bc\u2032\u2010\u2012\u2013\u2212", "''''----")
"""Typographic apostrophes and hyphens -> those on a keyboard."""


def normalize_letters(text: str) -> str:
    """The text composed (NFKC), with one kind of apostrophe and hyphen; the SQL function `letters` does the same."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_SAME)


_LETTER: Final = "[0-9A-Za-z\u00c0-\u052f]"
"""Letters of scripts that separate words by spaces: Latin, Greek, Cyrillic."""
_BEGINS: Final = rf"(?:(?<!{_LETTER})|(?<=\\[nrt])|(?<=\\[0-7][0-7][0-7]))"
"""The beginning of a word: not after a letter, except one that ends an escape of JSON or of PostgreSQL's bytea."""


def name_pattern(text: str) -> str:
    """A regular expression (for Python and PostgreSQL) that finds a name or address at the beginning of a word:
    `ana@acme.example` is not found in `hana@acme.example` or `dr.ana@acme.example`. The word may continue after it, as
    inflected names do."""
    if re.match(_LETTER, text) is None:
        return re.escape(text)
    within = rf"(?<!{_LETTER}[.%+-])" if "@" in text else ""
    return f"{_BEGINS}{within}{re.escape(text)}"
