"""Baselines: ridge regressions of scores on TF-IDF of words, with scikit-learn's defaults and tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from groundplan.core.errors import Invalid
from groundplan.economics.routing.model import Doubles, Matrix

WORDS = {"sublinear_tf": True, "ngram_range": (1, 2), "min_df": 2}
"""Usual improvements: logarithmic counts, pairs of words, without words that occur once..."""
RIDGE = {"alpha": 10.0, "tol": 1e-3}
"""...with a penalty that suits so many columns."""


def plain_ridge(seen: Matrix, asked: Matrix) -> Doubles:
    """(rows, models) expected scores of prompts: scikit-learn's TF-IDF and ridge regression with its defaults."""
    return _ridge(seen, asked, {}, {})


def tuned_ridge(seen: Matrix, asked: Matrix) -> Doubles:
    """The same, tuned."""
    return _ridge(seen, asked, WORDS, RIDGE)


def _ridge(seen: Matrix, asked: Matrix, options: dict[str, Any], ridge: dict[str, Any]) -> Doubles:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 -- heavy, and an extra
        from sklearn.linear_model import Ridge  # noqa: PLC0415 -- heavy, and an extra
    except ImportError as error:
        hint = "pip install 'groundplan[economics]'"
        raise Invalid("evaluation needs scikit-learn", code="extra_missing", hint=hint) from error
    words = TfidfVectorizer(**options)
    learned, wanted = _prompts(seen), _prompts(asked)
    try:
        features = words.fit_transform(learned)
    except ValueError:  # no prompt has a word of two letters that it would count
        return np.tile(seen.scores.mean(axis=0), (len(wanted), 1))
    told = Ridge(**ridge).fit(features, seen.scores).predict(words.transform(wanted))
    return np.asarray(told, dtype=np.float64).reshape(len(wanted), len(asked.models))


def _prompts(matrix: Matrix) -> Sequence[str]:
    return [sample.prompt for sample in matrix.samples]
