"""Beside the requests: once a day, what is kept for each workload, so that storage is priced over the days on which it
was there. Documents that several workloads are given are divided among them; sampling begins with the first that is
kept. Prices nothing."""

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
from groundplan.ledger.kept_bytes_store import Kept

LOOK_SECONDS = 3600.0
NOBODY = [""]


def look(services: Services) -> bool:
    """Sample today, unless it is sampled already; whether it was now."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        return blueprint is not None and sample(conn, blueprint, services.clock.now())


def sample(conn: Connection[Any], blueprint: Blueprint, now: datetime) -> bool:
    """As `look`, in the caller's transaction."""
    if not kept_bytes_store.due(conn, now.date()):
        return False
    kept = [*documents(conn, blueprint), *content(conn)]
    return (bool(kept) or kept_bytes_store.begun(conn)) and kept_bytes_store.add(conn, now, kept)


def documents(conn: Connection[Any], blueprint: Blueprint) -> Iterator[Kept]:
    """Text that is kept to be searched, by whoever is given its source."""
    for source, count in sorted(cost_store.source_bytes(conn).items()):
        users = [w.name for w in blueprint.workloads if w.grounding and source in w.grounding.sources] or NOBODY
        for name, part in zip(users, shares(count, [1] * len(users)), strict=True):
            yield Kept("documents", name, part, source)


def content(conn: Connection[Any]) -> Iterator[Kept]:
    """Prompts and answers."""
    for row in rollup_store.content(conn):
        yield Kept("content", row["workload"], int(row["bytes"]))
