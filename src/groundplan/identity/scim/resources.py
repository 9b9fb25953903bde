"""Users and groups provisioned by the company's directory with SCIM 2.0 (RFC 7643, 7644): JSON in, live policy out.

Supported: Users and Groups, filters by userName or displayName with `eq`, sorting, PATCH as Entra ID and Okta send it;
`bulk` has bulk requests. Not supported: passwords. Directories never change duties: owners are declared. Deactivating a
user revokes what they may do, as leaving does. Does not know HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import record, record_listed
from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.identity import directory_store as store
from groundplan.identity import service
from groundplan.identity.directory_store import DirectoryGroup, DirectoryPerson
from groundplan.identity.scim.attribute_selection import select_attributes
from groundplan.identity.scim.body import (
    GROUP,
    MAX_ITEMS,
    USER,
    Json,
    clean_text,
    directory_attributes,
    display_name,
    is_active,
    parse_id,
    parse_members,
    parse_operations,
    parse_user_name,
    patch_error,
    primary_email,
    set_attribute,
)
from groundplan.identity.store import duties, next_policy_number

ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
MEDIA_TYPE = "application/scim+json"
PREFIX = "/api/scim/"
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_FILTER = re.compile(r'\s*(\w+)\s+eq\s+"((?:[^"\\]|\\.){1,200})"\s*', re.IGNORECASE)
_MEMBER = re.compile(r'members\[value eq "([0-9a-fA-F-]{36})"\]')
Id = TypeVar("Id", bound="DirectoryPerson | DirectoryGroup")


@dataclass(frozen=True, slots=True)
class Page:
    """A requested page of a list. `sort_by`: a SCIM attribute; None: the default order."""

    filter: str | None = None
    start: int = 1
    count: int = 100
    sort_by: str | None = None
    descending: bool = False
    attributes: str | None = None
    excluded: str | None = None


@dataclass(frozen=True, slots=True)
class ResourceType:
    """The operations on users or on groups."""

    endpoint: str
    list_page: Callable[[Connection[Any], Page], dict[str, Any]]
    get: Callable[[Connection[Any], UUID], dict[str, Any]]
    create: Callable[[Connection[Any], str, Json], dict[str, Any]]
    replace: Callable[[Connection[Any], str, UUID, Json], dict[str, Any]]
    patch: Callable[[Connection[Any], str, UUID, Json], dict[str, Any]]
    delete: Callable[[Connection[Any], str, UUID], None]


def _list_resources(
    conn: Connection[Any], page: Page, by: str, read: store.ListReader[Id], to_json: Callable[[Id], dict[str, Any]]
) -> dict[str, Any]:
    """A ListResponse. Raises `Invalid` (`scim_filter`, `scim_sort`)."""
    start, count = max(page.start, 1), min(max(page.count, 0), MAX_ITEMS)
    total, rows = read(
        conn, store.ListQuery(_parse_filter(page.filter, by), start, count, page.sort_by, page.descending)
    )
    items = [select_attributes(to_json(row), page.attributes, page.excluded) for row in rows]
    return list_response(items, total, start)


def list_response(items: list[dict[str, Any]], total: int, start: int = 1) -> dict[str, Any]:
    """A page of a list: `items` from number `start` on, of `total`."""
    return {
        "schemas": [LIST], "totalResults": total, "startIndex": start, "itemsPerPage": len(items), "Resources": items,
    }  # fmt: skip


def list_users(conn: Connection[Any], page: Page) -> dict[str, Any]:
    return _list_resources(conn, page, "username", store.people, user_json)


def list_groups(conn: Connection[Any], page: Page) -> dict[str, Any]:
    return _list_resources(conn, page, "displayname", store.groups, group_json)


def list_all(conn: Connection[Any], page: Page) -> dict[str, Any]:
    """People and then groups, as one list. Raises `Invalid` (`scim_filter`, `scim_sort`)."""
    if page.filter:
        raise Invalid(
            "filters are not supported here", code="scim_filter", hint="POST to /Users/.search or /Groups/.search."
        )
    if page.sort_by:
        raise Invalid(
            "sorting is not supported here", code="scim_sort", hint="POST to /Users/.search or /Groups/.search."
        )
    start, count = max(page.start, 1), min(max(page.count, 0), MAX_ITEMS)
    people, first = store.people(conn, store.ListQuery(None, start, count))
    after = store.ListQuery(None, max(start - people, 1), count - len(first))
    groups, group_rows = store.groups(conn, after)
    items = [
        select_attributes(resource, page.attributes, page.excluded)
        for resource in (*map(user_json, first), *map(group_json, group_rows))
    ]
    return list_response(items, people + groups, start)


def get_user(conn: Connection[Any], id: UUID) -> dict[str, Any]:
    """The user. Raises `NotFound` (`scim_user`)."""
    return user_json(_find_user(conn, id))


def create_user(conn: Connection[Any], actor: str, body: Json) -> dict[str, Any]:
    """Create a person, or take over one whom the directory did not know or had deleted.

    Raises `Conflict` (`duplicate_person`), `Invalid`.
    """
    email, user_name = primary_email(body), parse_user_name(body)
    store.lock_directory(conn)
    existing = store.person_by_email(conn, email)
    if existing is not None and existing.is_managed:
        raise Conflict(f"there is a user {user_name} already", code="duplicate_person", hint="PUT or PATCH it.")
    if store.is_user_name_taken(conn, user_name, None if existing is None else existing.id):
        raise Conflict(f"there is a user {user_name} already", code="duplicate_person", hint="PUT or PATCH it.")
    if existing is None:
        service.add_person(conn, actor, email, display_name(body, email))
        existing = _find_user(conn, service.find_person(conn, email).id)
    _set_active(conn, actor, existing, is_active(body, True))
    # locks after the live policy, as in `_replace_user`
    store.save_person(conn, existing.id, directory_attributes(body, user_name))
    return get_user(conn, existing.id)


def replace_user(conn: Connection[Any], actor: str, id: UUID, body: Json) -> dict[str, Any]:
    """Replace a person's attributes. Raises `NotFound`, `Conflict`, `Invalid`."""
    store.lock_directory(conn)
    return _replace_user(conn, actor, _find_user(conn, id), body)


def _replace_user(conn: Connection[Any], actor: str, old: DirectoryPerson, body: Json) -> dict[str, Any]:
    """Apply only what differs from `old`: a person deactivated in the meantime is not reactivated."""
    id, email, user_name = old.id, primary_email(body), parse_user_name(body)
    if store.is_user_name_taken(conn, user_name, id):
        raise Conflict(f"there is another user {user_name}", code="duplicate_person", hint="Use another userName.")
    holder = store.person_by_email(conn, email)
    if holder is not None and holder.id != id:
        raise Conflict(f"{email} is somebody else's", code="duplicate_person", hint="Use another address.")
    name = display_name(body, email)
    if (old.email, old.name) != (email, name):
        number = next_policy_number(conn, "person", f"person/{id}", True)
        store.rename_person(conn, id, email, name)
        record(conn, action="person.renamed", actor=actor, subject=f"person/{id}", detail={"policy": number})
    _set_active(conn, actor, old, is_active(body, old.active))
    # locks after the live policy, which any of the changes above may lock
    store.save_person(conn, id, directory_attributes(body, user_name))
    return get_user(conn, id)


def patch_user(conn: Connection[Any], actor: str, id: UUID, body: Json) -> dict[str, Any]:
    """Apply a PatchOp. Raises as `replace_user`, and `Invalid` (`scim_patch`)."""
    store.lock_directory(conn)
    old = _find_user(conn, id)
    patched = user_json(old)
    for kind, path, value in parse_operations(body):
        if not path:
            if not isinstance(value, Mapping):
                raise patch_error("a value without a path must be an object")
            for name, item in value.items():
                set_attribute(patched, str(name), item, kind)
        else:
            set_attribute(patched, path, value, kind)
    return _replace_user(conn, actor, old, patched)


def delete_user(conn: Connection[Any], actor: str, id: UUID) -> None:
    """Deactivate a person and mark them as deleted by the directory; what they did stays recorded under their name."""
    store.lock_directory(conn)
    _set_active(conn, actor, _find_user(conn, id), active=False)
    store.delete_person(conn, id)


def get_group(conn: Connection[Any], id: UUID) -> dict[str, Any]:
    """The group. Raises `NotFound` (`scim_group`)."""
    return group_json(_find_group(conn, id))


def create_group(conn: Connection[Any], actor: str, body: Json) -> dict[str, Any]:
    """Create a group, or restore one that the directory had deleted.

    Raises `Conflict` (`duplicate_group`), `Invalid` (`group_name`), `NotFound` (`unknown_person`).
    """
    name = str(body.get("displayName") or "")
    store.lock_directory(conn)
    id = store.find_deleted_group(conn, name)
    if id is None:
        service.add_group(conn, actor, name, "group")
        id = store.groups(conn, store.ListQuery(name, 1, 1))[1][0].id
    store.save_group(conn, id, clean_text(body.get("externalId")))
    _set_members(conn, actor, _find_group(conn, id), parse_members(body.get("members")))
    return get_group(conn, id)


def replace_group(conn: Connection[Any], actor: str, id: UUID, body: Json) -> dict[str, Any]:
    """Replace a group's members. Raises `Invalid` (`group_renamed`) for another name: documents are shared by name."""
    store.lock_directory(conn)
    old = _find_group(conn, id)
    name = str(body.get("displayName") or old.name)
    if name != old.name:
        raise Invalid(
            f"the group {old.name} cannot be renamed: documents are shared with it by name",
            code="group_renamed",
            hint="Make a new group, share with it, then delete this one.",
        )
    _set_members(conn, actor, old, parse_members(body.get("members")))
    if "externalId" in body:
        store.save_group(conn, id, clean_text(body.get("externalId")))
    return get_group(conn, id)


def patch_group(conn: Connection[Any], actor: str, id: UUID, body: Json) -> dict[str, Any]:
    """Apply a PatchOp to the members, or set externalId. Raises `Invalid` (`scim_patch`)."""
    store.lock_directory(conn)
    old = _find_group(conn, id)
    members = set(old.members)
    for kind, path, value in parse_operations(body):
        member = _MEMBER.fullmatch(path)
        if member is not None and kind == "remove":
            members.discard(parse_id(member.group(1)))
        elif path.lower() in ("members", ""):
            operand = value.get("members", []) if path == "" and isinstance(value, Mapping) else value
            members = _patched_members(kind, members, parse_members(operand), everything=value is None)
        elif path.lower() in ("externalid", "displayname"):
            replace_group(conn, actor, id, {path: value, "members": [{"value": str(person)} for person in members]})
        else:
            raise patch_error(f"groups have no {path[:60]}")
    _set_members(conn, actor, old, frozenset(members))
    return get_group(conn, id)


def delete_group(conn: Connection[Any], actor: str, id: UUID) -> None:
    """Remove all members and mark the group as deleted by the directory; its name stays reserved for what is shared
    with it."""
    store.lock_directory(conn)
    _set_members(conn, actor, _find_group(conn, id), frozenset())
    store.delete_group(conn, id)


def user_json(person: DirectoryPerson) -> dict[str, Any]:
    """A person as a SCIM User: as the directory wrote them, or as far as known here if the directory does not manage
    them."""
    parts = {"formatted": person.formatted, "familyName": person.family_name, "givenName": person.given_name}
    name = {part: text for part, text in parts.items() if text}
    return {
        "schemas": [USER],
        "id": str(person.id),
        **({"externalId": person.external_id} if person.external_id else {}),
        "userName": person.user_name,
        **({"displayName": person.display_name} if person.display_name else {}),
        **({"name": name} if name else {}),
        "emails": person.emails,
        "active": person.active,
        "meta": {
            "resourceType": "User",
            "created": person.created_at.isoformat(),
            "lastModified": person.changed_at.isoformat(),
            "location": f"Users/{person.id}",
        },
    }


def group_json(group: DirectoryGroup) -> dict[str, Any]:
    """A group as a SCIM Group."""
    return {
        "schemas": [GROUP],
        "id": str(group.id),
        **({"externalId": group.external_id} if group.external_id else {}),
        "displayName": group.name,
        "members": [{"value": str(id), "$ref": f"Users/{id}", "type": "User"} for id in group.members],
        "meta": {"resourceType": "Group", "location": f"Groups/{group.id}"},
    }


def _set_active(conn: Connection[Any], actor: str, person: DirectoryPerson, active: bool) -> None:
    if person.active and not active:
        with suppress(Conflict):  # deactivated in the meantime
            service.deactivate_person(conn, actor, person.id)
    elif active and not person.active:
        number = next_policy_number(conn, "person", f"person/{person.id}", False)
        held_duties = [f"{duty.duty} of {duty.subject}" for duty in duties(conn, person_id=person.id)]
        store.reactivate_person(conn, person.id)
        detail = {"policy": number, "duties_ended": held_duties}
        record_listed(conn, action="person.returned", actor=actor, subject=f"person/{person.id}", detail=detail)


def _set_members(conn: Connection[Any], actor: str, old: DirectoryGroup, members: frozenset[UUID]) -> None:
    """Add and remove members. Conflicts are ignored: directories send several changes of a group at once, and take the
    group for deleted if one of them is answered with 404."""
    for id in sorted(members - set(old.members), key=str):
        with suppress(Conflict):
            service.add_member(conn, actor, old.name, id)
    for id in sorted(set(old.members) - members, key=str):
        with suppress(NotFound):
            service.remove_member(conn, actor, old.name, id)


def _find_user(conn: Connection[Any], id: UUID) -> DirectoryPerson:
    person = store.person(conn, id)
    if person is None:
        raise NotFound(f"there is no user {id}", code="scim_user", hint="GET /Users lists them.")
    return person


def _find_group(conn: Connection[Any], id: UUID) -> DirectoryGroup:
    group = store.group(conn, id)
    if group is None:
        raise NotFound(f"there is no group {id}", code="scim_group", hint="GET /Groups lists them.")
    return group


def _parse_filter(filter: str | None, attribute: str) -> str | None:
    if not filter:
        return None
    match = _FILTER.fullmatch(filter)
    if match is None or match.group(1).lower() != attribute:
        raise Invalid(f"this filter is not supported: {filter[:80]}", code="scim_filter", hint=f'{attribute} eq "…"')
    return match.group(2).replace('\\"', '"').replace("\\\\", "\\")


def _patched_members(kind: str, members: set[UUID], operand: frozenset[UUID], *, everything: bool) -> set[UUID]:
    if kind == "add":
        return members | operand
    if kind == "replace":
        return set(operand)
    return set() if everything else members - operand


RESOURCE_TYPES = {
    "Users": ResourceType("Users", list_users, get_user, create_user, replace_user, patch_user, delete_user),
    "Groups": ResourceType("Groups", list_groups, get_group, create_group, replace_group, patch_group, delete_group),
}

_TYPES = {
    "scim_filter": "invalidFilter", "scim_patch": "invalidSyntax", "scim_bulk": "invalidSyntax",
    "scim_sort": "invalidValue", "scim_user_name": "invalidValue", "request_invalid": "invalidSyntax",
    "group_name": "invalidValue", "group_renamed": "mutability",
    "scim_emails": "invalidValue", "scim_unresolved": "invalidValue",
}  # fmt: skip


def error_json(status: int, error: Json) -> dict[str, Any]:
    """An error in the form of RFC 7644, section 3.12; our code and hint are in its `detail`."""
    code = str(error.get("code", ""))
    kind = "uniqueness" if status == 409 and code.startswith("duplicate") else _TYPES.get(code)
    detail = f"{error.get('message', '')} [{code}] {error.get('hint', '')}".strip()
    return {"schemas": [ERROR], "status": str(status), "detail": detail, **({"scimType": kind} if kind else {})}
