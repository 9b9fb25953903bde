"""Rows of a FOCUS bill (FinOps Open Cost and Usage Specification 1.x) -> hourly prices of rented hardware by region.

The price of a unit-hour is the effective cost divided by consumed hours and by the accelerators of the instance. Rows
of tokens are for `cost reconcile`; here they are counted as skipped. Reads text only.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from groundplan.catalog.imports.accelerators import instance_accelerators
from groundplan.catalog.imports.machines import ImportedSites, Machine, build_sites
from groundplan.catalog.imports.naming import slug
from groundplan.catalog.imports.verdict import CHANGED, Finding
from groundplan.core.errors import Invalid, Where

_PROVIDERS = (("amazon", "aws"), ("aws", "aws"), ("microsoft", "azure"), ("azure", "azure"), ("google", "gcp"))
_INSTANCE = re.compile(r"[A-Za-z][A-Za-z0-9]*[._-][A-Za-z0-9._-]+", re.ASCII)
MAX_ROWS = 5_000_000


@dataclass(slots=True)
class _PriceSum:
    cost: Decimal
    unit_hours: Decimal
    line: int


def import_focus(text: str, name: str) -> ImportedSites:
    """The price of each type of hardware in each region. Raises `Invalid`."""
    reader = csv.DictReader(text.splitlines())
    head = set(reader.fieldnames or ())
    cost_column = next((c for c in ("EffectiveCost", "BilledCost") if c in head), None)
    if cost_column is None or "ConsumedQuantity" not in head:
        raise Invalid(
            f"{name} is not a FOCUS bill: it lacks EffectiveCost or BilledCost, or ConsumedQuantity",
            code="import_focus",
            hint="Export cost and usage in the FOCUS format, as CSV.",
            where=f"{name}:1",
        )
    sums: dict[tuple[str, str], _PriceSum] = {}
    others: Counter[str] = Counter()
    for row in reader:
        _add_row(row, cost_column, reader.line_num, sums, others)
        if reader.line_num > MAX_ROWS:
            break
    machines, told = [], []
    for (region, hardware), each in sorted(sums.items()):
        price = (each.cost / each.unit_hours).quantize(Decimal("0.000001"))
        where = Where(name, each.line)
        machines.append(
            Machine(
                slug(region, "site"),
                "cloud",
                hardware,
                0,
                where,
                region if ":" in region else None,
                hour_usd=f"{price:f}",
            )
        )
        what = f"{each.unit_hours.quantize(Decimal('0.01')):f} unit-hours in {region}"
        told.append(Finding(CHANGED, hardware, f"{price:f} USD an hour from {what}, discounts included", "", where))
    return build_sites(machines, told, dict(others), name)


def _add_row(
    row: Mapping[str, str | None], column: str, line: int, sums: dict[tuple[str, str], _PriceSum], others: Counter[str]
) -> None:
    currency = (row.get("BillingCurrency") or "USD").strip()
    unit = (row.get("ConsumedUnit") or row.get("PricingUnit") or "").lower()
    found = _row_accelerators(row)
    if found is None or not ("hour" in unit or unit in ("h", "hrs")):
        others["rows without accelerator hours"] += 1
        return
    if currency != "USD":
        others[f"rows in {currency[:3]}"] += 1
        return
    try:
        cost, hours = Decimal(row.get(column) or "0"), Decimal(row.get("ConsumedQuantity") or "0")
    except InvalidOperation:
        others["rows without numbers"] += 1
        return
    if not cost.is_finite() or not hours.is_finite() or cost < 0 or hours <= 0 or max(cost, hours) > 10**12:
        others["rows without cost or hours"] += 1
        return
    key = (_row_region(row), found[0])
    each = sums.setdefault(key, _PriceSum(Decimal(0), Decimal(0), line))
    each.cost += cost
    each.unit_hours += hours * found[1]


def _row_accelerators(row: Mapping[str, str | None]) -> tuple[str, int] | None:
    """By whichever column names an instance type."""
    for column in ("SkuMeter", "SkuId", "ResourceType", "ChargeDescription", "x_InstanceType", "SkuPriceDetails"):
        for word in _INSTANCE.findall(row.get(column) or ""):
            found = instance_accelerators(word)
            if found is not None:
                return found
    return None


def _row_region(row: Mapping[str, str | None]) -> str:
    provider = (row.get("ServiceProviderName") or row.get("ProviderName") or "").lower()
    short = next((name for part, name in _PROVIDERS if part in provider), "")
    region = re.sub(r"[^a-z0-9._-]", "", (row.get("RegionId") or "").lower())[:50] or "unknown"
    return f"{short}:{region}" if short else region
