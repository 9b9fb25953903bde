"""Rules for amounts in other currencies: a rate must be declared for every day on which the amount applies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from groundplan.catalog.workspace import Workspace
from groundplan.core.currencies import USD
from groundplan.core.errors import Problem, Where


def currency_problems(workspace: Workspace) -> Iterator[Problem]:
    """Prices and allocations in a currency without a rate, or that apply before its first rate."""
    for name, doc in workspace.allocations.items():
        field = next(key for key in ("cost", "rate", "purchase") if getattr(doc, key) is not None)
        where = workspace.where("allocation", name, field)
        yield from _rate_problems(workspace, doc.currency, doc.since or date.min, where)
    for kind, documents in (("deployment", workspace.deployments), ("model", workspace.models)):
        for name, priced in documents.items():
            for price in priced.price:
                where = workspace.where(kind, name, "price")
                yield from _rate_problems(workspace, price.currency, price.since or date.max, where)


def _rate_problems(workspace: Workspace, currency: str, since: date, where: Where) -> Iterator[Problem]:
    if currency == USD:
        return
    rule = workspace.company.currencies.get(currency)
    if rule is None:
        declared = ", ".join(sorted(workspace.company.currencies)) or "none"
        yield Problem(
            f"there is no rate of {currency}",
            "currency_unknown",
            f"Declare it at the company: currencies: {{{currency}: {{source: ..., rates: [{{from: 2026-01-01, "
            f"rate: 1.08 USD}}]}}}}. Declared are: {declared}.",
            where,
        )
        return
    first_day = min(each.since for each in rule.rates)
    if since < first_day:
        start = "from ever" if since == date.min else f"from {since}"
        yield Problem(
            f"it holds {start}, the first rate of {currency} from {first_day}",
            "currency_rate_missing",
            f"Add an earlier rate, or say from: {first_day}.",
            where,
        )
