"""Whether one answer serves two requests: guards first, then a calibrated score against a declared bound. Pure.

Weights and thresholds come from `tune` and ship as a small file; a bound's threshold is the lowest score above which
no more than that share of accepted pairs was wrong on pairs left out of training, with 95 % confidence. What a workload
itself teaches is `regions`'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import exp, inf, lgamma, log

import msgspec
import numpy as np
from numpy.typing import NDArray

from groundplan.economics.semantic import differences
from groundplan.economics.semantic.guards import veto
from groundplan.economics.semantic.likeness import FEATURES, Said, cosine, features, known, nearness, side_by_side
from groundplan.economics.semantic.put_otherwise import put_otherwise
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.rearranged import rearranged
from groundplan.economics.semantic.substitution import KIND, aligned, meant_otherwise, strictly, substituted

LEAST_COSINE = 0.55
"""Below this nothing is compared."""
MOST_PLACES = 6000
"""Pairs of places, one in each text, at which the same word stands: the time of a comparison grows with them, and texts
of a few words again and again would hold up a worker. Questions of 2,000 characters have 2,000 at most."""
CONFIDENCE = 0.95


class Acceptance(msgspec.Struct, frozen=True):
    """`thresholds`: bound -> least score; `evidence`: bound -> (accepted, wrong) of the pairs that it was set by."""

    version: int
    features: list[str]
    weights: list[float]
    bias: float
    thresholds: dict[str, float]
    evidence: dict[str, tuple[int, int]]
    kinds: frozenset[str]
    """Of difference, of which there is evidence that requests that differ by them say the same."""

    def threshold(self, bound: float) -> float:
        """The least score that keeps `bound`; infinite where no threshold is known to."""
        fit = [float(each) for each in self.thresholds if float(each) <= bound + 1e-12]
        return self.thresholds[f"{max(fit):g}"] if fit else inf

    def proven(self, bound: float) -> tuple[int, int]:
        """(accepted, wrong) behind that threshold."""
        fit = [float(each) for each in self.evidence if float(each) <= bound + 1e-12]
        return self.evidence[f"{max(fit):g}"] if fit else (0, 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`score` is minus infinity where a guard forbids it, and `veto` says which. `kinds` of difference are those of
    `differences`; of those that are `unproven` calibration has no evidence."""

    score: float
    veto: str = ""
    kinds: frozenset[str] = frozenset()
    unproven: frozenset[str] = frozenset()


@cache
def shipped() -> Acceptance:
    """The acceptance that comes with this version."""
    data = resources.files("groundplan.economics.semantic").joinpath("acceptance.json").read_bytes()
    found = msgspec.json.decode(data, type=Acceptance)
    if tuple(found.features) != FEATURES:
        raise ValueError("acceptance.json is of other features: tune it again")
    return found


def judge(acceptance: Acceptance, one: Said, other: Said) -> Verdict:
    """How surely one answer serves both."""
    told = compared(one, other)
    if isinstance(told, str):
        return Verdict(-inf, told)
    score = float(told @ np.asarray(acceptance.weights)) + acceptance.bias
    kinds = differing(one.reading, other.reading)
    return Verdict(score, kinds=kinds, unproven=kinds - acceptance.kinds)


def differing(a: Reading, b: Reading) -> frozenset[str]:
    """The kinds of difference of two readings that no guard refuses."""
    if not strictly(a, b):
        return TOLD
    return differences.kinds(a, b, aligned(a, b, known(a.spoken, b.spoken), side_by_side(a, b)))


TOLD = frozenset({"statement"})
"""Who tells something puts it otherwise each time: one kind, of which scores are the evidence."""


def compared(one: Said, other: Said) -> NDArray[np.float64] | str:
    """The features of a pair, or the kind of difference that refuses it whatever it scores."""
    alike, a, b = cosine(one, other), one.reading, other.reading
    if alike < LEAST_COSINE:
        return "unlike"
    kind = refused(a, b)
    if kind:
        return kind
    found = side_by_side(a, b)
    kind = meant_otherwise(one, other, found)
    if kind:
        return kind
    near = nearness(one.words, other.words, a.spoken, b.spoken)
    return KIND if substituted(a, b, near, found) else features(a, b, alike, near, found)


def refused(a: Reading, b: Reading) -> str:
    """The kind of difference that is told by words alone; empty: none was found."""
    if len(a.words) * len(b.words) > MOST_PLACES and _places(a.words, b.words) > MOST_PLACES:
        return "repeats"
    if not (a.stems and b.stems) and (a.words != b.words or (not a.words and a.text != b.text)):
        return "empty"
    kind = veto(a, b)
    if kind or not strictly(a, b):
        return kind
    kind = put_otherwise(a, b)
    if kind:
        return kind
    near, found = known(a.spoken, b.spoken), side_by_side(a, b)
    return KIND if substituted(a, b, near, found) else rearranged(a, b, aligned(a, b, near, found))


def _places(ours: Sequence[str], theirs: Sequence[str]) -> int:
    others = Counter(theirs)
    return sum(count * others[word] for word, count in Counter(ours).items())


def most_wrong(wrong: int, of: int, confidence: float = CONFIDENCE) -> float:
    """Upper end of the one-sided Clopper-Pearson interval of a share: with this confidence it is not above."""
    if wrong >= of:
        return 1.0
    low, high = wrong / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(wrong, of, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def within(wrong: int, of: int, bound: float, confidence: float = CONFIDENCE) -> bool:
    """Whether the upper end of that interval is at most `bound`, without looking for it."""
    return wrong < of and _at_most(wrong, of, bound) <= 1 - confidence


def _at_most(wrong: int, of: int, share: float) -> float:
    """Probability of at most so many among so many."""
    if share <= 0.0:
        return 1.0
    if share >= 1.0:
        return 1.0 if wrong >= of else 0.0
    told = [
        lgamma(of + 1) - lgamma(k + 1) - lgamma(of - k + 1) + k * log(share) + (of - k) * log(1 - share)
        for k in range(wrong + 1)
    ]
    return min(1.0, sum(map(exp, told)))


def lowest_threshold(
    scores: Sequence[float], same: Sequence[bool], bound: float, least: int = 100, confidence: float = CONFIDENCE
) -> tuple[float, int, int]:
    """(threshold, accepted, wrong): the lowest score above which the bound is kept with confidence (0: the share that
    was found); infinite where it never is. At least so many must be accepted."""
    order = sorted(zip(scores, same, strict=True), key=lambda each: -each[0])
    found, accepted, wrong = (inf, 0, 0), 0, 0
    for place, (score, right) in enumerate(order):
        if score == -inf:
            break
        accepted, wrong = accepted + 1, wrong + (not right)
        tied = place + 1 < len(order) and order[place + 1][0] == score
        if not tied and accepted >= least and most_wrong(wrong, accepted, confidence) <= bound + 1e-12:
            found = (score, accepted, wrong)
    return found
