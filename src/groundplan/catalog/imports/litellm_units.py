"""What is no text is paid by the piece: an image, a minute of sound, a million characters, a search. How LiteLLM says
it, how it is asked for, and what a deployment of such a type needs beside its price. Pure; prices of tokens are
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
_NOTHING = "0 USD/Mtok"
LONGEST = "30m"
"""Of the audio in one request, where a minute has a price: all of it is reserved."""


@dataclass(frozen=True, slots=True)
class Unit:
    """In what deployments of a type are paid, where not by tokens."""

    word: str
    """As it is asked for: `0.006/minute`."""
    example: str
    keys: Mapping[str, int]
    """LiteLLM's key -> how many of its units one of these has."""

    def price(self, amount: Decimal) -> dict[str, Any]:
        """A `price:` here."""
        told = f"{format_plain(amount)} USD"
        each: dict[str, Any] = {"images": {"any": told}} if self.word == "image" else {self.word: told}
        return {"input": _NOTHING, "output": _NOTHING} | each


UNITS = {
    "images": Unit("image", "0.04", {"output_cost_per_image": 1}),
    "transcription": Unit("minute", "0.006", {"input_cost_per_second": 60, "output_cost_per_second": 60}),
    "speech": Unit("characters", "15", {"input_cost_per_character": 1_000_000}),
    "rerank": Unit("request", "0.002", {"input_cost_per_query": 1}),
}
"""By type of deployment."""
WORDS = tuple(unit.word for unit in UNITS.values())


def written(kind: str, params: Node | None, info: Node | None) -> tuple[dict[str, Any] | None, list[Finding]]:
    """The price by the piece in `litellm_params` or `model_info`, the dearest of several; None where there is none."""
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
            node.complain("a price in USD")
            continue
        amounts.append(amount)
        findings.append(Finding(CARRIED, key, f"price of the deployment, by {unit.word}", "", node.where_key))
    return unit.price(max(amounts)) if amounts else None, findings


def _keys(unit: Unit, params: Node | None, info: Node | None) -> Iterator[tuple[str, Node]]:
    """The former wins, as in LiteLLM."""
    for key in unit.keys:
        found = [node for part in (params, info) if part is not None and (node := part.get(key)) and not node.empty]
        if found:
            yield key, found[0]


def asked(text: str, kind: str) -> dict[str, Any] | str | None:
    """The price that somebody gave: `free`, `IN/OUT`, or `AMOUNT/UNIT`; None where the unit is that of another type."""
    if text == "free":
        return text
    given, _, rest = text.partition("/")
    if rest not in WORDS:
        return {"input": f"{given} USD/Mtok", "output": f"{rest} USD/Mtok"}
    unit = UNITS.get(kind)
    return unit.price(to_decimal(parse_usd(given))) if unit is not None and unit.word == rest else None


def form(model: str, kind: str) -> str:
    """How to say what a model of a type costs."""
    unit = UNITS.get(kind)
    model = quote(model)
    tokens = f"--price {model}=IN/OUT in USD per million tokens"
    return tokens if unit is None else f"--price {model}={unit.example}/{unit.word} in USD, or {tokens}"


@dataclass(frozen=True, slots=True)
class Lacks:
    """What would bound the cost of one call, and was not said."""

    what: str
    here: str
    todo: str


_AN_IMAGE = Lacks(
    "a bound of what one image costs: image_tokens, or a price for each",
    "an image at a price by tokens has no bound without image_tokens",
    "Say --price MODEL=0.04/image, or complete it in deployments.yaml.",
)
_ALL_THAT_FITS = Lacks(
    "a context: the most tokens that fit its model, all of which is reserved",
    "all that fits its model is reserved, and nobody says how much that is",
    "Write max_input_tokens in model_info.",
)


def lacks(kind: str, price: object, *, known_context: bool) -> Lacks | None:
    """`price` as in a deployment; None: that of the price list."""
    by_tokens = price is None or (isinstance(price, dict) and price["output"] != _NOTHING)
    if not by_tokens:
        return None
    if kind == "images":
        return _AN_IMAGE
    return _ALL_THAT_FITS if kind in ("realtime", "transcription") and not known_context else None
