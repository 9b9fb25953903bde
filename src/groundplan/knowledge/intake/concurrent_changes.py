"""What people did while a run went on: it knows documents as they were when it began, and that may be hours ago.

What was deleted since then is not written, what was decided since then holds, and so does what comes with a document
from where it stood before. It is looked up behind the lock of changes, which whoever deletes or decides takes as well:
so nothing comes between the look and what is written.
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
from groundplan.knowledge.intake.batch import Batch, Carried
from groundplan.knowledge.intake.moved_documents import replaced

_HEIR: Final = "what replaced it is gone, and was replaced itself"


class Redeclared(Unavailable):
    """What is served declares the source otherwise than the run that goes on: it writes nothing any more."""


def check_declared(conn: Connection[Any], source: Source) -> None:
    """Raises `Redeclared`."""
    if declared_store.declared_otherwise(conn, source):
        raise Redeclared(
            f"source {source.name} is declared otherwise now", code="source_declared",
            hint="Nothing needs to be done: it is read anew as it is declared.", retry_after=1.0,
        )  # fmt: skip


def caught_up(conn: Connection[Any], source: str, batch: Batch) -> set[str]:
    """Put a batch right, just before it is written in the caller's transaction; the paths that were deleted, which are
    no longer in it."""
    paths = {UUID(row["id"]): str(row["path"]) for row in (*batch.rows, *batch.held)}
    if not paths:
        return set()
    places = deletion_store.closed(conn, source, list(paths.values()))
    closed = {path for path in paths.values() if path in places}
    if closed:
        batch.without({id for id, path in paths.items() if path in closed})
    now = store.decided(conn, list(paths))
    for rows in (batch.rows, batch.held):
        for at, row in enumerate(rows):
            id = UUID(row["id"])
            decided, held_by = now.get(id, ({}, None))
            if id in batch.carried:
                decided = {**decided, **batch.carried[id].decided}
            if decided != batch.decided[id]:
                settled = batch.settle[id](decided, held_by)
                rows[at] = {**row, **settled.row}
                batch.readers[id] = settled.readers
    return closed


def inherited(conn: Connection[Any], gone: Sequence[UUID]) -> dict[UUID, Carried]:
    """Before documents go: what they replaced is replaced by what replaces them, as a decision that can be taken back;
    else the oldest of three versions would be found again where the one in the middle goes."""
    return {
        id: Carried(of, {"superseded_by": replaced(by, _HEIR)})
        for id, (of, by) in (store.heirs(conn, gone) if gone else {}).items()
    }


def put_carried(conn: Connection[Any], carried: Mapping[UUID, Carried]) -> None:
    """Decisions that come with documents from where they stood before, or from what they were replaced by; the audit
    log says so of each."""
    if not carried:
        return
    store.put_decided(conn, {id: each.decided for id, each in carried.items()})
    for id, each in carried.items():
        for name, decision in each.decided.items():
            record(
                conn, action="knowledge.carried", actor=SYSTEM, subject=f"document/{id}",
                detail={"what": name, "value": decision["value"], "from": f"document/{each.of}"},
            )  # fmt: skip
