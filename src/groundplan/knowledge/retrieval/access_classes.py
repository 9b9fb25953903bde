"""Access classes: groups of rows with the same source and the same readers' set, with the rows and terms of each.

Readers' sets come and go with every change of permissions, so classes without rows are dropped now and then; snapshots
taken before stay as they were. Knows no single row.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

GONE: Final = 0
"""Class of rows whose chunk no longer exists."""
_MIN_EMPTY: Final = 256
"""With fewer empty classes than this, the numbers stay."""
_LARGEST_TABLE: Final = 1 << 18
"""Up to this id of a readers' set, sets are looked up in a table, which takes a fifth of the time."""

Ints = NDArray[np.int32]
Counts = NDArray[np.int64]
ClassKey = tuple[str, int]
Array = TypeVar("Array", Ints, Counts)


@dataclass(frozen=True, slots=True)
class AccessClasses:
    """A snapshot of all classes; arrays have one value per class. `source` is an index into `sources`."""

    sources: tuple[str, ...]
    source: Ints
    acls: Ints
    counts: Counts
    tokens: Counts

    def keys(self) -> list[ClassKey]:
        """(source, id of the readers' set) of each class."""
        return [
            (self.sources[source], acl) for source, acl in zip(self.source.tolist(), self.acls.tolist(), strict=True)
        ]

    def source_of(self, number: int) -> str:
        """The source of a class."""
        return self.sources[int(self.source[number])]

    def visible_to(self, sources: Collection[str], acls: Collection[int]) -> NDArray[np.bool_]:
        """Mask of the classes of these sources whose readers' set is among `acls`; never that of deleted rows."""
        wanted_sources = np.array([source in sources for source in self.sources], dtype=np.bool_)
        wanted_acls = np.fromiter(acls, dtype=np.int32, count=len(acls))
        visible: NDArray[np.bool_] = _is_in(self.acls, wanted_acls) & wanted_sources[self.source]
        visible[GONE] = False
        return visible


class AccessClassRegistry:
    """The classes as they change. One thread writes it."""

    def __init__(self) -> None:
        self._reset([("", -1)])

    def _reset(self, keys: list[ClassKey]) -> None:
        self._numbers = {name: number for number, name in enumerate(keys)}
        self._sources = {source: place for place, source in enumerate(dict.fromkeys(source for source, _ in keys))}
        self._source = np.array([self._sources[source] for source, _ in keys], dtype=np.int32)
        self._acls = np.array([acl for _, acl in keys], dtype=np.int32)
        self._counts = np.zeros(len(keys), dtype=np.int64)
        self._tokens = np.zeros(len(keys), dtype=np.int64)

    def restore(self, keys: list[ClassKey], classes: Ints, lengths: Ints) -> None:
        """Restore the classes of saved rows: `classes` and `lengths` have one value per row."""
        self._reset(keys)
        self._counts += np.bincount(classes, minlength=len(keys))
        self._tokens += np.bincount(classes, weights=lengths, minlength=len(keys)).astype(np.int64)

    def class_number(self, source: str, acl: int) -> int:
        """The number of the class of a source and a readers' set; a new one if there is none yet."""
        known = self._numbers.get((source, acl))
        if known is not None:
            return known
        number = self._numbers[source, acl] = len(self._numbers)
        if number == len(self._acls):
            self._source, self._acls = _doubled(self._source), _doubled(self._acls)
            self._counts, self._tokens = _doubled(self._counts), _doubled(self._tokens)
        self._source[number] = self._sources.setdefault(source, len(self._sources))
        self._acls[number] = acl
        return number

    def add_rows(self, number: int, rows: int, tokens: int) -> None:
        """Add rows and their terms to a class; negative numbers remove them."""
        self._counts[number] += rows
        self._tokens[number] += tokens

    def snapshot(self) -> AccessClasses:
        """The classes at this moment."""
        size = len(self._numbers)
        # the first `size` values of the other two arrays never change
        return AccessClasses(
            tuple(self._sources),
            self._source[:size],
            self._acls[:size],
            self._counts[:size].copy(),
            self._tokens[:size].copy(),
        )

    def compact(self) -> Ints | None:
        """Renumber the classes if most have no rows; returns the new number of each old class, else None."""
        size = len(self._numbers)
        kept = self._counts[:size] > 0
        kept[GONE] = True
        left = int(kept.sum())
        if size - left < max(_MIN_EMPTY, left):
            return None
        names = [name for name, one in zip(self._numbers, kept.tolist(), strict=True) if one]
        counts, tokens = self._counts[:size][kept], self._tokens[:size][kept]
        self._reset(names)
        self._counts[:], self._tokens[:] = counts, tokens
        places = np.full(size, GONE, dtype=np.int32)
        places[kept] = np.arange(left, dtype=np.int32)
        return places


def _is_in(numbers: Ints, wanted: Ints) -> NDArray[np.bool_]:
    """Mask of the numbers (each at least -1) that are among `wanted` (each at least 0)."""
    most = int(numbers.max())
    if most > _LARGEST_TABLE:
        return np.isin(numbers, wanted)
    # one place more, for -1
    table = np.zeros(most + 2, np.bool_)
    table[wanted[wanted <= most]] = True
    return table[numbers]


def _doubled(values: Array) -> Array:
    return np.concatenate([values, np.zeros_like(values)])
