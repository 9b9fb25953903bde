"""What each person is responsible for, for access reviews and for handing over the duties of somebody who leaves.

Reads only, and needs the same number of statements for one person as for tens of thousands. The caller checks who may
see names and addresses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection

from groundplan.identity import passkey_store, store
from groundplan.identity.model import EVERYONE
from groundplan.identity.store import fetch_rows

_PEOPLE: LiteralString = """SELECT id, email, name, active FROM person
    WHERE CASE WHEN %(person)s::uuid IS NULL THEN active ELSE id = %(person)s END ORDER BY email"""
_GROUPS: LiteralString = """WITH RECURSIVE mine(person, id) AS (
      SELECT person_id, group_id FROM membership
      WHERE person_id IS NOT NULL AND (%(person)s::uuid IS NULL OR person_id = %(person)s)
      UNION SELECT mine.person, m.group_id FROM membership m JOIN mine ON m.member_group_id = mine.id)
    SELECT mine.person, g.name FROM mine JOIN people_group g USING (id) ORDER BY g.name"""
_KEYS: LiteralString = """SELECT person_id, jsonb_build_object('id', id::text, 'workload', workload) FROM api_key
    WHERE person_id IS NOT NULL AND (%(person)s::uuid IS NULL OR person_id = %(person)s) AND revoked_at IS NULL
    ORDER BY created_at"""
_KEYS_MADE: LiteralString = """SELECT p.id, jsonb_build_object('id', k.id::text, 'workload', k.workload)
    FROM api_key k LEFT JOIN service_token t ON k.created_by = 'service:' || t.id
    JOIN person p ON 'person:' || p.id = coalesce(t.created_by, k.created_by)
    WHERE (%(person)s::uuid IS NULL OR p.id = %(person)s) AND k.person_id IS DISTINCT FROM p.id
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > %(now)s)
    ORDER BY k.created_at"""
"""Keys of other people or of nobody that the person, or a program of theirs, created: they know their secrets."""
_SESSIONS: LiteralString = """SELECT person_id, id FROM console_session
    WHERE person_id IS NOT NULL AND (%(person)s::uuid IS NULL OR person_id = %(person)s) AND ended_at IS NULL
      AND expires_at > %(now)s"""
_ROLES: LiteralString = """SELECT DISTINCT person_id, role FROM appointment
    WHERE (%(person)s::uuid IS NULL OR person_id = %(person)s) AND begins <= %(now)s AND ends > %(now)s
      AND (ended_at IS NULL OR ended_at > %(now)s) ORDER BY role"""
_SEATS: LiteralString = """SELECT DISTINCT d.person_id, 'change/' || c.id AS seat
    FROM change c, jsonb_array_elements(c.needs) need
    JOIN duty d ON d.duty = need->>'duty' AND d.subject IN (need->>'subject', 'company')
    WHERE c.state = 'pending' AND (%(person)s::uuid IS NULL OR d.person_id = %(person)s) AND NOT EXISTS (
      SELECT 1 FROM duty o JOIN person p ON p.id = o.person_id AND p.active
      WHERE o.duty = d.duty AND o.subject IN (need->>'subject', 'company') AND o.person_id <> d.person_id)
    ORDER BY seat"""


def all_responsibilities(conn: Connection[Any], now: datetime) -> list[dict[str, Any]]:
    """`responsibilities_of` each active person, by e-mail address."""
    return _responsibilities(conn, None, now)


def responsibilities_of(conn: Connection[Any], person_id: UUID, now: datetime) -> dict[str, Any]:
    """`{"person", "name", "active", "duties", "groups", "keys", "keys_made", "passkeys", "sessions", "roles",
    "seats"}`.

    `keys_made` go on when they leave, since applications use them. `seats` are the changes that wait for a duty which
    nobody else holds; `duties` are `duty of subject`.
    """
    (value,) = _responsibilities(conn, person_id, now)
    return value


def _responsibilities(conn: Connection[Any], person_id: UUID | None, now: datetime) -> list[dict[str, Any]]:
    parameters = {"person": person_id, "now": now}

    def by_person(query: LiteralString) -> dict[UUID, list[Any]]:
        return _grouped(fetch_rows(conn, query, parameters))

    duty_rows = store.duties(conn, person_id=person_id)
    duties = _grouped((holding.person.id, f"{holding.duty} of {holding.subject}") for holding in duty_rows)
    passkeys = _grouped((key.person_id, key) for key in passkey_store.list_passkeys(conn, person_id))
    groups, keys, sessions = by_person(_GROUPS), by_person(_KEYS), by_person(_SESSIONS)
    keys_made = by_person(_KEYS_MADE)
    roles, seats = by_person(_ROLES), by_person(_SEATS)
    return [
        {
            "person": email,
            "name": name,
            "active": active,
            "duties": duties[id],
            "groups": sorted({*groups[id], *([EVERYONE] if active else [])}),
            "keys": keys[id],
            "keys_made": keys_made[id],
            "passkeys": [{"label": key.label, "confirmed": key.is_valid(now)} for key in passkeys[id]],
            "sessions": len(sessions[id]),
            "roles": roles[id],
            "seats": seats[id],
        }
        for id, email, name, active in fetch_rows(conn, _PEOPLE, parameters)
    ]


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[UUID, list[Any]]:
    grouped: dict[UUID, list[Any]] = defaultdict(list)
    for person, values in rows:
        grouped[person].append(values)
    return grouped
