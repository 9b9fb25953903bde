"""Ranges of the log as files in any store of `fsspec`, so that entries of calls need not stay in the database for ever.

A range is a full subtree of the log (RFC 6962): 65,536 entries from the front on. Its file has one entry a line, byte
for byte as the tree hashes it, compressed by gzip, and its root is a node of the log's tree, which the checkpoint
vouches for. It is written, read back, and compared with the files of the log before the database, which compares it
with its rows, deletes those of calls. The log's own files keep every entry: nothing here is needed to verify them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import archive_store
from groundplan.core.audit.archive_store import Range
from groundplan.core.audit.checkpoint import Checkpoint, parse_checkpoint, parse_note
from groundplan.core.audit.entry import MAX_BYTES, decode
from groundplan.core.audit.merkle import inclusion_proof, leaf_hash, root_of, verify_inclusion
from groundplan.core.audit.proof import checkpoint_file, key_of
from groundplan.core.audit.store import StoredEntry
from groundplan.core.audit.tiles import WIDTH, Tiles, decode_bundle
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound
from groundplan.core.file_store import open_file, put_file
from groundplan.core.scratch import scratch_folder

SPAN: Final = 65_536
"""Entries of a range: a hash of a tile of level 2."""
_LEVEL: Final = 6
"""Of gzip: a few seconds for a range, a seventh of its size."""
_TOLD: Final = 4096
Progress = Callable[[int, int], None]
"""(entries read, entries in all)"""


def write(conn: Connection[Any], audit: Path, public_key: bytes, url: str, first: int, span: int = SPAN) -> Range:
    """Write a range to a store; nothing is deleted. In a transaction of the caller's, which is only read in.

    Raises `Conflict` (`archive_differs`) where database and log have different entries, or the store gives back others
    than were sent; what `file_store.put_file` raises; and `Invalid` (`audit_unsigned`).
    """
    tiles, point = _signed(audit, public_key)
    hashes: list[bytes] = []
    with scratch_folder("groundplan-archive-") as folder:
        path = folder / "entries"
        with path.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as lines:
            for index, body in archive_store.bodies(conn, first, first + span):
                if index != first + len(hashes) or b"\n" in body:
                    raise _differs(f"entry {first + len(hashes)} is not in the database, or in more than one line")
                hashes.append(leaf_hash(body))
                lines.write(body + b"\n")
        done = Range(first, first + span, url, "", "", root_of(hashes))
        if len(hashes) != span or not within(tiles, point, done):
            raise _differs(f"entries {first} to {first + span - 1} are others in the database than in the log")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        done = replace(done, file=file_of(point.origin, done), sha256=digest)
        put_file(url, done.file, path)
    return done


def size_of(audit: Path) -> int:
    """How many entries the files of a log have; 0 where there is none. Raises `Invalid`."""
    try:
        return parse_checkpoint(parse_note(checkpoint_file(audit)).text).size
    except NotFound:
        return 0


def file_of(origin: str, of: Range) -> str:
    """Where a range is, below its store: each log has a folder of its own, and other entries another name."""
    return f"entries/{origin.rpartition('/')[2]}/{of.first:012d}-{of.root.hex()[:16]}.jsonl.gz"


def within(tiles: Tiles, point: Checkpoint, of: Range) -> bool:
    """Whether the tree of a checkpoint has a range's root where it belongs. Raises what reading tiles does."""
    span = of.until - of.first
    if of.until > point.size:
        return False
    place, size = of.first // span, -(-point.size // span)
    proof = inclusion_proof(
        place, size, lambda start, end: tiles.subtree(point.size, start * span, min(end * span, point.size))
    )
    return verify_inclusion(place, size, of.root, proof, point.root)


def bodies(of: Range) -> Iterator[bytes]:
    """The entries in a range's file, in order. Raises `NotFound`, `Invalid`, also after some of them (`file_damaged`):
    all of it was checked only once it ends."""
    hashes: list[bytes] = []
    with open_file(of.url, of.file) as source:
        file = _Hashed(source)
        for line in _lines(file, of):
            if len(hashes) == of.until - of.first:
                raise _damaged(of, "was changed")
            hashes.append(leaf_hash(line))
            yield line
        if file.digest.hexdigest() != of.sha256 or len(hashes) != of.until - of.first or root_of(hashes) != of.root:
            raise _damaged(of, "was changed")


def find(audit: Path, of: Range, id: UUID) -> StoredEntry | None:
    """An entry of a range by its id, in the files of the log. Raises what reading these does."""
    tiles, named = Tiles(audit), f'"id":"{id}"'.encode()
    for bundle in range(of.first // WIDTH, of.until // WIDTH):
        data = tiles.read("entries", bundle)
        if named not in data:
            continue
        for place, body in enumerate(decode_bundle(data)):
            if named in body and (entry := decode(body)).id == id:
                return StoredEntry(entry, bundle * WIDTH + place)
    return None


@dataclass(frozen=True, slots=True)
class FileProblem:
    """What is wrong with an archived file, or with what is said of it."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def check(
    audit: Path,
    ranges: Sequence[Range],
    on_progress: Progress | None = None,
    public_key: bytes | None = None,
    lacking: tuple[int, int] | None = None,
) -> list[FileProblem]:
    """Whether each file is there, is as it was written, and has the entries that the log has in its place; what is not
    so. `lacking` are entries of which it is known that the database lost them. Never raises for what is in files."""
    found: list[FileProblem] = []
    done, expected, whole = 0, 0, sum(of.until - of.first for of in ranges)
    try:
        tiles, point = _signed(audit, public_key)
    except GroundplanError as error:
        return [FileProblem("checkpoint", error.message)]
    for of in ranges:
        if of.first != expected:
            found.append(FileProblem(f"entries {expected} to {of.first - 1}", "no file of them is known"))
        expected = of.until
        try:
            for count, _ in enumerate(bodies(of)):
                if on_progress is not None and count % _TOLD == 0:
                    on_progress(done + count, whole)
            wrong = _misplaced(tiles, point, of)
        except (GroundplanError, OSError) as error:
            wrong = error.message if isinstance(error, GroundplanError) else str(error)
        if wrong:
            found.append(FileProblem(f"{of.url}/{of.file}", wrong))
        done += of.until - of.first
    if lacking is not None:
        where = f"entries {lacking[0]} to {lacking[1] - 1}"
        found.append(FileProblem(where, "neither the database nor a file of the archive has them"))
    if on_progress is not None:
        on_progress(whole, whole)
    return found


def _misplaced(tiles: Tiles, point: Checkpoint, of: Range) -> str:
    """Why a range is not what the log has in its place; empty where it is."""
    if of.until > point.size:
        return f"the log ends before it, with entry {point.size - 1}"
    return "" if within(tiles, point, of) else f"the log has other entries than {of.first} to {of.until - 1} of it"


def _signed(audit: Path, public_key: bytes | None) -> tuple[Tiles, Checkpoint]:
    note = parse_note(checkpoint_file(audit))
    point = parse_checkpoint(note.text)
    if public_key is not None and not note.signed_by(key_of(public_key, point.origin)):
        raise Invalid(
            "the checkpoint is not signed by the key of this HOME",
            code="audit_unsigned",
            hint="Run `groundplan audit verify`.",
        )
    return Tiles(audit), point


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _lines(file: io.RawIOBase, of: Range) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=file) as lines:
            while line := lines.readline(MAX_BYTES + 2):  # of a file that was changed it may be of any length
                if not line.endswith(b"\n"):
                    raise _damaged(of, "was changed")
                yield line[:-1]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(of, "was changed, or is not whole") from error


def _damaged(of: Range, how: str) -> Invalid:
    return Invalid(
        f"{of.file} at {of.url} {how}", code="file_damaged", hint="Restore it from a copy; the log has these entries."
    )


def _differs(message: str) -> Conflict:
    return Conflict(
        message,
        code="archive_differs",
        hint="Nothing was deleted. Run `groundplan audit verify`.",
    )
