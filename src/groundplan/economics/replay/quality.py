"""How many answers keep their quality, with an interval that knows of sample, segments and the errors of the judge.

Pure; the random draws are seeded. Where people reviewed some of the answers, what the judge tells is corrected by
how often it was right about good and about bad ones (Rogan and Gladen 1978), each share drawn from its Jeffreys
posterior; where nobody did, the interval is the judge's own view, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.economics.replay.model import Agreement, Interval, Judged, Proposal, Segment

LEVEL = 0.95
DRAWS = 4000
LEAST = 30
"""Judged calls below which nothing is proposed."""
LEAST_REVIEWED = 10
"""Reviews below which the judge is not corrected by them."""

Draws = NDArray[np.float64]


def propose(
    judged: Sequence[Judged],
    current: str,
    candidate: str,
    calls_a_month: Mapping[str, float],
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> Proposal:
    """What replacing `current` by `candidate` would keep and save. `calls_a_month`: by segment, sampled or not.

    Raises `Invalid` (`replay_thin`) where too little was judged to say anything.
    """
    if len(judged) < LEAST:
        raise Invalid(
            f"{len(judged)} judged calls are too few to propose anything",
            code="replay_thin",
            hint=f"Replay at least {LEAST} calls.",
        )
    dice = np.random.default_rng(seed)
    weights = _weights(judged, calls_a_month)
    right = _judge(judged, dice)
    parts = {name: _share([j for j in judged if j.segment == name], right, dice) for name in weights}
    whole: Draws = np.sum([weights[name] * parts[name] for name in weights], axis=0)
    return Proposal(
        current=current,
        candidate=candidate,
        judged=len(judged),
        quality=interval(whole, level),
        saving=_saving(judged, calls_a_month, weights, level, dice),
        agreement=agreement(judged),
        worse=_worse(judged, parts, whole, level),
    )


def agreement(judged: Sequence[Judged]) -> Agreement:
    """Judge and people."""
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


def _judge(judged: Sequence[Judged], dice: np.random.Generator) -> tuple[Draws, Draws] | None:
    """Draws of (how often it calls good answers good, how often bad ones bad); None: not known well enough."""
    reviewed = [each for each in judged if each.reviewed is not None]
    if len(reviewed) < LEAST_REVIEWED:
        return None
    good = [each for each in reviewed if each.reviewed]
    bad = [each for each in reviewed if not each.reviewed]
    found = sum(each.kept for each in good)
    caught = sum(not each.kept for each in bad)
    return _beta(found, len(good), dice), _beta(caught, len(bad), dice)


def _beta(hits: int, of: int, dice: np.random.Generator) -> Draws:
    return dice.beta(hits + 0.5, of - hits + 0.5, DRAWS)


def _share(judged: Sequence[Judged], right: tuple[Draws, Draws] | None, dice: np.random.Generator) -> Draws:
    """Draws of the share of answers of one segment that keep their quality."""
    told = _beta(sum(each.kept for each in judged), len(judged), dice)
    if right is None:
        return told
    sensitive, specific = right
    useful = sensitive + specific - 1
    corrected = np.where(useful > 0.05, (told + specific - 1) / np.maximum(useful, 0.05), dice.random(DRAWS))
    return np.clip(corrected, 0.0, 1.0)


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
