"""What a call costs and the most that it can cost, by the formula of `economics.price`.

Usage as upstreams report it is read by `economics.prices.reported`, for every surface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.blueprint.model import Deployment, Rates
from groundplan.economics import price
from groundplan.economics.prices.reported import MAX_TOKENS
from groundplan.economics.prices.reported import ChatUsage as ReportedUsage
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Ask

__all__ = ["MAX_TOKENS", "ReportedUsage", "bound", "cost", "input_bound", "most", "service", "takes"]
_BATCH = frozenset({price.BATCH})
"""Whatever can be called can be called in a batch, at its price for that or as any call."""


def cost(usage: Usage, rates: Rates) -> int:
    """Picodollars of `usage`; the formula is economics'."""
    return price.cost(rates, usage)


def bound(rates: Rates, input_tokens: int, output_tokens: int) -> int:
    """The most that an attempt with at most these tokens can cost, whatever classes they turn out to be."""
    return price.bound(rates, input_tokens, output_tokens)


def service(ask: Ask, deployment: Deployment) -> str:
    """The class of service at whose price a deployment serves a request."""
    return price.of_line(deployment.rates, deployment.serves) if ask.line else ask.service


def most(ask: Ask, deployment: Deployment, input_tokens: int, output_tokens: int) -> int:
    """As `bound`, in the class of service that the request is of."""
    return price.bound(deployment.rates, input_tokens, output_tokens, ask.images, service(ask, deployment))


def takes(deployment: Deployment) -> frozenset[str]:
    """What may be asked of a deployment that has a cost of its own and a bound for it: `image`, `file`, `priority`."""
    priority = frozenset({price.PRIORITY}) if deployment.rates.priority is not None else frozenset[str]()
    return priority | _BATCH | frozenset(deployment.accepts)


def input_bound(deployment: Deployment, size: int, messages: int) -> int:
    """Most tokens that a body of `size` bytes with so many messages can be: a token has at least one byte."""
    return size + deployment.input_overhead_tokens * (messages + 2)
