"""The SQL of pushed documents, as role control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from groundplan.knowledge.deletion import legal_hold_store

_BATCH = 500
_LOCK = 0x70757368
"""Advisory lock, held from numbering a push to the end of its transaction, so that numbers become visible in order."""

Conn = Connection[Any]


@dataclass(frozen=True, slots=True)
class Pushed:
    """A document as it was pushed. `readers` None: those of its source. `told`: its governed values."""

    data: bytes
    media: str
    readers: list[str] | None
    told: Mapping[str, Any]
    at: datetime


def put_document(conn: Conn, source: str, path: str, pushed: Pushed) -> int:
    """Insert or replace a document and return its number. An unchanged document keeps its time, since some applications
    push everything each night. A legal hold keeps the version before (`legal_hold_store`)."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    legal_hold_store.keep_pushed_bytes(conn, source, path, "changed", pushed.data)
    row = conn.execute(
        """INSERT INTO pushed (source, path, data, media, readers, told, number)
           VALUES (%s, %s, %s, %s, %s, %s, nextval('pushed_change'))
           ON CONFLICT (source, path) DO UPDATE SET data = excluded.data, media = excluded.media, gone = false,
             readers = excluded.readers, told = excluded.told, number = excluded.number,
             at = CASE WHEN pushed.data = excluded.data AND NOT pushed.gone THEN pushed.at ELSE now() END
           RETURNING number""",
        (source, path, pushed.data, pushed.media, pushed.readers, Jsonb(dict(pushed.told))),
    ).fetchone()
    assert row is not None
    return int(row[0])


def withdraw_document(conn: Conn, source: str, path: str) -> bool:
    """Destroy a pushed document, except for what a legal hold keeps, and number the withdrawal as a change. Returns
    False if there is no such document."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    legal_hold_store.keep_pushed_bytes(conn, source, path, "gone", None)
    done = conn.execute(
        """UPDATE pushed SET data = '', told = '{}', readers = NULL, gone = true, number = nextval('pushed_change'),
             at = now() WHERE source = %s AND path = %s AND NOT gone""",
        (source, path),
    )
    return done.rowcount == 1


def drop_documents(conn: Conn, source: str, paths: Sequence[str]) -> None:
    """Destroy the documents that were pushed to these paths, without recording a change."""
    conn.execute("DELETE FROM pushed WHERE source = %s AND path = ANY(%s)", (source, list(paths)))


def changes_after(conn: Conn, source: str, number: int) -> list[tuple[str, int, bool]]:
    """(path, number, whether withdrawn) of the next changes, in order."""
    return conn.execute(
        "SELECT path, number, gone FROM pushed WHERE source = %s AND number > %s ORDER BY number LIMIT %s",
        (source, number, _BATCH),
    ).fetchall()


def read_pushed(conn: Conn, source: str, path: str) -> Pushed | None:
    with conn.cursor(row_factory=class_row(Pushed)) as cursor:
        return cursor.execute(
            "SELECT data, media, readers, told, at FROM pushed WHERE source = %s AND path = %s AND NOT gone",
            (source, path),
        ).fetchone()
