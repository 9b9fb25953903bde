"""Why a call went where it did, from its receipt and the blueprint that it began with. Decides nothing."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api import explain, served
from groundplan.core.errors import NotFound


def sentences(conn: Connection[Any], receipt: dict[str, Any]) -> list[str]:
    """Of one call that went somewhere, or was answered from a cache; none of any other."""
    if not receipt["deployment"] and receipt["cache"] not in ("exact", "semantic"):
        return []
    try:
        placements = served.at(conn, receipt["blueprint"]).placements
    except NotFound:
        placements = []
    placed = {each.workload: each for each in placements}
    return explain.chosen(receipt, placed.get(receipt["workload"]))
