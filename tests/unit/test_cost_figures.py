"""The benchmark of cost asks whatever the pages of Cost ask, and what other pages tell from the ledger: a page of Cost
that asks for more is measured, or this fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from benchmarks import cost_figures

from groundplan.catalog.check import validate_files
from groundplan.console.cost_pages import DIMENSIONS

ROOT = Path(__file__).parents[2]
PAGES = ("cost_pages", "opportunities", "experiments", "trade_off")
ASKED = re.compile(r"""["'](/api/[a-z/.-]+)""")
BY_ID = {"/api/experiments/", "/api/replays/", "/api/workloads/"}
"""Of one experiment or replay: read by its key, whatever the ledger holds. One workload is measured as NAME."""
FILES = {"/api/cost/statements.", "/api/cost/focus.csv"}


SERVICES: Any = None
NOBODY: Final = cost_figures.Company(SERVICES)
"""Figures are named without being asked."""


def asked_by_pages() -> set[str]:
    found: set[str] = set()
    for name in PAGES:
        found |= set(ASKED.findall((ROOT / "src/groundplan/console" / f"{name}.py").read_text()))
    return found


def test_every_question_of_a_page_is_measured() -> None:
    measured = {name.partition("?")[0] for name in cost_figures.figures(NOBODY)}
    asked = asked_by_pages() - BY_ID - FILES
    assert len(asked) > 12 and asked <= measured


def test_what_other_pages_tell_from_the_ledger_is_measured() -> None:
    measured = {name.partition("?")[0] for name in cost_figures.figures(NOBODY)}
    assert {"/api/overview", "/api/workloads", "/api/workloads/NAME", "/api/traffic", "/api/calls"} <= measured


def test_the_dimensions_of_the_book_are_measured() -> None:
    by = {name.partition("by=")[2] for name in cost_figures.figures(NOBODY) if "by=" in name}
    assert set(DIMENSIONS) <= by


def test_its_company_is_in_order() -> None:
    found = validate_files({"acme.yaml": cost_figures.workspace()})
    assert len(found.workloads) == 12 and len(found.allocations) == 4
