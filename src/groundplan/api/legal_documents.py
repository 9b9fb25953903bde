"""Legal documents about a workload, filled with facts from declarations, blueprints, the ledger and evidence."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api import controls
from groundplan.api.context import Services
from groundplan.api.cost import store as cost_store
from groundplan.blueprint.model import Workload
from groundplan.core.errors import NotFound
from groundplan.governance.controls.assess import DecisiveEvidence, assess, coverage
from groundplan.governance.documents.facts import Change, DocumentEvidence, DocumentInput, facts
from groundplan.governance.documents.fill import Document, fill
from groundplan.governance.documents.template import load_template
from groundplan.ledger import finding_store, rollup_store
from groundplan.release import store as release_store
from groundplan.release.model import Current

PERIOD = timedelta(days=30)
MAX_CHANGES = 20
"""The most changes that a document lists, the newest."""


def fill_document(services: Services, conn: Connection[Any], current: Current, name: str, workload: str) -> Document:
    """The document `name` about a workload, today. Raises `NotFound` (`document_unknown`, `workload_unknown`)."""
    chosen, now = load_template(name), services.clock.now()
    if workload not in current.workspace.workloads:
        raise NotFound(
            f"there is no workload {workload[:63]}", code="workload_unknown", hint="GET /api/workloads lists them."
        )
    evidence = controls.decisive_evidence(conn, now, workloads=[workload])
    valid_evidence = _evidence(evidence, now)
    document_input = DocumentInput(
        workspace=current.workspace,
        blueprint=current.blueprint,
        workload=workload,
        usage=_usage(conn, workload, now),
        evidence=valid_evidence,
        changes=_changes(conn, workload),
        frameworks=_frameworks(conn, evidence, workload, now),
        findings=len(
            [finding for finding in finding_store.list_findings(conn) if finding["subject"] == f"workload/{workload}"]
        ),
    )
    company = current.workspace.company.title or current.blueprint.company
    return fill(
        chosen, facts(document_input), valid_evidence, workload=workload, company=company,
        blueprint=current.blueprint.number, on=now.date(),
    )  # fmt: skip


def _evidence(evidence: DecisiveEvidence, now: datetime) -> list[DocumentEvidence]:
    """The valid evidence."""
    return [
        DocumentEvidence(item.what, item.says, str(item.id), item.valid_until, item.link)
        for item in evidence.values()
        if item.counts and item.holds and item.valid_until > now
    ]


def _usage(conn: Connection[Any], workload: str, now: datetime) -> dict[str, int]:
    query = {
        "since": now - PERIOD,
        "until": now,
        "workload": workload,
        "status": None,
        "deployment": None,
        "demo": None,
    }
    rows = rollup_store.calls_by(conn, [], query)
    if not rows or not rows[0]["calls"]:
        return {}
    calls, outcomes = int(rows[0]["calls"]), cost_store.outcomes(conn, now - PERIOD, now)
    reported = next((int(row["reported"]) for row in outcomes if row["workload"] == workload), 0)
    return {"calls": calls, "failed": calls - int(rows[0]["ok"] or 0), "outcomes": reported}


def _changes(conn: Connection[Any], workload: str) -> list[Change]:
    """Blueprints that changed the workload, the newest first."""
    changes: list[Change] = []
    later: tuple[Change, Workload | None] | None = None
    for number, then, at, reason in release_store.workload_history(conn, workload):
        if later is not None and later[1] != then:
            changes.append(later[0])
        if len(changes) == MAX_CHANGES:
            return changes
        later = Change(number, at, reason), then
    if later is not None and later[1] is not None:
        changes.append(later[0])
    return changes


def _frameworks(
    conn: Connection[Any], evidence: DecisiveEvidence, workload: str, now: datetime
) -> dict[str, tuple[int, int]]:
    coverage_by_name: dict[str, tuple[int, int]] = {}
    for applied in controls.frameworks(conn, now):
        if workload in applied.workloads:
            counts = coverage(assess(replace(applied, workloads=(workload,)), evidence, now)[workload])
            coverage_by_name[applied.framework.name] = (int(counts.get("satisfied", 0)), len(applied.controls))
    return coverage_by_name
