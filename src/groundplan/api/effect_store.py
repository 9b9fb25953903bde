"""The SQL behind until when a gateway that is cut off may serve. It changes nothing."""

from __future__ import annotations

from typing import Any, Final, LiteralString

from psycopg import Connection

from groundplan.blueprint.model import Blueprint
from groundplan.core.database import select
from groundplan.release import store as release_store

_SERVED: LiteralString = """
    SELECT number, digest FROM blueprint
    WHERE number >= (SELECT coalesce(min(blueprint), 0) FROM gateway WHERE state = 'live') ORDER BY number DESC"""
_MOST: Final = 64
_graces: dict[str, dict[str, int]] = {}
"""Milliseconds of each workload, by the digest of the blueprint, of the newest few."""


def longest_grace_s(conn: Connection[Any], workload: str | None = None) -> float:
    """The longest that any workload, or this one, may go on at a gateway that is cut off: by whichever blueprint a live
    gateway may have, which is the one that it told of or a later one.

    It is asked for again and again while a change spreads: a blueprint of thousands of workloads is read once."""
    known = {
        row["digest"]: _graces.get(row["digest"]) or _made(release_store.decoded(conn, row["number"]))
        for row in select(conn, _SERVED)
    }
    if len(_graces) > _MOST:
        _graces.clear()
    _graces.update(known)
    found = known.values()
    longest = [max(each.values(), default=0) if workload is None else each.get(workload, 0) for each in found]
    return max(longest, default=0) / 1000


def _made(blueprint: Blueprint | None) -> dict[str, int]:
    served = blueprint.workloads if blueprint is not None else []
    return {each.name: 0 if each.sensitivity == "restricted" else each.grace_ms for each in served}
