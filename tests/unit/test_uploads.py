"""Files that are sent to be read: text in the encodings that programs save, and what other files are told to be."""

from __future__ import annotations

import gzip

import pytest

from groundplan.api.http.uploads import decode_text
from groundplan.core.errors import Invalid

TEXT = "date,cost\n2026-11-25,€1.50\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_as_programs_save_it(encoding: str) -> None:
    assert decode_text(TEXT.encode(encoding), "bill") == TEXT


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (gzip.compress(TEXT.encode()), "compressed", "gunzip"),
        (b"PK\x03\x04\x14\0", "workbook", "save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "workbook", "CSV"),
        (b"PAR1\x15\x04", "Parquet", "CSV"),
        (b"%PDF-1.7\n", "PDF", "CSV"),
        (TEXT.encode("cp1252"), "line 2 of the file is not text", "UTF-8"),
        (b"\xff\xfea", "not text", "UTF-8"),
        (b"a\0b", "NUL", "CSV"),
    ],
)
def test_a_file_that_is_no_text_is_told_what_it_is(data: bytes, message: str, hint: str) -> None:
    with pytest.raises(Invalid, match=message) as refused:
        decode_text(data, "bill")
    assert refused.value.code == "bill_syntax" and hint in (refused.value.hint or "")
