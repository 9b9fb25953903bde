"""Clears the cached answers of a workload."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.propagation import policy_effect
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.identity import service as identity

router = protected_router("cache")


class Clear(BaseModel):
    """The workload whose cached answers are cleared."""

    model_config = ConfigDict(extra="forbid")
    workload: Annotated[str, StringConstraints(min_length=1, max_length=63)]


@router.post("/cache/clear")
def clear(body: Clear, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Invalidate all cached answers of a workload. Gateways acknowledge within a second; `effective` lists those that
    have."""
    authorize(caller, "clear", f"workload/{body.workload}")
    with services.transaction() as conn:
        workload = require_workload(current_blueprint(conn), body.workload)
        number = identity.clear_answers(conn, caller.actor, workload.name)
    return {"workload": workload.name, "effective": policy_effect(services, number)}
