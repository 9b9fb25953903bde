"""Finds a person by e-mail address, or by its part before the @ where that is unambiguous."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api import store
from groundplan.core.errors import Invalid, NotFound
from groundplan.identity import service as identity

_LIST = "List them: `groundplan people list`."


def find_person_id(conn: Connection[Any], text: str) -> UUID:
    """The id of `ana@acme.example` or `ana`. Raises `NotFound`, or `Invalid` if a short name fits several people."""
    short = text.strip().lower()
    if "@" in short:
        return identity.find_person(conn, text).id
    fitting = [row for row in store.people(conn) if row["email"].partition("@")[0] == short]
    if not fitting:
        raise NotFound(f"there is no person {short[:64]}", code="unknown_person", hint=_LIST)
    if len(fitting) > 1:
        emails = " or ".join(row["email"] for row in fitting)
        raise Invalid(f"'{short[:64]}' may be {emails}", code="person_ambiguous", hint="Give the e-mail address.")
    person_id: UUID = fitting[0]["id"]
    return person_id
