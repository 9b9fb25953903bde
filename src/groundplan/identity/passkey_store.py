"""The SQL of passkeys and of ceremonies (pending sign-ins and registrations). No rules (`passkeys.py`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from groundplan.identity.model import Passkey
from groundplan.identity.store import execute_counted, fetch_rows

MAX_OPEN_SIGN_INS = 10_000
"""The most pending sign-ins that are stored: more than any company begins within half a minute."""
_PROVEN_OTHERS: LiteralString = """p.active AND p.id <> %s AND (
      EXISTS (SELECT 1 FROM passkey k WHERE k.person_id = p.id AND k.confirmed_at IS NOT NULL AND k.removed_at IS NULL)
      OR EXISTS (SELECT 1 FROM console_session s WHERE s.person_id = p.id AND s.proof = 'oidc'))"""
_PASSKEY: LiteralString = """SELECT id, person_id, material, sign_count, label, created_at, created_by, used_at,
    confirmed_at, confirmed_by, waits_until FROM passkey WHERE removed_at IS NULL"""


def insert(conn: Connection[Any], key: Passkey) -> bool:
    """Store a new passkey; False if its id is known already."""
    query = """INSERT INTO passkey (id, person_id, material, sign_count, label, created_at, created_by, confirmed_at,
                 confirmed_by, waits_until) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
    values = (
        key.id, key.person_id, key.material, key.sign_count, key.label, key.created_at, key.created_by,
        key.confirmed_at, key.confirmed_by, key.waits_until,
    )  # fmt: skip
    return bool(execute_counted(conn, query, values))


def find_passkey(conn: Connection[Any], id: bytes) -> Passkey | None:
    rows = fetch_rows(conn, _PASSKEY + " AND id = %s FOR UPDATE", (id,))
    return _passkey(rows[0]) if rows else None


def list_passkeys(conn: Connection[Any], person_id: UUID | None) -> list[Passkey]:
    """Passkeys of a person (None: of everybody), oldest first."""
    query = _PASSKEY + " AND (%(person)s::uuid IS NULL OR person_id = %(person)s) ORDER BY created_at"
    return [_passkey(row) for row in fetch_rows(conn, query, {"person": person_id})]


def list_unconfirmed(conn: Connection[Any]) -> list[Passkey]:
    """Unconfirmed passkeys of active people, oldest first."""
    query = (
        _PASSKEY
        + """ AND confirmed_at IS NULL
        AND EXISTS (SELECT 1 FROM person p WHERE p.id = person_id AND p.active) ORDER BY created_at"""
    )
    return [_passkey(row) for row in fetch_rows(conn, query)]


def was_ever_confirmed(conn: Connection[Any]) -> bool:
    """Whether any passkey was ever confirmed, removed ones included."""
    return bool(fetch_rows(conn, "SELECT 1 FROM passkey WHERE confirmed_at IS NOT NULL LIMIT 1"))


def others_have_proof(conn: Connection[Any], person_id: UUID) -> bool:
    """Whether another active person has a confirmed passkey, or has signed in at the company's own sign-in."""
    return bool(fetch_rows(conn, f"SELECT 1 FROM person p WHERE {_PROVEN_OTHERS} LIMIT 1", (person_id,)))


def others_can_confirm(conn: Connection[Any], person_id: UUID) -> bool:
    """Whether one of those others may confirm passkeys: by a duty for the company, or one that nobody holds for it."""
    return bool(
        fetch_rows(
            conn,
            f"""SELECT 1 FROM person p JOIN duty d ON d.person_id = p.id WHERE {_PROVEN_OTHERS} AND (
                 d.subject = 'company' OR NOT EXISTS (SELECT 1 FROM duty c JOIN person q ON q.id = c.person_id
                   WHERE q.active AND c.subject = 'company' AND c.duty = d.duty)) LIMIT 1""",
            (person_id,),
        )
    )


def record_use(conn: Connection[Any], id: bytes, sign_count: int, at: datetime) -> None:
    conn.execute("UPDATE passkey SET sign_count = %s, used_at = %s WHERE id = %s", (sign_count, at, id))


def confirm(conn: Connection[Any], id: bytes, by: str, at: datetime) -> bool:
    query = "UPDATE passkey SET confirmed_at = %s, confirmed_by = %s WHERE id = %s AND confirmed_at IS NULL"
    return bool(execute_counted(conn, query, (at, by, id)))


def remove(conn: Connection[Any], id: bytes, by: str, at: datetime) -> bool:
    query = "UPDATE passkey SET removed_at = %s, removed_by = %s WHERE id = %s AND removed_at IS NULL"
    return bool(execute_counted(conn, query, (at, by, id)))


def insert_ceremony(
    conn: Connection[Any], hash: bytes, kind: str, person_id: UUID | None, state: dict[str, Any], expires: datetime
) -> None:
    """Store a ceremony and delete expired ones. Of those that belong to nobody, which strangers can begin without
    limit, only the newest are kept."""
    conn.execute("DELETE FROM ceremony WHERE expires_at < %s - interval '1 hour'", (expires,))
    conn.execute(
        """DELETE FROM ceremony WHERE hash IN (SELECT hash FROM ceremony WHERE person_id IS NULL AND expires_at <= (
             SELECT expires_at FROM ceremony WHERE person_id IS NULL ORDER BY expires_at DESC OFFSET %s LIMIT 1)
             FOR UPDATE SKIP LOCKED)""",
        (MAX_OPEN_SIGN_INS - 1,),
    )
    conn.execute(
        "INSERT INTO ceremony (hash, kind, person_id, state, expires_at) VALUES (%s, %s, %s, %s, %s)",
        (hash, kind, person_id, Jsonb(state), expires),
    )


def use_ceremony(conn: Connection[Any], hash: bytes, kind: str, now: datetime) -> tuple[UUID | None, Any] | None:
    """Use a ceremony up: (person, state); None if it is unknown, used or expired."""
    rows = fetch_rows(
        conn,
        """UPDATE ceremony SET used_at = %s WHERE hash = %s AND kind = %s AND used_at IS NULL AND expires_at > %s
           RETURNING person_id, state""",
        (now, hash, kind, now),
    )
    return (rows[0][0], rows[0][1]) if rows else None


def _passkey(row: tuple[Any, ...]) -> Passkey:
    return Passkey(bytes(row[0]), row[1], bytes(row[2]), *row[3:])
