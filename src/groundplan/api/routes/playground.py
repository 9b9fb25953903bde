"""POST /api/playground: ask a workload as yourself, and see route and why, attempts, cost, cache and sources."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn
from groundplan.api.calls import playground
from groundplan.api.context import ServicesDep

router = protected_router("ledger")


class Question(BaseModel):
    """What to ask which workload."""

    model_config = ConfigDict(extra="forbid")
    workload: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    question: Annotated[str, StringConstraints(min_length=1, max_length=8000)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 256


@router.post("/playground")
def play(body: Question, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """A real call, charged to the workload. Needs a duty that may make keys for it."""
    authorize(caller, "keys", f"workload/{body.workload}")
    return playground.ask_in_playground(services, caller, body.workload, body.question, body.max_tokens)
