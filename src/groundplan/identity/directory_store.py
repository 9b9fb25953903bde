"""The SQL of people and groups as the company's directory writes them. No rules (`oidc`, `scim`)."""

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
    """A person as the directory describes them. `name` is the name displayed here; `display_name`, `formatted` and
    `emails` are as the directory sent them."""

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
    is_managed: bool
    """Whether the directory has written this person."""


@dataclass(frozen=True, slots=True)
class DirectoryGroup:
    """A group as the directory names it; members are people by id."""

    id: UUID
    name: str
    external_id: str | None
    members: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A page of a list: `count` entries from number `start` on (from 1), with this name (ignoring case), or all if it
    is None."""

    name: str | None
    start: int
    count: int
    sort_by: str | None = None
    descending: bool = False


Row = TypeVar("Row")
_LOCK = 0x6770_7363_696D_6401
"""Key of the advisory lock."""


class ListReader(Protocol[Row]):
    """Reads a page of people or groups: (total, entries)."""

    def __call__(self, conn: Connection[Any], list_query: ListQuery, /) -> tuple[int, list[Row]]: ...


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


def lock_directory(conn: Connection[Any]) -> None:
    """Lock changes by the directory until the transaction ends. Each change is computed from the state before it, and
    directories send several at once. Must be taken before the lock on the live policy."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def person_by_subject(conn: Connection[Any], issuer: str, subject: str) -> UUID | None:
    """The person bound to this subject of the issuer."""
    query = "SELECT person_id FROM directory_person WHERE issuer = %s AND oidc_subject = %s"
    rows = fetch_rows(conn, query, (issuer, subject))
    return rows[0][0] if rows else None


def bind_subject(conn: Connection[Any], person_id: UUID, issuer: str, subject: str) -> bool:
    """Bind a person to a subject, once; False if they are already bound to another one."""
    query = """INSERT INTO directory_person (person_id, issuer, oidc_subject) VALUES (%s, %s, %s)
               ON CONFLICT (person_id) DO UPDATE SET issuer = excluded.issuer, oidc_subject = excluded.oidc_subject
               WHERE directory_person.oidc_subject IS NULL"""
    return bool(execute_counted(conn, query, (person_id, issuer, subject)))


def person(conn: Connection[Any], id: UUID) -> DirectoryPerson | None:
    """The person with this id; None if there is none, or the directory has deleted them."""
    rows = fetch_rows(conn, _PERSON + " WHERE p.id = %s AND d.deleted_at IS NULL", (id,))
    return DirectoryPerson(*rows[0]) if rows else None


def person_by_email(conn: Connection[Any], email: str) -> DirectoryPerson | None:
    """The person with this address, also if the directory has deleted them."""
    rows = fetch_rows(conn, _PERSON + " WHERE p.email = %s", (email,))
    return DirectoryPerson(*rows[0]) if rows else None


def people(conn: Connection[Any], list_query: ListQuery) -> tuple[int, list[DirectoryPerson]]:
    """(total, people of the page). Raises `Invalid` (`scim_sort`)."""
    condition: LiteralString = """ WHERE d.deleted_at IS NULL
      AND (%s::text IS NULL OR lower(coalesce(d.user_name, p.email)) = lower(%s))"""
    total, rows = _page(conn, _PERSON, condition, _order(list_query, _PERSON_ORDER, "p.created_at, p.id"), list_query)
    return total, [DirectoryPerson(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class DirectoryAttributes:
    """Attributes of a person as the directory writes them."""

    external_id: str | None
    user_name: str
    given_name: str
    family_name: str
    display_name: str | None
    formatted: str | None
    emails: list[dict[str, Any]] | None


def save_person(conn: Connection[Any], id: UUID, attributes: DirectoryAttributes) -> None:
    """Store a person's attributes; a person whom the directory had deleted exists again."""
    emails = None if attributes.emails is None else Jsonb(attributes.emails)
    conn.execute(
        """INSERT INTO directory_person (person_id, external_id, user_name, given_name, family_name, display_name,
             formatted, emails)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (person_id) DO UPDATE SET
             external_id = excluded.external_id, user_name = excluded.user_name, given_name = excluded.given_name,
             family_name = excluded.family_name, display_name = excluded.display_name,
             formatted = excluded.formatted, emails = excluded.emails, changed_at = now(), deleted_at = NULL""",
        (
            id, attributes.external_id, attributes.user_name, attributes.given_name, attributes.family_name,
            attributes.display_name, attributes.formatted, emails,
        ),
    )  # fmt: skip


def delete_person(conn: Connection[Any], id: UUID) -> None:
    """Mark a person as deleted by the directory; their userName is free again."""
    conn.execute(
        """INSERT INTO directory_person (person_id, deleted_at) VALUES (%s, now())
           ON CONFLICT (person_id) DO UPDATE SET deleted_at = now(), changed_at = now(), user_name = NULL,
             external_id = NULL, display_name = NULL, formatted = NULL, emails = NULL, given_name = '',
             family_name = ''""",
        (id,),
    )


def is_user_name_taken(conn: Connection[Any], user_name: str, id: UUID | None) -> bool:
    query = """SELECT 1 FROM person p LEFT JOIN directory_person d ON d.person_id = p.id
               WHERE lower(coalesce(d.user_name, p.email)) = lower(%s) AND p.id IS DISTINCT FROM %s
                 AND d.deleted_at IS NULL LIMIT 1"""
    return bool(fetch_rows(conn, query, (user_name, id)))


def rename_person(conn: Connection[Any], id: UUID, email: str, name: str) -> None:
    """Set address and name as the directory writes them, and note when it changed the address."""
    if execute_counted(conn, "UPDATE person SET email = %s WHERE id = %s AND email <> %s", (email, id, email)):
        conn.execute(
            """INSERT INTO directory_person (person_id, address_changed_at) VALUES (%s, now())
               ON CONFLICT (person_id) DO UPDATE SET address_changed_at = now()""",
            (id,),
        )
    conn.execute("UPDATE person SET name = %s WHERE id = %s", (name, id))


def decides_with_changed_address(conn: Connection[Any], person_id: UUID) -> bool:
    """Whether a directory changed the address of a person who decides: by a duty or a confirmed passkey."""
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


def reactivate_person(conn: Connection[Any], id: UUID) -> bool:
    """Make a person who had left active again, without their duties; keys and sessions stay ended."""
    conn.execute("DELETE FROM duty WHERE person_id = %s", (id,))
    query = "UPDATE person SET active = true, left_at = NULL WHERE id = %s AND NOT active"
    return bool(execute_counted(conn, query, (id,)))


def group(conn: Connection[Any], id: UUID) -> DirectoryGroup | None:
    """The group with this id; None if there is none, or the directory has deleted it."""
    rows = fetch_rows(conn, _GROUP + " WHERE g.id = %s AND d.deleted_at IS NULL", (id,))
    return _group(rows[0]) if rows else None


def find_deleted_group(conn: Connection[Any], name: str) -> UUID | None:
    """A group of this name that the directory has deleted."""
    rows = fetch_rows(conn, _GROUP + " WHERE g.name = %s AND d.deleted_at IS NOT NULL", (name,))
    return rows[0][0] if rows else None


def groups(conn: Connection[Any], list_query: ListQuery) -> tuple[int, list[DirectoryGroup]]:
    """As `people`, ordered by name."""
    condition: LiteralString = " WHERE d.deleted_at IS NULL AND (%s::text IS NULL OR lower(g.name) = lower(%s))"
    total, rows = _page(conn, _GROUP, condition, _order(list_query, _GROUP_ORDER, "g.name"), list_query)
    return total, [_group(row) for row in rows]


def _page(
    conn: Connection[Any], query: LiteralString, condition: LiteralString, order: LiteralString, list_query: ListQuery
) -> tuple[int, list[tuple[Any, ...]]]:
    """(total, rows of the page)."""
    names = (list_query.name, list_query.name)
    total = fetch_rows(conn, f"SELECT count(*) FROM ({query + condition}) every", names)[0][0]
    return total, fetch_rows(
        conn, f"{query}{condition}{order} LIMIT %s OFFSET %s", (*names, list_query.count, list_query.start - 1)
    )


def _order(list_query: ListQuery, columns: dict[str, LiteralString], default: LiteralString) -> LiteralString:
    if list_query.sort_by is None:
        return " ORDER BY " + default
    column = columns.get(list_query.sort_by.lower())
    if column is None:
        listed = ", ".join(sorted(columns))
        raise Invalid(
            f"sorting is not supported by {list_query.sort_by[:60]}", code="scim_sort", hint=f"Sort by {listed}."
        )
    return " ORDER BY " + column + (" DESC NULLS LAST, " if list_query.descending else " NULLS LAST, ") + default


def save_group(conn: Connection[Any], id: UUID, external_id: str | None) -> None:
    conn.execute(
        """INSERT INTO directory_group (group_id, external_id) VALUES (%s, %s)
           ON CONFLICT (group_id) DO UPDATE SET external_id = excluded.external_id, changed_at = now(),
             deleted_at = NULL""",
        (id, external_id),
    )


def delete_group(conn: Connection[Any], id: UUID) -> None:
    """Mark a group as deleted by the directory; its name stays reserved for what is shared with it."""
    conn.execute(
        """INSERT INTO directory_group (group_id, deleted_at) VALUES (%s, now())
           ON CONFLICT (group_id) DO UPDATE SET deleted_at = now(), changed_at = now(), external_id = NULL""",
        (id,),
    )


def _group(row: tuple[Any, ...]) -> DirectoryGroup:
    return DirectoryGroup(row[0], row[1], row[2], tuple(row[3]))
