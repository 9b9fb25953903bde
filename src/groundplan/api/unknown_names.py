"""Errors for empty lists that were filtered by an unknown name: an empty response would suggest that the name exists
and has no entries. Names that are no longer served but once had calls count as known."""

from __future__ import annotations

from collections.abc import Sized

from psycopg import Connection

from groundplan.api import store
from groundplan.api.served_blueprint import current_or_none, require_deployment, undeclared_workload, workspace_at
from groundplan.core.errors import NotFound
from groundplan.identity import service as identity
from groundplan.ledger import queries
from groundplan.ledger.store import CallFilter


def require_known_names(
    conn: Connection[object], found: Sized, *, workload: str | None = None, deployment: str | None = None
) -> None:
    """Raise `NotFound` if the filtered list `found` is empty and one of the names is neither declared nor was ever
    called."""
    if found or (workload is None and deployment is None):
        return
    blueprint = current_or_none(conn)
    if workload is not None and not _has_calls(conn, CallFilter(workload=workload)):
        declared = workspace_at(conn, blueprint.number).workloads if blueprint is not None else ()
        if workload not in declared:
            raise undeclared_workload(workload, declared)
    if deployment is not None and blueprint is not None and not _has_calls(conn, CallFilter(deployment=deployment)):
        require_deployment(blueprint, deployment)


def require_known_source(conn: Connection[object], found: Sized, source: str | None) -> None:
    """As `require_known_names`, for a source."""
    if found or source is None:
        return
    names = [row["name"] for row in store.sources(conn)]
    if source not in names:
        hint = f"There are: {', '.join(names[:30]) or 'none'}."
        raise NotFound(f"there is no source '{source[:80]}'", code="source_unknown", hint=hint)


def require_known_person(conn: Connection[object], found: Sized, email: str | None) -> None:
    """As `require_known_names`, for a person. Raises `NotFound` (`unknown_person`)."""
    if not found and email is not None:
        identity.find_person(conn, email)


def _has_calls(conn: Connection[object], call_filter: CallFilter) -> bool:
    return bool(queries.list_calls(conn, call_filter, limit=1)["calls"])
