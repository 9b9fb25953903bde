"""Pages of lists that the API tells whole."""

from __future__ import annotations

import pytest
from fastapi import Request

from groundplan.console.pagination import search_page


def request_with_query(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


@pytest.mark.parametrize(
    ("query", "rows", "total", "first", "more"),
    [
        ("kind=a", [0, 1], 5, None, "kind=a&begin=2"),
        ("kind=a&begin=2", [2, 3], 5, "kind=a", "kind=a&begin=4"),
        ("begin=4", [4], 5, "", None),
        ("search=N+3", [3], 1, None, None),
        ("search=nothing", [], 0, None, None),
        ("begin=-1", [0, 1], 5, None, "begin=2"),
        ("begin=99", [], 5, "", None),
    ],
)
def test_a_part_of_a_list_is_narrowed_and_says_what_follows(
    query: str, rows: list[int], total: int, first: str | None, more: str | None
) -> None:
    part = search_page(request_with_query(query), range(5), lambda row: f"n {row}", 2)
    assert (list(part.rows), part.total, part.first, part.more) == (rows, total, first, more)
    assert search_page(request_with_query(""), range(2), str, 2).whole and not part.whole
