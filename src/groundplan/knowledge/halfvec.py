"""Vectors as PostgreSQL's `halfvec`: as a parameter, as text, and back from its binary form.

Numbers are rounded to 16 bits on their way there. Which column has vectors, and of what length, is the migrations'.
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
    """A vector as a parameter, for `%s::halfvec`: two 16-bit numbers (how many, and 0), then the values, big-endian.
    Its text takes the client and the server ten times as long."""

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
    """The text form, for arrays of vectors."""
    return "[" + ",".join(f"{value:.6g}" for value in np.asarray(vector).tolist()) + "]"


def from_binary(stored: bytes | None) -> NDArray[np.float32] | None:
    """From the binary form."""
    if stored is None:
        return None
    return np.frombuffer(stored, dtype=">f2", offset=4).astype(np.float32)
