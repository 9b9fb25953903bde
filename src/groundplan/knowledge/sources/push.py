"""The connector of documents that applications push through the API; they are kept in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import Connection

from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.sources import push_store as store
from groundplan.knowledge.sources.errors import document_gone
from groundplan.knowledge.sources.model import Change, Content, Cursor, FolderRules


class PushConnector:
    """`conn` is of role control and in autocommit."""

    def __init__(self, conn: Connection[Any], source: str) -> None:
        self._conn, self._source = conn, source
        self.is_complete = False

    def close(self) -> None:
        """Nothing to close: the connection belongs to the caller."""

    def tables(self) -> Sequence[Table]:
        return ()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        """Pushes and withdrawals, in their order."""
        self.is_complete = cursor is None
        number = int(cursor["number"]) if cursor else 0
        while batch := store.changes_after(self._conn, self._source, number):
            for path, position, withdrawn in batch:
                yield Change(path, str(position), is_deleted=withdrawn, cursor={"number": position})
            number = batch[-1][1]

    def read(self, key: str) -> Content:
        row = store.read_pushed(self._conn, self._source, key)
        if row is None:
            raise document_gone("it was withdrawn meanwhile")
        values = dict(row.told) | ({} if row.readers is None else {"readers": row.readers})
        return Content(row.data, media=row.media, modified_at=row.at, governed_values=values)

    def folder_rules(self, key: str) -> Sequence[FolderRules]:  # noqa: ARG002 -- pushed documents have no folders
        return ()
