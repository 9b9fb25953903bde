"""Workloads as declared and as served, the overview's picture of them, and how ready each is."""

from __future__ import annotations

from typing import Any

from groundplan.api import overview
from groundplan.api.access.door import below_api
from groundplan.api.caller import SignedIn
from groundplan.api.context import Using
from groundplan.api.readiness import readiness_json
from groundplan.api.served import current_blueprint, current_or_none
from groundplan.core.errors import NotFound

router = below_api("workloads")


@router.get("/overview")
def ground_plan(services: Using, _: SignedIn) -> dict[str, Any]:
    """Sites and workloads with live figures; empty before the first blueprint."""
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return {"blueprint": None, "company": None, "title": None, "sites": [], "workloads": []}
        seen = overview.picture(conn, blueprint.number, now)
        return {
            "blueprint": blueprint.number,
            "company": blueprint.company,
            "title": seen.workspace.company.title or blueprint.company,
            "sites": overview.sites_json(seen),
            "workloads": overview.workloads_json(seen),
        }


@router.get("/workloads")
def list_workloads(services: Using, _: SignedIn) -> dict[str, Any]:
    """All declared workloads with today's figures."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return {"workloads": []}
        return {"workloads": overview.workloads_json(overview.picture(conn, blueprint.number, services.clock.now()))}


@router.get("/workloads/{name}")
def one_workload(name: str, services: Using, _: SignedIn) -> dict[str, Any]:
    """One workload: declaration, owners, budgets with their use, placement, figures."""
    now = services.clock.now()
    with services.transaction() as conn:
        seen = overview.picture(conn, current_blueprint(conn).number, now)
        doc = seen.workspace.workloads.get(name)
        if doc is None:
            known = ", ".join(sorted(seen.workspace.workloads)) or "none"
            raise NotFound(
                f"no workload '{name[:80]}' is declared", code="workload_unknown", hint=f"Declared: {known}."
            )
        return overview.detail_json(conn, seen, doc, now)


@router.get("/readiness")
def ready(services: Using, _: SignedIn, workload: str | None = None) -> dict[str, Any]:
    """Five areas for each workload; a point only with its evidence, else the next step."""
    with services.transaction() as conn:
        found = readiness_json(conn, services.clock.now())
    if workload is None:
        return {"workloads": found}
    known = {entry["workload"]: entry for entry in found}
    if workload not in known:
        hint = f"Declared: {', '.join(sorted(known)) or 'none'}."
        raise NotFound(f"no workload '{workload[:80]}' is declared", code="workload_unknown", hint=hint)
    return {"workloads": [known[workload]]}
