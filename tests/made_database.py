"""The database of a new HOME, created and migrated once for a test run and copied into each HOME that needs one.

Tests of `up` and of PostgreSQL themselves create a database from scratch; all others start with a copy of the files.
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

FOLDER_VARIABLE = "TESTS_MADE_DATABASE"
"""Environment variable with the folder of the run, for all its processes."""
PREFIX = "gp-tests-"
MEMORY, MIN_FREE, FRESH_SECONDS = Path("/dev/shm"), 2 << 30, 60.0
"""The run's databases are in memory if so many bytes are free there: file systems on disks are slow to create and
delete thousands of files."""
MIN_FREE_FOR_FILES = 6 << 30
"""Free bytes with which all temporary files of the tests are in memory, too: a full run needs about a gigabyte."""
_locks: list[IO[str]] = []


def start_run() -> None:
    """Create the folder of the run; to be called before any process of the run needs it."""
    place = MEMORY if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MIN_FREE else None
    _delete_leftovers()
    os.environ[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix=PREFIX, dir=place)
    _locks.append((folder() / "held").open("w"))
    fcntl.flock(_locks[-1], fcntl.LOCK_EX)


def temporary_folder() -> Path | None:
    """A folder in memory for the temporary files of the run; None if there is too little memory."""
    if folder().parent != MEMORY or shutil.disk_usage(MEMORY).free < MIN_FREE_FOR_FILES:
        return None
    (folder() / "tmp").mkdir()
    return folder()


def end_run(*, kept: bool = False) -> None:
    """Delete the folder of the run. `kept`: keep it for inspection until the next run starts."""
    if FOLDER_VARIABLE in os.environ:
        made = os.environ.pop(FOLDER_VARIABLE)
        if not (kept and Path(made).parent == MEMORY):
            shutil.rmtree(made, ignore_errors=True)
        _locks.pop().close()


def folder() -> Path:
    """The folder of the run, which is deleted at its end."""
    return Path(os.environ[FOLDER_VARIABLE])


def _delete_leftovers() -> None:
    """Delete folders in memory of runs that were killed."""
    for leftover in MEMORY.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > FRESH_SECONDS:
                with (leftover / "held").open("w") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(leftover, ignore_errors=True)


def copy_database(home: Path) -> None:
    """Copy the database files into a HOME that has none yet."""
    if not (home / "postgres").exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", str(_template()), str(home / "postgres")], check=True)


@functools.cache
def _template() -> Path:
    """The folder to copy, which the first caller of the run creates."""
    run = folder()
    home, complete = Home(run / "home"), run / "whole"
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            home.create()
            with EmbeddedPostgres(home, tuning={"fsync": "off"}) as server:
                server.start()
                migrate(database_url(home, dataclasses.replace(load_settings({}), database_url=None), "owner"))
            for own in ("port", "lock"):
                (home.postgres / own).unlink()
            complete.touch()
    return home.postgres
