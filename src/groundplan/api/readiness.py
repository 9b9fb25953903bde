"""Readiness of each workload as JSON; cached for a few seconds, since live pages request it often."""

from __future__ import annotations

import threading
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.served_blueprint import blueprint_at, current_or_none, workspace_at
from groundplan.maturity.service import readiness
from groundplan.release.model import Current

CACHE_PERIOD = timedelta(seconds=5)
_MAX_CACHED = 8
_CacheKey = tuple[int, frozenset[str] | None]
_lock = threading.Lock()
_cache: dict[_CacheKey, tuple[datetime, list[dict[str, Any]]]] = {}


def readiness_json(
    conn: Connection[Any], now: datetime, workloads: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """`[{"workload", "stage", "areas": [{"area", "score", "earned", "of", "points"}], "next_step"}]`, by name; only of
    `workloads`, if given."""
    blueprint = current_or_none(conn)
    if blueprint is None:
        return []
    key = (blueprint.number, None if workloads is None else frozenset(workloads))
    with _lock:  # concurrent callers wait: computing it in parallel would take each of them longer
        cached = _cache.get(key)
        if cached is None or not timedelta(0) <= now - cached[0] < CACHE_PERIOD:
            current = Current(blueprint_at(conn, blueprint.number), workspace_at(conn, blueprint.number))
            cached = (now, [item.to_json() for item in readiness(conn, current, now, key[1])])
            _cache.pop(key, None)
            _cache[key] = cached
            while len(_cache) > _MAX_CACHED:
                del _cache[next(iter(_cache))]
    return cached[1]


def earned_shares(entry: dict[str, Any]) -> dict[str, float | None]:
    """Area -> earned share of its points; None where nothing is earned yet."""
    return {area["area"]: area["earned"] / area["of"] if area["earned"] else None for area in entry["areas"]}
