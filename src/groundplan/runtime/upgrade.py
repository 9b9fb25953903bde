"""Takes a database step by step to a later schema, by Alembic. Who may, and whether it is to be, is decided before.

Others go on meanwhile: whoever waits for a table that is in use, such as by a backup, keeps all others from it who come
later. So a step waits for a second at a time, and makes way in between.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from groundplan.core.database import connect, first_line, unhurried
from groundplan.core.errors import Unavailable

TURN_SECONDS = 1.0
"""A heartbeat of a gateway that waits for longer is given up."""
PAUSE_SECONDS = 3.0
PATIENCE_SECONDS = 300.0


def upgrade(url: str, target: str, scripts: Path, patience: float = PATIENCE_SECONDS) -> None:
    """Upgrade the database at `url` (as its owner) to the revision `target`, by the steps in `scripts`.

    Raises `Unavailable` (`migration_failed`; `migration_waits`: a table was in use for longer than the `patience`); a
    failed step leaves the database at the step before.
    """
    end = time.monotonic() + patience
    while not _upgraded(url, target, scripts):
        if time.monotonic() >= end:
            raise Unavailable(
                "the schema cannot be upgraded: somebody goes on using a table that is to be changed",
                code="migration_waits",
                hint="End what runs for long in the database, such as a backup or a report, or try again after it.",
            )
        time.sleep(min(PAUSE_SECONDS, patience))


def _upgraded(url: str, target: str, scripts: Path) -> bool:
    """False where a table, or a lock, that the next step asks for is in use."""
    try:
        with _alchemy(url) as upgraded:
            command.upgrade(_config(upgraded, scripts), target)
        return True
    except LockNotAvailable:
        return False
    except (psycopg.Error, SQLAlchemyError) as error:
        raise Unavailable(
            f"the schema cannot be upgraded: {first_line(error)}",
            code="migration_failed",
            hint="The database is as it was before this step; look at its log, then start again.",
        ) from error


def _config(connection: Connection, scripts: Path) -> Config:
    config = Config(attributes={"connection": connection})
    # ConfigParser would take a percent sign in the path for an interpolation.
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _alchemy(url: str) -> Connection:
    return create_engine("postgresql+psycopg://", creator=lambda: _connected(url), poolclass=NullPool).connect()


def _connected(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    connection = connect(url)
    unhurried(connection)
    connection.execute(f"SET lock_timeout = {int(TURN_SECONDS * 1000)}".encode())
    connection.commit()
    return connection
