"""Dumps all rows of the schema into files and loads them, without superuser rights: one COPY text file per table, of
one snapshot.

Knows no table by name but alembic's; what a crash may empty (unlogged tables) is left out. Row-level security is
satisfied when reading (as `control`, whose policies show everything) and lifted for the owner, within the transaction,
when writing.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from groundplan.core.database import connect, first_line, prepare_long_session
from groundplan.core.errors import Conflict, Invalid

Facts = dict[str, Any]
"""`{"tables": {name: [column, …]}, "sequences": {name: last value, 0 before the first}}`"""

_VERSION_TABLE = "alembic_version"
_SEQUENCE_FLOOR = 1 << 40
"""Larger than any number of what counts changes."""


def dump_tables(control_url: str, folder: Path) -> Facts:
    """Write `folder/NAME.copy` for each table, all as of one moment, beside whatever is going on in the database."""
    with connect(control_url, autocommit=True) as connection:
        prepare_long_session(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tables = _columns(connection)
        for name, columns in tables.items():
            with (folder / f"{name}.copy").open("wb") as target, connection.cursor() as cursor:
                with cursor.copy(_statement(name, columns, "TO STDOUT")) as copy:
                    for block in copy:
                        target.write(block)
        sequences = connection.execute(
            """SELECT sequencename, coalesce(last_value, 0) FROM pg_sequences WHERE schemaname = 'public'
                 AND has_sequence_privilege(format('%I.%I', schemaname, sequencename), 'SELECT')"""
        ).fetchall()
        connection.execute("COMMIT")
    return {"tables": tables, "sequences": dict(sequences)}


def load_tables(owner_url: str, folder: Path, facts: Facts) -> None:
    """Fill a fresh schema of the same revision with what `dump_tables` wrote, all or nothing.

    Raises `Conflict` (`restore_not_empty`) where the database holds calls or blueprints, and `Invalid`
    (`restore_mismatch`) where tables or values do not fit.
    """
    with connect(owner_url) as connection:
        prepare_long_session(connection)
        here = _columns(connection)
        if odd := set(here) ^ set(facts["tables"]):
            raise Invalid(
                f"the backup has other tables than this schema: {', '.join(sorted(odd))}",
                code="restore_mismatch",
                hint="Restore it with the version of the program that made it.",
            )
        _require_empty(connection)
        order = _dependency_order(connection, here)
        secured = _secured_tables(connection)
        try:
            _alter(connection, secured, "NO FORCE")
            _set_triggers(connection, "DISABLE")
            connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.SQL(", ").join(map(sql.Identifier, order))))
            for name in order:
                _load(connection, name, facts["tables"][name], folder / f"{name}.copy")
            _restore_sequences(connection, facts["sequences"])
            # Foreign keys are checked before row-level security may be changed again.
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            _set_triggers(connection, "ENABLE")
            _alter(connection, secured, "FORCE")
        except psycopg.OperationalError:
            raise  # it went away, or its disk is full: that says nothing of the backup
        except psycopg.Error as error:
            raise Invalid(
                f"the backup does not fit this schema: {first_line(error)}",
                code="restore_mismatch",
                hint="Restore it with the version of the program that made it.",
            ) from error


def _restore_sequences(connection: psycopg.Connection[Any], told: dict[str, int]) -> None:
    """Let each sequence go on behind what it has given out. An older backup may lack some: those go on
    behind the largest number in their column, or, where they have none, behind any that there was."""
    rows = connection.execute(
        """SELECT s.relname, t.relname, a.attname FROM pg_class s
           LEFT JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass
             AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
           LEFT JOIN pg_class t ON t.oid = d.refobjid
           LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
           WHERE s.relkind = 'S' AND s.relnamespace = 'public'::regnamespace"""
    ).fetchall()
    for name, table, column in rows:
        last = told.get(name)
        if last is None and table is not None:
            most = sql.SQL("SELECT coalesce(max({}), 0) FROM {}").format(sql.Identifier(column), sql.Identifier(table))
            (last,) = connection.execute(most).fetchone() or (0,)
        if last != 0:
            connection.execute("SELECT setval(%s::regclass, %s)", (f'public."{name}"', last or _SEQUENCE_FLOOR))


def _columns(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    rows = connection.execute(
        """SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum)
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> %s
             AND c.relpersistence = 'p'
             AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
           GROUP BY c.relname ORDER BY c.relname""",
        (_VERSION_TABLE,),
    )
    return {name: list(columns) for name, columns in rows}


def _dependency_order(connection: psycopg.Connection[Any], tables: dict[str, list[str]]) -> list[str]:
    """Referenced tables before those that refer to them; a table that refers to itself is loaded by one statement."""
    needs: dict[str, set[str]] = {name: set() for name in tables}
    rows = connection.execute(
        """SELECT f.relname, t.relname FROM pg_constraint k JOIN pg_class f ON f.oid = k.conrelid
           JOIN pg_class t ON t.oid = k.confrelid
           WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND f.oid <> t.oid"""
    )
    for name, needed in rows:
        needs[name].add(needed)
    return list(TopologicalSorter(needs).static_order())


def _set_triggers(connection: psycopg.Connection[Any], word: LiteralString) -> None:
    """What the database makes of rows as they arrive (sums, sets of readers) is in the backup itself. Made once more,
    it would depend on the order of the tables: a document that is shared by link has another set until its links are
    there. Keys that refer to others are checked all the same."""
    tables = connection.execute(
        """SELECT DISTINCT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
           WHERE NOT t.tgisinternal AND c.relnamespace = 'public'::regnamespace ORDER BY 1"""
    ).fetchall()
    for (table,) in tables:
        connection.execute(sql.SQL("ALTER TABLE {} " + word + " TRIGGER USER").format(sql.Identifier(table)))


def _secured_tables(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relforcerowsecurity ORDER BY 1"
    )
    return [name for (name,) in rows]


def _alter(connection: psycopg.Connection[Any], tables: list[str], how: str) -> None:
    for name in tables:
        statement = sql.SQL("ALTER TABLE {} {} ROW LEVEL SECURITY")
        connection.execute(statement.format(sql.Identifier(name), sql.SQL("FORCE" if how == "FORCE" else "NO FORCE")))


def _load(connection: psycopg.Connection[Any], name: str, columns: list[str], path: Path) -> None:
    with path.open("rb") as source, connection.cursor() as cursor:
        with cursor.copy(_statement(name, columns, "FROM STDIN")) as copy:
            while block := source.read(1 << 20):
                copy.write(block)


def _statement(name: str, columns: list[str], direction: str) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    way = sql.SQL("TO STDOUT" if direction == "TO STDOUT" else "FROM STDIN")
    return sql.SQL("COPY {} ({}) {}").format(sql.Identifier(name), names, way)


def _require_empty(connection: psycopg.Connection[Any]) -> None:
    for name in ("blueprint", "call", "audit_entry"):
        used = connection.execute(sql.SQL("SELECT EXISTS (SELECT 1 FROM {})").format(sql.Identifier(name))).fetchone()
        if used and used[0]:
            raise Conflict(
                "the database is in use already",
                code="restore_not_empty",
                hint="Restore into an empty database, or unset GROUNDPLAN_DATABASE_URL.",
            )
