"""Requests for approvals of what lies outside the blueprint, their renewal, and the list of who decides what."""

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
    """A request for an approval. `what` is the declaration to approve: the approval is valid for exactly this
    content."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["model", "prompt", "data", "policy", "exception", "rollout", "evidence"]
    subject: Subject
    what: Annotated[
        dict[Annotated[str, StringConstraints(max_length=80)], JsonValue], Field(min_length=1, max_length=50)
    ]
    reason: Reason


class MissingBody(BaseModel):
    """A request for all approvals that production lacks, of one `workload` or of all; by the served blueprint, or by
    the declarations in `files` if given."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason
    workload: Annotated[str, StringConstraints(max_length=63)] | None = None
    files: Annotated[dict[FileName, FileText], Field(min_length=1, max_length=MAX_FILES)] | None = None


class RenewalBody(BaseModel):
    """The reason of a renewal."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason


@router.post("/approvals", status_code=201)
def request_approval(body: ApprovalBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request an approval of a model, a prompt, the use of data for a purpose, or the audience of a production
    workload.

    The request becomes a pending change, which is approved, refused and withdrawn at /api/changes. Approvals of
    evidence, policies and exceptions are requested by their own routes.
    """
    with services.release_turn() as conn:
        request = ApprovalRequest(body.kind, body.subject, body.what, body.reason)
        change = services.releases.request_approval(conn, caller.actor, request)
    return _json(change)


@router.post("/approvals/missing", status_code=201)
def request_missing(body: MissingBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request an approval for every model version, prompt, and source for a purpose that production uses, or is
    declared to use, without a valid one. `asked` lists the requests, including those that were pending before; none is
    repeated."""
    with services.release_turn() as conn:
        changes = services.releases.request_part_approvals(conn, caller.actor, body.reason, body.workload, body.files)
    return {"asked": [_json(change) for change in changes]}


@router.get("/approvals")
def approvals(
    services: ServicesDep, _: Reader, subject: Annotated[str | None, Query(max_length=160)] = None
) -> dict[str, Any]:
    """List the valid approvals, of one `subject` if given, with their expiry and the proof of each decision. For a
    model, `changed` lists what its upstreams report now and did not report when it was approved."""
    with services.transaction() as conn:
        applied = [change for change in store.changes(conn, ["applied"]) if subject in (None, change.subject)]
        model_changes_found = model_changes.changes_by_digest(services, conn)
    return {
        "approvals": [{**_json(change), "changed": model_changes_found.get(change.digest, [])} for change in applied]
    }


@router.post("/changes/{change_id}/renew", status_code=201)
def renew(change_id: UUID, body: RenewalBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request an approval of the same content again, before the current one expires; serving continues until then."""
    with services.transaction() as conn:
        change = governance.request_renewal(conn, caller.actor, change_id, body.reason, at=services.clock.now())
    return _json(change)


@router.get("/who-decides")
def who_decides(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List the people who decide each kind of question: holders of its duties for the company, and holders for single
    workloads and sources."""
    with services.transaction() as conn:
        holdings = [holding for holding in people.duties(conn) if holding.person.active]
    return {
        "questions": [
            {
                "name": name,
                "question": question,
                "duties": [
                    {
                        "duty": duty,
                        "company": [
                            holding.person.name
                            for holding in holdings
                            if (holding.subject, holding.duty) == (COMPANY, duty)
                        ],
                        "own": [
                            {"subject": holding.subject, "name": holding.person.name}
                            for holding in holdings
                            if holding.duty == duty and holding.subject != COMPANY
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
                "person": approval.person, "duty": approval.duty, "decision": approval.decision,
                "comment": approval.comment, "at": approval.at, "withdrawn_at": approval.withdrawn_at,
                "proof": approval.proof, "evidence": approval.is_evidence,
            }
            for approval in change.approvals
        ],
    }  # fmt: skip
