"""A table or view of PostgreSQL or SQLite: each row is a document, readable by whom a column of the row names.

The connection only reads: PostgreSQL in a read-only transaction, SQLite opened read-only. Values are bound, names are
quoted. All rows are listed each time, so a row that is gone is told; what did not change is not read again.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg import sql

from groundplan.core.errors import Invalid, NotFound, Unavailable
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.sources.model import Around, Change, Content, Cursor

MAX_ROWS = 2_000_000
MAX_CHECKED = 200_000
_BATCH = 2000


@dataclass(frozen=True, slots=True)
class Layout:
    """Which table, and what its columns mean. `grants`: whoever may read the table reads its rows."""

    table: str
    id: str = "id"
    changed: str | None = None
    readers: str | None = None
    grants: bool = False


class Engine(Protocol):
    """The few questions that are asked of a database."""

    def rows(self, layout: Layout, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]: ...

    def row(self, layout: Layout, key: str) -> Mapping[str, Any] | None: ...

    def columns(self, layout: Layout) -> list[str]: ...

    def grantees(self, layout: Layout) -> set[str]: ...

    def close(self) -> None: ...


class Rows:
    """The connector. A key is the value of the column `id` as text."""

    whole = True

    def __init__(self, engine: Engine, layout: Layout) -> None:
        self._engine, self._layout = engine, layout
        self._around: Sequence[Around] = ()

    def close(self) -> None:
        self._engine.close()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """A change of every row, by its column `changed`, else by all its values. Raises `Unavailable`."""
        layout = self._layout
        names = self._engine.columns(layout)
        for name in (layout.id, layout.changed, layout.readers):
            if name is not None and name not in names:
                raise Unavailable(
                    f"{layout.table} has no column '{name}'", code="source_missing",
                    hint=f"It has {', '.join(names[:20])}: correct the connector.",
                )  # fmt: skip
        if layout.grants:
            self._around = (Around("grants", Readers(frozenset(self._engine.grantees(layout))), complete=True),)
        quick = [name for name in (layout.id, layout.changed, layout.readers) if name is not None]
        for number, row in enumerate(self._engine.rows(layout, quick if layout.changed else None)):
            if number >= MAX_ROWS:
                raise Unavailable(
                    f"{layout.table} has more than {MAX_ROWS} rows", code="source_too_large",
                    hint="Name a view that has the rows which answers need.",
                )  # fmt: skip
            key = row[0] if layout.changed else row[names.index(layout.id)]
            yield Change(_key(key), hashlib.sha256(repr(row).encode()).hexdigest()[:32])

    def read(self, key: str) -> Content:
        found = self._engine.row(self._layout, key)
        if found is None:
            raise NotFound("the row went away meanwhile", code="document_gone", hint="Nothing needs to be done.")
        told: dict[str, Any] = {}
        if self._layout.readers is not None:
            allow, deny = _readers(found[self._layout.readers])
            told = {"readers": allow, "deny": deny}
        lines = [
            f"- {name}: {_text(value)}"
            for name, value in found.items()
            if value is not None and name != self._layout.readers
        ]
        head = f"# {self._layout.table} {key}"
        return Content("\n".join([head, "", *lines, ""]).encode(), media="md", told=told)

    def around(self, key: str) -> Sequence[Around]:  # noqa: ARG002 -- the same for all rows
        return self._around

    def tables(self) -> Sequence[Table]:
        """The whole table, for checks; not one that is too long to be checked at once."""
        names = self._engine.columns(self._layout)
        rows: list[list[str]] = []
        for row in self._engine.rows(self._layout, None):
            if len(rows) == MAX_CHECKED:
                break
            rows.append(["" if value is None else str(value) for value in row])
        return (Table(name=self._layout.table, columns=names, rows=rows),)


def _key(value: object) -> str:
    return str(value)


def _text(value: object) -> str:
    return " ".join(str(value).split())


def _readers(value: object) -> tuple[list[str], list[str]]:
    """`hr, ana@acme.example, !interns` as (allowed, refused); nothing allows nobody."""
    names = value if isinstance(value, list) else str(value or "").split(",")
    plain = [str(name).strip() for name in names if str(name).strip()]
    return [name for name in plain if not name.startswith("!")], [name[1:] for name in plain if name.startswith("!")]


class Postgres:
    """An `Engine`; the address is a DSN. Raises `Unavailable` where it cannot be reached or read."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[Any] | None = None
        self._other: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        for connection in (self._connection, self._other):
            if connection is not None:
                connection.close()
        self._connection = self._other = None

    def _conn(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            try:
                self._connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=10)
                self._connection.execute("SET default_transaction_read_only = on")
            except psycopg.Error as error:
                raise away("the database cannot be reached", error) from error
        return self._connection

    def rows(self, layout: Layout, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
        what = sql.SQL("*") if columns is None else sql.SQL(", ").join(map(sql.Identifier, columns))
        query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(what, _table(layout), sql.Identifier(layout.id))
        try:
            with self._conn().transaction(), self._conn().cursor(name="source_rows") as cursor:
                cursor.itersize = _BATCH
                yield from cursor.execute(query)
        except psycopg.Error as error:
            raise away(f"{layout.table} cannot be read", error) from error

    def row(self, layout: Layout, key: str) -> Mapping[str, Any] | None:
        query = sql.SQL("SELECT * FROM {} WHERE {}::text = %s").format(_table(layout), sql.Identifier(layout.id))
        try:
            cursor = self._second().execute(query, (key,))
            found, names = cursor.fetchone(), [column.name for column in cursor.description or ()]
        except psycopg.Error as error:
            raise away(f"{layout.table} cannot be read", error) from error
        return None if found is None else dict(zip(names, found, strict=True))

    def _second(self) -> psycopg.Connection[Any]:
        """Another connection: the first one is in the middle of its rows."""
        if self._other is None or self._other.closed:
            self._other = psycopg.connect(self._dsn, autocommit=True, connect_timeout=10)
            self._other.execute("SET default_transaction_read_only = on")
        return self._other

    def columns(self, layout: Layout) -> list[str]:
        try:
            cursor = self._conn().execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(_table(layout)))
        except psycopg.Error as error:
            raise away(f"{layout.table} cannot be read", error) from error
        return [column.name for column in cursor.description or ()]

    def grantees(self, layout: Layout) -> set[str]:
        """Roles that were granted SELECT; PUBLIC is everyone. The owner is not among them."""
        rows = self._conn().execute(
            """SELECT CASE WHEN a.grantee = 0 THEN 'everyone' ELSE a.grantee::regrole::text END
               FROM pg_class c, aclexplode(c.relacl) a
               WHERE c.oid = %s::regclass AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner""",
            (layout.table,),
        )
        return {str(name).strip('"') for (name,) in rows}


class Sqlite:
    """An `Engine` for a file, opened so that it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _conn(self) -> sqlite3.Connection:
        if self._connection is None:
            if not self._path.is_file():
                raise away(f"there is no database {self._path.name}", None)
            self._connection = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        return self._connection

    def rows(self, layout: Layout, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
        what = "*" if columns is None else ", ".join(map(_quoted, columns))
        found = self._run(layout, f"SELECT {what} FROM {_quoted(layout.table)} ORDER BY {_quoted(layout.id)}")
        for row in found:  # noqa: UP028 -- handed on whole, the cursor would be closed after its database
            yield row

    def row(self, layout: Layout, key: str) -> Mapping[str, Any] | None:
        query = f"SELECT * FROM {_quoted(layout.table)} WHERE CAST({_quoted(layout.id)} AS TEXT) = ?"
        cursor = self._run(layout, query, (key,))
        found = cursor.fetchone()
        return None if found is None else dict(zip([c[0] for c in cursor.description], found, strict=True))

    def columns(self, layout: Layout) -> list[str]:
        return [column[0] for column in self._run(layout, f"SELECT * FROM {_quoted(layout.table)} LIMIT 0").description]

    def grantees(self, layout: Layout) -> set[str]:
        raise Invalid(
            f"SQLite knows no grants on {layout.table}", code="connector_grants", hint="Name a column of `readers`."
        )

    def _run(self, layout: Layout, query: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._conn().execute(query, values)
        except sqlite3.Error as error:
            raise away(f"{layout.table} cannot be read", error) from error


def _table(layout: Layout) -> sql.Identifier:
    return sql.Identifier(*layout.table.split("."))


def _quoted(name: str) -> str:
    """Names were checked against letters, digits and underscores when they were declared; quoted all the same."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
        raise Invalid(f"'{name}' is no name", code="connector_name", hint="Use letters, digits and underscores.")
    return f'"{name}"'


def away(what: str, error: Exception | None) -> Unavailable:
    said = f": {str(error).splitlines()[0][:200]}" if error is not None and str(error) else ""
    return Unavailable(
        f"{what}{said}", code="source_missing", hint="Check its address and rights; its documents stay as they were."
    )
