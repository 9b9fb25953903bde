"""Compares independent answers for agreement, and computes a model's confidence in its tokens. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import exp

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_DENIES = frozenset(
    """
    not no never cannot without none nobody nothing neither nor
    nein nicht kein keine keinen keinem keiner keines nie niemals niemand nichts ohne weder
    ne pas jamais aucun aucune sans rien personne
    nunca jamás ningún ninguna ninguno sin nada nadie tampoco
    non nessun nessuno nessuna senza mai niente
    não nenhum nenhuma sem ninguém
    niet geen nooit zonder niemand niets nie nigdy bez żaden żadna żadne nikt
    inte ingen inga inget aldrig ikke aldri uten uden intet
    """.split()  # noqa: SIM905 -- a hundred quoted words are no easier to read
)
"""English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Swedish, Norwegian and Danish."""
ALIKE = 0.5
"""Lowest Jaccard similarity of words of agreeing answers with equal numbers and polarity."""
SHORT = 4
"""Up to so many words an answer must be equal word by word."""


def is_same_answer(one: str, other: str) -> bool:
    """Whether two answers agree: equal but for case and punctuation; longer ones if they have the same numbers, the
    same polarity and at least half of their words in common."""
    a, b = (_WORD.findall(text.casefold().replace("\u2019", "'")) for text in (one, other))
    if set(_NUMBER.findall(one)) != set(_NUMBER.findall(other)):
        return False
    if a == b or min(len(a), len(b)) <= SHORT:
        return a == b
    if _is_negated(a) != _is_negated(b):
        return False
    first, second = set(a), set(b)
    return len(first & second) >= ALIKE * len(first | second)


def _is_negated(words: Sequence[str]) -> bool:
    return any(word in _DENIES or word.endswith("n't") or word.startswith("n'") for word in words)


def all_agree(answers: Sequence[str]) -> bool:
    """Whether every answer agrees with the first one; an empty answer agrees with none."""
    return all(answer.strip() for answer in answers) and all(is_same_answer(answers[0], other) for other in answers[1:])


def confidence(logprobs: Sequence[float]) -> float | None:
    """Geometric mean of the probabilities of an answer's tokens, from their natural logarithms; None without any."""
    return exp(min(0.0, sum(logprobs) / len(logprobs))) if logprobs else None
