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
    shown = _evidence(evidence, now)
    known = DocumentInput(
        workspace=current.workspace,
        blueprint=current.blueprint,
        workload=workload,
        usage=_usage(conn, workload, now),
        evidence=shown,
        changes=_changes(conn, workload),
        frameworks=_frameworks(conn, evidence, workload, now),
        findings=len([each for each in finding_store.list_findings(conn) if each["subject"] == f"workload/{workload}"]),
    )
    company = current.workspace.company.title or current.blueprint.company
    return fill(
        chosen, facts(known), shown, workload=workload, company=company,
        blueprint=current.blueprint.number, on=now.date(),
    )  # fmt: skip


def _evidence(known: DecisiveEvidence, now: datetime) -> list[DocumentEvidence]:
    """The valid evidence."""
    return [
        DocumentEvidence(each.what, each.says, str(each.id), each.valid_until, each.link)
        for each in known.values()
        if each.counts and each.holds and each.valid_until > now
    ]


def _usage(conn: Connection[Any], workload: str, now: datetime) -> dict[str, int]:
    wanted = {
        "since": now - PERIOD,
        "until": now,
        "workload": workload,
        "status": None,
        "deployment": None,
        "demo": None,
    }
    rows = rollup_store.calls_by(conn, [], wanted)
    if not rows or not rows[0]["calls"]:
        return {}
    calls, told = int(rows[0]["calls"]), cost_store.outcomes(conn, now - PERIOD, now)
    reported = next((int(row["reported"]) for row in told if row["workload"] == workload), 0)
    return {"calls": calls, "failed": calls - int(rows[0]["ok"] or 0), "outcomes": reported}


def _changes(conn: Connection[Any], workload: str) -> list[Change]:
    """Blueprints that changed the workload, the newest first."""
    found: list[Change] = []
    later: tuple[Change, Workload | None] | None = None
    for number, then, at, reason in release_store.workload_history(conn, workload):
        if later is not None and later[1] != then:
            found.append(later[0])
        if len(found) == MAX_CHANGES:
            return found
        later = Change(number, at, reason), then
    if later is not None and later[1] is not None:
        found.append(later[0])
    return found


def _frameworks(
    conn: Connection[Any], known: DecisiveEvidence, workload: str, now: datetime
) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for one in controls.frameworks(conn, now):
        if workload in one.workloads:
            told = coverage(assess(replace(one, workloads=(workload,)), known, now)[workload])
            found[one.framework.name] = (int(told.get("satisfied", 0)), len(one.controls))
    return found
