"""The bytes of the gateway journal: framing, segment headers, and reading that never mistakes damage for a record.

A segment is a file of fixed size, filled with zeros in advance: a header, then frames `[u32 length][u32 crc32][u8
type][u64 sequence][payload]` (little endian; length and crc cover type, sequence and payload; the payload is msgpack).
Sequences count up by one through all segments of an epoch. This module does not write files and knows nothing of
budgets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID
from zlib import crc32

import msgspec

from groundplan.core.errors import Unavailable
from groundplan.core.home import list_names
from groundplan.ledger.model import Finish, Release, Reservation, Settlement

Record = Reservation | Settlement | Finish | Release

MAGIC = b"GPJOURNL"
VERSION = 1
HEADER_BYTES = 64
MAX_FRAME = 16 << 10
"""Largest frame that is written or accepted."""

RESERVATION, SETTLEMENT, FINISH, RELEASE = 1, 2, 3, 4

PREFIX = struct.Struct("<II")
BODY = struct.Struct("<BQ")
PREFIX_BYTES = PREFIX.size
FRAME_OVERHEAD = PREFIX_BYTES + BODY.size
_HEAD = struct.Struct("<IIBQ")
"""PREFIX and BODY in one."""
_SUFFIX = ".seg"
_HEADER = struct.Struct("<8sII16s")
_ZEROS = bytes(4096)

encode = msgspec.msgpack.Encoder().encode
_decoders: dict[int, msgspec.msgpack.Decoder[Record]] = {
    RESERVATION: msgspec.msgpack.Decoder(Reservation),
    SETTLEMENT: msgspec.msgpack.Decoder(Settlement),
    FINISH: msgspec.msgpack.Decoder(Finish),
    RELEASE: msgspec.msgpack.Decoder(Release),
}


class NewerRecord(Unavailable):
    """A complete record that this program cannot read: a newer one wrote it (`journal_newer`)."""


class SegmentEnd(StrEnum):
    """How a segment ends."""

    CLEAN = "clean"
    """Only zeros follow."""
    TORN = "torn"
    """The last write did not complete; nothing readable follows."""
    CORRUPT = "corrupt"
    """Damage with readable records after it, or a damaged header: records are missing."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One valid record and the offset just after it."""

    type: int
    sequence: int
    record: Record
    end: int
    after_gap: bool = False
    """Whether damage lies somewhere before it in this segment."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a segment ends; `offset` is where the first unreadable (or zero) byte is."""

    end: SegmentEnd
    offset: int


def encode_frame(kind: int, sequence: int, payload: bytes) -> bytes:
    """Return the bytes of one record."""
    body = BODY.pack(kind, sequence) + payload
    return PREFIX.pack(len(body), crc32(body)) + body


def segment_header(epoch: UUID, number: int) -> bytes:
    """Return the first `HEADER_BYTES` of a segment."""
    head = _HEADER.pack(MAGIC, VERSION, number, epoch.bytes)
    return (head + struct.pack("<I", crc32(head))).ljust(HEADER_BYTES, b"\0")


def check_header(data: bytes, epoch: UUID, number: int) -> bool:
    """Whether `data` begins with the header of that segment."""
    return data[:HEADER_BYTES] == segment_header(epoch, number)


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment, `NNNNNNNN.seg`, in the folder of an epoch."""
    return folder / f"{number:08d}{_SUFFIX}"


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments in a folder, ascending, without temporary and quarantined files. Raises
    OSError."""
    stems = (name.removesuffix(_SUFFIX) for name in list_names(folder) if name.endswith(_SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def frame_at(data: bytes | memoryview, offset: int, base: int = 0) -> Entry | None:
    """Return the record at `offset`, or None where there is no complete one; `base` is the offset of `data` in its
    segment. Raises `NewerRecord`: treating such a record as damage would write off what it records."""
    if offset + FRAME_OVERHEAD > len(data):
        return None
    length, check, kind, sequence = _HEAD.unpack_from(data, offset)
    body = offset + PREFIX_BYTES
    end = body + length
    if not BODY.size < length <= MAX_FRAME or end > len(data) or crc32(data[body:end]) != check:
        return None
    decoder = _decoders.get(kind)
    if decoder is None:
        raise _newer_record(kind)
    try:
        record = decoder.decode(data[offset + FRAME_OVERHEAD : end])
    except msgspec.MsgspecError as error:
        raise _newer_record(kind) from error
    return Entry(kind, sequence, record, base + end)


def _newer_record(kind: int) -> NewerRecord:
    return NewerRecord(
        f"a journal has a record (type {kind}) that this program cannot read: a newer one wrote it",
        code="journal_newer",
        hint="Run the newer program on this HOME until `groundplan doctor` tells of no journal that waits.",
    )


def written_length(data: bytes) -> int:
    """Return the length without the zeros at the end, which are nearly all of most segments: stripped in pages."""
    end = len(data)
    while data.endswith(_ZEROS, 0, end):
        end -= len(_ZEROS)
    page = max(0, end - len(_ZEROS))
    return page + len(data[page:end].rstrip(b"\0"))


def next_frame(data: bytes, offset: int, limit: int, last_sequence: int | None) -> int | None:
    """Return the offset of the first valid record at or after `offset` and before `limit` whose sequence is beyond
    `last_sequence`."""
    view = memoryview(data)
    while offset < limit:
        entry = frame_at(view, offset)
        if entry is not None and (last_sequence is None or entry.sequence > last_sequence):
            return offset
        offset += 1
    return None


class SegmentReader:
    """Iterates over the valid records of one segment held in memory; `ending` is set when iteration is over.

    Records after damage are included (`after_gap`), since each carries its own checksum; the ending then is `CORRUPT`.
    """

    def __init__(
        self, data: bytes, epoch: UUID, number: int, last_sequence: int | None = None, start: int = HEADER_BYTES
    ) -> None:
        self._data = data
        self._view = memoryview(data)
        self._header_good = check_header(data, epoch, number)
        self._last = last_sequence
        self._start = start
        self.ending: Ending | None = None

    def __iter__(self) -> Iterator[Entry]:
        offset = self._start
        gap: int | None = None if self._header_good else 0
        limit: int | None = None
        while True:
            entry = frame_at(self._view, offset)
            if entry is not None and self._follows(entry.sequence, gap is not None):
                self._last, offset = entry.sequence, entry.end
                yield entry if gap is None else msgspec.structs.replace(entry, after_gap=True)
                continue
            limit = written_length(self._data) if limit is None else limit
            following = next_frame(self._data, offset, limit, self._last)
            if following is None:
                self.ending = self._end_at(offset, limit, gap)
                return
            gap = offset if gap is None else gap
            offset = following

    def _follows(self, sequence: int, gap: bool) -> bool:
        """Whether this sequence may come next: the very next one, or after damage any later one."""
        return self._last is None or sequence == self._last + 1 or (gap and sequence > self._last)

    def _end_at(self, offset: int, limit: int, gap: int | None) -> Ending:
        if gap is not None:
            return Ending(SegmentEnd.CORRUPT, gap)
        return Ending(SegmentEnd.CLEAN if limit <= offset else SegmentEnd.TORN, offset)
