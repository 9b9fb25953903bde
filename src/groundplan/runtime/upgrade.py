"""Takes a database step by step to a later schema, by Alembic. Who may, and whether it is to be, is decided before.

Others go on meanwhile: whoever waits for a table that is in use, such as by a backup, keeps all others from it who come
later. So a step waits for a second at a time, and makes way in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import Script
from alembic.script.revision import RevisionMap
from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from groundplan.core.database import connect, first_line, prepare_long_session
from groundplan.core.errors import Unavailable
from groundplan.migrations import FOLDER, revisions, statements

TURN_SECONDS = 1.0
"""A heartbeat of a gateway that waits for longer is given up."""
PAUSE_SECONDS = 3.0
PATIENCE_SECONDS = 300.0


def upgrade(
    url: str,
    target: str,
    folder: Path = FOLDER,
    patience: float = PATIENCE_SECONDS,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Upgrade the database at `url` (as its owner) to the revision `target` by the steps in `folder`. Where a table is
    in use, `progress` is told, once.

    Raises `Unavailable` (`migration_failed`; `migration_waits`: a table was in use for longer than the `patience`); a
    failed step leaves the database at the step before.
    """
    end, told = time.monotonic() + patience, False
    while not _upgraded(url, target, folder):
        who = _oldest(url)
        if time.monotonic() >= end:
            raise Unavailable(
                f"the schema cannot be upgraded: somebody goes on using a table that is to be changed{who}",
                code="migration_waits",
                hint="End what runs for long in the database, such as a backup or a report, or try again after it.",
            )
        if not told:
            progress(f"the schema is upgraded once a table that is to be changed is in use no more{who}")
            told = True
        time.sleep(min(PAUSE_SECONDS, patience))


def _oldest(url: str) -> str:
    """Whose transaction has been open for longest, as far as this login is told of others, to go behind a message."""
    with connect(url, autocommit=True) as connection:
        row = connection.execute(
            """SELECT pid, usename, application_name, extract(epoch FROM now() - xact_start)::int
               FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                 AND backend_type = 'client backend' AND xact_start < now() - interval '1 second'
               ORDER BY xact_start LIMIT 1"""
        ).fetchone()
    if row is None:
        return ""
    pid, user, program, seconds = row
    return f"; the oldest transaction, of {program or user} (process {pid} of PostgreSQL), is {seconds} s old"


def _upgraded(url: str, target: str, folder: Path) -> bool:
    """False where a table, or a lock, that the next step asks for is in use, also where PostgreSQL ended the step since
    it and a call waited for each other."""
    try:
        with _alchemy(url) as connection:
            _run_steps(connection, target, folder)
        return True
    except (LockNotAvailable, DeadlockDetected):
        return False
    except (psycopg.Error, SQLAlchemyError) as error:
        raise Unavailable(
            f"the schema cannot be upgraded: {first_line(error)}",
            code="migration_failed",
            hint="The database is as it was before this step; look at its log, then start again.",
        ) from error


def _run_steps(connection: Connection, target: str, folder: Path) -> None:
    """Run each step behind the database's revision, up to `target`, in its own transaction with the new revision."""
    steps = {each.revision: each for each in _alembic_steps(connection, folder)}
    revision_map = RevisionMap(steps.values)

    def pending(heads: tuple[str, ...], _: MigrationContext) -> list[RevisionStep]:
        newest_first = revision_map.iterate_revisions(target, heads, implicit_base=True)
        return [RevisionStep(revision_map, steps[each.revision], True) for each in newest_first][::-1]

    context = MigrationContext.configure(connection, opts={"fn": pending, "transaction_per_migration": True})
    with context.begin_transaction():
        context.run_migrations()


def _alembic_steps(connection: Connection, folder: Path) -> Iterator[Script]:
    """Each SQL file as what Alembic takes from a module of Python: its revision, the one before it, and `upgrade`."""
    before: str | None = None
    for revision in revisions(folder):
        module = ModuleType(revision)
        vars(module).update(down_revision=before, upgrade=partial(_execute, connection, revision, folder))
        yield Script(module, revision, str(folder / f"{revision}.sql"))
        before = revision


def _execute(connection: Connection, revision: str, folder: Path) -> None:
    """Run the SQL of a step as one text."""
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(statements(revision, driver.info.dbname, folder))


def _alchemy(url: str) -> Connection:
    return create_engine("postgresql+psycopg://", creator=lambda: _connected(url), poolclass=NullPool).connect()


def _connected(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    connection = connect(url)
    prepare_long_session(connection)
    connection.execute(f"SET lock_timeout = {int(TURN_SECONDS * 1000)}".encode())
    connection.commit()
    return connection
