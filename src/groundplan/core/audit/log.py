"""The files of the audit log, written: tiles first, then the checkpoint that vouches for them, each made durable.

The files are the truth up to the checkpoint. What a crash leaves beyond it is overwritten: no append writes a file that
the durable checkpoint needs. Does not talk to the database (`sequencer.py`) and proves nothing (`verify.py`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from groundplan.core.audit.checkpoint import Checkpoint, VerifierKey, log_origin, parse_checkpoint, parse_note, sign
from groundplan.core.audit.merkle import EMPTY_ROOT, leaf_hash, root_of
from groundplan.core.audit.tiles import WIDTH, Tiles, encode_bundle, last_tile, levels_of, tile_path
from groundplan.core.errors import Conflict, GroundplanError, Unavailable
from groundplan.core.home import sync_folder, write_atomically

NEXT_CHECKPOINT = ".checkpoint.next"
"""The file that holds the next checkpoint until it is renamed into place."""
SYNC_THREADS = 8
"""Threads that sync files: a disk puts many concurrent syncs into one of its own commits."""


class AuditLog:
    """One log, open for appending by one process (flock on `lock` in its folder). Close it, or use `with`.

    After `append` has failed, it accepts no more entries; reopen it, which starts from the last durable checkpoint.
    """

    def __init__(self, folder: Path, key: Ed25519PrivateKey) -> None:
        """Open or begin the log in `folder`.

        Raises `Conflict` (`audit_locked`: another process writes it; `audit_foreign`: not signed with `key`;
        `audit_damaged`: the files do not give the root of the checkpoint).
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._key = key
        public = key.public_key().public_bytes_raw()
        self._public = VerifierKey(read_origin(folder) or log_origin(public), public)
        self._known_folders: set[Path] = {folder}
        self._clean_folders: set[Path] = set()
        self._is_usable = False
        self._sync_pool = ThreadPoolExecutor(SYNC_THREADS, "audit-sync")
        self._lock = _lock(folder)
        try:
            self._checkpoint = self._read_checkpoint()
            self._bundle, self._rows = self._read_frontier()
            self._delete_stray_partials()
            write_atomically(folder / "log.pub", self._public.encode().encode() + b"\n", 0o644)
        except BaseException:
            self._sync_pool.shutdown()
            os.close(self._lock)
            raise
        self._is_usable = True

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest durable checkpoint."""
        return self._checkpoint

    @property
    def tiles(self) -> Tiles:
        """A reader of the files."""
        return Tiles(self._folder)

    def append(self, entries: Sequence[bytes]) -> Checkpoint:
        """Add entries, all of them or none, durably (group commit) and return the new checkpoint.

        Each entry is at most 65,535 bytes. Raises `Unavailable` (`audit_write`) where the disk refuses.
        """
        if not self._is_usable:
            raise Unavailable(
                "the audit log is closed after an error", code="audit_closed", hint="Open it again.", retry_after=1
            )
        if not entries:
            return self._checkpoint
        self._is_usable = False
        full, files = self._add_to_frontier(entries)
        size = self._checkpoint.size + len(entries)
        checkpoint = Checkpoint(self._public.name, size, _root_of_rows(self._rows))
        try:
            # Signed before the rest is durable, but not to be seen before that: the rename comes last.
            note = sign(checkpoint.text(), self._key, self._public.name)
            self._write([*files, (NEXT_CHECKPOINT, note.encode())])
            (self._folder / NEXT_CHECKPOINT).replace(self._folder / "checkpoint")
            sync_folder(self._folder)
            self._drop_partials(full)
        except OSError as error:
            raise Unavailable(
                f"the audit log cannot be written: {error.strerror}",
                code="audit_write",
                hint="Free space on the disk of HOME, or repair it; entries wait in the database until then.",
                retry_after=5,
            ) from error
        self._checkpoint = checkpoint
        self._is_usable = True
        return checkpoint

    def close(self) -> None:
        """Release the lock, so that another process may write. Safe to repeat."""
        self._is_usable = False
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._sync_pool.shutdown()

    def _read_checkpoint(self) -> Checkpoint:
        try:
            data = (self._folder / "checkpoint").read_bytes()
        except FileNotFoundError:
            return Checkpoint(self._public.name, 0, EMPTY_ROOT)
        note = parse_note(data)
        if not note.signed_by(self._public):
            raise Conflict(
                "the audit log was not signed with the checkpoint key of this HOME",
                code="audit_foreign",
                where=str(self._folder / "checkpoint"),
                hint="Restore audit and keys from the same backup, or find out who changed the checkpoint.",
            )
        return parse_checkpoint(note.text)

    def _read_frontier(self) -> tuple[list[bytes], list[list[bytes]]]:
        """Return the entries of the last, partial bundle and the hashes of the partial tile of each level."""
        size, tiles = self._checkpoint.size, Tiles(self._folder)
        rows: list[list[bytes]] = []
        bundle: list[bytes] = []
        problem = ""
        try:
            for level in range(levels_of(size)):
                index, width = divmod(size >> (8 * level), WIDTH)
                rows.append(tiles.hashes(level, index, width) if width else [])
            if size % WIDTH:
                bundle = tiles.entries(size // WIDTH, size % WIDTH)
        except GroundplanError as error:
            problem = error.message
        if (
            problem
            or _root_of_rows(rows) != self._checkpoint.root
            or [leaf_hash(e) for e in bundle] != (rows or [[]])[0]
        ):
            raise Conflict(
                f"the audit log is damaged: {problem or 'its last tiles do not give the root of the checkpoint'}",
                code="audit_damaged",
                where=str(self._folder),
                hint="Run `groundplan audit verify` to see what changed, then restore the folder audit from a copy.",
            )
        return bundle, rows

    def _delete_stray_partials(self) -> None:
        """Delete partial tiles that a crash left beyond the checkpoint; those that stay were signed once."""
        size = self._checkpoint.size
        for level in ("entries", *range(levels_of(size))):
            index, width = last_tile(size, level)
            folder = self._folder / f"{tile_path(level, index)}.p"
            if folder.exists():
                for path in folder.iterdir():
                    if not path.name.isdigit() or int(path.name) > width:
                        path.unlink()
                self._clean_folders.add(folder)

    def _add_to_frontier(self, entries: Sequence[bytes]) -> tuple[list[str], list[tuple[str, bytes]]]:
        """Add entries to the frontier. Returns the paths of tiles that became full, and the files to write."""
        full: list[str] = []
        files: list[tuple[str, bytes]] = []
        size = self._checkpoint.size
        for entry in entries:
            self._bundle.append(entry)
            size += 1
            if not self._rows:
                self._rows.append([])
            self._rows[0].append(leaf_hash(entry))
            if len(self._bundle) == WIDTH:
                self._close_bundle(size, full, files)
        before = self._checkpoint.size
        for level, row in enumerate(self._rows):
            # A tile that did not grow is in use by the durable checkpoint and must not be written again.
            if row and size >> (8 * level) != before >> (8 * level):
                files.append((tile_path(level, (size >> (8 * level)) // WIDTH, len(row)), b"".join(row)))
        if self._bundle:
            files.append((tile_path("entries", size // WIDTH, len(self._bundle)), encode_bundle(self._bundle)))
        return full, files

    def _close_bundle(self, size: int, full: list[str], files: list[tuple[str, bytes]]) -> None:
        path = tile_path("entries", size // WIDTH - 1)
        full.append(path)
        files.append((path, encode_bundle(self._bundle)))
        self._bundle = []
        level = 0
        while level < len(self._rows) and len(self._rows[level]) == WIDTH:
            path = tile_path(level, (size >> (8 * level)) // WIDTH - 1)
            full.append(path)
            files.append((path, b"".join(self._rows[level])))
            if level + 1 == len(self._rows):
                self._rows.append([])
            self._rows[level + 1].append(root_of(self._rows[level]))
            self._rows[level] = []
            level += 1

    def _write(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Write files, then make all of them and their names durable."""
        folders: set[Path] = set()
        descriptors: list[int] = []
        try:
            for name, data in files:
                path = self._folder / name
                self._make_folder(path.parent, folders)
                folders.add(path.parent)
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                descriptors.append(descriptor)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            syncs: list[Callable[[], None]] = [partial(os.fdatasync, descriptor) for descriptor in descriptors]
            syncs += [partial(sync_folder, folder) for folder in folders]
            done, _ = wait([self._sync_pool.submit(sync) for sync in syncs])  # all, before any of them is closed
            for one in done:
                one.result()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _make_folder(self, folder: Path, changed: set[Path]) -> None:
        if folder in self._known_folders:
            return
        self._make_folder(folder.parent, changed)
        if folder.name.endswith(".p") and folder not in self._clean_folders:
            _remove_folder(folder)  # left by a crash, of a tile that was never signed
            self._clean_folders.add(folder)
        # A folder of partial tiles is deleted once its tile is full, so it is not remembered.
        if not folder.exists():
            folder.mkdir(mode=0o700)
            changed.add(folder.parent)
        if not folder.name.endswith(".p"):
            self._known_folders.add(folder)

    def _drop_partials(self, full: Sequence[str]) -> None:
        for name in full:
            folder = self._folder / f"{name}.p"
            _remove_folder(folder)
            self._clean_folders.discard(folder)


def read_origin(folder: Path) -> str | None:
    """The name of the log in a folder, or None where it has no checkpoint yet. Rotating the key keeps the name."""
    try:
        return parse_checkpoint(parse_note((folder / "checkpoint").read_bytes()).text).origin
    except FileNotFoundError:
        return None


def _remove_folder(folder: Path) -> None:
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(
            f"another process writes the audit log in {folder}",
            code="audit_locked",
            hint="One `up` writes a HOME; stop the other one.",
        ) from error
    return descriptor


def _root_of_rows(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Compute the root from the partial tiles of all levels: the root of a level's rest is the last hash above it."""
    rest: list[bytes] = []
    for row in rows:
        hashes = [*row, *rest]
        rest = [root_of(hashes)] if hashes else []
    return rest[0] if rest else EMPTY_ROOT
