"""The folder HOME of one installation: the paths in it, and durable writing. Does not know the content of the files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STALE_SECONDS: Final = 3600.0
"""A temporary file that was not modified for this long belongs to no living process."""


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below HOME. All folders are 0700 and all secrets 0600."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held with flock by the one `up` that owns this HOME."""
        return self.root / "lock"

    @property
    def operator_token(self) -> Path:
        return self.root / "operator.token"

    @property
    def workspace(self) -> Path:
        """The absolute path of the folder of declarations that was applied last, as one line of text."""
        return self.root / "workspace"

    @property
    def database(self) -> Path:
        """Signature and time of the first blueprint of the database that HOME uses, as one line of text."""
        return self.root / "database"

    @property
    def keys(self) -> Path:
        """checkpoint.key, blueprint.key, subject.key (private, 0600) and checkpoint.pub, blueprint.pub."""
        return self.root / "keys"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def journal(self) -> Path:
        """journal/<epoch uuid>/NNNNNNNN.seg and journal/<epoch uuid>/lock (flock held by the living gateway worker)."""
        return self.root / "journal"

    @property
    def audit(self) -> Path:
        """checkpoint, tile/..., entries/...: C2SP tlog-tiles."""
        return self.root / "audit"

    @property
    def search(self) -> Path:
        return self.root / "search"

    @property
    def run(self) -> Path:
        """up.json (pid, addresses), endpoints.json (local services); only meaningful while `up` runs."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def create(self) -> None:
        """Create HOME and its folders, private to this user. Safe to repeat."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.keys, self.journal, self.audit, self.search, self.run, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)


def is_readable_by_others(status: os.stat_result, user: int | None = None) -> bool:
    """Whether more than this `user` (default: this process's) and root may read a secret. For a file of root, read
    access of a group is accepted as intended: Kubernetes mounts secrets so for users other than root."""
    closed = 0o037 if status.st_uid == 0 and (os.geteuid() if user is None else user) != 0 else 0o077
    return bool(status.st_mode & closed)


def list_names(folder: Path) -> list[str]:
    """The names in a folder; empty where it does not exist. Unlike `Path.glob`, raises OSError where the folder cannot
    be read."""
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def temporary_path(path: Path) -> Path:
    """The file that this process writes before it is renamed to `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_stale_temporaries(path: Path) -> None:
    """Delete the temporary files beside `path` of processes that were killed while writing it."""
    first, last = f".{path.name}.", ".tmp"
    with suppress(OSError), os.scandir(path.parent) as entries:  # the write itself reports problems with the folder
        for entry in entries:
            if entry.name.startswith(first) and entry.name.endswith(last):
                pid = entry.name[len(first) : -len(last)]
                if pid.isdigit() and time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                    Path(entry.path).unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` durably, so that after a crash it holds either the old or the new bytes. Raises OSError with the
    file name; no temporary file is left then."""
    temporary = temporary_path(path)
    remove_stale_temporaries(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # the error of the write is the one to report
            temporary.unlink(missing_ok=True)
        raise _with_filename(error, path) from None


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts into a folder by file name, each file completely or not at all. Raises OSError with the file name;
    files that did not exist before are deleted then."""
    made: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = (folder / name).resolve()
        try:
            if path.exists():
                write_atomically(path, text.encode(), path.stat().st_mode & 0o777)
            else:
                made.append(path)
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            for each in made:
                with suppress(OSError):
                    each.unlink(missing_ok=True)
            raise _with_filename(error, path) from None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError with its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise _with_filename(error, folder) from None
    finally:
        os.close(descriptor)


def _with_filename(error: OSError, path: Path) -> OSError:
    """The same error with a file name, which the system leaves out for write and fsync."""
    return error if error.filename is not None else OSError(error.errno, error.strerror, str(path))
