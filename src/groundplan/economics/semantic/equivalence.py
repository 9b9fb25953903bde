"""Decides whether one answer serves two requests: guards first, then a calibrated score for a declared bound. Pure.

Weights and thresholds come from `benchmarks/semantic_tune.py` and ship as a small file; a bound's threshold is the
lowest score above which no more than that share of accepted pairs was wrong on pairs left out of training, with 95 %
confidence. Learning from a workload's own matches is in `regions`.
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
from groundplan.economics.semantic.grammar_differences import ASKED_KIND, asks_differently, grammar_difference
from groundplan.economics.semantic.guards import veto
from groundplan.economics.semantic.pair_phrasing import pair_phrasing
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import (
    Alignment,
    EmbeddedReading,
    Near,
    align,
    contextual_nearness,
    cosine,
    features,
    lexical_nearness,
)
from groundplan.economics.semantic.statements import FEATURES, combine_features, statement_features
from groundplan.economics.semantic.substitution import (
    KIND,
    aligned_places,
    differs_in_meaning,
    has_substitution,
    requires_strict_match,
)
from groundplan.economics.semantic.word_order import arrangement_difference

MIN_COSINE = 0.55
"""Pairs below this are not compared."""
MAX_MATCHES = 6000
"""Limit of pairs of places with the same word: the time of a comparison grows with them, and texts that repeat a few
words would block a worker. Questions of 2,000 characters have 2,000 at most."""
CONFIDENCE = 0.95


class Acceptance(msgspec.Struct, frozen=True):
    """The calibrated model. `thresholds`: bound -> lowest score; `evidence`: bound -> (accepted, wrong) of the pairs
    that set the threshold. `rule`: digest of the guards and kinds of difference found in some pairs
    (`semantic_tune.rule_digest`)."""

    version: int
    features: list[str]
    weights: list[float]
    bias: float
    thresholds: dict[str, float]
    evidence: dict[str, tuple[int, int]]
    kinds: frozenset[str]
    """Kinds of difference with evidence that requests which differ only by them mean the same."""
    rule: str = ""

    def threshold(self, bound: float) -> float:
        """The lowest score that keeps `bound`; infinite if there is none."""
        fit = [float(each) for each in self.thresholds if float(each) <= bound + 1e-12]
        return self.thresholds[f"{max(fit):g}"] if fit else inf


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result for a pair. `veto`: the guard that refuses it; `score` is minus infinity where no evidence can overrule
    that. `kinds`: kinds of difference (`differences`), or only the `pair_phrasing` where evidence of that may overrule
    the guard. `unproven`: kinds of which calibration has no evidence."""

    score: float
    veto: str = ""
    kinds: frozenset[str] = frozenset()
    unproven: frozenset[str] = frozenset()


@cache
def load_acceptance() -> Acceptance:
    """Load the calibrated model that ships with this version."""
    data = resources.files("groundplan.economics.semantic").joinpath("acceptance.json").read_bytes()
    found = msgspec.json.decode(data, type=Acceptance)
    if tuple(found.features) != FEATURES:
        raise ValueError("acceptance.json is of other features: tune it again")
    return found


def judge(
    acceptance: Acceptance, one: EmbeddedReading, other: EmbeddedReading, worded: WordComparison | str | None = None
) -> Verdict:
    """Score how surely one answer serves both requests. `worded`: the result of `compare_words`, if already known."""
    met = compare_pair(one, other, worded)
    if isinstance(met, str):
        return Verdict(-inf, met)
    score = float(met.features @ np.asarray(acceptance.weights)) + acceptance.bias
    return Verdict(score, met.veto, met.kinds, met.kinds - acceptance.kinds)


STATEMENT_KINDS = frozenset({"statement"})
"""The only kind of difference of statements: they are worded differently each time, so only scores are evidence."""


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Comparison of two texts that no absolute guard refuses. `veto`: the guard that refuses it unless evidence
    overrules it."""

    features: NDArray[np.float64]
    kinds: frozenset[str]
    veto: str


def compare_pair(
    one: EmbeddedReading, other: EmbeddedReading, worded: WordComparison | str | None
) -> PairComparison | str:
    """Compare a pair as `judge` does, without a score; returns the guard instead where one refuses it whatever the
    evidence."""
    alike, a, b = cosine(one, other), one.reading, other.reading
    if alike < MIN_COSINE:
        return "unlike"
    found = compare_words(a, b) if worded is None else worded
    if isinstance(found, str):
        return found
    alone = contextual_nearness(one.words, other.words)
    kind = found.veto or differs_in_meaning(a, b, found.found, alone)
    near = np.maximum(alone, found.known)
    if not found.strict and (kind or has_substitution(a, b, near, found.found)):
        return kind or KIND
    kinds = frozenset({pair_phrasing(a, b, found.pairs)}) if kind else found.difference_kinds(a, b)
    own = None if found.strict else statement_features(a, b, near, alone, found.found)
    return PairComparison(combine_features(features(a, b, alike, near, found.found), own), kinds, kind)


@dataclass(frozen=True, slots=True)
class WordComparison:
    """Word-by-word comparison of two readings. `known`: which words mean the same; `pairs`: their places, where each
    word counts (`strict`); `veto`: the guard that refuses them unless there is evidence for their two ways of
    wording."""

    strict: bool
    found: Alignment
    known: Near
    pairs: Sequence[tuple[int, int]]
    veto: str = ""

    def difference_kinds(self, a: Reading, b: Reading) -> frozenset[str]:
        """Kinds of difference between the two readings, without asking guards."""
        return differences.difference_kinds(a, b, self.pairs) if self.strict else STATEMENT_KINDS


def align_words(a: Reading, b: Reading) -> WordComparison:
    """Compare two readings by words, without asking guards."""
    strict, found, near = requires_strict_match(a, b), align(a, b), lexical_nearness(a.content_words, b.content_words)
    return WordComparison(strict, found, near, aligned_places(a, b, near, found) if strict else ())


def compare_words(a: Reading, b: Reading) -> WordComparison | str:
    """Compare two readings by words; returns the guard instead where one refuses them whatever the evidence."""
    if len(a.words) * len(b.words) > MAX_MATCHES and _count_matches(a.words, b.words) > MAX_MATCHES:
        return "repeats"
    if not (a.stems and b.stems) and (a.words != b.words or (not a.words and a.text != b.text)):
        return "empty"
    kind = veto(a, b)
    if kind:
        return kind
    found = align_words(a, b)
    if not found.strict:
        return ASKED_KIND if asks_differently(a, b) else found
    kind = grammar_difference(a, b) or (KIND if has_substitution(a, b, found.known, found.found) else "")
    kind = kind or arrangement_difference(a, b, found.pairs)
    return replace(found, veto=kind) if kind else found


def _count_matches(ours: Sequence[str], theirs: Sequence[str]) -> int:
    others = Counter(theirs)
    return sum(count * others[word] for word, count in Counter(ours).items())


def is_within_bound(wrong: int, of: int, bound: float, confidence: float = CONFIDENCE) -> bool:
    """Whether the upper end of the one-sided Clopper-Pearson interval of the share `wrong` of `of` (with confidence 0:
    the share itself) is at most `bound`, without computing it."""
    return wrong < of and wrong <= bound * of and _binomial_cdf(wrong, of, bound) <= 1 - confidence


def _binomial_cdf(wrong: int, of: int, share: float) -> float:
    """Probability of at most `wrong` among `of` where each is wrong with probability `share`."""
    if share <= 0.0:
        return 1.0
    if share >= 1.0:
        return 1.0 if wrong >= of else 0.0
    told = [
        lgamma(of + 1) - lgamma(k + 1) - lgamma(of - k + 1) + k * log(share) + (of - k) * log(1 - share)
        for k in range(wrong + 1)
    ]
    return min(1.0, sum(map(exp, told)))
