"""Whether usage and price of recorded response bodies are read as expected, by the product's own reading and pricing.

    python benchmarks/metering.py USAGES.json[.gz] [--at 2026-03-01] [--json]

USAGES is a list of {"body", "model"?, "extracted": [{"usage": {class: count}, "extractors": [{"provider_id",
"api_flavor", "input_price"?, "output_price"?}]}]}: what each provider's API of a flavour is expected to count in a
body, and what that costs in USD. `usage_right` and `price_right` are bodies of which every reading (every price) is
right. `--at` is the day whose prices are compared: lists have histories, and a recorded price is that of its day.

A reading that differs is right only where the body itself states what the expectation lacks: a class (such as tokens
written to a cache) that it reports by name, with that count. Each such difference is told under `explained`, with the
place in the body, and a price that differs for that reason alone is explained by it, never by anything else.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import zlib
from codecs import BOM_UTF8
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import metering_bodies as bodies

from groundplan.blueprint.model import Rates
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.economics.prices import price_list
from groundplan.economics.prices.parts import usage_parts
from groundplan.ledger.model import Usage

AT = "2026-03-01"
"""The day on which most prices of known recordings hold: before the list's changes of the summer of 2026."""
PICO_TOKENS = Decimal(10) ** 18


@dataclass
class Found:
    """What came of all bodies."""

    bodies: int = 0
    usage_right: int = 0
    price_right: int = 0
    readings: int = 0
    prices: int = 0
    explained: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[dict[str, Any]] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("usages", type=Path)
    parser.add_argument("--at", default=AT)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        recorded, at = recordings(asked.usages), _day(asked.at)
    except GroundplanError as error:
        print(f"metering: {error}", file=sys.stderr)
        return error.exit_code
    found = measure(recorded, at)
    value = {
        "bodies": found.bodies, "usage_right": found.usage_right, "price_right": found.price_right,
        "readings": found.readings, "prices": found.prices, "at": asked.at,
        "reasons": dict(Counter(each["why"] for each in found.explained).most_common()),
        "explained": found.explained, "wrong": found.wrong,
    }  # fmt: skip
    print(json.dumps(value, indent=None if asked.json else 1))
    return 0 if found.usage_right == found.price_right == found.bodies else 1


def recordings(path: Path) -> list[dict[str, Any]]:
    """What a file has. Raises `Invalid` (`usages`) for one of another shape."""
    hint = "Name a file of recorded bodies with expected usages; the shape is in this program's --help."
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            data = file.read().removeprefix(BOM_UTF8)
        msgspec.json.decode(data, type=list[_Recorded])
    except (OSError, EOFError, zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}", code="usages", hint=hint) from error
    found: list[dict[str, Any]] = json.loads(data)
    return found


class _Extractor(msgspec.Struct):
    provider_id: str
    api_flavor: str
    input_price: Decimal | None = None
    output_price: Decimal | None = None


class _Group(msgspec.Struct):
    usage: dict[str, int]
    extractors: list[_Extractor]


class _Recorded(msgspec.Struct):
    body: dict[str, Any]
    extracted: list[_Group]
    model: str | None = None


def _day(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(hour=12, tzinfo=UTC)
    except ValueError as error:
        raise Invalid(f"'{text[:40]}' is no day", code="day", hint="Write --at 2026-03-01.") from error


def measure(recorded: list[dict[str, Any]], at: datetime) -> Found:
    """Every body once; prices are those of `at`."""
    found = Found(bodies=len(recorded))
    for number, entry in enumerate(recorded):
        usages = prices = True
        for group in entry["extracted"]:
            wanted = {name: count for name, count in group["usage"].items() if count}
            for extractor in group["extractors"]:
                read, paid = _one(found, number, entry, wanted, extractor, at)
                usages, prices = usages and read, prices and paid
        found.usage_right += usages
        found.price_right += prices
    return found


def _one(
    found: Found, number: int, entry: dict[str, Any], wanted: dict[str, int], extractor: dict[str, Any], at: datetime
) -> tuple[bool, bool]:
    """Whether one provider's reading of one body is right, and its price."""
    provider, flavor = extractor["provider_id"], extractor["api_flavor"]
    place = {"body": number, "provider": provider, "api": flavor}
    found.readings += 1
    try:
        usage = bodies.read(entry["body"], provider, flavor)
    except GroundplanError as error:
        found.wrong.append({**place, "what": "usage", "why": str(error)})
        return False, _unpriced(extractor)
    read = bodies.classes(usage)
    finer = {name: count for name, count in read.items() if name not in wanted}
    told = {name: _stated(entry["body"], count) for name, count in finer.items()}
    if {**wanted, **finer} != read or not all(told.values()):
        found.wrong.append({**place, "what": "usage", "read": read, "expected": wanted})
        return False, _unpriced(extractor)
    if finer:
        why = f"the body reports {', '.join(sorted(finer))}, which the expectation leaves out"
        found.explained.append({**place, "why": why, "read": finer, "stated_at": told})
    return True, _unpriced(extractor) or _price(found, place, entry, usage, finer, extractor, at)


def _unpriced(extractor: dict[str, Any]) -> bool:
    return extractor.get("input_price") is None or extractor.get("output_price") is None


def _price(
    found: Found,
    place: dict[str, Any],
    entry: dict[str, Any],
    usage: Usage,
    finer: dict[str, int],
    extractor: dict[str, Any],
    at: datetime,
) -> bool:
    found.prices += 1
    named = (entry.get("model"), entry["body"].get("model"), entry["body"].get("modelVersion"))
    model = next((name for name in named if isinstance(name, str) and name), None)
    rates = None if model is None else price_list.provider_rates(place["provider"], model, at)
    wanted = (Decimal(str(extractor["input_price"])), Decimal(str(extractor["output_price"])))
    if rates is None and model is not None and not any(wanted) and price_list.is_unpriced(place["provider"], model):
        why = "the list has the model without any price, which the expectation takes for free and the product refuses"
        found.explained.append({**place, "model": model, "why": why})
        return True
    if rates is None:
        found.wrong.append({**place, "what": "price", "model": model, "why": "no price is known"})
        return False
    paid = _paid(rates, usage)
    if paid == wanted:
        return True
    rest = bodies.usage_of({name: count for name, count in bodies.classes(usage).items() if name not in finer})
    difference = {**place, "model": model, "paid": [str(p) for p in paid], "expected": [str(w) for w in wanted]}
    if finer and _paid(rates, rest) == wanted:
        found.explained.append({**difference, "why": f"priced with {', '.join(sorted(finer))}, which the body reports"})
        return True
    tier = _below_tiers(rates)
    if tier is not rates and _paid(tier, usage) == wanted:
        why = f"the expectation prices a prompt of {usage.input} tokens as a short one; the list has a tier from "
        found.explained.append({**difference, "why": f"{why}{rates.long_above} tokens on"})
        return True
    found.wrong.append({**difference, "what": "price"})
    return False


def _paid(rates: Rates, usage: Usage) -> tuple[Decimal, Decimal]:
    """USD of the input and of the output side, exactly."""
    while rates.long is not None and usage.input > rates.long_above:
        rates = rates.long
    sums = {"input": 0, "output": 0, "tools": 0}
    for part in usage_parts(rates, usage):
        sums[part.side] += part.count * part.rate
    return Decimal(sums["input"]) / PICO_TOKENS, Decimal(sums["output"]) / PICO_TOKENS


def _below_tiers(rates: Rates) -> Rates:
    return rates if rates.long is None else msgspec.structs.replace(rates, long=None)


def _stated(body: Any, count: int, path: str = "") -> str:
    """Where in a body a count is, or an empty text."""
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in items:
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == count:
            return here
        if isinstance(value, dict | list) and (deeper := _stated(value, count, here)):
            return deeper
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
