"""Pages of lists that the API returns in full: filtered by words, with a start row, since nobody reads thousands of
rows. Nothing is fetched here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from fastapi import Request

PAGE_SIZE = 100
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class ListPage:
    """Rows of one page. `first` and `more` are the queries of the first and the next page, None where there is none;
    `whole`: the page has the complete, unfiltered list."""

    rows: Sequence[Any]
    total: int
    search: str
    first: str | None
    more: str | None

    @property
    def whole(self) -> bool:
        return not self.search and self.first is None and self.more is None


def search_page(request: Request, rows: Sequence[Row], text: Callable[[Row], str], most: int = PAGE_SIZE) -> ListPage:
    """The page of rows whose text has all searched words, from the requested start row. Other query parameters are
    kept."""
    search, start = search_and_start(request)
    words = search.lower().split()
    found = [row for row in rows if all(word in text(row).lower() for word in words)] if words else rows
    return make_page(request, found[start : start + most], len(found), most)


def search_and_start(request: Request) -> tuple[str, int]:
    """(search text, start row) of a request."""
    begin = request.query_params.get("begin", "")
    start = int(begin) if begin.isascii() and begin.isdigit() and len(begin) < 10 else 0
    return request.query_params.get("search", "")[:200].strip(), start


def make_page(request: Request, rows: Sequence[Any], total: int, most: int) -> ListPage:
    """As `search_page`, for rows that the API has selected out of `total`."""
    search, start = search_and_start(request)
    kept = {name: value for name, value in request.query_params.items() if name not in ("search", "begin")}
    kept |= {"search": search} if search else {}
    behind = start + most
    return ListPage(
        rows,
        total,
        search,
        urlencode(kept) if start else None,
        urlencode({**kept, "begin": behind}) if behind < total else None,
    )
