"""Archives that can be verified: a compressed tar whose last member lists every other with its SHA-256. Does not know
the content of the files, and does not encrypt: an archive is as secret as what is in it.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from groundplan.core.errors import Conflict, Invalid, Unavailable
from groundplan.core.home import remove_stale_temporaries, sync_folder, temporary_path

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
_BLOCK = 1 << 20
_PAGE = 4096
"""What a file system reads and writes as one."""
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DAMAGE_ERRNOS = (None, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""Values of OSError.errno that mean a damaged archive: gzip reports wrong checksums and headers without a number; the
others come from names in the archive that conflict or are not possible."""


@dataclass
class Writer:
    """Adds files to an archive that is being written."""

    _tar: tarfile.TarFile
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, path: Path) -> None:
        """Add a file with its present size, even if it grows meanwhile."""
        with path.open("rb") as source:
            self._add(name, source, os.fstat(source.fileno()).st_size)

    def add_growing(self, name: str, path: Path) -> None:
        """Add a file that is being appended to, so that the copy is a prefix of the final file. Simply reading it from
        the beginning could miss a write and still include a later one."""
        with path.open("rb") as source:
            data = bytearray(os.fstat(source.fileno()).st_size)
            for at in reversed(range(0, len(data), _PAGE)):
                part = os.pread(source.fileno(), min(_PAGE, len(data) - at), at)
                data[at : at + len(part)] = part
        self._add(name, io.BytesIO(data), len(data))

    def _add(self, name: str, source: IO[bytes], size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        reader = _Hashing(source)
        self._tar.addfile(info, reader)
        self.files[name] = {"bytes": size, "sha256": reader.hash.hexdigest()}


class _Hashing:
    """Wraps a file and hashes what is read from it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.hash.update(data)
        return data


@contextmanager
def write_archive(target: Path, facts: Mapping[str, Any]) -> Iterator[Writer]:
    """Make `target` (0600), which appears only once it is complete and durable; `facts` go into its manifest.

    Raises `Conflict` (`archive_exists`), `Unavailable` (`archive_write`).
    """
    if target.exists():
        raise Conflict(f"{target} exists already", code="archive_exists", hint="Choose another name, or move it away.")
    temporary, made = temporary_path(target), False
    remove_stale_temporaries(target)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
                writer = Writer(tar)
                yield writer
                manifest = json.dumps({"format": FORMAT, **facts, "files": writer.files}, indent=1).encode()
                _add_bytes(tar, MANIFEST, manifest)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
        made = True
        sync_folder(target.parent)
    except OSError as error:
        if made:  # it may not last, and would be in the way of the next try
            target.unlink(missing_ok=True)
        raise Unavailable(
            f"{target} cannot be written: {error.strerror or error}",
            code="archive_write",
            hint="Check free space and that the folder exists and is writable.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


def unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """Unpack into the empty `folder` and return the manifest, after every byte was checked.

    Raises `Invalid` (`archive_damaged`: truncated, altered or not an archive of ours; `archive_format`: of a newer
    program) and `Unavailable` (`disk_full`, `archive_read`).
    """
    found: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] | None = None
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    source = tar.extractfile(member) if member.isfile() else None
                    if source is None or manifest is not None:
                        raise ValueError("an unexpected member")
                    if member.name == MANIFEST:
                        manifest = _read_manifest(source)
                    else:
                        found[member.name] = _extract(source, folder, member.name)
            # Only at its very end does gzip compare its checksum.
            while stream.read(_BLOCK):
                pass
    except FileNotFoundError as error:
        raise Invalid(f"{archive} does not exist", code="archive_missing", hint="Check the path.") from error
    except OSError as error:
        raise _unpack_error(archive, folder, error) from error
    except _DAMAGE as error:
        raise _damaged_error(archive, error) from error
    if manifest is not None and manifest.get("format") != FORMAT:
        raise Invalid(
            f"{archive} has a format that this program does not know",
            code="archive_format",
            hint="Restore it with the program that made it.",
        )
    if manifest is None or manifest.get("files") != found:
        raise _damaged_error(archive, ValueError("its list of files does not hold"))
    return manifest


def _read_manifest(source: IO[bytes]) -> dict[str, Any]:
    manifest = json.loads(source.read())
    if not isinstance(manifest, dict):  # as in archives of other programs
        raise ValueError("its list of files is not one")
    return manifest


def _extract(source: IO[bytes], folder: Path, name: str) -> dict[str, Any]:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ValueError(f"a member outside of the archive: {name[:80]}")
    path = folder.joinpath(*parts)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    total, digest = 0, hashlib.sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        while data := source.read(_BLOCK):
            total += len(data)
            digest.update(data)
            target.write(data)
        os.fsync(target.fileno())
    return {"bytes": total, "sha256": digest.hexdigest()}


def _damaged_error(archive: Path, error: Exception) -> Invalid:
    return Invalid(
        f"{archive} is not a whole backup: {error or error.__class__.__name__}",
        code="archive_damaged",
        hint="Copy it again from where it was made, or use another backup; nothing was changed.",
    )


def _unpack_error(archive: Path, folder: Path, error: OSError) -> Invalid | Unavailable:
    if error.errno in _DAMAGE_ERRNOS:
        return _damaged_error(archive, error)
    if error.errno in _FULL:
        return Unavailable(
            f"{archive} cannot be unpacked: the disk of {folder.parent} is full",
            code="disk_full",
            hint="Free some of it, or restore to another place; nothing was changed.",
        )
    return Unavailable(
        f"{archive} cannot be unpacked: {error.strerror}",
        code="archive_read",
        hint=f"Check that it can be read, and that {folder.parent} can be written to; nothing was changed.",
    )
