"""The SQL of the stream of security events: how far the log was sent."""

from __future__ import annotations

from typing import Any

from psycopg import Connection


def locked_position(conn: Connection[Any]) -> int | None:
    """The leaf to go on with, held until the transaction ends; None where another process holds it."""
    row = conn.execute("SELECT leaf FROM siem_position FOR UPDATE SKIP LOCKED").fetchone()
    return None if row is None else int(row[0])


def position(conn: Connection[Any]) -> int:
    """The leaf before which all was sent."""
    row = conn.execute("SELECT leaf FROM siem_position").fetchone()
    return 0 if row is None else int(row[0])


def moved(conn: Connection[Any], leaf: int) -> None:
    conn.execute("UPDATE siem_position SET leaf = %s, sent_at = now()", (leaf,))
