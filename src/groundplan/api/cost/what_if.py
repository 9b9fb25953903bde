"""What-if scenarios of past costs: reads what a period cost, and the price of another model.

A price that the company declares for that model takes precedence over the price list. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

from psycopg import Connection

from groundplan.api.cost import daily_usage as cost_use
from groundplan.api.cost import declared_costs as cost_rules
from groundplan.api.cost.book import Days
from groundplan.api.cost.declared_costs import DeclaredCosts
from groundplan.api.served_blueprint import current_blueprint, current_or_none, require_workload, workspace_at
from groundplan.blueprint.model import Rates
from groundplan.core.errors import Invalid, Problem
from groundplan.core.money import format_usd, from_decimal
from groundplan.economics.forecast.scenario import CallGroup, Change, parse_changes, what_if
from groundplan.economics.forecast.tiers import tier_edges
from groundplan.economics.prices import price_list
from groundplan.ledger import archive_store, prompt_store, rollup_store
from groundplan.ledger.prompt_store import Place
from groundplan.release.compile.pricing import model_rates

_CHAT = "chat"
_GROUP_BY = ("blueprint", "deployment", "part", "purpose", "tier")
_NO_RATES = Rates(input=0, output=0)
"""Rates of deployments that no blueprint prices: no tiers."""
_Key = tuple[int, str, str, str, str, int | None]
"""The columns of `_GROUP_BY`, and the hour of the day where prices vary by it."""
_Rows = Sequence[Mapping[str, Any]]


def scenario(conn: Connection[Any], days: Days, workload: str | None, changes: list[str], model: str | None) -> Any:
    """`{"before_usd", "after_usd", "steps", "price_source", "notes"}` of the calls of a period, without allocated
    costs. `model`: the name of a model or deployment. Raises `Invalid` (`scenario_invalid`, `scenario_model`,
    `price_missing`), and `NotFound` for a workload that is not served and had no calls."""
    change, fits = parse_changes(changes), None
    if model is not None:
        rates, fits = _model_rates(conn, model, days.last)
        change = replace(change, rates=rates)
    rows = _usage_rows(conn, _query(days, workload), hours=_varies_by_hour(change))
    declared = cost_rules.costs_by_blueprint(conn, {row["blueprint"] for row in rows})
    chat = {key: own for key in map(_place, rows) if (own := _chat_rates(declared, *key)) is not None}
    parts, notes = _parts(conn, days, workload, change, rows, chat)
    if workload is not None and not parts:
        require_workload(current_blueprint(conn), workload)
    if model is not None or max(change.context, change.output) > 1:
        sizes = {key: fits for key in chat} if model is not None else _context_sizes(declared, chat)
        notes += _oversize_notes(conn, days, workload, change, model, sizes)
    result = what_if(parts, change)
    return {
        "from": days.first.isoformat(), "to": days.last.isoformat(), "workload": workload,
        "before_usd": format_usd(result.before), "after_usd": format_usd(result.after),
        "steps": [{"change": name, "cost_usd": format_usd(amount)} for name, amount in result.steps],
        "price_source": None if change.rates is None else change.rates.source,
        "notes": notes,
    }  # fmt: skip


def _query(days: Days, workload: str | None) -> dict[str, Any]:
    return {**cost_use.all_calls_of(days.first, days.last), "workload": workload}


def _varies_by_hour(change: Change) -> bool:
    """Whether the price of the other model varies by the hour of the day."""
    return change.rates is not None and bool(change.rates.windows)


def _usage_rows(conn: Connection[Any], query: Mapping[str, Any], *, hours: bool) -> list[dict[str, Any]]:
    """Sums by `_GROUP_BY`, and by the hour of the day with `hours`."""
    by = [*_GROUP_BY, "hour"] if hours else _GROUP_BY
    sums: dict[_Key, dict[str, Any]] = {}
    for row in rollup_store.parts_by(conn, by, dict(query)):
        if row["part"] == "attempt":
            continue
        values = {**row, "hour": rollup_store.hour_of_day(row.get("hour"))}
        total = sums.setdefault(_key(values, row["purpose"]), {**values, "count": 0, "cost_usd": Decimal(0)})
        total["count"] += int(row["count"])
        total["cost_usd"] += row["cost_usd"]
    return list(sums.values())


def _parts(
    conn: Connection[Any], days: Days, workload: str | None, change: Change, rows: _Rows, rates: Mapping[Place, Rates]
) -> tuple[list[CallGroup], list[str]]:
    """(parts of the cost, notes). Only answers of chat models to callers may move to another model or grow with longer
    contexts, not embeddings or calls of the gateway itself. Calls that may fall into another tier of a price are
    separate parts, by the length of their prompts; where that is no longer known, a note says so."""
    context = Fraction(repr(change.context))
    limits = {
        deployment: cut for deployment, price in rates.items() if (cut := tier_edges(price, change.rates, context))
    }
    hours = _varies_by_hour(change)
    long = prompt_store.parts_above(conn, days.since, days.until, workload, limits, hours=hours)
    counted_by_tier: dict[_Key, tuple[int, Decimal]] = {}
    by_request = change.rates is not None and change.rates.request > 0
    groups = _uncounted_requests(conn, _query(days, workload), rows, rates, hours=hours) if by_request else []
    for part in long:
        key, cost = _key(part, ""), from_decimal(part["cost_usd"])
        count, usd = counted_by_tier.get(key, (0, Decimal(0)))
        counted_by_tier[key] = count + int(part["count"]), usd + part["cost_usd"]
        price = rates[_place(part)]
        group = CallGroup(
            part["part"], int(part["count"]), cost, True, part["tier"], part["above"] + 1, price, part["hour"]
        )
        groups.append(group)
    for row in rows:
        count, usd = counted_by_tier.get(_key(row, row["purpose"]), (0, Decimal(0)))
        answers = not row["purpose"] and _place(row) in rates
        cost = from_decimal(row["cost_usd"] - usd)
        remaining = int(row["count"]) - count
        groups.append(CallGroup(row["part"], remaining, cost, answers=answers, tier=row["tier"], hour=row["hour"]))
    return groups, _archived_note(conn, days, "keep the tier of the price that they had") if limits else []


def _chat_rates(declared: Mapping[int, DeclaredCosts], number: int, deployment: str) -> Rates | None:
    """The rates of a chat deployment under a blueprint; None for a deployment of another type."""
    costs = declared.get(number)
    if costs is None:
        return _NO_RATES
    return costs.rates.get(deployment, _NO_RATES) if costs.kinds.get(deployment, _CHAT) == _CHAT else None


def _archived_note(conn: Connection[Any], days: Days, consequence: str) -> list[str]:
    """A note that calls of the period are archived, which ends with `consequence`; empty if none are."""
    archived_days = [row["day"] for row in archive_store.list_parts(conn) if days.first <= row["day"] <= days.last]
    if not archived_days:
        return []
    return [f"calls of {min(archived_days)} to {max(archived_days)} are archived, and {consequence}"]


def _place(row: Mapping[str, Any]) -> Place:
    return row["blueprint"], row["deployment"]


def _key(row: Mapping[str, Any], purpose: str) -> _Key:
    return row["blueprint"], row["deployment"], row["part"], purpose, row["tier"], row["hour"]


def _uncounted_requests(
    conn: Connection[Any], query: Mapping[str, Any], rows: _Rows, chat: Container[Place], *, hours: bool
) -> list[CallGroup]:
    """Requests that chat models answered at prices without a price per request, so that no cost row counts them."""
    counted = {_key(row, row["purpose"]) for row in rows if row["part"] == "requests"}
    by = ("blueprint", "deployment", "purpose", "tier", *(["hour"] if hours else []))
    return [
        CallGroup("requests", count, 0, tier=tier, hour=rollup_store.hour_of_day(*at))
        for (number, name, purpose, tier, *at), count in rollup_store.answers_by(conn, by, dict(query)).items()
        if not purpose
        and (number, name) in chat
        and (number, name, "requests", purpose, tier, rollup_store.hour_of_day(*at)) not in counted
    ]


def _context_sizes(declared: Mapping[int, DeclaredCosts], chat: Iterable[Place]) -> dict[Place, int | None]:
    """Deployment -> its context window in tokens; None where unknown."""
    return {(number, name): declared[number].contexts.get(name) for number, name in chat if number in declared}


def _oversize_notes(
    conn: Connection[Any], days: Days, workload: str | None, change: Change, model: str | None,
    sizes: Mapping[Place, int | None],
) -> list[str]:  # fmt: skip
    """Notes on how many of the newest calls would not fit the context window of the other model, or of their own
    deployment with longer prompts or answers."""
    known_sizes = {place: size for place, size in sizes.items() if size is not None}
    rows = prompt_store.count_beyond_context(
        conn, days.since, days.until, workload, known_sizes, (change.context, change.output)
    )
    counts: dict[tuple[str, int], tuple[int, int]] = {}
    for row in rows:
        key = model or row["deployment"], row["context"]
        checked, beyond = counts.get(key, (0, 0))
        counts[key] = checked + row["looked"], beyond + row["beyond"]
    notes = [
        f"{beyond:,} of {checked:,} calls that were looked at would not fit {name}, which takes {size:,} tokens of "
        "prompt and answer together"
        for (name, size), (checked, beyond) in sorted(counts.items())
        if beyond
    ]
    return [*notes, *_archived_note(conn, days, "nobody looked at whether they would fit")] if known_sizes else notes


def _model_rates(conn: Connection[Any], model: str, day: date) -> tuple[Rates, int | None]:
    """(rates, context window) of a model: of its first served deployment, else of its document or the price list. The
    window is None if it is unknown."""
    blueprint = current_or_none(conn)
    deployments = [] if blueprint is None else blueprint.deployments
    served = next((p for p in deployments if p.name == model), next((p for p in deployments if p.model == model), None))
    if served is not None and served.kind != _CHAT:
        raise Invalid(
            f"{served.name} is a deployment for {served.kind}, not for chat",
            code="scenario_model",
            hint="Name a chat model, or a deployment of one.",
        )
    if served is not None:
        return served.rates, served.context_tokens
    workspace = None if blueprint is None else workspace_at(conn, blueprint.number)
    rates = model_rates(workspace, model, day)
    if isinstance(rates, Problem):
        raise Invalid(
            f"no price is known for the model '{model[:80]}'",
            code="price_missing",
            hint="Name a deployment, a model that is declared with its price, or one of the price list such as "
            "openai/gpt-4.1-mini.",
        )
    described = None if workspace is None else workspace.models.get(model)
    return rates, (described.context if described is not None else None) or price_list.context_window(model)
