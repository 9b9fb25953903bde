"""API keys: made (and shown once), listed without their secret, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api import store
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import Using
from groundplan.api.effect import effect_of
from groundplan.api.people import named
from groundplan.api.served import current_blueprint, known_workload
from groundplan.core.errors import NotFound
from groundplan.identity import service as identity

router = APIRouter(tags=["keys"])
MAY_MAKE = frozenset({"engineering", "operations", "business", "product"})
MAY_REVOKE = MAY_MAKE | {"security"}


class NewKey(BaseModel):
    """What a key is for. Without `user` it carries nobody's permissions."""

    model_config = ConfigDict(extra="forbid")
    workload: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    user: Annotated[str, StringConstraints(min_length=3, max_length=320)] | None = None
    acts_for_others: bool = False
    days: Annotated[int, Field(ge=1, le=3660)] | None = None


@router.post("/keys", status_code=201)
def create_key(body: NewKey, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Make a key. The answer holds it; nothing can show it again. Connected gateways know it when this returns."""
    require_duty(caller, MAY_MAKE, f"workload/{body.workload}")
    expires = None if body.days is None else services.clock.now() + timedelta(days=body.days)
    with services.transaction() as conn:
        workload = known_workload(current_blueprint(conn), body.workload)
        person = None if body.user is None else named(conn, body.user)
        key_id, secret = identity.create_key(conn, caller.actor, workload.name, person, body.acts_for_others, expires)
        number = store.policy_number(conn)
    effect_of(services, number)
    return {"id": str(key_id), "key": secret, "workload": workload.name, "user": body.user, "expires_at": expires}


@router.get("/keys")
def list_keys(services: Using, _: Reader) -> dict[str, Any]:
    with services.transaction() as conn:
        return {"keys": store.keys(conn)}


@router.delete("/keys/{key_id}")
def revoke_key(key_id: UUID, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Stop a key; says which gateways have taken note."""
    with services.transaction() as conn:
        row = store.key(conn, key_id)
        if row is None:
            raise NotFound(f"there is no key {key_id}", code="key_unknown", hint="GET /api/keys lists them.")
        require_duty(caller, MAY_REVOKE, f"workload/{row['workload']}")
        number = identity.revoke_key(conn, caller.actor, key_id)
    return {"id": str(key_id), "effective": effect_of(services, number)}
