"""The yardstick: a plain ridge regression of scores on TF-IDF of words, as anybody would write it first."""

from __future__ import annotations

import numpy as np

from groundplan.core.errors import Invalid
from groundplan.economics.routing.model import Doubles, Matrix


def plain_ridge(seen: Matrix, asked: Matrix) -> Doubles:
    """(rows, models) expected scores of prompts: scikit-learn's TF-IDF and ridge regression with its defaults."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 -- heavy, and an extra
        from sklearn.linear_model import Ridge  # noqa: PLC0415 -- heavy, and an extra
    except ImportError as error:
        hint = "pip install 'groundplan[economics]'"
        raise Invalid("evaluation needs scikit-learn", code="extra_missing", hint=hint) from error
    words = TfidfVectorizer()
    features = words.fit_transform([sample.prompt for sample in seen.samples])
    told = Ridge().fit(features, seen.scores).predict(words.transform([sample.prompt for sample in asked.samples]))
    return np.asarray(told, dtype=np.float64).reshape(len(asked.samples), len(asked.models))
