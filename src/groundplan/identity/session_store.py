"""The SQL of sign-in: links and sessions, both found by the SHA-256 of their secret. No rules (`sessions.py`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.identity.model import OpenSession, Session
from groundplan.identity.store import execute_counted, fetch_rows


def insert_link(conn: Connection[Any], hash: bytes, person_id: UUID | None, now: datetime, expires: datetime) -> None:
    conn.execute(
        "INSERT INTO login_link (hash, person_id, created_at, expires_at) VALUES (%s, %s, %s, %s)",
        (hash, person_id, now, expires),
    )


def use_link(conn: Connection[Any], hash: bytes, now: datetime) -> tuple[UUID | None] | None:
    """Use a link up: its person in a tuple, or None if it is unknown, used or expired, or its person has left."""
    rows = fetch_rows(
        conn,
        """UPDATE login_link l SET used_at = %s WHERE hash = %s AND used_at IS NULL AND expires_at > %s
           AND (person_id IS NULL OR EXISTS (SELECT 1 FROM person p WHERE p.id = l.person_id AND p.active))
           RETURNING person_id""",
        (now, hash, now),
    )
    return (rows[0][0],) if rows else None


def insert_session(conn: Connection[Any], hash: bytes, session: Session, now: datetime, agent: str = "") -> None:
    conn.execute(
        """INSERT INTO console_session (hash, person_id, csrf, created_at, expires_at, proof, agent)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (hash, session.person_id, session.csrf, now, session.expires_at, session.proof, agent),
    )


def find_session(conn: Connection[Any], hash: bytes, now: datetime) -> Session | None:
    """The session unless it ended, expired, or its person has left."""
    rows = fetch_rows(
        conn,
        """SELECT s.person_id, s.acting_as, s.csrf, s.expires_at, s.proof, s.id FROM console_session s
           WHERE s.hash = %s AND s.ended_at IS NULL AND s.expires_at > %s
           AND (s.person_id IS NULL OR EXISTS (SELECT 1 FROM person p WHERE p.id = s.person_id AND p.active))""",
        (hash, now),
    )
    return Session(*rows[0]) if rows else None


def set_acting_as(conn: Connection[Any], hash: bytes, person_id: UUID | None) -> None:
    conn.execute("UPDATE console_session SET acting_as = %s WHERE hash = %s", (person_id, hash))


def end_session(conn: Connection[Any], hash: bytes, now: datetime) -> bool:
    query = "UPDATE console_session SET ended_at = %s WHERE hash = %s AND ended_at IS NULL"
    return bool(execute_counted(conn, query, (now, hash)))


def end_by_id(conn: Connection[Any], id: UUID, person_id: UUID | None, now: datetime) -> bool:
    """End a session of this person (None: the operator's); False if there is none."""
    query = """UPDATE console_session SET ended_at = %s
               WHERE id = %s AND person_id IS NOT DISTINCT FROM %s AND ended_at IS NULL AND expires_at > %s"""
    return bool(execute_counted(conn, query, (now, id, person_id, now)))


def open_sessions(conn: Connection[Any], person_id: UUID | None, now: datetime) -> list[OpenSession]:
    """The sessions of this person (None: the operator's) that have not ended, newest first."""
    rows = fetch_rows(
        conn,
        """SELECT id, person_id, proof, agent, created_at, expires_at FROM console_session
           WHERE person_id IS NOT DISTINCT FROM %s AND ended_at IS NULL AND expires_at > %s ORDER BY created_at DESC""",
        (person_id, now),
    )
    return [OpenSession(*row) for row in rows]


def end_sessions_of(conn: Connection[Any], person_id: UUID) -> None:
    conn.execute("UPDATE console_session SET ended_at = now() WHERE person_id = %s AND ended_at IS NULL", (person_id,))
    conn.execute("UPDATE console_session SET acting_as = NULL WHERE acting_as = %s AND ended_at IS NULL", (person_id,))


def delete_expired(conn: Connection[Any], before: datetime) -> int:
    """Delete links and sessions that expired before this time; returns how many. Each person's last session by the
    company's own sign-in is kept, since it shows that they have used it."""
    deleted = execute_counted(conn, "DELETE FROM login_link WHERE expires_at < %s", (before,))
    return deleted + execute_counted(
        conn,
        """DELETE FROM console_session s WHERE s.expires_at < %s AND (s.proof <> 'oidc' OR EXISTS (
             SELECT FROM console_session o WHERE o.person_id = s.person_id AND o.proof = 'oidc'
               AND (o.expires_at, o.id) > (s.expires_at, s.id)))""",
        (before,),
    )
