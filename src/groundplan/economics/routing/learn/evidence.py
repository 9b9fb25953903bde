"""A training set from what calls showed: judged pairs of answers, or verdicts in the arms of an A/B experiment. Pure.

A pair says of one question how both models did. A verdict says it of one model alone; since chance drew the arm,
the other model's score is told without bias by the doubly robust estimate (Dudík, Langford, Li, ICML 2011): the mean of
a model, and for the model that answered what was said beyond that mean, divided by the probability of its arm. Single
rows of it are far outside 0 to 1; their means are right. Calls that nobody drew are no evidence: whoever chose the
model also chose the questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, Protocol

import msgspec
import numpy as np

from groundplan.core.errors import Invalid
from groundplan.economics.routing.learn.evaluation_set import Told, context_of, folds_of, said
from groundplan.economics.routing.model import Doubles, Matrix, Sample, Whole

LEAST: Final = 200
"""Judged calls, or verdicts of each arm, below which nothing is learned."""
LEAST_UNITS: Final = 20
"""People or conversations that they come from."""
LEAST_SHARE: Final = 0.02
"""Of an arm: below it single verdicts would decide everything."""
UNFIT: Final = 0.5
"""Share of pairs with contradicting verdicts from which on a judge proves nothing."""
FALLEN: Final = 0.05
"""Share of an arm that other models may have answered."""
CHOSEN: Final = frozenset({"learned", "unsure", "affinity", "cascade"})
"""Ways by which a learned router, or a cascade, gave a call to its model by what was asked."""
COMMON: Final = 5
"""People or conversations that ask a question as it stands: what more ask says nothing of who asks it."""


class Row(Protocol):
    """What both kinds have."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def context(self) -> Told: ...


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One call whose answer was compared with another model's. `unit`: whom or what conversation it belongs to."""

    id: str
    prompt: str
    unit: str
    context: Told
    shown: str
    """Model of the answer that was given."""
    beside: str
    kept: bool
    """The other answer is as good, or better."""
    torn: bool
    """The judge contradicted itself, and nobody has reviewed the pair."""
    accepted: bool | None
    """What people said of the answer that was given."""
    shown_usd: float
    beside_usd: float
    by: str = ""
    """How the call came to the model that was shown, as its receipt says; empty: nobody chose."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One call in an arm of an A/B experiment, and what was said of its answer."""

    id: str
    prompt: str
    unit: str
    context: Told
    model: str
    candidate: bool
    """Its arm is the candidate's."""
    share: float
    """Of the candidate's arm."""
    accepted: bool
    cost_usd: float


def of_pairs(pairs: Sequence[Pair], workload: str) -> Matrix:
    """The set of the two models that were compared most. The answer that was given scores 1, or what people said of it;
    the other one as much where it is as good, else 0. Calls that a router chose the model for are left out (`chosen`):
    they are the hard ones, or the easy ones. Raises `Invalid` (`evidence_thin`, `evidence_chosen`, `judge_unfit`)."""
    replay = f"`groundplan experiments replay {workload}` judges more kept calls."
    left, out = [pair for pair in pairs if pair.by not in CHOSEN], chosen(pairs)
    if out and len(left) < LEAST:
        raise Invalid(
            f"a router chose the model of {out} of {len(pairs)} judged calls of {workload} by what was asked, so they "
            f"say nothing of the questions it sent elsewhere; {len(left)} are left, {LEAST} are needed",
            code="evidence_chosen",
            hint=f"Let chance draw: `groundplan experiments start {workload} CANDIDATE --ab`, then `--from outcomes`.",
        )
    kinds = Counter((pair.shown, pair.beside) for pair in left)
    if not kinds:
        keep = "Questions are kept where the workload says `keep: {content: redacted, for: 30 days}`; then "
        raise _thin(f"no judged pair of {workload} is kept with its question", f"{keep}{replay}")
    (shown, beside), count = kinds.most_common(1)[0]
    mine = [pair for pair in left if (pair.shown, pair.beside) == (shown, beside)]
    if count < LEAST:
        raise _thin(f"{count} judged calls of {beside} beside {shown} are too few; {LEAST} are needed", replay)
    torn = sum(pair.torn for pair in mine)
    if torn >= UNFIT * count:
        raise Invalid(
            f"the judge contradicted itself on {torn} of {count} pairs",
            code="judge_unfit",
            hint="Name another judge, or review pairs: `groundplan experiments review`.",
        )
    first = np.array([1.0 if pair.accepted is None else float(pair.accepted) for pair in mine])
    other = first * np.array([float(pair.kept) for pair in mine])
    costs = np.array([[pair.shown_usd, pair.beside_usd] for pair in mine], dtype=np.float64)
    return Matrix(_samples(mine), (shown, beside), np.stack([first, other], axis=1), costs)


def chosen(pairs: Sequence[Pair]) -> int:
    """How many are of calls that a router or a cascade chose the model for."""
    return sum(pair.by in CHOSEN for pair in pairs)


def of_verdicts(verdicts: Sequence[Verdict], workload: str) -> Matrix:
    """The set of the two models whose experiment has most verdicts. Raises `Invalid` (`evidence_thin`,
    `evidence_mixed`)."""
    drawn = [each for each in verdicts if LEAST_SHARE <= each.share <= 1 - LEAST_SHARE]
    models = _arms(drawn, workload)
    mine = [each for each in drawn if each.model == models[int(each.candidate)]]
    samples = _samples(mine)
    arm: Whole = np.array([int(each.candidate) for each in mine], dtype=np.int64)
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
        if count < LEAST:
            raise _thin(f"{count} verdicts in the {arm} arm of {workload} are too few; {LEAST} are needed", begin)
        if count < (1 - FALLEN) * counts.total():
            raise Invalid(
                f"{counts.total() - count} of {counts.total()} calls in the {arm} arm were answered by other models",
                code="evidence_mixed",
                hint="Learn from an experiment whose arms each have one model: no router, no fallbacks.",
            )
        models.append(name)
    if models[0] == models[1]:
        raise _thin(f"both arms of {workload} were answered by {models[0]}", begin)
    return models[0], models[1]


def _robust(samples: Sequence[Sample], arm: Whole, seen: Doubles, chance: Doubles) -> Doubles:
    """(rows, 2) doubly robust scores. Means come from other groups, so that no row tells of itself."""
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
    groups = groups_of(rows)
    if len(set(groups.values())) < LEAST_UNITS:
        raise _thin(
            f"the calls come from {len(set(groups.values()))} people or conversations; {LEAST_UNITS} are needed",
            "Wait until more people have asked: what one person asks is all alike.",
        )
    return tuple(Sample(row.id, groups[row.id], row.prompt, context_of(row.context)) for row in rows)


def groups_of(rows: Sequence[Row]) -> Mapping[str, str]:
    """id -> what stays together in one fold: the unit, with all units that asked one of its questions, so that neither
    a unit nor a question is in two. A question that more than `COMMON` units asked is a group of its own, or everybody
    would be one group."""
    asked: dict[str, dict[str, None]] = {}
    for row in rows:
        asked.setdefault(said(row.prompt), {})[row.unit] = None
    first: dict[str, str] = {}
    for units in asked.values():
        if len(units) <= COMMON:
            begin, *others = units
            for unit in others:
                first[_first(first, unit)] = _first(first, begin)
    found: dict[str, str] = {}
    for row in rows:
        same = said(row.prompt)
        common = len(asked[same]) > COMMON
        digest = blake2b(same.encode(), digest_size=12).hexdigest()
        found[row.id] = f"asked {digest}" if common else f"of {_first(first, row.unit)}"
    return found


def _first(first: dict[str, str], unit: str) -> str:
    """Of the units that are together with one, the one that stands for all."""
    while first.setdefault(unit, unit) != unit:
        first[unit] = first[first[unit]]
        unit = first[unit]
    return unit


def _thin(message: str, hint: str) -> Invalid:
    return Invalid(message, code="evidence_thin", hint=hint)
