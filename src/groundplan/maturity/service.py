"""Gathers the evidence of every declared workload and scores it. Reads only, and keeps nothing that could go stale."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
class EvidenceFacts:
    """Facts of the last 30 days, read once for several workloads; the first day counts whole."""

    applied_changes: Mapping[str, list[Change]]
    """Applied changes by their subject, oldest first."""
    proofs: Mapping[str, dict[str, Any]]
    """Workload -> its proofs from the ledger."""
    duties: Mapping[str, frozenset[str]]
    """Subject -> duties that an active person holds for it."""
    sources: Mapping[str, dict[str, Any]]
    """Source -> its row in the database."""
    served: Mapping[str, bp.Workload]
    """By name."""
    own_budgets: Mapping[str, Sequence[bp.Budget]]
    """Subject -> served budgets that cover it."""
    covered: frozenset[str]
    """Subjects that a declared budget covers."""
    price_sources: Mapping[str, str]
    """By deployment."""


def readiness(
    conn: Connection[Any], current: Current, now: datetime, workloads: Collection[str] | None = None
) -> list[Readiness]:
    """Scores of all declared workloads (or the named ones), by name."""
    docs = [doc for name, doc in current.workspace.workloads.items() if workloads is None or name in workloads]
    facts = load_facts(conn, current, docs, now)
    return [score(gather_evidence(current, doc, facts)) for doc in docs]


def load_facts(conn: Connection[Any], current: Current, docs: Sequence[WorkloadDoc], now: datetime) -> EvidenceFacts:
    """Load the facts of these workloads; facts older than 30 days do not count."""
    since = proof_store.day_of(now - WINDOW)
    served = {item.name: item for item in current.blueprint.workloads}
    primaries = {doc.name: _primary(served.get(doc.name)) for doc in docs}
    settled: dict[str, list[Change]] = {}
    for change in changes.changes(conn, ["applied"]):
        settled.setdefault(change.subject, []).append(change)
    own: dict[str, list[bp.Budget]] = {}
    for budget in current.blueprint.budgets:
        own.setdefault(budget.covers, []).append(budget)
    return EvidenceFacts(
        applied_changes=settled,
        proofs=proof_store.proofs(conn, primaries, since, proof_store.workload_sums(conn, since, sorted(primaries))),
        duties=_duties_held(conn),
        sources=store.sources(conn, sorted({name for doc in docs for name in doc.sources})),
        served=served,
        own_budgets=own,
        covered=frozenset(item.covers for item in current.workspace.budgets.values()),
        price_sources={item.name: item.rates.source for item in current.blueprint.deployments},
    )


def gather_evidence(current: Current, doc: WorkloadDoc, known: EvidenceFacts) -> Evidence:
    """The evidence about one of the workloads that `facts` were loaded for."""
    blueprint = current.blueprint
    served = known.served.get(doc.name)
    proofs = known.proofs[doc.name]
    own = known.own_budgets.get(units.workload_subject(doc.name), ())
    held = known.duties.get(units.workload_subject(doc.name), frozenset()) | known.duties.get("company", frozenset())
    return Evidence(
        workload=doc.name,
        stage=doc.stage,
        served=served is not None,
        blueprint=blueprint.number,
        fallbacks=tuple(served.deployments[1:]) if served else (),
        sources=_sources(known.sources, doc),
        own_budget_usd=_own_budget(own),
        own_hard_budget=any(budget.hard for budget in own),
        price_sources=tuple(
            known.price_sources[name] for name in (served.deployments if served else ()) if name in known.price_sources
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
        declares=_declared_parts(current, doc, known),
        approved_change=_approving_change(blueprint, served, known.applied_changes) if served else None,
    )


def _declared_parts(current: Current, doc: WorkloadDoc, known: EvidenceFacts) -> frozenset[str]:
    facts = set(current.workspace.duty_holders(doc.name))
    if doc.fallbacks:
        facts.add("fallbacks")
    if units.workload_subject(doc.name) in known.covered:
        facts.add("budget")
    return frozenset(facts)


def _primary(served: bp.Workload | None) -> str | None:
    return served.deployments[0] if served and served.deployments else None


def _duties_held(conn: Connection[Any]) -> dict[str, frozenset[str]]:
    facts: dict[str, set[str]] = {}
    for row in people.duties(conn):
        if row.person.active:
            facts.setdefault(row.subject, set()).add(row.duty)
    return {subject: frozenset(duties) for subject, duties in facts.items()}


def _sources(known: Mapping[str, dict[str, Any]], doc: WorkloadDoc) -> tuple[SourceEvidence, ...]:
    missing = {"indexed": False, "findings": 0, "owner_present": False}
    return tuple(
        SourceEvidence(name, row["owner_present"], row["indexed"], row["findings"])
        for name in sorted(doc.sources)
        for row in [known.get(name, missing)]
    )


def _own_budget(own: Sequence[bp.Budget]) -> float | None:
    least = units.lowest_monthly_limit(own)
    return None if least is None else float(to_decimal(least))


def _support(current: Current, doc: WorkloadDoc) -> str | None:
    if doc.support is None or not doc.support.runbook:
        return None
    return str(current.workspace.where("workload", doc.name, "support"))


def _approving_change(blueprint: bp.Blueprint, served: bp.Workload, settled: Mapping[str, list[Change]]) -> str | None:
    """Id of the newest change whose approvals are valid for what is served, each need met by evidence; else None."""
    about = settled.get(units.workload_subject(served.name))
    if not about:  # a digest of each of thousands of workloads takes seconds
        return None
    digests = {units.workload_digest(blueprint, served), *units.former_digests(blueprint, served)}
    for change in reversed([each for each in about if each.digest in digests]):
        met = {(item.subject, item.duty) for item in change.approvals if item.is_evidence and item.digest in digests}
        if change.needs and all((n.subject, n.duty) in met for n in change.needs):
            return str(change.id)
    return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
