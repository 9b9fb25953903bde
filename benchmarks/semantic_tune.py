"""Learning the acceptance of the semantic cache from labelled pairs; needs scikit-learn (extra `economics`).

Thresholds come from scores of pairs whose group (an intent, a text) was left out; nothing is reported of these pairs.
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
"""A wrong hit counts as many missed ones."""
STRICTNESS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""How little weights are held back (scikit-learn's C), the most first; the one with which most pairs of the groups that
were left out are taken at the least bound."""
CAUTION = 2.5
"""Other questions are harder than those that thresholds come from: here two fifths of the bound are used."""
VERSION = 8
RIGHT = 2
"""Groups in which a kind of difference must have said the same."""
SELDOM = 0.03
"""Share of groups in which it may not have, with confidence; or in none at all."""


Way = tuple[Callable[[str], Reading], Callable[[str], EmbeddedReading]]
"""How a text is read, and the same with its embeddings."""


def evidenced(pairs: Sequence[Pair], groups: Sequence[str], *ways: Way) -> frozenset[str]:
    """The kinds of difference of which pairs show that they say the same, by groups that no guard refuses, read in each
    of the ways: a question in the middle of a text is not put otherwise, one that is all of it may be."""
    rows = []
    for read, said in ways:
        for pair, group in zip(pairs, groups, strict=True):
            a, b = read(pair.a), read(pair.b)
            found = compare_words(a, b)
            if not isinstance(found, str) and not isinstance(pair_features(said(pair.a), said(pair.b), found), str):
                rows.append((difference_kinds(a, b), group, pair.same))
    return STATEMENT_KINDS | shown(rows)


def shown(rows: Iterable[tuple[frozenset[str], str, bool]], known: frozenset[str] = frozenset()) -> frozenset[str]:
    """The kinds of difference that say the same by rows of (kinds, group, whether it did), and those of `known` of
    which the rows show nothing else."""
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
    """An acceptance from pairs as they are `seen`, with the `kinds` of difference that are `evidenced`; `groups` are
    left out together. Of those that are `harder` than what people ask there is no bound with confidence: with them
    among the rest no larger share than the bound is wrong. `odd` ones have a part in weights alone."""
    rows = [i for i, found in enumerate(seen) if not isinstance(found, str)]
    told = np.stack([found for found in seen if not isinstance(found, str)])
    same = np.array([pairs[i].same for i in rows])
    group = np.array([groups[i] for i in rows])
    asked = [i for i in range(len(pairs)) if odd is None or not odd[i]]
    plain = [i for i in asked if harder is None or not harder[i]]
    tried = []
    for strictness in STRICTNESS:
        scores = np.full(len(pairs), -np.inf)
        scores[rows] = _left_out(told, same, group, sorted(set(groups)), strictness)
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


def _left_out(
    told: NDArray[np.float64], same: NDArray[np.bool_], group: NDArray[np.str_], names: Sequence[str], strictness: float
) -> NDArray[np.float64]:
    """Scores of pairs by weights that come of other groups."""
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
    """The lowest with which the bound holds of `plain` pairs, with confidence, and of all that are asked as a share."""
    sure, _, _ = _lowest(pairs, scores, plain, bound / CAUTION, CONFIDENCE)
    fair, _, _ = _lowest(pairs, scores, asked, bound, 0.0)
    return max(sure, fair)


def told(pairs: Sequence[Pair]) -> str:
    """A digest of what guards and kinds of difference say of pairs of which each word lies where its letters say, so
    that no embedding is needed: it is the same as long as the rule is."""
    known: dict[str, EmbeddedReading] = {}
    found = []
    for pair in pairs:
        one, other = (known.setdefault(text, _lettered(read_question(text))) for text in (pair.a, pair.b))
        met = judge(_NOTHING_LEARNED, one, other)
        found.append(f"{met.veto} {met.score > -np.inf} {sorted(met.kinds)}")
    return blake2b("\n".join(found).encode(), digest_size=16).hexdigest()


_NOTHING_LEARNED = Acceptance(0, [], [0.0] * len(FEATURES), 0.0, {}, {}, frozenset())
SIZE = 384


def _lettered(reading: Reading) -> EmbeddedReading:
    """Directions by which words are near that share letters side by side."""
    words = np.zeros((len(reading.content_words), SIZE), dtype=np.int8)
    for place, word in enumerate(reading.content_words):
        for letters in pairwise(f" {word} "):
            words[place, crc32("".join(letters).encode()) % SIZE] += 1
    whole = words.sum(axis=0, dtype=np.float32)
    return EmbeddedReading(reading, whole / np.float32(max(1.0, float(np.linalg.norm(whole)))), words)


def seen(pair: Pair, said: Callable[[str], EmbeddedReading]) -> NDArray[np.float64] | str:
    """The features of a pair, or why it is refused; `said`: a text with its embeddings, which of texts that words alone
    refuse are not asked for."""
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
