"""Deletions and decisions that people made while a run was going on, which may take hours.

A run knows documents as they were when it began. Documents deleted since then are not written; decisions made since
then apply, and so do those that a document takes along from its former place. They are read under the lock of changes,
which deletions and decisions take too, so that none can come between reading them and writing the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from groundplan.blueprint.model import Source
from groundplan.core.audit import SYSTEM, record
from groundplan.core.errors import Unavailable
from groundplan.knowledge.deletion import deletion_store
from groundplan.knowledge.governance import declared_store
from groundplan.knowledge.intake import intake_store as store
from groundplan.knowledge.intake.batch import Batch, InheritedDecisions
from groundplan.knowledge.intake.moved_documents import replacement_decision

_INHERITED_REASON: Final = "what replaced it is gone, and was replaced itself"


class Redeclared(Unavailable):
    """The served blueprint declares the source differently from this run, which writes nothing any more."""


def check_declared(conn: Connection[Any], source: Source) -> None:
    """Raise `Redeclared` if the served blueprint declares the source differently."""
    if declared_store.is_declared_differently(conn, source):
        raise Redeclared(
            f"source {source.name} is declared otherwise now", code="source_declared",
            hint="Nothing needs to be done: it is read anew as it is declared.", retry_after=1.0,
        )  # fmt: skip


def reconcile_batch(conn: Connection[Any], source: str, batch: Batch) -> set[str]:
    """Update a batch just before it is written, in the caller's transaction. Returns the paths deleted meanwhile, which
    are taken out of it."""
    paths = {UUID(row["id"]): str(row["path"]) for row in (*batch.rows, *batch.governance_rows)}
    if not paths:
        return set()
    places = deletion_store.closed_places(conn, source, list(paths.values()))
    closed = {path for path in paths.values() if path in places}
    if closed:
        batch.discard({id for id, path in paths.items() if path in closed})
    current = store.decisions(conn, list(paths))
    for rows in (batch.rows, batch.governance_rows):
        for at, row in enumerate(rows):
            id = UUID(row["id"])
            decided, held_by = current.get(id, ({}, None))
            if id in batch.inherited:
                decided = {**decided, **batch.inherited[id].decisions}
            if decided != batch.decisions[id]:
                settled = batch.resolvers[id](decided, held_by)
                rows[at] = {**row, **settled.row}
                batch.readers[id] = settled.readers
    return closed


def inherit_replacements(conn: Connection[Any], removed: Sequence[UUID]) -> dict[UUID, InheritedDecisions]:
    """Decisions to store before documents are removed: what they replaced is now replaced by their own replacement.
    Otherwise the oldest of three versions would be found again once the middle one is removed. Can be taken back."""
    return {
        id: InheritedDecisions(of, {"superseded_by": replacement_decision(by, _INHERITED_REASON)})
        for id, (of, by) in (store.replacements_of_replaced(conn, removed) if removed else {}).items()
    }


def store_inherited(conn: Connection[Any], inherited: Mapping[UUID, InheritedDecisions]) -> None:
    """Store decisions that documents inherit from their former place or from what replaced them, each with an audit
    entry."""
    if not inherited:
        return
    store.add_decisions(conn, {id: each.decisions for id, each in inherited.items()})
    for id, each in inherited.items():
        for name, decision in each.decisions.items():
            record(
                conn, action="knowledge.carried", actor=SYSTEM, subject=f"document/{id}",
                detail={"what": name, "value": decision["value"], "from": f"document/{each.origin}"},
            )  # fmt: skip
