"""The SQL of what the company's directory says of people and groups. No rules (`oidc`, `scim`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, Protocol, TypeVar
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from groundplan.core.errors import Invalid
from groundplan.identity.store import execute_counted, fetch_rows


@dataclass(frozen=True, slots=True)
class DirectoryPerson:
    """A person as the directory names them. `name`: as they are shown here; `display_name`, `formatted`, `emails`: what
    the directory said."""

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
    display_name: str | None
    formatted: str | None
    emails: list[dict[str, Any]]
    managed: bool
    """Whether the directory has written them."""


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
_LOCK = 0x6770_7363_696D_6401
"""Advisory lock key."""


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
    coalesce(d.given_name, ''), coalesce(d.family_name, ''), p.created_at, coalesce(d.changed_at, p.created_at),
    CASE WHEN d.user_name IS NULL THEN p.name ELSE d.display_name END, d.formatted,
    coalesce(d.emails, jsonb_build_array(jsonb_build_object('value', p.email, 'primary', true, 'type', 'work'))),
    d.user_name IS NOT NULL
    FROM person p LEFT JOIN directory_person d ON d.person_id = p.id"""
_GROUP: LiteralString = """SELECT g.id, g.name, d.external_id,
    ARRAY(SELECT m.person_id FROM membership m WHERE m.group_id = g.id AND m.person_id IS NOT NULL ORDER BY 1)
    FROM people_group g LEFT JOIN directory_group d ON d.group_id = g.id"""


def hold(conn: Connection[Any]) -> None:
    """Wait until no other change by the directory is made, and keep others waiting until the transaction ends: each is
    computed from what was there before, and directories send several at once. It comes before live policy."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def by_subject(conn: Connection[Any], issuer: str, subject: str) -> UUID | None:
    """Who is known by this subject of the issuer."""
    query = "SELECT person_id FROM directory_person WHERE issuer = %s AND oidc_subject = %s"
    found = fetch_rows(conn, query, (issuer, subject))
    return found[0][0] if found else None


def keep_subject(conn: Connection[Any], person_id: UUID, issuer: str, subject: str) -> bool:
    """Bind somebody to a subject, once: False where they are bound to another one already."""
    query = """INSERT INTO directory_person (person_id, issuer, oidc_subject) VALUES (%s, %s, %s)
               ON CONFLICT (person_id) DO UPDATE SET issuer = excluded.issuer, oidc_subject = excluded.oidc_subject
               WHERE directory_person.oidc_subject IS NULL"""
    return bool(execute_counted(conn, query, (person_id, issuer, subject)))


def person(conn: Connection[Any], id: UUID) -> DirectoryPerson | None:
    """None where there is none, or the directory has deleted them."""
    found = fetch_rows(conn, _PERSON + " WHERE p.id = %s AND d.deleted_at IS NULL", (id,))
    return DirectoryPerson(*found[0]) if found else None


def with_email(conn: Connection[Any], email: str) -> DirectoryPerson | None:
    """Who has this address, also where the directory has deleted them."""
    found = fetch_rows(conn, _PERSON + " WHERE p.email = %s", (email,))
    return DirectoryPerson(*found[0]) if found else None


def people(conn: Connection[Any], wanted: Wanted) -> tuple[int, list[DirectoryPerson]]:
    """(how many there are, those that are wanted). Raises `Invalid` (`scim_sort`)."""
    where: LiteralString = """ WHERE d.deleted_at IS NULL
      AND (%s::text IS NULL OR lower(coalesce(d.user_name, p.email)) = lower(%s))"""
    total, found = _page(conn, _PERSON, where, _order(wanted, _PERSON_ORDER, "p.created_at, p.id"), wanted)
    return total, [DirectoryPerson(*row) for row in found]


@dataclass(frozen=True, slots=True)
class Written:
    """What the directory writes of a person."""

    external_id: str | None
    user_name: str
    given_name: str
    family_name: str
    display_name: str | None
    formatted: str | None
    emails: list[dict[str, Any]] | None


def keep_person(conn: Connection[Any], id: UUID, said: Written) -> None:
    """Somebody whom the directory had deleted is there again."""
    emails = None if said.emails is None else Jsonb(said.emails)
    conn.execute(
        """INSERT INTO directory_person (person_id, external_id, user_name, given_name, family_name, display_name,
             formatted, emails)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (person_id) DO UPDATE SET
             external_id = excluded.external_id, user_name = excluded.user_name, given_name = excluded.given_name,
             family_name = excluded.family_name, display_name = excluded.display_name,
             formatted = excluded.formatted, emails = excluded.emails, changed_at = now(), deleted_at = NULL""",
        (
            id, said.external_id, said.user_name, said.given_name, said.family_name, said.display_name,
            said.formatted, emails,
        ),
    )  # fmt: skip


def delete_person(conn: Connection[Any], id: UUID) -> None:
    """The directory knows them no longer, and their userName is free."""
    conn.execute(
        """INSERT INTO directory_person (person_id, deleted_at) VALUES (%s, now())
           ON CONFLICT (person_id) DO UPDATE SET deleted_at = now(), changed_at = now(), user_name = NULL,
             external_id = NULL, display_name = NULL, formatted = NULL, emails = NULL, given_name = '',
             family_name = ''""",
        (id,),
    )


def user_name_of_another(conn: Connection[Any], user_name: str, id: UUID | None) -> bool:
    query = """SELECT 1 FROM person p LEFT JOIN directory_person d ON d.person_id = p.id
               WHERE lower(coalesce(d.user_name, p.email)) = lower(%s) AND p.id IS DISTINCT FROM %s
                 AND d.deleted_at IS NULL LIMIT 1"""
    return bool(fetch_rows(conn, query, (user_name, id)))


def rename(conn: Connection[Any], id: UUID, email: str, name: str) -> None:
    """What the directory calls somebody; that it changed their address is kept."""
    if execute_counted(conn, "UPDATE person SET email = %s WHERE id = %s AND email <> %s", (email, id, email)):
        conn.execute(
            """INSERT INTO directory_person (person_id, address_changed_at) VALUES (%s, now())
               ON CONFLICT (person_id) DO UPDATE SET address_changed_at = now()""",
            (id,),
        )
    conn.execute("UPDATE person SET name = %s WHERE id = %s", (name, id))


def known_by_a_changed_address(conn: Connection[Any], person_id: UUID) -> bool:
    """Whether a directory changed the address of somebody who decides: who holds a duty or has a confirmed passkey."""
    return bool(
        fetch_rows(
            conn,
            """SELECT 1 FROM directory_person d WHERE d.person_id = %s AND d.address_changed_at IS NOT NULL AND (
                 EXISTS (SELECT 1 FROM duty WHERE person_id = d.person_id)
                 OR EXISTS (SELECT 1 FROM passkey WHERE person_id = d.person_id AND confirmed_at IS NOT NULL
                   AND removed_at IS NULL))""",
            (person_id,),
        )
    )


def come_back(conn: Connection[Any], id: UUID) -> bool:
    """Somebody who had left is active again; keys and sessions stay ended, and duties are given anew."""
    conn.execute("DELETE FROM duty WHERE person_id = %s", (id,))
    query = "UPDATE person SET active = true, left_at = NULL WHERE id = %s AND NOT active"
    return bool(execute_counted(conn, query, (id,)))


def group(conn: Connection[Any], id: UUID) -> DirectoryGroup | None:
    """None where there is none, or the directory has deleted it."""
    found = fetch_rows(conn, _GROUP + " WHERE g.id = %s AND d.deleted_at IS NULL", (id,))
    return _group(found[0]) if found else None


def deleted_group(conn: Connection[Any], name: str) -> UUID | None:
    """A group of this name that the directory has deleted."""
    found = fetch_rows(conn, _GROUP + " WHERE g.name = %s AND d.deleted_at IS NOT NULL", (name,))
    return found[0][0] if found else None


def groups(conn: Connection[Any], wanted: Wanted) -> tuple[int, list[DirectoryGroup]]:
    """As `people`, by name."""
    where: LiteralString = " WHERE d.deleted_at IS NULL AND (%s::text IS NULL OR lower(g.name) = lower(%s))"
    total, found = _page(conn, _GROUP, where, _order(wanted, _GROUP_ORDER, "g.name"), wanted)
    return total, [_group(row) for row in found]


def _page(
    conn: Connection[Any], query: LiteralString, where: LiteralString, order: LiteralString, wanted: Wanted
) -> tuple[int, list[tuple[Any, ...]]]:
    """How many there are, and the rows of one page of them."""
    named = (wanted.name, wanted.name)
    total = fetch_rows(conn, f"SELECT count(*) FROM ({query + where}) every", named)[0][0]
    return total, fetch_rows(
        conn, f"{query}{where}{order} LIMIT %s OFFSET %s", (*named, wanted.count, wanted.start - 1)
    )


def _order(wanted: Wanted, known: dict[str, LiteralString], own: LiteralString) -> LiteralString:
    if wanted.sort_by is None:
        return " ORDER BY " + own
    column = known.get(wanted.sort_by.lower())
    if column is None:
        listed = ", ".join(sorted(known))
        raise Invalid(f"sorting is not supported by {wanted.sort_by[:60]}", code="scim_sort", hint=f"Sort by {listed}.")
    return " ORDER BY " + column + (" DESC NULLS LAST, " if wanted.descending else " NULLS LAST, ") + own


def keep_group(conn: Connection[Any], id: UUID, external_id: str | None) -> None:
    conn.execute(
        """INSERT INTO directory_group (group_id, external_id) VALUES (%s, %s)
           ON CONFLICT (group_id) DO UPDATE SET external_id = excluded.external_id, changed_at = now(),
             deleted_at = NULL""",
        (id, external_id),
    )


def delete_group(conn: Connection[Any], id: UUID) -> None:
    """The directory knows it no longer; its name stays for what is shared with it."""
    conn.execute(
        """INSERT INTO directory_group (group_id, deleted_at) VALUES (%s, now())
           ON CONFLICT (group_id) DO UPDATE SET deleted_at = now(), changed_at = now(), external_id = NULL""",
        (id,),
    )


def _group(row: tuple[Any, ...]) -> DirectoryGroup:
    return DirectoryGroup(row[0], row[1], row[2], tuple(row[3]))
