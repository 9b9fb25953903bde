"""Which words say the same in one of their senses, as far as `synonyms.txt` knows: a line of it is one group. Pure.

English only. What is not there is judged by embeddings; words of one line are taken for each other in any context, so
names, units, opposites and things of one sort have no place in it.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from groundplan.economics.semantic.reading import stem

_NONE: frozenset[int] = frozenset()


def say_the_same(one: str, other: str) -> bool:
    """Whether both are forms of one word, or stand in one group."""
    a, b = stem(one), stem(other)
    return a == b or not _groups().get(a, _NONE).isdisjoint(_groups().get(b, _NONE))


@cache
def _groups() -> dict[str, frozenset[int]]:
    """Word without its ending -> the numbers of the groups that it belongs to."""
    text = resources.files("groundplan.economics.semantic").joinpath("synonyms.txt").read_text(encoding="utf-8")
    found: dict[str, set[int]] = {}
    for number, line in enumerate(text.splitlines()):
        for word in line.split():
            found.setdefault(stem(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}
