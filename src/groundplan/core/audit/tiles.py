"""The files of a log, as C2SP tlog-tiles names and fills them: hash tiles and entry bundles of 256. Only reads them.

A tile of level L holds the hashes of complete subtrees of 256^L leaves. Partial tiles are `<path>.p/<width>`; where the
full tile exists it serves instead. Does not check hashes (`verify.py`) and does not write (`log.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundplan.core.audit.merkle import node_hash, root_of, split
from groundplan.core.errors import Invalid, NotFound

WIDTH = 256
HASH_BYTES = 32
Level = int | Literal["entries"]


def tile_path(level: Level, index: int, width: int = WIDTH) -> str:
    """The path of a tile below the folder of the log: `tile/0/x001/x234/067.p/8`."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03d}")
    path = f"tile/{level}/{'/'.join(reversed(groups))}"
    return path if width == WIDTH else f"{path}.p/{width}"


def tiles_of(size: int, level: int) -> Iterator[tuple[int, int]]:
    """Yield (index, width) of the tiles of a level in a tree of `size`; entry bundles are numbered like level 0."""
    full, rest = divmod(size >> (8 * level), WIDTH)
    for index in range(full):
        yield index, WIDTH
    if rest:
        yield full, rest


def last_tile(size: int, level: Level) -> tuple[int, int]:
    """(index, width) of the partial tile at the end of a level; width 0 where the level ends with a full one."""
    return divmod(size if level == "entries" else size >> (8 * level), WIDTH)


def levels_of(size: int) -> int:
    """How many levels of hash tiles a tree of `size` has."""
    levels = 0
    while size >> (8 * levels):
        levels += 1
    return levels


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Encode entries, each after its length in 16 bits, big-endian. Raises `OverflowError` above 65,535 bytes."""
    return b"".join([part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry)])


def decode_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle; raises `Invalid` (`bundle_damaged`) where the lengths do not add up."""
    entries, whole = read_bundle(data)
    if not whole:
        raise Invalid(
            "an entry bundle ends in the middle of an entry", code="bundle_damaged", hint="Restore it from a copy."
        )
    return entries


def read_bundle(data: bytes) -> tuple[list[bytes], bool]:
    """Return the entries of a bundle up to the first incomplete one, and whether all are complete."""
    entries: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        start = position + 2
        position = start + int.from_bytes(data[position:start], "big")
        if position > end or start > end:
            return entries, False
        entries.append(data[start:position])
    return entries, True


def partial_tiles(folder: Path, level: Level, index: int) -> list[tuple[int, Path]]:
    """(width, path) of the partial tiles that exist, narrowest first."""
    try:
        paths = list((folder / f"{tile_path(level, index)}.p").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((int(path.name), path) for path in paths if path.name.isascii() and path.name.isdigit())


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles in a folder."""

    folder: Path

    def read(self, level: Level, index: int, width: int = WIDTH) -> bytes:
        """The bytes of a tile, or of the full one where the partial one is deleted. Raises `NotFound`
        (`tile_missing`)."""
        for path in {tile_path(level, index, width): None, tile_path(level, index): None}:
            try:
                return (self.folder / path).read_bytes()
            except FileNotFoundError:
                continue
        path = tile_path(level, index, width)
        raise NotFound(f"{path} is missing", code="tile_missing", where=path, hint="Restore it from a copy of the log.")

    def hashes(self, level: int, index: int, width: int = WIDTH) -> list[bytes]:
        """The first `width` hashes of a tile. Raises `NotFound`, or `Invalid` (`tile_damaged`) where it has fewer."""
        data = self.read(level, index, width)
        if len(data) % HASH_BYTES or len(data) < width * HASH_BYTES:
            path = tile_path(level, index, width)
            raise Invalid(
                f"{path} is {len(data)} bytes long instead of {width * HASH_BYTES}",
                code="tile_damaged",
                where=path,
                hint="Restore it from a copy of the log.",
            )
        return [data[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)]

    def entries(self, index: int, width: int = WIDTH) -> list[bytes]:
        """The entries in a bundle, at most `width` where the full bundle serves for a partial one."""
        entries = decode_bundle(self.read("entries", index, width))
        partial = width < WIDTH and not (self.folder / tile_path("entries", index, width)).exists()
        return entries[:width] if partial else entries

    def entry(self, index: int, size: int) -> bytes:
        """Entry `index` of a log of `size`. Raises `NotFound`, `Invalid`."""
        bundle, offset = divmod(index, WIDTH)
        entries = self.entries(bundle, min(WIDTH, size - bundle * WIDTH))
        if offset >= len(entries):
            path = tile_path("entries", bundle)
            raise Invalid(f"{path} ends before entry {index}", code="bundle_damaged", where=path, hint="Restore it.")
        return entries[offset]

    def subtree(self, size: int, start: int, end: int) -> bytes:
        """The root over leaves start..end-1 of a tree of `size`, from as few tiles as hold it."""
        length = end - start
        if length & (length - 1):
            middle = start + split(length)
            return node_hash(self.subtree(size, start, middle), self.subtree(size, middle, end))
        level = (length.bit_length() - 1) // 8
        first, count = start >> (8 * level), length >> (8 * level)
        index, offset = divmod(first, WIDTH)
        width = min(WIDTH, (size >> (8 * level)) - index * WIDTH)
        return root_of(self.hashes(level, index, width)[offset : offset + count])
