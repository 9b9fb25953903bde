"""Background check: whether hosted models are still the approved ones; shown as findings and at their approvals."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.governance.register import version_store
from groundplan.governance.register.versions import KIND, ModelChange, model_change_finding, model_changes
from groundplan.ledger import finding_store
from groundplan.release import service as release

LOOK_SECONDS = 5.0


def update_findings(services: Services) -> None:
    """Bring the findings up to date."""
    with services.transaction() as conn:
        finding_store.replace_findings(
            conn, [model_change_finding(change) for change in changed_models(services, conn)], kinds=(KIND,)
        )


def changed_models(services: Services, conn: Connection[Any]) -> list[ModelChange]:
    """Served models that changed since they were approved."""
    served = release.current(conn)
    if served is None:
        return []
    versions = version_store.reported_versions(conn)
    if not versions:
        return []
    return model_changes(served.blueprint, versions, version_store.approved_models(conn), services.clock.now())


def changes_by_digest(services: Services, conn: Connection[Any]) -> dict[str, list[dict[str, Any]]]:
    """Digest of an approved model -> what its deployments report now instead."""
    by_digest: dict[str, list[dict[str, Any]]] = {}
    for change in changed_models(services, conn):
        entry = {"deployment": change.deployment.name, "before": change.before.label, "now": change.now.label,
                 "since": change.now.first_at}  # fmt: skip
        by_digest.setdefault(change.digest, []).append(entry)
    return by_digest
