"""The SQL of decisions requested from a command line. No rules (`terminal_decisions.py`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection

from groundplan.identity.model import Proof, TerminalRequest
from groundplan.identity.store import execute_counted, fetch_rows

_COLUMNS: LiteralString = """id, code, change_id, digest, decision, comment, asked_by, created_at, expires_at,
    person_id, proof, confirmed_at, used_at"""


def insert(conn: Connection[Any], hash: bytes, request: TerminalRequest) -> None:
    conn.execute(
        """INSERT INTO terminal_request
             (id, hash, code, change_id, digest, decision, comment, asked_by, created_at, expires_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            request.id, hash, request.code, request.change, request.digest, request.decision, request.comment,
            request.asked_by, request.created_at, request.expires_at,
        ),
    )  # fmt: skip


def find(conn: Connection[Any], id: UUID, *, lock: bool = True) -> TerminalRequest | None:
    """The request with this id, locked until the transaction ends unless `lock` is false."""
    query: LiteralString = f"SELECT {_COLUMNS} FROM terminal_request WHERE id = %s"
    rows = fetch_rows(conn, query + (" FOR UPDATE" if lock else ""), (id,))
    return TerminalRequest(*rows[0]) if rows else None


def find_by_secret(conn: Connection[Any], id: UUID, hash: bytes) -> TerminalRequest | None:
    """The request with this id and secret, locked."""
    query: LiteralString = f"SELECT {_COLUMNS} FROM terminal_request WHERE id = %s AND hash = %s FOR UPDATE"
    rows = fetch_rows(conn, query, (id, hash))
    return TerminalRequest(*rows[0]) if rows else None


def confirm(conn: Connection[Any], id: UUID, person: UUID, proof: Proof, at: datetime) -> None:
    conn.execute(
        "UPDATE terminal_request SET person_id = %s, proof = %s, confirmed_at = %s WHERE id = %s",
        (person, proof, at, id),
    )


def use(conn: Connection[Any], id: UUID, at: datetime) -> None:
    conn.execute("UPDATE terminal_request SET used_at = %s WHERE id = %s", (at, id))


def count_open(conn: Connection[Any], asked_by: str, now: datetime) -> int:
    """Number of open requests of a caller."""
    query = "SELECT count(*) FROM terminal_request WHERE asked_by = %s AND used_at IS NULL AND expires_at > %s"
    return int(fetch_rows(conn, query, (asked_by, now))[0][0])


def delete_expired(conn: Connection[Any], before: datetime) -> int:
    return execute_counted(conn, "DELETE FROM terminal_request WHERE expires_at < %s", (before,))
