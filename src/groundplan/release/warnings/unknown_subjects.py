"""Budgets and limits of a key that does not exist or is revoked, or of a person who is not here: they hold nobody back.
Files alone do not show it, since keys and people are in PostgreSQL.
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
    """Of each budget and limit that covers one."""
    declared = (("budget", workspace.budgets), ("limit", workspace.limits))
    named = [(kind, name, *each.covers.partition("/")[::2]) for kind, of in declared for name, each in of.items()]
    keys = {target: _id(target) for _, _, scope, target in named if scope == "key" and target}
    good = identity.usable_key_lines(conn, [id for id in keys.values() if id is not None])
    emails = [target.lower() for _, _, scope, target in named if scope == "user" and target]
    there = identity.active_emails(conn, emails) if emails else set()
    there |= {person.email.lower() for person in workspace.people.values() if person.email}
    for kind, name, scope, target in named:
        if scope == "key" and target and (usable := good.get(keys[target])) is not True:
            why = "there is no such key" if usable is None else "that key is revoked"
            todo = "Name another one, as `groundplan keys list` tells them, or take it out."
            yield no_effect.problem(workspace, kind, name, ("covers",), why, todo)
        if scope == "user" and target and target.lower() not in there:
            why, todo = f"nobody with the address {target} is here", "Correct the address, or take it out."
            yield no_effect.problem(workspace, kind, name, ("covers",), why, todo)


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
