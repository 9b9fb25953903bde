"""A list that is filtered by a name and empty is refused where nothing has that name, with the names that there are: an
empty answer would say that there is nothing of it.

What is served no more, and was called once, keeps its lists.
"""

from __future__ import annotations

from collections.abc import Sized

from psycopg import Connection

from groundplan.api import store
from groundplan.api.served_blueprint import current_or_none, require_deployment, undeclared_workload, workspace_at
from groundplan.core.errors import NotFound
from groundplan.identity import service as identity
from groundplan.ledger import queries
from groundplan.ledger.store import CallFilter


def refuse_unknown(
    conn: Connection[object], found: Sized, *, workload: str | None = None, deployment: str | None = None
) -> None:
    """Raise `NotFound` where `found`, narrowed to these names, is empty, and one of them is not declared here and was
    never called."""
    if found or (workload is None and deployment is None):
        return
    blueprint = current_or_none(conn)
    if workload is not None and not _called(conn, CallFilter(workload=workload)):
        declared = workspace_at(conn, blueprint.number).workloads if blueprint is not None else ()
        if workload not in declared:
            raise undeclared_workload(workload, declared)
    if deployment is not None and blueprint is not None and not _called(conn, CallFilter(deployment=deployment)):
        require_deployment(blueprint, deployment)


def refuse_unknown_source(conn: Connection[object], found: Sized, source: str | None) -> None:
    """The same of a source."""
    if found or source is None:
        return
    known = [row["name"] for row in store.sources(conn)]
    if source not in known:
        hint = f"There are: {', '.join(known[:30]) or 'none'}."
        raise NotFound(f"there is no source '{source[:80]}'", code="source_unknown", hint=hint)


def refuse_unknown_person(conn: Connection[object], found: Sized, email: str | None) -> None:
    """The same of a person. Raises `NotFound` (`unknown_person`)."""
    if not found and email is not None:
        identity.find_person(conn, email)


def _called(conn: Connection[object], wanted: CallFilter) -> bool:
    return bool(queries.list_calls(conn, wanted, limit=1)["calls"])
