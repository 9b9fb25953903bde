"""From declarations to the next blueprint: plan, apply, roll back; and approvals of pending changes."""

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
    """The YAML files of a workspace by path relative to it."""

    model_config = ConfigDict(extra="forbid")
    files: Annotated[dict[FileName, FileText], Field(min_length=1, max_length=MAX_FILES)]


class Apply(Declared):
    """`folder` (only from the local operator) is where the documents of the sources are; `base` the number of the
    blueprint that the files were taken from."""

    reason: Reason = "applied"
    folder: str | None = None
    base: Annotated[int, Field(ge=1)] | None = None


class Rollback(BaseModel):
    """`to` is a blueprint's number; the one before the current by default."""

    model_config = ConfigDict(extra="forbid")
    to: Annotated[int, Field(ge=1)] | None = None
    without_revoked: bool = False
    reason: Reason = "rolled back"


class Decision(BaseModel):
    """One need of a change; both left out: all needs whose duty you hold."""

    model_config = ConfigDict(extra="forbid")
    subject: str | None = None
    duty: str | None = None
    comment: Annotated[str, StringConstraints(max_length=2000)] = ""

    def answer(self) -> Answer:
        return Answer(self.subject, self.duty, self.comment)


@router.post("/plan")
def plan(body: Declared, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """What an apply of these files would do to blueprint `base`; changes nothing. Refusals are part of the answer, and
    `notes` say what somebody changed and these files take back."""
    with services.release_turn() as conn:
        value = services.releases.plan(conn, body.files)
        served, still = release.load_blueprint(conn), {(each["subject"], each["digest"]) for each in value["pending"]}
        base = 0 if served is None else served.number
        back = changes_since_base.reverted_changes(conn, caller, base, value["differences"])
        gone = [each for each in _pending_file_changes(conn) if (each.subject, each.digest) not in still]
        back += (
            changes_since_base.superseded_changes(conn, caller, gone, {subject for subject, _ in still})
            if not value["refusals"]
            else []
        )
    value["notes"] = [
        *value["notes"],
        *back,
        *router_evaluations.plan_notes(services, body.files, value["differences"]),
    ]
    return {"base": base, **value}


@router.post("/apply")
def apply(body: Apply, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Make the next blueprint. What needs an approval becomes a pending change. With `base` 409 (`base_moved`) where
    somebody declared something else after that blueprint; `notes` say what these files took back of what others did,
    and which deployments have no key here."""
    authorize(caller, "release", "company")
    changes_since_base.reject_if_match(request.headers.get("if-match"))
    if body.folder is not None and not caller.operator:
        raise Denied("only the local operator may name a folder", code="operator_only", hint="Leave `folder` out.")
    with services.release_turn() as conn:
        changes_since_base.check_base(conn, caller, body.base)
        value, back = _apply_files(conn, services, caller, body)
        served = release.load_blueprint(conn)
    value["notes"] = [
        *back,
        *health.missing_key_problems(served),
        *router_evaluations.inactive_router_notes(services, body.files),
    ]
    if body.folder is not None and (unnoted := services.remember_folder(Path(body.folder))):
        value["notes"].append(unnoted)
    request.app.state.indexer.request_all()
    return value


def _apply_files(
    conn: Connection[Any], services: Services, caller: Caller, body: Apply
) -> tuple[dict[str, Any], list[str]]:
    """Apply the files; returns (result, sentences on changes of others that they reverted)."""
    release.lock_releases(conn)
    before = release.load_blueprint(conn)
    waited = _pending_file_changes(conn)
    value = services.releases.apply(conn, caller.actor, body.files, body.reason)
    still = {each.id: each.subject for each in _pending_file_changes(conn)}
    gone = [each for each in waited if each.id not in still]
    changes_since_base.check_superseded(
        conn, caller, body.base, [each for each in gone if each.subject not in still.values()]
    )
    back = changes_since_base.superseded_changes(conn, caller, gone, still.values())
    after = release.load_blueprint(conn)
    if before is not None and after is not None and after.number != before.number:
        changed = [difference_json(each) for each in differences(before, after)]
        back = [*changes_since_base.reverted_changes(conn, caller, before.number, changed), *back]
    return value, back


def _pending_file_changes(conn: Connection[Any]) -> list[Change]:
    """Pending changes of applied files; each apply replaces them."""
    return [each for each in changes.pending_changes(conn) if each.type not in REQUEST_DUTIES and each.renews is None]


@router.post("/rollback")
def rollback(body: Rollback, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Make blueprint n+1 with the content of an earlier one, decided again by today's rules."""
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
    """Requested changes, newest first, with what they wait for and what was decided; continue with `before` =
    `next`."""
    with services.transaction() as conn:
        found = store.changes(conn, state, limit + 1, before)
        shown = _with_names(conn, caller, with_approvals(conn, found[:limit]))
    return {"changes": shown, "next": str(shown[-1]["id"]) if len(found) > limit else None}


@router.get("/changes/{change_id}")
def one_change(change_id: UUID, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """One change with its declared files, what of it is `missing` an approval of its own, of an approved model how it
    has `changed` since, and of a learned router that it brings in how it was evaluated (`routing`)."""
    with services.transaction() as conn:
        found = _with_names(conn, caller, with_approvals(conn, [store.change(conn, change_id)]))[0]
        changed = (
            model_changes.changes_by_digest(services, conn).get(found["digest"], [])
            if found["state"] == "applied"
            else []
        )
        routing = router_evaluations.change_evaluation(services, conn, found)
    missing = services.releases.unapproved_parts(services.transaction, change_id)
    return {**found, "missing": missing, "changed": changed, "routing": routing}


@router.post("/changes/{change_id}/approve")
def approve(
    change_id: UUID, body: Decision, request: Request, services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """Agree, by a duty that you hold. When the last need is met, the change becomes the next blueprint."""
    approver = approver_of(caller)
    with services.release_turn() as conn:
        value = services.releases.approve(conn, approver, change_id, body.answer())
    request.app.state.indexer.request_all()
    return value


@router.post("/changes/{change_id}/refuse")
def refuse(change_id: UUID, body: Decision, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Say no, by a duty that you hold, or as the operator; the change is refused."""
    approver = None if caller.operator else approver_of(caller)
    with services.release_turn() as conn:
        return services.releases.refuse(conn, approver, change_id, body.answer())


@router.post("/changes/{change_id}/withdraw")
def withdraw(change_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Take back a change that you asked for, or an approval that you gave. Where that ends something, `effective` says
    which gateways serve without it; those cut off are named with until when they may still serve it."""
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
    """Changes with `requested_by_name`, `with_holders`, and the name of the person that an exception is for."""
    excepted = [each for change in changes if change["type"] == "exception" for each in change["summary"]["fields"]]
    excepted = [each for each in excepted if each["field"] == "person"]
    asked_by = {str(change["requested_by"]) for change in changes}
    names = load_names(conn, caller, asked_by | {f"person:{each['new']}" for each in excepted if _is_id(each["new"])})
    for each in excepted:
        each["new"] = names.people.get(f"person:{each['new']}", each["new"])
    for change in changes:
        change["requested_by_name"] = names.of(change["requested_by"])
    return with_holders(conn, caller, changes)


def with_holders(conn: Connection[Any], caller: Caller, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Changes with, in each of `waits_for`, the names of the `people` who may decide, and `mine` where you may."""
    waiting = {(need["subject"], need["duty"]) for change in changes for need in change["waits_for"]}
    holding = governance.holders_of(conn, waiting)
    for change in changes:
        change["waits_for"] = [
            {
                **need,
                "people": [who.name for who in found],
                "mine": any(who.person_id == caller.person for who in found),
            }
            for need in change["waits_for"]
            for found in [holding[need["subject"], need["duty"]]]
        ]
    return changes


def with_approvals(conn: Connection[Any], changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Changes with `approvals` and `waits_for`: needs without a valid approval of the same digest; for pending changes,
    approvals of people who have left do not count."""
    found = store.approvals(conn, [change["id"] for change in changes])
    for change in changes:
        mine = [row for row in found if row["change_id"] == change["id"]]
        met = {
            (row["subject"], row["duty"])
            for row in mine
            if row["decision"] == "approved"
            and row["withdrawn_at"] is None
            and row["digest"] == change["digest"]
            and (row["here"] or change["state"] != "pending")
        }
        change["approvals"] = mine
        change["waits_for"] = [need for need in change["needs"] if (need["subject"], need["duty"]) not in met]
    return changes


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
