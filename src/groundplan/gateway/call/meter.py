"""What an answer of a class of service costs and the most that a request can cost, by the formula of `economics.price`.

Usage as upstreams report it is read by `economics.prices.provider_usage`, for every surface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.blueprint.model import Deployment, Rates
from groundplan.economics import price
from groundplan.economics.prices.provider_usage import MAX_TOKENS
from groundplan.economics.prices.provider_usage import ChatUsage as ReportedUsage
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask

__all__ = [
    "BYTES_PER_TOKEN", "MAX_TOKENS", "ReportedUsage", "charged", "input_bound", "most", "rates_of", "service", "takes",
    "text_bound",
]  # fmt: skip
BYTES_PER_TOKEN = 4
"""Of usual English text; only for what a call is likely to have, never for what it may cost."""
_BATCH = frozenset({price.BATCH})
"""Whatever can be called can be called in a batch, at its price for that or as any call."""
OWN = frozenset({price.PRIORITY, price.FLEX})
"""Classes of service that are asked for by name, of deployments that have a price for them."""
ORDINARY = frozenset({"", "default"})
"""Service tiers that an answer may name, or not name, of which nearly every one is."""
_STANDARD = frozenset({"default", "standard", "on_demand", price.FLEX})
"""What providers call their standard tier, and one that costs no more anywhere, where it has no price of its own."""


def service(ask: Ask, deployment: Deployment, tier: str) -> str:
    """The class of service of an answer that names this tier; empty where a tier of that name has no price there.

    An answer that names none is of the class that was asked for, and standard where that was left to the provider.
    """
    if ask.line:
        asked = price.batch_line_service(deployment.rates, deployment.serves)
    else:
        asked = price.STANDARD if ask.service == price.AUTO else ask.service
    if not tier:
        return asked
    if tier == price.FLEX and deployment.rates.flex is not None and asked != price.BATCH:
        return price.FLEX
    if tier in _STANDARD:
        return price.STANDARD if asked in OWN else asked
    return price.PRIORITY if tier == price.PRIORITY and deployment.rates.priority is not None else ""


def charged(ask: Ask, deployment: Deployment, usage: Usage) -> tuple[int, bool]:
    """Picodollars of an answer by the service tier that it names, and whether that has a price there; where it has
    none, those of the dearest class for which was reserved: that nobody knows a name is no bill above it."""
    rates, found = deployment.rates, service(ask, deployment, usage.service_tier)
    if found:
        return price.cost(rates, usage, found), True
    most = price.cost(rates, usage, _own(ask, deployment))
    if ask.service in (price.STANDARD, price.FLEX) or rates.priority is None:
        return most, False
    return max(most, price.cost(rates, usage, price.PRIORITY)), False


def _own(ask: Ask, deployment: Deployment) -> str:
    """The class of service of what is asked for in none of its own."""
    return price.batch_line_service(deployment.rates, deployment.serves) if ask.line else price.STANDARD


def rates_of(ask: Ask, deployment: Deployment) -> Rates:
    """Those of what has no tier, which its answer would name: of a line of a batch, or of any call."""
    return price.service_rates(deployment.rates, _own(ask, deployment))


def most(ask: Ask, deployment: Deployment, input_tokens: int, output_tokens: int) -> int:
    """As `bound`, in the dearest class of service in which the request may end."""
    rates, asked = deployment.rates, ask.service
    if not ask.line:
        return price.cost_bound(rates, input_tokens, output_tokens, ask.images, asked)
    own = price.cost_bound(rates, input_tokens, output_tokens, ask.images, _own(ask, deployment))
    if asked == price.STANDARD or rates.priority is None:
        return own
    return max(
        own, price.cost_bound(rates.priority, input_tokens, output_tokens, ask.images)
    )  # whichever tier it names


def takes(deployment: Deployment) -> frozenset[str]:
    """What may be asked of a deployment that has a cost of its own and a bound for it: `image`, `file`, `priority`,
    `flex`."""
    rates, taken = deployment.rates, _BATCH.union(deployment.accepts)
    if rates.priority is not None:
        taken |= {price.PRIORITY}
    return taken if rates.flex is None else taken | {price.FLEX}


def text_bound(deployment: Deployment, size: int) -> int:
    """Most tokens that `size` bytes can be: as many, where nothing else is declared of the tokenizer."""
    each = deployment.tokens_per_byte
    return size if each == 1.0 else -(-size * round(each * 1_000_000) // 1_000_000)


def input_bound(deployment: Deployment, size: int, messages: int) -> int:
    """Most tokens that a body of `size` bytes with so many messages can be."""
    text = size if deployment.tokens_per_byte == 1.0 else text_bound(deployment, size)
    return text + deployment.input_overhead_tokens * (messages + 2)
