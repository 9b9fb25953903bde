"""Which words say the same in one of their senses, as far as `synonyms.txt` knows: a line of it is one group. Pure.

English only. What is not there is judged by embeddings; words of one line are taken for each other in any context, so
names, units, opposites and things of one sort have no place in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib import resources

from groundplan.economics.semantic.reading import stem

_NONE: frozenset[int] = frozenset()


def say_the_same(one: str, other: str) -> bool:
    """Whether both are forms of one word, or stand in one group."""
    (a, ours), (b, theirs) = _known(one), _known(other)
    return a == b or not ours.isdisjoint(theirs)


def said_among(words: Sequence[str], others: Iterable[str]) -> list[bool]:
    """For each word whether any of the others says the same."""
    known = [_known(other) for other in others]
    stems = {its for its, _ in known}
    groups = set[int]().union(*(numbers for _, numbers in known))
    return [its in stems or not groups.isdisjoint(numbers) for its, numbers in map(_known, words)]


@lru_cache(maxsize=8192)
def _known(word: str) -> tuple[str, frozenset[int]]:
    """It without its ending, and its groups."""
    its = stem(word)
    return its, _groups().get(its, _NONE)


@cache
def _groups() -> dict[str, frozenset[int]]:
    """Word without its ending -> the numbers of the groups that it belongs to."""
    text = resources.files("groundplan.economics.semantic").joinpath("synonyms.txt").read_text(encoding="utf-8")
    found: dict[str, set[int]] = {}
    for number, line in enumerate(text.splitlines()):
        for word in line.split():
            found.setdefault(stem(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}
