"""Approvals outside of the blueprint, their renewal, and who decides what."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.routes.changes import FileName, FileText
from groundplan.api.watch import model_changes
from groundplan.catalog.loader import MAX_FILES
from groundplan.governance import service as governance
from groundplan.governance import store
from groundplan.governance.model import ApprovalRequest, Change
from groundplan.identity import store as people
from groundplan.identity.model import COMPANY

router = protected_router("changes")
Subject = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,30}/\S{1,120}$")]
Reason = Annotated[str, StringConstraints(min_length=3, max_length=1000)]
QUESTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("models", "Who approves models", ("security", "compliance")),
    ("prompts", "Who approves prompts", ("product", "security")),
    ("data", "Who manages access to data", ("data", "compliance")),
    ("cost", "Who watches cost", ("finance",)),
    ("incidents", "Who responds to incidents", ("operations", "security")),
    ("production", "Who lets a pilot into production", ("business", "security", "data", "finance")),
    ("policy", "Who decides rules and exceptions", ("security", "compliance")),
    ("rollout", "Who lets production reach more people", ("operations", "security")),
    ("evidence", "Who accepts evidence", ("compliance",)),
)


class ApprovalBody(BaseModel):
    """A request for approval. `what`: the declaration, to which approvals are bound."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["model", "prompt", "data", "policy", "exception", "rollout", "evidence"]
    subject: Subject
    what: Annotated[
        dict[Annotated[str, StringConstraints(max_length=80)], JsonValue], Field(min_length=1, max_length=50)
    ]
    reason: Reason


class MissingBody(BaseModel):
    """Request approval of everything that production uses without one: for one workload or all; as served, or as in
    `files`."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason
    workload: Annotated[str, StringConstraints(max_length=63)] | None = None
    files: Annotated[dict[FileName, FileText], Field(min_length=1, max_length=MAX_FILES)] | None = None


class RenewalBody(BaseModel):
    """Reason of a renewal."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason


@router.post("/approvals", status_code=201)
def request_approval(body: ApprovalBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request approval of a model, a prompt, data for a purpose, or an audience of production. It then waits like any
    change: approve, refuse and withdraw it at /api/changes. Evidence, policies and exceptions are requested where they
    are made."""
    with services.release_turn() as conn:
        asked = ApprovalRequest(body.kind, body.subject, body.what, body.reason)
        made = services.releases.request_approval(conn, caller.actor, asked)
    return _json(made)


@router.post("/approvals/missing", status_code=201)
def request_missing(body: MissingBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request approval of every model version, prompt, and source for a purpose that production uses, or is declared to
    use, without a valid one. Pending requests are listed, not repeated."""
    with services.release_turn() as conn:
        made = services.releases.request_part_approvals(conn, caller.actor, body.reason, body.workload, body.files)
    return {"asked": [_json(each) for each in made]}


@router.get("/approvals")
def approvals(
    services: ServicesDep, _: Reader, subject: Annotated[str | None, Query(max_length=160)] = None
) -> dict[str, Any]:
    """Valid approvals, with their ends and the proof of each decision; only of one subject, if given. For a model also
    how it has `changed`: what its upstreams report now, and did not when it was approved."""
    with services.transaction() as conn:
        found = [each for each in store.changes(conn, ["applied"]) if subject in (None, each.subject)]
        flags = model_changes.changes_by_digest(services, conn)
    return {"approvals": [{**_json(each), "changed": flags.get(each.digest, [])} for each in found]}


@router.post("/changes/{change_id}/renew", status_code=201)
def renew(change_id: UUID, body: RenewalBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request approval of the same content again, before its approval ends; serving goes on until then."""
    with services.transaction() as conn:
        made = governance.request_renewal(conn, caller.actor, change_id, body.reason, at=services.clock.now())
    return _json(made)


@router.get("/who-decides")
def who_decides(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Each question with the people who decide it: for the company, and for workloads and sources with holders of their
    own."""
    with services.transaction() as conn:
        held = [each for each in people.duties(conn) if each.person.active]
    return {
        "questions": [
            {
                "name": name,
                "question": question,
                "duties": [
                    {
                        "duty": duty,
                        "company": [each.person.name for each in held if (each.subject, each.duty) == (COMPANY, duty)],
                        "own": [
                            {"subject": each.subject, "name": each.person.name}
                            for each in held
                            if each.duty == duty and each.subject != COMPANY
                        ],
                    }
                    for duty in duties
                ],
            }
            for name, question, duties in QUESTIONS
        ]
    }


def _json(change: Change) -> dict[str, Any]:
    return {
        "id": str(change.id),
        "kind": change.type,
        "subject": change.subject,
        "digest": change.digest,
        "state": change.state,
        "reason": change.reason,
        "requested_by": change.requested_by,
        "requested_at": change.requested_at,
        "expires_on": change.expires_on,
        "grace_until": change.grace_until,
        "seats": change.seats,
        "people": change.approver_count,
        "renews": None if change.renews is None else str(change.renews),
        "waits_for": [{"subject": need.subject, "duty": need.duty} for need in change.open_needs],
        "approvals": [
            {
                "person": each.person, "duty": each.duty, "decision": each.decision, "comment": each.comment,
                "at": each.at, "withdrawn_at": each.withdrawn_at, "proof": each.proof, "evidence": each.is_evidence,
            }
            for each in change.approvals
        ],
    }  # fmt: skip
