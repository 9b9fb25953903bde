"""What some days would have cost otherwise: reads what they cost, and at which price another model would answer.

Where the company declares that model, its own price counts, not the list's. Decides nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

from psycopg import Connection

from groundplan.api.cost import rules as cost_rules
from groundplan.api.cost import use as cost_use
from groundplan.api.cost.book import Days
from groundplan.api.served import current_blueprint, current_or_none, known_workload, workspace_at
from groundplan.blueprint.model import Rates
from groundplan.core.errors import Invalid, Problem
from groundplan.core.money import format_usd, from_decimal
from groundplan.economics.forecast.scenario import Part, parse, what_if
from groundplan.ledger import rollup_store
from groundplan.release.priced import of_model

_CHAT = "chat"
_BY = ("blueprint", "deployment", "part", "purpose", "tier")


def scenario(conn: Connection[Any], days: Days, workload: str | None, changes: list[str], model: str | None) -> Any:
    """{before_usd, after_usd, steps, price_source} of calls; what is allocated beside them is not in it. `model`: the
    name of a model or deployment. Raises `Invalid` (`scenario_invalid`, `price_missing`), `NotFound` for a workload
    that is not served and had no calls."""
    change = parse(changes)
    if model is not None:
        change = replace(change, rates=_rates(conn, model, days.last))
    parts = _parts(conn, days, workload)
    if workload is not None and not parts:
        known_workload(current_blueprint(conn), workload)
    made = what_if(parts, change)
    return {
        "from": days.first.isoformat(), "to": days.last.isoformat(), "workload": workload,
        "before_usd": format_usd(made.before), "after_usd": format_usd(made.after),
        "steps": [{"change": name, "cost_usd": format_usd(amount)} for name, amount in made.steps],
        "price_source": None if change.rates is None else change.rates.source,
    }  # fmt: skip


def _parts(conn: Connection[Any], days: Days, workload: str | None) -> list[Part]:
    """Only what chat models answered callers with would be another model's, or longer with longer contexts: neither
    embeddings nor what the gateway itself asked."""
    wanted = {**cost_use.wanted(days.first, days.last), "workload": workload}
    rows = rollup_store.parts_by(conn, _BY, wanted)
    declared = cost_rules.by_number(conn, {row["blueprint"] for row in rows})
    found = []
    for row in rows:
        under = declared.get(row["blueprint"])
        kind = _CHAT if under is None else under.kinds.get(row["deployment"], _CHAT)
        if row["part"] != "attempt":
            answers = kind == _CHAT and not row["purpose"]
            cost = from_decimal(row["cost_usd"])
            found.append(Part(row["part"], int(row["count"]), cost, answers=answers, tier=row["tier"]))
    return found


def _rates(conn: Connection[Any], model: str, day: date) -> Rates:
    """As it is served now, the first of several deployments of it; else as its document or the list says."""
    blueprint = current_or_none(conn)
    places = [] if blueprint is None else blueprint.deployments
    served = next((p for p in places if p.name == model), next((p for p in places if p.model == model), None))
    if served is not None:
        return served.rates
    rates = of_model(None if blueprint is None else workspace_at(conn, blueprint.number), model, day)
    if isinstance(rates, Problem):
        raise Invalid(
            f"no price is known for the model '{model[:80]}'",
            code="price_missing",
            hint="Name a deployment, a model that is declared with its price, or one of the price list such as "
            "openai/gpt-4.1-mini.",
        )
    return rates
