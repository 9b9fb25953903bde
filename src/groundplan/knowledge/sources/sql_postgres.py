"""Reads tables and views of PostgreSQL in read-only transactions; names are quoted, values bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.adapt import Loader
from psycopg.types.datetime import (
    DateLoader,
    IntervalLoader,
    TimeLoader,
    TimestampLoader,
    TimestamptzLoader,
    TimetzLoader,
)
from psycopg.types.json import JsonbLoader, JsonLoader

from groundplan.core.errors import Unavailable
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES
from groundplan.knowledge.sources.sql_layout import MAX_NAME, ROW_SECURITY, Layout, database_unavailable, value_too_long

_BATCH: Final = 2000
_TEXT_TYPES: Final = frozenset({17, 25, 1042, 1043})
"""Oids of the types whose length PostgreSQL knows without reading the value: bytea, text, char, varchar."""
_ROW_RULES: Final = """
    WITH RECURSIVE used(id) AS (
      SELECT %s::regclass::oid
      UNION SELECT d.refobjid FROM used u JOIN pg_rewrite r ON r.ev_class = u.id
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
          AND d.refclassid = 'pg_class'::regclass)
    SELECT c.oid::regclass::text, CASE WHEN c.relrowsecurity THEN 'row-level security' ELSE 'security_invoker' END
    FROM used u JOIN pg_class c ON c.oid = u.id
    WHERE c.relrowsecurity OR EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o
      WHERE o.option_name = 'security_invoker' AND lower(o.option_value) NOT IN ('false', 'off', 'no', '0', 'f', 'n'))
    ORDER BY 2 LIMIT 1"""
"""The table, or one below the view, that has row-level security; or a view that applies the rights of its reader."""
_GRANTEES: Final = """
    SELECT CASE WHEN who.id = 0 THEN 'everyone' ELSE pg_get_userbyid(who.id) END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
      LATERAL (SELECT a.grantee AS id FROM aclexplode(c.relacl) a
               WHERE a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
               UNION SELECT s.grantee FROM aclexplode(n.nspacl) s
               WHERE s.privilege_type = 'USAGE' AND s.grantee NOT IN (0, c.relowner)) who
    WHERE c.oid = %s::regclass
      AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.privilege_type = 'SELECT' AND a.grantee IN (0, who.id))
      AND CASE WHEN who.id = 0
        THEN EXISTS (SELECT FROM aclexplode(n.nspacl) s WHERE s.privilege_type = 'USAGE' AND s.grantee = 0)
        ELSE has_schema_privilege(who.id, n.oid, 'USAGE') END"""
"""The roles that were granted SELECT, themselves or by PUBLIC, and that may use the schema."""


def _lenient(loader: type[Loader]) -> type[Loader]:
    """A loader that returns values as text if Python cannot represent them, such as infinity, dates before Christ, or
    endlessly nested JSON: one of them must not fail the whole table."""

    class Lenient(loader):  # type: ignore[misc, valid-type]
        def load(self, data: Any) -> Any:
            try:
                return super().load(data)
            except (psycopg.DataError, ValueError, RecursionError):
                return bytes(data).decode()

    return Lenient


_LENIENT: Final = {
    name: _lenient(loader)
    for name, loader in (
        ("date", DateLoader), ("timestamp", TimestampLoader), ("timestamptz", TimestamptzLoader),
        ("interval", IntervalLoader), ("time", TimeLoader), ("timetz", TimetzLoader),
        ("json", JsonLoader), ("jsonb", JsonbLoader),
    )
}  # fmt: skip


class Postgres:
    """An `Engine` for a DSN. Raises `Unavailable` if the database cannot be reached or read."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[Any] | None = None
        self._second_connection: psycopg.Connection[Any] | None = None
        self._known: dict[str, dict[str, int]] = {}

    def close(self) -> None:
        for connection in (self._connection, self._second_connection):
            if connection is not None:
                connection.close()
        self._connection = self._second_connection = None

    def _conn(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _second_conn(self) -> psycopg.Connection[Any]:
        """A second connection, since the first one may be in the middle of a listing."""
        if self._second_connection is None or self._second_connection.closed:
            self._second_connection = self._connect()
        return self._second_connection

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=10)
            for type_, loader in _LENIENT.items():
                connection.adapters.register_loader(type_, loader)
            connection.execute("SET default_transaction_read_only = on")
        except psycopg.Error as error:
            raise database_unavailable("the database cannot be reached", error) from error
        return connection

    def rows(self, layout: Layout, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        types = self._types(layout)
        order = sql.SQL("t.{}").format(sql.Identifier(layout.id))
        query = _select(layout, {name: types[name] for name in columns}, sql.SQL("ORDER BY"), order)
        try:
            with self._conn().transaction(), self._conn().cursor(name="source_rows") as cursor:
                cursor.itersize = _BATCH
                yield from cursor.execute(query)
        except psycopg.Error as error:
            raise database_unavailable(f"{layout.table} cannot be read", error) from error

    def row(self, layout: Layout, key: str) -> Mapping[str, Any] | None:
        types = self._types(layout)
        try:
            found = self._find_row(layout, types, key)
        except psycopg.Error as error:
            raise database_unavailable(f"{layout.table} cannot be read", error) from error
        if found is None:
            return None
        if found[-1] > MAX_TEXT_BYTES:
            raise value_too_long()
        return dict(zip(types, found[:-1], strict=True))

    def _find_row(self, layout: Layout, types: Mapping[str, int], key: str) -> tuple[Any, ...] | None:
        """The row whose id is `key`: by its value, which may have an index, and by its text, since values may be equal
        that are written differently; by its text alone if `key` is no value of the column's type, or the type has no
        equality."""
        # a collation may ignore case, but ids of documents do not
        text = sql.SQL('t.{}::text COLLATE "C" = %s').format(sql.Identifier(layout.id))
        value = sql.SQL("t.{} = %s AND {}").format(sql.Identifier(layout.id), text)
        with suppress(psycopg.DataError, psycopg.errors.UndefinedFunction):
            return self._second_conn().execute(_select(layout, types, sql.SQL("WHERE"), value), (key, key)).fetchone()
        return self._second_conn().execute(_select(layout, types, sql.SQL("WHERE"), text), (key,)).fetchone()

    def columns(self, layout: Layout) -> list[str]:
        self._known.pop(layout.table, None)
        return list(self._types(layout))

    def _types(self, layout: Layout) -> dict[str, int]:
        """Column -> oid of its type, as of the last call of `columns`."""
        if layout.table in self._known:
            return self._known[layout.table]
        try:
            cursor = self._second_conn().execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(_table(layout)))
        except psycopg.Error as error:
            raise database_unavailable(f"{layout.table} cannot be read", error) from error
        types = {column.name: column.type_code for column in cursor.description or ()}
        self._known[layout.table] = types
        return types

    def grantees(self, layout: Layout) -> set[str]:
        """The roles that were granted SELECT and may use the schema, without the owner; PUBLIC is everyone."""
        try:
            table = _table(layout).as_string(self._conn())
            row_rule = self._conn().execute(_ROW_RULES, (table,)).fetchone()
            found = {str(name) for (name,) in self._conn().execute(_GRANTEES, (table,))}
        except psycopg.Error as error:
            raise database_unavailable(f"the grants of {layout.table} cannot be read", error) from error
        if row_rule is not None:
            raise Unavailable(
                f"{row_rule[1]} of {row_rule[0]} decides who reads which row, which its grants do not tell",
                code=ROW_SECURITY,
                hint="Name a column of `readers` instead of `grants: true`. Until then nobody reads its rows.",
            )
        return {"everyone"} if "everyone" in found else found


def _select(layout: Layout, types: Mapping[str, int], after: sql.SQL, what: sql.Composable) -> sql.Composed:
    """A query for these columns and their total length in bytes as text; `after` and `what` follow the table. Of a row
    that is too long only its id is read; the length is computed once per row."""
    length = sql.SQL(" + ").join(
        sql.SQL("coalesce(octet_length(t.{}{}), 0)::bigint").format(
            sql.Identifier(name), sql.SQL("" if type_ in _TEXT_TYPES else "::text")
        )
        for name, type_ in types.items()
    )
    columns = [
        _id_column(name, type_)
        if name == layout.id
        else sql.SQL("CASE WHEN l.length <= {} THEN t.{} END").format(sql.Literal(MAX_TEXT_BYTES), sql.Identifier(name))
        for name, type_ in types.items()
    ]
    return sql.SQL("SELECT {}, l.length FROM {} t CROSS JOIN LATERAL (SELECT {} AS length OFFSET 0) l {} {}").format(
        sql.SQL(", ").join(columns), _table(layout), length, after, what
    )


def _id_column(name: str, type_: int) -> sql.Composed:
    """The id of a row as text, as `row` compares it, cut off at `MAX_NAME` characters."""
    if type_ not in _TEXT_TYPES:
        return sql.SQL("t.{}::text").format(sql.Identifier(name))
    return sql.SQL("left(t.{}::text, {})").format(sql.Identifier(name), sql.Literal(MAX_NAME))


def _table(layout: Layout) -> sql.Identifier:
    return sql.Identifier(*layout.table.split("."))
