"""The kill switch: stops a scope now, says when that is effective at every gateway, and is lifted again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api import store
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import Using
from groundplan.api.effect import effect_of
from groundplan.identity import service as identity

router = APIRouter(tags=["kill"])
MAY_KILL = frozenset({"security", "operations", "business"})


class Stop(BaseModel):
    """What to stop or let run again, and why."""

    model_config = ConfigDict(extra="forbid")
    scope: Annotated[str, StringConstraints(pattern=r"^(company|(workload|deployment|source|key|site)/\S{1,80})$")]
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]


@router.get("/kill")
def list_kills(services: Using, _: Reader) -> dict[str, Any]:
    with services.transaction() as conn:
        return {"kills": store.kills(conn)}


@router.post("/kill", status_code=201)
def kill(body: Stop, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Stop a scope. Gateways acknowledge within a second; those cut off are named with until when they may serve."""
    require_duty(caller, MAY_KILL, body.scope)
    with services.transaction() as conn:
        number = identity.kill(conn, caller.actor, body.scope, body.reason)
    return {"scope": body.scope, "reason": body.reason, "effective": effect_of(services, number)}


@router.post("/kill/lift")
def lift(body: Stop, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Let a stopped scope run again."""
    require_duty(caller, MAY_KILL, body.scope)
    with services.transaction() as conn:
        number = identity.lift(conn, caller.actor, body.scope)
    return {"scope": body.scope, "effective": effect_of(services, number)}
