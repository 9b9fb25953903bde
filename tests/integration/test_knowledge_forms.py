"""Forms of values that a company declares: told as they are, and one that would take for ever holds nothing up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.integration.test_tables_checked import ingest_and_find
from tests.knowledge_intake import Intake

from groundplan.knowledge.intake import run
from groundplan.knowledge.quality.forms import TRIES, FormChecker
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.testing.database import Database

ENDLESS, TRAP = "(a+)+b", "a" * 60
"""A pattern and a value on which it would not come to an end in a lifetime."""


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if "forms_worker" in " ".join(child.cmdline())}


def test_values_without_a_form_are_numbered_as_the_whole_value_says() -> None:
    with closing(FormChecker()) as forms:
        assert forms.misfits("[A-Z]-[0-9]+", ["A-1", "A1", "A-1 ", "Ä-1", "B-22"]) == [1, 2, 3]
        assert forms.misfits("x", []) == []
        assert forms.misfits("[0-9]+", [str(number) for number in range(200_000)] + ["no"]) == [200_000]
        assert len(children()) == 1
    assert children() == set()


def test_a_form_that_takes_too_long_is_ended_and_the_next_is_told() -> None:
    with closing(FormChecker(0.3)) as forms:
        began = time.monotonic()
        assert forms.misfits(ENDLESS, ["ab", TRAP]) is None
        assert time.monotonic() - began < 30
        assert children() == set(), "it works on for nobody"
        assert forms.misfits(ENDLESS, ["ab", "ba"]) == [1]
        for _ in range(TRIES):
            assert forms.misfits(ENDLESS, [TRAP]) is None
        assert forms.misfits(ENDLESS, ["ab"]) is None, "not tried any more"
        assert children() == set()
        assert forms.misfits("a", ["a"]) == [], "another form is"


def test_a_form_that_ends_the_child_is_not_told() -> None:
    with closing(FormChecker()) as forms:
        assert forms.misfits("(?:" * 5000, ["a"]) is None
        assert forms.misfits("a", ["b"]) == [0]


def test_one_form_without_end_costs_one_finding_of_its_table(
    intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FormChecker", partial(FormChecker, 0.3))
    (tmp_path / "a.csv").write_text(f"id,mark\n1,{TRAP}\n1,ab\n")
    (tmp_path / "b.csv").write_text("id,mark\n1,ab\n2,ba\n")
    (tmp_path / "c.md").write_text("# Text\n")
    found = ingest_and_find(
        intake, FolderConnector(tmp_path), {"column": "mark", "matches": ENDLESS}, {"column": "id", "unique": True}
    )
    assert intake.live_paths() == {"a.csv", "b.csv", "c.md"}
    rows = intake.conn.execute("SELECT subject, detail ->> 'check' FROM finding WHERE kind = 'knowledge.table'")
    assert set(rows) == {("source/s/a.csv", "form_slow"), ("source/s/a.csv", "key"), ("source/s/b.csv", "form")}
    assert "'mark' has another form in row " in found["knowledge.table", "b.csv"]
    assert children() == set()
