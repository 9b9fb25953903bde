"""Reads tables and views of an SQLite file that is opened read-only; names are quoted, values bound."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from groundplan.core.errors import Invalid
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES
from groundplan.knowledge.sources.sql_layout import Layout, database_unavailable, value_too_long

_AS_TEXT: Final = "CASE typeof({0}) WHEN 'blob' THEN hex({0}) ELSE CAST({0} AS TEXT) END"
"""SQL for the value of a column as text, whatever its type."""


class Sqlite:
    """An `Engine` for a file. SQLite itself refuses values that are longer than a document may be."""

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
                raise database_unavailable(f"there is no database {self._path.name}", None)
            connection = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT_BYTES)
            # invalid UTF-8 must fail its row, not the table
            connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            self._connection = connection
        return self._connection

    def rows(self, layout: Layout, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        id_index, comparison, id = columns.index(layout.id), self._comparison(layout), _quote(layout.id)
        # Python formats bytes and some numbers differently from SQLite
        id_expression = f"CASE WHEN typeof({id}) IN ('blob', 'real') THEN {_AS_TEXT.format(id)} ELSE {id} END"
        what = ", ".join(id_expression if name == layout.id else _quote(name) for name in columns)
        head, order = f"SELECT {what} FROM {_table(layout)}", f"{comparison.format(id)} COLLATE BINARY"
        after: tuple[Any, ...] = ()
        while True:
            try:
                for row in self._run(layout, f"{head}{_after_clause(comparison, id, after)} ORDER BY {order}", after):
                    after = (row[id_index],)
                    yield (*row, 0)
                return
            except sqlite3.DataError:
                # the next row may be too long: only its id is read, and whether another row has the same one
                source = f"FROM {_table(layout)}{_after_clause(comparison, id, after)}"
                names = self._fetch_ids(layout, f"SELECT {id_expression} {source} ORDER BY {order} LIMIT 2", after)
                after = (names[0],)
                for name in names:
                    if str(name) == str(names[0]):
                        yield (*(name if at == id_index else None for at in range(len(columns))), MAX_TEXT_BYTES + 1)
            except sqlite3.Error as error:
                raise database_unavailable(f"{layout.table} cannot be read", error) from error

    def _comparison(self, layout: Layout) -> str:
        """The SQL by which ids are compared: as text, unless all are text or all are integers, since 1 and '1' identify
        the same document."""
        types = self._run(layout, f"SELECT DISTINCT typeof({_quote(layout.id)}) FROM {_table(layout)} LIMIT 2")
        return "{0}" if types.fetchall() in ([], [("text",)], [("integer",)]) else _AS_TEXT

    def _fetch_ids(self, layout: Layout, query: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            found = [name for (name,) in self._run(layout, query, values)]
        except sqlite3.Error as error:
            raise database_unavailable(f"{layout.table} cannot be read", error) from error
        if not found:
            raise database_unavailable(f"{layout.table} changed meanwhile", None)
        return found

    def row(self, layout: Layout, key: str) -> Mapping[str, Any] | None:
        # a column may be declared to ignore case, but ids of documents do not
        as_text = f"{_AS_TEXT.format(_quote(layout.id))} = :v1 COLLATE BINARY"
        query = f"SELECT * FROM {_table(layout)} WHERE "
        try:
            # there may be an index on the value; in a column without a type, a number is not equal to its text
            values = tuple(_possible_values(key))
            marks = ", ".join(f":v{number}" for number in range(1, len(values) + 1))
            cursor = self._run(layout, f"{query}{_quote(layout.id)} IN ({marks}) AND {as_text}", values)
            found = cursor.fetchone()
            if found is None:
                cursor = self._run(layout, f"{query}{as_text}", (key,))
                found = cursor.fetchone()
        except sqlite3.DataError as error:
            raise value_too_long() from error
        except sqlite3.Error as error:
            raise database_unavailable(f"{layout.table} cannot be read", error) from error
        return None if found is None else dict(zip([c[0] for c in cursor.description], found, strict=True))

    def columns(self, layout: Layout) -> list[str]:
        return [column[0] for column in self._run(layout, f"SELECT * FROM {_table(layout)} LIMIT 0").description]

    def grantees(self, layout: Layout) -> set[str]:
        raise Invalid(
            f"SQLite knows no grants on {layout.table}", code="connector_grants", hint="Name a column of `readers`."
        )

    def _run(self, layout: Layout, query: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._conn().execute(query, {f"v{number}": value for number, value in enumerate(values, 1)})
        except sqlite3.DataError:
            raise
        except sqlite3.Error as error:
            raise database_unavailable(f"{layout.table} cannot be read", error) from error


def _after_clause(comparison: str, id: str, after: tuple[Any, ...]) -> str:
    if not after:
        return ""
    if after[0] is None:  # rows without a name come first, and nothing compares with none
        return f" WHERE {id} IS NOT NULL AND :v1 IS NULL"
    return f" WHERE {comparison.format(id)} > {comparison.format(':v1')} COLLATE BINARY"


def _possible_values(key: str) -> Iterator[str | int | float | bytes]:
    """The values that may be written as `key`."""
    yield key
    for read in (int, float, bytes.fromhex):
        with suppress(ValueError):
            value = read(key)
            if not isinstance(value, int) or abs(value) < 1 << 63:
                yield value


def _table(layout: Layout) -> str:
    return ".".join(map(_quote, layout.table.split(".")))


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
