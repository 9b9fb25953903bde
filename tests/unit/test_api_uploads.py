"""A file that is sent is text, or is refused with the line that is none, or with what the file is."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from groundplan.api.http.uploads import parse_options, read_text
from groundplan.core.errors import Invalid

TEXT = "date,cost\n2026-11-25,€1.50\n"


class Sent:
    """A request whose body comes in parts."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    async def stream(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


def read(*parts: bytes) -> str:
    request: Any = Sent(*parts)
    return asyncio.run(read_text(request, "bill", "Split it."))


def test_text_comes_as_it_is_without_a_mark_of_the_byte_order() -> None:
    assert read(b"\xef\xbb\xbfa,\xc3", b"\xa9\n") == "a,é\n"


@pytest.mark.parametrize(
    ("data", "line"), [(b"\xff\xfeb", 1), (b"a\nb\nCaf\xe9\n", 3), (b"a\n\0", 2), ("é\né\0".encode(), 2)]
)
def test_what_is_no_text_is_refused_with_its_line(data: bytes, line: int) -> None:
    with pytest.raises(Invalid, match=f"^line {line} of the file ") as refused:
        read(data)
    assert refused.value.code == "bill_syntax" and refused.value.hint


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_as_programs_save_it(encoding: str) -> None:
    assert read(TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (gzip.compress(TEXT.encode()), "compressed", "gunzip"),
        (b"PK\x03\x04\x14\0", "workbook", "save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "workbook", "CSV"),
        (b"PAR1\x15\x04", "Parquet", "CSV"),
        (b"%PDF-1.7\n", "PDF", "CSV"),
    ],
    ids=["gzip", "xlsx", "xls", "parquet", "pdf"],  # what is compressed has the time of day
)
def test_a_file_that_is_no_text_is_told_what_it_is(data: bytes, message: str, hint: str) -> None:
    with pytest.raises(Invalid, match=message) as refused:
        read(data)
    assert refused.value.code == "bill_syntax" and hint in (refused.value.hint or "")


def test_an_option_without_a_value_says_how_it_is_written() -> None:
    assert parse_options(["ticket = nr", "at="], "ticket=COLUMN") == {"ticket": "nr", "at": ""}
    with pytest.raises(Invalid) as refused:
        parse_options(["ticket"], "ticket=COLUMN")
    assert (refused.value.code, refused.value.hint) == ("option_form", "Write ticket=COLUMN.")
