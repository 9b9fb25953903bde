"""Divides declared costs among workloads, a day at a time: the parts of a rule sum exactly to its amount. Pure.

A month's amount is divided among its days, and a day's among workloads, both by largest remainder, so that no
picodollar is lost or added. Costs by the unit are the rate times the units measured on that day.
"""

from __future__ import annotations

from calendar import isleap, monthrange
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from groundplan.blueprint.model import Allocation
from groundplan.core.money import PICO
from groundplan.economics.allocate.model import IDLE, NOBODY, Basis, Part, Use
from groundplan.economics.prices.currency import USD, DatedCurrencyRates, rate_on, to_usd
from groundplan.economics.terms.apportion import shares

_DAY = timedelta(days=1)
_NO_RATES: Final[DatedCurrencyRates] = {}
STORED_UNITS: Final = ("gigabyte of documents", "gigabyte of content")
ANSWER_GIGABYTES: Final = "gigabyte of answers"
CALLS: Final = "1000 calls"
TOKENS: Final = "1M tokens"
CALL_UNITS: Final = (CALLS, ANSWER_GIGABYTES)
"""Units that are counted at the place that answered a call."""
BYTES_PER_TOKEN: Final = 4
"""The same estimate as in placement for bytes that leave a site."""
_PLACE_KINDS: Final = ("deployment", "site")
"""Kinds of `covers` that divide by the tokens of the calls there."""
AS_REPORTED: Final = "as it was said"
"""Words in the rule of amounts that were stated by people instead of measured."""
_ESTIMATED: Final[Basis] = "estimated"
_ZERO: Final = Decimal(0)


def amount_spent(rule: Allocation, first: date, last: date, currencies: DatedCurrencyRates = _NO_RATES) -> int:
    """Picodollars of a rule's amount on the days from `first` to `last`, each at its currency's rate on that day; 0 for
    a rule with a price per unit. Raises `Invalid` if a rate is missing."""
    return sum(_amount_on(rule, day, currencies) for day in _days_in_force(rule, first, last))


def divide(
    rule: Allocation,
    uses: Sequence[Use],
    day: date,
    currencies: DatedCurrencyRates = _NO_RATES,
    *,
    capacity: int | None = None,
    version: int = 0,
) -> list[Part]:
    """The parts of one rule on one day. Unused capacity has the term `idle`. If no workload is covered, the amount
    stays with nobody; a rule that covers one workload charges that workload even before it is served. `capacity`: the
    deployment's on that day; without it the rule's own counts. Raises `Invalid` if a rate of the currency is
    missing."""
    if not is_in_force(rule, day):
        return []
    if rule.rate is not None:
        return _parts_by_unit(rule, uses, day, currencies, version)
    amount = _amount_on(rule, day, currencies)
    covered = [use for use in uses if use.workload != NOBODY and _covers(rule, use)]
    idle = 0
    if rule.capacity is not None:
        amount, idle = _split_idle(rule, amount, covered, capacity or rule.capacity)
    parts = []
    if amount and covered:
        weights = [_weight(rule, use) for use in covered]
        if not any(weights) and rule.by == "shares":
            return [_part_factory(rule, "nobody it is shared by", version)(NOBODY, "", amount + idle)]
        how = f"by {_weight_name(rule)}" if any(weights) else f"equally where nothing is to be divided by {rule.by}"
        part = _part_factory(rule, how, version)
        shared = zip(covered, shares(amount, weights), strict=True)
        parts = [part(use.workload, use.team, share) for use, share in shared if share]
    elif amount:
        kind, _, name = rule.covers.partition("/")
        is_workload = kind == "workload"
        how = "the workload that it covers, which is not served" if is_workload else "no workload that it covers"
        parts = [_part_factory(rule, how, version)(name if is_workload else NOBODY, "", amount)]
    if idle:
        parts.append(_part_factory(rule, "capacity that was not used", version, term=IDLE)(NOBODY, "", idle))
    return parts


def capacity_of(rules: Iterable[Allocation], covers: str, day: date) -> int:
    """Tokens that a deployment could generate on a day. Rules of one term are several pieces of hardware, which add up;
    rules of different terms are several costs of the same hardware."""
    by_term: dict[str, int] = {}
    for rule in rules:
        if rule.covers == covers and rule.capacity is not None and is_in_force(rule, day):
            by_term[rule.term] = by_term.get(rule.term, 0) + rule.capacity
    return max(by_term.values(), default=0)


def is_in_force(rule: Allocation, day: date) -> bool:
    """Whether a rule is in force on a day."""
    iso_day = day.isoformat()
    return (not rule.since or rule.since <= iso_day) and (not rule.until or iso_day <= rule.until)


def _amount_on(rule: Allocation, day: date, currencies: DatedCurrencyRates) -> int:
    """Picodollars of a rule's amount on a day on which it is in force."""
    if rule.amount is None:
        return 0
    part = (
        _daily_depreciation(rule.amount, rule, day)
        if rule.period == "life"
        else _daily_amount(rule.amount, rule.period, day)
    )
    return to_usd(part, rate_on(currencies, rule.currency, day)) if part else 0


def _days_in_force(rule: Allocation, first: date, last: date) -> Iterator[date]:
    """The days on which the rule is in force."""
    day = max(first, date.fromisoformat(rule.since)) if rule.since else first
    last = min(last, date.fromisoformat(rule.until)) if rule.until else last
    while day <= last:
        yield day
        day += _DAY


def _daily_amount(amount: int, period: str, day: date) -> int:
    """A day's part of a period's amount; the parts of all its days sum exactly to it."""
    if period == "day":
        return amount
    if period == "week":
        return shares(amount, [1] * 7)[day.weekday()]
    if period in ("quarter", "year"):
        months = 3 if period == "quarter" else 12
        amount = shares(amount, [1] * months)[(day.month - 1) % months]
    days = monthrange(day.year, day.month)[1]
    return shares(amount, [1] * days)[day.day - 1]


def _daily_depreciation(amount: int, rule: Allocation, day: date) -> int:
    """A day's part of a purchase; the parts of all days of its life sum exactly to its price."""
    day_number = (day - date.fromisoformat(rule.since)).days
    if day_number >= rule.life_days:
        return 0
    return amount * (day_number + 1) // rule.life_days - amount * day_number // rule.life_days


def _parts_by_unit(
    rule: Allocation, uses: Sequence[Use], day: date, currencies: DatedCurrencyRates, version: int
) -> list[Part]:
    """The parts of a rule with a price per unit, also for units of no workload. Prices in another currency are
    converted at the day's rate."""
    rate = Decimal(rule.rate or 0)
    if rule.currency != USD:
        rate = rate * rate_on(currencies, rule.currency, day) / PICO
    parts = []
    for use in uses:
        count = _unit_count(rule, use)
        if rule.per in STORED_UNITS:  # prices of storage are per month
            count = count * 12 / (366 if isleap(day.year) else 365)
        reported = min(count, use.reported_units.get(rule.per, _ZERO))
        for units, counted in ((count - reported, _how_counted(rule, use)), (reported, (AS_REPORTED, _ESTIMATED))):
            amount = int((rate * units).to_integral_value(ROUND_HALF_EVEN))
            if not amount:
                continue
            note = "of no workload" if use.workload == NOBODY else ""
            how = ", ".join(filter(None, (f"x rate for each {rule.per}", counted[0], note)))
            parts.append(_part_factory(rule, how, version, basis=counted[1])(use.workload, use.team, amount, units))
    return parts


def _how_counted(rule: Allocation, use: Use) -> tuple[str, Basis | None]:
    """(how a unit was counted, in words; its basis, if not the rule's)"""
    if rule.per == ANSWER_GIGABYTES:
        return "4 bytes a token", _ESTIMATED
    return ("days by the nearest sample", _ESTIMATED) if rule.per in use.nearest_sample_units else ("", None)


def _unit_count(rule: Allocation, use: Use) -> Decimal:
    """Units that a workload used; of units counted at a place only those there."""
    kind, _, name = rule.covers.partition("/")
    placed = kind in _PLACE_KINDS
    if not (placed and rule.per in CALL_UNITS) and not _covers(rule, use):
        return Decimal(0)
    if rule.per == CALLS:
        return Decimal(use.calls_at.get(rule.covers, 0) if placed else use.calls) / 1000
    if rule.per == TOKENS:
        return Decimal(_tokens_at(kind, name, use) if placed else use.tokens) / 1_000_000
    if rule.per == ANSWER_GIGABYTES:
        return Decimal(use.answer_tokens.get(rule.covers if placed else "company", 0) * BYTES_PER_TOKEN) / 10**9
    return use.units.get(rule.per, Decimal(0))


def _split_idle(rule: Allocation, amount: int, covered: list[Use], capacity: int) -> tuple[int, int]:
    """(used, idle) parts of the amount, by the share of possible tokens that were generated."""
    deployment = rule.covers.partition("/")[2]
    tokens_made = sum(use.by_deployment.get(deployment, 0) for use in covered)
    possible = max(capacity, tokens_made, 1)
    used, idle = shares(amount, [tokens_made, possible - tokens_made])
    return used, idle


def _covers(rule: Allocation, use: Use) -> bool:
    kind, _, name = rule.covers.partition("/")
    if kind == "team":
        return use.team == name
    if kind == "workload":
        return use.workload == name
    if kind in _PLACE_KINDS:
        return _tokens_at(kind, name, use) > 0
    return not rule.shares or use.workload in rule.shares


def _weight(rule: Allocation, use: Use) -> int:
    kind, _, name = rule.covers.partition("/")
    if kind in _PLACE_KINDS and rule.by != "equal":
        return _tokens_at(kind, name, use)
    if rule.by == "shares":
        return rule.shares.get(use.workload, 0)
    return {"cost": use.cost, "calls": use.calls, "tokens": use.tokens, "equal": 1}[rule.by]


def _tokens_at(kind: str, name: str, use: Use) -> int:
    return (use.by_deployment if kind == "deployment" else use.by_site).get(name, 0)


def _weight_name(rule: Allocation) -> str:
    kind, _, name = rule.covers.partition("/")
    return f"tokens at {name}" if kind in _PLACE_KINDS and rule.by != "equal" else rule.by


def _part_factory(
    rule: Allocation, how: str, version: int, *, term: str = "", basis: Basis | None = None
) -> Callable[..., Part]:
    """A function (workload, team, amount, units) that makes the parts of a rule with the same wording and basis."""
    default_basis: Basis = (
        "estimated" if rule.basis == "estimated" else "measured" if rule.rate is not None else "allocated"
    )
    actual_basis = basis or default_basis
    term_name = term or rule.term
    kind, _, name = rule.covers.partition("/")
    text = f"{rule.how + ', ' if rule.how else ''}{how} (allocation {rule.name})"
    deployment, site = name if kind == "deployment" else "", name if kind == "site" else ""

    def part(workload: str, team: str, amount: int, units: Decimal = _ZERO) -> Part:
        return Part(
            term_name,
            workload,
            team,
            actual_basis,
            text,
            rule.source,
            deployment,
            site,
            rule.name,
            version,
            amount,
            units,
        )

    return part
