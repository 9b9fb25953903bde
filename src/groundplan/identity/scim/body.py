"""Parses what a directory sends: attributes of a user, members of a group, the operations of a PATCH. Pure.

Directories write the same in many ways (Entra ID and Okta do); what cannot be read is refused, and unknown attributes
of a user are ignored, as the standard allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from groundplan.core.errors import Invalid, NotFound
from groundplan.identity.directory_store import DirectoryAttributes
from groundplan.identity.genesis import normal_email

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
MAX_ITEMS = 200
MOST_EMAILS = 20
_EMAIL_AT = re.compile(r'emails\[(type|primary) eq "?(\w{1,40})"?\]', re.IGNORECASE)
_EMAIL_PATH = 'emails[type eq "work"].value'
Json = Mapping[str, Any]


def directory_attributes(body: Json, user_name: str) -> DirectoryAttributes:
    """The attributes of a user that are stored."""
    name = body.get("name")
    parts = name if isinstance(name, Mapping) else {}
    return DirectoryAttributes(
        external_id=clean_text(body.get("externalId")),
        user_name=user_name,
        given_name=clean_text(parts.get("givenName")) or "",
        family_name=clean_text(parts.get("familyName")) or "",
        display_name=clean_text(body.get("displayName")),
        formatted=clean_text(parts.get("formatted")),
        emails=_emails(body.get("emails")) or None,
    )


def set_attribute(user: dict[str, Any], path: str, value: Any, kind: str) -> None:
    """Set or remove one attribute of a user; unknown ones are ignored, as the standard allows."""
    names = {
        "username": "userName", "displayname": "displayName", "active": "active", "externalid": "externalId",
        "emails": "emails", "name": "name",
    }  # fmt: skip
    first, _, rest = path.partition(".")
    if first.lower().startswith("emails["):
        user["emails"] = _set_email(user["emails"], first, rest, None if kind == "remove" else value)
        return
    name = names.get(first.lower())
    if name is None:
        return
    if kind == "remove":
        value = None
    if name == "name" and rest:
        user["name"] = {**(user.get("name") or {}), rest: value}
    else:
        user[name] = value


def _set_email(emails: list[dict[str, Any]], path: str, part: str, value: Any) -> list[dict[str, Any]]:
    """The addresses with the one that the path names changed to `value`; None removes it."""
    match = _EMAIL_AT.fullmatch(path)
    if match is None or part.lower() not in ("", "value"):
        raise patch_error(f"emails are named as in {_EMAIL_PATH}")
    field, selector = match.group(1).lower(), match.group(2).lower()
    other_emails = [item for item in emails if str(item.get(field, "")).lower() != selector]
    old = next(
        (item for item in emails if item not in other_emails),
        {"type": selector} if field == "type" else {"primary": True},
    )
    changed = value if isinstance(value, Mapping) else {"value": value}
    return other_emails if value is None else [*other_emails, {**old, **changed}]


def parse_operations(body: Json) -> list[tuple[str, str, Any]]:
    """(add | replace | remove, path, value) of each operation. Raises `Invalid` (`scim_patch`)."""
    raw_operations = body.get("Operations")
    if not isinstance(raw_operations, list) or len(raw_operations) > MAX_ITEMS:
        raise patch_error(f"send at most {MAX_ITEMS} Operations")
    operations: list[tuple[str, str, Any]] = []
    for item in raw_operations:
        kind = str(item.get("op", "")).lower() if isinstance(item, Mapping) else ""
        path = item.get("path") or "" if isinstance(item, Mapping) else ""
        if kind not in ("add", "replace", "remove") or not isinstance(path, str):
            raise patch_error("each has op add, replace or remove")
        operations.append((kind, path.removeprefix(f"{USER}:").removeprefix(f"{GROUP}:"), item.get("value")))
    return operations


def parse_members(value: object) -> frozenset[UUID]:
    """Ids of people from one member or a list of them. Raises `NotFound` (`unknown_person`) for an invalid id."""
    if value is None:
        return frozenset()
    items = value if isinstance(value, list) else [value]
    return frozenset(parse_id(item.get("value") if isinstance(item, Mapping) else None) for item in items)


def primary_email(body: Json) -> str:
    """The primary address, else the first, else the userName. Raises `Invalid` (`email`)."""
    raw_emails = body.get("emails")
    items = [item for item in raw_emails if isinstance(item, Mapping)] if isinstance(raw_emails, list) else []
    first = next((item for item in items if item.get("primary") is True), items[0] if items else None)
    return normal_email(str((first or {}).get("value") or body.get("userName") or ""))


def _emails(value: object) -> list[dict[str, Any]]:
    """All addresses, in lower case, with their types; the first is used if none is primary."""
    items = [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
    if len(items) > MOST_EMAILS:
        raise Invalid(f"at most {MOST_EMAILS} emails are kept", code="scim_emails", hint="Send fewer.")
    return [
        {
            "value": normal_email(str(item.get("value") or "")),
            **{part: text for part in ("type", "display") if (text := clean_text(item.get(part)))},
            **({"primary": item["primary"]} if isinstance(item.get("primary"), bool) else {}),
        }
        for item in items
    ]


def parse_user_name(body: Json) -> str:
    """The userName. Raises `Invalid` (`scim_user_name`)."""
    name = body.get("userName")
    if not isinstance(name, str) or not name.strip() or len(name) > 254 or not name.isprintable():
        raise Invalid("a user needs a userName", code="scim_user_name", hint="Send userName.")
    return name.strip()


def display_name(body: Json, email: str) -> str:
    """The name to display: displayName, else the formatted or full name, else the address."""
    name = body.get("name")
    parts = name if isinstance(name, Mapping) else {}
    full = f"{clean_text(parts.get('givenName')) or ''} {clean_text(parts.get('familyName')) or ''}".strip()
    return clean_text(body.get("displayName")) or clean_text(parts.get("formatted")) or full or email


def is_active(body: Json, default: bool) -> bool:
    """Whether the user is active; some directories send a string. If the attribute is left out, `default`: nobody is
    reactivated by omission."""
    value = body.get("active")
    return default if value is None else value is not False and str(value).lower() != "false"


def clean_text(value: object) -> str | None:
    """A text without control characters, of at most 254 characters; None if there is none."""
    if not isinstance(value, str) or not value.strip():
        return None
    return "".join(part if part.isprintable() else " " for part in value.strip()[:254])


def parse_id(value: object) -> UUID:
    """The id of a person. Raises `NotFound` (`unknown_person`) for anything else."""
    try:
        return UUID(str(value))
    except ValueError as error:
        raise NotFound(
            f"there is no {str(value)[:60]}", code="unknown_person", hint="GET /Users lists them."
        ) from error


def patch_error(why: str) -> Invalid:
    """The error of a PATCH that cannot be read (`scim_patch`)."""
    return Invalid(f"this PATCH cannot be read: {why}", code="scim_patch", hint="See RFC 7644, section 3.5.2.")
