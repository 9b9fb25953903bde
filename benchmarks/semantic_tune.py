"""Trains the acceptance of the semantic cache on labelled pairs; needs scikit-learn (extra `economics`).

Thresholds come from scores of pairs whose group (an intent, a text) was held out; no figures of these pairs are
reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from zlib import crc32

import numpy as np
from benchmarks.semantic_labelled import Pair
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.economics.semantic.equivalence import (
    CONFIDENCE,
    STATEMENT_KINDS,
    Acceptance,
    compare_words,
    difference_kinds,
    is_within_bound,
    judge,
    lowest_threshold,
    pair_features,
)
from groundplan.economics.semantic.phrasing import read_question
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import EmbeddedReading
from groundplan.economics.semantic.statements import FEATURES

BOUNDS = (0.01, 0.02, 0.05)
FOLDS = 6
WRONG_WEIGHT = 4.0
"""Missed hits that weigh as much as one wrong hit."""
STRICTNESS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Regularisation strengths (scikit-learn's C), the strongest first; the one with the most hits in held-out groups at
the lowest bound is used."""
CAUTION = 2.5
"""Other questions are harder than those of the training: thresholds use two fifths of the bound."""
VERSION = 8
RIGHT = 2
"""Fewest groups in which a kind of difference must not change the meaning."""
SELDOM = 0.03
"""Highest share of groups in which it may change the meaning, with confidence; or none at all."""


Way = tuple[Callable[[str], Reading], Callable[[str], EmbeddedReading]]
"""A way of reading a text, and the same with its embeddings."""


def evidenced(pairs: Sequence[Pair], groups: Sequence[str], *ways: Way) -> frozenset[str]:
    """The kinds of difference that pairs show to keep the meaning, by groups that no guard refuses, read in each way: a
    question within a text keeps its phrasing, a text that is one question may be rewritten."""
    rows = []
    for read, said in ways:
        for pair, group in zip(pairs, groups, strict=True):
            a, b = read(pair.a), read(pair.b)
            found = compare_words(a, b)
            if not isinstance(found, str) and not isinstance(pair_features(said(pair.a), said(pair.b), found), str):
                rows.append((difference_kinds(a, b), group, pair.same))
    return STATEMENT_KINDS | shown(rows)


def shown(rows: Iterable[tuple[frozenset[str], str, bool]], known: frozenset[str] = frozenset()) -> frozenset[str]:
    """The kinds of difference that keep the meaning by rows of (kinds, group, whether it did), and those of `known`
    that the rows do not contradict."""
    right: dict[str, set[str]] = {}
    wrong: dict[str, set[str]] = {}
    for kinds, group, same in rows:
        for kind in kinds:
            (right if same else wrong).setdefault(kind, set()).add(group)
    enough = {kind for kind, found in right.items() if len(found) >= RIGHT}
    return frozenset(
        kind
        for kind in enough | known
        if kind not in wrong
        or is_within_bound(len(wrong[kind]), len(right.get(kind, set()) | wrong[kind]), SELDOM, CONFIDENCE)
    )


def tune(
    pairs: Sequence[Pair],
    groups: Sequence[str],
    seen: Sequence[NDArray[np.float64] | str],
    kinds: frozenset[str],
    harder: Sequence[bool] | None = None,
    odd: Sequence[bool] | None = None,
) -> Acceptance:
    """Train an acceptance on pairs with their `features_of`, and the `kinds` of difference that are `evidenced`;
    `groups` are held out together. Pairs that are `harder` than usual questions have no bound with confidence: together
    with the others, the share of wrong ones keeps the bound. `odd` pairs are used for weights only."""
    rows = [i for i, found in enumerate(seen) if not isinstance(found, str)]
    told = np.stack([found for found in seen if not isinstance(found, str)])
    same = np.array([pairs[i].same for i in rows])
    group = np.array([groups[i] for i in rows])
    asked = [i for i in range(len(pairs)) if odd is None or not odd[i]]
    plain = [i for i in asked if harder is None or not harder[i]]
    tried = []
    for strictness in STRICTNESS:
        scores = np.full(len(pairs), -np.inf)
        scores[rows] = _held_out_scores(told, same, group, sorted(set(groups)), strictness)
        lowest = _threshold(pairs, scores, plain, asked, BOUNDS[0])
        tried.append((sum(pairs[i].same for i in plain if scores[i] >= lowest), -strictness, scores))
    _, strictness, scores = max(tried, key=lambda each: each[:2])
    weights, bias = _fit(told, same, -strictness)
    thresholds, evidence = {}, {}
    for bound in BOUNDS:
        threshold = _threshold(pairs, scores, plain, asked, bound)
        if np.isfinite(threshold):
            above = [pairs[i].same for i in plain if scores[i] >= threshold]
            thresholds[f"{bound:g}"], evidence[f"{bound:g}"] = round(threshold, 4), (len(above), above.count(False))
    return Acceptance(
        VERSION,
        list(FEATURES),
        [round(float(each), 5) for each in weights],
        round(bias, 5),
        thresholds,
        evidence,
        kinds,
    )


def _held_out_scores(
    told: NDArray[np.float64], same: NDArray[np.bool_], group: NDArray[np.str_], names: Sequence[str], strictness: float
) -> NDArray[np.float64]:
    """Scores of pairs by weights from other groups."""
    scores = np.full(len(told), -np.inf)
    for fold in range(FOLDS):
        out = np.isin(group, [name for place, name in enumerate(names) if place % FOLDS == fold])
        if out.any() and not out.all():
            weights, bias = _fit(told[~out], same[~out], strictness)
            scores[out] = told[out] @ weights + bias
    return scores


def _threshold(
    pairs: Sequence[Pair], scores: NDArray[np.float64], plain: Sequence[int], asked: Sequence[int], bound: float
) -> float:
    """The lowest threshold that keeps the bound for `plain` pairs with confidence, and for all `asked` pairs as a
    share."""
    sure, _, _ = _lowest(pairs, scores, plain, bound / CAUTION, CONFIDENCE)
    fair, _, _ = _lowest(pairs, scores, asked, bound, 0.0)
    return max(sure, fair)


def rule_digest(pairs: Sequence[Pair]) -> str:
    """A digest of guards and kinds of difference found in pairs, with word vectors made of letters instead of
    embeddings: it changes when the rule does."""
    known: dict[str, EmbeddedReading] = {}
    found = []
    for pair in pairs:
        one, other = (known.setdefault(text, _embed_by_letters(read_question(text))) for text in (pair.a, pair.b))
        met = judge(_NOTHING_LEARNED, one, other)
        found.append(f"{met.veto} {met.score > -np.inf} {sorted(met.kinds)}")
    return blake2b("\n".join(found).encode(), digest_size=16).hexdigest()


_NOTHING_LEARNED = Acceptance(0, [], [0.0] * len(FEATURES), 0.0, {}, {}, frozenset())
SIZE = 384


def _embed_by_letters(reading: Reading) -> EmbeddedReading:
    """Word vectors that are near for words with common letter pairs."""
    words = np.zeros((len(reading.content_words), SIZE), dtype=np.int8)
    for place, word in enumerate(reading.content_words):
        for letters in pairwise(f" {word} "):
            words[place, crc32("".join(letters).encode()) % SIZE] += 1
    whole = words.sum(axis=0, dtype=np.float32)
    return EmbeddedReading(reading, whole / np.float32(max(1.0, float(np.linalg.norm(whole)))), words)


def features_of(pair: Pair, said: Callable[[str], EmbeddedReading]) -> NDArray[np.float64] | str:
    """The features of a pair, or the guard that refuses it; `said`: embeds a text, not called if words alone refuse the
    pair."""
    found = compare_words(read_question(pair.a), read_question(pair.b))
    return found if isinstance(found, str) else pair_features(said(pair.a), said(pair.b), found)


def _lowest(
    pairs: Sequence[Pair], scores: NDArray[np.float64], of: Sequence[int], bound: float, confidence: float
) -> tuple[float, int, int]:
    return lowest_threshold([float(scores[i]) for i in of], [pairs[i].same for i in of], bound, confidence=confidence)


def _fit(told: NDArray[np.float64], same: NDArray[np.bool_], strictness: float) -> tuple[NDArray[np.float64], float]:
    try:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 -- heavy, and an extra
    except ImportError as error:
        hint = "pip install 'groundplan[economics]'"
        raise Invalid("tuning needs scikit-learn", code="extra_missing", hint=hint) from error
    mean, scale = told.mean(axis=0), told.std(axis=0) + 1e-9
    mean[-1], scale[-1] = 0.0, 1.0
    model = LogisticRegression(solver="newton-cholesky", fit_intercept=False, C=strictness)
    model.fit((told - mean) / scale, same, sample_weight=np.where(same, 1.0, WRONG_WEIGHT))
    weights = model.coef_[0] / scale
    return weights, -float((model.coef_[0] * mean / scale).sum())
