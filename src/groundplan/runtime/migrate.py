"""Brings a database's schema up to this program's, once, however many start at the same time.

A database that a newer program has upgraded is refused, never downgraded. Works on the embedded server and on any DSN;
it does not make the database itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from groundplan.core.database import ROLES, connect, first_line, role_name
from groundplan.core.errors import Conflict, Denied, Invalid, Unavailable

OLDEST_SERVER: Final = 16
"""Oldest major version of PostgreSQL that the schema runs on."""

_SCRIPTS = Path(__file__).parent.parent / "migrations"
_LOCK_KEY = 0x67726F756E64  # "ground"
_LOCK_WAIT = "300s"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,50}", re.ASCII)


def migrate(url: str, target: str | None = None) -> str:
    """Upgrade the database at `url` (as its owner) to `target` (a revision; None: the newest) and return that revision.

    Waits up to 300 s for another who does it. A database that is beyond `target` already stays as it is.

    Raises `Conflict` (`schema_newer`), `Invalid` (`database_name`, `database_version`), `Denied` (`database_roles`,
    `database_extension`) where this user may not make what is needed, and `Unavailable` (`database_unavailable`,
    `migration_failed`, `migration_locked`). A failed step leaves the database at the step before.
    """
    with connect(url, autocommit=True) as connection:
        _lock(connection)
        _check_server(connection)
        _check_known(revision(url))
        _check_known(target)
        _ensure_roles(connection)
        _ensure_extension(connection)
        try:
            with _alchemy(url) as upgraded:
                command.upgrade(_config(upgraded), target or "head")
        except (psycopg.Error, SQLAlchemyError) as error:
            raise Unavailable(
                f"the schema cannot be upgraded: {first_line(error)}",
                code="migration_failed",
                hint="The database is as it was before this step; look at its log, then start again.",
            ) from error
    return target or head()


def head() -> str:
    """The revision that this program writes and reads."""
    return str(_scripts().get_current_head())


def revision(url: str) -> str | None:
    """The revision that the database is at; None where it has no schema yet."""
    with _alchemy(url) as connection:
        found: str | None = MigrationContext.configure(connection).get_current_revision()
        return found


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    # ConfigParser would take a percent sign in the path for an interpolation.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _alchemy(url: str) -> Connection:
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool).connect()


def _lock(connection: psycopg.Connection[Any]) -> None:
    connection.execute(sql.SQL("SET lock_timeout = {}").format(_LOCK_WAIT))
    try:
        # Held until this connection closes.
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable(
            "another start has been upgrading this database for too long",
            code="migration_locked",
            hint="Wait for it, or end it, then start again.",
        ) from error


def _check_server(connection: psycopg.Connection[Any]) -> None:
    major = connection.info.server_version // 10000
    if major < OLDEST_SERVER:
        raise Invalid(
            f"PostgreSQL {major} is too old",
            code="database_version",
            hint=f"Use PostgreSQL {OLDEST_SERVER} or newer with pgvector.",
        )
    name = connection.info.dbname
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"'{name}' cannot be the name of the database",
            code="database_name",
            hint="Use up to 51 lower-case letters, digits and underscores, since roles are named after it.",
        )


def _check_known(found: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise Conflict(
            f"the database is of a newer program (its schema is {found}, this program knows {head()})",
            code="schema_newer",
            hint="Use the newer program, or restore a backup made with this one.",
        )


def _ensure_roles(connection: psycopg.Connection[Any]) -> None:
    """Make the roles that are missing, without login, and let this user act as each of them."""
    for role in ROLES:
        name = role_name(connection.info.dbname, role)
        if role == "owner" or _may_act_as(connection, name):
            continue
        try:
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is None:
                attributes = sql.SQL("NOLOGIN NOSUPERUSER NOBYPASSRLS")
                connection.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(name), attributes))
            if not _may_act_as(connection, name):
                grant = sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")
                connection.execute(grant.format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege as error:
            raise Denied(
                f"{connection.info.user} may not make the role {name}: {first_line(error)}",
                code="database_roles",
                hint=f"As an administrator: CREATE ROLE {name} NOLOGIN; GRANT {name} TO {connection.info.user};",
            ) from error


def _may_act_as(connection: psycopg.Connection[Any], name: str) -> bool:
    found = connection.execute(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_roles WHERE rolname = %s) "
        "THEN pg_has_role(current_user, %s::name, 'SET') ELSE false END",
        (name, name),
    ).fetchone()
    return bool(found and found[0])


def _ensure_extension(connection: psycopg.Connection[Any]) -> None:
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.FeatureNotSupported,
        psycopg.errors.UndefinedFile,
    ) as error:
        raise Denied(
            f"the extension pgvector cannot be made: {first_line(error)}",
            code="database_extension",
            hint=f"Install pgvector; as an administrator, in {connection.info.dbname}: CREATE EXTENSION vector;",
        ) from error
