"""What declared prices make of a usage, counted again in plain decimals from what docs/limits.md and docs/workspace.md
say: by somebody who knows nothing of the code that prices calls."""

from __future__ import annotations

import random
from datetime import date
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest
from tests.unit.test_prices_on_a_day import OWN

from groundplan.blueprint.model import Rates
from groundplan.catalog.loader import load_files
from groundplan.economics import price
from groundplan.economics.prices.time_of_day import rates_at
from groundplan.ledger.model import Usage
from groundplan.release.compile.pricing import declared_or_listed

PARENT = {
    "cache_read": "input", "cache_write": "input", "input_audio": "input", "reasoning": "output",
    "output_audio": "output",
}  # fmt: skip
CLASSES = ("input", "output", *PARENT)
EURO = "currencies: {EUR: {source: the bank, rates: [{from: 2026-01-01, rate: 1.0837 USD}]}}\n"
RATE = Decimal("1.0837")
Price = dict[str, Any]


def up(amount: Decimal) -> Decimal:
    """To the picodollar."""
    return amount.quantize(Decimal("1e-12"), ROUND_CEILING)


def some(chance: random.Random, names: tuple[str, ...] = CLASSES, part: float = 0.5) -> Price:
    return {n: up(Decimal(chance.random() * 9)) for n in names if chance.random() < part}


def declared(chance: random.Random) -> Price:
    made = some(chance, part=1.0) | {n: None for n in PARENT if chance.random() < 0.5}
    for name in ("priority", "batch"):
        made[name] = {"output": Decimal(7), **some(chance)} if chance.random() < 0.6 else None
    made["long"] = {"above": 400, **some(chance)} if chance.random() < 0.7 else None
    made["hours"] = {"hours": "16:30-00:30", **some(chance)} if chance.random() < 0.5 else None
    made["request"] = Decimal("0.0013")
    return {name: value for name, value in made.items() if value is not None}


def price_yaml(made: Price, currency: str) -> str:
    def text(name: str, value: Any) -> str:
        if isinstance(value, dict):
            return f"{name}: {{{', '.join(text(*each) for each in value.items())}}}"
        if name in CLASSES or name == "request":
            value = f"{value:f} {currency}{'' if name == 'request' else '/Mtok'}"
        return f"{name}: {value}"

    return "{" + ", ".join(text(*each) for each in {**made, "currency": currency}.items()) + "}"


def rate_of(rates: Price, name: str) -> Decimal:
    found: Decimal = rates[name] if name in rates else rates[PARENT[name]]
    return found


def expected_rates(made: Price, minute: int, service: str, prompt: int) -> Price:
    """What a million tokens of each class cost; whole calls cost as `long` says, elsewhere the dearer of both."""
    base = {name: made[name] for name in CLASSES if name in made}
    over, rates = made.get(service) or {}, base
    if not over and "hours" in made and (minute >= 16 * 60 + 30 or minute < 30):
        over = made["hours"]
    rates = base | {name: value for name, value in over.items() if name in CLASSES}
    if "long" not in made or prompt <= made["long"]["above"]:
        return rates
    long = base | {name: value for name, value in made["long"].items() if name in CLASSES}
    return {name: max(rate_of(rates, name), rate_of(long, name)) for name in CLASSES} if over else long


def side(total: int, base: Decimal, classes: list[tuple[int, Decimal]]) -> Decimal:
    """Each token once, the dearest first where classes overlap."""
    amount = Decimal(0)
    for count, rate in sorted(classes, key=lambda each: -each[1]):
        taken = min(count, total)
        amount, total = amount + taken * rate, total - taken
    return amount + total * base


def must_cost(made: Price, currency: str, minute: int, service: str, used: dict[str, Any]) -> Decimal:
    rate = RATE if currency == "EUR" else Decimal(1)
    rates = {name: up(value * rate) for name, value in expected_rates(made, minute, service, used["input"]).items()}
    amount = Decimal(0)
    for total in ("input", "output"):
        parts = [(used[name], rate_of(rates, name)) for name, parent in PARENT.items() if parent == total]
        amount += side(used[total], rates[total], parts)
    return up(amount / 1_000_000) + up(made["request"] * rate)


@pytest.mark.parametrize("seed", range(24))
def test_a_price_costs_what_it_says(seed: int) -> None:
    chance = random.Random(seed)
    made, currency = declared(chance), chance.choice(["USD", "EUR"])
    text = OWN.replace("PRICE", price_yaml(made, currency)).replace("name: acme\n", f"name: acme\n{EURO}", 1)
    read = load_files({"a.yaml": text})
    rates = declared_or_listed(read, read.deployments["gpt-eu"], date(2026, 6, 1))
    assert isinstance(rates, Rates), rates
    for _ in range(40):
        used: dict[str, Any] = {"input": chance.randint(0, 900), "output": chance.randint(0, 300)}
        used |= {name: chance.randint(0, used[parent]) * chance.randint(0, 1) for name, parent in PARENT.items()}
        minute, service = chance.randrange(1440), chance.choice(["standard", "batch", "priority"])
        cost = price.cost(rates_at(rates, minute * 60_000), Usage(**used), service)
        assert Decimal(cost).scaleb(-12) == must_cost(made, currency, minute, service, used), (used, minute, service)
        assert cost <= price.cost_bound(rates, used["input"], used["output"], service=service), (
            "and no more is reserved"
        )
