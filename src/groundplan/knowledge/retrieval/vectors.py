"""Vectors: three small projections of each unit vector, and a scan of what one person may see.

A vector is kept as a sign bit and a byte for each of its numbers, and a byte for what that one leaves. Few visible rows
are compared by their bytes at once; of many, the bits choose, the bytes rank what they chose, and the rest of each
number ranks the best of those. All are approximations that propose: PostgreSQL gives the exact similarity of those that
are answered. Holds no permissions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.model import Vectors

EXACT_ROWS: Final = 2048
"""Up to so many visible rows the bytes of all are compared: reading them costs less than looking at their bits."""
CHOSEN: Final = (2048, 8192)
"""Fewest and most rows that the bits choose; between them a fifth of what is visible. Measured on a million rows with
permissions that follow topics, 60 questions for each band: of 20,000 visible rows to all of them, 4096 hold .978 to
.992 of the exact ten, 8192 hold .992 to 1.0, 16384 hold .998 to 1.0."""
_MANY: Final = 1 << 18
"""Rows up to which at most half as many are chosen: the fewer there are, the fewer are as near by their bits. Of
100,000, half of them visible or all, 4096 and 8192 hold 1.0 of the exact ten."""
PARTS: Final = 254
"""Of a step of a byte: what it leaves, half a step to either side, is told in a byte, too."""
_DOT_BLOCK: Final = 256
"""Rows whose bytes are compared together: as floats they stay in the processor's cache, which makes it three times as
fast as all at once."""
_KEPT: Final = 4
"""Times as many rows as the bits choose that are kept by the first half of them."""
_HALVED: Final = 3
"""Times as many rows as would be kept from which half of the bits choose first. Of 8,192 chosen among 100,000 rows or
more, that lost none of the ten nearest of 88 questions; three times as many kept lost .3 %, and four times as many
among 70,000 rows .4 %."""
_SAMPLE: Final = 4096
"""Rows from which is told where to look."""
_BLOCK: Final = 1 << 15
"""Rows whose bits are looked at together: their intermediate results stay in the processor's cache."""

_PICKED: Final = 1 << 13
"""Single rows whose bits are looked at together, for the same reason."""

Bits = NDArray[np.uint64]
Bytes = NDArray[np.int8]
Rows = NDArray[np.int32]
Distances = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class EncodedVectors:
    """`bits` (words of 64, n): a row a column, so that a scan reads on; `signs` (n, words of 64): the same a row a row,
    so that what is looked at of single rows lies together. `small` plus a `PARTS`th of `rest` (both (n, dimension))
    times `scale` (n) is the vector."""

    bits: Bits
    signs: Bits
    small: Bytes
    rest: Bytes
    scale: NDArray[np.float32]


def encode(vectors: Vectors) -> EncodedVectors:
    """The projections of rows of unit length; a row of zeros (no vector) is like nothing."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    scaled = vectors / scale[:, None]
    small = np.rint(scaled)
    rest = np.rint((scaled - small) * PARTS)
    signs = _signs(vectors)
    return EncodedVectors(transpose_signs(signs), signs, small.astype(np.int8), rest.astype(np.int8), scale)


def words_per_vector(dimension: int) -> int:
    """How many numbers of 64 bits hold the signs of a vector."""
    return -(-dimension // 64)


def _signs(vectors: Vectors) -> Bits:
    count, dimension = vectors.shape
    signs = np.zeros((count, words_per_vector(dimension) * 64), dtype=np.bool_)
    signs[:, :dimension] = vectors > 0
    return np.packbits(signs, axis=1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def transpose_signs(signs: Bits) -> Bits:
    """`bits` from `signs`, and the other way round."""
    return np.ascontiguousarray(signs.T)


def nearest(
    encoded: EncodedVectors, question: NDArray[np.float32], mask: NDArray[np.bool_] | None, count: int, limit: int
) -> tuple[Rows, NDArray[np.float32]]:
    """(rows, similarity) of about the `limit` nearest of the `count` rows that `mask` lets through (None: all): what
    this ranking gives by itself, for who measures it."""
    rows, near = nearest_candidates(encoded, question, mask, count, limit)
    rows = rows[largest_indices(near, limit)]
    near = similarity(encoded, question, rows)
    order = np.lexsort((rows, -near))
    return rows[order], near[order]


def nearest_candidates(
    encoded: EncodedVectors, question: NDArray[np.float32], mask: NDArray[np.bool_] | None, count: int, limit: int
) -> tuple[Rows, NDArray[np.float32]]:
    """(rows, similarity) of those whose bytes are compared for the `limit` nearest, in order; by one byte a number, so
    within about 0.0005."""
    if count == 0 or limit == 0:
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    fewest, most = CHOSEN
    chosen = max(min(max(fewest, count // 5), most if len(encoded.scale) > _MANY else most // 2), 8 * limit)
    if count <= max(EXACT_ROWS, chosen):
        rows = _all_rows(encoded, mask)
    else:
        rows = _select_by_bits(encoded, _signs(question[None])[0], mask, count, chosen)
    near = _dot_products(encoded.small, question, rows)
    near *= encoded.scale[rows]
    return rows, near


def largest_indices(values: NDArray[np.floating[Any]], limit: int) -> NDArray[np.intp]:
    """Where the `limit` largest are."""
    if len(values) <= limit:
        return np.arange(len(values))
    return np.argpartition(values, len(values) - limit)[len(values) - limit :]


def similarity(encoded: EncodedVectors, question: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """Cosine of the question with some rows, within about 0.00001."""
    near = _dot_products(encoded.rest, question, rows)
    near /= PARTS
    near += _dot_products(encoded.small, question, rows)
    near *= encoded.scale[rows]
    return near


def _dot_products(numbers: Bytes, question: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """Of the question with some rows of bytes."""
    found = np.empty(len(rows), np.float32)
    size = min(len(rows), _DOT_BLOCK)
    few, wide = np.empty((size, numbers.shape[1]), np.int8), np.empty((size, numbers.shape[1]), np.float32)
    for start in range(0, len(rows), _DOT_BLOCK):
        some = rows[start : start + _DOT_BLOCK]
        count = len(some)
        np.take(numbers, some, axis=0, out=few[:count], mode="clip")
        np.copyto(wide[:count], few[:count])
        np.dot(wide[:count], question, out=found[start : start + count])
    return found


def _all_rows(encoded: EncodedVectors, mask: NDArray[np.bool_] | None) -> Rows:
    return (np.arange(len(encoded.scale)) if mask is None else np.flatnonzero(mask)).astype(np.int32)


def _select_by_bits(
    encoded: EncodedVectors, question: Bits, mask: NDArray[np.bool_] | None, count: int, chosen: int
) -> Rows:
    """About the `chosen` visible rows with the fewest different bits, and those with as many as the last of them. Of
    many rows, the second half of the bits is looked at only for those that differ least in the first half."""
    bits, signs = encoded.bits, encoded.signs
    total, words = bits.shape[1], len(bits)
    half = max(1, words // 2) if _HALVED * _KEPT * chosen < count else words
    # reading single rows costs as much as reading twice as many that follow each other; four times among as many as no
    # cache holds
    if mask is not None and count * (8 if half < words else 4) < total:
        rows = np.flatnonzero(mask)
        distances = _hamming_distances_of(signs, question, rows)
        return rows[distances <= _distance_threshold(distances, chosen, words * 64)].astype(np.int32)
    distances = _hamming_distances(bits[:half], question[:half])
    if mask is not None:
        # nobody's number for each that is hidden: 0 less 1. Choosing where to write would take fifty times as long
        distances |= np.subtract(mask.view(np.uint8), 1, dtype=distances.dtype)
    found = np.flatnonzero(
        distances <= _distance_threshold(distances, chosen if half == words else _KEPT * chosen, half * 64)
    )
    if half < words:
        full_distances = distances[found] + _hamming_distances_of(signs, question, found, half)
        found = found[full_distances <= _distance_threshold(full_distances, chosen, words * 64)]
    return found.astype(np.int32)


def _distance_threshold(distances: Distances, wanted: int, most: int) -> int:
    """The least number of different bits that at least `wanted` of these rows do not exceed, at most all bits."""
    if not len(distances):
        return 0
    # what holds for some of the rows nearly holds for all; counting for each number would take as long as the bits
    some = distances[:: max(1, len(distances) // _SAMPLE)]
    place = min(len(some) - 1, wanted * len(some) // len(distances))
    reached = min(int(np.partition(some, place)[place]), most)
    while reached < most and np.count_nonzero(distances <= reached) < wanted:
        reached += 1
    while reached > 0 and np.count_nonzero(distances < reached) >= wanted:
        reached -= 1
    return reached


def _hamming_distances(bits: Bits, question: Bits) -> Distances:
    """How many bits differ from those of the question, of all rows. The largest number is nobody's."""
    narrow = len(bits) * 64 < np.iinfo(np.uint8).max
    distances: Distances = np.empty(bits.shape[1], np.uint8 if narrow else np.uint16)
    different, counted = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint8)
    for start in range(0, len(distances), _BLOCK):
        some = slice(start, start + _BLOCK)
        own = distances[some]
        unlike, more = different[: len(own)], counted[: len(own)]
        for number, (word, asked) in enumerate(zip(bits, question, strict=True)):
            np.bitwise_xor(word[some], asked, out=unlike)
            np.bitwise_count(unlike, out=more)
            if number:
                own += more
            else:
                own[:] = more
    return distances


def _hamming_distances_of(signs: Bits, question: Bits, rows: NDArray[np.intp], first: int = 0) -> Distances:
    """How many bits from a word on differ from those of the question, of some rows."""
    distances = np.zeros(len(rows), np.uint16)
    size = min(len(rows), _PICKED)
    picked, different = np.empty((size, signs.shape[1]), np.uint64), np.empty(size, np.uint64)
    counted = np.empty(size, np.uint8)
    for start in range(0, len(rows), _PICKED):
        own = distances[start : start + _PICKED]
        some, unlike, more = picked[: len(own)], different[: len(own)], counted[: len(own)]
        np.take(signs, rows[start : start + _PICKED], axis=0, out=some, mode="clip")
        for number in range(first, signs.shape[1]):
            np.bitwise_xor(some[:, number], question[number], out=unlike)
            own += np.bitwise_count(unlike, out=more)
    return distances
