"""The SQL of what the company's directory says of people and groups. No rules (`oidc.py`, `scim.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, Protocol, TypeVar
from uuid import UUID

from psycopg import Connection

from groundplan.core.errors import Invalid
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """`count` of those with this name, in any case (None: of all), from the `start`th on, which counts from 1."""

    name: str | None
    start: int
    count: int
    sort_by: str | None = None
    descending: bool = False


Found = TypeVar("Found")


class Read(Protocol[Found]):
    """How people or groups are read."""

    def __call__(self, conn: Connection[Any], wanted: Wanted, /) -> tuple[int, list[Found]]: ...


_PERSON_ORDER: dict[str, LiteralString] = {
    "id": "p.id",
    "username": "lower(coalesce(d.user_name, p.email))",
    "displayname": "lower(p.name)",
    "name.formatted": "lower(p.name)",
    "name.familyname": "lower(coalesce(d.family_name, ''))",
    "name.givenname": "lower(coalesce(d.given_name, ''))",
    "emails": "lower(p.email)",
    "emails.value": "lower(p.email)",
    "externalid": "d.external_id",
    "active": "p.active",
    "meta.created": "p.created_at",
    "meta.lastmodified": "coalesce(d.changed_at, p.created_at)",
}
_GROUP_ORDER: dict[str, LiteralString] = {
    "id": "g.id", "displayname": "lower(g.name)", "externalid": "d.external_id",
}  # fmt: skip
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


def people(conn: Connection[Any], wanted: Wanted) -> tuple[int, list[DirectoryPerson]]:
    """(how many there are, those that are wanted). Raises `Invalid` (`scim_sort`)."""
    where: LiteralString = " WHERE (%s::text IS NULL OR lower(coalesce(d.user_name, p.email)) = lower(%s))"
    total, found = _page(conn, _PERSON, where, _order(wanted, _PERSON_ORDER, "p.created_at, p.id"), wanted)
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


def groups(conn: Connection[Any], wanted: Wanted) -> tuple[int, list[DirectoryGroup]]:
    """As `people`, by name."""
    where: LiteralString = " WHERE (%s::text IS NULL OR lower(g.name) = lower(%s))"
    total, found = _page(conn, _GROUP, where, _order(wanted, _GROUP_ORDER, "g.name"), wanted)
    return total, [_group(row) for row in found]


def _page(
    conn: Connection[Any], query: LiteralString, where: LiteralString, order: LiteralString, wanted: Wanted
) -> tuple[int, list[tuple[Any, ...]]]:
    """How many there are, and the rows of one page of them."""
    named = (wanted.name, wanted.name)
    total = rows(conn, f"SELECT count(*) FROM ({query + where}) every", named)[0][0]
    return total, rows(conn, f"{query}{where}{order} LIMIT %s OFFSET %s", (*named, wanted.count, wanted.start - 1))


def _order(wanted: Wanted, known: dict[str, LiteralString], own: LiteralString) -> LiteralString:
    if wanted.sort_by is None:
        return " ORDER BY " + own
    column = known.get(wanted.sort_by.lower())
    if column is None:
        listed = ", ".join(sorted(known))
        raise Invalid(f"nothing is sorted by {wanted.sort_by[:60]}", code="scim_sort", hint=f"Sort by {listed}.")
    return " ORDER BY " + column + (" DESC NULLS LAST, " if wanted.descending else " NULLS LAST, ") + own


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
