"""The SQL of erasing a person. No rules (`erase.py`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.identity.store import fetch_rows


def delete_personal_data(conn: Connection[Any], person_id: UUID) -> None:
    """Delete what is stored of a person besides their name: passkeys, browsers, the directory's attributes, mail."""
    conn.execute(
        "UPDATE passkey SET removed_at = coalesce(removed_at, now()), label = 'erased' WHERE person_id = %s",
        (person_id,),
    )
    conn.execute(
        "UPDATE console_session SET agent = '', ended_at = coalesce(ended_at, now()) WHERE person_id = %s", (person_id,)
    )
    conn.execute("DELETE FROM directory_person WHERE person_id = %s", (person_id,))
    conn.execute("DELETE FROM mail WHERE person_id = %s", (person_id,))
    conn.execute("DELETE FROM membership WHERE person_id = %s", (person_id,))


def erase_name(conn: Connection[Any], person_id: UUID) -> None:
    """Overwrite name and address; the row stays for what refers to it."""
    conn.execute(
        "UPDATE person SET name = 'erased', email = %s WHERE id = %s", (f"erased-{person_id}@invalid", person_id)
    )


def last_approval(conn: Connection[Any], person_id: UUID) -> datetime | None:
    """When the person last approved or refused something."""
    return fetch_rows(conn, "SELECT max(at) FROM approval WHERE person_id = %s", (person_id,))[0][0]  # type: ignore[no-any-return]


def due_names(conn: Connection[Any], before: datetime) -> list[UUID]:
    """People whose key is destroyed and whose name was kept for approvals that are all older than this."""
    rows = fetch_rows(
        conn,
        """SELECT p.id FROM person p JOIN subject_key k ON k.subject = p.id::text AND k.wrapped = ''
           WHERE NOT p.active AND p.name <> 'erased'
             AND NOT EXISTS (SELECT 1 FROM approval a WHERE a.person_id = p.id AND a.at >= %s)""",
        (before,),
    )
    return [id for (id,) in rows]
