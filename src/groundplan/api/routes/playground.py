"""POST /api/playground: call a workload as the signed-in person, and see route with reasons, attempts, cost, cache and
sources."""

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
    """The question and the workload to call."""

    model_config = ConfigDict(extra="forbid")
    workload: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    question: Annotated[str, StringConstraints(min_length=1, max_length=8000)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 256


@router.post("/playground")
def play(body: Question, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Make a real call, which is charged to the workload. Requires a duty that permits creating keys for the
    workload."""
    authorize(caller, "keys", f"workload/{body.workload}")
    return playground.ask_in_playground(services, caller, body.workload, body.question, body.max_tokens)
