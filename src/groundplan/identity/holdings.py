"""What hangs on each person: for the look through everybody's rights, and for whoever takes over from a leaver.

Only reads. Names and addresses are for who may see them; that is the caller's to decide.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.identity import passkey_store, rights_store, session_store, store
from groundplan.identity.store import rows


def everybody(conn: Connection[Any], now: datetime) -> list[dict[str, Any]]:
    """`of_person` of each active person, by e-mail address."""
    return [of_person(conn, person.id, now) for person in store.people(conn) if person.active]


def of_person(conn: Connection[Any], person_id: UUID, now: datetime) -> dict[str, Any]:
    """`{"person", "name", "active", "duties", "groups", "keys", "passkeys", "sessions", "roles", "seats"}`.

    `seats` are the changes that wait for a duty which nobody else holds; `duties` are `duty of subject`.
    """
    person = store.person(conn, person_id)
    assert person is not None
    held = store.duties(conn, person_id=person_id)
    return {
        "person": person.email,
        "name": person.name,
        "active": person.active,
        "duties": [f"{duty.duty} of {duty.subject}" for duty in held],
        "groups": sorted(store.reader_names(conn, person_id) - {person.email}),
        "keys": [
            {"id": str(id), "workload": workload}
            for id, workload in rows(
                conn,
                "SELECT id, workload FROM api_key WHERE person_id = %s AND revoked_at IS NULL ORDER BY created_at",
                (person_id,),
            )
        ],
        "passkeys": [
            {"label": key.label, "confirmed": key.counts(now)} for key in passkey_store.of_person(conn, person_id)
        ],
        "sessions": len(session_store.open_sessions(conn, person_id, now)),
        "roles": list(rights_store.roles_of(conn, person_id, now)),
        "seats": _seats(conn, person_id),
    }


def _seats(conn: Connection[Any], person_id: UUID) -> list[str]:
    found = rows(
        conn,
        """SELECT DISTINCT c.id::text FROM change c, jsonb_array_elements(c.needs) need
           JOIN duty d ON d.duty = need->>'duty' AND d.subject IN (need->>'subject', 'company')
           WHERE c.state = 'pending' AND d.person_id = %s AND NOT EXISTS (
             SELECT 1 FROM duty o JOIN person p ON p.id = o.person_id AND p.active
             WHERE o.duty = d.duty AND o.subject IN (need->>'subject', 'company') AND o.person_id <> %s)
           ORDER BY 1""",
        (person_id, person_id),
    )
    return [f"change/{id}" for (id,) in found]
