"""Temporary folders. Those that killed processes left behind are deleted when the next one is created. Temporary single
files are in `home`."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch_folder(prefix: str, folder: Path | None = None) -> Iterator[Path]:
    """Create a temporary folder below `folder` (default TMPDIR) and delete it at the end. Abandoned folders with this
    prefix are deleted first: a living process holds a lock on its folder, which gets its final name only once it is
    locked. Raises OSError."""
    within = Path(tempfile.gettempdir()) if folder is None else folder
    _remove_abandoned(within, prefix)
    made = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=within))
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = made.rename(made.with_name(made.name[1:]))
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(within: Path, prefix: str) -> None:
    with suppress(OSError), os.scandir(within) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with suppress(OSError):  # another user's, a file, in use, or just being deleted
                    _remove_unlocked(Path(entry.path))


def _remove_unlocked(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
