"""Workloads as declared and as served, the overview, and the readiness of each."""

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
    """Sites and workloads with live figures; empty before the first blueprint. With `most` about so many workloads at
    most, `workload` among them and as many of each site; `more` says how many others each site has, and those that are
    not served under an empty name."""
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            nothing: dict[str, Any] = {"blueprint": None, "company": None, "title": None, "sites": [], "workloads": []}
            return {**nothing, "more": {}, "calls_per_minute": 0.0}
        view = overview.load_view(conn, blueprint.number, now)
        names = None if most is None else overview.select_workloads(view, most, workload)
        there = Counter(view.site_of(name) or "" for name in view.workspace.workloads)
        there.subtract(view.site_of(name) or "" for name in names or view.workspace.workloads)
        return {
            "blueprint": blueprint.number,
            "company": blueprint.company,
            "title": view.workspace.company.title or blueprint.company,
            "sites": overview.sites_json(view),
            "workloads": overview.workloads_json(conn, view, names),
            "more": {name: count for name, count in there.items() if count},
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
    """Declared workloads with today's figures, by name; `search`: words in name, title, purpose, team or owner. With
    `limit` so many; `next`: what `after` is for those that follow. `total`: how many there are in all."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return {"workloads": [], "total": 0, "next": None}
        view = overview.load_view(conn, blueprint.number, services.clock.now())
        names = overview.search_workloads(view, search, site)
        rest = [name for name in names if name > after]
        shown = rest[:limit]
        whole = len(shown) == len(view.workspace.workloads)
        told = overview.workloads_json(conn, view, None if whole else shown)
        return {"workloads": told, "total": len(names), "next": shown[-1] if len(shown) < len(rest) else None}


@router.get("/names")
def names(services: ServicesDep, _: SignedIn, called: bool = False) -> dict[str, Any]:
    """What is declared or served, by name and nothing more, for filters and forms: all workloads, those that
    are `served`, those that are `grounded` in sources, and deployments. `called`: also the workload
    that is called most today."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return {"workloads": [], "served": [], "grounded": [], "deployments": [], "most_called": None}
        declared = workspace_at(conn, blueprint.number).workloads
        first = overview.most_called_workload(conn, declared, services.clock.now()) if called else None
    return {
        "workloads": sorted(declared),
        "served": sorted(each.name for each in blueprint.workloads),
        "grounded": sorted(name for name, doc in declared.items() if doc.sources),
        "deployments": [each.name for each in blueprint.deployments],
        "most_called": first,
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
    """Five areas for each workload; a point only with its evidence, else the next step."""
    with services.transaction() as conn:
        found = readiness_json(conn, services.clock.now(), None if workload is None else (workload,))
        if workload is not None and not found:
            blueprint = current_or_none(conn)
            raise undeclared_workload(workload, workspace_at(conn, blueprint.number).workloads if blueprint else ())
    return {"workloads": found}
