"""What a call would cost, without making it: the answer to a request with the header `groundplan-estimate`.

Everything is checked as for a call; nothing is reserved, sent or charged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.core.money import format_usd, optional_usd
from groundplan.economics import price
from groundplan.economics.prices.time_of_day import rates_at
from groundplan.gateway.call import admit, pricing
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.settle import remaining_budget
from groundplan.gateway.policy.catalog import Plan
from groundplan.gateway.policy.snapshot import Policy

HEADER = b"groundplan-estimate"
_NEGATIVE = frozenset({b"0", b"false", b"no", b"off"})


def wants_estimate(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request asks for an estimate: it has the header, and not with a value that means no."""
    return HEADER in headers and headers[HEADER].lower() not in _NEGATIVE


def refuse_cost_headers(headers: Mapping[bytes, bytes], what: str, *names: bytes) -> None:
    """Refuse a request for `what`, where headers about the cost of one call do not apply: ignoring them, it would
    charge for an estimate, or more than the caller allowed. Raises `Invalid`."""
    for name in names:
        if name in headers and (name != HEADER or wants_estimate(headers)):
            raise Invalid(
                f"{name.decode()} is not for {what}",
                code="header_unsupported",
                hint="Leave it out: it is of a single call. `max_cost_per_call` of the workload holds for each.",
            )


def estimate(gateway: Gateway, exchange: Exchange, plan: Plan, policy: Policy) -> bytes:
    """The JSON of the estimate. Raises the refusal that the call would get, except for what its budgets have left."""
    ask = exchange.ask
    if ask is None:
        raise AssertionError("not read")
    exchange.deployments = admit.choose_deployments(exchange, plan, ask, policy, gateway.clock.seconds())
    most = admit.set_bounds(exchange, plan, ask, exchange.deployments)
    admit.check_cost(exchange, plan, most)
    exchange.charges = admit.covering_budgets(exchange, plan, gateway.clock.now().timestamp())
    left = remaining_budget(gateway, exchange)
    return msgspec.json.encode(
        {
            "object": "groundplan.estimate",
            "workload": plan.workload.name,
            "most_usd": format_usd(most),
            "budget_remaining_usd": optional_usd(left),
            "fits": left is None or most <= left,
            "deployments": [
                _deployment_estimate(exchange, plan, each, gateway.clock.seconds()) for each in exchange.deployments
            ],
        }
    )


def _deployment_estimate(exchange: Exchange, plan: Plan, place: Deployment, now: float) -> dict[str, Any]:
    """What the call may cost, and would likely cost if sent `now`, at one of its deployments."""
    ask, deployment = exchange.ask, place
    if ask is None:
        raise AssertionError("not read")
    if place.rates.windows:
        deployment = msgspec.structs.replace(place, rates=rates_at(place.rates, int(now * 1000)))
    added = admit.added_bytes(exchange, plan.workload)
    usage, _ = exchange.interface.estimate(ask, deployment, added, 0, admit.output_cap(exchange, deployment))
    likely = msgspec.structs.replace(usage, input=min(usage.input, (ask.size + added) // pricing.BYTES_PER_TOKEN + 1))
    if exchange.interface.has_custom_cost:
        cost = exchange.interface.cost(ask, deployment, likely)
    else:
        cost = price.cost(deployment.rates, likely, ask.service)
    return {
        "deployment": deployment.name,
        "model": deployment.model,
        "most_usd": format_usd(exchange.bounds[deployment.name]),
        "most_prompt_tokens": usage.input,
        "most_completion_tokens": usage.output,
        "likely_usd": format_usd(cost),
        "likely_prompt_tokens": likely.input,
    }
