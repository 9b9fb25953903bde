"""Prices of other units than tokens (an image, a minute of sound, a million characters, a search), as LiteLLM writes
them and as options of the import do, and what else bounds the cost of such a call. Pure; token prices are read by
`litellm_prices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from shlex import quote
from typing import Any

from groundplan.catalog.imports.node import Node
from groundplan.catalog.imports.verdict import CARRIED, Finding
from groundplan.core.money import format_plain, parse_usd, to_decimal

_SMALLEST = Decimal("0.000000000001")
_MOST = Decimal(9_000_000)
_ZERO_PRICE = "0 USD/Mtok"
MAX_AUDIO = "30m"
"""Default of `audio:`, the most audio in one request, all of which is reserved, if a minute has a price."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit that deployments of a type are priced in, if not in tokens."""

    word: str
    """Name in options: `0.006/minute`."""
    example: str
    keys: Mapping[str, int]
    """LiteLLM's key -> number of its units in one of this unit."""

    def price(self, amount: Decimal) -> dict[str, Any]:
        """The `price:` of a deployment."""
        text = f"{format_plain(amount)} USD"
        each: dict[str, Any] = {"images": {"any": text}} if self.word == "image" else {self.word: text}
        return {"input": _ZERO_PRICE, "output": _ZERO_PRICE} | each


UNITS = {
    "images": Unit("image", "0.04", {"input_cost_per_image": 1, "output_cost_per_image": 1}),
    "transcription": Unit("minute", "0.006", {"input_cost_per_second": 60, "output_cost_per_second": 60}),
    "speech": Unit("characters", "15", {"input_cost_per_character": 1_000_000}),
    "rerank": Unit("request", "0.002", {"input_cost_per_query": 1}),
}
"""By type of deployment."""
WORDS = tuple(unit.word for unit in UNITS.values())


def read_unit_price(kind: str, params: Node | None, info: Node | None) -> tuple[dict[str, Any] | None, list[Finding]]:
    """The price by unit in `litellm_params` or `model_info`, the highest of several; None if there is none."""
    unit = UNITS.get(kind)
    if unit is None:
        return None, []
    amounts: list[Decimal] = []
    findings: list[Finding] = []
    for key, node in _keys(unit, params, info):
        number = node.number()
        if number is None:
            continue
        with localcontext(prec=80):
            amount = (number * unit.keys[key]).quantize(_SMALLEST, ROUND_CEILING)
        if not 0 <= amount <= _MOST:
            node.add_problem("a price in USD")
            continue
        amounts.append(amount)
        findings.append(Finding(CARRIED, key, f"price of the deployment, by {unit.word}", "", node.where_key))
    return unit.price(max(amounts)) if amounts else None, findings


def _keys(unit: Unit, params: Node | None, info: Node | None) -> Iterator[tuple[str, Node]]:
    """Keys with a price and their nodes; `litellm_params` wins, as in LiteLLM."""
    for key in unit.keys:
        found = [node for part in (params, info) if part is not None and (node := part.get(key)) and not node.is_empty]
        if found:
            yield key, found[0]


def parse_price(text: str, kind: str) -> dict[str, Any] | str | None:
    """The price from an option: `free`, `IN/OUT`, or `AMOUNT/UNIT`; None if the unit is that of another type."""
    if text == "free":
        return text
    given, _, rest = text.partition("/")
    if rest not in WORDS:
        return {"input": f"{given} USD/Mtok", "output": f"{rest} USD/Mtok"}
    unit = UNITS.get(kind)
    return unit.price(to_decimal(parse_usd(given))) if unit is not None and unit.word == rest else None


def price_hint(model: str, kind: str) -> str:
    """The option that states the price of a model of this type."""
    unit = UNITS.get(kind)
    model = quote(model)
    tokens = f"--price {model}=IN/OUT in USD per million tokens"
    return tokens if unit is None else f"--price {model}={unit.example}/{unit.word} in USD, or {tokens}"


@dataclass(frozen=True, slots=True)
class MissingBound:
    """A bound of the cost of one call that is missing."""

    what: str
    here: str
    todo: str


_IMAGE_BOUND = MissingBound(
    "a bound of what one image costs: image_tokens, or a price for each",
    "an image at a price by tokens has no bound without image_tokens",
    "Say --price MODEL=0.04/image, or complete it in deployments.yaml.",
)
_CONTEXT_BOUND = MissingBound(
    "a context: the most tokens that fit its model, all of which is reserved",
    "all that fits its model is reserved, and nobody says how much that is",
    "Write max_input_tokens in model_info.",
)


def missing_bound(kind: str, price: object, *, known_context: bool) -> MissingBound | None:
    """The bound that is missing for deployments of this type, if any. `price`: as in a deployment; None: that of the
    price list."""
    by_tokens = price is None or (isinstance(price, dict) and price["output"] != _ZERO_PRICE)
    if not by_tokens:
        return None
    if kind == "images":
        return _IMAGE_BOUND
    return _CONTEXT_BOUND if kind in ("realtime", "transcription") and not known_context else None
