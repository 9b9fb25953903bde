"""Tables and views of an SQLite file, opened so that it cannot be written; names are quoted, values bound."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundplan.core.errors import Invalid
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES
from groundplan.knowledge.sources.sql_layout import Layout, away, too_long


class Sqlite:
    """An `Engine` for a file. A value that is longer than a document may be is refused by SQLite itself."""

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
            connection = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT_BYTES)
            # what is no UTF-8 costs its row, not the table
            connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            self._connection = connection
        return self._connection

    def rows(self, layout: Layout, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        what, place = ", ".join(map(_quoted, columns)), columns.index(layout.id)
        head, id = f"SELECT {what} FROM {_table(layout)}", _quoted(layout.id)
        after: tuple[Any, ...] = ()
        while True:
            try:
                for row in self._run(layout, f"{head}{_behind(id, after)} ORDER BY {id}", after):
                    after = (row[place],)
                    yield (*row, 0)
                return
            except sqlite3.DataError:
                # the row behind the last one is too long: its name alone is read
                behind = f"FROM {_table(layout)}{_behind(id, after)}"
                found = self._run(layout, f"SELECT {id} {behind} ORDER BY {id} LIMIT 1", after)
                after = self._fetched(layout, found)
                yield (*(after[0] if at == place else None for at in range(len(columns))), MAX_TEXT_BYTES + 1)
            except sqlite3.Error as error:
                raise away(f"{layout.table} cannot be read", error) from error

    def _fetched(self, layout: Layout, cursor: sqlite3.Cursor) -> tuple[Any, ...]:
        try:
            found: tuple[Any, ...] | None = cursor.fetchone()
        except sqlite3.Error as error:
            raise away(f"{layout.table} cannot be read", error) from error
        if found is None:
            raise away(f"{layout.table} changed meanwhile", None)
        return found

    def row(self, layout: Layout, key: str) -> Mapping[str, Any] | None:
        query = f"SELECT * FROM {_table(layout)} WHERE CAST({_quoted(layout.id)} AS TEXT) = ?"
        try:
            cursor = self._run(layout, query, (key,))
            found = cursor.fetchone()
        except sqlite3.DataError as error:
            raise too_long() from error
        except sqlite3.Error as error:
            raise away(f"{layout.table} cannot be read", error) from error
        return None if found is None else dict(zip([c[0] for c in cursor.description], found, strict=True))

    def columns(self, layout: Layout) -> list[str]:
        return [column[0] for column in self._run(layout, f"SELECT * FROM {_table(layout)} LIMIT 0").description]

    def grantees(self, layout: Layout) -> set[str]:
        raise Invalid(
            f"SQLite knows no grants on {layout.table}", code="connector_grants", hint="Name a column of `readers`."
        )

    def _run(self, layout: Layout, query: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._conn().execute(query, values)
        except sqlite3.DataError:
            raise
        except sqlite3.Error as error:
            raise away(f"{layout.table} cannot be read", error) from error


def _behind(id: str, after: tuple[Any, ...]) -> str:
    return f" WHERE {id} > ?" if after else ""


def _table(layout: Layout) -> str:
    return ".".join(map(_quoted, layout.table.split(".")))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
