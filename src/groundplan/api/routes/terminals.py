"""Deciding from a command line, by somebody who shows in their browser that they are there."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api import store
from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.routes.sign_in import require_session
from groundplan.api.routing import evaluations as router_evaluations
from groundplan.core.errors import Conflict, NotFound
from groundplan.governance import store as governance
from groundplan.governance.approvals import Answer, Approver
from groundplan.governance.model import Change
from groundplan.identity import terminal_decisions

router = protected_router("changes")


class Wanted(BaseModel):
    """What is to be said to which change."""

    model_config = ConfigDict(extra="forbid")
    change: UUID
    decision: Literal["approve", "refuse"]
    comment: Annotated[str, StringConstraints(max_length=2000)] = ""


class Known(BaseModel):
    """The secret that the asker was given."""

    model_config = ConfigDict(extra="forbid")
    secret: Annotated[str, StringConstraints(min_length=20, max_length=100)]


@router.post("/terminals", status_code=201)
def ask(body: Wanted, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Write a decision down. It is made by whoever confirms it at `url` within ten minutes, in a session of their own
    with a passkey or the company's sign-in; `code` stands there, too."""
    now = services.clock.now()
    with services.transaction() as conn:
        change = _pending(governance.change_by_id(conn, body.change, lock=False))
        made, secret = terminal_decisions.request_decision(
            conn, caller.actor, body.change, change.digest, body.decision, body.comment, now
        )
    base = services.settings.console_url or f"http://localhost:{request.url.port or 80}"
    return {
        "id": str(made.id), "secret": secret, "code": made.code, "url": f"{base.rstrip('/')}/you/terminal/{made.id}",
        "expires_at": made.expires_at,
    }  # fmt: skip


@router.get("/terminals/{request_id}")
def shown(request_id: UUID, services: ServicesDep, _: SignedIn) -> dict[str, Any]:
    """What you are asked to confirm."""
    with services.transaction() as conn:
        found = terminal_decisions.find_request(conn, request_id, services.clock.now())
        change = governance.change_by_id(conn, found.change, lock=False)
        whole = None if change is None else store.change(conn, found.change)
        routing = None if whole is None else router_evaluations.change_evaluation(services, conn, whole)
    return {
        "id": str(found.id), "code": found.code, "change": str(found.change), "decision": found.decision,
        "comment": found.comment, "expires_at": found.expires_at, "confirmed": found.confirmed_at is not None,
        "subject": "" if change is None else change.subject,
        "fields": [] if change is None else change.summary["fields"], "routing": routing,
    }  # fmt: skip


@router.post("/terminals/{request_id}/confirm")
def confirm(request_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Say that it is your own decision. Only from a session that proves that you are there."""
    authorize(caller, "approve", "company")
    with services.transaction() as conn:
        found = terminal_decisions.confirm(conn, request_id, require_session(caller), services.clock.now())
    return {"id": str(found.id), "confirmed": True}


@router.post("/terminals/{request_id}/decide")
def decide(request_id: UUID, body: Known, request: Request, services: ServicesDep, _: SignedIn) -> dict[str, Any]:
    """Make the decision that was confirmed, as the person who confirmed it, once. 503 `terminal_waits` before that."""
    with services.release_turn() as conn:
        found = terminal_decisions.take_decision(conn, request_id, body.secret, services.clock.now())
        change = _pending(governance.change_by_id(conn, found.change, lock=False))
        if change.digest != found.digest:
            raise Conflict(
                "the change has been modified since", code="change_moved", hint="Check it, and decide again."
            )
        assert found.person is not None and found.proof is not None, "confirmed"
        approver, answer = Approver(found.person, found.proof), Answer(comment=found.comment)
        if found.decision == "refuse":
            return {"decision": "refuse", **services.releases.refuse(conn, approver, found.change, answer)}
        value = services.releases.approve(conn, approver, found.change, answer)
    request.app.state.indexer.request_all()
    return {"decision": "approve", "change": str(found.change), **value}


def _pending(change: Change | None) -> Change:
    if change is None:
        raise NotFound("there is no such change", code="change_unknown", hint="`groundplan changes list`")
    if change.state != "pending":
        raise Conflict(f"this change is {change.state}", code="change_settled", hint="Nothing waits for you there.")
    return change
