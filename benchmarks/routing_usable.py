"""The usable part of an evaluation set made by others, and what had to be left out.

For measuring on any set: `read_matrix` refuses incomplete sets, since people who train a router can repair their own.
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

_MAX_MISSING_SHARE = 0.2
"""Share of the rows in which a model may lack a score or cost; a model that lacks more is left out, not the rows."""


@dataclass(frozen=True, slots=True)
class UsableSet:
    """`rows_left_out`: rows that lack a score or cost of some model; `models_left_out`: models that lack too many;
    `by_prompts`: there are too few groups to hold some out, so only rows with the same prompt stay together."""

    matrix: Matrix
    rows_left_out: int
    models_left_out: tuple[str, ...]
    by_prompts: bool


def read_usable(path: Path) -> UsableSet:
    """The complete rows of the set in a file. Raises `Invalid` (`evaluation_set`, `evaluation_leak`) for every other
    problem that would mislead."""
    rows = read_rows(path)
    models, left_out = _split_models([row for _, row in rows])
    complete = [(line, _with_models(row, models)) for line, row in rows if _has_all_values(row, models)]
    groups = {group_of(row) for _, row in complete}
    by_prompts = 0 < len(groups) < LEAST_GROUPS
    if by_prompts:
        complete = [(line, replace(row, group=question_key(row.prompt))) for line, row in complete]
    raise_problems(list(find_problems(path, complete)))
    return UsableSet(matrix_of([row for _, row in complete]), len(rows) - len(complete), left_out, by_prompts)


def _split_models(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(models with score and cost in nearly every row, the other models), each in order of their names."""
    row_counts = Counter(model for row in rows for model in row.scores if _has_values(row, model))
    all_models = sorted({model for row in rows for model in row.scores})
    usable = [model for model in all_models if row_counts[model] >= (1 - _MAX_MISSING_SHARE) * len(rows)]
    return tuple(usable), tuple(model for model in all_models if model not in usable)


def _has_values(row: Row, model: str) -> bool:
    return row.scores.get(model) is not None and row.costs.get(model) is not None


def _has_all_values(row: Row, models: Sequence[str]) -> bool:
    return all(_has_values(row, model) for model in models)


def _with_models(row: Row, models: Sequence[str]) -> Row:
    """The row with the scores and costs of these models only."""
    return replace(
        row, scores={model: row.scores[model] for model in models}, costs={model: row.costs[model] for model in models}
    )
