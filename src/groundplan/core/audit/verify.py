"""Verifies the audit log from its files alone and names what was altered.

Only the folder is read: no database, no HOME, no network. Files prove integrity up to the checkpoint; that this is the
newest one, or the only one, can only be shown by a checkpoint that somebody else kept (`earlier`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from groundplan.core.audit.checkpoint import Checkpoint, Note, VerifierKey, parse_checkpoint, parse_note
from groundplan.core.audit.merkle import EMPTY_ROOT, leaf_hash, root_of
from groundplan.core.audit.proof import parse_public_key, published_key, read_checkpoint
from groundplan.core.audit.rotate import FOLDER as KEPT_ROTATIONS
from groundplan.core.audit.rotate import key_chain
from groundplan.core.audit.tiles import (
    WIDTH,
    Level,
    Tiles,
    encode_bundle,
    last_tile,
    levels_of,
    partial_tiles,
    read_bundle,
    tile_path,
    tiles_of,
)
from groundplan.core.audit.witness import FOLDER as KEPT_WITNESSES
from groundplan.core.audit.witness import kept_notes
from groundplan.core.errors import GroundplanError, Invalid, NotFound
from groundplan.core.words import quantity

MAX_PROBLEMS = 100
"""How many problems are reported."""
TOO_MANY = 1_000
"""After this many problems the rest is not read: a forged checkpoint may claim any size."""
Progress = Callable[[int, int], None]
"""(entries read, entries in all)"""


@dataclass(frozen=True, slots=True)
class LogProblem:
    """A problem at an entry (its index) or a file (its path)."""

    where: int | str
    message: str

    def __str__(self) -> str:
        return f"{'entry ' if isinstance(self.where, int) else ''}{self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a verification. `root` is the checkpoint's (hex). `signed` says by which key it is signed:
    `unsigned`, `self-signed` (the key lies beside the log) or `trusted key` (the caller gave it). `witnessed` says
    which witnesses signed, when, and over how many entries."""

    ok: bool
    entries: int
    root: str
    signed: str
    problems: tuple[LogProblem, ...]
    witnessed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "entries": self.entries,
            "root": self.root,
            "signed": self.signed,
            "witnessed": list(self.witnessed),
            "problems": [{"at": problem.where, "message": problem.message} for problem in self.problems],
        }


def copy_log(source: Path, target: Path) -> int:
    """Copy the files of the newest checkpoint, also while the log is being written, and return its size.

    `target` is created; other files in it stay. Raises `NotFound`, `Invalid` where files are missing.
    """
    data = read_checkpoint(source)
    size, tiles = parse_checkpoint(parse_note(data).text).size, Tiles(source)
    files: dict[str, bytes] = {"checkpoint": data}
    if (own := published_key(source)) is not None:
        files["log.pub"] = own
    target.mkdir(parents=True, exist_ok=True)
    for index, width in tiles_of(size, 0):
        _copy(target, tile_path("entries", index, width), encode_bundle(tiles.entries(index, width)))
    for level in range(levels_of(size)):
        for index, width in tiles_of(size, level):
            _copy(target, tile_path(level, index, width), b"".join(tiles.hashes(level, index, width)))
    for name, content in files.items():
        _copy(target, name, content)
    for kept in (KEPT_ROTATIONS, KEPT_WITNESSES):
        for path in (source / kept).glob("[!.]*"):
            _copy(target, f"{kept}/{path.name}", path.read_bytes())
    return size


def _copy(target: Path, name: str, content: bytes) -> None:
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def verify(
    folder: Path,
    public_key: bytes | None = None,
    on_progress: Progress | None = None,
    *,
    earlier: Iterable[bytes] = (),
    since: int = 0,
    witnesses: Iterable[VerifierKey] = (),
) -> Verdict:
    """Check every entry and tile in `folder` against its signed checkpoint.

    `since`: the number of entries that an earlier check has verified; of these only the hashes are read. Give the
    checkpoint of that check as `earlier`. Later changes to the files of those entries are found by the next full check.

    `public_key` is the content of a log.pub or 32 raw bytes; without it the log.pub beside the log is used. `earlier`
    are checkpoints of the same log kept elsewhere: the log must continue each of them, and those that a witness has
    signed. `witnesses` are the trusted ones, each of which must have signed; without them the keys that lie beside the
    log are used, and reported as such. After a rotation either key leads to the other. Never raises for the content of
    files.
    """
    check = _Verification(Tiles(folder), on_progress)
    try:
        note = parse_note(read_checkpoint(folder))
        point = parse_checkpoint(note.text)
    except GroundplanError as error:
        return Verdict(False, 0, "", "unsigned", (LogProblem("checkpoint", error.message),))
    signed = check.check_signature(folder, note, point, public_key)
    check.run(point, min(since, point.size))
    for data in earlier:
        check.check_continues(data, point)
    witnessed = check.witnessed(folder, point, tuple(witnesses))
    problems = check.reported()
    return Verdict(not problems, point.size, point.root.hex(), signed, problems, witnessed)


@dataclass(slots=True)
class _Verification:
    tiles: Tiles
    on_progress: Progress | None
    problems: list[LogProblem] = field(default_factory=list)
    misplaced: dict[int, bytes] = field(default_factory=dict)
    """Leaf hashes of entries that are not at their position, by index."""
    last_bundle: tuple[int, Sequence[bytes], Sequence[bytes]] | None = None
    """The last, partial bundle if its entries and hashes differ: its number, the entries' hashes, the stored hashes."""
    keys: Sequence[VerifierKey] = ()
    """The log's key and the keys it was rotated from or to, in the order of their use."""
    mismatched_tiles: list[tuple[str, int, list[int]]] = field(default_factory=list)
    """Tiles that differ from those below: path, the level below, and the indexes of that level's tiles that differ."""

    def add(self, where: int | str, message: str) -> None:
        self.problems.append(LogProblem(where, message))

    def reported(self) -> tuple[LogProblem, ...]:
        """The problems, those of entries first and in their order."""
        found = sorted(
            self.problems, key=lambda reported: reported.where if isinstance(reported.where, int) else sys.maxsize
        )
        rest = len(found) - MAX_PROBLEMS
        if rest <= 0:
            return tuple(found)
        return (*found[:MAX_PROBLEMS], LogProblem("…", f"and {rest} more problems"))

    def check_signature(self, folder: Path, note: Note, point: Checkpoint, given: bytes | None) -> str:
        content = given if given is not None else published_key(folder)
        if content is None:
            self.add("log.pub", "the public key is missing, so the signature cannot be checked")
            return "unsigned"
        try:
            self.keys = key_chain(folder, parse_public_key(content, point.origin))
        except Invalid as error:
            self.add("log.pub", error.message)
            return "unsigned"
        key = self.keys[-1]
        if not note.signed_by(key):
            self.add("checkpoint", f"the checkpoint is not signed by the key {key.encode()}")
            return "unsigned"
        return "trusted key" if given is not None else "self-signed"

    def run(self, point: Checkpoint, since: int) -> None:
        """Read the entries from `since` on and all hashes, and compare the computed root with the checkpoint."""
        rest, row = self._check_entries(point.size, since // WIDTH)
        if self.last_bundle is not None:
            rest = [self._check_last_bundle(point, row, *self.last_bundle)]
        self._report_misplaced(point.size)
        if len(self.problems) > TOO_MANY:
            self.add("checkpoint", "too many problems: not all of the log was read")
            return
        root = self._compute_root(point.size, row, rest)
        self._check_older_copies(point.size)
        self._report_mismatched(root == point.root)
        if root != point.root:
            found = "together with these problems" if self.problems else "entries and tiles agree with each other, so"
            at = " or ".join(self._last_tiles(point.size))
            where = f"; {at} or the checkpoint was altered" if at and not self.problems else ""
            self.add("checkpoint", f"{found} the files give another root than the signed one: {root.hex()}{where}")

    def _compute_root(self, size: int, row: Sequence[bytes], rest: Sequence[bytes]) -> bytes:
        """Compute the root from the full bundles and the last one, and check the tiles of each level on the way."""
        for level in range(1, levels_of(size)):
            row, rest = self._check_level(level, size, row, rest)
        return root_of([*row, *rest]) if row or rest else EMPTY_ROOT

    def _check_last_bundle(
        self, point: Checkpoint, row: Sequence[bytes], index: int, leaves: Sequence[bytes], hashes: Sequence[bytes]
    ) -> bytes:
        """Report whether the last entries or their hashes were altered. No tile above covers them, so those that give
        the signed root are taken as unaltered. Returns the root of the bundle to continue with."""
        root = root_of(leaves)
        if _Verification(self.tiles, None)._compute_root(point.size, row, [root]) == point.root:
            self.add(tile_path(0, index, len(hashes)), "the hash tile was altered; the entries are as signed")
            return root
        self._compare_entries(index * WIDTH, leaves, hashes)
        return root_of(hashes)

    def _report_mismatched(self, held: bool) -> None:
        """Report mismatched tiles: if the root is right without the tile, the tile was altered, else those below it."""
        for tile, below, wrong in self.mismatched_tiles:
            if held:
                self.add(tile, "the tile does not hold the hashes of the tiles below it")
                continue
            for index in wrong:
                self.add(tile_path(below, index), f"its entries and hashes do not give the hash that {tile} holds")

    @staticmethod
    def _last_tiles(size: int) -> list[str]:
        """The paths of the last, partial tiles, which no tile above covers."""
        lasts = [(level, *last_tile(size, level)) for level in range(levels_of(size))]
        return [tile_path(level, index, width) for level, index, width in lasts if width]

    def _check_entries(self, size: int, known: int) -> tuple[list[bytes], list[bytes]]:
        """Return the root of the last, partial bundle (a list of at most one) and the roots of the full bundles.

        The roots of the first `known` bundles are read from the tiles instead of the entries.
        """
        roots = self._stored_roots(size, known)
        rest: list[bytes] = []
        for index, width in islice(tiles_of(size, 0), len(roots), None):
            root = self._check_bundle(index, width, size)
            if width == WIDTH:
                roots.append(root)
            else:
                rest = [root]
            if self.on_progress:
                self.on_progress(index * WIDTH + width, size)
            if len(self.problems) > TOO_MANY:
                break
        return rest, roots

    def _stored_roots(self, size: int, known: int) -> list[bytes]:
        """Read the roots of the first `known` full bundles from level 1; fewer where a tile cannot be read."""
        roots: list[bytes] = []
        for index, width in tiles_of(size, 1):
            stored = self._read_hashes(1, index, width) if len(roots) < known else None
            if stored is None:
                break
            roots += stored
        return roots[:known]

    def _check_bundle(self, index: int, width: int, size: int) -> bytes:
        """Check a bundle against its hash tile and the tile above; return the root to continue with."""
        hashes = self._read_hashes(0, index, width)
        leaves = self._read_leaves(index, width, hashes)
        if leaves == hashes and leaves is not None:
            return root_of(leaves)
        above = self._root_in_parent(index, width, size)
        if leaves is not None and (hashes is None or (above is not None and root_of(leaves) == above)):
            if hashes is not None:
                self.add(tile_path(0, index, width), "the hash tile was altered; the entries are as signed")
            return root_of(leaves)
        if hashes is None:
            return above or EMPTY_ROOT
        if leaves is not None and width != WIDTH:
            self.last_bundle = (index, leaves, hashes)
        elif leaves is not None:
            self._compare_entries(index * WIDTH, leaves, hashes)
        return root_of(hashes)

    def _read_leaves(self, index: int, width: int, hashes: Sequence[bytes] | None) -> list[bytes] | None:
        first = index * WIDTH
        sha256 = hashlib.sha256
        try:
            return [sha256(b"\x00" + entry).digest() for entry in self.tiles.entries(index, width)]
        except NotFound as error:
            self.add(first, f"entries {first} to {first + width - 1} are missing: {error.message}")
        except Invalid:
            entries, _ = read_bundle(self.tiles.read("entries", index, width))
            pairs = enumerate(zip(entries, hashes or [], strict=False))
            broken = next((at for at, (entry, hash) in pairs if leaf_hash(entry) != hash), len(entries))
            self.add(first + broken, "the entry or its length was altered; the rest of its bundle cannot be read")
        except OSError as error:
            self.add(first, f"entries {first} to {first + width - 1} cannot be read: {error.strerror}")
        return None

    def _read_hashes(self, level: int, index: int, width: int) -> list[bytes] | None:
        try:
            return self.tiles.hashes(level, index, width)
        except GroundplanError as error:
            self.add(tile_path(level, index, width), error.message)
        except OSError as error:
            self.add(tile_path(level, index, width), f"the tile cannot be read: {error.strerror}")
        return None

    def _root_in_parent(self, index: int, width: int, size: int) -> bytes | None:
        """The root of a full bundle according to the tile above; None where that cannot be read."""
        if width != WIDTH:
            return None
        parent, offset = divmod(index, WIDTH)
        try:
            return self.tiles.hashes(1, parent, min(WIDTH, (size >> 8) - parent * WIDTH))[offset]
        except (GroundplanError, OSError):
            return None

    def _compare_entries(self, first: int, leaves: Sequence[bytes], hashes: Sequence[bytes]) -> None:
        """Report the entries of one bundle that differ from the hashes they were logged with."""
        if len(leaves) == len(hashes):
            wrong = enumerate(zip(leaves, hashes, strict=True))
            self.misplaced.update({first + at: leaf for at, (leaf, hash) in wrong if leaf != hash})
            return
        present, wanted = set(leaves), set(hashes)
        strange = {offset for offset, leaf in enumerate(leaves) if leaf not in wanted}
        for offset, hash in enumerate(hashes):
            if hash in present:
                continue
            if offset in strange:
                strange.discard(offset)
                self.misplaced[first + offset] = leaves[offset]
            else:
                self.add(first + offset, "the entry is missing")
        for offset in sorted(strange):
            self.add(first + offset, "an entry was added that was never logged")
        kept = list(dict.fromkeys(leaf for leaf in leaves if leaf in wanted))
        expected = [hash for hash in hashes if hash in present]
        if sum(leaf in wanted for leaf in leaves) > len(kept):
            self.add(first, "an entry stands in this bundle more than once")
        places = {hash: first + offset for offset, hash in enumerate(hashes)}
        for hash, leaf in zip(expected, kept, strict=True):
            if hash != leaf:
                self.add(places[hash], f"the entry was reordered: entry {places[leaf]} stands in its place")

    def _report_misplaced(self, size: int) -> None:
        """Report for each misplaced entry whether it was altered or moved from another position."""
        if not self.misplaced or len(self.problems) > TOO_MANY:
            return
        wanted = set(self.misplaced.values())
        home: dict[bytes, int] = {}
        for index, width in tiles_of(size, 0):
            try:
                hashes = self.tiles.hashes(0, index, width)
            except (GroundplanError, OSError):
                continue
            home.update({hash: index * WIDTH + at for at, hash in enumerate(hashes) if hash in wanted})
        for index, leaf in self.misplaced.items():
            if leaf in home:
                self.add(index, f"the entry was reordered: entry {home[leaf]} stands in its place")
            else:
                self.add(index, "the entry was altered")

    def _check_level(
        self, level: int, size: int, row: Sequence[bytes], rest: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """Check the tiles of a level against `row`, computed from below; return the row above and the partial rest."""
        up: list[bytes] = []
        tail = list(rest)
        for index, width in tiles_of(size, level):
            computed = list(row[index * WIDTH : index * WIDTH + width])
            stored = self._read_hashes(level, index, width)
            if stored is not None and stored != computed:
                pairs = enumerate(zip(stored, computed, strict=False))
                wrong = [index * WIDTH + at for at, (have, want) in pairs if have != want]
                self.mismatched_tiles.append((tile_path(level, index, width), level - 1, wrong))
            if width == WIDTH:
                up.append(root_of(computed))
            else:
                tail = [root_of([*computed, *rest])]
        return up, tail

    def _check_older_copies(self, size: int) -> None:
        """Check that narrower copies of the last tiles, made for earlier checkpoints, are prefixes of the present
        ones."""
        for level in ("entries", *range(levels_of(size))):
            index, width = last_tile(size, level)
            older = [path for at, path in partial_tiles(self.tiles.folder, level, index) if at < width]
            if not older:
                continue
            try:
                whole = self.tiles.read(level, index, width)
                copies = {path: path.read_bytes() for path in older}
            except (GroundplanError, OSError):
                continue
            for path, data in copies.items():
                if not whole.startswith(data):
                    name = str(path.relative_to(self.tiles.folder))
                    self._report_older_copy(level, index, name, data, whole)

    def _report_older_copy(self, level: Level, index: int, name: str, data: bytes, whole: bytes) -> None:
        if level != "entries":
            self.add(name, "an older copy of this tile was altered")
            return
        pairs = enumerate(zip(read_bundle(data)[0], read_bundle(whole)[0], strict=False))
        at = next((at for at, (old, new) in pairs if old != new), len(read_bundle(data)[0]))
        self.add(index * WIDTH + at, f"the entry was altered in an older copy, {name}")

    def witnessed(self, folder: Path, point: Checkpoint, trusted: tuple[VerifierKey, ...]) -> tuple[str, ...]:
        """Check that the log continues what witnesses signed, and that each trusted one has signed; return who signed,
        in words."""
        kept = kept_notes(folder)
        reported: list[str] = []
        for witness, note in kept:
            at = note.cosigned(witness)
            if trusted and witness not in trusted:
                continue
            if at is None:
                self.add(f"witness {witness.name}", "what lies beside the log is not signed by this witness")
                continue
            self.check_continues(note.encode(), point, f"checkpoint that {witness.name} signed")
            beside = "" if trusted else " (its key lies beside the log)"
            size = quantity(parse_checkpoint(note.text).size, "entry", "entries")
            reported.append(f"witnessed by {witness.name} at {at:%Y-%m-%dT%H:%M:%SZ}, {size}{beside}")
        signed = {witness for witness, _ in kept}
        for missing in (witness for witness in dict.fromkeys(trusted) if witness not in signed):
            self.add(f"witness {missing.name}", "no checkpoint that this witness has signed lies beside the log")
        return tuple(reported)

    def check_continues(self, data: bytes, point: Checkpoint, name: str = "earlier checkpoint") -> None:
        """Check that the log continues a checkpoint that was kept elsewhere."""
        try:
            note = parse_note(data)
            old = parse_checkpoint(note.text)
            signed = any(note.signed_by(key) for key in self.keys)
        except Invalid as error:
            self.add(name, error.message)
            return
        name = f"{name} of {quantity(old.size, 'entry', 'entries')}"
        if old.origin != point.origin or not signed:
            self.add(name, "it is not from this log")
        elif old.size > point.size:
            self.add(name, f"the log was cut: it has {quantity(point.size, 'entry', 'entries')}")
        elif old.size and self._root_at(old.size, point.size) != old.root:
            self.add(name, "the log was rewritten: its first entries are not those that were signed then")

    def _root_at(self, size: int, whole: int) -> bytes | None:
        try:
            return self.tiles.subtree(whole, 0, size)
        except (GroundplanError, OSError, IndexError):
            return None
