"""People, groups and teams of the live policy, and changes to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api import store
from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.people import find_person_id
from groundplan.api.presence import is_one_approver_enough
from groundplan.api.propagation import policy_effect
from groundplan.core.errors import Denied
from groundplan.governance import store as governance
from groundplan.identity import erase, responsibilities
from groundplan.identity import service as identity
from groundplan.identity.model import COMPANY

router = protected_router("people")


def who_may_change(caller: SignedIn) -> Caller:
    """The caller, if they may change people and groups of the company. Raises `Denied`."""
    authorize(caller, "people", COMPANY)
    return caller


MayChange = Annotated[Caller, Depends(who_may_change)]


class Successor(BaseModel):
    """The person who takes over."""

    model_config = ConfigDict(extra="forbid")
    to: Annotated[str, StringConstraints(min_length=1, max_length=320)]


class Member(BaseModel):
    """A member to add: an e-mail address, or the name of another group."""

    model_config = ConfigDict(extra="forbid")
    person: Annotated[str, StringConstraints(min_length=3, max_length=320)]


class NewPerson(BaseModel):
    """A new person."""

    model_config = ConfigDict(extra="forbid")
    email: Annotated[str, StringConstraints(min_length=3, max_length=254)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class NewGroup(BaseModel):
    """A new group (for permissions) or team (for workloads)."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    type: Literal["group", "team"] = "group"


@router.get("/people")
def list_people(
    services: ServicesDep,
    _: Reader,
    search: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=320)] = "",
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
) -> dict[str, Any]:
    """List people with their groups and duties, ordered by e-mail address. `search`: words in address, name or groups.
    For the next page pass `next` as `after`."""
    with services.transaction() as conn:
        rows = store.people(conn, search, after, None if limit is None else limit + 1)
    page = rows[:limit]
    return {"people": page, "next": page[-1]["email"] if len(page) < len(rows) else None}


@router.post("/people", status_code=201)
def add_person(body: NewPerson, services: ServicesDep, caller: MayChange) -> dict[str, Any]:
    """Add a person, who belongs to no group except `everyone`."""
    with services.transaction() as conn:
        identity.add_person(conn, caller.actor, body.email, body.name)
    return {"email": body.email, "name": body.name}


@router.get("/groups")
def list_groups(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List groups and teams with their direct members."""
    with services.transaction() as conn:
        return {"groups": store.groups(conn)}


@router.post("/groups", status_code=201)
def add_group(body: NewGroup, services: ServicesDep, caller: MayChange) -> dict[str, Any]:
    """Add an empty group or team."""
    with services.transaction() as conn:
        identity.add_group(conn, caller.actor, body.name, body.type)
    return {"name": body.name, "type": body.type}


@router.post("/groups/{group}/members", status_code=201)
def add_member(group: str, body: Member, services: ServicesDep, caller: MayChange) -> dict[str, Any]:
    """Add a person or a group to a group or team."""
    with services.transaction() as conn:
        number = identity.add_member(conn, caller.actor, group, body.person)
    return {"group": group, "person": body.person, "effective": policy_effect(services, number)}


@router.delete("/groups/{group}/members/{person}")
def remove_member(group: str, person: str, services: ServicesDep, caller: MayChange) -> dict[str, Any]:
    """Remove a member from a group or team: from the next retrieval on they no longer see what only that group may
    read."""
    with services.transaction() as conn:
        number = identity.remove_member(conn, caller.actor, group, person)
    return {"group": group, "person": person, "effective": policy_effect(services, number)}


@router.post("/people/{person}/handover")
def hand_over(person: str, body: Successor, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Transfer all duties of somebody who has left to a colleague, until the workspace names another owner.

    Permitted for holders of the duty security or compliance who proved their presence, but not in their own favour. The
    operator may do it only if nobody holds these duties.
    """
    with services.transaction() as conn:
        to = find_person_id(conn, body.to)
        if to == caller.person and not is_one_approver_enough(services, conn):
            raise Denied("nobody may take over duties by themselves", code="self_handover", hint="Ask a colleague.")
        if caller.operator and not is_one_approver_enough(services, conn) and _can_appoint(conn):
            raise Denied(
                "only the duty security or compliance may give duties to a colleague", code="handover_by_person",
                hint="Do it in the console with your passkey: Governance, Rights.",
            )  # fmt: skip
        duties = identity.hand_over(conn, caller.actor, find_person_id(conn, person), to)
        store.update_departed_owner_findings(conn, services.clock.now().date())
    return {"person": person, "to": body.to, "duties": duties}


def _can_appoint(conn: Connection[Any]) -> bool:
    """Whether anybody holds a duty that permits a handover."""
    return any(governance.holders(conn, COMPANY, duty) for duty in ("security", "compliance"))


@router.post("/people/{person}/erase")
def erase_person(person: str, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Erase somebody who has left: their key is destroyed, and with it the personal data in the log and in stored
    content.

    The name of somebody who approved something is kept until the retention of approvals ends; `until` is that day.
    """
    with services.transaction() as conn:
        return erase.erase(conn, services.home, caller.actor, find_person_id(conn, person), services.clock.now())


@router.delete("/people/{person}")
def person_left(person: str, services: ServicesDep, caller: MayChange) -> dict[str, Any]:
    """Record that a person has left: their permissions, sessions and keys end. `keys_made` lists keys that remain valid
    although the person knows their secrets, since applications use them."""
    with services.transaction() as conn:
        person_id = find_person_id(conn, person)
        number = identity.deactivate_person(conn, caller.actor, person_id)
        store.update_departed_owner_findings(conn, services.clock.now().date())
        keys_made = responsibilities.responsibilities_of(conn, person_id, services.clock.now())["keys_made"]
    return {"person": person, "effective": policy_effect(services, number), "keys_made": keys_made}
