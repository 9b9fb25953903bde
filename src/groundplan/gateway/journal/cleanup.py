"""Deletes what is left on disk of journals that were taken over, or never begun. What may go is decided elsewhere."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from groundplan.gateway.journal.tail import try_lock

_ABANDONED_S = 60


def discard(segment: Path, *, damaged: bool) -> None:
    """Delete a segment, or set it aside beside the journal for whoever looks into the damage."""
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
    """Delete a journal that a worker was making when it died."""
    if time.time() - folder.stat().st_mtime > _ABANDONED_S and (lock := try_lock(folder)) is not None:
        remove_folder(folder)
        os.close(lock)
