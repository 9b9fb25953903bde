"""Proof of presence for approvals that are not changes of a blueprint (governance checks those).

The rule is the same: a passkey or the company's sign-in; otherwise only in the demo, or in a company of one person.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api.caller import Caller, is_demo
from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.errors import Denied
from groundplan.governance import store as governance
from groundplan.identity import rights_store


def check_presence(conn: Connection[Any], caller: Caller) -> None:
    """Raise `Denied` (`approval_unproven`) unless the caller proved to be present."""
    if caller.proven or caller.acting or is_alone(conn):
        return
    raise Denied(
        "anyone with the operator's token could have signed in this way, so it approves nothing",
        code="approval_unproven",
        hint="Sign in with your passkey or at the company's sign-in; register a passkey on the page Sign-in.",
    )


def is_one_approver_enough(services: Services, conn: Connection[Any]) -> bool:
    """Whether one person, or the operator, is enough for what otherwise takes several proven people: in a company of
    one person, in a demo, and before anybody can prove presence."""
    return is_alone(conn) or is_demo(services, conn) or not rights_store.has_proven_person(conn)


def is_alone(conn: Connection[Any]) -> bool:
    """Whether the company declares to be, and is, one person."""
    blueprint = current_or_none(conn)
    return blueprint is not None and blueprint.separation == "solo" and governance.count_active_people(conn) == 1
