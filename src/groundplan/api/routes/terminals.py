"""Decisions requested from a command line and confirmed by a person in their browser."""

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
    """The decision to make on a change."""

    model_config = ConfigDict(extra="forbid")
    change: UUID
    decision: Literal["approve", "refuse"]
    comment: Annotated[str, StringConstraints(max_length=2000)] = ""


class Known(BaseModel):
    """The secret that was returned for the request."""

    model_config = ConfigDict(extra="forbid")
    secret: Annotated[str, StringConstraints(min_length=20, max_length=100)]


@router.post("/terminals", status_code=201)
def ask(body: Wanted, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request a decision. A person confirms it at `url` within ten minutes, signed in with a passkey or at the
    company's sign-in. The page shows `code`, so that they recognise the request."""
    now = services.clock.now()
    with services.transaction() as conn:
        change = _pending(governance.change_by_id(conn, body.change, lock=False))
        requested, secret = terminal_decisions.request_decision(
            conn, caller.actor, body.change, change.digest, body.decision, body.comment, now
        )
    base = services.settings.console_url or f"http://localhost:{request.url.port or 80}"
    return {
        "id": str(requested.id),
        "secret": secret,
        "code": requested.code,
        "url": f"{base.rstrip('/')}/you/terminal/{requested.id}",
        "expires_at": requested.expires_at,
    }


@router.get("/terminals/{request_id}")
def shown(request_id: UUID, services: ServicesDep, _: SignedIn) -> dict[str, Any]:
    """A requested decision, for the person who is to confirm it."""
    with services.transaction() as conn:
        requested = terminal_decisions.find_request(conn, request_id, services.clock.now())
        change = governance.change_by_id(conn, requested.change, lock=False)
        change_row = None if change is None else store.change(conn, requested.change)
        routing = None if change_row is None else router_evaluations.change_evaluation(services, conn, change_row)
    return {
        "id": str(requested.id), "code": requested.code, "change": str(requested.change),
        "decision": requested.decision, "comment": requested.comment, "expires_at": requested.expires_at,
        "confirmed": requested.confirmed_at is not None,
        "subject": "" if change is None else change.subject,
        "fields": [] if change is None else change.summary["fields"], "routing": routing,
    }  # fmt: skip


@router.post("/terminals/{request_id}/confirm")
def confirm(request_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Confirm a requested decision as one's own. Requires a session that proves presence."""
    authorize(caller, "approve", "company")
    with services.transaction() as conn:
        requested = terminal_decisions.confirm(conn, request_id, require_session(caller), services.clock.now())
    return {"id": str(requested.id), "confirmed": True}


@router.post("/terminals/{request_id}/decide")
def decide(request_id: UUID, body: Known, request: Request, services: ServicesDep, _: SignedIn) -> dict[str, Any]:
    """Execute a confirmed decision once, as the person who confirmed it. Raises `Unavailable` (503, `terminal_waits`)
    until it is confirmed, and `Conflict` (`change_moved`) if the change was modified since."""
    with services.release_turn() as conn:
        requested = terminal_decisions.take_decision(conn, request_id, body.secret, services.clock.now())
        change = _pending(governance.change_by_id(conn, requested.change, lock=False))
        if change.digest != requested.digest:
            raise Conflict(
                "the change has been modified since", code="change_moved", hint="Check it, and decide again."
            )
        assert requested.person is not None and requested.proof is not None, "confirmed"
        approver, answer = Approver(requested.person, requested.proof), Answer(comment=requested.comment)
        if requested.decision == "refuse":
            return {"decision": "refuse", **services.releases.refuse(conn, approver, requested.change, answer)}
        value = services.releases.approve(conn, approver, requested.change, answer)
    request.app.state.indexer.request_all()
    return {"decision": "approve", "change": str(requested.change), **value}


def _pending(change: Change | None) -> Change:
    """The change, if it is pending. Raises `NotFound` (`change_unknown`), `Conflict` (`change_settled`)."""
    if change is None:
        raise NotFound("there is no such change", code="change_unknown", hint="`groundplan changes list`")
    if change.state != "pending":
        raise Conflict(f"this change is {change.state}", code="change_settled", hint="Nothing waits for you there.")
    return change
