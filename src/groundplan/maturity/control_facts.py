"""What the checks of controls look at, gathered for each workload that is served: here governance learns what
blueprint, declaration and ledger say. Reads only; judging is `governance.controls`.
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


def facts(
    conn: Connection[Any], current: Current, now: datetime, verified: tuple[datetime, int] | None = None
) -> list[Facts]:
    """Of every served workload, by name. `verified`: when the log was last found right, and its size then."""
    common = _company(conn, current.blueprint, verified)
    grave, stopped = store.grave_findings(conn), store.stopped(conn, now - STOPPED_WITHIN)
    stale_keys = store.endless_keys(conn, now - KEY_AGE)
    workloads = current.workspace.workloads
    pairs = [(each, workloads[each.name]) for each in current.blueprint.workloads if each.name in workloads]
    read = load_facts(conn, current, [doc for _, doc in pairs], now)
    accepted = {
        doc.name: current.workspace.email_of(doc.risk.accepted_by)
        for _, doc in pairs
        if doc.risk is not None and doc.risk.accepted_by is not None
    }
    here = store.active(conn, sorted(set(accepted.values())))
    places = {each.name: each for each in current.blueprint.deployments}
    clouds = {site.name for site in current.blueprint.sites if site.type == "cloud"}
    found: list[Facts] = []
    for served, doc in sorted(pairs, key=lambda pair: pair[0].name):
        evidence = gather_evidence(current, doc, read)
        subject = units.workload_subject(served.name)
        found.append(
            Facts(
                **_declared(doc, served),
                **_placed(current, [places[each] for each in served.places if each in places], clouds),
                hard_budgets=tuple(sorted(each.name for each in read.own_budgets.get(subject, ()) if each.hard)),
                **common,
                blueprint=current.blueprint.number,
                served=True,
                duties=evidence.duties_held,
                fallbacks=evidence.fallbacks,
                fallback_call=evidence.fallback_call,
                sources=tuple(
                    SourceFacts(each.name, each.owner_present, grave.get(f"source/{each.name}", 0))
                    for each in evidence.sources
                ),
                calls=evidence.calls,
                outcomes=evidence.outcomes,
                approved_change=evidence.approved_change,
                grave_findings=grave.get(subject, 0),
                lifted_kill=stopped.get(subject),
                stale_keys=stale_keys.get(served.name, ()),
                accepted_by_active=accepted.get(doc.name) in here,
                audit_entry=evidence.logged_call,
            )
        )
    return found


def _company(conn: Connection[Any], blueprint: bp.Blueprint, verified: tuple[datetime, int] | None) -> dict[str, Any]:
    return {
        "rules": tuple(sorted(each.name for each in blueprint.policies if each.enforced)),
        "log_verified_at": verified[0] if verified else None,
        "log_size": verified[1] if verified else store.log_size(conn),
        "log_complete": store.log_complete(conn),
    }


def _placed(current: Current, places: Sequence[bp.Deployment], clouds: Collection[str]) -> dict[str, Any]:
    return {
        "undeclared_terms": tuple(sorted(each.name for each in places if each.terms is None and each.site in clouds)),
        "models_without_terms": tuple(sorted(_unknown(current.workspace.models, places))),
    }


def _declared(doc: WorkloadDoc, served: bp.Workload) -> dict[str, Any]:
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
        "enforced_guardrails": _guarded(served.guardrails),
        "reviewed_share": served.review.share / 10_000 if served.review else 0.0,
        "support": doc.support.contact if doc.support else None,
        "runbook": doc.support.runbook if doc.support else None,
    }


def _guarded(rules: bp.Guardrails | None) -> tuple[str, ...]:
    """Where something is masked, blocked or refused; flags alone do not count."""
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


def _unknown(models: Mapping[str, ModelDoc], places: Sequence[bp.Deployment]) -> set[str]:
    return {
        each.model
        for each in places
        if each.terms is None and not (each.model in models and models[each.model].licence)
    }
