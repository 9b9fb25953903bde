"""Gathers the evidence of every declared workload and scores it. Reads only, and keeps nothing that could go stale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from groundplan.maturity import store
from groundplan.maturity.model import Evidence, Readiness, SourceEvidence
from groundplan.maturity.score import score
from groundplan.release import units
from groundplan.release.model import Current

WINDOW = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Known:
    """What is read once for several workloads, all of the last 30 days; the first of them counts whole."""

    settled: Mapping[str, list[Change]]
    """Applied changes by their digest, oldest first."""
    proofs: Mapping[str, dict[str, Any]]
    """By workload."""
    duties: Mapping[str, frozenset[str]]
    """Subject -> the duties that somebody who is here holds for it."""
    sources: Mapping[str, dict[str, Any]]
    """By name, of those that are in the database."""


def readiness(conn: Connection[Any], current: Current, now: datetime, workload: str | None = None) -> list[Readiness]:
    """Scores of all declared workloads (or the named one), by name."""
    docs = [doc for name, doc in current.workspace.workloads.items() if workload in (None, name)]
    found = known(conn, current, docs, now)
    return [score(gather(current, doc, found)) for doc in docs]


def known(conn: Connection[Any], current: Current, docs: Sequence[WorkloadDoc], now: datetime) -> Known:
    """What is known of these workloads today; facts older than 30 days do not count."""
    since = proof_store.day_of(now - WINDOW)
    primaries = {doc.name: _primary(_served(current.blueprint, doc.name)) for doc in docs}
    settled: dict[str, list[Change]] = {}
    for change in changes.changes(conn, ["applied"]):
        settled.setdefault(change.digest, []).append(change)
    return Known(
        settled=settled,
        proofs=proof_store.proofs(conn, primaries, since, proof_store.kept(conn, since)),
        duties=_duties_held(conn),
        sources=store.sources(conn, sorted({name for doc in docs for name in doc.sources})),
    )


def gather(current: Current, doc: WorkloadDoc, known: Known) -> Evidence:
    """Of one workload of those that are `known`."""
    blueprint = current.blueprint
    served = _served(blueprint, doc.name)
    proofs = known.proofs[doc.name]
    held = known.duties.get(units.workload_subject(doc.name), frozenset()) | known.duties.get("company", frozenset())
    return Evidence(
        workload=doc.name,
        stage=doc.stage,
        served=served is not None,
        blueprint=blueprint.number,
        fallbacks=tuple(served.deployments[1:]) if served else (),
        sources=_sources(known.sources, doc),
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
        approved_change=_approved(blueprint, served, known.settled) if served else None,
    )


def _declares(current: Current, doc: WorkloadDoc) -> frozenset[str]:
    found = set(current.workspace.duties(doc.name))
    if doc.fallbacks:
        found.add("fallbacks")
    subject = units.workload_subject(doc.name)
    if any(item.covers == subject for item in current.workspace.budgets.values()):
        found.add("budget")
    return frozenset(found)


def _served(blueprint: bp.Blueprint, workload: str) -> bp.Workload | None:
    return next((item for item in blueprint.workloads if item.name == workload), None)


def _primary(served: bp.Workload | None) -> str | None:
    return served.deployments[0] if served and served.deployments else None


def _duties_held(conn: Connection[Any]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in people.duties(conn):
        if row.person.active:
            found.setdefault(row.subject, set()).add(row.duty)
    return {subject: frozenset(duties) for subject, duties in found.items()}


def _sources(known: Mapping[str, dict[str, Any]], doc: WorkloadDoc) -> tuple[SourceEvidence, ...]:
    missing = {"indexed": False, "findings": 0, "owner_present": False}
    return tuple(
        SourceEvidence(name, row["owner_present"], row["indexed"], row["findings"])
        for name in sorted(doc.sources)
        for row in [known.get(name, missing)]
    )


def _own_budget(blueprint: bp.Blueprint, workload: str) -> float | None:
    own = [units.monthly_limit(item) for item in units.own_budgets(blueprint, workload)]
    return float(to_decimal(sum(own))) if own else None


def _support(current: Current, doc: WorkloadDoc) -> str | None:
    if doc.support is None or not doc.support.runbook:
        return None
    return str(current.workspace.where("workload", doc.name, "support"))


def _approved(blueprint: bp.Blueprint, served: bp.Workload, settled: Mapping[str, list[Change]]) -> str | None:
    """The change whose approvals hold for exactly what is served, each need met by evidence."""
    digest = units.workload_digest(blueprint, served)
    for change in reversed(settled.get(digest, [])):
        met = {(item.subject, item.duty) for item in change.approvals if item.is_evidence and item.digest == digest}
        if change.needs and all((n.subject, n.duty) in met for n in change.needs):
            return str(change.id)
    return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
