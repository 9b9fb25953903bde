"""What Overview and the workload pages show, from blueprint, declared files and ledger. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api import store
from groundplan.api.readiness import readiness_json, shares
from groundplan.api.served_blueprint import at, workspace_at
from groundplan.blueprint.model import Blueprint, Placement, Workload
from groundplan.catalog.model import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.core.money import format_usd, short_usd
from groundplan.gateway.budgets.periods import key_at
from groundplan.governance import service as governance
from groundplan.ledger import queries, traffic
from groundplan.ledger.store import CallFilter
from groundplan.release.model import placement_json, problem_json
from groundplan.release.warnings import collect, limits

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
    served: dict[str, Workload]
    placements: dict[str, Placement]
    sites: dict[str, str]
    """Deployment -> its site."""
    pending: dict[str, str]
    """subject -> change id"""
    killed: frozenset[str]
    figures: Figures
    now: datetime

    def site_of(self, workload: str) -> str | None:
        """Where its primary is; None where it is not served."""
        chain = served.deployments if (served := self.served.get(workload)) else []
        return self.sites.get(chain[0]) if chain else None


def picture(conn: Connection[Any], number: int, now: datetime, workload: str | None = None) -> Picture:
    """The state of all workloads that are declared with blueprint `number`, or of one of them."""
    changes = governance.pending_changes(conn)
    workspace, blueprint = workspace_at(conn, number), at(conn, number)
    return Picture(
        blueprint=blueprint,
        workspace=workspace,
        served={each.name: each for each in blueprint.workloads},
        placements={each.workload: each for each in blueprint.placements},
        sites={each.name: each.site for each in blueprint.deployments},
        pending={change.subject: str(change.id) for change in changes},
        killed=frozenset(row["scope"] for row in store.kills(conn)),
        figures=figures(conn, sorted(workspace.workloads), now, workload),
        now=now,
    )


def most_called(conn: Connection[Any], names: Collection[str], now: datetime) -> str | None:
    """That of these which has most calls today, the first of several; None where there are none."""
    rows = queries.cost_summary(conn, CallFilter(since=datetime.combine(now.date(), time(), UTC)))["by_workload"]
    calls = {row["workload"]: row["calls"] for row in rows}
    return max(sorted(names), key=lambda name: calls.get(name, 0), default=None)


def figures(conn: Connection[Any], workloads: Sequence[str], now: datetime, workload: str | None = None) -> Figures:
    """Of all `workloads`, or of one of them."""
    today_of = CallFilter(workload=workload, since=datetime.combine(now.date(), time(), UTC))
    today = queries.cost_summary(conn, today_of)["by_workload"]
    latencies = queries.latency(conn, today_of)
    asked = workloads if workload is None else [workload]
    return Figures(
        cost={row["workload"]: row["total_usd"] for row in today},
        calls={row["workload"]: row["calls"] for row in today},
        p95={row["workload"]: row["p95_ms"] for row in latencies},
        per_minute=traffic.calls_a_minute(conn, now),
        failing=traffic.failing_sites(conn, now - timedelta(seconds=OUTAGE_SECONDS)),
        serving=traffic.answering_sites(conn, asked, now - timedelta(seconds=LIVE_SECONDS)),
    )


def sites_json(seen: Picture) -> list[dict[str, Any]]:
    """Sites; `down` where the newest attempt failed at each of its deployments that was asked lately. `used`: calls go
    or may go there; `left`: all traffic of its own workloads went elsewhere, since what failed is not tried for a
    while."""
    deployments: dict[str, list[str]] = {}
    for each in seen.blueprint.deployments:
        deployments.setdefault(each.site, []).append(each.name)
    serving: dict[str, set[str]] = {}
    for name in seen.workspace.workloads:
        if (home := seen.site_of(name)) is not None and (there := seen.figures.serving.get(name)) is not None:
            serving.setdefault(home, set()).add(there)
    used = {seen.sites.get(place) for workload in seen.served.values() for place in workload.deployments}
    return [
        {
            "name": site.name,
            "title": site.title,
            "type": site.type,
            "jurisdiction": site.jurisdiction,
            "down": site.name in seen.figures.failing,
            "left": site.name in serving and site.name not in serving[site.name],
            "used": site.name in used,
            "deployments": deployments.get(site.name, []),
        }
        for site in seen.blueprint.sites
    ]


def nearest(seen: Picture, most: int, chosen: str | None) -> list[str]:
    """Of more workloads those that a look is worth most, as many at each site: `chosen`, those that are answered
    elsewhere, and those with most calls and cost; by name."""
    by_site: dict[str | None, list[str]] = {}
    for name in seen.workspace.workloads:
        by_site.setdefault(seen.site_of(name), []).append(name)
    if len(seen.workspace.workloads) <= most:
        return sorted(seen.workspace.workloads)
    figures = seen.figures

    def rank(name: str) -> tuple[bool, bool, float, float, str]:
        moved = figures.serving.get(name) not in (None, seen.site_of(name))
        cost = float(figures.cost.get(name, 0))
        return name != chosen, not moved, -figures.per_minute.get(name, 0.0), -cost, name

    each = max(1, most // len(by_site))
    return sorted(name for names in by_site.values() for name in sorted(names, key=rank)[:each])


def found(seen: Picture, search: str = "", site: str = "") -> list[str]:
    """Declared workloads by name: those in whose name, title, purpose, team or business owner each of the words is, and
    that are served at a site."""
    words = search.lower().split()

    def matches(name: str) -> bool:
        doc = seen.workspace.workloads[name]
        owners = seen.workspace.duties(name).get("business", ()) if words else ()
        text = " ".join((name, doc.title or "", doc.purpose, doc.team or "", *owners)).lower()
        return all(word in text for word in words) and site in ("", seen.site_of(name))

    return [name for name in sorted(seen.workspace.workloads) if not (words or site) or matches(name)]


def workloads_json(conn: Connection[Any], seen: Picture, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Declared workloads, served or not, by name; or those that are named, in their order."""
    ready = {entry["workload"]: shares(entry) for entry in readiness_json(conn, seen.now, names)}
    shown = sorted(seen.workspace.workloads) if names is None else names
    return [workload_json(seen, seen.workspace.workloads[name], ready.get(name, {})) for name in shown]


def workload_json(seen: Picture, doc: WorkloadDoc, ready: dict[str, float | None]) -> dict[str, Any]:
    """One workload with today's figures and where it is served; amounts are decimal text."""
    served, placement, sites = seen.served.get(doc.name), seen.placements.get(doc.name), seen.sites
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
        "readiness": ready,
        "why_not": why_not(placement, sites.get(chain[0]) if chain else None),
        "expires": served.expires if served else None,
    }


def detail_json(conn: Connection[Any], seen: Picture, doc: WorkloadDoc, now: datetime) -> dict[str, Any]:
    """All of one workload: what `workload_json` has, its declaration, budgets with their use, its placement, and of the
    last 30 days how its calls ended and how long they took."""
    lately = CallFilter(workload=doc.name, since=datetime.combine(now.date(), time(), UTC) - LATELY)
    placement = seen.placements.get(doc.name)
    where = seen.workspace.where("workload", doc.name)
    scored = next(iter(readiness_json(conn, now, (doc.name,))), None)
    warnings: list[Problem] = []
    if placement is not None:
        warnings += collect.workload_warnings(seen.workspace, doc, placement)
        warnings += limits.warnings(seen.workspace, seen.blueprint.deployments, [placement])
    return {
        **workload_json(seen, doc, shares(scored) if scored else {}),
        "declared": doc.model_dump(mode="json"),
        "where": str(where),
        "budgets": _budgets(conn, seen, doc.name, now),
        "placement": placement_json(placement) if placement else None,
        "warnings": [problem_json(each) for each in warnings],
        "areas": scored["areas"] if scored else [],
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
    """Site -> why the workload does not run there: the rule, or how much more or less it would cost a month."""
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
            found[option.site] = f"{short_usd(abs(more))}/month {'more' if more >= 0 else 'less'}"
    return found


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
