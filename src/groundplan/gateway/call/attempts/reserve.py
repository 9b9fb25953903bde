"""Money for an attempt: taken from every budget that covers its call, before it is sent."""

from __future__ import annotations

from groundplan.blueprint.model import Budget
from groundplan.core.errors import GroundplanError
from groundplan.gateway.budgets.periods import is_over
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange


async def reserve(gateway: Gateway, exchange: Exchange, attempt: int, amount: int, *, lasts: bool = False) -> None:
    """Take `amount` from every covering budget, getting more of it where needed. A period that has ended without room
    for it is no reason: the next one is asked, unless the call `lasts` longer than its periods, as those of batches.
    Raises `Exhausted` within about 250 ms."""
    token, number = (exchange.raw, attempt), exchange.catalog.number if exchange.catalog else 0
    while not at_hand(gateway, exchange, attempt, amount):
        budgets = [budget for budget, _ in exchange.charges]
        short = await gateway.leases.acquire(token, exchange.charge_list(amount), budgets, number)
        if short is None:
            exchange.token, exchange.reserved = token, amount
            return
        now = gateway.clock.seconds()
        if lasts or not is_over(short.period, now):
            raise _no_room(gateway, exchange, short.budget, amount)
        exchange.charges = admit.dated(budgets, now)


def _no_room(gateway: Gateway, exchange: Exchange, short: str, amount: int) -> GroundplanError:
    """The refusal of a call for which the budget `short` has no room. Of all without room, as far as this worker knows,
    it tells of the one that is free again last: whoever waits for another one is refused again."""
    if exchange.flight is not None:
        exchange.flight.lacked = short
    budget, period = next(each for each in exchange.charges if each[0].name == short)
    if amount <= budget.limit and not gateway.leases.told_empty(short, period):
        return admit.out_of_reach(budget, connected=gateway.leases.connected)
    others = [each for each in exchange.charges if each[0].hard and _is_out(gateway, *each, amount)]
    unspent = gateway.leases.unspent
    lacking = [(*each, unspent(each[0].name, each[1])) for each in ((budget, period), *others)]
    budget, period, open_ = max(lacking, key=lambda each: admit.frees(each[0], each[1], amount, each[2]))
    now, left = gateway.clock.now().timestamp(), gateway.live.remaining(budget, period)
    if gateway.leases.told_empty(budget.name, period):
        left = open_  # PostgreSQL was asked just now; what is told of other workers is older
    return admit.exhausted(budget, amount, period, left, open_, now)


def _is_out(gateway: Gateway, budget: Budget, period: str, amount: int) -> bool:
    """Whether it surely has no room: this worker has spent it, or PostgreSQL has told so. What other workers hold may
    be given back."""
    spent = gateway.slices.spent(budget.name, period)
    return budget.limit - spent < amount or gateway.leases.told_empty(budget.name, period)


def at_hand(gateway: Gateway, exchange: Exchange, attempt: int, amount: int) -> bool:
    """As `reserve`, of what this worker holds, which nearly always is enough; False, with nothing taken: it is not."""
    token = (exchange.raw, attempt)
    if gateway.slices.reserve(token, exchange.charge_list(amount)) is not None:
        return False
    exchange.token, exchange.reserved = token, amount
    return True
