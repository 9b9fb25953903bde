"""Parses sitemaps into addresses of pages and of further sitemaps: XML, or an address a line, also compressed by gzip.
Pure."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

MAX_BYTES: Final = 50 << 20
"""Largest uncompressed sitemap, by the protocol of sitemaps."""
_LINE = re.compile(rb"^(?:\xef\xbb\xbf)?[ \t]*(https?://[^\r\n]+)", re.MULTILINE)
_PAGE = re.compile(rb"\s*(?:<!doctype\s+html|<html|<head|<body)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sitemap:
    """The addresses of pages, and of further sitemaps, in a sitemap."""

    pages: tuple[str, ...] = ()
    further: tuple[str, ...] = ()


def is_page(data: bytes) -> bool:
    """Whether the data are an HTML page, which many sites answer for a missing sitemap."""
    return _PAGE.match(data.removeprefix(b"\xef\xbb\xbf")) is not None


def parse_sitemap(data: bytes) -> Sitemap:
    """Parse a sitemap. Raises `ValueError` with the reason if it cannot be read completely."""
    data = _decompress(data)
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        addresses = tuple(match[1].decode("utf-8", "replace").rstrip() for match in _LINE.finditer(data))
        if not addresses and data.strip():
            raise ValueError("it is neither XML nor a list of addresses")
        return Sitemap(addresses)
    reader = _SitemapParser()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML: {error}") from error
    match reader.kind:
        case "sitemapindex":
            return Sitemap(further=tuple(reader.places))
        case "urlset":
            return Sitemap(tuple(reader.places))
    raise ValueError("it is no sitemap")


class _SitemapParser:
    """Collects the addresses of entries during parsing: as a tree, a sitemap of 50 MiB could take gigabytes."""

    def __init__(self) -> None:
        self.kind = ""
        self.places: list[str] = []
        self._depth = 0
        self._text: list[str] | None = None
        self.parser = expat.ParserCreate(namespace_separator="}")
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start_element
        self.parser.EndElementHandler = self._end_element
        self.parser.CharacterDataHandler = self._add_text

    def _doctype(self, *_: object) -> None:
        raise ValueError("it defines entities of its own")

    def _start_element(self, name: str, _: object) -> None:
        self._depth += 1
        local = name.rpartition("}")[2]
        if self._depth == 1:
            self.kind = local
        # the address of the entry itself; deeper ones are those of its pictures and videos
        elif self._depth == 3 and local == "loc":
            self._text = []

    def _end_element(self, _: str) -> None:
        if self._depth == 3 and self._text is not None:
            if text := "".join(self._text).strip():
                self.places.append(text)
            self._text = None
        self._depth -= 1

    def _add_text(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)


def _decompress(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    decompressor = zlib.decompressobj(31)
    try:
        found = decompressor.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise ValueError("it cannot be unpacked") from error
    if len(found) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES >> 20} MiB")
    if not decompressor.eof:
        raise ValueError("it ends in the middle")
    return found
