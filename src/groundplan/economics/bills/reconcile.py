"""Compares the ledger with a bill, and explains the difference by parts that add up to it exactly.

A line that names one of our calls is compared with that call; all others are compared in groups of the same day, model
and deployment. Pure: it takes a parsed bill and attempts of the ledger, and reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Final

from groundplan.blueprint.model import Rates
from groundplan.economics.bills.compare import Comparison
from groundplan.economics.bills.match import match_by_group, match_by_id, match_by_usage
from groundplan.economics.bills.model import PRECISION, Attempt, Reconciliation
from groundplan.economics.bills.parse import Bill
from groundplan.economics.prices.currency import DatedCurrencyRates

_NO_RATES: Final[DatedCurrencyRates] = {}


def is_billed_by(model: str, deployment: str, provider: str) -> bool:
    """Whether `provider` bills calls of this model at this deployment: it is the first part of the model's name, or the
    deployment itself."""
    return model.partition("/")[0].lower() == provider.lower() or deployment == provider


def reconcile(
    bill: Bill,
    attempts: Sequence[Attempt],
    rates: Mapping[str, Rates],
    *,
    provider: str | None = None,
    exchange_rates: Mapping[str, Decimal] | None = None,
    dated_exchange_rates: DatedCurrencyRates = _NO_RATES,
) -> Reconciliation:
    """Compare the bill with the attempts.

    `rates` are the present ones of each deployment, for attempts without their own. `exchange_rates` are USD for one
    unit of a currency; where one is missing, the rate declared for the line's day applies (`dated_exchange_rates`).
    Without `provider`, attempts of models that the bill does not name are excluded and counted.
    """
    with localcontext(prec=PRECISION):
        of_provider = [
            attempt
            for attempt in attempts
            if provider is None or is_billed_by(attempt.model, attempt.deployment, provider)
        ]
        comparison = Comparison(
            bill,
            rates,
            dict(exchange_rates or {}),
            dated_exchange_rates=dated_exchange_rates,
            usage_only=all(line.amount is None for line in bill.lines),
            decimals=max((line.decimals for line in bill.lines), default=0),
            rates_by_model={a.model: rates[a.deployment] for a in of_provider if a.deployment in rates},
        )
        unmatched_lines, unmatched, billed_models = match_by_id(comparison, bill.lines, of_provider)
        if len(unmatched) < len(of_provider):
            unmatched_lines, unmatched = match_by_usage(comparison, unmatched_lines, unmatched)
        excluded = match_by_group(
            comparison, unmatched_lines, unmatched, billed_models, everything=provider is not None
        )
        compared = len(of_provider) - len(excluded)
        return Reconciliation(
            comparison.total,
            sum((a.cost for a in of_provider), Decimal(0)) - sum((a.cost for a in excluded), Decimal(0)),
            tuple(sorted(comparison.discrepancies, key=lambda each: (-abs(each.amount), each.kind, str(each.day)))),
            len(of_provider) - len(unmatched), compared, len(excluded),
            sum((a.cost for a in excluded), Decimal(0)), (*bill.notes, *comparison.notes()),
            comparison.unpriced_lines + sum(comparison.lines_without_rate.values()),
        )  # fmt: skip
