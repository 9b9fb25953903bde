"""Deletes kept prompts and answers whose time is over, or that the served blueprint no longer allows to be kept."""

from __future__ import annotations

import logging
import threading
from typing import Any

import psycopg
from psycopg import Connection
from psycopg_pool import PoolTimeout

from groundplan.api.context import Services
from groundplan.api.served import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.store import record
from groundplan.core.errors import GroundplanError
from groundplan.ledger import content_store

SWEEP_SECONDS = 30.0
log = logging.getLogger(__name__)


def sweep(conn: Connection[Any], blueprint: Blueprint | None) -> dict[str, int]:
    """Delete what may not be kept any more; how many calls by workload, which the audit log is told, too.

    Without a blueprint only what is past its time goes.
    """
    deleted = content_store.expire(conn)
    if blueprint is not None:
        for workload, count in content_store.keep_only(conn, rules(blueprint)).items():
            deleted[workload] = deleted.get(workload, 0) + count
    for workload, count in sorted(deleted.items()):
        record(conn, action="content.delete", actor=SYSTEM, subject=f"workload/{workload}", detail={"calls": count})
    return deleted


def rules(blueprint: Blueprint) -> list[tuple[str, bool, int]]:
    """(workload, whether full content may be kept, seconds) of the workloads that keep any."""
    return [(w.name, w.keep.content == "full", w.keep.seconds) for w in blueprint.workloads if w.keep is not None]


class Retention:
    """Sweeps twice a minute."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(SWEEP_SECONDS):
            try:
                with self._services.transaction() as conn:
                    sweep(conn, current_or_none(conn))
            except (GroundplanError, psycopg.Error, PoolTimeout) as error:
                log.error("kept content cannot be swept: %s", error.__class__.__name__)
