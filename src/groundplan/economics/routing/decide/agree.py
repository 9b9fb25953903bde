"""Whether answers that were made independently say the same, and how sure a model was of its words. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import exp

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_DENIES = frozenset({"not", "no", "never", "cannot", "without", "none", "nein", "nicht", "kein", "keine", "isn't",
                     "don't", "doesn't", "won't", "can't", "aren't"})  # fmt: skip
ALIKE = 0.5
"""Least share of words in common (Jaccard), where numbers and polarity are the same."""
SHORT = 4
"""Words of an answer that must be the same one by one."""


def same(one: str, other: str) -> bool:
    """Whether two answers say the same: equal but for case and signs; or, where they are longer, with the same
    numbers, the same polarity and at least half of their words."""
    a, b = _WORD.findall(one.casefold()), _WORD.findall(other.casefold())
    if set(_NUMBER.findall(one)) != set(_NUMBER.findall(other)):
        return False
    if a == b or min(len(a), len(b)) <= SHORT:
        return a == b
    if bool(_DENIES.intersection(a)) != bool(_DENIES.intersection(b)):
        return False
    first, second = set(a), set(b)
    return len(first & second) >= ALIKE * len(first | second)


def all_agree(answers: Sequence[str]) -> bool:
    """Whether every answer says what the first one does; an empty one agrees with nothing."""
    return all(answer.strip() for answer in answers) and all(same(answers[0], other) for other in answers[1:])


def confidence(logprobs: Sequence[float]) -> float | None:
    """Geometric mean of the probabilities of an answer's tokens (natural logarithms); None where there are none."""
    return exp(min(0.0, sum(logprobs) / len(logprobs))) if logprobs else None
