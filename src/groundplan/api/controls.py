"""Controls in the API's shapes: frameworks in force, evidence collected from facts, and the standing of each workload.

Evidence is collected in the background and on request; governance judges it, maturity gathers the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from psycopg import Connection

from groundplan.api import corrective_actions, served_blueprint
from groundplan.api.audit.log_check import LogCheck
from groundplan.api.context import Services
from groundplan.api.periodic import PeriodicTask
from groundplan.api.served_blueprint import current_blueprint, workspace_at
from groundplan.governance import store as changes
from groundplan.governance.controls import evidence_store, service
from groundplan.governance.controls.assess import (
    KINDS,
    DecisiveEvidence,
    assess,
    coverage,
    evidence_findings,
    select_decisive,
)
from groundplan.governance.controls.model import APPROVED, AppliedFramework, ControlStatus, Evidence
from groundplan.governance.controls.shipped import apply_framework
from groundplan.governance.register.entries import Entry, build_register
from groundplan.ledger import finding_store
from groundplan.maturity.control_facts import gather_control_facts
from groundplan.release.model import Current

LOOK_SECONDS = 20.0
COLLECT_INTERVAL = timedelta(minutes=10)
EVALUATED = "quality.evaluated"
_COLLECT_LOCK = 0x65766964  # "evid": one control process collects at a time

LastVerification = Callable[[], tuple[datetime, int] | None]


def frameworks(conn: Connection[Any], now: datetime) -> list[AppliedFramework]:
    """The frameworks that the served workspace declares, applied to the served workloads."""
    current = current_or_none(conn)
    if current is None:
        return []
    names = [item.name for item in current.blueprint.workloads]
    return [
        apply_framework(doc, current.workspace.email_of(doc.owner), names, now.date())
        for _, doc in sorted(current.workspace.frameworks.items())
    ]


def decisive_evidence(
    conn: Connection[Any], at: datetime, *, what: str | None = None, workloads: Collection[str] | None = None
) -> DecisiveEvidence:
    """The newest evidence as of `at`, by what the company requires today; only of the check `what`, or only what
    concerns these workloads and the company, if given."""
    blueprint = served_blueprint.current_or_none(conn)
    demanded = blueprint is not None and APPROVED in blueprint.approved_parts
    subjects = None if workloads is None else ["company", *(f"workload/{name}" for name in workloads)]
    return select_decisive(evidence_store.newest_evidence(conn, at, demanded=demanded, what=what, subjects=subjects))


def register_entries(conn: Connection[Any], current: Current, now: datetime) -> list[Entry]:
    """The register of AI systems, with the evidence of their quality and the ends of their approvals."""
    evaluated: dict[str, tuple[str, ...]] = {}
    for row in decisive_evidence(conn, now, what=EVALUATED).values():
        kind, _, name = row.subject.partition("/")
        if kind == "workload" and row.holds and row.counts:
            evaluated[name] = (f"{row.says} (until {row.valid_until.date()})",)
    approved = [row for row in changes.changes(conn, ["applied"]) if row.type in ("model", "prompt", "data")]
    ends = {row.subject: row.expires_on for row in approved if row.expires_on is not None}
    return build_register(current.workspace, current.blueprint, evaluated=evaluated, ends=ends)


def current_or_none(conn: Connection[Any]) -> Current | None:
    """The blueprint in force with its workspace; None before genesis."""
    blueprint = served_blueprint.current_or_none(conn)
    return None if blueprint is None else Current(blueprint, workspace_at(conn, blueprint.number))


def current(conn: Connection[Any]) -> Current:
    """The blueprint in force with its workspace. Raises `NotFound` before genesis."""
    blueprint = current_blueprint(conn)
    return Current(blueprint, workspace_at(conn, blueprint.number))


def last_verification(log_check: LogCheck) -> tuple[datetime, int] | None:
    """(time, size) of the last successful verification of the audit log; None if it does not verify."""
    result = log_check.latest()
    if not result["ok"] or result["checked_at"] is None:
        return None
    return result["checked_at"], result["entries"]


def collect(services: Services, verified: LastVerification) -> service.CollectionResult:
    """Collect evidence from the facts of every served workload, and update the findings about evidence that ends."""
    now = services.clock.now()
    with services.transaction() as conn:
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_COLLECT_LOCK,))
        current = current_or_none(conn)
        if current is None:
            return service.CollectionResult(0, 0)
        result = service.collect_evidence(conn, gather_control_facts(conn, current, now, verified()), now)
        evidence = decisive_evidence(conn, now)
        open_findings = [
            finding
            for framework in frameworks(conn, now)
            for finding in evidence_findings(framework, assess(framework, evidence, now), now)
        ]
        unique = {finding.identity: finding for finding in open_findings}
        finding_store.replace_findings(conn, unique.values(), kinds=KINDS)
        corrective_actions.raise_overdue(conn, now)
    return result


class EvidenceCollector:
    """Collects evidence every ten minutes, the first time soon after the start."""

    def __init__(self, services: Services, log_check: LogCheck) -> None:
        self._services = services
        self._verified = partial(last_verification, log_check)
        self._last: datetime | None = None

    def collect_if_due(self) -> None:
        now = self._services.clock.now()
        if self._last is None or now - self._last >= COLLECT_INTERVAL:
            collect(self._services, self._verified)
            self._last = now


def start(services: Services, log_check: LogCheck, stack: ExitStack) -> None:
    """Collect evidence in the background until `stack` is closed."""
    collecting = PeriodicTask(
        "collecting evidence", LOOK_SECONDS, EvidenceCollector(services, log_check).collect_if_due
    )
    collecting.start()
    stack.callback(collecting.stop)


def framework_json(applied: AppliedFramework, evidence: DecisiveEvidence, now: datetime) -> dict[str, Any]:
    """`{"name", "title", "source", "as_of", "note", "owner", "workloads", "controls", "coverage"}` of one framework."""
    standings = assess(applied, evidence, now)
    rows = [
        {
            "id": control.id,
            "title": control.title,
            "needs": list(control.needs),
            "workloads": {name: control_status_json(standings[name][i]) for name in applied.workloads},
        }
        for i, control in enumerate(applied.controls)
    ]
    framework = applied.framework
    return {
        "name": framework.name, "title": framework.title, "source": framework.source, "as_of": framework.as_of,
        "note": framework.note, "owner": applied.owner, "workloads": list(applied.workloads), "controls": rows,
        "coverage": {name: coverage(status) for name, status in standings.items()},
    }  # fmt: skip


def control_status_json(standing: ControlStatus) -> dict[str, Any]:
    """`{"state", "until", "reason", "shown": [{"need", "state", "says", "hint", "evidence", ...}]}`"""
    return {
        "state": standing.state,
        "until": standing.until,
        "reason": standing.reason,
        "shown": [
            {
                "need": requirement.need,
                "state": requirement.state,
                "hint": requirement.hint,
                **_evidence(requirement.evidence),
            }
            for requirement in standing.shown
        ],
    }


def _evidence(evidence: Evidence | None) -> dict[str, Any]:
    if evidence is None:
        return {"evidence": None, "says": "nothing was shown yet", "at": None, "valid_until": None, "link": None}
    return {
        "evidence": evidence.id, "says": evidence.says, "at": evidence.at, "valid_until": evidence.valid_until,
        "link": evidence.link,
    }  # fmt: skip
