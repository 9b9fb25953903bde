"""Ingesting a source in tests: a database and its findings, and connectors that fail as scripted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

from groundplan.blueprint.model import Governed, Source
from groundplan.core.ids import new_id
from groundplan.knowledge.ingest import IngestSettings, ingest_source
from groundplan.knowledge.model import IngestReport
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.sources.model import Change, Connector, Content, Cursor, FolderRules
from groundplan.testing.database import Database


def source(name: str = "s", **governed: Any) -> Source:
    return Source(
        name=name, path=name, sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
        governed=Governed(**governed),
    )  # fmt: skip


class Intake:
    """Ingests sources into a database and reads back what is stored."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = psycopg.connect(database.urls["control"], autocommit=True)

    def close(self) -> None:
        self.conn.close()

    def ingest(self, connector: Connector, **governed: Any) -> IngestReport:
        return ingest_source(self.conn, source(**governed), connector, IngestSettings())

    def live_paths(self, name: str = "s") -> set[str]:
        rows = self.conn.execute("SELECT path FROM document WHERE source = %s AND deleted_at IS NULL", (name,))
        return {path for (path,) in rows}

    def document_columns(self, path: str, columns: str) -> Any:
        """The columns of a document's row: one value, or a tuple; None if there is no such document."""
        row = self.conn.execute(f"SELECT {columns} FROM document WHERE path = %s", (path,)).fetchone()
        return row[0] if row and len(row) == 1 else row

    def document_text(self, path: str) -> str:
        rows = self.conn.execute(
            "SELECT c.text FROM chunk c JOIN document d ON d.id = c.document_id WHERE d.path = %s ORDER BY c.number",
            (path,),
        )
        return "\n".join(text for (text,) in rows)

    def readers(self, path: str) -> set[str]:
        """The readers of a document; those that are denied are preceded by `!`."""
        rows = self.conn.execute(
            """SELECT CASE WHEN r.deny THEN '!' ELSE '' END || r.reader FROM document_reader r
               JOIN document d ON d.id = r.document_id WHERE d.path = %s""",
            (path,),
        )
        return {name for (name,) in rows}

    def findings(self, name: str = "s") -> dict[tuple[str, str], str]:
        """The open findings of a source: (kind, rest of the subject after the source) -> message."""
        rows = self.conn.execute("SELECT kind, subject, message FROM finding WHERE closed_at IS NULL")
        subject = f"source/{name}"
        return {
            (kind, about.removeprefix(subject).removeprefix("/")): message
            for kind, about, message in rows
            if about == subject or about.startswith(f"{subject}/")
        }

    def add_group(self, name: str) -> None:
        self.conn.execute("INSERT INTO people_group (id, type, name) VALUES (%s, 'group', %s)", (new_id(), name))


class ScriptedConnector:
    """A connector of texts by key. A text that is an exception is raised by `read`; `folder_errors`: key -> what
    `folder_rules` raises for it; `final_error`: raised by `changes` after all keys."""

    def __init__(
        self,
        texts: Mapping[str, bytes | Exception],
        *,
        folder_errors: Mapping[str, Exception] | None = None,
        final_error: Exception | None = None,
        is_complete: bool = True,
        modified_at: Callable[[str], datetime | None] = lambda _: None,
        governed_values: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.texts, self.folder_errors, self.final_error, self.is_complete = (
            dict(texts),
            dict(folder_errors or {}),
            final_error,
            is_complete,
        )
        self.modified_at, self.governed_values = modified_at, dict(governed_values or {})
        self.cursors: list[Cursor | None] = []
        self.reads: list[str] = []

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        self.cursors.append(cursor)
        for number, (key, text) in enumerate(self.texts.items()):
            yield Change(key, f"{hash(text)}" if isinstance(text, bytes) else "bad", cursor={"number": number})
        if self.final_error is not None:
            raise self.final_error

    def read(self, key: str) -> Content:
        self.reads.append(key)
        text = self.texts[key]
        if isinstance(text, Exception):
            raise text
        return Content(
            text, media="md", modified_at=self.modified_at(key), governed_values=self.governed_values.get(key, {})
        )

    def folder_rules(self, key: str) -> Sequence[FolderRules]:
        if key in self.folder_errors:
            raise self.folder_errors[key]
        return ()

    def tables(self) -> Sequence[Table]:
        return ()

    def close(self) -> None:
        pass
