"""The database of a new HOME, made and migrated once for a run of the tests and copied into each HOME that is to have
one.

How a database is made from nothing is tested where `up` and PostgreSQL themselves are; all others begin with files that
are the same as those.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from groundplan.core.database import database_url
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.runtime.migrate import migrate
from groundplan.runtime.postgres import EmbeddedPostgres

FOLDER = "TESTS_MADE_DATABASE"
"""Name of the environment variable that tells all processes of a run where it is."""
PREFIX = "gp-tests-"
MEMORY, ROOM, FRESH_SECONDS = Path("/dev/shm"), 2 << 30, 60.0
"""Where the run's databases are if so many bytes are free: files by the thousand that are made and deleted at once are
what file systems of disks are slow with."""
ROOM_FOR_ALL = 6 << 30
"""Bytes with which all files of the tests are there: so far a whole run needs a gigabyte of them at once."""
_held: list[IO[str]] = []


def begin() -> None:
    """Before any process of the run asks for it."""
    place = MEMORY if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM else None
    _forget_killed()
    os.environ[FOLDER] = tempfile.mkdtemp(prefix=PREFIX, dir=place)
    _held.append((folder() / "held").open("w"))
    fcntl.flock(_held[-1], fcntl.LOCK_EX)


def place_of_files() -> Path | None:
    """A folder for the temporary files of the run, in memory; None: there is too little of that."""
    if folder().parent != MEMORY or shutil.disk_usage(MEMORY).free < ROOM_FOR_ALL:
        return None
    (folder() / "tmp").mkdir()
    return folder()


def end(*, kept: bool = False) -> None:
    """When none asks any more. `kept`: its files can be looked at until the next run begins."""
    if FOLDER in os.environ:
        made = os.environ.pop(FOLDER)
        if not (kept and Path(made).parent == MEMORY):
            shutil.rmtree(made, ignore_errors=True)
        _held.pop().close()


def folder() -> Path:
    """What the run keeps there is deleted at its end."""
    return Path(os.environ[FOLDER])


def _forget_killed() -> None:
    """Delete what runs that were killed left in memory."""
    for left in MEMORY.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > FRESH_SECONDS:
                with (left / "held").open("w") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)


def lay_out(home: Path) -> None:
    """Give a HOME the files of a server that was never started there; one that has a server keeps it."""
    if not (home / "postgres").exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", str(_made()), str(home / "postgres")], check=True)


@functools.cache
def _made() -> Path:
    """The folder to copy; whoever is first makes it."""
    run = folder()
    home, whole = Home(run / "home"), run / "whole"
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            home.create()
            with EmbeddedPostgres(home, tuning={"fsync": "off"}) as server:
                server.start()
                migrate(database_url(home, dataclasses.replace(load_settings({}), database_url=None), "owner"))
            for own in ("port", "lock"):
                (home.postgres / own).unlink()
            whole.touch()
    return home.postgres
