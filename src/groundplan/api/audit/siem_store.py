"""The SQL of the stream of security events: how far the log was sent."""

from __future__ import annotations

from typing import Any

from psycopg import Connection


def claimed_position(conn: Connection[Any]) -> int | None:
    """The leaf to go on with, which nobody else does for a minute; None where another process sends."""
    row = conn.execute(
        """UPDATE siem_position SET claimed_at = now()
           WHERE claimed_at IS NULL OR claimed_at NOT BETWEEN now() - interval '1 minute' AND now() RETURNING leaf"""
    ).fetchone()
    return None if row is None else int(row[0])


def position(conn: Connection[Any]) -> int:
    """The leaf before which all was sent."""
    row = conn.execute("SELECT leaf FROM siem_position").fetchone()
    return 0 if row is None else int(row[0])


def moved(conn: Connection[Any], start: int, leaf: int) -> None:
    """All from `start` on was sent; what somebody else went on with meanwhile stays so."""
    conn.execute("UPDATE siem_position SET leaf = %s, sent_at = now() WHERE leaf = %s", (leaf, start))


def let_go(conn: Connection[Any], start: int) -> None:
    """Of the claim, where nobody has gone on since."""
    conn.execute("UPDATE siem_position SET claimed_at = NULL WHERE leaf = %s", (start,))
