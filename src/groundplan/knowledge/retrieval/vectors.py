"""Quantised vectors, in three levels of precision, and a scan of the rows that one person may see.

Each number of a vector is stored as a sign bit, a byte, and another byte for the remainder of that one. Few visible
rows are compared by their bytes directly; among many, the bits select candidates, the bytes rank these, and the
remainders rank the best of them. All are approximations for proposals: PostgreSQL computes the exact similarity of the
passages in an answer. Holds no permissions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.model import Vectors

EXACT_ROWS: Final = 2048
"""Up to so many visible rows, the bytes of all are compared: reading them costs less than scanning bits."""
CHOSEN_RANGE: Final = (2048, 8192)
"""Fewest and most rows that the bits select; between them a fifth of the visible rows. Measured on a million rows with
permissions that follow topics, 60 questions for each band: of 20,000 visible rows to all of them, 4096 hold .978 to
.992 of the exact ten, 8192 hold .992 to 1.0, 16384 hold .998 to 1.0."""
_LARGE_INDEX: Final = 1 << 18
"""Up to so many rows, at most half of `CHOSEN_RANGE` are selected: among fewer rows, fewer are equally near by their
bits. Of 100,000, half of them visible or all, 4096 and 8192 hold 1.0 of the exact ten."""
REST_STEPS: Final = 254
"""Parts of a step of the first byte: the remainder, up to half a step to either side, is stored in a second byte."""
_DOT_BLOCK: Final = 256
"""Rows whose bytes are compared together: as floats they stay in the processor's cache, which is three times as fast as
all at once."""
_HALF_KEPT_RATIO: Final = 4
"""Ratio of the rows that the first half of the bits selects to those that all bits select."""
_HALF_SCAN_RATIO: Final = 3
"""Ratio of visible rows to those that the first half of the bits would select, from which that half is used. With 8,192
selected among 100,000 rows or more, it lost none of the ten nearest of 88 questions; selecting three times as many by
half of the bits lost .3 %, and four times as many among 70,000 rows .4 %."""
_SAMPLE_ROWS: Final = 4096
"""Rows from which a distance threshold is estimated."""
_BIT_BLOCK: Final = 1 << 15
"""Rows whose bits are compared together, so that intermediate results stay in the processor's cache."""

_ROW_BLOCK: Final = 1 << 13
"""The same for single rows that are gathered first."""

Bits = NDArray[np.uint64]
Bytes = NDArray[np.int8]
Rows = NDArray[np.int32]
Distances = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class EncodedVectors:
    """The vectors of n rows.

    `bits` (64-bit words, n): the signs, one word of all rows after the other, for scans; `signs` (n, 64-bit words): the
    same row by row, for single rows. A vector is (`small` + `rest` / `REST_STEPS`) * `scale`; `small` and `rest` are
    (n, dimension), `scale` is (n).
    """

    bits: Bits
    signs: Bits
    small: Bytes
    rest: Bytes
    scale: NDArray[np.float32]


def encode(vectors: Vectors) -> EncodedVectors:
    """Quantise rows of unit length; a row of zeros (no vector) has similarity 0 to everything."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    scaled = vectors / scale[:, None]
    small = np.rint(scaled)
    rest = np.rint((scaled - small) * REST_STEPS)
    signs = _signs(vectors)
    return EncodedVectors(transpose_signs(signs), signs, small.astype(np.int8), rest.astype(np.int8), scale)


def words_per_vector(dimension: int) -> int:
    """Number of 64-bit words with the signs of a vector."""
    return -(-dimension // 64)


def _signs(vectors: Vectors) -> Bits:
    count, dimension = vectors.shape
    signs = np.zeros((count, words_per_vector(dimension) * 64), dtype=np.bool_)
    signs[:, :dimension] = vectors > 0
    return np.packbits(signs, axis=1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def transpose_signs(signs: Bits) -> Bits:
    """`bits` from `signs`, and the other way round."""
    return np.ascontiguousarray(signs.T)


def nearest_candidates(
    encoded: EncodedVectors, question: NDArray[np.float32], mask: NDArray[np.bool_] | None, count: int, limit: int
) -> tuple[Rows, NDArray[np.float32]]:
    """(rows, similarity) of the candidates for the `limit` nearest, in order of rows; by the first bytes only, so
    within about 0.0005."""
    if count == 0 or limit == 0:
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    fewest, most = CHOSEN_RANGE
    chosen = max(min(max(fewest, count // 5), most if len(encoded.scale) > _LARGE_INDEX else most // 2), 8 * limit)
    if count <= max(EXACT_ROWS, chosen):
        rows = _all_rows(encoded, mask)
    else:
        rows = _select_by_bits(encoded, _signs(question[None])[0], mask, count, chosen)
    near = _dot_products(encoded.small, question, rows)
    near *= encoded.scale[rows]
    return rows, near


def largest_indices(values: NDArray[np.floating[Any]], limit: int) -> NDArray[np.intp]:
    """The indices of the `limit` largest values, in no particular order."""
    if len(values) <= limit:
        return np.arange(len(values))
    return np.argpartition(values, len(values) - limit)[len(values) - limit :]


def similarity(encoded: EncodedVectors, question: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """Cosine of the question with these rows, within about 0.00001."""
    near = _dot_products(encoded.rest, question, rows)
    near /= REST_STEPS
    near += _dot_products(encoded.small, question, rows)
    near *= encoded.scale[rows]
    return near


def _dot_products(numbers: Bytes, question: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """Dot products of the question with these rows of bytes."""
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
    """About the `chosen` visible rows with the smallest Hamming distances, including all that tie with the last of
    them. Among many rows, the second half of the bits is compared only for those that differ least in the first
    half."""
    bits, signs = encoded.bits, encoded.signs
    total, words = bits.shape[1], len(bits)
    half = max(1, words // 2) if _HALF_SCAN_RATIO * _HALF_KEPT_RATIO * chosen < count else words
    # reading single rows costs as much as reading twice as many consecutive ones; four times if no cache holds them
    if mask is not None and count * (8 if half < words else 4) < total:
        rows = np.flatnonzero(mask)
        distances = _hamming_distances_of(signs, question, rows)
        return rows[distances <= _distance_threshold(distances, chosen, words * 64)].astype(np.int32)
    distances = _hamming_distances(bits[:half], question[:half])
    if mask is not None:
        # the largest number for each hidden row (0 - 1); a masked assignment would take fifty times as long
        distances |= np.subtract(mask.view(np.uint8), 1, dtype=distances.dtype)
    found = np.flatnonzero(
        distances <= _distance_threshold(distances, chosen if half == words else _HALF_KEPT_RATIO * chosen, half * 64)
    )
    if half < words:
        full_distances = distances[found] + _hamming_distances_of(signs, question, found, half)
        found = found[full_distances <= _distance_threshold(full_distances, chosen, words * 64)]
    return found.astype(np.int32)


def _distance_threshold(distances: Distances, wanted: int, most: int) -> int:
    """The smallest distance that at least `wanted` of these rows do not exceed, at most `most`."""
    if not len(distances):
        return 0
    # estimated from a sample, then corrected: counting for each distance would take as long as comparing the bits
    some = distances[:: max(1, len(distances) // _SAMPLE_ROWS)]
    place = min(len(some) - 1, wanted * len(some) // len(distances))
    reached = min(int(np.partition(some, place)[place]), most)
    while reached < most and np.count_nonzero(distances <= reached) < wanted:
        reached += 1
    while reached > 0 and np.count_nonzero(distances < reached) >= wanted:
        reached -= 1
    return reached


def _hamming_distances(bits: Bits, question: Bits) -> Distances:
    """Number of bits of each row that differ from the question's; the largest number of the type never occurs."""
    narrow = len(bits) * 64 < np.iinfo(np.uint8).max
    distances: Distances = np.empty(bits.shape[1], np.uint8 if narrow else np.uint16)
    different, counted = np.empty(_BIT_BLOCK, np.uint64), np.empty(_BIT_BLOCK, np.uint8)
    for start in range(0, len(distances), _BIT_BLOCK):
        some = slice(start, start + _BIT_BLOCK)
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
    """Number of bits of these rows that differ from the question's, from word `first` on."""
    distances = np.zeros(len(rows), np.uint16)
    size = min(len(rows), _ROW_BLOCK)
    picked, different = np.empty((size, signs.shape[1]), np.uint64), np.empty(size, np.uint64)
    counted = np.empty(size, np.uint8)
    for start in range(0, len(rows), _ROW_BLOCK):
        own = distances[start : start + _ROW_BLOCK]
        some, unlike, more = picked[: len(own)], different[: len(own)], counted[: len(own)]
        np.take(signs, rows[start : start + _ROW_BLOCK], axis=0, out=some, mode="clip")
        for number in range(first, signs.shape[1]):
            np.bitwise_xor(some[:, number], question[number], out=unlike)
            own += np.bitwise_count(unlike, out=more)
    return distances
