"""Whether answers that were made independently say the same, and how sure a model was of its words. Pure."""

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
"""Least share of words in common (Jaccard), where numbers and polarity are the same."""
SHORT = 4
"""Words of an answer that must be the same one by one."""


def same(one: str, other: str) -> bool:
    """Whether two answers say the same: equal but for case and signs; or, where they are longer, with the same
    numbers, the same polarity and at least half of their words."""
    a, b = (_WORD.findall(text.casefold().replace("\u2019", "'")) for text in (one, other))
    if set(_NUMBER.findall(one)) != set(_NUMBER.findall(other)):
        return False
    if a == b or min(len(a), len(b)) <= SHORT:
        return a == b
    if _denies(a) != _denies(b):
        return False
    first, second = set(a), set(b)
    return len(first & second) >= ALIKE * len(first | second)


def _denies(words: Sequence[str]) -> bool:
    return any(word in _DENIES or word.endswith("n't") or word.startswith("n'") for word in words)


def all_agree(answers: Sequence[str]) -> bool:
    """Whether every answer says what the first one does; an empty one agrees with nothing."""
    return all(answer.strip() for answer in answers) and all(same(answers[0], other) for other in answers[1:])


def confidence(logprobs: Sequence[float]) -> float | None:
    """Geometric mean of the probabilities of an answer's tokens (natural logarithms); None where there are none."""
    return exp(min(0.0, sum(logprobs) / len(logprobs))) if logprobs else None
