"""Classes of rows: those with the same source and the same set of readers, with how many rows and terms each has.

Sets of readers come and go with every change of permissions, so numbers of classes that no row has are given up now and
then; what a search was told before stays as it was. Knows no row by itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

GONE: Final = 0
"""Class of rows whose chunk no longer exists."""
_LEAST_EMPTY: Final = 256
"""Empty classes below which numbers are not given up."""
_LARGEST_TABLE: Final = 1 << 18
"""Number of a readers' set up to which those of a person are looked up in a table: a fifth of what else it takes."""

Ints = NDArray[np.int32]
Counts = NDArray[np.int64]
Name = tuple[str, int]
Array = TypeVar("Array", Ints, Counts)


@dataclass(frozen=True, slots=True)
class Classes:
    """A moment of them; arrays have a value for each class. `source` is a place in `sources`."""

    sources: tuple[str, ...]
    source: Ints
    acls: Ints
    counts: Counts
    tokens: Counts

    def names(self) -> list[Name]:
        """(source, number of the readers' set) of each."""
        return [
            (self.sources[source], acl) for source, acl in zip(self.source.tolist(), self.acls.tolist(), strict=True)
        ]

    def source_of(self, number: int) -> str:
        """Of the rows of a class."""
        return self.sources[int(self.source[number])]

    def among(self, sources: Collection[str], acls: Collection[int]) -> NDArray[np.bool_]:
        """Which are of these sources and readable by whoever has these sets; never that of rows that are gone."""
        within = np.array([source in sources for source in self.sources], dtype=np.bool_)
        mine = np.fromiter(acls, dtype=np.int32, count=len(acls))
        seen: NDArray[np.bool_] = _are_in(self.acls, mine) & within[self.source]
        seen[GONE] = False
        return seen


class ClassBook:
    """What changes. One thread writes it."""

    def __init__(self) -> None:
        self._begin([("", -1)])

    def _begin(self, names: list[Name]) -> None:
        self._numbers = {name: number for number, name in enumerate(names)}
        self._sources = {source: place for place, source in enumerate(dict.fromkeys(source for source, _ in names))}
        self._source = np.array([self._sources[source] for source, _ in names], dtype=np.int32)
        self._acls = np.array([acl for _, acl in names], dtype=np.int32)
        self._counts = np.zeros(len(names), dtype=np.int64)
        self._tokens = np.zeros(len(names), dtype=np.int64)

    def restore(self, names: list[Name], classes: Ints, lengths: Ints) -> None:
        """As of rows that were kept: `classes` and `lengths` have a value for each of them."""
        self._begin(names)
        self._counts += np.bincount(classes, minlength=len(names))
        self._tokens += np.bincount(classes, weights=lengths, minlength=len(names)).astype(np.int64)

    def number(self, source: str, acl: int) -> int:
        """The class of rows of a source with that set of readers."""
        known = self._numbers.get((source, acl))
        if known is not None:
            return known
        made = self._numbers[source, acl] = len(self._numbers)
        if made == len(self._acls):
            self._source, self._acls = _longer(self._source), _longer(self._acls)
            self._counts, self._tokens = _longer(self._counts), _longer(self._tokens)
        self._source[made] = self._sources.setdefault(source, len(self._sources))
        self._acls[made] = acl
        return made

    def add(self, number: int, rows: int, tokens: int) -> None:
        """So many more rows of a class; less where they are negative."""
        self._counts[number] += rows
        self._tokens[number] += tokens

    def now(self) -> Classes:
        """As it is at this moment."""
        size = len(self._numbers)
        # the first values of the other two never change, and what is behind them is not looked at
        return Classes(
            tuple(self._sources),
            self._source[:size],
            self._acls[:size],
            self._counts[:size].copy(),
            self._tokens[:size].copy(),
        )

    def give_up(self) -> Ints | None:
        """Number the classes anew that have rows, where most have none: the new number of each old one."""
        size = len(self._numbers)
        kept = self._counts[:size] > 0
        kept[GONE] = True
        left = int(kept.sum())
        if size - left < max(_LEAST_EMPTY, left):
            return None
        names = [name for name, one in zip(self._numbers, kept.tolist(), strict=True) if one]
        counts, tokens = self._counts[:size][kept], self._tokens[:size][kept]
        self._begin(names)
        self._counts[:], self._tokens[:] = counts, tokens
        places = np.full(size, GONE, dtype=np.int32)
        places[kept] = np.arange(left, dtype=np.int32)
        return places


def _are_in(numbers: Ints, wanted: Ints) -> NDArray[np.bool_]:
    """Which of these numbers, none less than -1, are among the wanted ones, none less than 0."""
    most = int(numbers.max())
    if most > _LARGEST_TABLE:
        return np.isin(numbers, wanted)
    # one place more, for -1
    table = np.zeros(most + 2, np.bool_)
    table[wanted[wanted <= most]] = True
    return table[numbers]


def _longer(values: Array) -> Array:
    return np.concatenate([values, np.zeros_like(values)])
