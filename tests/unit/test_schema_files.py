"""The SQL files of the schema: numbered without gaps, one area each, and every object made once, in the file of its
area.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from groundplan.migrations import BASELINE, FOLDER, revisions, statements

DECISION = Path(__file__).parents[2] / "docs" / "adr" / "0453-the-schema-has-a-baseline.md"
AREAS = [revision for revision in revisions() if revision <= BASELINE]
MADE = re.compile(
    r"^CREATE (?:UNLOGGED |UNIQUE |CONSTRAINT )?(TABLE|VIEW|SEQUENCE|FUNCTION|INDEX|TRIGGER|POLICY) (\w+)"
    r"(?: [^;]*?\bON (\w+))?",
    re.MULTILINE,
)
"""What a statement makes: its kind, its name, and on which table."""
CHANGED = re.compile(r"^(?:ALTER TABLE|INSERT INTO) (\w+)", re.MULTILINE)
LEFT_OUT = re.compile(r"--[^\n]*|\$\$.*?\$\$|'[^']*'", re.DOTALL)


def text_of(revision: str) -> str:
    """The statements of a file, without comments, texts and bodies of functions."""
    return LEFT_OUT.sub("''", statements(revision, "db"))


def test_steps_are_numbered_without_gaps_or_doubles() -> None:
    assert [revision[:4] for revision in revisions()] == [f"{number:03}_" for number in range(1, len(revisions()) + 1)]
    assert not [path.name for path in FOLDER.iterdir() if path.suffix not in (".sql", ".py", "")]


def test_every_object_is_made_once() -> None:
    made = Counter(
        (kind, name, table if kind in ("TRIGGER", "POLICY") else "")
        for revision in AREAS
        for kind, name, table in MADE.findall(text_of(revision))
    )
    assert len(made) > 350
    assert {what: times for what, times in made.items() if times > 1} == {}


@pytest.mark.parametrize("revision", AREAS)
def test_a_file_of_an_area_touches_tables_of_its_own(revision: str) -> None:
    """Triggers alone are on tables of others as well: they are of the area that their functions write to."""
    text = text_of(revision)
    own = {name for kind, name, _ in MADE.findall(text) if kind == "TABLE"}
    on = {table for kind, _, table in MADE.findall(text) if kind in ("INDEX", "POLICY")}
    assert on | set(CHANGED.findall(text)) <= own
    assert not re.search(r"^(?:DROP|DELETE|UPDATE|CREATE OR REPLACE)\b", text, re.MULTILINE)


@pytest.mark.parametrize("revision", AREAS)
def test_a_file_of_an_area_begins_with_what_it_is_and_is_named_in_the_decision(revision: str) -> None:
    lines = (FOLDER / f"{revision}.sql").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("-- ") and len(lines) <= 450
    assert f"`{revision}`" in DECISION.read_text()
