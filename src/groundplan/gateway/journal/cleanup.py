"""Deletes files of journals that were shipped, or never begun. The shipper decides which."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from groundplan.gateway.journal.tail import try_lock

_ABANDONED_S = 60


def discard(segment: Path, *, damaged: bool) -> None:
    """Delete a segment; a damaged one is set aside beside the journal for inspection."""
    if damaged:
        segment.replace(segment.parent.with_name(f"{segment.parent.name}.{segment.name}.quarantined"))
    else:
        segment.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Delete an epoch's folder, the lock last."""
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Delete a journal whose worker died while it created it."""
    if time.time() - folder.stat().st_mtime > _ABANDONED_S and (lock := try_lock(folder)) is not None:
        remove_folder(folder)
        os.close(lock)
