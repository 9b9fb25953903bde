"""Detects the role of each column of a bill or usage export, by the names in its head or as chosen.

Holds the known names and formats of exports; `parse` reads the lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from groundplan.core.errors import Invalid, Where
from groundplan.economics.bills.cells import split_head_currency

ROLES: dict[str, tuple[str, ...]] = {
    "amount": (
        "amountvalue", "amountusd", "costusd", "billedcost", "costinbillingcurrency", "costinusd", "pretaxcost",
        "lineitemunblendedcost", "unblendedcost", "unroundedsubtotal", "unroundedcost", "subtotal", "cost", "amount",
        "totalcost", "effectivecost", "price", "charge", "spend",
    ),
    "currency": (
        "amountcurrency", "billingcurrency", "billingcurrencycode", "lineitemcurrencycode", "currency", "currencycode",
    ),
    "day": (
        "starttimeiso", "usagedateutc", "chargeperiodstart", "usagedate", "date", "timestamp", "day", "createdat",
        "created", "datetime", "time", "starttime", "lineitemusagestartdate", "usagestartdate", "usagestarttime",
        "usagestart", "billdate", "billingmonth", "invoicemonth", "month",
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
    "requests": ("nummodelrequests", "nrequests", "requests", "requestcount", "apirequests"),
    "service": (
        "servicename", "metercategory", "servicefamily", "consumedservice", "servicedescription", "productproductname",
        "lineitemproductcode", "service", "servicecategory", "category",
    ),
    "charge": ("chargecategory", "chargetype", "lineitemlineitemtype", "lineitemtype", "costtype", "recordtype"),
    "credit": ("credittype",),
    "credits": ("credits",),
    "account": (
        "account", "accountname", "lineitemusageaccountname", "lineitemusageaccountid", "linkedaccountid",
        "projectname", "projectid", "project", "workspace", "workspaceid", "subscriptionname", "subscriptionid",
        "subaccountname", "subaccountid",
    ),
    "deployment": ("deployment", "deploymentname", "resourcename", "resourceid", "instancename", "lineitemresourceid"),
}  # fmt: skip
"""Role of a column -> its possible names, the most reliable first, in lower-case letters and digits only."""

OWN_FORMAT = "FOCUS of the ledger"
"""The format that `groundplan cost export` writes, which has columns of the specification under both of their names."""
_OWN_MARKS = frozenset(
    {"billedcost", "chargecategory", "chargetype", "provider", "providername", "resourceid", "skuid", "subaccountid"}
)
_OWN_ROLES = {"model": "skuid", "service": "servicecategory"}
"""Role -> name of its column in our own format, where another name is more reliable in other bills."""
LITELLM_FORMAT = "LiteLLM spend logs"
_BEFORE_CREDITS = "cost"
"""The column of amounts that are before credits, beside which a list of credits is read; others are after them."""
_LITELLM_UNUSED = frozenset({"cache_read", "cache_write", "end"})
"""Roles whose columns in LiteLLM's logs are not read unless they are chosen: its `prompt_tokens` include those of the
cache, and its `endTime` is that of a call, which counts on the day on which it began."""
FORMATS: tuple[tuple[str, frozenset[str]], ...] = (
    (OWN_FORMAT, _OWN_MARKS),
    ("OpenAI costs", frozenset({"amountvalue", "starttime"})),
    ("OpenAI usage", frozenset({"nummodelrequests", "inputtokens"})),
    ("Anthropic cost", frozenset({"usagedateutc", "costusd"})),
    ("Anthropic usage", frozenset({"usagedateutc", "usageinputtokensnocache"})),
    (LITELLM_FORMAT, frozenset({"spend", "prompttokens", "completiontokens"})),
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
"""First cells of lines that are sums of other lines, normalised as by `normalize_name`."""
_SINGLE_WORD_CHARGES = frozenset({"tax", "vat", "gst", "credit", "credits", "refund", "discount", "adjustment"})
USAGE_CHARGES = frozenset({"usage", "regular", "purchase", "fee", "discountedusage", "savingsplancoveredusage"})
"""Kinds of charges that are usage or purchases, never a tax or a credit."""
_TAX = re.compile(r"tax$|\b(tax|taxes|vat|gst|hst|mwst|ust|moms|mva|tva|iva)\b", re.IGNORECASE)
_CREDIT = re.compile(
    r"credit|refund|rebate|adjustment|rounding|promotion|negation|\bdiscounts?\b|discount$|\bgutschrift\b",
    re.IGNORECASE,
)
_NOT_LETTERS = re.compile(r"[\W_]+")


def normalize_name(name: str) -> str:
    """Normalise a column name: `amount_value`, `Amount Value` and `AmountValue` become the same. Letters of all scripts
    are kept, so that such a column can be chosen."""
    return _NOT_LETTERS.sub("", name.lower())


def charge_kind(cells: Mapping[str, str]) -> str:
    """`tax` or `credit`, derived from a line's cells by role; empty for usage.

    Where the charge column does not say, words in model and service do (`VAT 25 %`, `Promotional credit`); a single
    word counts only if it is one of `_SINGLE_WORD_CHARGES`, since it may be the name of a custom model."""
    if cells.get("credit"):
        return "credit"
    kind = cells.get("charge", "")
    if normalize_name(kind) in USAGE_CHARGES:
        return ""
    descriptions = [
        text
        for role in ("model", "service")
        if " " in (text := cells.get(role, "")) or normalize_name(text) in _SINGLE_WORD_CHARGES
    ]
    for text in (kind, *descriptions):
        if _TAX.search(text):
            return "tax"
        if _CREDIT.search(text):
            return "credit"
    return ""


def is_total(row: Sequence[str], cells: Mapping[str, str]) -> bool:
    """Whether a line is the sum of other lines, so that they would be counted twice."""
    first = next((cell for cell in row if cell), "")
    return any(
        normalize_name(text) in TOTALS
        for text in (first, *(cells.get(role, "") for role in ("day", "model", "service", "charge")))
    )


def detect_columns(head: Sequence[str], chosen: Mapping[str, str], file: str) -> dict[str, int]:
    """Role -> position of its column. `chosen` (role -> name in the head) takes precedence; an empty name means no
    column.

    Raises `Invalid` for a role or column that does not exist, and where there is neither an amount nor tokens.
    """
    positions = _positions(head)
    found: dict[str, int] = {}
    export = detect_format(head)
    own_names = _OWN_ROLES if export == OWN_FORMAT else {}
    unused = _LITELLM_UNUSED if export == LITELLM_FORMAT else frozenset()
    for role, names in ROLES.items():
        position = next((positions[name] for name in (own_names.get(role, ""), *names) if name in positions), None)
        if position is not None and role not in chosen and role not in unused:
            found[role] = position
    for role, name in chosen.items():
        if role not in ROLES:
            raise _column_error(f"there is no column for {role[:40]}", f"Known: {', '.join(ROLES)}.", file)
        if name and normalize_name(name) not in positions:
            raise _column_error(f"the file has no column {name[:80]}", f"It has: {', '.join(head)[:400]}.", file)
        if name:
            found[role] = positions[normalize_name(name)]
    if "credits" not in chosen and _is_after_credits(head, found):
        found.pop("credits", None)
    if "currency" not in chosen and _names_currency(head, found):
        found.pop("currency", None)
    if "amount" not in found and not {"input", "output"} & found.keys():
        hint = f"Name it: --columns amount=NAME. The file has: {', '.join(head)[:400]}."
        raise _column_error("no column tells amounts or tokens", hint, file)
    return found


def _positions(head: Sequence[str]) -> dict[str, int]:
    """Normalised name, with and without its currency -> position of the first such column."""
    positions: dict[str, int] = {}
    names_without_currency = (split_head_currency(name)[0] for name in head)
    for index, name in (*enumerate(head), *enumerate(names_without_currency)):
        if normalized := normalize_name(name):
            positions.setdefault(normalized, index)
    return positions


def _names_currency(head: Sequence[str], found: Mapping[str, int]) -> bool:
    """Whether the column of amounts says their currency itself (`costInUsd`): a column of currencies is then that of
    other amounts, such as those in the currency of billing."""
    if "amount" not in found:
        return False
    name = head[found["amount"]]
    return split_head_currency(name)[1] is not None or normalize_name(name).endswith("usd")


def _is_after_credits(head: Sequence[str], found: Mapping[str, int]) -> bool:
    """Whether the amounts of a file may have its credits taken off already."""
    amount = found.get("amount")
    return amount is None or normalize_name(split_head_currency(head[amount])[0]) != _BEFORE_CREDITS


def detect_format(head: Sequence[str]) -> str:
    """Name of the export format that the head matches."""
    names = {normalize_name(name) for name in head}
    return next((name for name, marks in FORMATS if marks <= names), "columns by their names")


def _column_error(message: str, hint: str, file: str) -> Invalid:
    return Invalid(message, code="bill_columns", hint=hint, where=Where(file, 1))
