"""Takes a database step by step to a later schema, by Alembic. Who may, and whether it is to be, is decided before."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from groundplan.core.database import connect, first_line
from groundplan.core.errors import Unavailable


def upgrade(url: str, target: str, scripts: Path) -> None:
    """Upgrade the database at `url` (as its owner) to the revision `target`, by the steps in `scripts`.

    Raises `Unavailable` (`migration_failed`); a failed step leaves the database at the step before.
    """
    try:
        with _alchemy(url) as upgraded:
            command.upgrade(_config(upgraded, scripts), target)
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
    return create_engine("postgresql+psycopg://", creator=lambda: connect(url), poolclass=NullPool).connect()
