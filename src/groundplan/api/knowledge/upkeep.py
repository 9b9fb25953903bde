"""Background upkeep of documents. Safe with two control processes.

Deleted documents are removed from the disk; documents past their retention, or whose legal hold has ended, are deleted;
deletions that a restored backup undid are repeated.
"""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.errors import GroundplanError
from groundplan.identity import service as identity
from groundplan.knowledge.deletion.delete import DeletionReason, delete_expired, erase_from_disk, replay_tombstones
from groundplan.knowledge.deletion.legal_hold import release_ended_holds

log = logging.getLogger("groundplan.api.knowledge.upkeep")
SWEEP_SECONDS = 900.0
LOOK_SECONDS = 600.0
"""How often sources are scanned again, besides at each release of a blueprint."""


def clear_answers(conn: Connection[Any], source: str, actor: str) -> None:
    """Clear cached answers of all workloads that may have used the source."""
    blueprint = current_or_none(conn)
    for workload in blueprint.workloads if blueprint else ():
        if workload.grounding is not None and source in workload.grounding.sources and workload.cache is not None:
            identity.clear_answers(conn, actor, workload.name)


def replay_now(services: Services) -> int:
    """Repeat deletions of the list that the database no longer has; returns how many documents were deleted again.

    Without a database, or if the list cannot be read or written, the next sweep does it.
    """
    try:
        with services.own_connection() as conn:
            return replay_tombstones(conn, services.home.root, services.clock.now())
    except (GroundplanError, psycopg.Error, OSError) as error:
        log.warning("the list of deletions is not held against the database yet: %s", error)
        return 0


def sweep_now(services: Services) -> int:
    """Apply retention, ended holds and the list of deletions, and erase from the disk; returns how many documents were
    erased."""
    now = services.clock.now()
    with services.own_connection() as conn:
        release_ended_holds(
            conn, DeletionReason(SYSTEM, "the legal hold that kept it has ended", now, services.home.root)
        )
        delete_expired(conn, DeletionReason(SYSTEM, "its retention is over", now, services.home.root), clear_answers)
        replay_tombstones(conn, services.home.root, now)
        return erase_from_disk(conn, now)
