"""The Cost page's rows of what caches saved, and that the page shows them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import Request

from groundplan.console.cost_figures import CostRow, budget_view, savings_by_workload, total_row
from groundplan.console.pagination import ListPage, search_page
from groundplan.console.render import templates

ZERO = "0.000000000000"
NOTHING = {"part": ListPage((), 0, "", None, None), "chart": "", "total": total_row([])}


def row(name: str, calls: int, cached: int, saved: str = ZERO, prefix: str = ZERO) -> dict[str, Any]:
    return {"workload": name, "calls": calls, "cached": cached, "saved_usd": saved, "prefix_saved_usd": prefix}


def test_workloads_that_saved_anything_come_with_the_share_of_calls_the_most_saved_first() -> None:
    rows = [
        row("none", 10, 0),
        row("little", 3, 1, "0.000000000001"),
        row("prefix", 0, 0, prefix="0.000000000009"),
        row("much", 8, 6, "12.500000000000"),
        row("free", 4, 4),
    ]
    shown = [(each["workload"], each["cached_share"]) for each in savings_by_workload(rows)]
    assert shown == [("much", "75 %"), ("little", "33 %"), ("free", "100 %"), ("prefix", "0 %")]


def test_the_cost_page_shows_them_and_nothing_where_nothing_was_saved() -> None:
    template = templates.get_template("cost.html")
    cost = {"total_usd": ZERO, "open_reservations": 0, "crashed_attempts": 0, "by_meaning": []}
    common = {
        "cost": cost,
        **NOTHING,
        "budgets": [],
        "limits": [],
        "csrf": "x",
    }
    common |= {"anomalies": [], "tab": "This month"}

    def shown(rows: list[dict[str, Any]]) -> str:
        return "".join(template.blocks["main"](template.new_context({**common, "saving": savings_by_workload(rows)})))

    page = shown([row("helpdesk", 8, 6, "12.500000000000", "0.250000000000")])
    assert "helpdesk" in page and "6 (75 %)" in page and "$12.50" in page and "$0.25" in page
    assert "<h2>Saved</h2>" not in shown([row("helpdesk", 8, 0)])
    assert "crash" not in page
    common["cost"] = {**cost, "crashed_attempts": 2}
    assert "<b>2</b>cut off by a crash" in shown([])


def test_the_cost_page_says_which_budget_is_soft_and_that_it_was_crossed() -> None:
    template = templates.get_template("cost.html")
    used = {"limit_usd": "0.001", "spent_usd": "0.002", "period": "2026-11-29", "covers": "team/core", "near": True}
    rows = [
        budget_view({"budget": "warns", "title": "warns", "hard": False, "share": 2.0, **used}),
        budget_view({"budget": "stops", "title": "stops", "hard": True, "share": 0.9, **used}),
    ]
    cost = {"total_usd": ZERO, "open_reservations": 0, "crashed_attempts": 0, "by_meaning": []}
    common = {
        "cost": cost,
        **NOTHING,
        "limits": [],
        "csrf": "x",
        "anomalies": [],
    }
    common |= {
        "tab": "This month",
        "saving": (),
        "budgets": rows,
        "bar": vars(templates.get_template("parts.html").module)["bar"],
    }
    soft, _, hard = "".join(template.blocks["main"](template.new_context(common))).partition("<strong>stops")
    assert '<span class="badge">soft</span>' in soft and "crossed: 200 %" in soft
    assert '<span class="badge">soft</span>' not in hard and "near: 90 %" in hard


def test_the_cost_page_says_which_documents_end_an_answer() -> None:
    template = templates.get_template("cost.html")
    meant = {"workload": "helpdesk", "looked": 9, "given": 4, "checked": 2, "found_wrong": 0, "saved_usd": ZERO,
             "lookups_usd": ZERO, "wrong_usd": ZERO, "net_usd": ZERO}  # fmt: skip
    cost = {"total_usd": ZERO, "open_reservations": 0, "crashed_attempts": 0, "by_meaning": [meant]}
    values = {
        "cost": cost,
        **NOTHING,
        "budgets": [],
        "limits": [],
        "csrf": "x",
        "saving": [],
    }
    context = template.new_context({**values, "anomalies": [], "tab": "This month"})
    assert "where a document that was added would be before the model" in "".join(template.blocks["main"](context))


@pytest.mark.parametrize(("query", "first", "shown", "next_page"), [
    (b"", "w-000", 100, True), (b"begin=100", "w-100", 50, False), (b"search=w-14", "w-140", 10, False),
])  # fmt: skip
def test_workloads_of_a_large_company_are_paged_and_found_and_the_sum_is_of_all(
    query: bytes, first: str, shown: int, next_page: bool
) -> None:
    rows = [CostRow(f"w-{n:03}", "1.000000000000", "2.000000000000", 1, 2) for n in range(150)]
    part = search_page(Request({"type": "http", "query_string": query}), rows, lambda row: row.workload)
    template = templates.get_template("cost.html")
    cost = {"total_usd": ZERO, "open_reservations": 0, "crashed_attempts": 0, "by_meaning": []}
    saving = savings_by_workload([row(f"s-{n:03}", 2, 1, "1.000000000000") for n in range(150)])
    context = {**vars(templates.get_template("parts.html").module), "cost": cost, "part": part, "chart": "<svg>"}
    context |= {"total": total_row(rows), "budgets": [], "limits": [], "csrf": "x", "saving": saving, "anomalies": []}
    text = "".join(template.blocks["main"](template.new_context({**context, "tab": "This month"})))
    found = re.findall(r'href="/cost/workload/(w-\d+)"', text)
    assert (found[0], len(found)) == (first, shown) and ("Next page" in text) == next_page
    assert "$300.00" in text and "all workloads" in text
    assert text.count('href="/calls?workload=s-') == 100 and "50 more workloads, none with a larger saving" in text
