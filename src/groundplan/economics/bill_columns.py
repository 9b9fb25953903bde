"""Which column of a provider's bill or usage export says what: found by the names of its head, or as somebody said.

Facts about exports, and the rule that picks. Reading the lines is `bill`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from groundplan.core.errors import Invalid, Where

ROLES: dict[str, tuple[str, ...]] = {
    "amount": (
        "amountvalue", "amountusd", "costusd", "billedcost", "costinbillingcurrency", "costinusd", "pretaxcost", "cost",
        "amount", "totalcost", "effectivecost", "price", "charge",
    ),
    "currency": (
        "amountcurrency", "billingcurrency", "billingcurrencycode", "currency", "currencycode",
    ),
    "day": (
        "starttimeiso", "usagedateutc", "chargeperiodstart", "usagedate", "date", "timestamp", "day", "createdat",
        "created", "datetime", "time", "starttime",
    ),
    "model": (
        "modelversion", "model", "modelname", "lineitem", "skumeter", "metername", "modelid", "chargedescription",
        "skuid", "productname", "product", "description",
    ),
    "id": (
        "callid", "xrequestid", "clientrequestid", "requestid", "id", "resourceusageid",
    ),
    "input": (
        "inputtokens", "prompttokens", "usageinputtokensnocache", "ncontexttokenstotal", "inputtokencount",
        "tokensinput", "tokensin", "inputuncachedtokens",
    ),
    "output": (
        "outputtokens", "completiontokens", "usageoutputtokens", "ngeneratedtokenstotal", "outputtokencount",
        "tokensoutput", "tokensout",
    ),
    "cache_read": ("usageinputtokenscacheread", "cachereadinputtokens"),
    "cache_write": ("usageinputtokenscachewrite5m", "usageinputtokenscachewrite", "cachecreationinputtokens"),
    "cache_write_long": ("usageinputtokenscachewrite1h",),
    "class": ("tokentype",),
    "quantity": ("consumedquantity", "quantity", "usagequantity"),
    "unit": ("consumedunit", "unitofmeasure", "unit"),
    "requests": ("nummodelrequests", "nrequests", "requests", "requestcount"),
    "service": ("servicename", "metercategory", "servicefamily", "consumedservice"),
    "deployment": ("deployment", "deploymentname", "resourcename", "resourceid", "instancename"),
}  # fmt: skip
"""What a column can say -> names of it, the surest first, in small letters and digits only."""

FORMATS: tuple[tuple[str, frozenset[str]], ...] = (
    ("OpenAI costs", frozenset({"amountvalue", "starttime"})),
    ("OpenAI usage", frozenset({"nummodelrequests", "inputtokens"})),
    ("Anthropic cost", frozenset({"usagedateutc", "costusd"})),
    ("Anthropic usage", frozenset({"usagedateutc", "usageinputtokensnocache"})),
    ("FOCUS", frozenset({"billedcost", "chargeperiodstart"})),
    ("Azure cost details", frozenset({"costinbillingcurrency", "metername"})),
    ("Azure cost details", frozenset({"pretaxcost", "metername"})),
)
_NOT_LETTERS = re.compile(r"[^a-z0-9]+")


def plain(name: str) -> str:
    """`amount_value`, `Amount Value` and `AmountValue` are the same name."""
    return _NOT_LETTERS.sub("", name.lower())


def detect(head: Sequence[str], said: Mapping[str, str], file: str) -> dict[str, int]:
    """Role -> position of its column. What was `said` (role -> name in the head) wins; an empty name is no column.

    Raises `Invalid` for a role or column that does not exist, and where neither an amount nor tokens are told.
    """
    places: dict[str, int] = {}
    for i, name in enumerate(head):
        places.setdefault(plain(name), i)
    found: dict[str, int] = {}
    for role, names in ROLES.items():
        position = next((places[name] for name in names if name in places), None)
        if position is not None and role not in said:
            found[role] = position
    for role, name in said.items():
        if role not in ROLES:
            raise _wrong(f"there is no column for {role[:40]}", f"Known: {', '.join(ROLES)}.", file)
        if name and plain(name) not in places:
            raise _wrong(f"the file has no column {name[:80]}", f"It has: {', '.join(head)[:400]}.", file)
        if name:
            found[role] = places[plain(name)]
    if "amount" not in found and not {"input", "output"} & found.keys():
        hint = f"Name it: --columns amount=NAME. The file has: {', '.join(head)[:400]}."
        raise _wrong("no column tells amounts or tokens", hint, file)
    return found


def format_of(head: Sequence[str]) -> str:
    """Whose export this looks like."""
    names = {plain(name) for name in head}
    return next((name for name, marks in FORMATS if marks <= names), "columns by their names")


def _wrong(message: str, hint: str, file: str) -> Invalid:
    return Invalid(message, code="bill_columns", hint=hint, where=Where(file, 1))
