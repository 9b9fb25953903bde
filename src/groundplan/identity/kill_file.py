"""HOME/run/kill.json: what `groundplan kill` stops where the control API does not answer, until live policy has it.

Gateway workers of this HOME heed it as it is. Whoever changes it holds the folder meanwhile: what is written while the
file is taken over stays in it. Does not decide what may be stopped.
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

PATIENCE_SECONDS: Final = 2.0
"""How long somebody who changes it, which takes a moment, is waited for: one that stands still keeps nobody from
stopping anything."""


def path_of(home: Home) -> Path:
    return home.run / "kill.json"


def held(home: Home) -> list[dict[str, Any]]:
    """What is stopped by it: `{"scope", "reason", "at"}` of each. Raises OSError, and ValueError where the file is not
    such a list."""
    try:
        found = json.loads(path_of(home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) and "scope" in each for each in found):
        raise ValueError("no list of kills")
    return found


def add(home: Home, kill: dict[str, Any]) -> None:
    """Stop one more thing by it. Raises as `held`: what cannot be read stops something, and is not written over."""
    with _alone(home):
        _write(home, [*held(home), kill])


def drop(home: Home, taken: list[dict[str, Any]]) -> None:
    """Take out what live policy has by now, and nothing else. Raises as `held`."""
    with _alone(home):
        if left := [each for each in held(home) if each not in taken]:
            _write(home, left)
        else:
            path_of(home).unlink(missing_ok=True)


def _write(home: Home, kills: list[dict[str, Any]]) -> None:
    path = path_of(home)
    write_atomically(path, json.dumps(kills).encode())
    if (owner := home.run.stat()).st_uid != os.geteuid():  # whoever is root here writes it for those who serve
        os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    folder = os.open(home.run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
        yield
    finally:
        os.close(folder)
