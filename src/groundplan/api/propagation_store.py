"""The SQL of how long a disconnected gateway may go on serving. It changes nothing."""

from __future__ import annotations

from typing import Any, Final, LiteralString

from psycopg import Connection

from groundplan.blueprint.model import Blueprint
from groundplan.core.database import select
from groundplan.release import store as release_store

_SERVED_BLUEPRINTS: LiteralString = """
    SELECT number, digest FROM blueprint WHERE number >= (
      SELECT coalesce(min(CASE WHEN g.blueprint > 0 THEN g.blueprint ELSE coalesce((
        SELECT b.number FROM blueprint b WHERE b.created_at < g.started_at - interval '1 hour'
        ORDER BY b.number DESC LIMIT 1), 0) END), 0) FROM gateway g WHERE g.state = 'live') ORDER BY number DESC"""
"""The blueprints that live gateways may serve. A gateway that has not reported one yet loads none that was replaced
more than an hour before it started; otherwise all blueprints would be read for every starting worker."""
_MAX_CACHED: Final = 64
_graces: dict[str, dict[str, int]] = {}
"""Digest of a blueprint -> workload -> grace in milliseconds."""


def longest_grace_s(conn: Connection[Any], workload: str | None = None) -> float:
    """The longest grace of any workload, or of this one, at a disconnected gateway, in seconds: by any blueprint that a
    live gateway may serve, which is the one it reported or a later one.

    Called repeatedly while a change propagates, so each blueprint is read once."""
    grace_by_digest = {
        digest: _graces[digest]
        if digest in _graces
        else _grace_by_workload(release_store.load_blueprint(conn, row["number"]))
        for row in select(conn, _SERVED_BLUEPRINTS)
        for digest in [row["digest"]]
    }
    if len(_graces) > _MAX_CACHED:
        _graces.clear()
    _graces.update(grace_by_digest)
    graces = grace_by_digest.values()
    longest = [max(grace.values(), default=0) if workload is None else grace.get(workload, 0) for grace in graces]
    return max(longest, default=0) / 1000


def _grace_by_workload(blueprint: Blueprint | None) -> dict[str, int]:
    served = blueprint.workloads if blueprint is not None else []
    return {workload.name: 0 if workload.sensitivity == "restricted" else workload.grace_ms for workload in served}
