"""How alike two readings are, as numbers from which `accept` decides: whole texts, words they share, words they do not.

Words that only one text has are compared with the words of the other by their own embeddings, so that a synonym is told
from another thing of the same sort. Pure; embeddings come as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.reading import Reading, stem
from groundplan.economics.semantic.synonyms import said_among

Vector = NDArray[np.float32]
SYNONYM = 0.8
"""Likeness of the embeddings of two words from which on one says what the other does; countries reach 0.75."""
FEATURES = (
    "cosine", "distance", "apart", "words_left_a", "words_left_b", "shared", "worst_a", "worst_b", "mean_a", "mean_b",
    "left", "length", "order", "names", "swaps", "added", "doubt", "open_a", "open_b", "bias",
)  # fmt: skip


def open_words(a: Reading, b: Reading) -> tuple[list[str], list[str]]:
    """Content words of each whose stem the other has nowhere."""
    return _left(a, b), _left(b, a)


def _left(a: Reading, b: Reading) -> list[str]:
    stems = set(b.stems) | {stem(word) for word in b.words}
    seen: dict[str, None] = {}
    for word in a.words:
        if word in v.STOP or word in v.NEGATIONS or word[0].isdigit() or word[0] in '`"$€£¥%':
            continue
        if stem(word) not in stems and word not in b.text.lower():
            seen[word] = None
    return list(seen)


def content(reading: Reading) -> list[str]:
    """All content words, each once."""
    kept = (w for w in reading.words if w not in v.STOP and not w[0].isdigit() and w[0] not in '`"$€£¥%')
    return list(dict.fromkeys(kept))


def features(a: Reading, b: Reading, cosine: float, vector: Callable[[str], Vector]) -> NDArray[np.float64]:
    """(len(FEATURES),) of a pair. `cosine`: of the whole texts; `vector`: the unit embedding of a word."""
    left_a, left_b = open_words(a, b)
    best_a, best_b = _best(left_a, content(b), vector), _best(left_b, content(a), vector)
    one, other = max(1, len(a.stems)), max(1, len(b.stems))
    shared = set(a.stems) & set(b.stems)
    union = len(set(a.stems) | set(b.stems)) or 1
    pairs = min(len(left_a), len(left_b))
    added = abs(len(left_a) - len(left_b))
    worst = min([*best_a, *best_b], default=1.0)
    short = 1.0 / max(3.0, min(one, other))
    return np.array(
        [
            cosine,
            (1.0 - cosine) ** 0.5 if cosine < 1.0 else 0.0,
            max(0.0, 0.85 - cosine),
            len(left_a) / one,
            len(left_b) / other,
            len(shared) / union,
            min(best_a, default=1.0),
            min(best_b, default=1.0),
            float(np.mean(best_a)) if best_a else 1.0,
            float(np.mean(best_b)) if best_b else 1.0,
            np.log1p(len(left_a) + len(left_b)),
            abs(np.log(one / other)),
            SequenceMatcher(None, a.stems, b.stems, autojunk=False).ratio(),
            len(a.names & b.names) / (len(a.names | b.names) or 1),
            pairs * short,
            added * short,
            (1.0 - worst) * short * 4,
            sum(near < SYNONYM for near in best_a) / one,
            sum(near < SYNONYM for near in best_b) / other,
            1.0,
        ]
    )


def _best(words: Sequence[str], others: Sequence[str], vector: Callable[[str], Vector]) -> list[float]:
    if not words:
        return []
    if not others:
        return [0.0] * len(words)
    table = np.stack([vector(word) for word in words]) @ np.stack([vector(word) for word in others]).T
    return [
        1.0 if said else float(near) for said, near in zip(said_among(words, others), table.max(axis=1), strict=True)
    ]
