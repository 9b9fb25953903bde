"""What the ledger says against what a bill says: the difference, explained by parts that add up to it exactly.

A line that names one of our calls is compared with that call; all others are compared in groups of the same day, model
and deployment. Pure: a bill and rows of the ledger in, a result out.
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
    """Whether what is made there is of `provider`: the first part of its model's name, or its deployment."""
    return model.partition("/")[0].lower() == provider.lower() or deployment == provider


def reconcile(
    bill: Bill,
    attempts: Sequence[Attempt],
    rates: Mapping[str, Rates],
    *,
    provider: str | None = None,
    exchange: Mapping[str, Decimal] | None = None,
    dated: DatedCurrencyRates = _NO_RATES,
) -> Reconciliation:
    """Compare. `rates` are those of each deployment now, for attempts that do not say their own; `exchange` is USD for
    one unit of another currency, else the declared rate of a line's day counts (`dated`).

    Without `provider`, attempts of models that the bill does not name are left out and counted.
    """
    with localcontext(prec=PRECISION):
        mine = [
            attempt
            for attempt in attempts
            if provider is None or is_billed_by(attempt.model, attempt.deployment, provider)
        ]
        work = Comparison(
            bill, rates, dict(exchange or {}), dated=dated, usage_only=all(line.amount is None for line in bill.lines),
            decimals=max((line.decimals for line in bill.lines), default=0),
            by_model={a.model: rates[a.deployment] for a in mine if a.deployment in rates},
        )  # fmt: skip
        rest_lines, rest_attempts, billed = match_by_id(work, bill.lines, mine)
        if len(rest_attempts) < len(mine):
            rest_lines, rest_attempts = match_by_usage(work, rest_lines, rest_attempts)
        left_out = match_by_group(work, rest_lines, rest_attempts, billed, everything=provider is not None)
        compared = len(mine) - len(left_out)
        return Reconciliation(
            work.total,
            sum((a.cost for a in mine), Decimal(0)) - sum((a.cost for a in left_out), Decimal(0)),
            tuple(sorted(work.rows, key=lambda row: (-abs(row.amount), row.kind, str(row.day)))),
            len(mine) - len(rest_attempts), compared, len(left_out), sum((a.cost for a in left_out), Decimal(0)),
            (*bill.notes, *work.notes()), work.unvalued + sum(work.unpriced.values()),
        )  # fmt: skip
