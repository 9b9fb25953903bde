"""Plan, apply and roll back declarations, and decide pending changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api import changes_since_base, health, store
from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.actor_names import load_names
from groundplan.api.caller import Caller, Reader, SignedIn
from groundplan.api.context import Services, ServicesDep
from groundplan.api.propagation import blueprint_effect, policy_effect
from groundplan.api.routing import evaluations as router_evaluations
from groundplan.api.watch import model_changes
from groundplan.catalog.loader import MAX_FILES
from groundplan.core.errors import Denied
from groundplan.governance import service as changes
from groundplan.governance import store as governance
from groundplan.governance.approvals import Answer, Approver
from groundplan.governance.model import REQUEST_DUTIES, Change
from groundplan.release import store as release
from groundplan.release.difference import differences
from groundplan.release.model import difference_json

router = protected_router("changes")
PAGE = 100

FileName = Annotated[str, StringConstraints(min_length=1, max_length=300)]
FileText = Annotated[str, StringConstraints(max_length=1 << 20)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Declared(BaseModel):
    """The YAML files of a workspace, by path relative to it."""

    model_config = ConfigDict(extra="forbid")
    files: Annotated[dict[FileName, FileText], Field(min_length=1, max_length=MAX_FILES)]


class Apply(Declared):
    """Files to apply. `folder` (local operator only) is the workspace folder, where documents of its sources are found;
    `base` is the number of the blueprint that the files were taken from."""

    reason: Reason = "applied"
    folder: str | None = None
    base: Annotated[int, Field(ge=1)] | None = None


class Rollback(BaseModel):
    """`to` is the number of the blueprint to restore; by default the one before the current one. `without_revoked`
    leaves out what was revoked since, instead of refusing the rollback."""

    model_config = ConfigDict(extra="forbid")
    to: Annotated[int, Field(ge=1)] | None = None
    without_revoked: bool = False
    reason: Reason = "rolled back"


class Decision(BaseModel):
    """The requirement of a change to decide; without `subject` and `duty`, all requirements whose duty the caller
    holds."""

    model_config = ConfigDict(extra="forbid")
    subject: str | None = None
    duty: str | None = None
    comment: Annotated[str, StringConstraints(max_length=2000)] = ""

    def answer(self) -> Answer:
        return Answer(self.subject, self.duty, self.comment)


@router.post("/plan")
def plan(body: Declared, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """Show what applying these files would change in the served blueprint, whose number is `base`; changes nothing.
    Refusals are part of the response. `notes` name changes by other people that these files would revert."""
    with services.release_turn() as conn:
        value = services.releases.plan(conn, body.files)
        served, still_pending = (
            release.load_blueprint(conn),
            {(change["subject"], change["digest"]) for change in value["pending"]},
        )
        base = 0 if served is None else served.number
        reverted = changes_since_base.reverted_changes(conn, caller, base, value["differences"])
        superseded = [
            change for change in _pending_file_changes(conn) if (change.subject, change.digest) not in still_pending
        ]
        reverted += (
            changes_since_base.superseded_changes(conn, caller, superseded, {subject for subject, _ in still_pending})
            if not value["refusals"]
            else []
        )
    value["notes"] = [
        *value["notes"],
        *reverted,
        *router_evaluations.plan_notes(services, body.files, value["differences"]),
    ]
    return {"base": base, **value}


@router.post("/apply")
def apply(body: Apply, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Make the next blueprint from these files. Parts that need an approval become pending changes.

    If `base` is given and somebody changed the declarations after that blueprint, responds with 409 (`base_moved`).
    `notes` name changes by other people that these files reverted, and deployments whose key cannot be resolved here.
    """
    authorize(caller, "release", "company")
    changes_since_base.reject_if_match(request.headers.get("if-match"))
    if body.folder is not None and not caller.operator:
        raise Denied("only the local operator may name a folder", code="operator_only", hint="Leave `folder` out.")
    with services.release_turn() as conn:
        changes_since_base.check_base(conn, caller, body.base)
        value, reverted = _apply_files(conn, services, caller, body)
        served = release.load_blueprint(conn)
    value["notes"] = [
        *reverted,
        *health.missing_key_problems(served),
        *router_evaluations.inactive_router_notes(services, body.files),
    ]
    if body.folder is not None and (problem := services.remember_folder(Path(body.folder))):
        value["notes"].append(problem)
    request.app.state.indexer.request_all()
    return value


def _apply_files(
    conn: Connection[Any], services: Services, caller: Caller, body: Apply
) -> tuple[dict[str, Any], list[str]]:
    """Apply the files; returns (result, sentences on changes by other people that they reverted)."""
    release.lock_releases(conn)
    before = release.load_blueprint(conn)
    pending_before = _pending_file_changes(conn)
    value = services.releases.apply(conn, caller.actor, body.files, body.reason)
    still_pending = {change.id: change.subject for change in _pending_file_changes(conn)}
    superseded = [change for change in pending_before if change.id not in still_pending]
    changes_since_base.check_superseded(
        conn, caller, body.base, [change for change in superseded if change.subject not in still_pending.values()]
    )
    reverted = changes_since_base.superseded_changes(conn, caller, superseded, still_pending.values())
    after = release.load_blueprint(conn)
    if before is not None and after is not None and after.number != before.number:
        changed_fields = [difference_json(change) for change in differences(before, after)]
        reverted = [*changes_since_base.reverted_changes(conn, caller, before.number, changed_fields), *reverted]
    return value, reverted


def _pending_file_changes(conn: Connection[Any]) -> list[Change]:
    """Pending changes of declared files, without requests for approvals and renewals; each apply replaces them."""
    return [
        change
        for change in changes.pending_changes(conn)
        if change.type not in REQUEST_DUTIES and change.renews is None
    ]


@router.post("/rollback")
def rollback(body: Rollback, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Make the next blueprint with the content of an earlier one, checked again by today's rules."""
    authorize(caller, "rollback", "company")
    with services.release_turn() as conn:
        value = services.releases.rollback(conn, caller.actor, body.to, body.without_revoked, body.reason)
    request.app.state.indexer.request_all()
    return value


@router.get("/changes")
def list_changes(
    services: ServicesDep,
    caller: Reader,
    state: Literal["pending", "applied", "refused", "withdrawn", "superseded", "expired"] | None = None,
    before: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
) -> dict[str, Any]:
    """List changes, newest first, with open requirements and decisions; for the next page pass `next` as `before`."""
    with services.transaction() as conn:
        rows = store.changes(conn, state, limit + 1, before)
        shown = _with_names(conn, caller, with_approvals(conn, rows[:limit]))
    return {"changes": shown, "next": str(shown[-1]["id"]) if len(rows) > limit else None}


@router.get("/changes/{change_id}")
def one_change(change_id: UUID, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """One change with its declared files.

    `missing` lists the parts of it that need an approval of their own. `changed` lists, for an approved model, what its
    upstreams report now and did not report when it was approved. `routing` is the evaluation of a learned router that
    the change introduces.
    """
    with services.transaction() as conn:
        change = _with_names(conn, caller, with_approvals(conn, [store.change(conn, change_id)]))[0]
        changed = (
            model_changes.changes_by_digest(services, conn).get(change["digest"], [])
            if change["state"] == "applied"
            else []
        )
        routing = router_evaluations.change_evaluation(services, conn, change)
    missing = services.releases.unapproved_parts(services.transaction, change_id)
    return {**change, "missing": missing, "changed": changed, "routing": routing}


@router.post("/changes/{change_id}/approve")
def approve(
    change_id: UUID, body: Decision, request: Request, services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """Approve by a duty that the caller holds. When the last requirement is met, the change becomes the next
    blueprint."""
    approver = approver_of(caller)
    with services.release_turn() as conn:
        value = services.releases.approve(conn, approver, change_id, body.answer())
    request.app.state.indexer.request_all()
    return value


@router.post("/changes/{change_id}/refuse")
def refuse(change_id: UUID, body: Decision, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Refuse by a duty that the caller holds, or as the operator; the change is then refused as a whole."""
    approver = None if caller.operator else approver_of(caller)
    with services.release_turn() as conn:
        return services.releases.refuse(conn, approver, change_id, body.answer())


@router.post("/changes/{change_id}/withdraw")
def withdraw(change_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Withdraw a change that the caller requested, or an approval that the caller gave. If that ends something in
    service, `effective` says which gateways have acknowledged it; each disconnected one is listed with the time until
    which it may still serve it."""
    with services.release_turn() as conn:
        value = services.releases.withdraw(conn, caller.actor, change_id)
    if value["blueprint"] is not None:
        value["effective"] = blueprint_effect(services, value["blueprint"])
    elif value["policy"] is not None:
        value["effective"] = policy_effect(services, value["policy"])
    return value


def approver_of(caller: Caller) -> Approver:
    """The caller as an approver. Raises `Denied` (`operator_never_approves`) for the operator."""
    if caller.person is None:
        raise Denied(
            "the operator approves no change", code="operator_never_approves",
            hint="Sign in as somebody who holds the duty: groundplan login --as E-MAIL.",
        )  # fmt: skip
    return Approver(caller.person, caller.proof, caller.real if caller.acting else None)


def _with_names(conn: Connection[Any], caller: Caller, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add `requested_by_name`, the names of deciders (`with_holders`), and the name of the person an exception is
    for."""
    exception_fields = [
        field for change in changes if change["type"] == "exception" for field in change["summary"]["fields"]
    ]
    exception_fields = [field for field in exception_fields if field["field"] == "person"]
    asked_by = {str(change["requested_by"]) for change in changes}
    names = load_names(
        conn, caller, asked_by | {f"person:{field['new']}" for field in exception_fields if _is_id(field["new"])}
    )
    for field in exception_fields:
        field["new"] = names.people.get(f"person:{field['new']}", field["new"])
    for change in changes:
        change["requested_by_name"] = names.of(change["requested_by"])
    return with_holders(conn, caller, changes)


def with_holders(conn: Connection[Any], caller: Caller, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each item of `waits_for` the names of the `people` who may decide it, and `mine`: whether the caller
    may."""
    needs = {(need["subject"], need["duty"]) for change in changes for need in change["waits_for"]}
    holders_by_need = governance.holders_of(conn, needs)
    for change in changes:
        change["waits_for"] = [
            {
                **need,
                "people": [holder.name for holder in holders],
                "mine": any(holder.person_id == caller.person for holder in holders),
            }
            for need in change["waits_for"]
            for holders in [holders_by_need[need["subject"], need["duty"]]]
        ]
    return changes


def with_approvals(conn: Connection[Any], changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add `approvals` and `waits_for`, the needs without a valid approval of the same digest. For a pending change,
    approvals of people who have left do not count."""
    approvals = store.approvals(conn, [change["id"] for change in changes])
    for change in changes:
        of_change = [row for row in approvals if row["change_id"] == change["id"]]
        met = {
            (row["subject"], row["duty"])
            for row in of_change
            if row["decision"] == "approved"
            and row["withdrawn_at"] is None
            and row["digest"] == change["digest"]
            and (row["here"] or change["state"] != "pending")
        }
        change["approvals"] = of_change
        change["waits_for"] = [need for need in change["needs"] if (need["subject"], need["duty"]) not in met]
    return changes


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
