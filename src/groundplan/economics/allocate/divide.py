"""Declared costs divided among workloads, a day at a time: every rule's parts sum exactly to what it spent. Pure.

A month's amount is divided among its days, and a day's among workloads, both by largest remainder; so any days together
cost what they cost, and no picodollar is lost or made. Costs by the unit are rate times what was measured on that day.
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
STORED: Final = ("gigabyte of documents", "gigabyte of content")
OF_ANSWERS: Final = "gigabyte of answers"
CALLS: Final = "1000 calls"
TOKENS: Final = "1M tokens"
OF_CALLS: Final = (CALLS, OF_ANSWERS)
"""What is counted where a call was answered."""
BYTES_OF_TOKEN: Final = 4
"""As placement takes what leaves a site."""
_PLACES: Final = ("deployment", "site")
"""What covers whoever has calls there, by the tokens of them."""
SAID: Final = "as it was said"
"""In the rule of what was not counted but said."""
_ESTIMATED: Final[Basis] = "estimated"
_NONE: Final = Decimal(0)


def spent(rule: Allocation, first: date, last: date, currencies: DatedCurrencyRates = _NO_RATES) -> int:
    """Picodollars of a rule's amount on the days from `first` to `last`, each at the rate of its currency on that day;
    0 for one that is paid by the unit. Raises `Invalid` where a rate is missing."""
    return sum(_spent(rule, day, currencies) for day in _days(rule, first, last))


def divide(
    rule: Allocation,
    uses: Sequence[Use],
    day: date,
    currencies: DatedCurrencyRates = _NO_RATES,
    *,
    capacity: int | None = None,
    version: int = 0,
) -> list[Part]:
    """The parts of one rule on one day. What of a capacity was not used is `idle`; without any workload to carry it the
    whole stays with nobody, but for what is of one workload alone, which carries it though it is not served yet.
    `capacity` is the deployment's on that day, else the rule's own. Raises `Invalid` where a rate of its currency is
    missing."""
    if not holds(rule, day):
        return []
    if rule.rate is not None:
        return _by_unit(rule, uses, day, currencies, version)
    amount = _spent(rule, day, currencies)
    covered = [use for use in uses if use.workload != NOBODY and _covers(rule, use)]
    idle = 0
    if rule.capacity is not None:
        amount, idle = _used(rule, amount, covered, capacity or rule.capacity)
    parts = []
    if amount and covered:
        weights = [_weight(rule, use) for use in covered]
        if not any(weights) and rule.by == "shares":
            return [_made(rule, "nobody it is shared by", version)(NOBODY, "", amount + idle)]
        how = f"by {_by(rule)}" if any(weights) else f"equally where nothing is to be divided by {rule.by}"
        part = _made(rule, how, version)
        shared = zip(covered, shares(amount, weights), strict=True)
        parts = [part(use.workload, use.team, share) for use, share in shared if share]
    elif amount:
        kind, _, name = rule.covers.partition("/")
        alone = kind == "workload"
        how = "the workload that it covers, which is not served" if alone else "no workload that it covers"
        parts = [_made(rule, how, version)(name if alone else NOBODY, "", amount)]
    if idle:
        parts.append(_made(rule, "capacity that was not used", version, term=IDLE)(NOBODY, "", idle))
    return parts


def capacity_of(rules: Iterable[Allocation], covers: str, day: date) -> int:
    """Tokens that a deployment could make on a day. Rules of one term are several pieces of hardware, and add up; rules
    of several terms are several costs of the same."""
    by_term: dict[str, int] = {}
    for rule in rules:
        if rule.covers == covers and rule.capacity is not None and holds(rule, day):
            by_term[rule.term] = by_term.get(rule.term, 0) + rule.capacity
    return max(by_term.values(), default=0)


def holds(rule: Allocation, day: date) -> bool:
    """Whether the rule holds on that day."""
    said = day.isoformat()
    return (not rule.since or rule.since <= said) and (not rule.until or said <= rule.until)


def _spent(rule: Allocation, day: date, currencies: DatedCurrencyRates) -> int:
    """Picodollars of a rule's amount on a day on which it holds."""
    if rule.amount is None:
        return 0
    part = _of_life(rule.amount, rule, day) if rule.period == "life" else _of_day(rule.amount, rule.period, day)
    return to_usd(part, rate_on(currencies, rule.currency, day)) if part else 0


def _days(rule: Allocation, first: date, last: date) -> Iterator[date]:
    """Those on which the rule holds."""
    day = max(first, date.fromisoformat(rule.since)) if rule.since else first
    last = min(last, date.fromisoformat(rule.until)) if rule.until else last
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


def _by_unit(
    rule: Allocation, uses: Sequence[Use], day: date, currencies: DatedCurrencyRates, version: int
) -> list[Part]:
    """Of nobody, too, what no workload is given; a price of another currency is at the day's rate."""
    rate = Decimal(rule.rate or 0)
    if rule.currency != USD:
        rate = rate * rate_on(currencies, rule.currency, day) / PICO
    parts = []
    for use in uses:
        count = _units(rule, use)
        if rule.per in STORED:  # a price of what is kept is one of a month
            count = count * 12 / (366 if isleap(day.year) else 365)
        said = min(count, use.said.get(rule.per, _NONE))
        for units, known in ((count - said, _counted(rule, use)), (said, (SAID, _ESTIMATED))):
            amount = int((rate * units).to_integral_value(ROUND_HALF_EVEN))
            if not amount:
                continue
            of = "of no workload" if use.workload == NOBODY else ""
            how = ", ".join(filter(None, (f"x rate for each {rule.per}", known[0], of)))
            parts.append(_made(rule, how, version, basis=known[1])(use.workload, use.team, amount, units))
    return parts


def _counted(rule: Allocation, use: Use) -> tuple[str, Basis | None]:
    """How a unit was counted, and how that is known where that is not as the rule says."""
    if rule.per == OF_ANSWERS:
        return "4 bytes a token", _ESTIMATED
    return ("days by the nearest sample", _ESTIMATED) if rule.per in use.nearest else ("", None)


def _units(rule: Allocation, use: Use) -> Decimal:
    """Of what is counted at a place, that there alone."""
    kind, _, name = rule.covers.partition("/")
    placed = kind in _PLACES
    if not (placed and rule.per in OF_CALLS) and not _covers(rule, use):
        return Decimal(0)
    if rule.per == CALLS:
        return Decimal(use.asked.get(rule.covers, 0) if placed else use.calls) / 1000
    if rule.per == TOKENS:
        return Decimal(_at(kind, name, use) if placed else use.tokens) / 1_000_000
    if rule.per == OF_ANSWERS:
        return Decimal(use.written.get(rule.covers if placed else "company", 0) * BYTES_OF_TOKEN) / 10**9
    return use.units.get(rule.per, Decimal(0))


def _used(rule: Allocation, amount: int, covered: list[Use], capacity: int) -> tuple[int, int]:
    """(what was used, what stood idle) of the amount, by tokens made beside those that could have been made."""
    deployment = rule.covers.partition("/")[2]
    made = sum(use.by_deployment.get(deployment, 0) for use in covered)
    possible = max(capacity, made, 1)
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


def _made(
    rule: Allocation, how: str, version: int, *, term: str = "", basis: Basis | None = None
) -> Callable[..., Part]:
    """Makes parts of a rule that came about in one way: of workload, team, amount and units."""
    said: Basis = "estimated" if rule.basis == "estimated" else "measured" if rule.rate is not None else "allocated"
    known = basis or said
    of = term or rule.term
    kind, _, name = rule.covers.partition("/")
    text = f"{rule.how + ', ' if rule.how else ''}{how} (allocation {rule.name})"
    deployment, site = name if kind == "deployment" else "", name if kind == "site" else ""

    def part(workload: str, team: str, amount: int, units: Decimal = _NONE) -> Part:
        return Part(of, workload, team, known, text, rule.source, deployment, site, rule.name, version, amount, units)

    return part
