"""The columns of the projection: a value for each row, in arrays with room behind the last one. Knows no documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.retrieval import vectors


@dataclass(frozen=True, slots=True)
class Columns:
    """A value per row; rows beyond `View.size` are not there yet."""

    chunks: NDArray[np.uint8]
    """(n, 16): ids"""
    classes: NDArray[np.int32]
    lengths: NDArray[np.int32]
    documents: NDArray[np.int32]
    """The first row of a row's document: its rows follow each other."""
    embedded: NDArray[np.bool_]
    coded: vectors.Coded

    def part(self, size: int) -> Columns:
        """The first rows, without copying."""
        own = self.coded
        coded = vectors.Coded(own.bits[:, :size], own.signs[:size], own.small[:size], own.rest[:size], own.scale[:size])
        return Columns(
            self.chunks[:size],
            self.classes[:size],
            self.lengths[:size],
            self.documents[:size],
            self.embedded[:size],
            coded,
        )


def empty(capacity: int, dimension: int) -> Columns:
    """Room for so many rows."""
    return Columns(
        np.zeros((capacity, 16), np.uint8),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.bool_),
        vectors.Coded(
            np.zeros((vectors.words_of(dimension), capacity), np.uint64),
            np.zeros((capacity, vectors.words_of(dimension)), np.uint64),
            np.zeros((capacity, dimension), np.int8),
            np.zeros((capacity, dimension), np.int8),
            np.ones(capacity, np.float32),
        ),
    )


def grown(held: Columns, size: int, capacity: int) -> Columns:
    """The first `size` rows in arrays with more room."""
    made = empty(capacity, held.coded.small.shape[1])
    _copy(held.part(size), made, slice(0, size))
    return made


def taken(held: Columns, rows: NDArray[np.int64]) -> Columns:
    """Some rows, copied."""
    own = held.coded
    signs = own.signs[rows]
    coded = vectors.Coded(vectors.by_word(signs), signs, own.small[rows], own.rest[rows], own.scale[rows])
    return Columns(
        held.chunks[rows],
        held.classes[rows],
        held.lengths[rows],
        held.documents[rows],
        held.embedded[rows],
        coded,
    )


def _copy(source: Columns, target: Columns, where: slice) -> None:
    target.chunks[where] = source.chunks
    target.classes[where] = source.classes
    target.lengths[where] = source.lengths
    target.documents[where] = source.documents
    target.embedded[where] = source.embedded
    target.coded.bits[:, where] = source.coded.bits
    target.coded.signs[where] = source.coded.signs
    target.coded.small[where] = source.coded.small
    target.coded.rest[where] = source.coded.rest
    target.coded.scale[where] = source.coded.scale
