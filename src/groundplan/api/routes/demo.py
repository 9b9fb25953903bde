"""Acts of the demo: a cloud outage, one question asked as two people, a revocation, an exhausted budget, a tampered
copy of the log, a rollback.

Each act is executed on the running installation, and the response reports the actual result. They are available only
under `up --demo`, and only from this machine.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api import demo
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn, is_demo, is_loopback
from groundplan.api.context import ServicesDep
from groundplan.core.errors import Denied, NotFound

router = protected_router("demo", prefix="/demo")


class Act(BaseModel):
    """Options of an act; all are optional."""

    model_config = ConfigDict(extra="forbid")
    person: Annotated[str, StringConstraints(max_length=320)] | None = None
    workload: Annotated[str, StringConstraints(max_length=63)] | None = None
    question: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None


@router.get("")
def list_acts(services: ServicesDep, _: SignedIn) -> dict[str, Any]:
    """The names of the acts; empty unless this is a demo."""
    return {"demo": services.demo, "acts": list(demo.ACTS) if services.demo else []}


@router.post("/{act}")
def perform(act: str, body: Act, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Execute an act. The response has `act`, `title`, `told` (sentences on the result) and further facts of the
    act."""
    with services.transaction() as conn:
        allowed = is_loopback(request) and is_demo(services, conn)
    if not allowed:
        raise Denied(
            "these acts are only for the demo, on this machine", code="demo_only", hint="Start `groundplan up --demo`."
        )
    execute = demo.ACTS.get(act)
    if execute is None:
        raise NotFound(f"there is no act '{act[:40]}'", code="act_unknown", hint=f"Acts: {', '.join(demo.ACTS)}.")
    return {"act": act, **execute(services, caller, demo.ActOptions(body.person, body.workload, body.question))}
