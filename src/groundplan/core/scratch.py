"""Folders for files on their way, and what processes that were killed have left of them: whoever needs the next one
deletes it. What is in them is the writers' business; single files are `home`'s."""

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
    """A folder below `folder` (TMPDIR), for as long as it is needed. Those with this prefix that killed processes have
    left go first: each is locked by its own, and has its name once it is. Raises OSError."""
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
                with suppress(OSError):  # somebody else's, a file, one in use, or one that ends just now
                    _remove_unlocked(Path(entry.path))


def _remove_unlocked(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
