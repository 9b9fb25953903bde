"""Gathers the facts that checks of controls use, for each served workload, from blueprint, declaration and ledger.
Reads only; `governance.controls` judges them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.blueprint import model as bp
from groundplan.catalog.model import ModelDoc, WorkloadDoc
from groundplan.governance.controls.model import Facts, SourceFacts
from groundplan.maturity import store
from groundplan.maturity.service import gather_evidence, load_facts
from groundplan.release import units
from groundplan.release.model import Current

STOPPED_WITHIN = timedelta(days=180)
KEY_AGE = timedelta(days=365)


def gather_control_facts(
    conn: Connection[Any], current: Current, now: datetime, verified: tuple[datetime, int] | None = None
) -> list[Facts]:
    """The facts of every served workload, by name. `verified`: when the log was last verified, and its size then."""
    common = _company_facts(conn, current.blueprint, verified)
    grave_findings, lifted_kills = store.grave_findings(conn), store.lifted_kills(conn, now - STOPPED_WITHIN)
    stale_keys = store.keys_without_expiry(conn, now - KEY_AGE)
    workloads = current.workspace.workloads
    pairs = [(each, workloads[each.name]) for each in current.blueprint.workloads if each.name in workloads]
    evidence_facts = load_facts(conn, current, [doc for _, doc in pairs], now)
    accepted = {
        doc.name: current.workspace.email_of(doc.risk.accepted_by)
        for _, doc in pairs
        if doc.risk is not None and doc.risk.accepted_by is not None
    }
    active_people = store.active_emails(conn, sorted(set(accepted.values())))
    places = {each.name: each for each in current.blueprint.deployments}
    clouds = {site.name for site in current.blueprint.sites if site.type == "cloud"}
    found: list[Facts] = []
    for served, doc in sorted(pairs, key=lambda pair: pair[0].name):
        evidence = gather_evidence(current, doc, evidence_facts)
        subject = units.workload_subject(served.name)
        found.append(
            Facts(
                **_declared_facts(doc, served),
                **_placement_facts(
                    current, [places[each] for each in served.all_deployments if each in places], clouds
                ),
                hard_budgets=tuple(
                    sorted(each.name for each in evidence_facts.own_budgets.get(subject, ()) if each.hard)
                ),
                **common,
                blueprint=current.blueprint.number,
                served=True,
                duties=evidence.duties_held,
                fallbacks=evidence.fallbacks,
                fallback_call=evidence.fallback_call,
                sources=tuple(
                    SourceFacts(each.name, each.owner_present, grave_findings.get(f"source/{each.name}", 0))
                    for each in evidence.sources
                ),
                calls=evidence.calls,
                outcomes=evidence.outcomes,
                approved_change=evidence.approved_change,
                grave_findings=grave_findings.get(subject, 0),
                lifted_kill=lifted_kills.get(subject),
                stale_keys=stale_keys.get(served.name, ()),
                accepted_by_active=accepted.get(doc.name) in active_people,
                audit_entry=evidence.logged_call,
            )
        )
    return found


def _company_facts(
    conn: Connection[Any], blueprint: bp.Blueprint, verified: tuple[datetime, int] | None
) -> dict[str, Any]:
    return {
        "rules": tuple(sorted(each.name for each in blueprint.policies if each.enforced)),
        "log_verified_at": verified[0] if verified else None,
        "log_size": verified[1] if verified else store.log_size(conn),
        "log_complete": store.has_complete_log(conn),
    }


def _placement_facts(current: Current, places: Sequence[bp.Deployment], clouds: Collection[str]) -> dict[str, Any]:
    return {
        "undeclared_terms": tuple(sorted(each.name for each in places if each.terms is None and each.site in clouds)),
        "models_without_terms": tuple(sorted(_models_without_terms(current.workspace.models, places))),
    }


def _declared_facts(doc: WorkloadDoc, served: bp.Workload) -> dict[str, Any]:
    return {
        "workload": doc.name,
        "purpose": doc.purpose,
        "value": doc.value or "",
        "audience": doc.audience,
        "effect": doc.effect,
        "regimes": tuple(sorted(doc.regimes)),
        "risk": doc.risk,
        "keeps": served.keep.content if served.keep else "none",
        "sensitivity": served.sensitivity,
        "first_token": doc.objectives.first_token is not None,
        "availability": doc.objectives.availability is not None,
        "quality": tuple(sorted(doc.objectives.quality)),
        "enforced_guardrails": _enforced_guardrails(served.guardrails),
        "reviewed_share": served.review.share / 10_000 if served.review else 0.0,
        "support": doc.support.contact if doc.support else None,
        "runbook": doc.support.runbook if doc.support else None,
    }


def _enforced_guardrails(rules: bp.Guardrails | None) -> tuple[str, ...]:
    """The names of guardrails that mask, block or refuse; those that only flag do not count."""
    if rules is None or rules.shadow:
        return ()
    found = [
        name
        for name, done in (("input", rules.input), ("passages", rules.passages), ("output", rules.output))
        if any(each != "flag" for each in done.values())
    ]
    others = (
        ("deny lists", rules.deny_input or rules.deny_output),
        ("schema", rules.schema),
        ("links", rules.links is not None),
        ("tools", rules.tools is not None),
        ("judge", rules.judge),
        ("presidio", "block" in (rules.presidio, rules.presidio_input)),
    )
    return (*found, *(name for name, on in others if on))


def _models_without_terms(models: Mapping[str, ModelDoc], places: Sequence[bp.Deployment]) -> set[str]:
    return {
        each.model
        for each in places
        if each.terms is None and not (each.model in models and models[each.model].licence)
    }
