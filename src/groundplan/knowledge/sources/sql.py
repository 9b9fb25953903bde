"""The connector of a table or view of PostgreSQL or SQLite: each row is a document, whose readers are in a column.

All rows are listed each time, so that deleted rows are noticed; unchanged ones are not read again. The databases are
accessed by `sql_postgres` and `sql_sqlite`. A row that is longer than a document may be is never fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any

from groundplan.core.errors import Invalid, Unavailable
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.text import clean
from groundplan.knowledge.sources.errors import document_gone
from groundplan.knowledge.sources.model import Change, Content, Cursor, FolderRules
from groundplan.knowledge.sources.pace import RateLimiter
from groundplan.knowledge.sources.sql_layout import ROW_SECURITY, Engine
from groundplan.knowledge.sources.sql_layout import Layout as Layout
from groundplan.knowledge.sources.sql_postgres import Postgres as Postgres
from groundplan.knowledge.sources.sql_sqlite import Sqlite as Sqlite

MAX_ROWS = 2_000_000
MAX_CHECKED = 200_000


class SqlConnector:
    """The connector. A key is the value of the column `id` as text."""

    is_complete = True

    def __init__(self, engine: Engine, layout: Layout, rate: float | None = None) -> None:
        """`rate`: most rows that are read per second; None: unlimited."""
        self._engine, self._layout = engine, layout
        self._pace = None if rate is None else RateLimiter(rate)
        self._table_rules: Sequence[FolderRules] = ()
        self._ambiguous_keys: set[str] = set()

    def close(self) -> None:
        self._engine.close()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every row; its version is its column `changed`, or else all its values. Raises `Unavailable`."""
        layout = self._layout
        names = self._engine.columns(layout)
        for name in (layout.id, layout.changed, layout.readers):
            if name is not None and name not in names:
                raise Unavailable(
                    f"{layout.table} has no column '{name}'", code="source_missing",
                    hint=f"It has {', '.join(names[:20])}: correct the connector.",
                )  # fmt: skip
        grants_error = self._read_grants() if layout.grants else None
        key_columns = [name for name in (layout.id, layout.changed, layout.readers) if name is not None]
        wanted = key_columns if layout.changed else names
        place = wanted.index(layout.id)
        self._ambiguous_keys = set()
        for key, rows in groupby(self._limited_rows(wanted), key=lambda row: str(row[place])):
            digest = hashlib.sha256()
            for number, row in enumerate(rows):
                digest.update(ascii(row).encode())
                if number or row[place] in (None, ""):
                    self._ambiguous_keys.add(key)
            yield Change(key, digest.hexdigest()[:32])
        if grants_error is not None:
            raise grants_error

    def _limited_rows(self, wanted: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The rows, those with the same id together. Raises `Unavailable` above `MAX_ROWS`."""
        for number, row in enumerate(self._engine.rows(self._layout, wanted)):
            if number >= MAX_ROWS:
                raise Unavailable(
                    f"{self._layout.table} has more than {MAX_ROWS} rows", code="source_too_large",
                    hint="Name a view that has the rows which answers need.",
                )  # fmt: skip
            yield row

    def _read_grants(self) -> Unavailable | None:
        """Set the readers from the grants on the table. If row-level rules decide as well, nobody may read its rows;
        returns that error, which is raised at the end of the listing."""
        grants_error = None
        try:
            names = self._engine.grantees(self._layout)
        except Unavailable as error:
            if error.code != ROW_SECURITY:
                raise
            names, grants_error = set(), error
        self._table_rules = (FolderRules("grants", Readers(frozenset(names)), is_access_list=True),)
        return grants_error

    def read(self, key: str) -> Content:
        if key in self._ambiguous_keys:
            raise Invalid(
                f"several rows of {self._layout.table} have this {self._layout.id}, or one has none", code="row_name",
                hint="Name a column of `id` that has another value in each row.",
            )  # fmt: skip
        if self._pace is not None:
            self._pace.wait()
        found = self._engine.row(self._layout, key)
        if found is None:
            raise document_gone("the row was removed meanwhile")
        values: dict[str, Any] = {}
        if self._layout.readers is not None:
            allow, deny = _parse_readers(found[self._layout.readers])
            values = {"readers": allow, "deny": deny}
        lines = [
            f"- {name}: {_single_line(key if name == self._layout.id and isinstance(value, bytes) else value)}"
            for name, value in found.items()
            if value is not None and name != self._layout.readers
        ]
        head = f"# {self._layout.table} {key}"
        try:
            data = "\n".join([head, "", *lines, ""]).encode()
        except UnicodeEncodeError as error:
            raise Invalid("it is not UTF-8", code="document_encoding", hint="Correct the row in its table.") from error
        changed = None if self._layout.changed is None else _parse_time(found[self._layout.changed])
        return Content(data, media="md", modified_at=changed, governed_values=values)

    def folder_rules(self, key: str) -> Sequence[FolderRules]:  # noqa: ARG002 -- the same for all rows
        return self._table_rules

    def tables(self) -> Sequence[Table]:
        """The table, for checks; only the first `MAX_CHECKED` rows of a longer one."""
        names = self._engine.columns(self._layout)
        rows: list[list[str]] = []
        partial = False
        for row in self._engine.rows(self._layout, names):
            if partial := len(rows) == MAX_CHECKED:
                break
            rows.append(["" if value is None else clean(str(value)) for value in row[: len(names)]])
        return (Table(name=self._layout.table, columns=names, rows=rows, partial=partial),)


def _parse_time(value: object) -> datetime | None:
    """The time in a column `changed`; None if it has something else, such as version numbers."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _single_line(value: object) -> str:
    return " ".join(str(value).split())


def _parse_readers(value: object) -> tuple[list[str], list[str]]:
    """`hr, ana@acme.example, !interns` as (allowed, denied); an empty value allows nobody."""
    names = value if isinstance(value, list) else str(value or "").split(",")
    plain = [clean(str(name)).strip() for name in names if clean(str(name)).strip()]
    return [name for name in plain if not name.startswith("!")], [name[1:] for name in plain if name.startswith("!")]
