"""Sealed copies of the log in another store: full tiles never change, so each is written once and locked there.

Any store that `fsspec` knows (`file:///…`, `s3://…`); where it can lock objects (S3 Object Lock) they are locked in
compliance mode until the given day. Entries, hashes, the newest checkpoint, rotations and co-signatures are copied,
private keys never. The copy can be verified like the log itself. Reads only the log's files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from groundplan.core.audit.checkpoint import parse_checkpoint, parse_note
from groundplan.core.audit.proof import read_checkpoint
from groundplan.core.audit.tiles import WIDTH, Tiles, encode_bundle, levels_of, tile_path, tiles_of
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.file_store import is_local
from groundplan.core.home import remove_stale_temporaries, temporary_path

BESIDE = ("log.pub", "rotated", "witnessed")


@dataclass(frozen=True, slots=True)
class SealResult:
    """What a run wrote: the numbers of files of full tiles (`segments`), of other files, and of entries in the copy."""

    entries: int
    segments: int
    others: int


def seal(folder: Path, target: str, locked_until: datetime | None = None) -> SealResult:
    """Bring the copy at `target` up to the newest checkpoint. Full tiles that it has are not written again.

    Raises `Invalid` (`seal_target`), `Unavailable` (`seal_store`).
    """
    store, root = _resolve_store(target)
    data = read_checkpoint(folder)
    size = parse_checkpoint(parse_note(data).text).size
    segments = others = 0
    try:
        for path, content in _full_tiles(folder, size):
            if not _exists_whole(store, f"{root}/{path}", content):
                _put(store, f"{root}/{path}", content, locked_until)
                segments += 1
        for path, content in _partial_files(folder, size):
            _put(store, f"{root}/{path}", content, None)
            others += 1
        if is_local(store):
            os.sync()  # everything that the checkpoint covers must be durable before it
        _put(store, f"{root}/checkpoints/{size}", data, locked_until)
        _put(store, f"{root}/checkpoint", data, None)
    except OSError as error:
        raise Unavailable(
            f"the store {target} cannot be written: {error}", code="seal_store", hint="Check its address and rights.",
            retry_after=60,
        ) from error  # fmt: skip
    return SealResult(size, segments, others + 2)


def _full_tiles(folder: Path, size: int) -> Iterator[tuple[str, bytes]]:
    tiles = Tiles(folder)
    for index, width in tiles_of(size, 0):
        if width == WIDTH:
            yield tile_path("entries", index), tiles.read("entries", index)
    for level in range(levels_of(size)):
        for index, width in tiles_of(size, level):
            if width == WIDTH:
                yield tile_path(level, index), tiles.read(level, index)


def _partial_files(folder: Path, size: int) -> Iterator[tuple[str, bytes]]:
    tiles = Tiles(folder)
    for index, width in tiles_of(size, 0):
        if width < WIDTH:
            yield tile_path("entries", index, width), encode_bundle(tiles.entries(index, width))
    for level in range(levels_of(size)):
        for index, width in tiles_of(size, level):
            if width < WIDTH:
                yield tile_path(level, index, width), b"".join(tiles.hashes(level, index, width))
    for name in BESIDE:
        path = folder / name
        for each in [path] if path.is_file() else sorted(path.glob("[!.]*")):
            yield str(each.relative_to(folder)), each.read_bytes()


def _resolve_store(target: str) -> tuple[Any, str]:
    try:
        import fsspec  # noqa: PLC0415 -- heavy: only who seals needs it
    except ImportError as error:
        raise Invalid("fsspec is not installed", code="seal_target", hint="pip install fsspec (and s3fs)") from error

    try:
        store, root = fsspec.core.url_to_fs(target)
    except (ValueError, ImportError) as error:
        raise Invalid(
            f"no store: {target}: {error}", code="seal_target", hint="Write file:///PATH or s3://BUCKET/PATH."
        ) from error
    return store, str(root).rstrip("/")


def _put(store: Any, path: str, content: bytes, locked_until: datetime | None) -> None:
    store.makedirs(path.rpartition("/")[0], exist_ok=True)
    if is_local(store):
        _write_whole(Path(path), content)
    elif locked_until is None or not _can_lock(store):
        store.pipe_file(path, content)
    else:
        lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": locked_until}
        with store.open(path, "wb", **lock) as file:
            file.write(content)


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, as an object store does: an existing file is not written again."""
    made = temporary_path(path)
    remove_stale_temporaries(path)
    try:
        made.write_bytes(content)
        made.replace(path)
    except OSError:
        made.unlink(missing_ok=True)
        raise


def _exists_whole(store: Any, path: str, content: bytes) -> bool:
    """Whether a file exists completely: a loss of power may have left a part of it."""
    try:
        return bool(store.info(path)["size"] == len(content))
    except FileNotFoundError:
        return False


def _can_lock(store: Any) -> bool:
    """Whether the store can lock objects, which S3 stores can."""
    names = store.protocol if isinstance(store.protocol, tuple) else (store.protocol,)
    return "s3" in names
