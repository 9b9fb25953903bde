"""Which column of a provider's bill or usage export says what: found by the names of its head, or as somebody said.

Facts about exports, and the rule that picks. Reading the lines is `parse`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from groundplan.core.errors import Invalid, Where
from groundplan.economics.bills.cells import currency_of_head

ROLES: dict[str, tuple[str, ...]] = {
    "amount": (
        "amountvalue", "amountusd", "costusd", "billedcost", "costinbillingcurrency", "costinusd", "pretaxcost",
        "lineitemunblendedcost", "unblendedcost", "unroundedsubtotal", "unroundedcost", "subtotal", "cost", "amount",
        "totalcost", "effectivecost", "price", "charge",
    ),
    "currency": (
        "amountcurrency", "billingcurrency", "billingcurrencycode", "lineitemcurrencycode", "currency", "currencycode",
    ),
    "day": (
        "starttimeiso", "usagedateutc", "chargeperiodstart", "usagedate", "date", "timestamp", "day", "createdat",
        "created", "datetime", "time", "starttime", "lineitemusagestartdate", "usagestartdate", "usagestarttime",
        "usagestart", "billdate",
    ),
    "end": (
        "endtimeiso", "chargeperiodend", "lineitemusageenddate", "usageenddate", "usageendtime", "usageend",
        "periodend", "enddate", "endtime",
    ),
    "model": (
        "modelversion", "model", "modelname", "lineitem", "skumeter", "metername", "modelid", "chargedescription",
        "productproductname", "skudescription", "lineitemlineitemdescription", "skuid", "productname", "product",
        "description", "itemdescription", "item",
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
    "class": ("tokentype", "lineitemusagetype"),
    "quantity": ("consumedquantity", "quantity", "usagequantity", "lineitemusageamount", "usageamount"),
    "unit": ("consumedunit", "unitofmeasure", "pricingunit", "usageunit", "unit"),
    "requests": ("nummodelrequests", "nrequests", "requests", "requestcount"),
    "service": (
        "servicename", "metercategory", "servicefamily", "consumedservice", "servicedescription", "productproductname",
        "lineitemproductcode", "service", "servicecategory", "category",
    ),
    "charge": ("chargecategory", "chargetype", "lineitemlineitemtype", "lineitemtype", "costtype", "recordtype"),
    "credit": ("credittype",),
    "deployment": ("deployment", "deploymentname", "resourcename", "resourceid", "instancename"),
}  # fmt: skip
"""What a column can say -> names of it, the surest first, in small letters and digits only."""

OWN = "FOCUS of the ledger"
"""What `groundplan cost export` writes: it has columns of the specification under both of their names."""
_OWN_MARKS = frozenset(
    {"billedcost", "chargecategory", "chargetype", "provider", "providername", "resourceid", "skuid", "subaccountid"}
)
_OWN_ROLES = {"model": "skuid", "service": "servicecategory"}
"""Role -> name of its column there, where another one is surer in bills of others."""
FORMATS: tuple[tuple[str, frozenset[str]], ...] = (
    (OWN, _OWN_MARKS),
    ("OpenAI costs", frozenset({"amountvalue", "starttime"})),
    ("OpenAI usage", frozenset({"nummodelrequests", "inputtokens"})),
    ("Anthropic cost", frozenset({"usagedateutc", "costusd"})),
    ("Anthropic usage", frozenset({"usagedateutc", "usageinputtokensnocache"})),
    ("FOCUS", frozenset({"billedcost", "chargeperiodstart"})),
    ("Azure cost details", frozenset({"costinbillingcurrency", "metername"})),
    ("Azure cost details", frozenset({"pretaxcost", "metername"})),
    ("AWS cost and usage", frozenset({"lineitemunblendedcost", "lineitemusagestartdate"})),
    ("Google Cloud costs", frozenset({"servicedescription", "skudescription"})),
)
TOTALS = frozenset(
    {"total", "subtotal", "grandtotal", "totaldue", "amountdue", "totalamount", "invoicetotal", "totalcost", "sum",
     "accounttotal", "statementtotal",
     "summe", "gesamt", "gesamtbetrag", "zwischensumme", "totaal", "totale"}
)  # fmt: skip
"""How a line begins that sums others, in small letters alone."""
_ALONE = frozenset({"tax", "vat", "gst", "credit", "credits", "refund", "discount", "adjustment"})
USED = frozenset({"usage", "regular", "purchase", "fee", "discountedusage", "savingsplancoveredusage"})
"""Kinds of charges that are for something used or bought, whatever words of others are in them."""
_TAX = re.compile(r"tax$|\b(tax|taxes|vat|gst|hst|mwst|ust|moms|mva|tva|iva)\b", re.IGNORECASE)
_CREDIT = re.compile(
    r"credit|refund|rebate|adjustment|rounding|promotion|negation|\bdiscounts?\b|discount$|\bgutschrift\b",
    re.IGNORECASE,
)
_NOT_LETTERS = re.compile(r"[^a-z0-9]+")


def plain(name: str) -> str:
    """`amount_value`, `Amount Value` and `AmountValue` are the same name."""
    return _NOT_LETTERS.sub("", name.lower())


def charge_of(cells: Mapping[str, str]) -> str:
    """`tax` or `credit` of a line's cells by role; empty for what was used. What its kind does not tell, its words do:
    `VAT 25 %`, `Promotional credit`; a name in one word may be that of somebody's own model."""
    if cells.get("credit"):
        return "credit"
    kind = cells.get("charge", "")
    if plain(kind) in USED:
        return ""
    told = [text for role in ("model", "service") if " " in (text := cells.get(role, "")) or plain(text) in _ALONE]
    for text in (kind, *told):
        if _TAX.search(text):
            return "tax"
        if _CREDIT.search(text):
            return "credit"
    return ""


def is_total(row: Sequence[str], cells: Mapping[str, str]) -> bool:
    """Whether a line sums others: it would count them twice."""
    first = next((cell for cell in row if cell), "")
    return any(
        plain(text) in TOTALS
        for text in (first, *(cells.get(role, "") for role in ("day", "model", "service", "charge")))
    )


def detect(head: Sequence[str], said: Mapping[str, str], file: str) -> dict[str, int]:
    """Role -> position of its column. What was `said` (role -> name in the head) wins; an empty name is no column.

    Raises `Invalid` for a role or column that does not exist, and where neither an amount nor tokens are told.
    """
    places: dict[str, int] = {}
    for i, name in enumerate(head):
        places.setdefault(plain(name), i)
    for i, name in enumerate(head):
        places.setdefault(plain(currency_of_head(name)[0]), i)
    found: dict[str, int] = {}
    own = _OWN_ROLES if format_of(head) == OWN else {}
    for role, names in ROLES.items():
        position = next((places[name] for name in (own.get(role, ""), *names) if name in places), None)
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
