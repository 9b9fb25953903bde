"""Converts vectors to PostgreSQL's `halfvec`, as a parameter or text, and back from its binary form.

Numbers are rounded to 16 bits. The migrations define the columns with vectors and their lengths.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from groundplan.knowledge.model import Vectors


class Halfvec:
    """A vector as a parameter, for `%s::halfvec`: two 16-bit numbers (the length, and 0), then the values, big-endian.
    The text form takes client and server ten times as long."""

    __slots__ = ("data",)

    def __init__(self, vector: Vectors | Sequence[float]) -> None:
        values = np.asarray(vector).astype(">f2")
        self.data = struct.pack(">HH", len(values), 0) + values.tobytes()


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Halfvec) -> Buffer:
        return obj.data


psycopg.adapters.register_dumper(Halfvec, _Dumper)


def to_literal(vector: Vectors | Sequence[float]) -> str:
    """The text form of a vector, for arrays of vectors."""
    return "[" + ",".join(f"{value:.6g}" for value in np.asarray(vector).tolist()) + "]"


def from_binary(stored: bytes | None) -> NDArray[np.float32] | None:
    """A vector from its binary form; None for NULL."""
    if stored is None:
        return None
    return np.frombuffer(stored, dtype=">f2", offset=4).astype(np.float32)
