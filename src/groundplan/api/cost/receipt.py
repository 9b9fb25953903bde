"""The cost of one call by the terms of the book, and its part of the costs allocated to its workload on that day.

That part is known when the day is over, since a day is divided by all usage on it. Parts are rounded towards zero to a
picodollar, so that all calls together never exceed the allocated amount, or a credit.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api import served_blueprint
from groundplan.api.cost import book as cost_book
from groundplan.api.cost import daily_usage as cost_use
from groundplan.api.cost import declared_costs as cost_rules
from groundplan.api.cost import store as cost_store
from groundplan.blueprint.model import Allocation, Deployment, Rates
from groundplan.core.errors import NotFound
from groundplan.core.money import format_usd, from_decimal
from groundplan.economics.allocate.daily import allocate_days
from groundplan.economics.allocate.divide import ANSWER_GIGABYTES, AS_REPORTED
from groundplan.economics.allocate.model import Line, Use
from groundplan.ledger.rollup_store import is_call

_FROM_CACHE = ("exact", "semantic")
"""Values of `cache` for answers without a call of a deployment."""


def allocated_to_call(conn: Connection[Any], receipt: dict[str, Any], today: date) -> dict[str, Any]:
    """`{"day", "known", "told", "cost_usd", "terms"}` for a receipt; `told` says why the part is not known yet. Expects
    a receipt of `ledger.queries.receipt` before `explain_terms`, with the ledger's names of terms."""
    day = datetime.fromisoformat(receipt["at"]).astimezone(UTC).date()
    if day >= today:
        reason = f"the costs allocated to it are known when {day} is over, UTC"
        return {"day": day.isoformat(), "known": False, "told": reason, "cost_usd": None, "terms": []}
    in_force = cost_rules.costs_in_force(conn, day, day)
    days = cost_use.daily_usage(conn, in_force, day, day)
    lines = [line for line in allocate_days(days) if line.workload == receipt["workload"]]
    use = next((use for day_usage in days for use in day_usage.uses if use.workload == receipt["workload"]), None)
    rules = {rule.name: rule for day_usage in days for rule in day_usage.rules}
    parts = []
    for line in lines:
        if use is None or receipt["status"] == "refused":
            break
        rule = rules.get(line.allocation)
        by_uses = rule is not None and rule.per == cost_rules.TOOL_USES
        if not is_call(receipt["endpoint"]) and not (by_uses and receipt["endpoint"] == cost_use.TOOLS):
            continue
        reviewed = rule is not None and rule.per == cost_rules.REVIEW_HOUR
        quantity, total_quantity, unit = (
            _share_of_review(conn, receipt, use, day, line) if reviewed else _share_of_use(receipt, use, rule)
        )
        size = abs(line.amount) * quantity // total_quantity
        if amount := size if line.amount > 0 else -size:
            parts.append(
                (amount, _term(line, amount, f"{quantity} of {total_quantity} {unit} of {line.workload} on {day}"))
            )
    parts.sort(key=lambda part: (-part[0], part[1]["term"]))
    total = sum(amount for amount, _ in parts)
    return {
        "day": day.isoformat(), "known": True, "told": None, "cost_usd": format_usd(total),
        "terms": [term for _, term in parts],
    }  # fmt: skip


def explain_terms(conn: Connection[Any], receipt: dict[str, Any]) -> None:
    """Rename the terms of a receipt as in the book, and add their rules and the source of each attempt's price. Changes
    the receipt in place."""
    deployments = deployments_at(conn, receipt["blueprint"])
    for attempt in receipt["attempts"]:
        deployment = deployments.get(attempt["deployment"])
        attempt["price_source"] = None if deployment is None else rates_at(deployment, attempt["at"]).source
        for term in attempt["terms"]:
            part, name = term["term"], attempt["deployment"]
            term["rule"] = "the most it can have cost" if part == "bound" else f"{part} x price of {name}"
            if deployment is not None:
                term["term"] = cost_book.term_of(deployment.kind, part)


def deployments_at(conn: Connection[Any], blueprint: int) -> dict[str, Deployment]:
    """The deployments of a blueprint by name; empty if it does not exist."""
    try:
        return {
            deployment.name: deployment for deployment in served_blueprint.blueprint_at(conn, blueprint).deployments
        }
    except NotFound:
        return {}


def rates_at(place: Deployment, at: str) -> Rates:
    """The rates in force at a moment (ISO, UTC)."""
    rates = place.rates
    while rates.then is not None and at[:10] >= rates.then_from:
        rates = rates.then
    return rates


def _share_of_use(receipt: dict[str, Any], use: Use, rule: Allocation | None) -> tuple[int, int, str]:
    """(quantity of the call, quantity of its workload that day, unit) by which a rule is divided; calls where the rule
    has no measure."""
    quantity, total_quantity, unit = 1, use.calls, "calls"
    if rule is not None:
        kind, _, name = rule.covers.partition("/")
        if rule.per == ANSWER_GIGABYTES:
            scope = rule.covers if kind in ("deployment", "site") else "company"
            is_at_place = scope == "company" or receipt[kind] == name
            quantity, total_quantity, unit = (
                receipt["completion_tokens"] if is_at_place else 0,
                use.answer_tokens.get(scope, 0),
                "tokens of answers",
            )
        elif kind in ("deployment", "site") and rule.per == "1000 calls":
            is_at_place = receipt[kind] == name and not (receipt["cache"] in _FROM_CACHE and receipt["status"] == "ok")
            quantity, total_quantity, unit = int(is_at_place), use.calls_at.get(rule.covers, 0), f"calls at {name}"
        elif kind in ("deployment", "site"):
            tokens_by_name = use.by_deployment if kind == "deployment" else use.by_site
            quantity, total_quantity, unit = (
                _tokens_at(receipt, kind, name),
                tokens_by_name.get(name, 0),
                f"tokens at {name}",
            )
        elif rule.per == cost_rules.TOOL_USES:
            uses = use.units.get(rule.per, Decimal(0)) * 1000
            quantity, total_quantity, unit = int(receipt["endpoint"] == cost_use.TOOLS), int(uses), "uses of tools"
        elif rule.per == "1M tokens" or (rule.rate is None and rule.by == "tokens"):
            quantity, total_quantity, unit = (
                receipt["prompt_tokens"] + receipt["completion_tokens"],
                use.tokens,
                "tokens",
            )
        elif rule.rate is None and rule.by == "cost":
            quantity, total_quantity, unit = from_decimal(Decimal(receipt["cost_usd"])), use.cost, "picodollars"
    return (quantity, total_quantity, unit) if total_quantity else (1, max(1, use.calls), "calls")


def _share_of_review(
    conn: Connection[Any], receipt: dict[str, Any], use: Use, day: date, line: Line
) -> tuple[int, int, str]:
    """As `_share_of_use`, in hundredths of a minute: review time belongs to the answer that was reviewed."""
    reported = use.reported_units.get(cost_rules.REVIEW_HOUR, Decimal(0))
    counted = use.units.get(cost_rules.REVIEW_HOUR, Decimal(0)) - reported
    minutes = cost_store.review_minutes_of_call(conn, UUID(receipt["id"]), day)
    minutes_of_call, hours = (minutes[1], reported) if AS_REPORTED in line.rule else (minutes[0], counted)
    return int(minutes_of_call * 100), max(1, round(hours * 6000)), "hundredths of a minute of review"


def _tokens_at(receipt: dict[str, Any], kind: str, name: str) -> int:
    """Tokens of the call at a deployment or site, on the day of the call: an attempt after midnight counts for the
    next day."""
    return sum(
        int(term["count"])
        for attempt in receipt["attempts"]
        for term in attempt["terms"]
        if attempt[kind] == name
        and attempt["at"][:10] == receipt["at"][:10]
        and term["term"] not in cost_use.NOT_TOKENS
    )


def _term(line: Line, amount: int, share: str) -> dict[str, Any]:
    return {
        "term": line.term, "cost_usd": format_usd(amount), "basis": line.basis, "rule": f"{share}: {line.rule}",
        "source": line.source, "allocation": line.allocation, "blueprints": list(line.blueprints),
    }  # fmt: skip
