"""The reservation of an attempt: taken from every budget that covers its call, before it is sent."""

from __future__ import annotations

from groundplan.blueprint.model import Budget
from groundplan.core.errors import GroundplanError
from groundplan.gateway.budgets.periods import is_over
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange


async def reserve(
    gateway: Gateway, exchange: Exchange, attempt: int, amount: int, *, keeps_periods: bool = False
) -> None:
    """Reserve `amount` from every covering budget, leasing more where this worker holds too little. Where a period ends
    meanwhile, the next one is charged, unless the call `keeps_periods`, as those of batches do. Raises `Exhausted`
    within about 250 ms."""
    token, number = (exchange.id_bytes, attempt), exchange.catalog.number if exchange.catalog else 0
    while not reserve_locally(gateway, exchange, attempt, amount):
        budgets = [budget for budget, _ in exchange.charges]
        short = await gateway.leases.acquire(token, exchange.charge_list(amount), budgets, number)
        if short is None:
            exchange.reservation, exchange.reserved_amount = token, amount
            return
        now = gateway.clock.seconds()
        if keeps_periods or not is_over(short.period, now):
            raise _budget_refusal(gateway, exchange, short.budget, amount)
        exchange.charges = admit.with_periods(budgets, now)


def _budget_refusal(gateway: Gateway, exchange: Exchange, short: str, amount: int) -> GroundplanError:
    """The refusal of a call for which the budget `short` has no room. Of all without room, as far as this worker knows,
    it names the one that has room again last: a client that waits for another one would be refused again."""
    if exchange.flight is not None:
        exchange.flight.exhausted = short
    budget, period = next(each for each in exchange.charges if each[0].name == short)
    if amount <= budget.limit and not gateway.leases.was_refused_lately(short, period):
        return admit.budget_unreachable(budget, connected=gateway.leases.connected)
    others = [each for each in exchange.charges if each[0].hard and _is_exhausted(gateway, *each, amount)]
    unspent = gateway.leases.unspent
    lacking = [(*each, unspent(each[0].name, each[1])) for each in ((budget, period), *others)]
    budget, period, open_ = max(lacking, key=lambda each: admit.room_order(each[0], each[1], amount, each[2]))
    now, left = gateway.clock.now().timestamp(), gateway.live.remaining(budget, period)
    if gateway.leases.was_refused_lately(budget.name, period):
        left = open_  # PostgreSQL was asked just now; reports of other workers are older
    return admit.budget_exhausted(budget, amount, period, left, open_, now)


def _is_exhausted(gateway: Gateway, budget: Budget, period: str, amount: int) -> bool:
    """Whether a budget surely has no room: this worker has spent it, or PostgreSQL says so. What other workers hold may
    be given back."""
    spent = gateway.slices.spent(budget.name, period)
    return budget.limit - spent < amount or gateway.leases.was_refused_lately(budget.name, period)


def reserve_locally(gateway: Gateway, exchange: Exchange, attempt: int, amount: int) -> bool:
    """Reserve as `reserve`, out of what this worker holds, which is nearly always enough; False, with nothing taken,
    where it is not."""
    token = (exchange.id_bytes, attempt)
    if gateway.slices.reserve(token, exchange.charge_list(amount)) is not None:
        return False
    exchange.reservation, exchange.reserved_amount = token, amount
    return True
