"""What an answer costs in its class of service, and the most that a request can cost, by the formula of
`economics.price`.

`economics.prices.provider_usage` reads the usage that upstreams report, for every surface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.blueprint.model import Deployment, Rates
from groundplan.economics import price
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask

BYTES_PER_TOKEN = 4
"""Of usual English text; only to estimate what a call is likely to use, never for a bound on its cost."""
_BATCH_FEATURE = frozenset({price.BATCH})
"""Every deployment accepts lines of batches, at its batch price or as any call."""
NAMED_CLASSES = frozenset({price.PRIORITY, price.FLEX})
"""Classes of service that a request names, for deployments that have a price for them."""
ORDINARY_TIERS = frozenset({"", "default"})
"""Service tiers in nearly all answers: none named, or the default."""
_STANDARD_TIERS = frozenset({"default", "standard", "on_demand", price.FLEX})
"""Providers' names of their standard tier, and a tier that costs no more anywhere, without a price of its own."""


def service_class(ask: Ask, deployment: Deployment, tier: str) -> str:
    """Return the class of service of an answer that names this tier; empty where that tier has no price there.

    An answer that names no tier is of the requested class, and standard where that was left to the provider.
    """
    if ask.is_batch_line:
        service = price.batch_line_service(deployment.rates, deployment.serves)
    else:
        service = price.STANDARD if ask.service == price.AUTO else ask.service
    if not tier:
        return service
    if tier == price.FLEX and deployment.rates.flex is not None and service != price.BATCH:
        return price.FLEX
    if tier in _STANDARD_TIERS:
        return price.STANDARD if service in NAMED_CLASSES else service
    return price.PRIORITY if tier == price.PRIORITY and deployment.rates.priority is not None else ""


def answer_cost(ask: Ask, deployment: Deployment, usage: Usage) -> tuple[int, bool]:
    """Return the picodollars of an answer by the service tier that it names, and whether that tier has a price. One
    without is charged as the dearest class that was reserved for: an unknown name does not exceed the bound."""
    rates, found = deployment.rates, service_class(ask, deployment, usage.service_tier)
    if found:
        return price.cost(rates, usage, found), True
    most = price.cost(rates, usage, unnamed_class(ask, deployment))
    if ask.service in (price.STANDARD, price.FLEX) or rates.priority is None:
        return most, False
    return max(most, price.cost(rates, usage, price.PRIORITY)), False


def unnamed_class(ask: Ask, deployment: Deployment) -> str:
    """Return the class of service of a request that names none."""
    return price.batch_line_service(deployment.rates, deployment.serves) if ask.is_batch_line else price.STANDARD


def unnamed_class_rates(ask: Ask, deployment: Deployment) -> Rates:
    """Return the rates of a request whose answer names no tier: of a line of a batch, or of any call."""
    return price.service_rates(deployment.rates, unnamed_class(ask, deployment))


def cost_bound(ask: Ask, deployment: Deployment, input_tokens: int, output_tokens: int) -> int:
    """Return the highest cost of a request in the dearest class of service in which it may end."""
    rates, service = deployment.rates, ask.service
    if not ask.is_batch_line:
        return price.cost_bound(rates, input_tokens, output_tokens, ask.images, service)
    own = price.cost_bound(rates, input_tokens, output_tokens, ask.images, unnamed_class(ask, deployment))
    if service == price.STANDARD or rates.priority is None:
        return own
    # whichever tier the answer names
    return max(own, price.cost_bound(rates.priority, input_tokens, output_tokens, ask.images))


def priced_features(deployment: Deployment) -> frozenset[str]:
    """Return the features of a deployment that have a cost, and a bound for it, of their own: `image`, `file`,
    `priority`, `flex`."""
    rates, taken = deployment.rates, _BATCH_FEATURE.union(deployment.accepts)
    if rates.priority is not None:
        taken |= {price.PRIORITY}
    return taken if rates.flex is None else taken | {price.FLEX}


def text_bound(deployment: Deployment, size: int) -> int:
    """Return the most tokens that `size` bytes can be: as many as bytes, unless the tokenizer is declared."""
    each = deployment.tokens_per_byte
    return size if each == 1.0 else -(-size * round(each * 1_000_000) // 1_000_000)


def input_bound(deployment: Deployment, size: int, messages: int) -> int:
    """Return the most tokens that a body of `size` bytes with so many messages can be."""
    text = size if deployment.tokens_per_byte == 1.0 else text_bound(deployment, size)
    return text + deployment.input_overhead_tokens * (messages + 2)
