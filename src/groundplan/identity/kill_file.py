"""HOME/run/kill.json: kills by `groundplan kill` while the control API does not answer, until live policy has them.

Gateway workers of this HOME read it directly. Changes take a lock on the folder, so that a kill written while the file
is taken over into live policy stays in it. Does not decide what may be stopped.
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
"""How long to wait for another process that changes the file, which takes a moment: one that hangs must not prevent a
kill."""


def kill_file_path(home: Home) -> Path:
    return home.run / "kill.json"


def read_kills(home: Home) -> list[dict[str, Any]]:
    """The kills in the file: `[{"scope", "reason", "at"}]`. Raises OSError, and ValueError if it is no such list."""
    try:
        found = json.loads(kill_file_path(home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) and "scope" in each for each in found):
        raise ValueError("no list of kills")
    return found


def add_kill(home: Home, kill: dict[str, Any]) -> None:
    """Add a kill. Raises as `read_kills`: a file that cannot be read may stop something, so it is not overwritten."""
    with _folder_lock(home):
        _write(home, [*read_kills(home), kill])


def remove_kills(home: Home, taken: list[dict[str, Any]]) -> None:
    """Remove the kills that live policy has by now, and nothing else. Raises as `read_kills`."""
    with _folder_lock(home):
        if left := [each for each in read_kills(home) if each not in taken]:
            _write(home, left)
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
