"""Workloads as declared and served, the overview, and readiness."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import Query

from groundplan.api import overview
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.readiness import readiness_json
from groundplan.api.served_blueprint import current_blueprint, current_or_none, undeclared_workload, workspace_at

router = protected_router("workloads")
MAX_LIMIT = 1000


@router.get("/overview")
def ground_plan(
    services: ServicesDep,
    _: SignedIn,
    most: Annotated[int | None, Query(ge=1, le=MAX_LIMIT)] = None,
    workload: Annotated[str | None, Query(max_length=63)] = None,
) -> dict[str, Any]:
    """Sites and workloads with live figures; empty before the first blueprint.

    With `most` only about so many workloads, divided evenly among the sites, `workload` among them. `more` counts the
    omitted ones by site; those that are not served are under an empty name.
    """
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            empty: dict[str, Any] = {"blueprint": None, "company": None, "title": None, "sites": [], "workloads": []}
            return {**empty, "more": {}, "calls_per_minute": 0.0}
        view = overview.load_view(conn, blueprint.number, now)
        names = None if most is None else overview.select_workloads(view, most, workload)
        omitted = Counter(view.site_of(name) or "" for name in view.workspace.workloads)
        omitted.subtract(view.site_of(name) or "" for name in names or view.workspace.workloads)
        return {
            "blueprint": blueprint.number,
            "company": blueprint.company,
            "title": view.workspace.company.title or blueprint.company,
            "sites": overview.sites_json(view),
            "workloads": overview.workloads_json(conn, view, names),
            "more": {name: count for name, count in omitted.items() if count},
            "calls_per_minute": sum(view.figures.per_minute.values()),
        }


@router.get("/workloads")
def list_workloads(
    services: ServicesDep,
    _: SignedIn,
    search: Annotated[str, Query(max_length=200)] = "",
    site: Annotated[str, Query(max_length=63)] = "",
    after: Annotated[str, Query(max_length=63)] = "",
    limit: Annotated[int | None, Query(ge=1, le=MAX_LIMIT)] = None,
) -> dict[str, Any]:
    """List declared workloads with today's figures, by name. `search`: words in name, title, purpose, team or owner.
    For the next page pass `next` as `after`; `total` counts all matching workloads."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return {"workloads": [], "total": 0, "next": None}
        view = overview.load_view(conn, blueprint.number, services.clock.now())
        names = overview.search_workloads(view, search, site)
        following = [name for name in names if name > after]
        page = following[:limit]
        all_shown = len(page) == len(view.workspace.workloads)
        workloads = overview.workloads_json(conn, view, None if all_shown else page)
        return {"workloads": workloads, "total": len(names), "next": page[-1] if len(page) < len(following) else None}


@router.get("/names")
def names(services: ServicesDep, _: SignedIn, called: bool = False) -> dict[str, Any]:
    """Names for filters and forms: all declared workloads, those that are `served`, those `grounded` in sources, and
    deployments. With `called` also `most_called`, the workload with the most calls today."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return {"workloads": [], "served": [], "grounded": [], "deployments": [], "most_called": None}
        declared = workspace_at(conn, blueprint.number).workloads
        most_called = overview.most_called_workload(conn, declared, services.clock.now()) if called else None
    return {
        "workloads": sorted(declared),
        "served": sorted(item.name for item in blueprint.workloads),
        "grounded": sorted(name for name, doc in declared.items() if doc.sources),
        "deployments": [item.name for item in blueprint.deployments],
        "most_called": most_called,
    }


@router.get("/workloads/{name}")
def one_workload(name: str, services: ServicesDep, _: SignedIn) -> dict[str, Any]:
    """One workload: declaration, owners, budgets with their use, placement, figures."""
    now = services.clock.now()
    with services.transaction() as conn:
        view = overview.load_view(conn, current_blueprint(conn).number, now, name)
        doc = view.workspace.workloads.get(name)
        if doc is None:
            raise undeclared_workload(name, view.workspace.workloads)
        return overview.detail_json(conn, view, doc, now)


@router.get("/readiness")
def ready(services: ServicesDep, _: SignedIn, workload: str | None = None) -> dict[str, Any]:
    """The readiness of each workload in five areas: points count only with evidence, and `next_step` says what to
    do."""
    with services.transaction() as conn:
        entries = readiness_json(conn, services.clock.now(), None if workload is None else (workload,))
        if workload is not None and not entries:
            blueprint = current_or_none(conn)
            raise undeclared_workload(workload, workspace_at(conn, blueprint.number).workloads if blueprint else ())
    return {"workloads": entries}
