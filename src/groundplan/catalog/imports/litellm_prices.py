"""Prices of a LiteLLM model entry: USD for one token as a number -> exact USD for a million tokens.

Prices of long prompts, batches and the tiers priority and flex have classes of their own; of several for one class, the
highest is taken, so that costs are never understated. Prices of other units are read by `litellm_units`; units without
an equivalent get a finding. Knows no price list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal, InvalidOperation, localcontext
from typing import Any

from groundplan.catalog.imports.litellm_units import UNITS
from groundplan.catalog.imports.node import Node
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NO_EQUAL, Finding
from groundplan.core.money import format_plain

CLASSES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "input_audio",
    "output_cost_per_audio_token": "output_audio",
    "input_cost_per_request": "request",
    "input_cost_per_image": "image",
}
"""LiteLLM's key -> the class of a price here."""
_PER_USE = ("request", "image")
"""Classes that are not priced per token."""
_TIER = re.compile(r"(?P<base>[a-z_]+?)_(?:above_(?P<above>\d+)k_tokens|(?P<service>batches|priority|flex))", re.ASCII)
_HOUR = re.compile(r"(?P<base>[a-z_]+?)_above_\dhr", re.ASCII)
_PRICE = re.compile(r"(input|output|cache)_.*cost|.*_cost_per_|.*cost$", re.ASCII)
_SMALLEST = Decimal("0.000000000001")
_MOST = Decimal(9_000_000)
_PER_TOKEN = Decimal(1_000_000)
_HALF_A_PRICE = "left out: what input costs, and what output costs, together are a price"
_COSTS_MORE = "left out: 0 is not what a call costs, as it also has a price in another unit"


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """The token price of one entry."""

    price: dict[str, Any] | str | None
    """The `price:` of a deployment, `free`, or None if there is none or only a part of it."""
    findings: tuple[Finding, ...]


def is_price(key: str) -> bool:
    return _PRICE.match(key) is not None


def read_token_price(params: Node | None, info: Node | None, *, kind: str) -> TokenPrice:
    """The price in `litellm_params` or `model_info`; the former wins, as in LiteLLM."""
    amounts: dict[str, dict[str, Decimal]] = {}
    above: list[int] = []
    findings: list[Finding] = []
    costs_more = False
    for key, node in _keys(params, info):
        place = _price_class(key)
        if kind in UNITS and key in UNITS[kind].keys:
            continue
        if place is None:
            findings.append(_unpriced_finding(key, node))
            costs_more |= not _is_zero(node.value)
            continue
        amount = _amount(place.wanted, node)
        if amount is None:
            continue
        exact = amount.quantize(_SMALLEST, ROUND_CEILING)
        findings.append(_price_finding(key, place, node, exact=exact == amount))
        tier = amounts.setdefault(place.tier, {})
        tier[place.wanted] = max(tier.get(place.wanted, exact), exact)
        above += [place.above] if place.above else []
    price = _price(amounts, above, embeddings=kind == "embeddings")
    if price == "free" and costs_more:  # what has no equivalent is not zero
        return TokenPrice(None, tuple(_left_out_finding(each, _COSTS_MORE) for each in findings))
    return TokenPrice(price, tuple(findings if price is not None else map(_left_out_finding, findings)))


@dataclass(frozen=True, slots=True)
class _PriceClass:
    """Where a key's amount goes: `price.TIER.WANTED`, or `price.WANTED`."""

    wanted: str
    tier: str = ""
    above: int = 0
    dearest: bool = False
    """It shares its place with another key."""


def _is_zero(value: object) -> bool:
    """Whether an amount is certainly 0."""
    try:
        return isinstance(value, str | int | float) and Decimal(str(value)) == 0
    except InvalidOperation:
        return False


def _keys(params: Node | None, info: Node | None) -> Iterator[tuple[str, Node]]:
    told = {key for key, node in params.items() if not node.is_empty} if params else set()
    for part in (params, info):
        for key, node in part.items() if part else ():
            if is_price(key) and not node.is_empty and (part is params or key not in told):
                yield key, node


def _price_class(key: str) -> _PriceClass | None:
    if key in CLASSES:
        return _PriceClass(CLASSES[key])
    tier, hour = _TIER.fullmatch(key), _HOUR.fullmatch(key)
    found = tier or hour
    wanted = CLASSES.get(found["base"]) if found is not None else None
    if wanted is None or wanted in _PER_USE:
        return None
    if tier is None:
        return _PriceClass(wanted, dearest=True)
    if tier["above"]:
        return _PriceClass(wanted, "long", int(tier["above"]) * 1000)
    return _PriceClass(wanted, "batch" if tier["service"] == "batches" else tier["service"])


def _amount(wanted: str, node: Node) -> Decimal | None:
    """USD for a million tokens, or for a request."""
    number = node.number()
    if number is None:
        return None
    with localcontext(prec=80):
        amount = number if wanted in _PER_USE else number * _PER_TOKEN
    if amount > _MOST:
        node.add_problem("a price in USD for one token")
        return None
    return amount


def _price(
    amounts: dict[str, dict[str, Decimal]], above: list[int], *, embeddings: bool
) -> dict[str, Any] | str | None:
    base = amounts.pop("", {})
    if embeddings and "input" in base:
        base.setdefault("output", Decimal(0))
    if "input" not in base or "output" not in base:
        return None
    if not any(base.values()) and not any(any(tier.values()) for tier in amounts.values()):
        return "free"
    found: dict[str, Any] = dict(_classes(base))
    for name, tier in sorted(amounts.items()):
        found[name] = ({"above": min(above)} if name == "long" else {}) | _classes(tier)
    return found


def _classes(amounts: dict[str, Decimal]) -> dict[str, str]:
    units = {name: "USD" if name in _PER_USE else "USD/Mtok" for name in amounts}
    return {name: f"{format_plain(amounts[name])} {units[name]}" for name in CLASSES.values() if name in amounts}


def _price_finding(key: str, place: _PriceClass, node: Node, *, exact: bool) -> Finding:
    name = ".".join(part for part in ("price", place.tier, place.wanted) if part)
    if place.dearest:
        here = f"{name} has one amount; the dearest was taken"
        return Finding(CHANGED, key, here, "Write the lower one where the dearer never comes up.", node.where_key)
    if not exact:
        here = f"{name}: finer than a picodollar for a million tokens, rounded up to one"
        return Finding(CHANGED, key, here, "", node.where_key)
    return Finding(CARRIED, key, f"{name} of the deployment, exact", "", node.where_key)


def _left_out_finding(found: Finding, here: str = _HALF_A_PRICE) -> Finding:
    """The finding for an amount that alone makes no price; `here`: why."""
    if found.state == NO_EQUAL:
        return found
    return replace(found, state=CHANGED, here=here, todo="Write both as price: of the deployment.")


def _unpriced_finding(key: str, node: Node) -> Finding:
    return Finding(
        NO_EQUAL, key, "a deployment of this type has no price in this unit",
        "Write what it comes to for a token, or for a request, as price: of the deployment.", node.where_key,
    )  # fmt: skip
