"""Background check: whether hosted models are still the approved ones; shown as findings and at their approvals."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.governance.register import version_store
from groundplan.governance.register.versions import KIND, Changed, changes, finding
from groundplan.ledger import finding_store
from groundplan.release import service as release

LOOK_SECONDS = 5.0


def update_findings(services: Services) -> None:
    """Bring the findings up to date."""
    with services.transaction() as conn:
        finding_store.tell_all(conn, [finding(each) for each in changed_models(services, conn)], kinds=(KIND,))


def changed_models(services: Services, conn: Connection[Any]) -> list[Changed]:
    """Served models that changed since they were approved."""
    served = release.current(conn)
    if served is None:
        return []
    versions = version_store.reported(conn)
    if not versions:
        return []
    return changes(served.blueprint, versions, version_store.approved_models(conn), services.clock.now())


def changes_by_digest(services: Services, conn: Connection[Any]) -> dict[str, list[dict[str, Any]]]:
    """Digest of an approved model -> what its deployments report now instead."""
    told: dict[str, list[dict[str, Any]]] = {}
    for each in changed_models(services, conn):
        entry = {"deployment": each.deployment.name, "before": each.before.named, "now": each.now.named,
                 "since": each.now.first_at}  # fmt: skip
        told.setdefault(each.digest, []).append(entry)
    return told
