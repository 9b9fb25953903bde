"""Estimates the share of answers that keep their quality; the interval covers sample, segments and errors of the judge.

Pure; the random draws are seeded. If people reviewed at least ten of the answers, the judge's verdicts are corrected by
the reviews among those that it called as good and among those that it called worse (Begg and Greenes 1983), so that it
does not matter which of them were reviewed more. Each segment uses its own reviews, and those of the others if it has
few. The interval also allows that people pick wrong, or right, answers up to six times as readily. With fewer reviews
the figures are the judge's own view, and the proposal says that it may be wrong. Answers that a judge left open are
rarely like the others (equal ones need no judge), so any share of them may be good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.economics.replay.model import Agreement, Interval, Judged, Proposal, Segment

LEVEL = 0.95
DRAWS = 4000
LEAST = 30
"""Judged calls below which there is no proposal."""
LEAST_REVIEWED = 10
"""Reviews below which the judge is not corrected by them, and its view is not known to be right."""
LIKE = 2.0
"""Reviews of a segment that weigh as much as those of all other segments."""
PICKS = 6.0
"""Odds ratio by which people may prefer wrong, or right, answers for review."""
PRIOR: Mapping[bool, tuple[float, float]] = {True: (2.7, 0.3), False: (0.5, 0.5)}
"""Beta prior of the share of good answers among those that a judge calls as good, and worse."""

Draws = NDArray[np.float64]


def propose(
    judged: Sequence[Judged],
    current: str,
    candidate: str,
    calls_a_month: Mapping[str, float],
    *,
    level: float = LEVEL,
    seed: int = 0,
    left_open: Mapping[str, int] = MappingProxyType({}),
) -> Proposal:
    """Estimate the quality and savings of replacing `current` by `candidate`. `calls_a_month`: by segment, sampled or
    not; `left_open`: by segment, answers without a verdict of the judge.

    Raises `Invalid` (`replay_thin`) with too few judged calls.
    """
    if len(judged) < LEAST:
        raise Invalid(
            f"{len(judged)} judged calls are too few to propose anything",
            code="replay_thin",
            hint=f"Replay at least {LEAST} calls.",
        )
    dice = np.random.default_rng(seed)
    weights = _weights(judged, calls_a_month)
    parts = _with_left_open(_shares(judged, dice), judged, left_open, dice)
    whole: Draws = np.sum([weights[name] * parts[name] for name in weights], axis=0)
    return Proposal(
        current=current,
        candidate=candidate,
        judged=len(judged),
        quality=interval(whole, level),
        saving=_saving(judged, calls_a_month, weights, level, dice),
        agreement=agreement(judged),
        worse=_worse(judged, parts, whole, level),
        covered=_covered(weights, calls_a_month),
        left_open=sum(left_open.get(name, 0) for name in weights),
        known=agreement(judged).reviewed >= LEAST_REVIEWED,
    )


def agreement(judged: Sequence[Judged]) -> Agreement:
    """Agreement of the judge's verdicts with reviews by people."""
    reviewed = [each for each in judged if each.reviewed is not None]
    return Agreement(len(reviewed), sum(each.reviewed == each.kept for each in reviewed))


def interval(draws: Draws, level: float) -> Interval:
    """Mean and equal-tailed interval of draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(draws.mean()), float(low), float(high), level)


def _weights(judged: Sequence[Judged], calls: Mapping[str, float]) -> dict[str, float]:
    """Share of calls of each sampled segment."""
    names = sorted({each.segment for each in judged})
    known = {name: float(calls.get(name, 0.0)) for name in names}
    total = sum(known.values())
    if total <= 0:
        return {name: sum(each.segment == name for each in judged) / len(judged) for name in names}
    return {name: value / total for name, value in known.items()}


def _covered(sampled: Mapping[str, float], calls: Mapping[str, float]) -> float:
    """Share of all calls in sampled segments."""
    total = sum(calls.values())
    return sum(calls.get(name, 0.0) for name in sampled) / total if total > 0 else 1.0


def _shares(judged: Sequence[Judged], dice: np.random.Generator) -> dict[str, Draws]:
    """Draws of the share of answers that keep their quality, by segment."""
    names = sorted({each.segment for each in judged})
    counted = {(name, kept): _count(judged, name, kept) for name in names for kept in (True, False)}
    told = {name: _beta(counted[name, True].judged, counted[name, False].judged, dice) for name in names}
    if sum(each.reviewed for each in counted.values()) < LEAST_REVIEWED:
        return told
    # the same people review all segments, and pick answers in the same way
    picks = np.exp(dice.uniform(-np.log(PICKS), np.log(PICKS), DRAWS))
    right = {cell: _good_share(cell, counted, picks, dice) for cell in counted}
    return {name: told[name] * right[name, True] + (1 - told[name]) * right[name, False] for name in names}


def _with_left_open(
    parts: dict[str, Draws], judged: Sequence[Judged], left_open: Mapping[str, int], dice: np.random.Generator
) -> dict[str, Draws]:
    """The shares of all answers, where any share of the answers left open may be good."""
    if not any(left_open.get(name) for name in parts):
        return parts
    good = dice.uniform(size=DRAWS)
    found = {}
    for name, share in parts.items():
        left = left_open.get(name, 0)
        of = left / (left + sum(each.segment == name for each in judged))
        found[name] = (1 - of) * share + of * good
    return found


@dataclass(frozen=True, slots=True)
class _Cell:
    """Answers of one segment of which the judge said the same: how many, how many reviewed, how many of those good."""

    judged: int
    reviewed: int
    good: int


def _count(judged: Sequence[Judged], name: str, kept: bool) -> _Cell:
    mine = [each.reviewed for each in judged if each.segment == name and each.kept is kept]
    return _Cell(len(mine), sum(each is not None for each in mine), sum(each is True for each in mine))


def _good_share(
    cell: tuple[str, bool], counted: Mapping[tuple[str, bool], _Cell], picks: Draws, dice: np.random.Generator
) -> Draws:
    """Draws of the share of good answers in a cell: from its reviews, shrunk to those of other segments if they are
    few. Answers that nobody reviewed are good more or less often, by `picks`."""
    name, kept = cell
    others = [each for (other, said), each in counted.items() if said is kept and other != name]
    good, reviewed = sum(each.good for each in others), sum(each.reviewed for each in others)
    before = PRIOR[kept]
    usual = dice.beta(before[0] + good, before[1] + reviewed - good, DRAWS)
    mine = counted[cell]
    found = dice.beta(LIKE * usual + mine.good + 1e-9, LIKE * (1 - usual) + mine.reviewed - mine.good + 1e-9)
    unseen = found * picks / (found * picks + 1 - found)
    seen = mine.reviewed / mine.judged if mine.judged else 0.0
    return seen * found + (1 - seen) * unseen


def _beta(hits: int, misses: int, dice: np.random.Generator) -> Draws:
    """Draws from the posterior of a share, Jeffreys."""
    return dice.beta(hits + 0.5, misses + 0.5, DRAWS)


def _saving(
    judged: Sequence[Judged],
    calls: Mapping[str, float],
    weights: Mapping[str, float],
    level: float,
    dice: np.random.Generator,
) -> Interval:
    """US dollars a month, by resampling calls within segments."""
    total = sum(calls.get(name, 0.0) for name in weights) or float(len(judged))
    draws: Draws = np.zeros(1000)
    for name, weight in weights.items():
        saved = np.array([each.cost - each.candidate_cost for each in judged if each.segment == name])
        picked = saved[dice.integers(len(saved), size=(1000, len(saved)))]
        draws = draws + weight * total * picked.mean(axis=1)
    return interval(draws, level)


def _worse(judged: Sequence[Judged], parts: Mapping[str, Draws], whole: Draws, level: float) -> tuple[Segment, ...]:
    if len(parts) < 2:
        return ()
    found = []
    for name, draws in parts.items():
        if float(np.mean(draws < whole)) >= level and float((whole - draws).mean()) > 0.02:
            found.append(Segment(name, sum(each.segment == name for each in judged), interval(draws, level)))
    return tuple(sorted(found, key=lambda each: each.quality.value))
