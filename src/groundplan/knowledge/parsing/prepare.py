"""Turns the bytes of a document into passages: chooses a reader by suffix (`READERS`), cuts the text into chunks, and
computes the digest and sketch of the content.

Pure; it runs in the confined process.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, Final

import rensa

from groundplan.core.errors import Invalid, TooLarge
from groundplan.knowledge.chunk import first_heading, split_passages
from groundplan.knowledge.parsing import email, html, ocr, office, pdf, structured_pdf, tabular, text, xlsx
from groundplan.knowledge.parsing.model import MAX_BYTES, Job, Parsed, Piece, Table
from groundplan.knowledge.parsing.text import TextDocument
from groundplan.knowledge.writing_systems import space_out

PROCESSING: Final = "11"
"""Version of the processing: changes whenever the same bytes give another result; all documents are then parsed again.
"""
PERMUTATIONS: Final = 126
SCANNED: Final = "document_scanned"
"""Code of a refusal: the text is in pictures."""
HEAVY: Final = "document_heavy"
"""Code of a refusal: the document needs a process with more memory."""
MAX_LINK: Final = 2000
"""Longest link, in characters; longer ones are left out."""

_WORD = re.compile(r"\w+")
_LEGACY_SUFFIXES: Final = {"doc": "docx", "xls": "xlsx", "ppt": "pptx"}
_MACRO_SUFFIXES: Final = frozenset({"docm", "xlsm", "pptm", "xlsb", "dotm", "xltm", "potm"})
READERS: Final[Mapping[str, Callable[[bytes, str], TextDocument]]] = {
    "md": lambda data, _: text.read_markdown(data),
    "markdown": lambda data, _: text.read_markdown(data),
    "txt": lambda data, _: text.read_plain(data),
    "text": lambda data, _: text.read_plain(data),
    "html": lambda data, _: html.read_html(data),
    "htm": lambda data, _: html.read_html(data),
    "csv": tabular.read_csv,
    "tsv": tabular.read_csv,
    "json": lambda data, _: text.read_json(data),
    "jsonl": lambda data, _: text.read_json(data),
    "eml": lambda data, _: email.read_eml(data),
    "pdf": lambda data, _: pdf.read_pdf(data),
    "docx": lambda data, _: office.read_docx(data),
    "xlsx": lambda data, _: xlsx.read_xlsx(data),
    "pptx": lambda data, _: office.read_pptx(data),
    **dict.fromkeys(sorted(ocr.PICTURES), ocr.read_picture),
}
"""Suffix -> function that reads (bytes, name)."""
TABULAR_SUFFIXES: Final = frozenset({"csv", "tsv", "html", "htm", "pdf", "docx", "xlsx", "pptx"})
"""Suffixes of the formats that may have tables."""


def parse_job(job: Job) -> Parsed:
    """Parse a document. Raises `Invalid` and `TooLarge` with a hint, and whatever a library raises on broken bytes."""
    suffix = job.media or PurePosixPath(job.key).suffix.lower().lstrip(".")
    reader = READERS.get(suffix)
    if reader is None:
        raise _unsupported_type(suffix)
    if len(job.data) > MAX_BYTES:
        raise TooLarge(
            f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
        )
    name = PurePosixPath(job.key).name
    try:
        read = _read(job, suffix, reader, name)
    except ModuleNotFoundError as error:
        raise Invalid(
            f"files of type '{suffix}' need a library that is not installed ({error.name})", code="document_type",
            hint="pip install 'groundplan[knowledge]'",
        ) from error  # fmt: skip
    text.check_length(read.text)
    if not read.start:
        read = replace(read, text=text.clean(read.text))  # readers may have copied invisible characters from the file
    title = (
        read.metadata.get("title") or read.title or (first_heading(read.text, read.start) if read.markdown else None)
    )
    words = words_of(read.text[read.start :])
    return Parsed(
        key=job.key,
        media=suffix,
        title=text.clean(str(title or PurePosixPath(job.key).stem))[:300],
        markdown=read.markdown,
        characters=len(read.text) - read.start,
        told={text.clean(key): _to_plain(value) for key, value in read.metadata.items()},
        pieces=[
            Piece(c.number, c.text, c.start_char, c.end_char, c.start_line, c.end_line, list(c.headings), c.head)
            for c in split_passages(read.text, markdown=read.markdown, start=read.start, limit=job.limit)
        ],
        content=hashlib.sha256(" ".join(words).encode()).hexdigest() if words else "",
        sketch=sketch(words),
        lines=read.text.count("\n") + 1,
        notes=[text.clean(note) for note in read.notes],
        tables=[_clean_table(table) for table in read.tables] if job.tables else [],
        links=[link for link in read.links if len(link) <= MAX_LINK] if job.links else [],
        pictures=read.pictures,
    )


def _read(job: Job, suffix: str, reader: Callable[[bytes, str], TextDocument], name: str) -> TextDocument:
    structured = suffix == "pdf" and job.pdf.startswith(structured_pdf.NAME)
    if structured and not job.recognise:
        raise Invalid("it needs a larger process", code=HEAVY, hint="It is read by one.")
    if structured:
        return structured_pdf.read_structured_pdf(job.data, name, job.pdf.partition(":")[2])
    if suffix == "pdf" and job.recognise:
        return pdf.read_pdf(job.data, recognised=True)
    if suffix in ocr.PICTURES:
        if not job.recognise:
            raise Invalid("it is a picture", code=SCANNED, hint=ocr.HINT)
        return ocr.read_picture(job.data, name)
    return reader(job.data, name)


def sketch(words: list[str]) -> bytes:
    """MinHash of the pairs of consecutive words: 126 numbers of 32 bits; empty for fewer than eight words."""
    if len(words) < 8:
        return b""
    hashed = rensa.RMinHash(num_perm=PERMUTATIONS, seed=1)
    hashed.update(list(shingles(words)))
    return array("I", hashed.digest()).tobytes()


def shingles(words: list[str]) -> set[str]:
    """Each pair of consecutive words."""
    return {f"{one} {other}" for one, other in pairwise(words)}


def words_of(content: str) -> list[str]:
    """The words of a text as `sketch` takes them; in scripts without spaces each character is a word."""
    return _WORD.findall(space_out(content).lower())


def _clean_table(table: Table) -> Table:
    return Table(
        name=text.clean(table.name), columns=[text.clean(name) for name in table.columns],
        rows=[[text.clean(cell) for cell in row] for row in table.rows], title=text.clean(table.title),
    )  # fmt: skip


def _to_plain(value: Any) -> Any:
    """A metadata value that msgpack can encode: dates and all unusual types become text."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, list):
        return [_to_plain(item) for item in value[:1000]]
    if isinstance(value, dict):
        return {text.clean(str(key)): _to_plain(item) for key, item in list(value.items())[:1000]}
    if isinstance(value, float | bool) or value is None or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    return text.clean(str(value))


def _unsupported_type(suffix: str) -> Invalid:
    if suffix in _MACRO_SUFFIXES:
        return Invalid("it has macros", code="document_macro", hint="Save it without macros (.docx, .xlsx, .pptx).")
    if suffix in _LEGACY_SUFFIXES:
        return Invalid(
            f"files of the old type '{suffix}' are not read",
            code="document_type",
            hint=f"Save it as .{_LEGACY_SUFFIXES[suffix]}.",
        )
    return Invalid(
        f"files of type '{suffix or 'none'}' are not read yet",
        code="document_type",
        hint="Save it as Markdown, PDF or an Office file (.docx, .xlsx, .pptx).",
    )
