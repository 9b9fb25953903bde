"""JSON shapes of things that more than one route shows. Money is text with 12 decimals in fields that end in `_usd`."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.blueprint.model import Blueprint
from groundplan.core.money import format_usd
from groundplan.release.model import placement_json

_RATE_FIELDS = ("input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio", "request")


def blueprint_json(blueprint: Blueprint) -> dict[str, Any]:
    """A blueprint for readers: as it is signed, except that amounts are decimal text."""
    body: dict[str, Any] = msgspec.to_builtins(blueprint)
    for budget in body["budgets"]:
        budget["limit_usd"] = format_usd(int(budget.pop("limit")))
    for deployment in body["deployments"]:
        deployment["rates"] = _rates_json(deployment["rates"])
        deployment["has_key"] = deployment.pop("key") is not None
    body["placements"] = [placement_json(placement) for placement in blueprint.placements]
    return body


def _rates_json(rates: dict[str, Any]) -> dict[str, Any]:
    """USD for each million tokens, and for each request."""
    rates_usd = {f"{name}_usd": format_usd(rates[name]) for name in _RATE_FIELDS if rates[name] is not None}
    return {**rates_usd, "source": rates["source"], "effective": rates["effective"]}
