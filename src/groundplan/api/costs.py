"""Work beside the requests that keeps figures of cost: deltas of sums are folded into hours and days."""

from __future__ import annotations

from groundplan.api.context import Services
from groundplan.ledger import rollup_store

FOLD_SECONDS = 5.0


def fold(services: Services) -> int:
    """Fold what arrived since, in a transaction of its own; with several control processes one of them does it."""
    with services.transaction() as conn:
        return rollup_store.fold(conn)
