"""Prices of a LiteLLM model entry: USD for one token as a number -> exact USD for a million tokens.

A price by prompt length, hour or tier becomes the dearest one that is written, so that a cost is never understated.
Prices for other units have no equal and are told. Knows no price list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, localcontext

from groundplan.catalog.imports.node import Node
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NO_EQUAL, Finding

CLASSES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "input_audio",
    "output_cost_per_audio_token": "output_audio",
    "input_cost_per_request": "request",
}
"""LiteLLM's key -> the class of a price here."""
_TIER = re.compile(r"(?P<base>[a-z_]+?)_(?:above_\d+k?(?:_?hr|_tokens)|priority|flex)+$", re.ASCII)
_PRICE = re.compile(r"(input|output|cache)_.*cost|.*_cost_per_|.*cost$", re.ASCII)
_SMALLEST = Decimal("0.000000000001")
_MOST = Decimal(9_000_000)
_PER_TOKEN = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Written:
    """The price of one entry."""

    price: dict[str, str] | str | None
    """As a `price:` here, `free`, or None where none is written, or not all of it."""
    findings: tuple[Finding, ...]


def is_price(key: str) -> bool:
    return _PRICE.match(key) is not None


def written(params: Node | None, info: Node | None, *, embeddings: bool) -> Written:
    """The price in `litellm_params` or `model_info`; the latter wins, as in LiteLLM."""
    amounts: dict[str, Decimal] = {}
    findings: list[Finding] = []
    for key, node in _keys(params, info):
        wanted, tier = _class_of(key)
        if wanted is None:
            findings.append(_unpriced(key, node))
            continue
        amount = _amount(wanted, node)
        if amount is None:
            continue
        if tier or amount != amount.quantize(_SMALLEST):
            findings.append(_rounded(key, node, tier=tier))
        else:
            findings.append(Finding(CARRIED, key, f"price.{wanted} of the deployment, exact", "", node.where_key))
        amounts[wanted] = max(amounts.get(wanted, Decimal(0)), amount.quantize(_SMALLEST, ROUND_CEILING))
    return Written(_price(amounts, embeddings=embeddings), tuple(findings))


def _keys(params: Node | None, info: Node | None) -> Iterator[tuple[str, Node]]:
    own = {key for key, node in info.items() if not node.empty} if info else set()
    for part in (params, info):
        for key, node in part.items() if part else ():
            if is_price(key) and not node.empty and (part is info or key not in own):
                yield key, node


def _class_of(key: str) -> tuple[str | None, bool]:
    """(class here, whether the key is one tier of it)"""
    if key in CLASSES:
        return CLASSES[key], False
    match = _TIER.fullmatch(key)
    return (CLASSES.get(match["base"]) if match else None), True


def _amount(wanted: str, node: Node) -> Decimal | None:
    """USD for a million tokens, or for a request."""
    number = node.number()
    if number is None:
        return None
    with localcontext(prec=80):
        amount = number if wanted == "request" else number * _PER_TOKEN
    if amount > _MOST:
        node.complain("a price in USD for one token")
        return None
    return amount


def _price(amounts: dict[str, Decimal], *, embeddings: bool) -> dict[str, str] | str | None:
    if embeddings and "input" in amounts:
        amounts.setdefault("output", Decimal(0))
    if "input" not in amounts or "output" not in amounts:
        return None
    if not any(amounts.values()):
        return "free"
    units = {name: "USD" if name == "request" else "USD/Mtok" for name in amounts}
    return {name: f"{plain(amounts[name])} {units[name]}" for name in CLASSES.values() if name in amounts}


def plain(amount: Decimal) -> str:
    """Without exponent and without zeros at the end, two decimals at least."""
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _rounded(key: str, node: Node, *, tier: bool) -> Finding:
    if tier:
        here = "price: has one amount for each class of tokens; the dearest of all tiers was taken"
        todo = "Where prompts stay below the limit, write the lower price, and lower context: to it."
    else:
        here, todo = "finer than a picodollar for a million tokens: rounded up to one", ""
    return Finding(CHANGED, key, here, todo, node.where_key)


def _unpriced(key: str, node: Node) -> Finding:
    return Finding(
        NO_EQUAL, key, "prices here are for tokens and requests",
        "Write what it comes to for a token, or for a request, as price: of the deployment.", node.where_key,
    )  # fmt: skip
