"""Whether usage and price of recorded response bodies are read as expected, by the product's own reading and pricing.

    python benchmarks/metering.py USAGES.json[.gz] [--at 2026-03-01] [--json]

USAGES is a list of {"body", "model"?, "extracted": [{"usage": {class: count}, "extractors": [{"provider_id",
"api_flavor", "input_price"?, "output_price"?}]}]}: the counts that each provider's API of a flavour is expected to
report in a body, and their cost in USD. `usage_right` and `price_right` count the bodies of which every reading (every
price) is right. `--at` is the day whose prices are compared: lists have histories, and a recorded price is that of its
day.

A reading that differs is right only where the body itself states what the expectation lacks: a class (such as tokens
written to a cache) that the body reports by name, with that count. Each such difference is listed under `explained`,
with its path in the body, and a price that differs for that reason alone is explained by it, never by anything else.
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
"""The day whose prices most known recordings have: before the list's changes of the summer of 2026."""
PICO_TOKENS = Decimal(10) ** 18


@dataclass
class Results:
    """Totals over all bodies, and the differences found."""

    bodies: int = 0
    usage_right: int = 0
    price_right: int = 0
    readings: int = 0
    prices: int = 0
    explained: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[dict[str, Any]] = field(default_factory=list)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("usages", type=Path)
    parser.add_argument("--at", default=AT)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(words)
    try:
        recorded, at = read_recordings(arguments.usages), _day(arguments.at)
    except GroundplanError as error:
        print(f"metering: {error}", file=sys.stderr)
        return error.exit_code
    results = measure(recorded, at)
    value = {
        "bodies": results.bodies, "usage_right": results.usage_right, "price_right": results.price_right,
        "readings": results.readings, "prices": results.prices, "at": arguments.at,
        "reasons": dict(Counter(difference["why"] for difference in results.explained).most_common()),
        "explained": results.explained, "wrong": results.wrong,
    }  # fmt: skip
    print(json.dumps(value, indent=None if arguments.json else 1))
    return 0 if results.usage_right == results.price_right == results.bodies else 1


def read_recordings(path: Path) -> list[dict[str, Any]]:
    """The recorded bodies of a file. Raises `Invalid` (`usages`) if it has another shape."""
    hint = "Name a file of recorded bodies with expected usages; the shape is in this program's --help."
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rb") as file:
            data = file.read().removeprefix(BOM_UTF8)
        msgspec.json.decode(data, type=list[_Recorded])
    except (OSError, EOFError, zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}", code="usages", hint=hint) from error
    entries: list[dict[str, Any]] = json.loads(data)
    return entries


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


def measure(recorded: list[dict[str, Any]], at: datetime) -> Results:
    """Read and price every body; prices are those of the day `at`."""
    results = Results(bodies=len(recorded))
    for number, entry in enumerate(recorded):
        usages = prices = True
        for group in entry["extracted"]:
            expected = {name: count for name, count in group["usage"].items() if count}
            for extractor in group["extractors"]:
                usage_ok, price_ok = _check_reading(results, number, entry, expected, extractor, at)
                usages, prices = usages and usage_ok, prices and price_ok
        results.usage_right += usages
        results.price_right += prices
    return results


def _check_reading(
    results: Results,
    number: int,
    entry: dict[str, Any],
    expected: dict[str, int],
    extractor: dict[str, Any],
    at: datetime,
) -> tuple[bool, bool]:
    """(usage is right, price is right) of one provider's reading of one body."""
    provider, flavor = extractor["provider_id"], extractor["api_flavor"]
    place = {"body": number, "provider": provider, "api": flavor}
    results.readings += 1
    try:
        usage = bodies.read_usage(entry["body"], provider, flavor)
    except GroundplanError as error:
        results.wrong.append({**place, "what": "usage", "why": str(error)})
        return False, _has_no_price(extractor)
    read = bodies.count_by_class(usage)
    unexpected = {name: count for name, count in read.items() if name not in expected}
    stated_at = {name: _find_count(entry["body"], count) for name, count in unexpected.items()}
    if {**expected, **unexpected} != read or not all(stated_at.values()):
        results.wrong.append({**place, "what": "usage", "read": read, "expected": expected})
        return False, _has_no_price(extractor)
    if unexpected:
        why = f"the body reports {', '.join(sorted(unexpected))}, which the expectation leaves out"
        results.explained.append({**place, "why": why, "read": unexpected, "stated_at": stated_at})
    return True, _has_no_price(extractor) or _check_price(results, place, entry, usage, unexpected, extractor, at)


def _is_unpriced(provider: str, reference: str) -> bool:
    """Whether the list has the model but no price for anything of it, which does not mean that it is free."""
    from genai_prices import data_snapshot  # noqa: PLC0415 -- heavy

    try:
        _, info = data_snapshot.get_snapshot().find_provider_model(reference, None, provider, None)
    except LookupError:
        return False
    candidates = [each.prices for each in info.prices] if isinstance(info.prices, list) else [info.prices]
    return not any(value is not None for prices in candidates for value in prices.__dict__.values())


def _has_no_price(extractor: dict[str, Any]) -> bool:
    return extractor.get("input_price") is None or extractor.get("output_price") is None


def _check_price(
    results: Results,
    place: dict[str, Any],
    entry: dict[str, Any],
    usage: Usage,
    unexpected: dict[str, int],
    extractor: dict[str, Any],
    at: datetime,
) -> bool:
    results.prices += 1
    names = (entry.get("model"), entry["body"].get("model"), entry["body"].get("modelVersion"))
    model = next((name for name in names if isinstance(name, str) and name), None)
    rates = None if model is None else price_list.provider_rates(place["provider"], model, at)
    expected = (Decimal(str(extractor["input_price"])), Decimal(str(extractor["output_price"])))
    if rates is None and model is not None and not any(expected) and _is_unpriced(place["provider"], model):
        why = "the list has the model without any price, which the expectation takes for free and the product refuses"
        results.explained.append({**place, "model": model, "why": why})
        return True
    if rates is None:
        results.wrong.append({**place, "what": "price", "model": model, "why": "no price is known"})
        return False
    priced = _usage_cost(rates, usage)
    if priced == expected:
        return True
    expected_usage = bodies.usage_from_classes(
        {name: count for name, count in bodies.count_by_class(usage).items() if name not in unexpected}
    )
    difference = {**place, "model": model, "paid": [str(p) for p in priced], "expected": [str(w) for w in expected]}
    if unexpected and _usage_cost(rates, expected_usage) == expected:
        results.explained.append(
            {**difference, "why": f"priced with {', '.join(sorted(unexpected))}, which the body reports"}
        )
        return True
    short_rates = _without_tiers(rates)
    if short_rates is not rates and _usage_cost(short_rates, usage) == expected:
        why = f"the expectation prices a prompt of {usage.input} tokens as a short one; the list has a tier from "
        results.explained.append({**difference, "why": f"{why}{rates.long_above} tokens on"})
        return True
    results.wrong.append({**difference, "what": "price"})
    return False


def _usage_cost(rates: Rates, usage: Usage) -> tuple[Decimal, Decimal]:
    """Exact USD of the input and of the output side."""
    while rates.long is not None and usage.input > rates.long_above:
        rates = rates.long
    sums = {"input": 0, "output": 0, "tools": 0}
    for part in usage_parts(rates, usage):
        sums[part.side] += part.count * part.rate
    return Decimal(sums["input"]) / PICO_TOKENS, Decimal(sums["output"]) / PICO_TOKENS


def _without_tiers(rates: Rates) -> Rates:
    return rates if rates.long is None else msgspec.structs.replace(rates, long=None)


def _find_count(body: Any, count: int, path: str = "") -> str:
    """The path of a count in a body, or an empty text."""
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in items:
        child_path = f"{path}.{key}" if path else str(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == count:
            return child_path
        if isinstance(value, dict | list) and (found := _find_count(value, count, child_path)):
            return found
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
