"""JSON shapes of things that more than one route shows. Money is text with 12 decimals in fields that end in `_usd`."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.blueprint.model import Alternative, Blueprint, Placement
from groundplan.core.money import format_usd

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
    shown = {f"{name}_usd": format_usd(rates[name]) for name in _RATE_FIELDS if rates[name] is not None}
    return {**shown, "source": rates["source"], "effective": rates["effective"]}


def placement_json(placement: Placement) -> dict[str, Any]:
    """Where a workload runs and why not elsewhere."""
    return {
        "workload": placement.workload,
        "primary": placement.primary,
        "fallbacks": placement.fallbacks,
        "binding": placement.binding,
        "gap": placement.gap,
        "burst": placement.burst,
        "to_build": [
            {"site": b.site, "model": b.model, "config": b.config, "monthly_usd": format_usd(b.monthly)}
            for b in placement.to_build
        ],
        "expects": placement.expects,
        "alternatives": [alternative_json(alternative) for alternative in placement.alternatives],
    }


def alternative_json(alternative: Alternative) -> dict[str, Any]:
    return {
        "deployment": alternative.deployment,
        "site": alternative.site,
        "allowed": alternative.allowed,
        "reasons": alternative.reasons,
        "monthly_usd": None if alternative.monthly is None else format_usd(alternative.monthly),
    }
