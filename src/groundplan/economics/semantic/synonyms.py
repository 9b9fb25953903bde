"""Finds synonyms by the groups of `synonyms.txt`: words of one line mean the same in one of their senses. Pure.

English only. Other words are compared by their embeddings in context. Words of one line count as the same in any
context, so names, units, opposites and things of one sort must not be in the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib import resources

from groundplan.economics.semantic.reading import stem


def is_listed(word: str) -> bool:
    """Whether a word is in a group, and thus a common word and no name."""
    return len(_keys(word)) > 1


def synonym_places(words: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of places, in one and in the other, of words that mean the same, each pair once."""
    places: dict[str | int, list[int]] = {}
    for place, word in enumerate(others):
        for key in _keys(word):
            places.setdefault(key, []).append(place)
    for place, word in enumerate(words):
        found = [places[key] for key in _keys(word) if key in places]
        if found:
            for other in found[0] if len(found) == 1 else set[int]().union(*found):
                yield place, other


@lru_cache(maxsize=8192)
def _keys(word: str) -> tuple[str | int, ...]:
    """The stem of a word, and the numbers of its groups."""
    its = stem(word)
    # many words share so short a stem: *lab* is not *labor*
    told = len(its) >= MIN_STEM_LENGTH or word in _listed_words() or word.removesuffix("s") in _listed_words()
    return its, *(_groups().get(its, ()) if told else ())


MIN_STEM_LENGTH = 4
"""Letters from which on a stem identifies a word; for shorter stems the word itself must be listed."""


@cache
def _listed_words() -> frozenset[str]:
    return frozenset(_text().split())


@cache
def _text() -> str:
    return resources.files("groundplan.economics.semantic").joinpath("synonyms.txt").read_text(encoding="utf-8")


@cache
def _groups() -> dict[str, frozenset[int]]:
    """Stem -> numbers of its groups."""
    found: dict[str, set[int]] = {}
    for number, line in enumerate(_text().splitlines()):
        for word in line.split():
            found.setdefault(stem(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}
