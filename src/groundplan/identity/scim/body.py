"""What a directory sends, read: attributes of a user, members of a group, the operations of a PATCH. Pure.

Directories write the same in many ways (Entra ID and Okta do); what cannot be read is refused, and unknown attributes
of a user are passed over, as the standard allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from groundplan.core.errors import Invalid, NotFound
from groundplan.identity.directory_store import Written
from groundplan.identity.genesis import normal_email

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
MOST = 200
MOST_EMAILS = 20
_EMAIL_AT = re.compile(r'emails\[(type|primary) eq "?(\w{1,40})"?\]', re.IGNORECASE)
_EMAIL_PATH = 'emails[type eq "work"].value'
Json = Mapping[str, Any]


def written(body: Json, user_name: str) -> Written:
    """What is kept of a user as the directory says it."""
    name = body.get("name")
    parts = name if isinstance(name, Mapping) else {}
    return Written(
        external_id=text_of(body.get("externalId")),
        user_name=user_name,
        given_name=text_of(parts.get("givenName")) or "",
        family_name=text_of(parts.get("familyName")) or "",
        display_name=text_of(body.get("displayName")),
        formatted=text_of(parts.get("formatted")),
        emails=_emails(body.get("emails")) or None,
    )


def put_attribute(wanted: dict[str, Any], path: str, value: Any, kind: str) -> None:
    """One attribute of a user; unknown ones are passed over, as the standard allows for what is not supported."""
    names = {
        "username": "userName", "displayname": "displayName", "active": "active", "externalid": "externalId",
        "emails": "emails", "name": "name",
    }  # fmt: skip
    first, _, rest = path.partition(".")
    if first.lower().startswith("emails["):
        wanted["emails"] = _one_email(wanted["emails"], first, rest, None if kind == "remove" else value)
        return
    name = names.get(first.lower())
    if name is None:
        return
    if kind == "remove":
        value = None
    if name == "name" and rest:
        wanted["name"] = {**(wanted.get("name") or {}), rest: value}
    else:
        wanted[name] = value


def _one_email(emails: list[dict[str, Any]], path: str, part: str, value: Any) -> list[dict[str, Any]]:
    """The addresses with another value at the one that a path names; None takes it out."""
    named = _EMAIL_AT.fullmatch(path)
    if named is None or part.lower() not in ("", "value"):
        raise no_patch(f"emails are named as in {_EMAIL_PATH}")
    field, said = named.group(1).lower(), named.group(2).lower()
    others = [each for each in emails if str(each.get(field, "")).lower() != said]
    old = next(
        (each for each in emails if each not in others), {"type": said} if field == "type" else {"primary": True}
    )
    changed = value if isinstance(value, Mapping) else {"value": value}
    return others if value is None else [*others, {**old, **changed}]


def operations_of(body: Json) -> list[tuple[str, str, Any]]:
    """(add | replace | remove, path, value) of each operation. Raises `Invalid` (`scim_patch`)."""
    given = body.get("Operations")
    if not isinstance(given, list) or len(given) > MOST:
        raise no_patch(f"send at most {MOST} Operations")
    found: list[tuple[str, str, Any]] = []
    for each in given:
        kind = str(each.get("op", "")).lower() if isinstance(each, Mapping) else ""
        path = each.get("path") or "" if isinstance(each, Mapping) else ""
        if kind not in ("add", "replace", "remove") or not isinstance(path, str):
            raise no_patch("each has op add, replace or remove")
        found.append((kind, path.removeprefix(f"{USER}:").removeprefix(f"{GROUP}:"), each.get("value")))
    return found


def members_of(given: object) -> frozenset[UUID]:
    """Ids of people, from one member or a list of them. Raises `NotFound` (`unknown_person`) for what is no id."""
    if given is None:
        return frozenset()
    items = given if isinstance(given, list) else [given]
    return frozenset(id_of(each.get("value") if isinstance(each, Mapping) else None) for each in items)


def email_of(body: Json) -> str:
    """The address that is used: the primary one, else the first, else the userName. Raises `Invalid`."""
    given = body.get("emails")
    items = [each for each in given if isinstance(each, Mapping)] if isinstance(given, list) else []
    first = next((each for each in items if each.get("primary") is True), items[0] if items else None)
    return normal_email(str((first or {}).get("value") or body.get("userName") or ""))


def _emails(given: object) -> list[dict[str, Any]]:
    """All addresses, in lower case, with their type; the first is the one that is used where none is primary."""
    items = [each for each in given if isinstance(each, Mapping)] if isinstance(given, list) else []
    if len(items) > MOST_EMAILS:
        raise Invalid(f"at most {MOST_EMAILS} emails are kept", code="scim_emails", hint="Send fewer.")
    return [
        {
            "value": normal_email(str(each.get("value") or "")),
            **{part: said for part in ("type", "display") if (said := text_of(each.get(part)))},
            **({"primary": each["primary"]} if isinstance(each.get("primary"), bool) else {}),
        }
        for each in items
    ]


def user_name_of(body: Json) -> str:
    """Raises `Invalid` (`scim_user_name`)."""
    name = body.get("userName")
    if not isinstance(name, str) or not name.strip() or len(name) > 254 or not name.isprintable():
        raise Invalid("a user needs a userName", code="scim_user_name", hint="Send userName.")
    return name.strip()


def display_name(body: Json, email: str) -> str:
    """The name that others know somebody by; the address where the directory says none."""
    name = body.get("name")
    parts = name if isinstance(name, Mapping) else {}
    full = f"{text_of(parts.get('givenName')) or ''} {text_of(parts.get('familyName')) or ''}".strip()
    return text_of(body.get("displayName")) or text_of(parts.get("formatted")) or full or email


def is_active(body: Json, otherwise: bool) -> bool:
    """Some directories send the word. What is not said stays: nobody comes back because an attribute was left out."""
    given = body.get("active")
    return otherwise if given is None else given is not False and str(given).lower() != "false"


def text_of(value: object) -> str | None:
    """What is written of a text, 254 characters at most; None for no text."""
    if not isinstance(value, str) or not value.strip():
        return None
    return "".join(part if part.isprintable() else " " for part in value.strip()[:254])


def id_of(value: object) -> UUID:
    """Raises `NotFound` (`unknown_person`)."""
    try:
        return UUID(str(value))
    except ValueError as error:
        raise NotFound(
            f"there is no {str(value)[:60]}", code="unknown_person", hint="GET /Users lists them."
        ) from error


def no_patch(why: str) -> Invalid:
    """The error of a PATCH that cannot be read (`scim_patch`)."""
    return Invalid(f"this PATCH cannot be read: {why}", code="scim_patch", hint="See RFC 7644, section 3.5.2.")
