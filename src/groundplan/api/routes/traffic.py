"""Live traffic of the last minutes, and the state of each deployment as the gateways see it."""

from __future__ import annotations

from typing import Annotated, Any

import psycopg
from fastapi import Query

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.api.routes.live import Status
from groundplan.api.served_blueprint import current_or_none, require_served
from groundplan.blueprint.model import Blueprint
from groundplan.core.errors import Unavailable
from groundplan.ledger import traffic

router = protected_router("ledger")
Minutes = Annotated[int, Query(ge=1, le=60)]


@router.get("/traffic")
def live_traffic(
    services: ServicesDep,
    _: Reader,
    minutes: Minutes = 15,
    workload: str | None = None,
    deployment: str | None = None,
    status: Status | None = None,
) -> dict[str, Any]:
    """Calls in steps of ten seconds with their totals, and `deployments` with the state of their circuit breakers: of a
    `workload` those that it may use.
    Raises `NotFound` for a workload or deployment that is not served and had no call, `Unavailable`
    (`traffic_too_much`) if there are too many calls to evaluate."""
    now = services.clock.now()
    try:
        with services.transaction() as conn:
            value = traffic.traffic(conn, now, minutes, workload=workload, deployment=deployment, status=status)
            blueprint = current_or_none(conn)
            if blueprint is not None and not any(step["calls"] for step in value["steps"]):
                require_served(blueprint, workload, deployment)
            names = deployment_sites(blueprint, workload, deployment) if blueprint else []
            return {**value, "deployments": traffic.deployment_health(conn, now, minutes, names)}
    except psycopg.errors.QueryCanceled as error:
        raise Unavailable(
            "there are too many calls to evaluate that many minutes now",
            code="traffic_too_much",
            hint="Ask for fewer minutes, or read /metrics, whose cost does not grow with traffic.",
            retry_after=2.0,
        ) from error


def deployment_sites(blueprint: Blueprint, workload: str | None, deployment: str | None) -> list[tuple[str, str]]:
    """(deployment, site) of those that the workload may use, or of all; only `deployment`, where it is given."""
    used = {name for item in blueprint.workloads if item.name == workload for name in item.all_deployments}
    return [
        (item.name, item.site)
        for item in blueprint.deployments
        if (workload is None or item.name in used) and deployment in (None, item.name)
    ]
