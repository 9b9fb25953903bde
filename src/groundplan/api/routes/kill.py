"""The kill switch: stops a scope now, says when that is effective at every gateway, and is lifted again.

A scope that names nothing is refused, since a slip of the hand must not be taken for a stop.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api import store
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import Using
from groundplan.api.effect import effect_of
from groundplan.api.served import current_or_none
from groundplan.catalog.explain import nearest
from groundplan.core.errors import NotFound
from groundplan.governance import service as governance
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
        _check_known(conn, body.scope)
        number = identity.kill(conn, caller.actor, body.scope, body.reason)
    kind, _, name = body.scope.partition("/")
    effective = effect_of(services, number, workload=name if kind == "workload" else None)
    return {"scope": body.scope, "reason": body.reason, "effective": effective}


@router.post("/kill/lift")
def lift(body: Stop, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Let a stopped scope run again."""
    require_duty(caller, MAY_KILL, body.scope)
    with services.transaction() as conn:
        number = identity.lift(conn, caller.actor, body.scope)
    return {"scope": body.scope, "effective": effect_of(services, number)}


def _check_known(conn: Connection[Any], scope: str) -> None:
    """Raises `NotFound` (`scope_unknown`) where the scope names nothing that is served, waits or is a key."""
    kind, _, name = scope.partition("/")
    if kind == "company" or (kind == "key" and _is_key(conn, name)):
        return
    known = set() if kind == "key" else _known(conn, kind)
    if scope in known:
        return
    near = nearest(scope, known)
    listed = "`groundplan keys list` shows the keys." if kind == "key" else f"There are: {_told(known)}."
    raise NotFound(
        f"there is no {scope}, so nothing was stopped",
        code="scope_unknown",
        hint=f"Did you mean {near}?" if near else listed,
    )


def _is_key(conn: Connection[Any], name: str) -> bool:
    try:
        return store.key(conn, UUID(name)) is not None
    except ValueError:
        return False


def _known(conn: Connection[Any], kind: str) -> set[str]:
    """Scopes of this kind that the served blueprint names, or that wait for an approval."""
    waiting = {change.subject for change in governance.pending(conn) if change.type == kind}
    blueprint = current_or_none(conn)
    if blueprint is None:
        return waiting
    named = {
        "workload": [item.name for item in blueprint.workloads],
        "deployment": [item.name for item in blueprint.deployments],
        "source": [item.name for item in blueprint.sources],
        "site": [item.name for item in blueprint.sites],
    }[kind]
    return waiting | {f"{kind}/{name}" for name in named}


def _told(known: set[str]) -> str:
    return ", ".join(sorted(known)[:20]) or "none of that kind"
