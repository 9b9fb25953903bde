"""Lines of cost as FOCUS 1.0 (FinOps Open Cost and Usage Specification): one CSV row for each.

Amounts keep all 12 decimals. Columns that the specification has renamed since its validator was written
(`ProviderName`, `ResourceId`, `ChargeType`, ...) are there under both names with the same values. Discounts are not
known here: list, contracted, effective and billed cost are the same.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from groundplan.core.money import format_usd
from groundplan.core.months import first_of_next_month
from groundplan.economics.allocate.model import CREDIT, IDLE, Line

COLUMNS: Final = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeType", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart", "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName",
    "CommitmentDiscountStatus", "CommitmentDiscountType", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "ContractedUnitPrice", "EffectiveCost", "InvoiceIssuer", "InvoiceIssuerName", "ListCost", "ListUnitPrice",
    "PricingCategory", "PricingQuantity", "PricingUnit", "Provider", "ProviderName", "Publisher", "PublisherName",
    "RegionId", "RegionName", "ResourceID", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory",
    "ServiceName", "SkuId", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
)  # fmt: skip
_STORAGE, _NETWORK, _COMPUTE = "Storage", "Networking", "Compute"
CATEGORIES: Final = {
    "vector_storage": "Databases", "database": "Databases", "object_storage": _STORAGE, "logs": _STORAGE,
    "egress": _NETWORK, "connectivity": _NETWORK, "updates": _NETWORK, "capacity": _COMPUTE, "energy": _COMPUTE,
    "cache_lookup": _COMPUTE, IDLE: _COMPUTE, "device": "Internet of Things", "site_visits": "Internet of Things",
    "platform": "Management and Governance", "review": "Business Applications", "support": "Business Applications",
    "tools": "Integration", CREDIT: "Other",
}  # fmt: skip
"""Terms that are not tokens -> their category of services."""


_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_CONTROLS = dict.fromkeys([*range(32), 127], " ")


def focus_csv(
    months: Iterable[tuple[date, date, Sequence[Line]]], company: str,
    centers: Mapping[date, Mapping[str, str]] = MappingProxyType({}),
) -> str:  # fmt: skip
    """The text of the file, of (first day, last day, lines), each within one month. `centers`: first day -> team -> its
    cost center. Spreadsheets take no cell of it for a formula."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for first, last, lines in months:
        for line in lines:
            writer.writerow(
                {
                    name: harmless(value)
                    for name, value in row(line, company, first, last, centers.get(first, _NONE)).items()
                }
            )
    return out.getvalue()


def row(line: Line, company: str, first: date, last: date, centers: Mapping[str, str] = _NONE) -> dict[str, str]:
    """One line as a row of the specification; empty text is null."""
    amount = format_usd(line.amount)
    provider = line.model.partition("/")[0] if "/" in line.model else (line.site or company)
    tokens = line.term not in CATEGORIES
    unit = line.unit or ("Tokens" if line.quantity else "")
    quantity = (
        f"{line.quantity}.0" if line.quantity else ""
    )  # the validator takes a column of whole numbers for no decimals
    each = f"{Decimal(amount) / line.quantity:.18f}" if line.quantity else ""
    names = {"Provider": provider, "Publisher": provider, "InvoiceIssuer": provider if tokens else company}
    return {
        "AvailabilityZone": "",
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), amount),
        "BillingAccountId": company,
        "BillingAccountName": company,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _moment(first.replace(day=1)),
        "BillingPeriodEnd": _moment(first_of_next_month(last)),
        "ChargePeriodStart": _moment(first),
        "ChargePeriodEnd": _moment(last + timedelta(days=1)),
        **dict.fromkeys(("ChargeCategory", "ChargeType"), "Credit" if line.term == CREDIT else "Usage"),
        "ChargeClass": "",
        "ChargeDescription": f"{line.term}: {line.rule}",
        "ChargeFrequency": "Recurring" if line.allocation and line.basis != "measured" else "Usage-Based",
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "ListUnitPrice": each,
        "ContractedUnitPrice": each,
        **names,
        **{f"{name}Name": value for name, value in names.items()},
        "RegionId": line.site,
        "RegionName": line.site,
        "ResourceID": line.deployment,
        "ResourceId": line.deployment,
        "ResourceName": line.deployment,
        "ResourceType": "Model deployment" if line.deployment else "",
        "ServiceCategory": CATEGORIES.get(line.term, "AI and Machine Learning"),
        "ServiceName": line.model or line.term,
        "SkuId": line.model or line.term,
        "SkuPriceId": f"{line.model or line.term}:{line.term}",
        "SubAccountId": line.team,
        "SubAccountName": line.team,
        "Tags": json.dumps(_tags(line, centers.get(line.team)), sort_keys=True),
        **dict.fromkeys((name for name in COLUMNS if name.startswith("CommitmentDiscount")), ""),
    }


def _tags(line: Line, center: str | None) -> dict[str, str]:
    """Tags for values without a column in the specification."""
    found = {"workload": line.workload, "term": line.term, "basis": line.basis, "source": line.source}
    return found | ({"tier": line.tier} if line.tier else {}) | ({"cost_center": center} if center else {})


def _moment(day: date) -> str:
    return datetime.combine(day, time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def harmless(value: str) -> str:
    """Text that a spreadsheet would evaluate gets a leading quote, and line ends become spaces; amounts stay as they
    are."""
    value = value.translate(_CONTROLS)
    told = value[:1] in ("=", "+", "@") or (value[:1] == "-" and _NUMBER.fullmatch(value) is None)
    return f"'{value}" if told else value
