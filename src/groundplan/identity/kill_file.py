"""HOME/run/kill.json: kills that `groundplan kill` writes while the control API does not answer, until the live policy
has them.

Gateway workers of this HOME read it directly. Changes lock the folder, so that a kill that is written while the file is
copied into the live policy is not lost. What may be stopped is decided elsewhere.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from groundplan.core.home import Home, write_atomically

LOCK_TIMEOUT: Final = 2.0
"""Seconds to wait for another process that changes the file, which takes a moment: a process that hangs must not
prevent a kill."""


def kill_file_path(home: Home) -> Path:
    return home.run / "kill.json"


def read_kills(home: Home) -> list[dict[str, Any]]:
    """The kills in the file: `[{"scope", "reason", "at"}]`. Raises OSError, and ValueError if the content is not such a
    list."""
    try:
        kills = json.loads(kill_file_path(home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    if not isinstance(kills, list) or not all(isinstance(item, dict) and "scope" in item for item in kills):
        raise ValueError("no list of kills")
    return kills


def add_kill(home: Home, kill: dict[str, Any]) -> None:
    """Add a kill. Raises as `read_kills`: a file that cannot be read may stop something, so it is not overwritten."""
    with _folder_lock(home):
        _write(home, [*read_kills(home), kill])


def remove_kills(home: Home, taken: list[dict[str, Any]]) -> None:
    """Remove the kills in `taken`, which the live policy has by now. Raises as `read_kills`."""
    with _folder_lock(home):
        if remaining := [item for item in read_kills(home) if item not in taken]:
            _write(home, remaining)
        else:
            kill_file_path(home).unlink(missing_ok=True)


def _write(home: Home, kills: list[dict[str, Any]]) -> None:
    path = kill_file_path(home)
    write_atomically(path, json.dumps(kills).encode())
    if (owner := home.run.stat()).st_uid != os.geteuid():  # root writes it for the user who serves
        os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def _folder_lock(home: Home) -> Iterator[None]:
    folder = os.open(home.run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + LOCK_TIMEOUT
        while time.monotonic() < end:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
        yield
    finally:
        os.close(folder)
