"""The process that matches values with regular expressions: reads `FormRequest`s from standard input and answers each
with the indices of the values that do not match, until the input ends.

A frame is four bytes of length and msgpack; an empty one says that the process is ready. Its parent kills it if a
request takes too long.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from typing import BinaryIO

import msgspec

from groundplan.knowledge.parsing.confine import confine

LENGTH = struct.Struct("<I")
_MEMORY_BYTES = 512 << 20


class FormRequest(msgspec.Struct, frozen=True, array_like=True):
    """Values, and the regular expression that each should match completely."""

    pattern: str
    values: list[str]


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer every frame of `source`, in order."""
    decoder, encoder = msgspec.msgpack.Decoder(FormRequest), msgspec.msgpack.Encoder()
    target.write(LENGTH.pack(0))
    target.flush()
    while head := source.read(LENGTH.size):
        wanted = decoder.decode(source.read(LENGTH.unpack(head)[0]))
        fits = re.compile(wanted.pattern).fullmatch
        body = encoder.encode([number for number, value in enumerate(wanted.values) if not fits(value)])
        target.write(LENGTH.pack(len(body)) + body)
        target.flush()


if __name__ == "__main__":
    confine(_MEMORY_BYTES)
    serve(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
