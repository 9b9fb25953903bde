"""What of an evaluation set that somebody else made can be used, and what was left out for that.

For measuring on any set: `read_matrix` refuses the same sets, since whoever trains a router can mend their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from groundplan.economics.routing.learn.evaluation_set import (
    LEAST_GROUPS,
    Row,
    find_problems,
    group_of,
    matrix_of,
    question_key,
    raise_problems,
    read_rows,
)
from groundplan.economics.routing.model import Matrix

_MOST_LACKING = 0.2
"""Share of the rows that a model may lack; one that lacks more is left out, else all of those rows would be."""


@dataclass(frozen=True, slots=True)
class Usable:
    """`rows_left_out`: of which a score or cost of some model is not known; `models_left_out`: that lack too many;
    `by_prompts`: there are too few groups to leave some out, so only rows with the same prompt stay together."""

    matrix: Matrix
    rows_left_out: int
    models_left_out: tuple[str, ...]
    by_prompts: bool


def read_usable(path: Path) -> Usable:
    """The set in a file without rows that lack something. Raises `Invalid` (`evaluation_set`, `evaluation_leak`) for
    whatever else would mislead."""
    rows = read_rows(path)
    models, left_out = _models([row for _, row in rows])
    whole = [(line, _of(row, models)) for line, row in rows if _knows(row, models)]
    groups = {group_of(row) for _, row in whole}
    by_prompts = 0 < len(groups) < LEAST_GROUPS
    if by_prompts:
        whole = [(line, replace(row, group=question_key(row.prompt))) for line, row in whole]
    raise_problems(list(find_problems(path, whole)))
    return Usable(matrix_of([row for _, row in whole]), len(rows) - len(whole), left_out, by_prompts)


def _models(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(models of which nearly every row knows score and cost, the others), each in order of their names."""
    known = Counter(model for row in rows for model in row.scores if _told(row, model))
    every = sorted({model for row in rows for model in row.scores})
    enough = [model for model in every if known[model] >= (1 - _MOST_LACKING) * len(rows)]
    return tuple(enough), tuple(model for model in every if model not in enough)


def _told(row: Row, model: str) -> bool:
    return row.scores.get(model) is not None and row.costs.get(model) is not None


def _knows(row: Row, models: Sequence[str]) -> bool:
    return all(_told(row, model) for model in models)


def _of(row: Row, models: Sequence[str]) -> Row:
    """A row about these models alone."""
    return replace(
        row, scores={model: row.scores[model] for model in models}, costs={model: row.costs[model] for model in models}
    )
