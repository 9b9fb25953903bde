"""What Overview and the workload pages show, from blueprint, declared files and ledger. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api import store
from groundplan.api.readiness import readiness_json, shares
from groundplan.api.served import at, workspace_at
from groundplan.blueprint.model import Blueprint, Placement
from groundplan.catalog.model import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.money import format_usd, short_usd
from groundplan.gateway.budgets.periods import key_at
from groundplan.governance import service as governance
from groundplan.ledger import queries, traffic
from groundplan.ledger.store import CallFilter
from groundplan.release import alone
from groundplan.release.model import placement_json, problem_json

OUTAGE_SECONDS = 60.0
"""A site that failed is tried again within this time; without any attempt for so long it is not called down."""
LIVE_SECONDS = 10.0
"""How far back the live picture looks: which deployment answers, which site fails."""
LATELY = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Figures:
    """Today's figures by workload, and what answers and fails in the last seconds."""

    cost: dict[str, str]
    calls: dict[str, int]
    p95: dict[str, float]
    per_minute: dict[str, float]
    serving: dict[str, str]
    """The site where the newest answer came from, so that an outage shows with the first call that it moves."""
    failing: frozenset[str]
    """Sites where the newest attempt failed at each deployment that was asked lately."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is needed to show workloads."""

    blueprint: Blueprint
    workspace: Workspace
    pending: dict[str, str]
    """subject -> change id"""
    killed: frozenset[str]
    readiness: dict[str, dict[str, float | None]]
    """workload -> area -> part of its points"""
    figures: Figures


def picture(conn: Connection[Any], number: int, now: datetime) -> Picture:
    """The state of all workloads that are declared with blueprint `number`."""
    changes = governance.pending(conn)
    workspace = workspace_at(conn, number)
    return Picture(
        blueprint=at(conn, number),
        workspace=workspace,
        pending={change.subject: str(change.id) for change in changes},
        killed=frozenset(row["scope"] for row in store.kills(conn)),
        readiness={entry["workload"]: shares(entry) for entry in readiness_json(conn, now)},
        figures=figures(conn, sorted(workspace.workloads), now),
    )


def figures(conn: Connection[Any], workloads: Sequence[str], now: datetime) -> Figures:
    midnight = datetime.combine(now.date(), time(), UTC)
    today = queries.cost_summary(conn, CallFilter(since=midnight))["by_workload"]
    latencies = queries.latency(conn, CallFilter(since=midnight))
    return Figures(
        cost={row["workload"]: row["total_usd"] for row in today},
        calls={row["workload"]: row["calls"] for row in today},
        p95={row["workload"]: row["p95_ms"] for row in latencies},
        per_minute=traffic.calls_a_minute(conn, now),
        failing=traffic.failing_sites(conn, now - timedelta(seconds=OUTAGE_SECONDS)),
        serving=traffic.answering_sites(conn, workloads, now - timedelta(seconds=LIVE_SECONDS)),
    )


def sites_json(seen: Picture) -> list[dict[str, Any]]:
    """Sites; `down` where the newest attempt failed at each of its deployments that was asked lately."""
    return [
        {
            "name": site.name,
            "title": site.title,
            "type": site.type,
            "jurisdiction": site.jurisdiction,
            "down": site.name in seen.figures.failing,
            "deployments": [d.name for d in seen.blueprint.deployments if d.site == site.name],
        }
        for site in seen.blueprint.sites
    ]


def workloads_json(seen: Picture) -> list[dict[str, Any]]:
    """Declared workloads, served or not, by name."""
    return [workload_json(seen, doc) for _, doc in sorted(seen.workspace.workloads.items())]


def workload_json(seen: Picture, doc: WorkloadDoc) -> dict[str, Any]:
    """One workload with today's figures and where it is served; amounts are decimal text."""
    served = next((workload for workload in seen.blueprint.workloads if workload.name == doc.name), None)
    placement = next((placement for placement in seen.blueprint.placements if placement.workload == doc.name), None)
    sites = {deployment.name: deployment.site for deployment in seen.blueprint.deployments}
    chain = served.deployments if served else []
    subject = f"workload/{doc.name}"
    return {
        "name": doc.name,
        "title": doc.title or doc.name,
        "purpose": doc.purpose,
        "stage": doc.stage,
        "served_stage": served.stage if served else None,
        "sensitivity": doc.sensitivity,
        "audience": doc.audience,
        "residency": list(doc.residency),
        "team": doc.team,
        "served": served is not None,
        "stopped": subject in seen.killed or "company" in seen.killed,
        "pending": seen.pending.get(subject),
        "owners": {duty: list(people) for duty, people in seen.workspace.duties(doc.name).items()},
        "sources": list(doc.sources),
        "deployments": chain,
        "site": sites.get(chain[0]) if chain else None,
        "fallback_sites": _distinct(sites[name] for name in chain[1:] if name in sites),
        "serving_site": seen.figures.serving.get(doc.name),
        "cost_today_usd": seen.figures.cost.get(doc.name, format_usd(0)),
        "calls_today": seen.figures.calls.get(doc.name, 0),
        "p95_ms": seen.figures.p95.get(doc.name),
        "calls_per_minute": seen.figures.per_minute.get(doc.name, 0.0),
        "readiness": seen.readiness.get(doc.name, {}),
        "why_not": why_not(placement, sites.get(chain[0]) if chain else None),
        "expires": served.expires if served else None,
    }


def detail_json(conn: Connection[Any], seen: Picture, doc: WorkloadDoc, now: datetime) -> dict[str, Any]:
    """All of one workload: what `workload_json` has, its declaration, budgets with their use, its placement, and of the
    last 30 days how its calls ended and how long they took."""
    lately = CallFilter(workload=doc.name, since=datetime.combine(now.date(), time(), UTC) - LATELY)
    placement = next((placement for placement in seen.blueprint.placements if placement.workload == doc.name), None)
    where = seen.workspace.where("workload", doc.name)
    warnings = alone.without_effect(seen.workspace, doc, placement) if placement else ()
    return {
        **workload_json(seen, doc),
        "declared": doc.model_dump(mode="json"),
        "where": str(where),
        "budgets": _budgets(conn, seen, doc.name, now),
        "placement": placement_json(placement) if placement else None,
        "warnings": [problem_json(each) for each in warnings],
        "areas": next((e["areas"] for e in readiness_json(conn, now) if e["workload"] == doc.name), []),
        "statuses": queries.statuses(conn, lately).get(doc.name, {}),
        "latency": next(iter(queries.latency(conn, lately)), None),
    }


def _budgets(conn: Connection[Any], seen: Picture, workload: str, now: datetime) -> list[dict[str, Any]]:
    """Budgets that cover it, with their use in the periods that they have now; those that are only declared are not
    `served` and used by nobody."""
    # those of keys are not asked for here, and may be many
    used = {(row["budget"], row["period"]): row for row in queries.budget_use(conn, now, near=1.0)}
    served = {budget.name: budget for budget in seen.blueprint.budgets}
    found: list[dict[str, Any]] = []
    for name in seen.workspace.budgets_of(workload):
        budget, doc = served.get(name), seen.workspace.budgets[name]
        how = (doc.limit.period, doc.starts or "", doc.timezone)
        if budget is not None:
            how = (budget.period, budget.starts, budget.timezone)
        mine = used.get((name, key_at(*how, now)), {})
        found.append(
            {
                "name": name,
                "covers": doc.covers,
                "limit_usd": format_usd(budget.limit if budget else doc.limit.amount),
                "period": budget.period if budget else doc.limit.period,
                "hard": budget.hard if budget else doc.hard,
                "spent_usd": mine.get("spent_usd", format_usd(0)),
                "granted_usd": mine.get("granted_usd", format_usd(0)),
                "served": budget is not None,
            }
        )
    return found


def why_not(placement: Placement | None, chosen_site: str | None) -> dict[str, str]:
    """Site -> why the workload does not run there: the rule, or how much more it would cost a month."""
    if placement is None:
        return {}
    chosen = next((a for a in placement.alternatives if a.deployment == placement.primary), None)
    found: dict[str, str] = {}
    for option in placement.alternatives:
        if option.site == chosen_site or option.site in found:
            continue
        if option.reasons:
            found[option.site] = ", ".join(option.reasons)
        elif option.monthly is not None and chosen is not None and chosen.monthly is not None:
            more = option.monthly - chosen.monthly
            found[option.site] = f"{'+' if more >= 0 else '-'}{short_usd(abs(more))}/month"
    return found


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
