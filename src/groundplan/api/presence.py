"""Whether the person who approves was there, for approvals that are no changes of a blueprint (those ask governance).

The same rule: a passkey or the company's sign-in; else only in the demo, or where the company is one person alone.
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
    """Raises `Denied` (`approval_unproven`) where only the operator's token may have been there."""
    if caller.proven or caller.acting or is_alone(conn):
        return
    raise Denied(
        "anyone with the operator's token could have signed in this way, so it approves nothing",
        code="approval_unproven",
        hint="Sign in with your passkey or at the company's sign-in; register a passkey on the page Sign-in.",
    )


def one_is_enough(services: Services, conn: Connection[Any]) -> bool:
    """Whether what otherwise takes people who prove to be there takes one, or the operator: a company of one person, a
    demo, and before anybody can prove to be there."""
    return is_alone(conn) or is_demo(services, conn) or not rights_store.has_proven_person(conn)


def is_alone(conn: Connection[Any]) -> bool:
    """Whether the company is one person, and says so."""
    blueprint = current_or_none(conn)
    return blueprint is not None and blueprint.separation == "solo" and governance.count_active_people(conn) == 1
