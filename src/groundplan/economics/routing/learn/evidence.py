"""Makes a training set from calls: from judged pairs of answers, or from verdicts in the arms of an A/B experiment.
Pure.

A pair has scores of both models for one question. A verdict has that of one model; since the arm was drawn at random,
the doubly robust estimate (Dudík, Langford, Li, ICML 2011) gives the other model's score without bias: the mean of a
model, and for the model that answered the deviation from that mean divided by the probability of its arm. Single rows
are far outside 0 to 1; their means are right. Calls without a random draw are no evidence: whatever chose the model
also selected the questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, Protocol

import msgspec
import numpy as np

from groundplan.core.errors import Invalid
from groundplan.economics.routing.learn.evaluation_set import ContextRow, context_of, folds_of, question_key
from groundplan.economics.routing.model import Doubles, Integers, Matrix, Sample

MIN_VERDICTS: Final = 200
"""Fewest judged calls, or verdicts of each arm, to learn from."""
LEAST_UNITS: Final = 20
"""Fewest people or conversations that they come from."""
LEAST_SHARE: Final = 0.02
"""Smallest share of an arm: below it single verdicts would decide everything."""
UNFIT: Final = 0.5
"""Share of pairs with contradicting verdicts from which on a judge is unfit."""
MAX_OTHER_SHARE: Final = 0.05
"""Highest share of an arm that other models may have answered."""
CHOSEN: Final = frozenset({"learned", "unsure", "affinity", "cascade"})
"""Values of `route.by` of calls whose model was chosen by their question."""
COMMON_QUESTION_UNITS: Final = 5
"""Highest number of units that the same question groups together: a more common one says nothing of its askers."""


class Row(Protocol):
    """Common fields of pairs and verdicts."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def context(self) -> ContextRow: ...


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One call whose answer was compared with another model's. `unit`: its person or conversation."""

    id: str
    prompt: str
    unit: str
    context: ContextRow
    shown: str
    """Model of the answer that was given."""
    beside: str
    kept: bool
    """The other answer is as good, or better."""
    torn: bool
    """The judge contradicted itself, and nobody has reviewed the pair."""
    accepted: bool | None
    """The outcome of the given answer."""
    shown_usd: float
    beside_usd: float
    by: str = ""
    """How the model of the given answer was chosen (`route.by` of the receipt); empty: it was not."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One call in an arm of an A/B experiment, with the outcome of its answer."""

    id: str
    prompt: str
    unit: str
    context: ContextRow
    model: str
    candidate: bool
    """Whether it is in the candidate's arm."""
    share: float
    """Share of the candidate's arm."""
    accepted: bool
    cost_usd: float


def matrix_from_pairs(pairs: Sequence[Pair], workload: str) -> Matrix:
    """The training set of the two models that were compared most. The given answer scores 1, or its outcome if there is
    one; the other answer the same if it is as good, else 0. Calls whose model a router chose are left out (`CHOSEN`):
    they are a selection of hard or easy ones. Raises `Invalid` (`evidence_thin`, `evidence_chosen`, `judge_unfit`)."""
    replay = f"`groundplan experiments replay {workload}` judges more kept calls."
    kept_pairs, excluded = [pair for pair in pairs if pair.by not in CHOSEN], count_chosen(pairs)
    if excluded and len(kept_pairs) < MIN_VERDICTS:
        raise Invalid(
            f"a router chose the model of {excluded} of {len(pairs)} judged calls of {workload} by what was asked, so "
            f"they say nothing of the questions it sent elsewhere; {len(kept_pairs)} are left, {MIN_VERDICTS} are "
            "needed",
            code="evidence_chosen",
            hint=f"Let chance draw: `groundplan experiments start {workload} CANDIDATE --ab`, then `--from outcomes`.",
        )
    kinds = Counter((pair.shown, pair.beside) for pair in kept_pairs)
    if not kinds:
        keep = "Questions are kept where the workload says `keep: {content: redacted, for: 30 days}`; then "
        raise _thin(f"no judged pair of {workload} is kept with its question", f"{keep}{replay}")
    (shown, beside), count = kinds.most_common(1)[0]
    selected = [pair for pair in kept_pairs if (pair.shown, pair.beside) == (shown, beside)]
    if count < MIN_VERDICTS:
        raise _thin(f"{count} judged calls of {beside} beside {shown} are too few; {MIN_VERDICTS} are needed", replay)
    torn = sum(pair.torn for pair in selected)
    if torn >= UNFIT * count:
        raise Invalid(
            f"the judge contradicted itself on {torn} of {count} pairs",
            code="judge_unfit",
            hint="Name another judge, or review pairs: `groundplan experiments review`.",
        )
    first = np.array([1.0 if pair.accepted is None else float(pair.accepted) for pair in selected])
    other = first * np.array([float(pair.kept) for pair in selected])
    costs = np.array([[pair.shown_usd, pair.beside_usd] for pair in selected], dtype=np.float64)
    return Matrix(_samples(selected), (shown, beside), np.stack([first, other], axis=1), costs)


def count_chosen(pairs: Sequence[Pair]) -> int:
    """How many pairs are of calls whose model a router or a cascade chose."""
    return sum(pair.by in CHOSEN for pair in pairs)


def matrix_from_verdicts(verdicts: Sequence[Verdict], workload: str) -> Matrix:
    """The training set of the two models whose experiment has most verdicts. Raises `Invalid` (`evidence_thin`,
    `evidence_mixed`)."""
    drawn = [each for each in verdicts if LEAST_SHARE <= each.share <= 1 - LEAST_SHARE]
    models = _arms(drawn, workload)
    mine = [each for each in drawn if each.model == models[int(each.candidate)]]
    samples = _samples(mine)
    arm: Integers = np.array([int(each.candidate) for each in mine], dtype=np.int64)
    seen = np.array([float(each.accepted) for each in mine])
    chance = np.array([each.share if each.candidate else 1 - each.share for each in mine])
    scores = _robust(samples, arm, seen, chance)
    paid = np.array([each.cost_usd for each in mine])
    means = np.array([paid[arm == column].mean() for column in range(2)])
    usual = np.maximum(means[arm], 1e-12)
    costs = means[None, :] * (paid / usual)[:, None]
    costs[np.arange(len(mine)), arm] = paid
    return Matrix(samples, models, scores, costs)


def _arms(verdicts: Sequence[Verdict], workload: str) -> tuple[str, str]:
    """(model of the control arm, of the candidate's) of the most used candidate."""
    begin = f"Begin one (`groundplan experiments start {workload} CANDIDATE --ab`), keep calls, and report outcomes."
    models: list[str] = []
    for candidate in (False, True):
        counts = Counter(each.model for each in verdicts if each.candidate is candidate)
        name, count = counts.most_common(1)[0] if counts else ("", 0)
        arm = "candidate's" if candidate else "control"
        if count < MIN_VERDICTS:
            raise _thin(
                f"{count} verdicts in the {arm} arm of {workload} are too few; {MIN_VERDICTS} are needed", begin
            )
        if count < (1 - MAX_OTHER_SHARE) * counts.total():
            raise Invalid(
                f"{counts.total() - count} of {counts.total()} calls in the {arm} arm were answered by other models",
                code="evidence_mixed",
                hint="Learn from an experiment whose arms each have one model: no router, no fallbacks.",
            )
        models.append(name)
    if models[0] == models[1]:
        raise _thin(f"both arms of {workload} were answered by {models[0]}", begin)
    return models[0], models[1]


def _robust(samples: Sequence[Sample], arm: Integers, seen: Doubles, chance: Doubles) -> Doubles:
    """(rows, 2) doubly robust scores. Means come from other groups, so that no row influences its own."""
    scores = np.zeros((len(seen), 2))
    for fold in folds_of([sample.group for sample in samples]):
        rest = np.setdiff1d(np.arange(len(seen)), fold)
        for column in range(2):
            others = seen[rest][arm[rest] == column]
            mean = float(others.mean()) if len(others) else 0.5
            drawn = arm[fold] == column
            scores[fold, column] = mean + np.where(drawn, (seen[fold] - mean) / chance[fold], 0.0)
    return scores


def _samples(rows: Sequence[Row]) -> tuple[Sample, ...]:
    groups = group_rows(rows)
    if len(set(groups.values())) < LEAST_UNITS:
        raise _thin(
            f"the calls come from {len(set(groups.values()))} people or conversations; {LEAST_UNITS} are needed",
            "Wait until more people have asked: what one person asks is all alike.",
        )
    return tuple(Sample(row.id, groups[row.id], row.prompt, context_of(row.context)) for row in rows)


def group_rows(rows: Sequence[Row]) -> Mapping[str, str]:
    """id -> group that stays together in one fold: the unit, with all units that asked one of its questions, so that
    neither a unit nor a question is in two folds. A question that more than `COMMON_QUESTION_UNITS` units asked is a
    group of its own, or all units would be one group."""
    asked: dict[str, dict[str, None]] = {}
    for row in rows:
        asked.setdefault(question_key(row.prompt), {})[row.unit] = None
    first: dict[str, str] = {}
    for units in asked.values():
        if len(units) <= COMMON_QUESTION_UNITS:
            begin, *others = units
            for unit in others:
                first[_representative(first, unit)] = _representative(first, begin)
    found: dict[str, str] = {}
    for row in rows:
        same = question_key(row.prompt)
        common = len(asked[same]) > COMMON_QUESTION_UNITS
        digest = blake2b(same.encode(), digest_size=12).hexdigest()
        found[row.id] = f"asked {digest}" if common else f"of {_representative(first, row.unit)}"
    return found


def _representative(first: dict[str, str], unit: str) -> str:
    """The representative of the units grouped with one (union-find with path halving)."""
    while first.setdefault(unit, unit) != unit:
        first[unit] = first[first[unit]]
        unit = first[unit]
    return unit


def _thin(message: str, hint: str) -> Invalid:
    return Invalid(message, code="evidence_thin", hint=hint)
