"""Trains the acceptance of the semantic cache on labelled pairs; needs scikit-learn (extra `economics`).

Thresholds come from scores of pairs whose group (an intent, a text) was held out; no figures of these pairs are
reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from math import inf
from zlib import crc32

import numpy as np
from benchmarks.semantic_labelled import Pair
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.economics.semantic.equivalence import (
    CONFIDENCE,
    STATEMENT_KINDS,
    Acceptance,
    WordComparison,
    align_words,
    compare_pair,
    compare_words,
    is_within_bound,
    judge,
)
from groundplan.economics.semantic.phrasing import read_question
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import EmbeddedReading
from groundplan.economics.semantic.statements import FEATURES

BOUNDS = (0.01, 0.02, 0.05)
FOLDS = 6
WRONG_WEIGHT = 4.0
"""Number of missed hits that weigh as much as one wrong hit."""
STRICTNESS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Regularisation strengths (scikit-learn's C), the strongest first; the one with the most hits in held-out groups at
the lowest bound is used."""
CAUTION = 2.5
"""Questions in use are harder than those of the training: thresholds use two fifths of the bound."""
VERSION = 8
MIN_GROUPS = 2
"""Fewest groups in which a kind of difference must not change the meaning."""
MAX_WRONG_SHARE = 0.03
"""Highest share of groups in which it may change the meaning, with confidence; or none at all."""


Way = tuple[Callable[[str], Reading], Callable[[str], EmbeddedReading]]
"""A way of reading a text, and the same with its embeddings."""


def proven_kinds(pairs: Sequence[Pair], groups: Sequence[str], *ways: Way) -> frozenset[str]:
    """The kinds of difference that pairs show to keep the meaning, by groups that no guard refuses. Pairs are read in
    each way: a question within a text keeps its phrasing, a text that is one question may be rewritten."""
    rows = []
    for read, embed in ways:
        for pair, group in zip(pairs, groups, strict=True):
            a, b = read(pair.a), read(pair.b)
            difference = compare_words(a, b)
            if not isinstance(difference, str) and not isinstance(
                _pair_features(embed(pair.a), embed(pair.b), difference), str
            ):
                rows.append((difference_kinds(a, b), group, pair.same))
    return STATEMENT_KINDS | kinds_with_evidence(rows)


def kinds_with_evidence(
    rows: Iterable[tuple[frozenset[str], str, bool]], known: frozenset[str] = frozenset()
) -> frozenset[str]:
    """The kinds of difference that keep the meaning by rows of (kinds, group, whether the meaning was kept), and those
    of `known` that the rows do not contradict."""
    groups_kept: dict[str, set[str]] = {}
    groups_changed: dict[str, set[str]] = {}
    for kinds, group, same in rows:
        for kind in kinds:
            (groups_kept if same else groups_changed).setdefault(kind, set()).add(group)
    proven = {kind for kind, groups in groups_kept.items() if len(groups) >= MIN_GROUPS}
    return frozenset(
        kind
        for kind in proven | known
        if kind not in groups_changed
        or is_within_bound(
            len(groups_changed[kind]),
            len(groups_kept.get(kind, set()) | groups_changed[kind]),
            MAX_WRONG_SHARE,
            CONFIDENCE,
        )
    )


def tune(
    pairs: Sequence[Pair],
    groups: Sequence[str],
    features: Sequence[NDArray[np.float64] | str],
    kinds: frozenset[str],
    harder: Sequence[bool] | None = None,
    odd: Sequence[bool] | None = None,
) -> Acceptance:
    """Train an acceptance on pairs with their `features_of`, and the `proven_kinds` of difference; `groups` are held
    out together. Pairs that are `harder` than usual questions have no bound with confidence: together with the others,
    the share of wrong ones keeps the bound. `odd` pairs are used for weights only."""
    rows = [i for i, found in enumerate(features) if not isinstance(found, str)]
    matrix = np.stack([found for found in features if not isinstance(found, str)])
    same = np.array([pairs[i].same for i in rows])
    group = np.array([groups[i] for i in rows])
    bounded = [i for i in range(len(pairs)) if odd is None or not odd[i]]
    usual = [i for i in bounded if harder is None or not harder[i]]
    candidates = []
    for strictness in STRICTNESS:
        scores = np.full(len(pairs), -np.inf)
        scores[rows] = _held_out_scores(matrix, same, group, sorted(set(groups)), strictness)
        lowest = _threshold(pairs, scores, usual, bounded, BOUNDS[0])
        candidates.append((sum(pairs[i].same for i in usual if scores[i] >= lowest), -strictness, scores))
    _, strictness, scores = max(candidates, key=lambda candidate: candidate[:2])
    weights, bias = _fit(matrix, same, -strictness)
    thresholds, evidence = {}, {}
    for bound in BOUNDS:
        threshold = _threshold(pairs, scores, usual, bounded, bound)
        if np.isfinite(threshold):
            above = [pairs[i].same for i in usual if scores[i] >= threshold]
            thresholds[f"{bound:g}"], evidence[f"{bound:g}"] = round(threshold, 4), (len(above), above.count(False))
    return Acceptance(
        VERSION,
        list(FEATURES),
        [round(float(candidate), 5) for candidate in weights],
        round(bias, 5),
        thresholds,
        evidence,
        kinds,
    )


def _held_out_scores(
    features: NDArray[np.float64],
    same: NDArray[np.bool_],
    group: NDArray[np.str_],
    names: Sequence[str],
    strictness: float,
) -> NDArray[np.float64]:
    """Scores of pairs by weights that are trained on other groups."""
    scores = np.full(len(features), -np.inf)
    for fold in range(FOLDS):
        is_held_out = np.isin(group, [name for position, name in enumerate(names) if position % FOLDS == fold])
        if is_held_out.any() and not is_held_out.all():
            weights, bias = _fit(features[~is_held_out], same[~is_held_out], strictness)
            scores[is_held_out] = features[is_held_out] @ weights + bias
    return scores


def _threshold(
    pairs: Sequence[Pair], scores: NDArray[np.float64], usual: Sequence[int], bounded: Sequence[int], bound: float
) -> float:
    """The lowest threshold that keeps the bound for `usual` pairs with confidence, and for all `bounded` pairs as a
    share."""
    confident, _, _ = _lowest_threshold(pairs, scores, usual, bound / CAUTION, CONFIDENCE)
    average, _, _ = _lowest_threshold(pairs, scores, bounded, bound, 0.0)
    return max(confident, average)


def rule_digest(pairs: Sequence[Pair]) -> str:
    """A digest of the guards and kinds of difference found in pairs, with word vectors made of letters instead of
    embeddings: it changes with the rule."""
    readings: dict[str, EmbeddedReading] = {}
    lines = []
    for pair in pairs:
        one, other = (readings.setdefault(text, _embed_by_letters(read_question(text))) for text in (pair.a, pair.b))
        verdict = judge(_UNTRAINED, one, other)
        lines.append(f"{verdict.veto} {verdict.score > -np.inf} {sorted(verdict.kinds)}")
    return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


_UNTRAINED = Acceptance(0, [], [0.0] * len(FEATURES), 0.0, {}, {}, frozenset())
SIZE = 384


def _embed_by_letters(reading: Reading) -> EmbeddedReading:
    """A reading with word vectors that are similar for words with common letter pairs."""
    words = np.zeros((len(reading.content_words), SIZE), dtype=np.int8)
    for position, word in enumerate(reading.content_words):
        for letters in pairwise(f" {word} "):
            words[position, crc32("".join(letters).encode()) % SIZE] += 1
    total = words.sum(axis=0, dtype=np.float32)
    return EmbeddedReading(reading, total / np.float32(max(1.0, float(np.linalg.norm(total)))), words)


def features_of(pair: Pair, embed: Callable[[str], EmbeddedReading]) -> NDArray[np.float64] | str:
    """The features of a pair, or the guard that refuses it; `embed` is not called if the words refuse the pair."""
    difference = compare_words(read_question(pair.a), read_question(pair.b))
    return difference if isinstance(difference, str) else _pair_features(embed(pair.a), embed(pair.b), difference)


def _pair_features(one: EmbeddedReading, other: EmbeddedReading, worded: WordComparison) -> NDArray[np.float64] | str:
    """Features of a pair, or the guard that refuses it."""
    found = compare_pair(one, other, worded)
    return found if isinstance(found, str) else found.veto or found.features


def difference_kinds(a: Reading, b: Reading) -> frozenset[str]:
    """Kinds of difference between two readings, without asking guards."""
    return align_words(a, b).difference_kinds(a, b)


def share_upper_bound(wrong: int, of: int, confidence: float = CONFIDENCE) -> float:
    """Upper end of the one-sided Clopper-Pearson interval of the share `wrong` of `of`."""
    if wrong >= of:
        return 1.0
    low, high = wrong / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if is_within_bound(wrong, of, middle, confidence):
            high = middle
        else:
            low = middle
    return high


def lowest_threshold(
    scores: Sequence[float], same: Sequence[bool], bound: float, least: int = 100, confidence: float = CONFIDENCE
) -> tuple[float, int, int]:
    """(threshold, accepted, wrong): the lowest score from which on the bound is kept with confidence (0: by the share
    itself); infinite if there is none. At least `least` pairs must be accepted."""
    order = sorted(zip(scores, same, strict=True), key=lambda each: -each[0])
    found, accepted, wrong = (inf, 0, 0), 0, 0
    for place, (score, right) in enumerate(order):
        if score == -inf:
            break
        accepted, wrong = accepted + 1, wrong + (not right)
        tied = place + 1 < len(order) and order[place + 1][0] == score
        if not tied and accepted >= least and is_within_bound(wrong, accepted, bound + 1e-12, confidence):
            found = (score, accepted, wrong)
    return found


def _lowest_threshold(
    pairs: Sequence[Pair], scores: NDArray[np.float64], indexes: Sequence[int], bound: float, confidence: float
) -> tuple[float, int, int]:
    return lowest_threshold(
        [float(scores[i]) for i in indexes], [pairs[i].same for i in indexes], bound, confidence=confidence
    )


def _fit(
    features: NDArray[np.float64], same: NDArray[np.bool_], strictness: float
) -> tuple[NDArray[np.float64], float]:
    try:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 -- heavy, and an extra
    except ImportError as error:
        hint = "pip install 'groundplan[economics]'"
        raise Invalid("tuning needs scikit-learn", code="extra_missing", hint=hint) from error
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    mean[-1], scale[-1] = 0.0, 1.0
    model = LogisticRegression(solver="newton-cholesky", fit_intercept=False, C=strictness)
    model.fit((features - mean) / scale, same, sample_weight=np.where(same, 1.0, WRONG_WEIGHT))
    weights = model.coef_[0] / scale
    return weights, -float((model.coef_[0] * mean / scale).sum())
