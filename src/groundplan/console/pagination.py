"""A page of a list that the API tells whole, so that nobody is shown thousands of rows: narrowed by words, and where it
begins. Nothing is fetched here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from fastapi import Request

LISTED = 100
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one page. `first` and `more` are the queries of the first page and of the one that follows, None where
    there is none; `whole`: nothing is left out, and nothing was searched for."""

    rows: Sequence[Any]
    total: int
    search: str
    first: str | None
    more: str | None

    @property
    def whole(self) -> bool:
        return not self.search and self.first is None and self.more is None


def part_of(request: Request, rows: Sequence[Row], text: Callable[[Row], str], most: int = LISTED) -> Part:
    """Those in whose text each word is that was searched for, from the one on that was asked for; what else stands in
    the address is kept."""
    search, start = asked_of(request)
    words = search.lower().split()
    found = [row for row in rows if all(word in text(row).lower() for word in words)] if words else rows
    return part_told(request, found[start : start + most], len(found), most)


def asked_of(request: Request) -> tuple[str, int]:
    """What was searched for, and from which row on."""
    begin = request.query_params.get("begin", "")
    start = int(begin) if begin.isascii() and begin.isdigit() and len(begin) < 10 else 0
    return request.query_params.get("search", "")[:200].strip(), start


def part_told(request: Request, rows: Sequence[Any], total: int, most: int) -> Part:
    """As `part_of`, of rows that the API has chosen out of so many."""
    search, start = asked_of(request)
    kept = {name: value for name, value in request.query_params.items() if name not in ("search", "begin")}
    kept |= {"search": search} if search else {}
    behind = start + most
    return Part(
        rows,
        total,
        search,
        urlencode(kept) if start else None,
        urlencode({**kept, "begin": behind}) if behind < total else None,
    )
