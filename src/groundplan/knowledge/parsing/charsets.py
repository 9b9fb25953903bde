"""Decodes text by the encoding that a page, its server or a message names, as browsers understand these names. Pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

_TEXT_CODECS: Final = re.compile(
    r"iso8859-\d{1,2}|cp\d{3,4}|koi8-[rtu]|mac-\w+|tis-620|shift_jis\w*|euc_\w+|gb\w+|hz|johab|big5\w*|iso2022_\w+"
    r"|utf-(?:7|16|32)(?:-[bl]e)?"
)
"""Python's codecs for written text. Others are refused: `punycode` takes time quadratic in the length of the text, and
the sender of a text chooses the name."""
_SUPERSETS: Final = {
    "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932",
}  # fmt: skip
"""Texts with these names use letters of a larger encoding, which is taken instead."""


def codec_for(encoding: str | None) -> str | None:
    """The Python codec for an encoding's name; None for UTF-8, ASCII and names that are not text encodings."""
    try:
        named = codecs.lookup(encoding or "utf-8").name
    except (LookupError, ValueError):
        return None
    name = _SUPERSETS.get(named, named)
    return name if _TEXT_CODECS.fullmatch(name) else None


def decode_as(data: bytes, encoding: str | None) -> str | None:
    """The decoded text; None if `encoding` is UTF-8, ASCII or no text encoding, or if the bytes are not valid in it."""
    name = codec_for(encoding)
    try:
        return data.decode(name, "replace" if name == "cp1252" else "strict") if name else None
    except UnicodeDecodeError:
        return None


def guess_text(data: bytes) -> tuple[str, bool]:
    """(text, whether its encoding was guessed) of bytes with no encoding, or a wrong one: UTF-8 if it is mostly valid,
    else Western European, as a guess."""
    text = data.decode("utf-8", "replace")
    non_ascii = len(text) - len(text.encode("ascii", "ignore"))
    if 2 * text.count("\ufffd") <= non_ascii:
        return text, False
    return data.decode("cp1252", "replace"), True
