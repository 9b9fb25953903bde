"""`why ID`: explains what something is and why it came out as it did, from recorded facts only."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api import explain, store
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.actor_names import entries_json
from groundplan.api.caller import Caller, Reader
from groundplan.api.calls import receipts
from groundplan.api.context import Services, ServicesDep
from groundplan.api.placement import placing, views
from groundplan.api.routes.kill import known_scopes
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.core.audit import store as audit_store
from groundplan.core.errors import NotFound, Problem
from groundplan.core.words import closest_name
from groundplan.governance import approved_parts
from groundplan.governance import service as governance
from groundplan.identity import store as identity_store
from groundplan.release.model import placement_json

router = protected_router("why")
ENTRY_FIELDS = ("id", "index", "at", "action", "actor", "acting", "who", "subject")
SCOPES = frozenset({"workload", "deployment", "site", "source"})


@router.get("/why/{subject:path}")
def why(subject: str, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """Explain an id, blueprint/N, workload/NAME or placement/NAME: `{"kind", "because", "facts", "audit": [entries]}`.
    Raises `NotFound` (`why_unknown`)."""
    kind, name = ("", subject) if "/" not in subject else subject.rsplit("/", 1)
    explanation = placing.run_view(services, views.why_json, name, plans=2) if kind == "placement" else None
    with services.transaction() as conn:
        if kind in SCOPES or subject == "company":
            explanation = _explain_scope(conn, services, subject)
        elif kind == "blueprint":
            explanation = _explain_blueprint(conn, name)
        elif explanation is None:
            explanation = _explain_id(conn, services, caller, name)
        if explanation is None:
            raise NotFound(
                f"nothing is recorded under '{subject[:80]}'", code="why_unknown",
                hint="Give the id of a call, change, key or audit entry, or blueprint/N, workload/NAME, placement/NAME."
                " Calls appear within a second.",
            )  # fmt: skip
        subjects = (subject, f"change/{name}", f"key/{name}", f"blueprint/{name}")
        entries = entries_json(conn, caller, audit_store.entries_about(conn, subjects, _uuid(name)))
        if kind in SCOPES and not entries and not explanation["facts"]["kills"]:
            _require_declared(conn, kind, subject)
    return {**explanation, "audit": [{field: entry[field] for field in ENTRY_FIELDS} for entry in entries]}


def _require_declared(conn: Connection[Any], kind: str, scope: str) -> None:
    """Raise `NotFound` (`why_unknown`) if nothing of this name is served or waits for approval."""
    known = known_scopes(conn, kind)
    if scope not in known:
        meant = closest_name(scope, known)
        hint = f"Did you mean {meant}?" if meant else "Only what was declared has a reason."
        raise NotFound(f"there is no {scope[:80]}", code="why_unknown", hint=hint)


def _explain_scope(conn: Connection[Any], services: Services, subject: str) -> dict[str, Any] | None:
    """Explain a workload, deployment, site or source: whether it is stopped, where and why it runs, which approvals are
    missing."""
    kills = [kill for kill in store.kills(conn) if kill["scope"] in (subject, "company")]
    blueprint = current_or_none(conn)
    placements = [p for p in blueprint.placements if f"workload/{p.workload}" == subject] if blueprint else []
    because = explain.explain_scope(
        subject, kills, placements, _approval_lapses(conn, services, blueprint, subject) if blueprint else ()
    )
    return {
        "kind": "scope",
        "because": because,
        "facts": {"kills": kills, "placement": [placement_json(p) for p in placements]},
    }


def _approval_lapses(conn: Connection[Any], services: Services, blueprint: Blueprint, subject: str) -> list[Problem]:
    """The problems for which gateways refuse a workload: models, prompts and sources without a valid approval."""
    approvals, today = governance.approval_status(conn).parts, services.clock.now().date()
    return [
        approved_parts.lapse_problem(lapse, item.name, item.owners)
        for item in blueprint.workloads
        if f"workload/{item.name}" == subject
        for lapse in approved_parts.find_lapses(blueprint, item, approvals, blueprint.approved_parts, today)
    ]


def _explain_blueprint(conn: Connection[Any], name: str) -> dict[str, Any] | None:
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        return None
    row = store.blueprint(conn, int(name))
    facts = {field: row[field] for field in ("number", "digest", "created_at", "created_by", "reason", "rollback_of")}
    return {"kind": "blueprint", "because": explain.explain_blueprint(row), "facts": facts}


def _explain_id(conn: Connection[Any], services: Services, caller: Caller, name: str) -> dict[str, Any] | None:
    """Explain the call, change, key or audit entry with this id; None if there is none."""
    id = _uuid(name)
    if id is None:
        return None
    call = _receipt(conn, services, caller, id)
    if call is not None:
        because = [*explain.explain_call(call), *call["chosen"]]
        if str(call.get("error_code")).startswith("approval_") and (blueprint := current_or_none(conn)) is not None:
            lapses = _approval_lapses(conn, services, blueprint, f"workload/{call['workload']}")
            because += explain.explain_missing_approvals(lapses)
        return {"kind": "call", "because": because, "facts": call}
    change = store.change_or_none(conn, id)
    if change is not None:
        facts = {**change, "sources": sorted(change["sources"]), "approvals": store.approvals(conn, [id])}
        return {"kind": "change", "because": explain.explain_change(facts), "facts": facts}
    key = store.key_or_none(conn, id)
    if key is not None:
        stopped = {f"key/{each}" for each in identity_store.stopped_keys_of_line(conn, id)}
        kills = [kill for kill in store.kills(conn) if kill["scope"] in stopped]
        return {"kind": "key", "because": explain.explain_key(key, kills), "facts": {**key, "kills": kills}}
    entry = audit_store.entry_by_id(conn, id)
    if entry is not None:
        (facts,) = entries_json(conn, caller, [entry])
        sentence = f"{facts['who']} did {facts['action']} to {facts['subject']} at {facts['at']}."
        return {"kind": "audit entry", "because": [sentence], "facts": facts}
    return None


def _uuid(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None


def _receipt(conn: Connection[Any], services: Services, caller: Caller, call_id: UUID) -> dict[str, Any] | None:
    """The receipt of a call; None if there is no such call. Raises `NotFound` (`call_archived`)."""
    try:
        return receipts.full_receipt(conn, services, caller, call_id)
    except NotFound as error:
        if error.code == "call_archived":
            raise
        return None
