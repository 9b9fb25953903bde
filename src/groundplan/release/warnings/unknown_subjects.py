"""Warnings about budgets and limits of a key that does not exist or is revoked, or of an unknown person: they limit
nobody. Files alone do not show this, since keys and people are in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.identity import store as identity
from groundplan.release.warnings import no_effect


def warnings(conn: Connection[Any], workspace: Workspace) -> Iterator[Problem]:
    """The warnings about budgets and limits that cover such a key or person."""
    declared = (("budget", workspace.budgets), ("limit", workspace.limits))
    named = [
        (kind, name, *each.covers.partition("/")[::2])
        for kind, documents in declared
        for name, each in documents.items()
    ]
    keys = {target: _parse_id(target) for _, _, scope, target in named if scope == "key" and target}
    usable_keys = identity.usable_key_lines(conn, [id for id in keys.values() if id is not None])
    emails = [target.lower() for _, _, scope, target in named if scope == "user" and target]
    active_emails = identity.active_emails(conn, emails) if emails else set()
    active_emails |= {person.email.lower() for person in workspace.people.values() if person.email}
    for kind, name, scope, target in named:
        if scope == "key" and target and (usable := usable_keys.get(keys[target])) is not True:
            reason = "there is no such key" if usable is None else "that key is revoked"
            hint = "Name another one, as `groundplan keys list` tells them, or take it out."
            yield no_effect.no_effect_problem(workspace, kind, name, ("covers",), reason, hint)
        if scope == "user" and target and target.lower() not in active_emails:
            reason, hint = f"nobody with the address {target} is here", "Correct the address, or take it out."
            yield no_effect.no_effect_problem(workspace, kind, name, ("covers",), reason, hint)


def _parse_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
