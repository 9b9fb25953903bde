"""The SQL behind until when a gateway that is cut off may serve. It changes nothing."""

from __future__ import annotations

from typing import Any, Final, LiteralString

from psycopg import Connection

from groundplan.blueprint.model import Blueprint
from groundplan.core.database import select
from groundplan.release import store as release_store

_SERVED: LiteralString = """
    SELECT number, digest FROM blueprint WHERE number >= (
      SELECT coalesce(min(CASE WHEN g.blueprint > 0 THEN g.blueprint ELSE coalesce((
        SELECT b.number FROM blueprint b WHERE b.created_at < g.started_at - interval '1 hour'
        ORDER BY b.number DESC LIMIT 1), 0) END), 0) FROM gateway g WHERE g.state = 'live') ORDER BY number DESC"""
"""One that told of none yet takes up none that another had followed before it began, by more than any commit takes:
each that there ever was would be read for every worker that starts."""
_MOST: Final = 64
_graces: dict[str, dict[str, int]] = {}
"""Milliseconds of each workload, by the digest of the blueprint, of the newest few."""


def longest_grace_s(conn: Connection[Any], workload: str | None = None) -> float:
    """The longest that any workload, or this one, may go on at a gateway that is cut off: by whichever blueprint a live
    gateway may have, which is the one that it told of or a later one.

    It is asked for again and again while a change spreads: a blueprint of thousands of workloads is read once."""
    known = {
        digest: _graces[digest] if digest in _graces else _made(release_store.load_blueprint(conn, row["number"]))
        for row in select(conn, _SERVED)
        for digest in [row["digest"]]
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
