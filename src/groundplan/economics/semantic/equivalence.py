"""Whether one answer serves two requests: guards first, then a calibrated score against a declared bound. Pure.

Weights and thresholds come from `benchmarks/semantic_tune.py` and ship as a small file; a bound's threshold is the
lowest score above which no more than that share of accepted pairs was wrong on pairs left out of training, with 95 %
confidence. What a workload itself teaches is `regions`'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import exp, inf, lgamma, log

import msgspec
import numpy as np
from numpy.typing import NDArray

from groundplan.economics.semantic import differences
from groundplan.economics.semantic.grammar_differences import ASKED_KIND, asked_otherwise, put_otherwise
from groundplan.economics.semantic.guards import veto
from groundplan.economics.semantic.pair_phrasing import ways
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import Compared, Near, Said, cosine, features, known, meant, side_by_side
from groundplan.economics.semantic.statements import FEATURES, told, weighed
from groundplan.economics.semantic.substitution import KIND, aligned, meant_otherwise, strictly, substituted
from groundplan.economics.semantic.word_order import rearranged

LEAST_COSINE = 0.55
"""Below this nothing is compared."""
MOST_PLACES = 6000
"""Pairs of places, one in each text, at which the same word stands: the time of a comparison grows with them, and texts
of a few words again and again would hold up a worker. Questions of 2,000 characters have 2,000 at most."""
CONFIDENCE = 0.95


class Acceptance(msgspec.Struct, frozen=True):
    """`thresholds`: bound -> least score; `evidence`: bound -> (accepted, wrong) of the pairs that it was set by.
    `rule`: a digest of what guards and kinds of difference say of some of them (`semantic_tune.told`)."""

    version: int
    features: list[str]
    weights: list[float]
    bias: float
    thresholds: dict[str, float]
    evidence: dict[str, tuple[int, int]]
    kinds: frozenset[str]
    """Of difference, of which there is evidence that requests that differ by them say the same."""
    rule: str = ""

    def threshold(self, bound: float) -> float:
        """The least score that keeps `bound`; infinite where no threshold is known to."""
        fit = [float(each) for each in self.thresholds if float(each) <= bound + 1e-12]
        return self.thresholds[f"{max(fit):g}"] if fit else inf


@dataclass(frozen=True, slots=True)
class Verdict:
    """`veto`: the guard that refuses it; `score` is minus infinity where no evidence overrules that. `kinds` of
    difference are those of `differences`; where a guard refuses it that evidence may overrule, the two `ways` alone.
    Of those that are `unproven` calibration has no evidence."""

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


def judge(acceptance: Acceptance, one: Said, other: Said, worded: Worded | str | None = None) -> Verdict:
    """How surely one answer serves both. `worded`: what `by_words` says of both, where that is known."""
    met = _met(one, other, worded)
    if isinstance(met, str):
        return Verdict(-inf, met)
    score = float(met.features @ np.asarray(acceptance.weights)) + acceptance.bias
    return Verdict(score, met.veto, met.kinds, met.kinds - acceptance.kinds)


def differing(a: Reading, b: Reading) -> frozenset[str]:
    """The kinds of difference of two readings, whatever guards say of them."""
    found = _side_by_side(a, b)
    return differences.kinds(a, b, found.pairs) if found.strict else TOLD


TOLD = frozenset({"statement"})
"""Who tells something puts it otherwise each time: one kind, of which scores are the evidence."""


def compared(one: Said, other: Said, worded: Worded | str | None = None) -> NDArray[np.float64] | str:
    """The features of a pair, or the kind of difference that refuses it whatever it scores."""
    met = _met(one, other, worded)
    return met if isinstance(met, str) else met.veto or met.features


@dataclass(frozen=True, slots=True)
class _Met:
    """Two texts that no evidence-proof guard refuses."""

    features: NDArray[np.float64]
    kinds: frozenset[str]
    veto: str


def _met(one: Said, other: Said, worded: Worded | str | None) -> _Met | str:
    """What is to be known of a pair, or the guard that refuses it whatever evidence there is."""
    alike, a, b = cosine(one, other), one.reading, other.reading
    if alike < LEAST_COSINE:
        return "unlike"
    found = by_words(a, b) if worded is None else worded
    if isinstance(found, str):
        return found
    alone = meant(one.words, other.words)
    kind = found.veto or meant_otherwise(a, b, found.found, alone)
    near = np.maximum(alone, found.known)
    if not found.strict and (kind or substituted(a, b, near, found.found)):
        return kind or KIND
    if kind:
        kinds = frozenset({ways(a, b, found.pairs)})
    else:
        kinds = differences.kinds(a, b, found.pairs) if found.strict else TOLD
    own = None if found.strict else told(a, b, near, alone, found.found)
    return _Met(weighed(features(a, b, alike, near, found.found), own), kinds, kind)


@dataclass(frozen=True, slots=True)
class Worded:
    """Two readings side by side. `known`: which words say the same; `pairs`: their places, where each word counts
    (`strict`); `veto`: the guard that refuses them unless there is evidence of the two ways in which they are put."""

    strict: bool
    found: Compared
    known: Near
    pairs: Sequence[tuple[int, int]]
    veto: str = ""


def _side_by_side(a: Reading, b: Reading) -> Worded:
    strict, found, near = strictly(a, b), side_by_side(a, b), known(a.spoken, b.spoken)
    return Worded(strict, found, near, aligned(a, b, near, found) if strict else ())


def by_words(a: Reading, b: Reading) -> Worded | str:
    """What two readings have in common, or the guard that refuses them by words alone, whatever evidence there is."""
    if len(a.words) * len(b.words) > MOST_PLACES and _places(a.words, b.words) > MOST_PLACES:
        return "repeats"
    if not (a.stems and b.stems) and (a.words != b.words or (not a.words and a.text != b.text)):
        return "empty"
    kind = veto(a, b)
    if kind:
        return kind
    found = _side_by_side(a, b)
    if not found.strict:
        return ASKED_KIND if asked_otherwise(a, b) else found
    kind = put_otherwise(a, b) or (KIND if substituted(a, b, found.known, found.found) else "")
    kind = kind or rearranged(a, b, found.pairs)
    return replace(found, veto=kind) if kind else found


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
    """Whether the upper end of that interval (without confidence the share itself) is at most `bound`, without looking
    for it."""
    return wrong < of and wrong <= bound * of and _at_most(wrong, of, bound) <= 1 - confidence


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
        if not tied and accepted >= least and within(wrong, accepted, bound + 1e-12, confidence):
            found = (score, accepted, wrong)
    return found
