"""Declared costs divided among workloads: every rule's lines sum exactly to what it spent. Pure.

A month's amount is divided among its days, and a day's among workloads, both by largest remainder; so any days together
cost what they cost, and no picodollar is lost or made. Costs by the unit are rate times what was measured.
"""

from __future__ import annotations

from calendar import isleap, monthrange
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from groundplan.blueprint.model import Allocation
from groundplan.core.money import PICO
from groundplan.economics.allocate.model import IDLE, NOBODY, Basis, Line, Use
from groundplan.economics.prices.currency import USD, Dated, rate_on, to_usd
from groundplan.economics.terms.share import shares

_DAY = timedelta(days=1)
_NO_RATES: Final[Dated] = {}
STORED: Final = ("gigabyte of documents", "gigabyte of content")
OF_ANSWERS: Final = "gigabyte of answers"
BYTES_OF_TOKEN: Final = 4
"""As placement takes what leaves a site."""
_PLACES: Final = ("deployment", "site")
"""What covers whoever has calls there, by the tokens of them."""


def spent(rule: Allocation, first: date, last: date, currencies: Dated = _NO_RATES) -> int:
    """Picodollars of a rule's amount on the days from `first` to `last`, each at the rate of its currency on that day;
    0 for one that is paid by the unit. Raises `Invalid` where a rate is missing."""
    if rule.amount is None:
        return 0
    amount, period, code = rule.amount, rule.period, rule.currency
    days = list(_days(rule, first, last))
    parts = [_of_life(amount, rule, day) if period == "life" else _of_day(amount, period, day) for day in days]
    known = zip(parts, days, strict=True)
    return sum(to_usd(part, rate_on(currencies, code, day)) for part, day in known if part)


def divide(rule: Allocation, uses: Sequence[Use], first: date, last: date, currencies: Dated = _NO_RATES) -> list[Line]:
    """The lines of one rule in those days. What of a capacity was not used is `idle`; without any workload to carry it
    the whole stays with nobody. Raises `Invalid` where a rate of its currency is missing."""
    if rule.rate is not None:
        return _by_unit(rule, uses, first, last, currencies)
    amount = spent(rule, first, last, currencies)
    covered = [use for use in uses if _covers(rule, use)]
    idle = 0
    if rule.capacity is not None:
        amount, idle = _used(rule, amount, covered, (last - first).days + 1)
    lines = []
    if amount and covered:
        weights = [_weight(rule, use) for use in covered]
        if not any(weights) and rule.by == "shares":
            return [_line(rule, NOBODY, "", amount + idle, "nobody it is shared by")]
        for use, share in zip(covered, shares(amount, weights), strict=True):
            if share:
                lines.append(_line(rule, use.workload, use.team, share, f"by {_by(rule)}"))
    elif amount:
        lines.append(_line(rule, NOBODY, "", amount, "no workload that it covers"))
    if idle:
        lines.append(_line(rule, NOBODY, "", idle, "capacity that was not used", term=IDLE))
    return lines


def in_force(rule: Allocation, first: date, last: date) -> tuple[date, date]:
    """The part of those days on which the rule holds; the first is after the last where it holds on none."""
    since = date.fromisoformat(rule.since) if rule.since else first
    until = date.fromisoformat(rule.until) if rule.until else last
    return max(first, since), min(last, until)


def _days(rule: Allocation, first: date, last: date) -> Iterator[date]:
    """Those on which the rule holds."""
    day, last = in_force(rule, first, last)
    while day <= last:
        yield day
        day += _DAY


def _of_day(amount: int, period: str, day: date) -> int:
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


def _of_life(amount: int, rule: Allocation, day: date) -> int:
    """A day's part of what was bought; the parts of all days of its life sum exactly to it."""
    place = (day - date.fromisoformat(rule.since)).days
    if place >= rule.life_days:
        return 0
    return amount * (place + 1) // rule.life_days - amount * place // rule.life_days


def _by_unit(rule: Allocation, uses: Sequence[Use], first: date, last: date, currencies: Dated) -> list[Line]:
    """A price of another currency is at the mean of the days' rates, since units are not known by the day. The uses are
    those of the days on which the rule holds (`in_force`)."""
    lines = []
    days = (last - first).days + 1
    rate = Decimal(rule.rate or 0)
    if rule.currency != USD:
        known = [rate_on(currencies, rule.currency, day) for day in _days(rule, first, last)]
        rate = rate * sum(known) / max(1, len(known)) / PICO
    for use in uses:
        if not _covers(rule, use):
            continue
        count = _units(rule, use)
        if rule.per in STORED:  # a price of what is kept is one of a month
            count *= Decimal(days) / (366 if isleap(first.year) else 365) * 12
        amount = int((rate * count).to_integral_value(ROUND_HALF_EVEN))
        if amount:
            how = f"{count:.6g} x rate for each {rule.per}"
            if rule.per == OF_ANSWERS:
                lines.append(_line(rule, use.workload, use.team, amount, f"{how}, 4 bytes a token", basis="estimated"))
            elif rule.per in use.nearest:
                how = f"{how}, some days by the nearest sample"
                lines.append(_line(rule, use.workload, use.team, amount, how, basis="estimated"))
            else:
                lines.append(_line(rule, use.workload, use.team, amount, how))
    return lines


def _units(rule: Allocation, use: Use) -> Decimal:
    if rule.per == "1000 calls":
        return Decimal(use.calls) / 1000
    if rule.per == "1M tokens":
        return Decimal(use.tokens) / 1_000_000
    if rule.per == OF_ANSWERS:
        at = rule.covers if rule.covers.partition("/")[0] in _PLACES else "company"
        return Decimal(use.written.get(at, 0) * BYTES_OF_TOKEN) / 10**9
    return Decimal(repr(use.units.get(rule.per, 0.0)))


def _used(rule: Allocation, amount: int, covered: list[Use], days: int) -> tuple[int, int]:
    """(what was used, what stood idle) of the amount, by tokens made beside those that could have been made."""
    deployment = rule.covers.partition("/")[2]
    made = sum(use.by_deployment.get(deployment, 0) for use in covered)
    possible = max((rule.capacity or 0) * days, made, 1)
    used, idle = shares(amount, [made, possible - made])
    return used, idle


def _covers(rule: Allocation, use: Use) -> bool:
    kind, _, name = rule.covers.partition("/")
    if kind == "team":
        return use.team == name
    if kind == "workload":
        return use.workload == name
    if kind in _PLACES:
        return _at(kind, name, use) > 0
    return not rule.shares or use.workload in rule.shares


def _weight(rule: Allocation, use: Use) -> int:
    kind, _, name = rule.covers.partition("/")
    if kind in _PLACES and rule.by != "equal":
        return _at(kind, name, use)
    if rule.by == "shares":
        return rule.shares.get(use.workload, 0)
    return {"cost": use.cost, "calls": use.calls, "tokens": use.tokens, "equal": 1}[rule.by]


def _at(kind: str, name: str, use: Use) -> int:
    return (use.by_deployment if kind == "deployment" else use.by_site).get(name, 0)


def _by(rule: Allocation) -> str:
    kind, _, name = rule.covers.partition("/")
    return f"tokens at {name}" if kind in _PLACES and rule.by != "equal" else rule.by


def _line(
    rule: Allocation, workload: str, team: str, amount: int, how: str, term: str = "", basis: Basis | None = None
) -> Line:
    said: Basis = "estimated" if rule.basis == "estimated" else "measured" if rule.rate is not None else "allocated"
    kind, _, name = rule.covers.partition("/")
    return Line(
        term=term or rule.term,
        workload=workload,
        team=team,
        amount=amount,
        basis=basis or said,
        rule=f"{rule.how + ', ' if rule.how else ''}{how} (allocation {rule.name})",
        source=rule.source,
        deployment=name if kind == "deployment" else "",
        site=name if kind == "site" else "",
    )
