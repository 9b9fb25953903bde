"""Verification of the audit log from its files alone, naming what was altered, and proofs for single entries.

Only the folder is read: no database, no HOME, no network. Files prove integrity up to the checkpoint; that this is the
newest one, or the only one, is shown by a checkpoint that somebody else kept (`earlier`).
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
from groundplan.core.audit.proof import checkpoint_file, key_of, own_key
from groundplan.core.audit.rotate import FOLDER as KEPT_ROTATIONS
from groundplan.core.audit.rotate import followed
from groundplan.core.audit.tiles import (
    WIDTH,
    Level,
    Tiles,
    encode_bundle,
    last_tile,
    levels_of,
    partials,
    readable,
    tile_path,
    tiles_of,
)
from groundplan.core.audit.witness import FOLDER as KEPT_WITNESSES
from groundplan.core.audit.witness import kept_notes
from groundplan.core.errors import GroundplanError, Invalid, NotFound
from groundplan.core.words import quantity

MOST_PROBLEMS = 100
"""How many are told."""
TOO_MANY = 1_000
"""After so many the rest is not read: a forged checkpoint may claim any size."""
Progress = Callable[[int, int], None]
"""(entries read, entries in all)"""


@dataclass(frozen=True, slots=True)
class LogProblem:
    """What does not hold, at an entry (its index) or a file (its path)."""

    where: int | str
    message: str

    def __str__(self) -> str:
        return f"{'entry ' if isinstance(self.where, int) else ''}{self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found. `root` is that of the checkpoint (hex); `signed` says by which key, in words:
    `unsigned`, `self-signed` (the key lies beside the log) or `trusted key` (the caller gave it). `witnessed` says who
    else signed, when, and over how many entries; empty where nobody did."""

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

    `target` is made; what else is in it stays. Raises `NotFound`, `Invalid` where files lack.
    """
    data = checkpoint_file(source)
    size, tiles = parse_checkpoint(parse_note(data).text).size, Tiles(source)
    files: dict[str, bytes] = {"checkpoint": data}
    if (own := own_key(source)) is not None:
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

    `since`: of that many entries, which were checked before, only the hashes are read; give the checkpoint of that
    check as `earlier`. What is altered in those entries' files later on is found by the next check of everything.

    `public_key` is the content of a log.pub or 32 raw bytes; without it the log.pub beside the log is used. `earlier`
    are checkpoints of the same log kept elsewhere: the log must continue each of them, and those that a witness has
    signed. `witnesses` are the trusted ones, each of which must have signed; without them the keys that lie beside the
    log are used, and told as such. After a rotation either key leads to the other. Never raises for what is in the
    files.
    """
    check = _Check(Tiles(folder), on_progress)
    try:
        note = parse_note(checkpoint_file(folder))
        point = parse_checkpoint(note.text)
    except GroundplanError as error:
        return Verdict(False, 0, "", "unsigned", (LogProblem("checkpoint", error.message),))
    signed = check.signature(folder, note, point, public_key)
    check.run(point, min(since, point.size))
    for data in earlier:
        check.continues(data, point)
    witnessed = check.witnessed(folder, point, tuple(witnesses))
    problems = check.told()
    return Verdict(not problems, point.size, point.root.hex(), signed, problems, witnessed)


@dataclass(slots=True)
class _Check:
    tiles: Tiles
    on_progress: Progress | None
    problems: list[LogProblem] = field(default_factory=list)
    foreign: dict[int, bytes] = field(default_factory=dict)
    """Leaf hashes of entries that are not where they belong, by index."""
    last: tuple[int, Sequence[bytes], Sequence[bytes]] | None = None
    """The last, partial bundle where entries and hashes differ: its number, the entries' hashes, the stored ones."""
    keys: Sequence[VerifierKey] = ()
    """The log's key and those that it was rotated from or to, in the order of their use."""
    unlike: list[tuple[str, int, list[int]]] = field(default_factory=list)
    """Tiles that differ from those below: their path, the level below, and which tiles of it differ."""

    def add(self, where: int | str, message: str) -> None:
        self.problems.append(LogProblem(where, message))

    def told(self) -> tuple[LogProblem, ...]:
        """The problems, those of entries first and in their order."""
        found = sorted(self.problems, key=lambda told: told.where if isinstance(told.where, int) else sys.maxsize)
        rest = len(found) - MOST_PROBLEMS
        if rest <= 0:
            return tuple(found)
        return (*found[:MOST_PROBLEMS], LogProblem("…", f"and {rest} more problems"))

    def signature(self, folder: Path, note: Note, point: Checkpoint, given: bytes | None) -> str:
        content = given if given is not None else own_key(folder)
        if content is None:
            self.add("log.pub", "the public key is missing, so the signature cannot be checked")
            return "unsigned"
        try:
            self.keys = followed(folder, key_of(content, point.origin))
        except Invalid as error:
            self.add("log.pub", error.message)
            return "unsigned"
        key = self.keys[-1]
        if not note.signed_by(key):
            self.add("checkpoint", f"the checkpoint is not signed by the key {key.encode()}")
            return "unsigned"
        return "trusted key" if given is not None else "self-signed"

    def run(self, point: Checkpoint, since: int) -> None:
        """Read the entries from `since` on and all hashes, and compare them with the checkpoint."""
        rest, row = self._entries(point.size, since // WIDTH)
        if self.last is not None:
            rest = [self._last_bundle(point, row, *self.last)]
        self._name_foreign(point.size)
        if len(self.problems) > TOO_MANY:
            self.add("checkpoint", "too many problems: not all of the log was read")
            return
        root = self._climbed(point.size, row, rest)
        self._older_copies(point.size)
        self._name_unlike(root == point.root)
        if root != point.root:
            found = "together with these problems" if self.problems else "entries and tiles agree with each other, so"
            at = " or ".join(self._unconfirmed(point.size))
            where = f"; {at} or the checkpoint was altered" if at and not self.problems else ""
            self.add("checkpoint", f"{found} the files give another root than the signed one: {root.hex()}{where}")

    def _climbed(self, size: int, row: Sequence[bytes], rest: Sequence[bytes]) -> bytes:
        """The root over full bundles and the last one, which the tiles on the way are checked against."""
        for level in range(1, levels_of(size)):
            row, rest = self._level(level, size, row, rest)
        return root_of([*row, *rest]) if row or rest else EMPTY_ROOT

    def _last_bundle(
        self, point: Checkpoint, row: Sequence[bytes], index: int, leaves: Sequence[bytes], hashes: Sequence[bytes]
    ) -> bytes:
        """Tell whether the last entries or their hashes were altered, which no tile above says: those that give the
        signed root are as they were. Returns the root of the bundle to go on with."""
        root = root_of(leaves)
        if _Check(self.tiles, None)._climbed(point.size, row, [root]) == point.root:
            self.add(tile_path(0, index, len(hashes)), "the hash tile was altered; the entries are as signed")
            return root
        self._compare(index * WIDTH, leaves, hashes)
        return root_of(hashes)

    def _name_unlike(self, held: bool) -> None:
        """A tile that differs from those below it was altered where the root holds without it; else those below."""
        for tile, below, wrong in self.unlike:
            if held:
                self.add(tile, "the tile does not hold the hashes of the tiles below it")
                continue
            for index in wrong:
                self.add(tile_path(below, index), f"its entries and hashes do not give the hash that {tile} holds")

    @staticmethod
    def _unconfirmed(size: int) -> list[str]:
        """The last, partial tiles, which no tile above confirms."""
        lasts = [(level, *last_tile(size, level)) for level in range(levels_of(size))]
        return [tile_path(level, index, width) for level, index, width in lasts if width]

    def _entries(self, size: int, known: int) -> tuple[list[bytes], list[bytes]]:
        """(the leaf hashes of the last, partial bundle as one root, roots of the full bundles)

        The roots of the first `known` bundles are taken as they are stored.
        """
        roots = self._stored_roots(size, known)
        rest: list[bytes] = []
        for index, width in islice(tiles_of(size, 0), len(roots), None):
            root = self._bundle(index, width, size)
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
        """The roots of the first `known` full bundles from the tiles above them; fewer where one cannot be read."""
        roots: list[bytes] = []
        for index, width in tiles_of(size, 1):
            stored = self._hashes(1, index, width) if len(roots) < known else None
            if stored is None:
                break
            roots += stored
        return roots[:known]

    def _bundle(self, index: int, width: int, size: int) -> bytes:
        """Check one bundle against its hash tile, the tile against the one above; return the root to go on with."""
        hashes = self._hashes(0, index, width)
        leaves = self._leaves(index, width, hashes)
        if leaves == hashes and leaves is not None:
            return root_of(leaves)
        above = self._above(index, width, size)
        if leaves is not None and (hashes is None or (above is not None and root_of(leaves) == above)):
            if hashes is not None:
                self.add(tile_path(0, index, width), "the hash tile was altered; the entries are as signed")
            return root_of(leaves)
        if hashes is None:
            return above or EMPTY_ROOT
        if leaves is not None and width != WIDTH:
            self.last = (index, leaves, hashes)
        elif leaves is not None:
            self._compare(index * WIDTH, leaves, hashes)
        return root_of(hashes)

    def _leaves(self, index: int, width: int, hashes: Sequence[bytes] | None) -> list[bytes] | None:
        first = index * WIDTH
        sha256 = hashlib.sha256
        try:
            return [sha256(b"\x00" + entry).digest() for entry in self.tiles.entries(index, width)]
        except NotFound as error:
            self.add(first, f"entries {first} to {first + width - 1} are missing: {error.message}")
        except Invalid:
            entries, _ = readable(self.tiles.read("entries", index, width))
            pairs = enumerate(zip(entries, hashes or [], strict=False))
            broken = next((at for at, (entry, hash) in pairs if leaf_hash(entry) != hash), len(entries))
            self.add(first + broken, "the entry or its length was altered; the rest of its bundle cannot be read")
        except OSError as error:
            self.add(first, f"entries {first} to {first + width - 1} cannot be read: {error.strerror}")
        return None

    def _hashes(self, level: int, index: int, width: int) -> list[bytes] | None:
        try:
            return self.tiles.hashes(level, index, width)
        except GroundplanError as error:
            self.add(tile_path(level, index, width), error.message)
        except OSError as error:
            self.add(tile_path(level, index, width), f"the tile cannot be read: {error.strerror}")
        return None

    def _above(self, index: int, width: int, size: int) -> bytes | None:
        """The root of a full bundle as the tile above has it; None where there is none."""
        if width != WIDTH:
            return None
        parent, offset = divmod(index, WIDTH)
        try:
            return self.tiles.hashes(1, parent, min(WIDTH, (size >> 8) - parent * WIDTH))[offset]
        except (GroundplanError, OSError):
            return None

    def _compare(self, first: int, leaves: Sequence[bytes], hashes: Sequence[bytes]) -> None:
        """Name the entries of one bundle that differ from the hashes they were logged with."""
        if len(leaves) == len(hashes):
            wrong = enumerate(zip(leaves, hashes, strict=True))
            self.foreign.update({first + at: leaf for at, (leaf, hash) in wrong if leaf != hash})
            return
        present, wanted = set(leaves), set(hashes)
        strange = {offset for offset, leaf in enumerate(leaves) if leaf not in wanted}
        for offset, hash in enumerate(hashes):
            if hash in present:
                continue
            if offset in strange:
                strange.discard(offset)
                self.foreign[first + offset] = leaves[offset]
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

    def _name_foreign(self, size: int) -> None:
        """Say of each entry that does not belong where it stands whether it is altered or comes from elsewhere."""
        if not self.foreign or len(self.problems) > TOO_MANY:
            return
        wanted = set(self.foreign.values())
        home: dict[bytes, int] = {}
        for index, width in tiles_of(size, 0):
            try:
                hashes = self.tiles.hashes(0, index, width)
            except (GroundplanError, OSError):
                continue
            home.update({hash: index * WIDTH + at for at, hash in enumerate(hashes) if hash in wanted})
        for index, leaf in self.foreign.items():
            if leaf in home:
                self.add(index, f"the entry was reordered: entry {home[leaf]} stands in its place")
            else:
                self.add(index, "the entry was altered")

    def _level(
        self, level: int, size: int, row: Sequence[bytes], rest: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """Check the tiles of a level against `row` computed from below; return the row above and the ragged rest."""
        up: list[bytes] = []
        tail = list(rest)
        for index, width in tiles_of(size, level):
            computed = list(row[index * WIDTH : index * WIDTH + width])
            stored = self._hashes(level, index, width)
            if stored is not None and stored != computed:
                pairs = enumerate(zip(stored, computed, strict=False))
                wrong = [index * WIDTH + at for at, (have, want) in pairs if have != want]
                self.unlike.append((tile_path(level, index, width), level - 1, wrong))
            if width == WIDTH:
                up.append(root_of(computed))
            else:
                tail = [root_of([*computed, *rest])]
        return up, tail

    def _older_copies(self, size: int) -> None:
        """Narrower copies of the last tiles, made for earlier checkpoints, must be beginnings of the present ones."""
        for level in ("entries", *range(levels_of(size))):
            index, width = last_tile(size, level)
            older = [path for at, path in partials(self.tiles.folder, level, index) if at < width]
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
                    self._older_copy(level, index, name, data, whole)

    def _older_copy(self, level: Level, index: int, name: str, data: bytes, whole: bytes) -> None:
        if level != "entries":
            self.add(name, "an older copy of this tile was altered")
            return
        pairs = enumerate(zip(readable(data)[0], readable(whole)[0], strict=False))
        at = next((at for at, (old, new) in pairs if old != new), len(readable(data)[0]))
        self.add(index * WIDTH + at, f"the entry was altered in an older copy, {name}")

    def witnessed(self, folder: Path, point: Checkpoint, trusted: tuple[VerifierKey, ...]) -> tuple[str, ...]:
        """Check that the log continues what witnesses signed, and that the trusted ones did sign; who did, in words."""
        kept = kept_notes(folder)
        told: list[str] = []
        for witness, note in kept:
            at = note.cosigned(witness)
            if trusted and witness not in trusted:
                continue
            if at is None:
                self.add(f"witness {witness.name}", "what lies beside the log is not signed by this witness")
                continue
            self.continues(note.encode(), point, f"checkpoint that {witness.name} signed")
            beside = "" if trusted else " (its key lies beside the log)"
            size = quantity(parse_checkpoint(note.text).size, "entry", "entries")
            told.append(f"witnessed by {witness.name} at {at:%Y-%m-%dT%H:%M:%SZ}, {size}{beside}")
        signed = {witness for witness, _ in kept}
        for missing in (witness for witness in dict.fromkeys(trusted) if witness not in signed):
            self.add(f"witness {missing.name}", "no checkpoint that this witness has signed lies beside the log")
        return tuple(told)

    def continues(self, data: bytes, point: Checkpoint, name: str = "earlier checkpoint") -> None:
        """Check that the log continues a checkpoint from elsewhere."""
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
