"""Why a call went where it did, from its receipt and the blueprint that it began with. Decides nothing."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api import explain, served
from groundplan.core.errors import NotFound


def sentences(conn: Connection[Any], receipt: dict[str, Any]) -> list[str]:
    """Of one call that went somewhere, or was answered from a cache; none of any other."""
    if not receipt["deployment"] and receipt["cache"] not in explain.KEPT:
        return []
    name = receipt["workload"]
    try:
        blueprint = served.at(conn, receipt["blueprint"])
    except NotFound:
        return explain.chosen(receipt, None)
    placement = next((each for each in blueprint.placements if each.workload == name), None)
    routes = any(each.name == name and each.routing is not None for each in blueprint.workloads)
    return explain.chosen(receipt, placement, routes=routes)
