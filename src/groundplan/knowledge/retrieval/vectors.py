"""Vectors: three small projections of each unit vector, and a scan of what one person may see.

A vector is kept as a sign bit and a byte for each of its numbers, and a byte for what that one leaves. Few visible rows
are compared by their bytes at once; of many, the bits choose, the bytes rank what they chose, and the rest of each
number ranks the best of those. All are approximations that propose: PostgreSQL gives the exact similarity of those that
are answered. Holds no permissions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.model import Vectors

EXACT_ROWS: Final = 2048
"""Up to so many visible rows the bytes of all are compared: reading them costs less than looking at their bits."""
CHOSEN: Final = (2048, 8192)
"""Fewest and most rows that the bits choose; between them a fifth of what is visible. Measured on a million rows with
permissions that follow topics, 60 questions for each band: of 20,000 visible rows to all of them, 4096 hold .978 to
.992 of the exact ten, 8192 hold .992 to 1.0, 16384 hold .998 to 1.0."""
PARTS: Final = 254
"""Of a step of a byte: what it leaves, half a step to either side, is told in a byte, too."""
_TOGETHER: Final = 256
"""Rows whose bytes are compared together: as floats they stay in the processor's cache, which makes it three times as
fast as all at once."""
_BLOCK: Final = 1 << 14
"""Rows whose bits are looked at together: their intermediate results stay in the processor's cache."""

Bits = NDArray[np.uint64]
Bytes = NDArray[np.int8]
Rows = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Coded:
    """`bits` (words of 64, n): a row a column, so that a scan reads on; `small` plus a `PARTS`th of `rest` (both
    (n, dimension)) times `scale` (n) is the vector."""

    bits: Bits
    small: Bytes
    rest: Bytes
    scale: NDArray[np.float32]


def code(vectors: Vectors) -> Coded:
    """The projections of rows of unit length; a row of zeros (no vector) is like nothing."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    told = vectors / scale[:, None]
    small = np.rint(told)
    rest = np.rint((told - small) * PARTS)
    return Coded(_bits(vectors), small.astype(np.int8), rest.astype(np.int8), scale)


def words_of(dimension: int) -> int:
    """How many numbers of 64 bits hold the signs of a vector."""
    return -(-dimension // 64)


def _bits(vectors: Vectors) -> Bits:
    count, dimension = vectors.shape
    signs = np.zeros((count, words_of(dimension) * 64), dtype=np.bool_)
    signs[:, :dimension] = vectors > 0
    packed = np.packbits(signs, axis=1, bitorder="little")
    return np.ascontiguousarray(packed.view("<u8").T).astype(np.uint64, copy=False)


def nearest(
    coded: Coded, question: NDArray[np.float32], mask: NDArray[np.bool_] | None, count: int, limit: int
) -> tuple[Rows, NDArray[np.float32]]:
    """(rows, similarity) of about the `limit` nearest of the `count` rows that `mask` lets through (None: all)."""
    if count == 0 or limit == 0:
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    chosen = max(min(max(CHOSEN[0], count // 5), CHOSEN[1]), 8 * limit)
    if count <= max(EXACT_ROWS, chosen):
        rows = _every(coded, mask)
    else:
        rows = _by_bits(coded.bits, _bits(question[None])[:, 0], mask, count, chosen)
    if len(rows) > limit:
        near = _products(coded.small, question, rows) * coded.scale[rows]
        rows = rows[np.argpartition(near, len(near) - limit)[len(near) - limit :]]
    near = similarity(coded, question, rows)
    order = np.lexsort((rows, -near))
    return rows[order], near[order]


def similarity(coded: Coded, question: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """Cosine of the question with some rows, within about 0.00001."""
    near = _products(coded.rest, question, rows)
    near /= PARTS
    near += _products(coded.small, question, rows)
    near *= coded.scale[rows]
    return near


def _products(numbers: Bytes, question: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """Of the question with some rows of bytes."""
    found = np.empty(len(rows), np.float32)
    size = min(len(rows), _TOGETHER)
    few, wide = np.empty((size, numbers.shape[1]), np.int8), np.empty((size, numbers.shape[1]), np.float32)
    for start in range(0, len(rows), _TOGETHER):
        some = rows[start : start + _TOGETHER]
        count = len(some)
        np.take(numbers, some, axis=0, out=few[:count], mode="clip")
        np.copyto(wide[:count], few[:count])
        np.dot(wide[:count], question, out=found[start : start + count])
    return found


def _every(coded: Coded, mask: NDArray[np.bool_] | None) -> Rows:
    return (np.arange(len(coded.scale)) if mask is None else np.flatnonzero(mask)).astype(np.int32)


def _by_bits(bits: Bits, question: Bits, mask: NDArray[np.bool_] | None, count: int, chosen: int) -> Rows:
    """The `chosen` visible rows with the fewest different bits, and those with as many as the last of them."""
    total, most = bits.shape[1], bits.shape[0] * 64
    # reading single rows costs as much as reading twice as many that follow each other, or more
    rows = np.flatnonzero(mask).astype(np.int32) if mask is not None and count * 4 < total else None
    apart = np.empty(total if rows is None else len(rows), dtype=np.uint16)
    for start in range(0, len(apart), _BLOCK):
        some = slice(start, start + _BLOCK)
        # word by word: all words at once would first be copied whole where there is room behind the last row
        part = bits[:, some] if rows is None else [word.take(rows[some], mode="clip") for word in bits]
        apart[some] = _apart(part, question)
    if rows is None and mask is not None:
        np.putmask(apart, ~mask, most + 1)
    least = np.searchsorted(np.cumsum(np.bincount(apart, minlength=most + 2)), chosen)
    found = np.flatnonzero(apart <= min(int(least), most))
    return found.astype(np.int32) if rows is None else rows[found]


def _apart(bits: Bits | Sequence[Bits], question: Bits) -> NDArray[np.uint16]:
    different: NDArray[np.uint16] = np.bitwise_count(bits[0] ^ question[0]).astype(np.uint16)
    for word in range(1, len(bits)):
        different += np.bitwise_count(bits[word] ^ question[word])
    return different
