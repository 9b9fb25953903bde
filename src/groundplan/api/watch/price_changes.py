"""Background check: findings on prices (listed, or declared with a date) that differ from the served ones or change
soon, on models that will be retired, and on own hardware with too little use to pay off.

Each says what the last 30 days would have cost. No price is changed here: `dated_prices` applies dated ones, and the
next apply takes up a changed price list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

import msgspec
from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.cost import own_hardware as cost_own
from groundplan.api.cost.book import Days
from groundplan.api.served_blueprint import current_or_none, workspace_at
from groundplan.blueprint.model import Deployment, Rates
from groundplan.catalog.workspace import Workspace
from groundplan.core.money import from_usd_text, short_usd
from groundplan.economics.prices import price_list
from groundplan.economics.prices.reprice import UsageCounts, reprice
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding
from groundplan.release import last_month
from groundplan.release.compile.pricing import declared_or_listed, price_change_days
from groundplan.release.last_month import MONTH

LOOK_SECONDS = 6 * 3600.0
ANNOUNCED_AHEAD = timedelta(days=60)
_SOURCE_FIELDS = frozenset({"source", "effective", "then", "then_from"})
REPRICED, RETIRED, BREAK_EVEN = "cost.repriced", "cost.retired", "cost.break_even"
BREAK_EVEN_MARGIN = 0.9
"""Share of the break-even use below which a finding opens."""


def update_findings(services: Services) -> finding_store.FindingChanges:
    """Open findings about what holds today, and close those that no longer hold."""
    with services.transaction() as conn:
        return update_price_findings(conn, services.clock.now().date())


def update_price_findings(conn: Connection[Any], today: date) -> finding_store.FindingChanges:
    """As `update_findings`, in the caller's transaction."""
    blueprint = current_or_none(conn)
    findings: list[Finding] = []
    if blueprint is not None:
        workspace = workspace_at(conn, blueprint.number)
        prices = {
            deployment.name: declared_prices(workspace, deployment, today) or listed_prices(deployment, today)
            for deployment in blueprint.deployments
        }
        every = [deployment.rates for deployment in blueprint.deployments]
        every += [rates for rates_by_day in prices.values() for rates in rates_by_day.values()]
        counts = last_month.usage_by_deployment(conn, today, every)
        for deployment in blueprint.deployments:
            findings += deployment_findings(deployment, counts, today, prices[deployment.name])
        days = Days(today - MONTH, today - timedelta(days=1))
        findings += [
            own
            for row in cost_own.own_hardware_json(conn, blueprint, days)
            if (own := break_even_finding(row)) is not None
        ]
    return finding_store.replace_findings(conn, findings, kinds=[REPRICED, RETIRED, BREAK_EVEN], within="deployment/")


def break_even_finding(row: dict[str, Any]) -> Finding | None:
    """A finding on own hardware with too little use to pay off; with a margin, so that it does not open and close."""
    if row["needed"] is None or row["used"] > BREAK_EVEN_MARGIN * row["needed"]:
        return None
    cost, other_cost = from_usd_text(row["cost_usd"]), from_usd_text(row["other_usd"])
    full = row["needed"] > 1
    pays = "Even full it costs more for each token" if full else f"It pays from {row['needed']:.0%} use on"
    return Finding(
        kind=BREAK_EVEN,
        subject=f"deployment/{row['deployment']}",
        severity="medium",
        message=f"{row['deployment']} cost {short_usd(cost)} in 30 days at {row['used']:.1%} use; {row['other']} would "
        f"have answered the same for {short_usd(other_cost)}. {pays}.",
        hint="`groundplan placement what-if` shows what moves where without it, and `groundplan placement ahead` when "
        "growth fills it.",
        detail={"used": row["used"], "needed": row["needed"], "other": row["other"], "saves": cost - other_cost},
    )


def listed_prices(deployment: Deployment, today: date) -> dict[date, Rates]:
    """Day -> listed rates, of today and of each day soon on which they change."""
    days = (today, *price_list.price_change_days(deployment.model, today, today + ANNOUNCED_AHEAD))
    prices = {day: price_list.rates(deployment.model, day) for day in days}
    return {day: rates for day, rates in prices.items() if rates is not None}


def declared_prices(workspace: Workspace, deployment: Deployment, today: date) -> dict[date, Rates]:
    """As `listed_prices`, for declared prices and currency rates with `from` dates, in dollars at the rate of each day;
    listed rates until the first of them. Empty where no price is declared."""
    item = workspace.deployments.get(deployment.name)
    if item is None:
        return {}
    described = workspace.models.get(item.model)
    prices = item.price or (described.price if described is not None else ())
    if not prices:
        return {}
    days = (today, *price_change_days(workspace, item, today, today + ANNOUNCED_AHEAD))
    rates_by_day = {day: declared_or_listed(workspace, item, day) for day in days}
    return {day: rates for day, rates in rates_by_day.items() if isinstance(rates, Rates)}


def deployment_findings(
    deployment: Deployment, counts: Mapping[str, UsageCounts], today: date, prices: Mapping[date, Rates]
) -> Iterator[Finding]:
    """Findings on one deployment. `counts`: usage of each deployment; `prices`: day -> its rates from then on."""
    subject = f"deployment/{deployment.name}"
    used = counts.get(deployment.name, {})
    for day, rates in prices.items():
        if _cost_the_same(rates, deployment.rates):
            continue
        repriced = reprice(used, deployment.rates, rates)
        when = "now" if day == today else f"from {day.isoformat()} on"
        yield Finding(
            kind=REPRICED,
            subject=subject,
            mark=day.isoformat() if day != today else "now",
            severity="medium" if repriced.difference > 0 else "low",
            message=f"{deployment.model} has another price {when}: the last 30 days at {deployment.name} would have "
            f"cost {short_usd(repriced.new_cost)} instead of {short_usd(repriced.old_cost)}.",
            hint="`groundplan plan` shows the new price, and `groundplan apply` puts it in force."
            if day == today
            else "It applies from that day on by itself; `groundplan routing trade-off` shows who else could answer.",
            detail={
                "model": deployment.model,
                "then": repriced.old_cost,
                "now": repriced.new_cost,
                "from": day.isoformat(),
            },
            due=None if day == today else day,
        )
    if price_list.is_deprecated(deployment.model):
        yield Finding(
            kind=RETIRED,
            subject=subject,
            message=f"The provider of {deployment.model} is about to retire it: {deployment.name} will stop answering.",
            hint="Declare a deployment of another model, evaluate it, and make it the fallback first.",
            severity="high" if used else "medium",
        )


def _cost_the_same(first: Rates, second: Rates) -> bool:
    """Whether two rates are equal in every class and tier, whatever their sources."""
    return bool(_without_source(msgspec.to_builtins(first)) == _without_source(msgspec.to_builtins(second)))


def _without_source(value: Any) -> Any:
    """The value without the fields on source and dates."""
    if isinstance(value, dict):
        return {name: _without_source(item) for name, item in value.items() if name not in _SOURCE_FIELDS}
    return [_without_source(item) for item in value] if isinstance(value, list) else value
