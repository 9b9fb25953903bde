"""How ready each workload is, in the API's shapes; remembered for a few seconds, since live pages ask for it often."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.served import at, current_or_none, workspace_at
from groundplan.maturity.service import readiness
from groundplan.release.model import Current

KEEP = timedelta(seconds=5)
_lock = threading.Lock()
_kept: dict[int, tuple[datetime, list[dict[str, Any]]]] = {}


def readiness_json(conn: Connection[Any], now: datetime) -> list[dict[str, Any]]:
    """`[{"workload", "stage", "areas": [{"area", "score", "earned", "of", "points"}], "next_step"}]`, by name."""
    blueprint = current_or_none(conn)
    if blueprint is None:
        return []
    with _lock:
        kept = _kept.get(blueprint.number)
    if kept is not None and timedelta(0) <= now - kept[0] < KEEP:
        return kept[1]
    current = Current(at(conn, blueprint.number), workspace_at(conn, blueprint.number))
    found = [item.to_json() for item in readiness(conn, current, now)]
    with _lock:
        _kept.clear()
        _kept[blueprint.number] = (now, found)
    return found


def shares(entry: dict[str, Any]) -> dict[str, float | None]:
    """Area -> earned part of its points, None where nothing is measured yet."""
    return {area["area"]: area["earned"] / area["of"] if area["earned"] else None for area in entry["areas"]}
