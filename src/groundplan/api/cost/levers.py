"""Reads the observations that savings levers are found in, from ledger, blueprint and book, for economics. Decides
nothing."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection

from groundplan.api.cost import book as cost_book
from groundplan.api.cost.book import Days
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.blueprint.model import Blueprint
from groundplan.economics.experiment import experiment_store
from groundplan.economics.levers.combined import combined_savings, monthly_costs
from groundplan.economics.levers.evidence import trial_evidence
from groundplan.economics.levers.find import rank_levers
from groundplan.economics.levers.model import (
    ActiveHours,
    FailedRetries,
    GroundedCall,
    Observations,
    OutputSizes,
    RetryOutcomes,
    SharedRequests,
    StoredContent,
)
from groundplan.economics.levers.requests import MAX_ACTIVE_SHARE
from groundplan.economics.replay import replay_store
from groundplan.economics.replay.opportunities import Opportunity, Spent
from groundplan.ledger import opportunity_store
from groundplan.ledger.used_documents import passages

_DAY = timedelta(days=1)


def find_levers(
    conn: Connection[Any], now: datetime, days: int, workload: str | None = None
) -> tuple[list[Opportunity], Decimal]:
    """(levers, what they would save together) of the last `days`, the current hour included, of all workloads or one;
    only hourly sums are read. Allocated costs are those of as many whole days, since idle capacity of today is not
    known yet. Raises `NotFound` for a workload that is not served and had no calls."""
    blueprint = current_blueprint(conn)
    since = now.replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    hours = any(deployment.rates.windows for deployment in blueprint.deployments)
    spent = [Spent(**row) for row in opportunity_store.spend_by_deployment(conn, since, workload, hours=hours)]
    if workload and not spent:
        require_workload(blueprint, workload)
    deployments = {deployment.name: deployment for deployment in blueprint.deployments}
    span = Days(now.date() - days * _DAY, now.date() - _DAY)
    lines = cost_book.cost_lines(conn, span, now.date())
    observations = _read_observations(conn, blueprint, since, now, days)
    ranked = rank_levers(spent, blueprint.workloads, deployments, observations, lines, workload)
    return ranked, combined_savings(ranked, monthly_costs(spent, observations))


def _read_observations(
    conn: Connection[Any], blueprint: Blueprint, since: datetime, now: datetime, days: int
) -> Observations:
    names = [workload.name for workload in blueprint.workloads]
    grounded_names = [workload.name for workload in blueprint.workloads if workload.grounding is not None]
    grounded = opportunity_store.grounded_calls(conn, since, grounded_names)
    replays_since, most_hours = now - timedelta(days=replay_store.DAYS), int(MAX_ACTIVE_SHARE * 24 * days)
    return Observations(
        days,
        seen=_days_observed(conn, since, now),
        outputs=[OutputSizes(**row) for row in opportunity_store.answer_lengths(conn, since, names)],
        grounded=[
            GroundedCall(row["workload"], tuple(map(tuple, passages(row["sources"]))), row["accepted"], row["team"],
                     row["cost_usd"])
            for row in grounded
        ],
        sampled={row["workload"]: row["looked"] for row in grounded},
        alike=[_shared_requests(row, blueprint) for row in opportunity_store.shared_requests(conn, since)],
        hours=[ActiveHours(**row) for row in opportunity_store.active_hours(conn, since, most_hours)],
        retried=[RetryOutcomes(**row) for row in opportunity_store.retried_calls(conn, since)],
        lost=[FailedRetries(**row) for row in opportunity_store.failed_retries(conn, since)],
        content=[
            StoredContent(row["workload"], float(row["gigabytes"]), row["calls"], row["reads"])
            for row in opportunity_store.stored_content_use(conn, since)
        ],
        shown=trial_evidence(
            replay_store.newest_proven(conn, replays_since), experiment_store.recent(conn, replays_since), replays_since
        ),
        runs={
            experiment.workload: experiment.standing
            for experiment in experiment_store.open_experiments(conn) if experiment.state == "running"
        },
    )  # fmt: skip


def _days_observed(conn: Connection[Any], since: datetime, now: datetime) -> dict[str, float]:
    begun = opportunity_store.first_call_days(conn, since)
    return {name: (now - datetime.combine(day, time(), UTC)) / _DAY for name, day in begun.items()}


def _shared_requests(row: dict[str, Any], blueprint: Blueprint) -> SharedRequests:
    """A group of similar workloads, with their present teams and business owners."""
    declared = {workload.name: workload for workload in blueprint.workloads}
    workloads = [declared[name] for name in row.pop("workloads") if name in declared]
    owners = dict.fromkeys(owner for workload in workloads for owner in workload.owners.get("business", []))
    teams = sorted({workload.team for workload in workloads if workload.team})
    return SharedRequests(tuple(workload.name for workload in workloads), tuple(teams), tuple(owners), **row)
