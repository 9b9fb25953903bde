"""Text in the encoding that a page, its server or a message names, as browsers understand these names. Pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

_TEXTS: Final = re.compile(
    r"iso8859-\d{1,2}|cp\d{3,4}|koi8-[rtu]|mac-\w+|tis-620|shift_jis\w*|euc_\w+|gb\w+|hz|johab|big5\w*|iso2022_\w+"
    r"|utf-(?:7|16|32)(?:-[bl]e)?"
)
"""Of Python's codecs those in which texts are written. Another (`punycode`) takes time by the square of the text, and
whoever sends a text chooses the name."""
_MEANT: Final = {
    "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932",
}  # fmt: skip
"""What is written under these names has further letters."""


def codec_for(said: str | None) -> str | None:
    """The codec of that name; None for UTF-8, ASCII and what is no encoding of texts."""
    try:
        named = codecs.lookup(said or "utf-8").name
    except (LookupError, ValueError):
        return None
    name = _MEANT.get(named, named)
    return name if _TEXTS.fullmatch(name) else None


def decode_as(data: bytes, said: str | None) -> str | None:
    """The text; None where `said` names UTF-8, ASCII or no encoding of texts, or the bytes are not in it."""
    name = codec_for(said)
    try:
        return data.decode(name, "replace" if name == "cp1252" else "strict") if name else None
    except UnicodeDecodeError:
        return None


def guess_text(data: bytes) -> tuple[str, bool]:
    """A text that names no encoding, or a wrong one: UTF-8 where it mostly is that, else Western European, which is a
    guess (True)."""
    text = data.decode("utf-8", "replace")
    others = len(text) - len(text.encode("ascii", "ignore"))
    if 2 * text.count("\ufffd") <= others:
        return text, False
    return data.decode("cp1252", "replace"), True
