"""What sitemaps name, pages and further sitemaps: as XML, or an address a line, each also packed by gzip. Pure."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

MAX_BYTES: Final = 50 << 20
"""Of a sitemap that is unpacked, as its protocol has it."""
_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_PAGE = re.compile(rb"\s*(?:<!doctype\s+html|<html|<head|<body)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sitemap:
    """Addresses of pages, and of further sitemaps."""

    pages: tuple[str, ...] = ()
    further: tuple[str, ...] = ()


def is_page(data: bytes) -> bool:
    """Whether it is a page of HTML: what many sites answer for whatever they do not have."""
    return _PAGE.match(data.removeprefix(b"\xef\xbb\xbf")) is not None


def parsed(data: bytes) -> Sitemap:
    """Raises `ValueError` with why it cannot be read to its end."""
    data = _unpacked(data)
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
        places = tuple(line for line in lines if line.startswith(("http://", "https://")))
        if not places and any(lines):
            raise ValueError("it is neither XML nor a list of addresses")
        return Sitemap(places)
    if _DOCTYPE.search(data):
        raise ValueError("it defines entities of its own")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not XML: {error}") from error
    # of each entry itself: what stands deeper are addresses of its pictures and films
    found = (each for entry in root for each in entry if _local(each.tag) == "loc")
    places = tuple(text for each in found if (text := (each.text or "").strip()))
    match _local(root.tag):
        case "sitemapindex":
            return Sitemap(further=places)
        case "urlset":
            return Sitemap(places)
    raise ValueError("it is no sitemap")


def _local(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    unpacking = zlib.decompressobj(31)
    try:
        found = unpacking.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise ValueError("it cannot be unpacked") from error
    if len(found) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES >> 20} MiB")
    if not unpacking.eof:
        raise ValueError("it ends in the middle")
    return found
