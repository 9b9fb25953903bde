"""Grants at the control port, by the present memberships: whose keys may act for others, and who may search as a
workload does. The gateway decides about calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.blueprint.model import Grant, Workload
from groundplan.core.errors import Denied
from groundplan.identity import store as identity


def check_act_for_others(conn: Connection[Any], workload: Workload, person: UUID | None, today: date) -> None:
    """Raise `Denied` for a key that acts for others where that is granted only to other people."""
    if workload.act_for_others and not _is_granted(conn, workload.act_for_others, person, today):
        reason = "its user is not among them" if person else "this key has no user"
        raise Denied(
            f"keys of {workload.name} act for others only where that was granted to their user, and {reason}",
            code="act_for_others_not_granted",
            hint=_grant_hint(workload),
        )


def check_use(conn: Connection[Any], workload: Workload, person: UUID, today: date) -> None:
    """Raise `Denied` if the workload is not granted to the person."""
    if workload.use and not _is_granted(conn, workload.use, person, today):
        raise Denied(f"{workload.name} was not granted to you", code="use_not_granted", hint=_grant_hint(workload))


def _is_granted(conn: Connection[Any], grants: Iterable[Grant], person: UUID | None, today: date) -> bool:
    names = {name for grant in grants if grant.until is None or today.isoformat() <= grant.until for name in grant.to}
    return person is not None and not names.isdisjoint(identity.reader_names(conn, person))


def _grant_hint(workload: Workload) -> str:
    owners = ", ".join(workload.owners.get("business", ()))
    return f"Ask its business owner {owners} for a grant." if owners else "Ask whoever owns it for a grant."
