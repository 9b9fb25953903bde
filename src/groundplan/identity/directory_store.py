"""The SQL of what the company's directory says of people and groups. No rules (`oidc.py`, `scim.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection

from groundplan.identity.store import changed, rows


@dataclass(frozen=True, slots=True)
class DirectoryPerson:
    """A person as the directory names them."""

    id: UUID
    email: str
    name: str
    active: bool
    external_id: str | None
    user_name: str
    given_name: str
    family_name: str
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class DirectoryGroup:
    """A group as the directory names it; members are people by id."""

    id: UUID
    name: str
    external_id: str | None
    members: tuple[UUID, ...]


_PERSON: LiteralString = """SELECT p.id, p.email, p.name, p.active, d.external_id, coalesce(d.user_name, p.email),
    coalesce(d.given_name, ''), coalesce(d.family_name, ''), p.created_at, coalesce(d.changed_at, p.created_at)
    FROM person p LEFT JOIN directory_person d ON d.person_id = p.id"""
_GROUP: LiteralString = """SELECT g.id, g.name, d.external_id,
    ARRAY(SELECT m.person_id FROM membership m WHERE m.group_id = g.id AND m.person_id IS NOT NULL ORDER BY 1)
    FROM people_group g LEFT JOIN directory_group d ON d.group_id = g.id"""


def by_subject(conn: Connection[Any], issuer: str, subject: str) -> UUID | None:
    """Who is known by this subject of the issuer."""
    query = "SELECT person_id FROM directory_person WHERE issuer = %s AND oidc_subject = %s"
    found = rows(conn, query, (issuer, subject))
    return found[0][0] if found else None


def keep_subject(conn: Connection[Any], person_id: UUID, issuer: str, subject: str) -> bool:
    """Bind somebody to a subject, once: False where they are bound to another one already."""
    query = """INSERT INTO directory_person (person_id, issuer, oidc_subject) VALUES (%s, %s, %s)
               ON CONFLICT (person_id) DO UPDATE SET issuer = excluded.issuer, oidc_subject = excluded.oidc_subject
               WHERE directory_person.oidc_subject IS NULL"""
    return bool(changed(conn, query, (person_id, issuer, subject)))


def person(conn: Connection[Any], id: UUID) -> DirectoryPerson | None:
    found = rows(conn, _PERSON + " WHERE p.id = %s", (id,))
    return DirectoryPerson(*found[0]) if found else None


def people(conn: Connection[Any], user_name: str | None, start: int, count: int) -> tuple[int, list[DirectoryPerson]]:
    """(how many there are, `count` of them from the `start`th on, which counts from 1); `user_name` in any case."""
    where: LiteralString = " WHERE (%s::text IS NULL OR lower(coalesce(d.user_name, p.email)) = lower(%s))"
    total = rows(conn, f"SELECT count(*) FROM ({_PERSON + where}) every", (user_name, user_name))[0][0]
    query = _PERSON + where + " ORDER BY p.created_at, p.id LIMIT %s OFFSET %s"
    found = rows(conn, query, (user_name, user_name, count, start - 1))
    return total, [DirectoryPerson(*row) for row in found]


def keep_person(
    conn: Connection[Any], id: UUID, external_id: str | None, user_name: str, given: str, family: str
) -> None:
    conn.execute(
        """INSERT INTO directory_person (person_id, external_id, user_name, given_name, family_name)
           VALUES (%s, %s, %s, %s, %s) ON CONFLICT (person_id) DO UPDATE SET external_id = excluded.external_id,
             user_name = excluded.user_name, given_name = excluded.given_name, family_name = excluded.family_name,
             changed_at = now()""",
        (id, external_id, user_name, given, family),
    )


def user_name_of_another(conn: Connection[Any], user_name: str, id: UUID | None) -> bool:
    query = """SELECT 1 FROM person p LEFT JOIN directory_person d ON d.person_id = p.id
               WHERE lower(coalesce(d.user_name, p.email)) = lower(%s) AND p.id IS DISTINCT FROM %s LIMIT 1"""
    return bool(rows(conn, query, (user_name, id)))


def rename(conn: Connection[Any], id: UUID, email: str, name: str) -> None:
    conn.execute("UPDATE person SET email = %s, name = %s WHERE id = %s", (email, name, id))


def come_back(conn: Connection[Any], id: UUID) -> bool:
    """Somebody who had left is active again; keys and sessions stay ended."""
    query = "UPDATE person SET active = true, left_at = NULL WHERE id = %s AND NOT active"
    return bool(changed(conn, query, (id,)))


def group(conn: Connection[Any], id: UUID) -> DirectoryGroup | None:
    found = rows(conn, _GROUP + " WHERE g.id = %s", (id,))
    return _group(found[0]) if found else None


def groups(conn: Connection[Any], name: str | None, start: int, count: int) -> tuple[int, list[DirectoryGroup]]:
    """As `people`, by name."""
    where: LiteralString = " WHERE (%s::text IS NULL OR lower(g.name) = lower(%s))"
    total = rows(conn, f"SELECT count(*) FROM ({_GROUP + where}) every", (name, name))[0][0]
    found = rows(conn, _GROUP + where + " ORDER BY g.name LIMIT %s OFFSET %s", (name, name, count, start - 1))
    return total, [_group(row) for row in found]


def keep_group(conn: Connection[Any], id: UUID, external_id: str | None) -> None:
    conn.execute(
        """INSERT INTO directory_group (group_id, external_id) VALUES (%s, %s)
           ON CONFLICT (group_id) DO UPDATE SET external_id = excluded.external_id, changed_at = now()""",
        (id, external_id),
    )


def rename_group(conn: Connection[Any], id: UUID, name: str) -> None:
    conn.execute("UPDATE people_group SET name = %s WHERE id = %s", (name, id))


def _group(row: tuple[Any, ...]) -> DirectoryGroup:
    return DirectoryGroup(row[0], row[1], row[2], tuple(row[3]))
