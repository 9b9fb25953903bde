"""The index of decisions has each record once, and every link of the records leads to a file."""

from __future__ import annotations

import re
from pathlib import Path

ADR = Path(__file__).parents[2] / "docs" / "adr"
LINK = re.compile(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)")


def test_the_index_has_each_decision_once_under_its_number() -> None:
    index = (ADR / "README.md").read_text()
    listed = re.findall(r"^- \[(\d+)\]\((\d{4}-[^)]+)\): \S", index, re.MULTILINE)
    records = sorted(path.name for path in ADR.glob("[0-9]*.md"))
    assert sorted([name for _, name in listed] + ["0001-how-we-decide.md"]) == records
    assert all(int(number) == int(name[:4]) for number, name in listed)


def test_links_of_decisions_lead_to_files() -> None:
    linked = [(path, link) for path in ADR.glob("*.md") for link in LINK.findall(path.read_text())]
    assert len(linked) > 200
    lost = [(path.name, link) for path, link in linked if ":" not in link and not (path.parent / link).exists()]
    assert not lost
