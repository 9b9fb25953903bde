"""The attributes of documents that a search may filter by: path, owner, sensitivity, media, time.

It only proposes: PostgreSQL applies the filter again. Knows no readers and no text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.retrieval.wire import Where

Ints = NDArray[np.int32]
RowRange = tuple[int, int]
"""(first row, number of rows) of a document."""

_FIRST_CAPACITY: Final = 256
_MERGE_RATIO: Final = 8
"""A sorted part stays by itself if it is more than this many times as long as all later ones together."""
_LARGEST_ORDER: Final = 1 << 16
"""Sorted parts are not merged beyond this many paths: it takes milliseconds in which nothing else is computed."""
_NOT_SET: Final = -1
"""Number of an attribute that a document does not have."""
_UNKNOWN: Final = -2
"""Number of a name that no document has."""
_NEVER: Final = int(np.iinfo(np.int64).min)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The attributes of one document, as PostgreSQL has them."""

    path: str = ""
    owner: str | None = None
    sensitivity: str | None = None
    media: str | None = None
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DocumentsSnapshot:
    """An immutable snapshot of n descriptions of documents; only the newest description of each document counts."""

    first: Ints
    """(n,): row of a document's first passage"""
    count: Ints
    """(n,): how many rows it has; 0: replaced by a newer description"""
    numbers: Ints
    """(3, n): of owner, sensitivity and media in `names`, or `_NOT_SET`"""
    modified: NDArray[np.int64]
    """(n,): microseconds since 1970, or `_NEVER`"""
    names: Mapping[str, int]
    """It only grows."""
    paths: Sequence[bytes]
    """In UTF-8; it only grows."""
    orders: tuple[Ints, ...]
    """Indices of descriptions sorted by path, in several parts."""

    def matching(self, where: Where) -> tuple[Ints, Ints]:
        """(first rows, numbers of rows) of the documents that match the filter."""
        selected = self._with_prefix(where.path.encode()) if where.path else slice(0, len(self.first))
        first, count = self.first[selected], self.count[selected]
        is_match = count > 0
        for numbers, wanted in zip(
            self.numbers, (_as_list(where.owner), where.sensitivity, _as_list(where.media)), strict=True
        ):
            if wanted is not None:
                values = numbers[selected]
                is_match &= np.logical_or.reduce(
                    [values == self.names.get(name, _UNKNOWN) for name in wanted] or [np.zeros(len(values), np.bool_)]
                )
        if where.after is not None or where.before is not None:
            modified = self.modified[selected]
            is_match &= modified != _NEVER
            if where.after is not None:
                is_match &= modified >= _to_micros(where.after)
            if where.before is not None:
                is_match &= modified < _to_micros(where.before)
        return (first, count) if is_match.all() else (first[is_match], count[is_match])

    def _with_prefix(self, prefix: bytes) -> Ints:
        """Indices of the descriptions whose path has this prefix, sorted, so that reads are contiguous."""
        own = [_slice_with_prefix(self.paths, order, prefix) for order in self.orders]
        return np.sort(np.concatenate(own)) if own else np.zeros(0, np.int32)


class DocumentRegistry:
    """The descriptions as they change. One thread writes it."""

    def __init__(self) -> None:
        self.restore(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((3, 0), np.int32), np.zeros(0, np.int64))

    def restore(
        self,
        first: Ints,
        count: Ints,
        numbers: Ints,
        modified: NDArray[np.int64],
        names: Sequence[str] = (),
        paths: Sequence[bytes] = (),
    ) -> None:
        """Restore a saved snapshot; `names` are in the order of their numbers."""
        if not len(first) == len(count) == numbers.shape[1] == len(modified) == len(paths):
            raise ValueError("what documents are is of different lengths")
        self._size = len(first)
        self._first, self._count, self._numbers, self._modified = first, count, numbers, modified
        self._names = {name: number for number, name in enumerate(names)}
        self._paths = list(paths)
        edges = range(0, self._size, _LARGEST_ORDER)
        self._orders = tuple(
            _sort_by_path(self._paths, range(begin, min(self._size, begin + _LARGEST_ORDER))) for begin in edges
        )

    @property
    def outdated(self) -> int:
        """Number of descriptions that were replaced but are still held."""
        return int(np.count_nonzero(self._count[: self._size] == 0))

    def add(self, places: Sequence[RowRange], metadata: Sequence[Metadata]) -> None:
        """Add the attributes of documents, with the places of their rows."""
        begin, end = self._size, self._size + len(metadata)
        if begin == end:
            return
        if end > len(self._first):
            self._grow(max(end, 2 * len(self._first), _FIRST_CAPACITY))
        # earlier snapshots do not read beyond their last description
        self._first[begin:end], self._count[begin:end] = np.array(places, np.int32).T
        self._numbers[:, begin:end] = np.array([self._encode_names(one) for one in metadata], np.int32).T
        self._modified[begin:end] = [_modified_micros(one.modified_at) for one in metadata]
        self._paths.extend(one.path.encode() for one in metadata)
        self._orders = _merge_orders(self._paths, (*self._orders, _sort_by_path(self._paths, range(begin, end))))
        self._size = end

    def update(self, metadata: Mapping[RowRange, Metadata]) -> int:
        """Update the attributes of documents, given by the places of their rows. Returns how many differ."""
        current = {first: one for (first, _), one in metadata.items()}
        is_present = np.isin(self._first[: self._size], list(current)) & (self._count[: self._size] > 0)
        changed = [
            at for at in np.flatnonzero(is_present).tolist() if not self._is_same(at, current[int(self._first[at])])
        ]
        if changed:
            places = [(int(self._first[at]), int(self._count[at])) for at in changed]
            # in a new array, since earlier snapshots still use the old one
            self._count = self._count.copy()
            self._count[changed] = 0
            self.add(places, [current[first] for first, _ in places])
        return len(changed)

    def compact(self, places: Ints) -> None:
        """Keep only documents whose rows stay: rows move to `places[row]`, -1 where they are dropped."""
        kept = np.flatnonzero((self._count[: self._size] > 0) & (places[self._first[: self._size]] >= 0))
        numbers, names = self._numbers[:, kept], list(self._names)
        used = np.unique(numbers[numbers >= 0])
        numbers = np.where(numbers >= 0, used.searchsorted(numbers), numbers).astype(np.int32)
        self.restore(
            places[self._first[kept]],
            self._count[kept],
            numbers,
            self._modified[kept],
            [names[number] for number in used.tolist()],
            [self._paths[at] for at in kept.tolist()],
        )

    def snapshot(self) -> DocumentsSnapshot:
        """The descriptions at this moment."""
        size = self._size
        return DocumentsSnapshot(
            self._first[:size],
            self._count[:size],
            self._numbers[:, :size],
            self._modified[:size],
            self._names,
            self._paths,
            self._orders,
        )

    def _is_same(self, at: int, metadata: Metadata) -> bool:
        return (
            self._paths[at] == metadata.path.encode()
            and self._numbers[:, at].tolist() == self._encode_names(metadata)
            and int(self._modified[at]) == _modified_micros(metadata.modified_at)
        )

    def _encode_names(self, metadata: Metadata) -> list[int]:
        names = self._names
        return [
            _NOT_SET if name is None else names.setdefault(name, len(names))
            for name in (metadata.owner, metadata.sensitivity, metadata.media)
        ]

    def _grow(self, capacity: int) -> None:
        more = capacity - len(self._first)
        self._first = np.append(self._first, np.zeros(more, np.int32))
        self._count = np.append(self._count, np.zeros(more, np.int32))
        self._numbers = np.hstack([self._numbers, np.zeros((3, more), np.int32)])
        self._modified = np.append(self._modified, np.zeros(more, np.int64))


def _as_list(name: str | None) -> list[str] | None:
    return None if name is None else [name]


def _to_micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _modified_micros(at: datetime | None) -> int:
    return _NEVER if at is None else _to_micros(at)


def _sort_by_path(paths: Sequence[bytes], places: Sequence[int]) -> Ints:
    return np.array(sorted(places, key=paths.__getitem__), np.int32)


def _merge_orders(paths: Sequence[bytes], orders: tuple[Ints, ...]) -> tuple[Ints, ...]:
    """The sorted parts with the later ones merged where they are of similar length, so that there are few."""
    first, later = len(orders) - 1, 0
    for place in range(len(orders) - 1, 0, -1):
        later += len(orders[place])
        size = len(orders[place - 1])
        if size <= _MERGE_RATIO * later and size + later <= _LARGEST_ORDER:
            first = place - 1
    if first == len(orders) - 1:
        return orders
    return (*orders[:first], _sort_by_path(paths, np.concatenate(orders[first:]).tolist()))


def _slice_with_prefix(paths: Sequence[bytes], order: Ints, prefix: bytes) -> Ints:
    """The slice of a sorted part whose paths have this prefix."""
    first = bisect_left(order, prefix, key=lambda at: paths[at])
    end = bisect_right(order, prefix, lo=first, key=lambda at: paths[at][: len(prefix)])
    return order[first:end]
