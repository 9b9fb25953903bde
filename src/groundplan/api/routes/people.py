"""People, groups and teams as they are now, and the few changes to them that a command may make."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api import store
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import Using
from groundplan.api.effect import effect_of
from groundplan.identity import service as identity

router = APIRouter(tags=["people"])
MAY_CHANGE = frozenset({"security", "operations"})


class Member(BaseModel):
    """Whom to add, by e-mail address."""

    model_config = ConfigDict(extra="forbid")
    person: Annotated[str, StringConstraints(min_length=3, max_length=320)]


@router.get("/people")
def list_people(services: Using, _: Reader) -> dict[str, Any]:
    with services.transaction() as conn:
        return {"people": store.people(conn)}


@router.get("/groups")
def list_groups(services: Using, _: Reader) -> dict[str, Any]:
    with services.transaction() as conn:
        return {"groups": store.groups(conn)}


@router.post("/groups/{group}/members", status_code=201)
def add_member(group: str, body: Member, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Put a person into a group or team."""
    require_duty(caller, MAY_CHANGE, "company")
    with services.transaction() as conn:
        number = identity.add_member(conn, caller.actor, group, body.person)
    return {"group": group, "person": body.person, "effective": effect_of(services, number)}


@router.delete("/groups/{group}/members/{person}")
def remove_member(group: str, person: str, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Take a person out of a group or team: the next retrieval no longer sees what only it may read."""
    require_duty(caller, MAY_CHANGE, "company")
    with services.transaction() as conn:
        number = identity.remove_member(conn, caller.actor, group, person)
    return {"group": group, "person": person, "effective": effect_of(services, number)}


@router.delete("/people/{person}")
def person_left(person: str, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Somebody has left: all their permissions, sessions and keys end."""
    require_duty(caller, MAY_CHANGE, "company")
    with services.transaction() as conn:
        number = identity.deactivate_person(conn, caller.actor, identity.find_person(conn, person).id)
    return {"person": person, "effective": effect_of(services, number)}
