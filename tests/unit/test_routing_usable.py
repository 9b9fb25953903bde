"""Measuring on a set that somebody else made: rows that lack something are left out and counted, few groups are said,
and what would flatter is refused as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.routing_usable import read_usable
from tests.unit.test_routing_model import row, written

from groundplan.core.errors import Invalid
from groundplan.economics.routing.learn.evaluation_set import read_matrix

LACKING: list[dict[str, Any]] = [
    {"scores": {"a": None, "b": 0.5}},
    {"costs": {"a": None, "b": 0.5}},
    {"scores": {"b": 0.5}},
    {"costs": {"b": 0.001}},
]


def test_a_whole_set_is_what_it_is_for_training(tmp_path: Path) -> None:
    path = written(tmp_path, [row(i) for i in range(30)])
    found, strict = read_usable(path), read_matrix(path)
    assert (found.rows_left_out, found.models_left_out, found.by_prompts) == (0, (), False)
    assert found.matrix.samples == strict.samples and (found.matrix.scores == strict.scores).all()


@pytest.mark.parametrize("changes", LACKING)
def test_what_lacks_a_number_is_left_out_and_refused_for_training(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = written(tmp_path, [row(i, **changes) if i == 9 else row(i) for i in range(30)])
    found = read_usable(path)
    assert (found.matrix.models, found.models_left_out) == (("a", "b"), ())
    assert found.rows_left_out == 1 and [each.id for each in found.matrix.samples][8:10] == ["r8", "r10"]
    with pytest.raises(Invalid):
        read_matrix(path)


def test_a_model_that_few_rows_know_is_left_out_and_not_the_rows(tmp_path: Path) -> None:
    def known(number: int) -> dict[str, Any]:
        more = {"c": 1.0} if number % 2 else {}
        return row(number, scores={"a": 1.0, "b": 0.5} | more, costs={"a": 0.01, "b": 0.001} | more)

    found = read_usable(written(tmp_path, [known(i) for i in range(30)]))
    assert (found.matrix.models, found.models_left_out, found.rows_left_out) == (("a", "b"), ("c",), 0)


def test_few_groups_are_no_folds_and_the_same_prompt_stays_in_one(tmp_path: Path) -> None:
    rows = [row(i, group="ab"[i % 2]) for i in range(30)]
    rows[9] = row(9, group="b", prompt="  QUESTION number 4")
    found = read_usable(written(tmp_path, rows))
    groups = [sample.group for sample in found.matrix.samples]
    assert found.by_prompts and len(set(groups)) == 29 and groups[9] == groups[4]


def test_what_would_flatter_is_refused_as_ever(tmp_path: Path) -> None:
    rows = [row(i) for i in range(30)]
    rows[9] = row(9, prompt="  QUESTION number 4")
    with pytest.raises(Invalid, match="again in group") as told:
        read_usable(written(tmp_path, rows))
    assert told.value.code == "evaluation_leak" and str(told.value.where).endswith("set.jsonl:10:1")
    with pytest.raises(Invalid, match="too few"):
        read_usable(written(tmp_path, [row(i, scores={"a": None, "b": 1.0}) for i in range(9)]))
    with pytest.raises(Invalid, match="two or more models"):
        read_usable(written(tmp_path, [row(i, scores={"a": None, "b": 1.0}) for i in range(30)]))
