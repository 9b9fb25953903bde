"""Which words say the same in one of their senses, as far as `synonyms.txt` knows: a line of it is one group. Pure.

English only. What is not there is judged by embeddings within the texts; words of one line are taken for each other in
any context, so names, units, opposites and things of one sort have no place in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib import resources

from groundplan.economics.semantic.reading import stem


def listed(word: str) -> bool:
    """Whether it stands in a group: a common word then, and no name."""
    return len(_known(word)) > 1


def said_where(words: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The places of each word and each other that say the same, each pair once."""
    places: dict[str | int, list[int]] = {}
    for place, word in enumerate(others):
        for key in _known(word):
            places.setdefault(key, []).append(place)
    for place, word in enumerate(words):
        found = [places[key] for key in _known(word) if key in places]
        if found:
            for other in found[0] if len(found) == 1 else set[int]().union(*found):
                yield place, other


@lru_cache(maxsize=8192)
def _known(word: str) -> tuple[str | int, ...]:
    """It without its ending, and the numbers of its groups."""
    its = stem(word)
    # so short a stem is many words': *lab* is not *labor*
    told = len(its) >= SHORTEST or word in _told() or word.removesuffix("s") in _told()
    return its, *(_groups().get(its, ()) if told else ())


SHORTEST = 4
"""Letters of a stem by which a word is found; with fewer the word itself must stand there."""


@cache
def _told() -> frozenset[str]:
    return frozenset(_text().split())


@cache
def _text() -> str:
    return resources.files("groundplan.economics.semantic").joinpath("synonyms.txt").read_text(encoding="utf-8")


@cache
def _groups() -> dict[str, frozenset[int]]:
    """Word without its ending -> the numbers of the groups that it belongs to."""
    found: dict[str, set[int]] = {}
    for number, line in enumerate(_text().splitlines()):
        for word in line.split():
            found.setdefault(stem(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}
