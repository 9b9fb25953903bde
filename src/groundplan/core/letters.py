"""Letters as they are compared where a name is looked for, however it was typed. Pure; without case folding."""

from __future__ import annotations

import unicodedata
from typing import Final

_SAME: Final = str.maketrans("\u2018\u2019\u02bc\u2032\u2010\u2012\u2013\u2212", "''''----")
"""Apostrophes and hyphens, which programs that write texts put in the place of those on a keyboard."""


def letters(text: str) -> str:
    """Composed, of ordinary width, with one kind of apostrophe and hyphen. The database has the same (`letters`)."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_SAME)
