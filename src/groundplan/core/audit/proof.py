"""Proofs from the files of the log: that an entry is in it, and that it continues an earlier checkpoint.

Each is a few hashes with the signed checkpoint, checked with nothing but the log's public key. Does not verify all
of the log (`verify.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from groundplan.core.audit.checkpoint import VerifierKey, parse_checkpoint, parse_key, parse_note
from groundplan.core.audit.merkle import consistency_proof as continuation_of
from groundplan.core.audit.merkle import inclusion_proof as path_of
from groundplan.core.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from groundplan.core.audit.tiles import WIDTH, Tiles
from groundplan.core.errors import Invalid, NotFound
from groundplan.core.words import quantity


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Proves that `entry` is number `index` under the signed `checkpoint`. Hashes are 32 bytes, from the leaf up."""

    index: int
    entry: bytes
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def holds(self, public_key: bytes) -> bool:
        """Whether the proof and the signature hold, with nothing but the log's public key (see `verify`)."""
        try:
            note = parse_note(self.checkpoint)
            point = parse_checkpoint(note.text)
            key = parse_public_key(public_key, point.origin)
        except Invalid:
            return False
        leaf = leaf_hash(self.entry)
        return note.signed_by(key) and verify_inclusion(self.index, point.size, leaf, self.hashes, point.root)


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """Proves that the log of the signed `checkpoint` continues its own first `old` entries; hashes are 32 bytes."""

    old: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def holds(self, earlier: bytes, public_key: bytes) -> bool:
        """Whether the log continues the signed checkpoint `earlier`, with nothing but the log's public key."""
        try:
            notes = [parse_note(earlier), parse_note(self.checkpoint)]
            before, after = [parse_checkpoint(note.text) for note in notes]
            key = parse_public_key(public_key, after.origin)
        except Invalid:
            return False
        if before.origin != after.origin or before.size != self.old or not all(note.signed_by(key) for note in notes):
            return False
        return verify_consistency(before.size, after.size, before.root, after.root, self.hashes)


@dataclass(frozen=True, slots=True)
class _CachedTiles(Tiles):
    """Tiles with a cache: a proof needs parts of the same few tiles repeatedly."""

    kept: dict[tuple[int, int, int], list[bytes]] = field(default_factory=dict)

    def hashes(self, level: int, index: int, width: int = WIDTH) -> list[bytes]:
        found = self.kept.get((level, index, width))
        if found is None:
            found = self.kept[level, index, width] = Tiles.hashes(self, level, index, width)
        return found


def inclusion_proof(folder: Path, index: int) -> InclusionProof:
    """The proof for entry `index` under the checkpoint in `folder`. Raises `NotFound` (`audit_entry`), `Invalid`."""
    data = read_checkpoint(folder)
    point, tiles = parse_checkpoint(parse_note(data).text), _CachedTiles(folder)
    if not 0 <= index < point.size:
        raise NotFound(
            f"the log has {quantity(point.size, 'entry', 'entries')}, none with the index {index}",
            code="audit_entry",
            hint="An entry has an index a few seconds after it was recorded.",
        )
    hashes = path_of(index, point.size, lambda start, end: tiles.subtree(point.size, start, end))
    return InclusionProof(index, tiles.entry(index, point.size), tuple(hashes), data)


def consistency_proof(folder: Path, old: int) -> ConsistencyProof:
    """The proof that all entries under the checkpoint in `folder` continue the first `old`. Raises `NotFound`
    (`audit_size`), `Invalid`."""
    data = read_checkpoint(folder)
    whole, tiles = parse_checkpoint(parse_note(data).text).size, _CachedTiles(folder)
    if not 0 < old <= whole:
        raise NotFound(
            f"the log has {quantity(whole, 'entry', 'entries')}, so {old} to {whole} cannot be compared",
            code="audit_size",
            hint="Give the size of an earlier checkpoint of this log.",
        )
    hashes = continuation_of(old, whole, lambda start, stop: tiles.subtree(whole, start, stop))
    return ConsistencyProof(old, tuple(hashes), data)


def read_checkpoint(folder: Path) -> bytes:
    """Read the newest checkpoint. Raises `NotFound` (`audit_missing`)."""
    try:
        return (folder / "checkpoint").read_bytes()
    except OSError as error:
        raise NotFound(
            f"there is no checkpoint in {folder}",
            code="audit_missing",
            where=str(folder),
            hint="Give the folder audit of a HOME, or a copy of it.",
        ) from error


def published_key(folder: Path) -> bytes | None:
    """The log.pub that lies beside the log; None where it is missing."""
    try:
        return (folder / "log.pub").read_bytes()
    except OSError:
        return None


def parse_public_key(content: bytes, origin: str) -> VerifierKey:
    """Parse the content of a log.pub, or 32 raw bytes. Raises `Invalid` (`verifier_key`)."""
    if len(content) == 32:
        return VerifierKey(origin, content)
    try:
        return parse_key(content.decode())
    except UnicodeDecodeError as error:
        raise Invalid("no public key of a log", code="verifier_key", hint="Give the content of log.pub.") from error
