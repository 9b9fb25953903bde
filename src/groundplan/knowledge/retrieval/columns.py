"""The columns of the projection: arrays with one value per row and spare capacity. Knows no documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.retrieval import vectors


@dataclass(frozen=True, slots=True)
class Columns:
    """One value per row; rows beyond `View.size` are not used yet."""

    chunks: NDArray[np.uint8]
    """(n, 16): ids"""
    classes: NDArray[np.int32]
    lengths: NDArray[np.int32]
    documents: NDArray[np.int32]
    """The first row of a row's document, whose rows are consecutive."""
    embedded: NDArray[np.bool_]
    encoded: vectors.EncodedVectors

    def head(self, size: int) -> Columns:
        """The first `size` rows, without copying."""
        own = self.encoded
        coded = vectors.EncodedVectors(
            own.bits[:, :size], own.signs[:size], own.small[:size], own.rest[:size], own.scale[:size]
        )
        return Columns(
            self.chunks[:size],
            self.classes[:size],
            self.lengths[:size],
            self.documents[:size],
            self.embedded[:size],
            coded,
        )


def empty_columns(capacity: int, dimension: int) -> Columns:
    """Columns for `capacity` rows, all zero."""
    return Columns(
        np.zeros((capacity, 16), np.uint8),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.bool_),
        vectors.EncodedVectors(
            np.zeros((vectors.words_per_vector(dimension), capacity), np.uint64),
            np.zeros((capacity, vectors.words_per_vector(dimension)), np.uint64),
            np.zeros((capacity, dimension), np.int8),
            np.zeros((capacity, dimension), np.int8),
            np.ones(capacity, np.float32),
        ),
    )


def grow(columns: Columns, size: int, capacity: int) -> Columns:
    """A copy of the first `size` rows with a larger capacity."""
    made = empty_columns(capacity, columns.encoded.small.shape[1])
    _copy_rows(columns.head(size), made, slice(0, size))
    return made


def take_rows(columns: Columns, rows: NDArray[np.int64]) -> Columns:
    """A copy of the selected rows."""
    own = columns.encoded
    signs = own.signs[rows]
    coded = vectors.EncodedVectors(
        vectors.transpose_signs(signs), signs, own.small[rows], own.rest[rows], own.scale[rows]
    )
    return Columns(
        columns.chunks[rows],
        columns.classes[rows],
        columns.lengths[rows],
        columns.documents[rows],
        columns.embedded[rows],
        coded,
    )


def _copy_rows(source: Columns, target: Columns, where: slice) -> None:
    target.chunks[where] = source.chunks
    target.classes[where] = source.classes
    target.lengths[where] = source.lengths
    target.documents[where] = source.documents
    target.embedded[where] = source.embedded
    target.encoded.bits[:, where] = source.encoded.bits
    target.encoded.signs[where] = source.encoded.signs
    target.encoded.small[where] = source.encoded.small
    target.encoded.rest[where] = source.encoded.rest
    target.encoded.scale[where] = source.encoded.scale
