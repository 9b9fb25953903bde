"""Background job: once a day, sample the bytes kept for each workload, so that storage is priced by days. Documents
that several workloads use are divided among them; sampling begins with the first stored bytes. Prices nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.cost import store as cost_store
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.economics.terms.apportion import shares
from groundplan.ledger import kept_bytes_store, rollup_store
from groundplan.ledger.kept_bytes_store import StoredBytes

LOOK_SECONDS = 3600.0
NOBODY = [""]


def sample_storage(services: Services) -> bool:
    """Sample today, unless it was sampled already; returns whether it was sampled now."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        return blueprint is not None and sample_if_due(conn, blueprint, services.clock.now())


def sample_if_due(conn: Connection[Any], blueprint: Blueprint, now: datetime) -> bool:
    """As `sample_storage`, in the caller's transaction."""
    if not kept_bytes_store.is_due(conn, now.date()):
        return False
    stored = [*stored_documents(conn, blueprint), *stored_content(conn)]
    return (bool(stored) or kept_bytes_store.has_samples(conn)) and kept_bytes_store.add_sample(conn, now, stored)


def stored_documents(conn: Connection[Any], blueprint: Blueprint) -> Iterator[StoredBytes]:
    """Bytes of searchable text, divided among the workloads that use its source."""
    for source, count in sorted(cost_store.source_bytes(conn).items()):
        users = [w.name for w in blueprint.workloads if w.grounding and source in w.grounding.sources] or NOBODY
        for name, part in zip(users, shares(count, [1] * len(users)), strict=True):
            yield StoredBytes("documents", name, part, source)


def stored_content(conn: Connection[Any]) -> Iterator[StoredBytes]:
    """Bytes of kept prompts and answers."""
    for row in rollup_store.content_sizes(conn):
        yield StoredBytes("content", row["workload"], int(row["bytes"]))
