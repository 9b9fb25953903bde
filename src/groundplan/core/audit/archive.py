"""Archives ranges of the log as files in any store of `fsspec`, so that entries of calls need not stay in the database.

A range is a full subtree of the log (RFC 6962): 65,536 entries, from the beginning of the log on. Its file has one
entry a line, byte for byte as the tree hashes it, compressed by gzip; its root is a node of the log's tree, which the
checkpoint covers. The file is written, read back, and compared with the files of the log; then the database compares it
with its rows and deletes those of calls. The log's own files keep every entry: verifying them needs nothing from here.
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
from groundplan.core.audit.proof import parse_public_key, read_checkpoint
from groundplan.core.audit.store import StoredEntry
from groundplan.core.audit.tiles import WIDTH, Tiles, decode_bundle
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound
from groundplan.core.file_store import open_file, put_file
from groundplan.core.scratch import scratch_folder

SPAN: Final = 65_536
"""Entries of a range, which are one hash of a level-2 tile."""
_LEVEL: Final = 6
"""Compression level of gzip: takes a few seconds for a range, and leaves a seventh of its size."""
_PROGRESS_EVERY: Final = 4096
Progress = Callable[[int, int], None]
"""(entries read, entries in all)"""


def write_range(conn: Connection[Any], audit: Path, public_key: bytes, url: str, first: int, span: int = SPAN) -> Range:
    """Write a range to a store and return it; nothing is deleted. Only reads, in the caller's transaction.

    Raises `Conflict` (`archive_differs`) where database and log have different entries or the store returns something
    else than was sent, `Invalid` (`audit_unsigned`), and whatever `file_store.put_file` raises.
    """
    tiles, checkpoint = _read_signed(audit, public_key)
    hashes: list[bytes] = []
    with scratch_folder("groundplan-archive-") as folder:
        path = folder / "entries"
        with path.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as lines:
            for index, body in archive_store.iterate_bodies(conn, first, first + span):
                if index != first + len(hashes) or b"\n" in body:
                    raise _differs_error(
                        f"entry {first + len(hashes)} is not in the database, or in more than one line"
                    )
                hashes.append(leaf_hash(body))
                lines.write(body + b"\n")
        done = Range(first, first + span, url, "", "", root_of(hashes))
        if len(hashes) != span or not is_in_tree(tiles, checkpoint, done):
            raise _differs_error(f"entries {first} to {first + span - 1} are others in the database than in the log")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        done = replace(done, file=file_name(checkpoint.origin, done), sha256=digest)
        put_file(url, done.file, path)
    return done


def log_size(audit: Path) -> int:
    """The number of entries in the files of a log; 0 without a checkpoint. Raises `Invalid`."""
    try:
        return parse_checkpoint(parse_note(read_checkpoint(audit)).text).size
    except NotFound:
        return 0


def file_name(origin: str, archived: Range) -> str:
    """The path of a range within its store; it differs for each log and for different entries."""
    return f"entries/{origin.rpartition('/')[2]}/{archived.first:012d}-{archived.root.hex()[:16]}.jsonl.gz"


def is_in_tree(tiles: Tiles, checkpoint: Checkpoint, archived: Range) -> bool:
    """Whether a checkpoint's tree has the range's root at its position. Raises whatever reading tiles raises."""
    span = archived.until - archived.first
    if archived.until > checkpoint.size:
        return False
    place, size = archived.first // span, -(-checkpoint.size // span)
    proof = inclusion_proof(
        place, size, lambda start, end: tiles.subtree(checkpoint.size, start * span, min(end * span, checkpoint.size))
    )
    return verify_inclusion(place, size, archived.root, proof, checkpoint.root)


def read_bodies(archived: Range) -> Iterator[bytes]:
    """Yield the entries in a range's file, in order. Raises `NotFound` and `Invalid` (`file_damaged`), possibly after
    some entries: the file is verified only when the iterator is exhausted."""
    hashes: list[bytes] = []
    with open_file(archived.url, archived.file) as source:
        file = _HashingReader(source)
        for line in _lines(file, archived):
            if len(hashes) == archived.until - archived.first:
                raise _damaged_error(archived, "was changed")
            hashes.append(leaf_hash(line))
            yield line
        if (
            file.digest.hexdigest() != archived.sha256
            or len(hashes) != archived.until - archived.first
            or root_of(hashes) != archived.root
        ):
            raise _damaged_error(archived, "was changed")


def find_entry(audit: Path, archived: Range, id: UUID) -> StoredEntry | None:
    """Find an entry of a range by its id, in the files of the log. Raises whatever reading these raises."""
    tiles, named = Tiles(audit), f'"id":"{id}"'.encode()
    for bundle in range(archived.first // WIDTH, archived.until // WIDTH):
        data = tiles.read("entries", bundle)
        if named not in data:
            continue
        for place, body in enumerate(decode_bundle(data)):
            if named in body and (entry := decode(body)).id == id:
                return StoredEntry(entry, bundle * WIDTH + place)
    return None


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A problem of an archived file, or of its record in the database."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def check_files(
    audit: Path,
    ranges: Sequence[Range],
    on_progress: Progress | None = None,
    public_key: bytes | None = None,
    missing: tuple[int, int] | None = None,
) -> list[FileProblem]:
    """Check that each file exists, is as it was written, and has the entries of the log at its position; return the
    problems. `missing` is a range of entries that neither the database nor a file has. Never raises for the content of
    files."""
    found: list[FileProblem] = []
    done, expected, whole = 0, 0, sum(archived.until - archived.first for archived in ranges)
    try:
        tiles, checkpoint = _read_signed(audit, public_key)
    except GroundplanError as error:
        return [FileProblem("checkpoint", error.message)]
    for archived in ranges:
        if archived.first != expected:
            found.append(FileProblem(f"entries {expected} to {archived.first - 1}", "no file of them is known"))
        expected = archived.until
        try:
            for count, _ in enumerate(read_bodies(archived)):
                if on_progress is not None and count % _PROGRESS_EVERY == 0:
                    on_progress(done + count, whole)
            wrong = _mismatch(tiles, checkpoint, archived)
        except (GroundplanError, OSError) as error:
            wrong = error.message if isinstance(error, GroundplanError) else str(error)
        if wrong:
            found.append(FileProblem(f"{archived.url}/{archived.file}", wrong))
        done += archived.until - archived.first
    if missing is not None:
        where = f"entries {missing[0]} to {missing[1] - 1}"
        found.append(FileProblem(where, "neither the database nor a file of the archive has them"))
    if on_progress is not None:
        on_progress(whole, whole)
    return found


def _mismatch(tiles: Tiles, checkpoint: Checkpoint, archived: Range) -> str:
    """How a range differs from the log at its position; empty where it does not."""
    if archived.until > checkpoint.size:
        return f"the log ends before it, with entry {checkpoint.size - 1}"
    return (
        ""
        if is_in_tree(tiles, checkpoint, archived)
        else f"the log has other entries than {archived.first} to {archived.until - 1} of it"
    )


def _read_signed(audit: Path, public_key: bytes | None) -> tuple[Tiles, Checkpoint]:
    note = parse_note(read_checkpoint(audit))
    checkpoint = parse_checkpoint(note.text)
    if public_key is not None and not note.signed_by(parse_public_key(public_key, checkpoint.origin)):
        raise Invalid(
            "the checkpoint is not signed by the key of this HOME",
            code="audit_unsigned",
            hint="Run `groundplan audit verify`.",
        )
    return Tiles(audit), checkpoint


class _HashingReader(io.RawIOBase):
    """Wraps a file and hashes what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _lines(file: io.RawIOBase, archived: Range) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=file) as lines:
            while line := lines.readline(MAX_BYTES + 2):  # a line of an altered file may have any length
                if not line.endswith(b"\n"):
                    raise _damaged_error(archived, "was changed")
                yield line[:-1]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged_error(archived, "was changed, or is not whole") from error


def _damaged_error(archived: Range, how: str) -> Invalid:
    return Invalid(
        f"{archived.file} at {archived.url} {how}",
        code="file_damaged",
        hint="Restore it from a copy; the log has these entries.",
    )


def _differs_error(message: str) -> Conflict:
    return Conflict(
        message,
        code="archive_differs",
        hint="Nothing was deleted. Run `groundplan audit verify`.",
    )
