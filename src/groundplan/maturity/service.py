"""Gathers the evidence of every declared workload and scores it. Reads only, and keeps nothing that could go stale."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.blueprint import model as bp
from groundplan.catalog.model import DUTIES, WorkloadDoc
from groundplan.core.money import to_decimal
from groundplan.governance import store as changes
from groundplan.governance.model import Change
from groundplan.identity import store as people
from groundplan.ledger import proof_store
from groundplan.ledger.proof_store import Kept
from groundplan.maturity import store
from groundplan.maturity.model import Evidence, Readiness, SourceEvidence
from groundplan.maturity.score import score
from groundplan.release import units
from groundplan.release.model import Current

WINDOW = timedelta(days=30)


def readiness(conn: Connection[Any], current: Current, now: datetime, workload: str | None = None) -> list[Readiness]:
    """Scores of all declared workloads (or the named one), by name."""
    settled = changes.changes(conn, ["applied"])
    sums = sums_of(conn, now)
    return [
        score(gather(conn, current, doc, settled, now, sums))
        for name, doc in current.workspace.workloads.items()
        if workload in (None, name)
    ]


def sums_of(conn: Connection[Any], now: datetime) -> dict[str, Kept]:
    """What the ledger keeps of each workload's last 30 days; the first of them counts whole."""
    return proof_store.kept(conn, proof_store.day_of(now - WINDOW))


def gather(
    conn: Connection[Any],
    current: Current,
    doc: WorkloadDoc,
    settled: list[Change],
    now: datetime,
    sums: Mapping[str, Kept],
) -> Evidence:
    """What is known of one workload today; facts older than 30 days do not count. `sums` are `sums_of` now."""
    blueprint = current.blueprint
    served = next((item for item in blueprint.workloads if item.name == doc.name), None)
    primary = served.deployments[0] if served and served.deployments else None
    since = proof_store.day_of(now - WINDOW)
    proofs = proof_store.proofs(conn, doc.name, primary, since, sums.get(doc.name))
    held = _duties_held(conn, doc.name)
    return Evidence(
        workload=doc.name,
        stage=doc.stage,
        served=served is not None,
        blueprint=blueprint.number,
        fallbacks=tuple(served.deployments[1:]) if served else (),
        sources=_sources(conn, doc),
        own_budget_usd=_own_budget(blueprint, doc.name),
        price_sources=tuple(
            item.rates.source for item in blueprint.deployments if served and item.name in served.deployments
        ),
        calls=proofs["calls"],
        ok=proofs["ok"],
        cost_usd=float(proofs["cost_usd"]),
        first_byte_p95_ms=proofs["first_byte_p95_ms"],
        first_token_objective_ms=doc.objectives.first_token,
        availability_objective=doc.objectives.availability,
        call=_text(proofs["call"]),
        grounded_call=_text(proofs["grounded_call"]),
        fallback_call=_text(proofs["fallback_call"]),
        logged_call=_text(proofs["logged_call"]),
        outcomes=proofs["outcomes"],
        support=_support(current, doc),
        duties_held=held,
        duties_missing=tuple(duty for duty in DUTIES if duty not in held),
        declares=_declares(current, doc),
        approved_change=_approved(blueprint, served, settled) if served else None,
    )


def _declares(current: Current, doc: WorkloadDoc) -> frozenset[str]:
    found = set(current.workspace.duties(doc.name))
    if doc.fallbacks:
        found.add("fallbacks")
    if any(item.covers == units.workload_subject(doc.name) for item in current.workspace.budgets.values()):
        found.add("budget")
    return frozenset(found)


def _duties_held(conn: Connection[Any], workload: str) -> frozenset[str]:
    rows = [*people.duties(conn, units.workload_subject(workload)), *people.duties(conn, "company")]
    return frozenset(row.duty for row in rows if row.person.active)


def _sources(conn: Connection[Any], doc: WorkloadDoc) -> tuple[SourceEvidence, ...]:
    known = store.sources(conn, list(doc.sources))
    missing = {"indexed": False, "findings": 0, "owner_present": False}
    return tuple(
        SourceEvidence(name, row["owner_present"], row["indexed"], row["findings"])
        for name in sorted(doc.sources)
        for row in [known.get(name, missing)]
    )


def _own_budget(blueprint: bp.Blueprint, workload: str) -> float | None:
    own = [units.monthly_limit(item) for item in blueprint.budgets if units.is_own(item, workload)]
    return float(to_decimal(sum(own))) if own else None


def _support(current: Current, doc: WorkloadDoc) -> str | None:
    if doc.support is None or not doc.support.runbook:
        return None
    return str(current.workspace.where("workload", doc.name, "support"))


def _approved(blueprint: bp.Blueprint, served: bp.Workload, settled: list[Change]) -> str | None:
    """The change whose approvals hold for exactly what is served, each need met by evidence."""
    digest = units.workload_digest(blueprint, served)
    for change in reversed(settled):
        met = {(item.subject, item.duty) for item in change.approvals if item.is_evidence and item.digest == digest}
        if change.digest == digest and change.needs and all((n.subject, n.duty) in met for n in change.needs):
            return str(change.id)
    return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
