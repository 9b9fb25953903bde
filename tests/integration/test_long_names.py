"""Names as long as file systems allow, in a real Chromium: a list of documents shows its columns beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from groundplan import console
from groundplan.console.calls import FILTERS
from groundplan.console.render import render
from groundplan.testing.browser import chromium, find_chromium

pytestmark = [pytest.mark.browser]
if find_chromium() is None and os.environ.get("GROUNDPLAN_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="NOT RUN: no Chromium is installed"))
STYLE = (Path(console.__file__).parent / "static/style.css").read_text(encoding="utf-8")
PLAN = (Path(console.__file__).parent / "static/plan.css").read_text(encoding="utf-8")
LONG = "n" * 240


def row(path: str, title: str = "Visitors and badges") -> dict[str, Any]:
    return {
        "id": "1", "title": title, "standing": "approved", "legal_hold": False, "deleted_at": None, "source": "office",
        "path": path, "owner": "lena@acme.example", "readers": ["everyone"], "quality": 0.8,
    }  # fmt: skip


def filters() -> str:
    """The calls of nobody, with long names to choose among."""
    answer = render(
        "calls.html", here="/calls", names=["n" * 63], places=["d" * 63], statuses=["ok"], newest=None, older=None,
        sees_all=True,
        chosen=dict.fromkeys(FILTERS, ""), live="", traffic=None, calls=[],
        batches=[], responses=[], orders=False, who="Dana", session={"duties": [], "operator": False, "acting": False},
    )  # fmt: skip
    return bytes(answer.body).decode()


def test_a_name_without_end_pushes_no_column_out_of_sight() -> None:
    rows = [row("a.md"), row(f"{LONG}.md"), row("b.md", LONG)]
    answer = render(
        "documents.html", here="/knowledge", tab="documents", documents=rows,
        sources=[], states=[], source="", state="", text="", holds="", deletions=[], first=None, more=None,
        sees_all=True,
        who="Dana",
        session={"duties": [{"subject": "company", "duty": "data"}], "operator": False, "acting": False},
    )  # fmt: skip
    text = bytes(answer.body).decode()
    with chromium() as browser:
        for width in (1280, 400):
            shown = browser.new_page(viewport={"width": width, "height": 900})
            shown.set_content(text.replace("</head>", f"<style>{PLAN}{STYLE}</style></head>"))
            cells = shown.locator("td[data-label='Owner'], td[data-label='Quality'] .share")
            right = [box["x"] + box["width"] for each in cells.all() if (box := each.bounding_box())]
            assert len(right) == 6 and max(right) <= width, (width, right)
            names = shown.locator("td[data-label='File']").first.bounding_box()
            assert names is not None and names["height"] < 60, "a short one stays on its line"
            shown.set_content(filters().replace("</head>", f"<style>{PLAN}{STYLE}</style></head>"))
            assert shown.evaluate("document.documentElement.scrollWidth") <= width, "names of workloads to choose among"


def test_the_button_that_lifts_a_kill_stays_in_sight_beside_a_long_reason() -> None:
    kill = {
        "scope": "workload/assistant", "reason": f"https://incidents.acme.example/{LONG}", "by": "operator",
        "at": "2026-11-25T12:00:00+00:00", "streams": False, "lift_asked_by": None,
    }  # fmt: skip
    session = {"duties": [], "operator": True, "acting": False}
    answer = render("kill.html", here="/kill", kills=[kill], scopes=["company"], who="Dana", session=session)
    text = bytes(answer.body).decode()
    with chromium() as browser:
        for width in (1280, 400):
            shown = browser.new_page(viewport={"width": width, "height": 900})
            shown.set_content(text.replace("</head>", f"<style>{PLAN}{STYLE}</style></head>"))
            box = shown.locator("form[action='/do/lift'] button").bounding_box()
            assert box is not None and box["x"] + box["width"] <= width, (width, box)
