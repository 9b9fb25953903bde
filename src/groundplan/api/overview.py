"""The data of the Overview and the workload pages, from blueprint, declared files and ledger. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import urlsplit

from psycopg import Connection

from groundplan.api import store
from groundplan.api.readiness import earned_shares, readiness_json
from groundplan.api.served_blueprint import blueprint_at, workspace_at
from groundplan.blueprint.model import Blueprint, Deployment, Placement, Workload
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
"""A failed deployment is tried again within this time; without any attempt for so long it is not reported as failing,
unless its circuit breaker is open."""
LIVE_SECONDS = 10.0
"""The period for which the live view shows which site answers."""
RECENT_PERIOD = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Figures:
    """Today's figures by workload, which sites answered and which deployments failed in the last seconds."""

    cost: dict[str, str]
    calls: dict[str, int]
    p95: dict[str, float]
    per_minute: dict[str, float]
    serving: dict[str, str]
    """The site of the newest answer, so that an outage shows with the first call that moves."""
    failing: Mapping[str, bool]
    """Deployments that fail now -> whether their address gave no response at all."""


@dataclass(frozen=True, slots=True)
class WorkloadsView:
    """Everything needed to show workloads, loaded once."""

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
        """The site of the workload's primary deployment; None if it is not served."""
        chain = served.deployments if (served := self.served.get(workload)) else []
        return self.sites.get(chain[0]) if chain else None


def load_view(conn: Connection[Any], number: int, now: datetime, workload: str | None = None) -> WorkloadsView:
    """Load the view of all workloads declared with blueprint `number`; figures of all, or of one `workload` only."""
    changes = governance.pending_changes(conn)
    workspace, blueprint = workspace_at(conn, number), blueprint_at(conn, number)
    sites = {item.name: item.site for item in blueprint.deployments}
    return WorkloadsView(
        blueprint=blueprint,
        workspace=workspace,
        served={item.name: item for item in blueprint.workloads},
        placements={item.workload: item for item in blueprint.placements},
        sites=sites,
        pending={change.subject: str(change.id) for change in changes},
        killed=frozenset(row["scope"] for row in store.kills(conn)),
        figures=load_figures(conn, sorted(workspace.workloads), sites, now, workload),
        now=now,
    )


def most_called_workload(conn: Connection[Any], names: Collection[str], now: datetime) -> str | None:
    """The name with the most calls today, the first of several; None without names."""
    rows = queries.cost_summary(conn, CallFilter(since=datetime.combine(now.date(), time(), UTC)))["by_workload"]
    calls = {row["workload"]: row["calls"] for row in rows}
    return max(sorted(names), key=lambda name: calls.get(name, 0), default=None)


def load_figures(
    conn: Connection[Any],
    workloads: Sequence[str],
    sites: Mapping[str, str],
    now: datetime,
    workload: str | None = None,
) -> Figures:
    """The figures of all `workloads`, or of one `workload` of them; `sites`: deployment -> its site."""
    today_of = CallFilter(workload=workload, since=datetime.combine(now.date(), time(), UTC))
    today = queries.cost_summary(conn, today_of)["by_workload"]
    latencies = queries.latency(conn, today_of)
    names = workloads if workload is None else [workload]
    return Figures(
        cost={row["workload"]: row["total_usd"] for row in today},
        calls={row["workload"]: row["calls"] for row in today},
        p95={row["workload"]: row["p95_ms"] for row in latencies},
        per_minute=traffic.calls_per_minute(conn, now),
        failing=traffic.failing_deployments(conn, now - timedelta(seconds=OUTAGE_SECONDS), sites),
        serving=traffic.answering_sites(conn, names, now - timedelta(seconds=LIVE_SECONDS)),
    )


def sites_json(view: WorkloadsView) -> list[dict[str, Any]]:
    """All sites. `used`: calls go or may go there. `failing`: its deployments that fail now, sorted. `down`: each of
    its deployments that a workload may use fails now, or shares an address that gives no response."""
    deployments: dict[str, list[Deployment]] = {}
    for deployment in view.blueprint.deployments:
        deployments.setdefault(deployment.site, []).append(deployment)
    used = {name for item in view.served.values() for name in item.all_deployments}
    routed = {view.sites.get(name) for item in view.served.values() for name in item.deployments}
    return [
        {
            "name": site.name,
            "title": site.title,
            "type": site.type,
            "jurisdiction": site.jurisdiction,
            "down": _is_down([item for item in deployments.get(site.name, []) if item.name in used], view.figures),
            "failing": sorted(
                item.name for item in deployments.get(site.name, []) if item.name in view.figures.failing
            ),
            "used": site.name in routed,
            "deployments": [item.name for item in deployments.get(site.name, [])],
        }
        for site in view.blueprint.sites
    ]


def _is_down(deployments: Sequence[Deployment], figures: Figures) -> bool:
    silent = {_address(item) for item in deployments if figures.failing.get(item.name)}
    failing = [item.name in figures.failing or _address(item) in silent for item in deployments]
    return bool(failing) and all(failing)


def _address(deployment: Deployment) -> str:
    """Scheme, host and port of its URL; all of a URL that has no host, such as `local:embedded`."""
    parts = urlsplit(deployment.url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else deployment.url


def select_workloads(view: WorkloadsView, limit: int, chosen: str | None) -> list[str]:
    """Names of about `limit` workloads, as many of each site, sorted: `chosen` first, then those that another site
    answers, then those with most calls and cost. All names where there are no more than `limit`."""
    by_site: dict[str | None, list[str]] = {}
    for name in view.workspace.workloads:
        by_site.setdefault(view.site_of(name), []).append(name)
    if len(view.workspace.workloads) <= limit:
        return sorted(view.workspace.workloads)
    figures = view.figures

    def rank(name: str) -> tuple[bool, bool, float, float, str]:
        is_elsewhere = figures.serving.get(name) not in (None, view.site_of(name))
        cost = float(figures.cost.get(name, 0))
        return name != chosen, not is_elsewhere, -figures.per_minute.get(name, 0.0), -cost, name

    per_site = max(1, limit // len(by_site))
    return sorted(name for names in by_site.values() for name in sorted(names, key=rank)[:per_site])


def search_workloads(view: WorkloadsView, search: str = "", site: str = "") -> list[str]:
    """Sorted names of the declared workloads that have every word of `search` in name, title, purpose, team or business
    owner, and whose primary is at `site`, if given."""
    words = search.lower().split()

    def matches(name: str) -> bool:
        doc = view.workspace.workloads[name]
        owners = view.workspace.duty_holders(name).get("business", ()) if words else ()
        text = " ".join((name, doc.title or "", doc.purpose, doc.team or "", *owners)).lower()
        return all(word in text for word in words) and site in ("", view.site_of(name))

    return [name for name in sorted(view.workspace.workloads) if not (words or site) or matches(name)]


def workloads_json(
    conn: Connection[Any], view: WorkloadsView, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """All declared workloads, served or not, sorted by name; or those in `names`, in that order."""
    ready = {entry["workload"]: earned_shares(entry) for entry in readiness_json(conn, view.now, names)}
    listed = sorted(view.workspace.workloads) if names is None else names
    return [workload_json(view, view.workspace.workloads[name], ready.get(name, {})) for name in listed]


def workload_json(view: WorkloadsView, doc: WorkloadDoc, ready: dict[str, float | None]) -> dict[str, Any]:
    """One workload with today's figures and where it is served; amounts are decimal strings. `failing`: those of its
    deployments that fail now; `site_failing`: all of them at its site do."""
    served, placement, sites = view.served.get(doc.name), view.placements.get(doc.name), view.sites
    chain = served.deployments if served else []
    home = sites.get(chain[0]) if chain else None
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
        "stopped": subject in view.killed or "company" in view.killed,
        "pending": view.pending.get(subject),
        "owners": {duty: list(people) for duty, people in view.workspace.duty_holders(doc.name).items()},
        "sources": list(doc.sources),
        "deployments": chain,
        "site": home,
        "failing": [name for name in chain if name in view.figures.failing],
        "site_failing": bool(chain) and all(name in view.figures.failing for name in chain if sites.get(name) == home),
        "fallback_sites": _distinct(sites[name] for name in chain[1:] if name in sites),
        "serving_site": view.figures.serving.get(doc.name),
        "cost_today_usd": view.figures.cost.get(doc.name, format_usd(0)),
        "calls_today": view.figures.calls.get(doc.name, 0),
        "p95_ms": view.figures.p95.get(doc.name),
        "calls_per_minute": view.figures.per_minute.get(doc.name, 0.0),
        "readiness": ready,
        "why_not": placement_obstacles(placement, home),
        "expires": served.expires if served else None,
    }


def detail_json(conn: Connection[Any], view: WorkloadsView, doc: WorkloadDoc, now: datetime) -> dict[str, Any]:
    """One workload in full: `workload_json` with its declaration, budgets and their use, placement, and the outcomes
    and latencies of its calls in the last 30 days."""
    recent_calls = CallFilter(workload=doc.name, since=datetime.combine(now.date(), time(), UTC) - RECENT_PERIOD)
    placement = view.placements.get(doc.name)
    location = view.workspace.where("workload", doc.name)
    scored = next(iter(readiness_json(conn, now, (doc.name,))), None)
    warnings: list[Problem] = []
    if placement is not None:
        warnings += collect.workload_warnings(view.workspace, doc, placement)
        warnings += limits.warnings(view.workspace, view.blueprint.deployments, [placement])
    return {
        **workload_json(view, doc, earned_shares(scored) if scored else {}),
        "declared": doc.model_dump(mode="json"),
        "where": str(location),
        "budgets": _budgets(conn, view, doc.name, now),
        "placement": placement_json(placement) if placement else None,
        "warnings": [problem_json(warning) for warning in warnings],
        "areas": scored["areas"] if scored else [],
        "statuses": queries.statuses(conn, recent_calls).get(doc.name, {}),
        "latency": next(iter(queries.latency(conn, recent_calls)), None),
    }


def _budgets(conn: Connection[Any], view: WorkloadsView, workload: str, now: datetime) -> list[dict[str, Any]]:
    """Budgets that cover the workload, with their use in their current period; those that are only declared have
    `served: false` and no use."""
    # budgets of keys are not needed here, and there may be many
    used = {(row["budget"], row["period"]): row for row in queries.budget_use(conn, now, near=1.0)}
    served = {budget.name: budget for budget in view.blueprint.budgets}
    budgets: list[dict[str, Any]] = []
    for name in view.workspace.budgets_of(workload):
        budget, doc = served.get(name), view.workspace.budgets[name]
        period = (doc.limit.period, doc.starts or "", doc.timezone)
        if budget is not None:
            period = (budget.period, budget.starts, budget.timezone)
        use = used.get((name, key_at(*period, now)), {})
        budgets.append(
            {
                "name": name,
                "covers": doc.covers,
                "limit_usd": format_usd(budget.limit if budget else doc.limit.amount),
                "period": budget.period if budget else doc.limit.period,
                "hard": budget.hard if budget else doc.hard,
                "spent_usd": use.get("spent_usd", format_usd(0)),
                "granted_usd": use.get("granted_usd", format_usd(0)),
                "served": budget is not None,
            }
        )
    return budgets


def placement_obstacles(placement: Placement | None, chosen_site: str | None) -> dict[str, str]:
    """Site -> why the workload does not run there: the rule, or how much more or less it would cost per month."""
    if placement is None:
        return {}
    chosen = next((a for a in placement.alternatives if a.deployment == placement.primary), None)
    obstacles: dict[str, str] = {}
    for option in placement.alternatives:
        if option.site == chosen_site or option.site in obstacles:
            continue
        if option.reasons:
            obstacles[option.site] = ", ".join(option.reasons)
        elif option.monthly is not None and chosen is not None and chosen.monthly is not None:
            more = option.monthly - chosen.monthly
            obstacles[option.site] = f"{short_usd(abs(more))}/month {'more' if more >= 0 else 'less'}"
    return obstacles


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
