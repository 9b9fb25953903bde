"""Brings a database's schema up to this program's, once, however many start at the same time.

A database that a newer program has upgraded is refused, never downgraded. Works on the embedded server and on any DSN;
it does not make the database itself. Where the schema is this program's already, which nearly every start finds,
Alembic is not loaded.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from groundplan.core.database import (
    ROLES,
    connect,
    database_url,
    first_line,
    pooled_error,
    prepare_long_session,
    role_name,
    translate_database_errors,
)  # fmt: skip
from groundplan.core.errors import Conflict, Denied, GroundplanError, Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.migrations import BASELINE, FOLDER, revisions
from groundplan.runtime.database_rights import check_rights, check_writable

OLDEST_SERVER: Final = 16
"""Oldest major version of PostgreSQL that the schema runs on."""

LAST_UNRELEASED: Final = "0430_what_is_done_goes"
"""The newest schema of the versions before 0.1.0. It is that of `BASELINE`, so a database that has all of it is taken
over as it is; others are refused."""

_UNRELEASED = re.compile(r"0[0-9]{3}_\w+", re.ASCII)
"""Revisions of the versions before 0.1.0; later ones have three digits."""
_LOCK_KEY = 0x67726F756E64  # "ground"
_LOCK_WAIT = "300s"
_PATIENCE_SECONDS = 300.0
"""How long a server is waited for that starts just now."""
_CODES = {
    "ALTER DATABASE": "database_rights",
    "CREATE ROLE": "database_roles",
    "GRANT": "database_roles",
    "CREATE EXTENSION": "database_extension",
}
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,50}", re.ASCII)


def migrate(url: str, target: str | None = None, progress: Callable[[str], None] = lambda _: None) -> str:
    """Upgrade the database at `url` (as its owner) to `target` (a revision; None: the newest) and return that revision.

    Waits up to 300 s for another who does it, and as long for a table that is in use, of which `progress` is told. A
    database that is beyond `target` already stays as it is.

    Raises `Conflict` (`schema_newer`, `schema_unreleased`), `Invalid` (`database_name`, `database_version`,
    `database_encoding`), `Denied` (`database_rights`, `database_roles`, `database_extension`) where this user may not
    make what is needed, with all that is missing as SQL for an administrator, and `Unavailable`
    (`database_unavailable`, `database_read_only`, `migration_failed`, `migration_locked`). A failed step leaves the
    database at the step before.
    """
    told = translate_database_errors(
        "the database cannot be prepared",
        code="migration_failed",
        hint="Look at its disk and its log, then start again: what was done already stays as it is.",
    )
    with connect(url, autocommit=True) as connection, told:
        prepare_long_session(connection)
        check_writable(connection)
        _lock(connection, progress)
        found, wanted = _check(connection), _present_name(target or head())
        _check_known(wanted)
        _prepare(connection)
        if found == BASELINE:
            take_over = "UPDATE alembic_version SET version_num = %s WHERE version_num = %s"
            connection.execute(take_over, (BASELINE, LAST_UNRELEASED))
        if found is None or found < wanted:
            from groundplan.runtime.upgrade import upgrade  # noqa: PLC0415 -- Alembic, only where there is a step to go

            upgrade(url, wanted, FOLDER, progress=progress)
        _shield(connection)
    return wanted


def look(url: str) -> str | None:
    """The revision of a database, which stays as it is; None where it has no schema yet. Raises what `migrate` would of
    what nobody can serve from."""
    with connect(url, autocommit=True, timeout=5) as connection:
        check_writable(connection)
        return _check(connection)


def check_role(url: str, role: str) -> None:
    """That a connection to `url` acts as `role`, and finds what it needs. Raises `Invalid` (`database_pooled`,
    `database_search_path`), `Unavailable`."""
    with connect(url) as connection:
        row = connection.execute(
            """SELECT current_user, to_regclass('alembic_version') IS NOT NULL AND to_regtype('halfvec') IS NOT NULL,
               current_setting('search_path')"""
        ).fetchone()
    found, finds, path = row or (None, False, "")
    if found != role:
        raise pooled_error(
            f"a connection as {role} acts as {found}: what stands before PostgreSQL drops what is asked for (options)"
        )
    if not finds:
        raise Invalid(
            f"{role} does not find tables and pgvector by the search_path of this login ({path})",
            code="database_search_path",
            hint="As an administrator: ALTER ROLE, IN DATABASE, SET search_path = public, and the schema of the "
            "extension vector where that is another one, which needs GRANT USAGE ON SCHEMA to PUBLIC.",
        )


def head() -> str:
    """The revision that this program writes and reads."""
    return revisions(FOLDER)[-1]


def revision(url: str) -> str | None:
    """The revision that the database is at; None where it has no schema yet."""
    with connect(url, autocommit=True) as connection:
        found = _revision(connection)
    return None if found is None else _present_name(found)


def _revision(connection: psycopg.Connection[Any]) -> str | None:
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return None if found is None else str(found[0])


def _present_name(revision: str) -> str:
    """The revision of this program that a schema is, which may have another name in a database or backup."""
    return BASELINE if revision == LAST_UNRELEASED else revision


def _lock(connection: psycopg.Connection[Any], progress: Callable[[str], None]) -> None:
    connection.execute(sql.SQL("SET lock_timeout = {}").format(_LOCK_WAIT))
    if connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone() == (True,):
        return
    progress("another start is upgrading this database, and is waited for")
    try:
        # Held until this connection closes.
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable(
            "another start has been upgrading this database for too long",
            code="migration_locked",
            hint="Wait for it, or end it, then start again.",
        ) from error


def _check(connection: psycopg.Connection[Any]) -> str | None:
    """That this program can do with the database what it has to; which revision it is at."""
    _check_server(connection)
    check_rights(connection)
    found = _revision(connection)
    if found is None:
        _check_encoding(connection)
        return None
    if found == LAST_UNRELEASED:
        _check_complete(connection)
    _check_known(_present_name(found))
    return _present_name(found)


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


def _check_encoding(connection: psycopg.Connection[Any]) -> None:
    """In others there are texts that cannot be written, of which our own are some."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise Invalid(
            f"the database is in {encoding}, which cannot hold every text",
            code="database_encoding",
            hint="Make it anew: CREATE DATABASE NAME ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0;",
        )


def _check_complete(connection: psycopg.Connection[Any]) -> None:
    """Raise `Conflict` where a database at `LAST_UNRELEASED` lacks what the steps 0414 to 0417 make: these were added
    after that one."""
    complete = connection.execute(
        """SELECT to_regclass('api_upload') IS NOT NULL
             AND EXISTS (SELECT FROM pg_attribute
               WHERE attrelid = to_regclass('background_response') AND attname = 'waits' AND NOT attisdropped)
             AND EXISTS (SELECT FROM pg_proc
               WHERE oid = to_regproc('roll_calls') AND strpos(prosrc, quote_literal('mcp')) > 0)"""
    ).fetchone()
    if complete != (True,):
        raise _unreleased(f"{LAST_UNRELEASED}, but lacks parts of it")


def _check_known(found: str) -> None:
    """Raise `Conflict` where a database, or a backup, has a schema that this program neither reads nor upgrades."""
    if found in revisions(FOLDER):
        return
    if _UNRELEASED.fullmatch(found):
        raise _unreleased(found)
    raise Conflict(
        f"the database is of a newer program (its schema is {found}, this program knows {head()})",
        code="schema_newer",
        hint="Use the newer program, or restore a backup made with this one.",
    )


def _unreleased(found: str) -> Conflict:
    return Conflict(
        f"a schema of a version before 0.1.0 is not upgraded (it is {found})",
        code="schema_unreleased",
        hint=f"Start the database once with the newest version whose schema is {LAST_UNRELEASED}; from there this one "
        "takes it over. A backup: restore it with that version, and back it up again.",
    )


def _prepare(connection: psycopg.Connection[Any]) -> None:
    """Make what the schema needs around it: rights in the database, the roles without login, the extension."""
    for statement in _missing(connection):
        try:
            connection.execute(statement.encode())
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.FeatureNotSupported,
            psycopg.errors.UndefinedFile,
        ) as error:
            name = connection.info.dbname
            install = "" if isinstance(error, psycopg.errors.InsufficientPrivilege) else "Install pgvector. "
            raise Denied(
                f"{connection.info.user} may not prepare the database {name}: {first_line(error)}",
                code=next(code for start, code in _CODES.items() if statement.startswith(start)),
                hint=f"{install}As an administrator, in {name}: {' '.join(_missing(connection))}",
            ) from error
    _check_vector(connection)


def _shield(connection: psycopg.Connection[Any]) -> None:
    """Have functions that act as the owner find their caller's temporary tables last, and be of those alone to whom
    they were granted. Where a path does not name them PostgreSQL looks there first, and who may call a trigger's
    function may have it called by a table of their own: what these call of the caller would act as the owner, too. So
    would what anybody makes in the schema of the tables, which is open to all where PostgreSQL was once older than 15.
    """
    open_to_all = connection.execute(
        """SELECT FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.oid = 'public'::regnamespace AND a.grantee = 0
             AND a.privilege_type = 'CREATE' AND pg_has_role(n.nspowner, 'USAGE')"""
    ).fetchone()
    if open_to_all is not None:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    rows = connection.execute(
        """SELECT p.oid::regprocedure::text, (SELECT substr(c, length('search_path=') + 1) FROM unnest(p.proconfig) c
             WHERE starts_with(c, 'search_path=') AND c !~ 'pg_temp'),
             EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
           FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND p.proowner IN (
             SELECT relowner FROM pg_class WHERE oid = to_regclass('audit_entry')
             UNION ALL SELECT oid FROM pg_roles WHERE rolname = current_user)"""
    ).fetchall()
    for function, path, anybodys in rows:
        if path is not None:
            connection.execute(f"ALTER FUNCTION {function} SET search_path = {path}, pg_temp".encode())
        if anybodys:
            connection.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC".encode())


def _check_vector(connection: psycopg.Connection[Any]) -> None:
    """That pgvector is found, and new enough."""
    found = connection.execute(
        """SELECT extversion, extnamespace::regnamespace::text, to_regtype('halfvec') IS NOT NULL
           FROM pg_extension WHERE extname = 'vector'"""
    ).fetchone()
    if found is not None and not found[2]:
        user, name = _quoted(connection, connection.info.user), connection.info.dbname
        raise Denied(
            f"pgvector {found[0]} in the schema {found[1]} of {name} is too old, or not found by this login",
            code="database_extension",
            hint=f"It must be 0.7 or newer: ALTER EXTENSION vector UPDATE; and found: GRANT USAGE ON SCHEMA {found[1]} "
            f"TO PUBLIC; ALTER ROLE {user} IN DATABASE {name} SET search_path = public, {found[1]};",
        )


def _missing(connection: psycopg.Connection[Any]) -> list[str]:
    """Statements that are still to be run, by this user or by an administrator."""
    user, name = _quoted(connection, connection.info.user), connection.info.dbname
    found = connection.execute(
        """SELECT has_schema_privilege('public', 'CREATE') AND has_database_privilege(current_database(), 'CREATE'),
           EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vector')"""
    ).fetchone()
    may_create, has_vector = found or (False, False)
    return [
        *([] if may_create else [f"ALTER DATABASE {name} OWNER TO {user};"]),
        *_role_statements(connection, user),
        *([] if has_vector else ["CREATE EXTENSION vector;"]),
    ]


def _role_statements(connection: psycopg.Connection[Any], user: str) -> list[str]:
    """So that every role is there and this user may act as it."""
    statements = []
    for role in ROLES:
        name = role_name(connection.info.dbname, role)
        if role == "owner" or _may_act_as(connection, name):
            continue
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is None:
            statements.append(f"CREATE ROLE {name} NOLOGIN NOSUPERUSER NOBYPASSRLS;")
        statements.append(f"GRANT {name} TO {user} WITH INHERIT FALSE, SET TRUE;")
    return statements


def _quoted(connection: psycopg.Connection[Any], name: str) -> str:
    """As an identifier in a statement that somebody else is to run."""
    return name if _NAME.fullmatch(name) else sql.Identifier(name).as_string(connection)


def _may_act_as(connection: psycopg.Connection[Any], name: str) -> bool:
    found = connection.execute(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_roles WHERE rolname = %s) "
        "THEN pg_has_role(current_user, %s::name, 'SET') ELSE false END",
        (name, name),
    ).fetchone()
    return bool(found and found[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m groundplan.runtime.migrate --home HOME`, of the code that is installed now, for an `up` that runs and
    may be of older code. Waits for a server that starts just now, or has no room, and says so meanwhile."""
    parser = argparse.ArgumentParser(prog="groundplan.runtime.migrate", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    home, settings = Home(parser.parse_args(arguments).home.absolute()), load_settings()
    end, told = time.monotonic() + _PATIENCE_SECONDS, ""
    while True:
        try:
            migrate(database_url(home, settings, "owner"), progress=_say)
        except GroundplanError as error:
            if error.code == "database_unavailable" and time.monotonic() < end:
                if str(error) != told:
                    _say(str(error))
                told = str(error)
                time.sleep(0.5)
                continue
            _say(str(error))
            return error.exit_code
        return 0


def _say(text: str) -> None:
    """At once: a reload that waits tells what was said last. What a full disk does not take ends no upgrade."""
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
