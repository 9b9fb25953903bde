"""Reads an evaluation set for routing, and refuses misleading ones: leaks between folds, gaps, wrong numbers.

A file has one JSON object a line: {"id", "group", "prompt", "scores": {model: 0..1}, "costs": {model: usd}}.
"""

from __future__ import annotations

import math
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from groundplan.core.errors import Invalid, Problem, Where
from groundplan.economics.routing.decide.courtesy import strip_courtesy
from groundplan.economics.routing.model import Context, Integers, Matrix, Sample

FOLDS = 5
LEAST_ROWS = 20
LEAST_GROUPS = 10
"""Fewest groups: with less, too little is left for training or for evaluation."""
DEAREST = 1e6
"""Highest plausible cost of a call in US dollars."""
_TOLD = 20
"""Problems that are reported at once."""


class ContextRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The context of a prompt in a set."""

    messages: int
    before: int = 0
    scores: list[float] | None = None
    task: list[str] = []


class Row(msgspec.Struct, forbid_unknown_fields=False):
    """A line of a file. `null`: an unknown score or cost."""

    id: str | int
    prompt: str
    scores: dict[str, float | None]
    costs: dict[str, float | None]
    group: str | int | None = None
    context: ContextRow | None = None


_decode = msgspec.json.Decoder(Row).decode


def read_matrix(path: Path) -> Matrix:
    """Read and check a set. Raises `Invalid` (`evaluation_set`) with the wrong lines and what to do."""
    rows = read_rows(path)
    raise_problems(list(find_problems(path, rows)))
    return matrix_of([row for _, row in rows])


def read_rows(path: Path) -> list[tuple[int, Row]]:
    """Line numbers and unchecked rows. Raises `Invalid` (`evaluation_set`) if a line cannot be decoded."""
    try:
        lines = path.read_bytes().removeprefix(BOM_UTF8).splitlines()
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror}",
            code="evaluation_set",
            hint="Name a file with one JSON object a line.",
        ) from error
    rows: list[tuple[int, Row]] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append((number, _decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problems.append(_problem(path, number, f"this line is not a row: {error}"))
    raise_problems(problems)
    return rows


def matrix_of(rows: Sequence[Row]) -> Matrix:
    """Rows without a problem as a matrix; models in order of their names."""
    models = tuple(sorted(rows[0].scores))
    samples = tuple(Sample(str(row.id), group_of(row), row.prompt, context_of(row.context)) for row in rows)
    scores = np.array([[row.scores[name] for name in models] for row in rows], dtype=np.float64)
    costs = np.array([[row.costs[name] for name in models] for row in rows], dtype=np.float64)
    return Matrix(samples, models, scores, costs)


def context_of(told: ContextRow | None) -> Context | None:
    """The context as the router takes it."""
    if told is None:
        return None
    return Context(told.messages, told.before, None if told.scores is None else tuple(told.scores), tuple(told.task))


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise `Invalid` with the first problem and a list of all, up to a limit; do nothing without problems."""
    if not problems:
        return
    first, told = problems[0], list(problems[:_TOLD])
    if len(problems) > _TOLD:
        where = problems[_TOLD].where
        told.append(
            Problem(f"{len(problems) - _TOLD} more problems from here on", first.code, "Mend those first.", where)
        )
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise Invalid(first.message + more, code=first.code, hint=first.hint, where=first.where, problems=tuple(told))


def _problem(path: Path, line: int, message: str, code: str = "evaluation_set", hint: str = "") -> Problem:
    return Problem(message, code, hint or "Mend the row, or take it out.", Where(str(path), line))


def find_problems(path: Path, rows: Sequence[tuple[int, Row]]) -> Iterable[Problem]:
    """Everything in a set that would mislead, line by line."""
    if len(rows) < LEAST_ROWS:
        hint = f"Give at least {LEAST_ROWS} prompts that every model has answered."
        yield _problem(path, max(1, len(rows)), f"{len(rows)} rows are too few to judge anything", hint=hint)
        return
    models = set(rows[0][1].scores)
    if all(len(row.scores) < 2 for _, row in rows):
        hint = "Give prompts with the scores and costs of two or more models."
        yield _problem(
            path, rows[0][0], "no prompt was answered by two models, so there is nothing to choose", hint=hint
        )
        return
    ids: dict[str, int] = {}
    for line, row in rows:
        yield from _row_problems(path, line, row, models)
        if (first := ids.setdefault(str(row.id), line)) != line:
            yield _problem(path, line, f"the id {str(row.id)[:80]} is in line {first}, too")
    if not any((score or 0) > 0 for _, row in rows for score in row.scores.values()):
        hint = "Give prompts that at least one model can answer, or look at how answers are judged."
        yield _problem(path, 1, "no model is ever right, so there is no quality to keep", hint=hint)
    yield from _leak_problems(path, rows)
    groups = len({group_of(row) for _, row in rows})
    if groups < LEAST_GROUPS:
        hint = f"Give each conversation, document or template a group of its own; {LEAST_GROUPS} are needed."
        few = "all rows are one group" if groups == 1 else f"all rows are of {groups} groups"
        yield _problem(path, 1, f"{few}, so too little can be left out to judge with", hint=hint)


def group_of(row: Row) -> str:
    """The group of a row; without one the row is a group of its own."""
    return str(row.id if row.group is None else row.group)


def _row_problems(path: Path, line: int, row: Row, models: set[str]) -> Iterable[Problem]:
    if len(models) < 2 or set(row.scores) != models or set(row.costs) != models:
        yield _problem(path, line, "scores and costs must name the same two or more models as the first row")
        return
    if None in row.scores.values() or None in row.costs.values():
        yield _problem(path, line, "a score or a cost is null, so how this model did is not known")
        return
    if not all(0.0 <= score <= 1.0 for score in row.scores.values() if score is not None):
        yield _problem(path, line, "a score is not between 0 and 1")
    if not all(0.0 <= cost <= DEAREST for cost in row.costs.values() if cost is not None):
        hint = "Give US dollars of one call."
        yield _problem(path, line, "a cost is negative, no number, or above a million US dollars", hint=hint)
    if row.context is not None and not _is_valid_context(row.context):
        yield _problem(path, line, "the context has a negative count, or scores that are not in order, the best first")
    if not row.prompt.strip():
        yield _problem(path, line, "the prompt is empty")


def _is_valid_context(context: ContextRow) -> bool:
    scores = context.scores or []
    ordered = all(one >= other for one, other in pairwise(scores))
    return context.messages >= 1 and context.before >= 0 and ordered and all(map(math.isfinite, scores))


def _leak_problems(path: Path, rows: Sequence[tuple[int, Row]]) -> Iterable[Problem]:
    """The same prompt in two groups: it would be in training and evaluation."""
    seen: dict[str, tuple[int, str]] = {}
    for line, row in rows:
        group = group_of(row)
        first, other = seen.setdefault(question_key(row.prompt), (line, group))
        if other != group:
            message = f"the prompt of line {first} (group {other[:40]}) is here again in group {group[:40]}"
            hint = "Give prompts that are the same one group, or take one out: folds would leak."
            yield _problem(path, line, message, "evaluation_leak", hint)


def question_key(prompt: str) -> str:
    """A prompt without case, white space, surrounding punctuation and polite phrases. A router ignores these, so equal
    keys are the same question."""
    text = strip_courtesy(unicodedata.normalize("NFKC", prompt))
    return " ".join(text.casefold().split()).strip(" .?!,;:\"'")


def folds_of(groups: Sequence[str], folds: int = FOLDS, seed: int = 0) -> list[Integers]:
    """Row numbers of each fold: whole groups, about equally many rows each, the same for the same seed."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = dict.fromkeys(names, 0)
    for group in groups:
        sizes[group] += 1
    count = min(folds, len(names))
    filled = [0] * count
    fold_of: dict[str, int] = {}
    for name in sorted((names[i] for i in order), key=lambda name: -sizes[name]):
        target = filled.index(min(filled))
        fold_of[name] = target
        filled[target] += sizes[name]
    placed = np.array([fold_of[group] for group in groups])
    return [np.flatnonzero(placed == number) for number in range(count)]
