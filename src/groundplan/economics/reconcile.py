"""What the ledger says against what a bill says: the difference, explained by parts that add up to it exactly.

A line that names one of our calls is compared with that call; all others are compared in groups of the same day, model
and deployment. Pure: a bill and rows of the ledger in, a result out. Difference means bill minus ledger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal, localcontext
from functools import partial
from uuid import UUID

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.core.words import counted
from groundplan.economics.bill import Bill, Line
from groundplan.economics.bill_again import AGAIN, told_again
from groundplan.economics.bill_models import resolve
from groundplan.economics.explain_gap import Part, Side, parts, value_of_tokens
from groundplan.economics.prices.currency import Dated

OUR_VERSION = 7
"""Of UUIDs that calls have; a provider's own request ids of another kind are not ours."""
WHOLE = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"}
)
"""Currencies of which bills have whole units alone."""
PRECISION = 90
"""Digits of arithmetic: sums of amounts within the bounds of `bill` never lose one."""
KINDS: dict[str, str] = {
    "call_without_bill_line": "calls of the ledger that the bill does not have",
    "bill_line_without_call": "lines of the bill that no call of the ledger explains",
    "tokens": "the bill counts other tokens",
    "price": "the bill has another price",
    "rounding": "amounts of the bill are rounded",
    "estimated": "the provider reported no usage, so that ours is an estimate",
    "open_reservation": "calls in flight, or cut off by a crash and booked at the most they could cost",
    "billed_failure": "the bill charges an attempt that the ledger holds for not billed",
    "demo": "traffic of the demo, which no provider bills",
    "currency": "calls whose line is in a currency without a rate",
    "tax": "taxes of the bill, which no call pays",
    "credit": "credits, discounts, refunds and adjustments of the bill, which are of no single call",
    "storage": "lines for storage, which no call pays: see allocations of object_storage, vector_storage and logs",
    "network": "lines for traffic, which no call pays: see allocations of egress and connectivity",
    "other_service": "lines for other services than models",
    "unexplained": "the bill tells no tokens here, so that price and usage cannot be told apart",
}
"""Kind of an explanation -> what it means."""
_NO_RATES: Dated = {}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as the ledger has it. Amounts are exact USD."""

    call: UUID
    number: int
    at: datetime
    workload: str
    deployment: str
    model: str
    state: str
    """open | settled | crashed"""
    outcome: str
    cost: Decimal
    input: int
    output: int
    estimated: bool = False
    demo: bool = False
    rates: Rates | None = None
    """Those of its moment; None: as its deployment costs now."""


@dataclass(frozen=True, slots=True)
class Row:
    """One place where bill and ledger differ."""

    kind: str
    amount: Decimal
    bill: Decimal
    ledger: Decimal
    day: date | None
    model: str | None
    deployment: str | None
    calls: tuple[UUID, ...]
    lines: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Totals, and rows whose amounts add up to the difference exactly."""

    bill: Decimal
    ledger: Decimal
    rows: tuple[Row, ...]
    matched_by_id: int
    """Attempts that a line named."""
    attempts: int
    left_out: int
    """Attempts of models that the bill does not name."""
    left_out_usd: Decimal
    notes: tuple[str, ...]
    uncompared: int = 0
    """Lines of the bill that count as nothing, since nobody knows what they are in USD: without them it is no
    comparison of the whole bill."""

    @property
    def difference(self) -> Decimal:
        with localcontext(prec=PRECISION):
            return self.bill - self.ledger

    def explanations(self) -> list[tuple[str, Decimal, int]]:
        """(kind, amount, how many places), the largest first; the amounts add up to the difference."""
        found: dict[str, tuple[Decimal, int]] = {}
        with localcontext(prec=PRECISION):
            for row in self.rows:
                amount, count = found.get(row.kind, (Decimal(0), 0))
                found[row.kind] = (amount + row.amount, count + 1)
        return sorted(((kind, *value) for kind, value in found.items()), key=lambda item: (-abs(item[1]), item[0]))


def belongs(model: str, deployment: str, provider: str) -> bool:
    """Whether what is made there is of `provider`: the first part of its model's name, or its deployment."""
    return model.partition("/")[0].lower() == provider.lower() or deployment == provider


def reconcile(
    bill: Bill,
    attempts: Sequence[Attempt],
    rates: Mapping[str, Rates],
    *,
    provider: str | None = None,
    exchange: Mapping[str, Decimal] | None = None,
    dated: Dated = _NO_RATES,
) -> Reconciliation:
    """Compare. `rates` are those of each deployment now, for attempts that do not say their own; `exchange` is USD for
    one unit of another currency, else the declared rate of a line's day counts (`dated`).

    Without `provider`, attempts of models that the bill does not name are left out and counted.
    """
    with localcontext(prec=PRECISION):
        mine = [
            attempt for attempt in attempts if provider is None or belongs(attempt.model, attempt.deployment, provider)
        ]
        work = _Work(
            bill, rates, dict(exchange or {}), dated=dated, usage_only=all(line.amount is None for line in bill.lines),
            decimals=max((line.decimals for line in bill.lines), default=0),
            by_model={a.model: rates[a.deployment] for a in mine if a.deployment in rates},
        )  # fmt: skip
        rest_lines, rest_attempts, billed = _by_id(work, bill.lines, mine)
        if len(rest_attempts) < len(mine):
            rest_lines, rest_attempts = _by_use(work, rest_lines, rest_attempts)
        left_out = _by_group(work, rest_lines, rest_attempts, billed, everything=provider is not None)
        compared = len(mine) - len(left_out)
        return Reconciliation(
            work.total,
            sum((a.cost for a in mine), Decimal(0)) - sum((a.cost for a in left_out), Decimal(0)),
            tuple(sorted(work.rows, key=lambda row: (-abs(row.amount), row.kind, str(row.day)))),
            len(mine) - len(rest_attempts), compared, len(left_out), sum((a.cost for a in left_out), Decimal(0)),
            (*bill.notes, *work.notes()), work.unvalued + sum(work.unpriced.values()),
        )  # fmt: skip


@dataclass(slots=True)
class _Work:
    """What the comparison collects."""

    bill: Bill
    rates: Mapping[str, Rates]
    exchange: dict[str, Decimal]
    dated: Dated = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    unpriced: dict[str, int] = field(default_factory=dict)
    """Currency without a rate -> lines."""
    decimals: int = 0
    """The most that any amount of the file was written with, since zeros at the end are often left out."""
    usage_only: bool = False
    """The bill has no amounts at all."""
    by_model: dict[str, Rates] = field(default_factory=dict)
    unvalued: int = 0
    total: Decimal = Decimal(0)
    """Of the bill, so far."""

    def usd(self, line: Line) -> Decimal | None:
        """Exact USD of a line; None where it has no amount, or its currency no rate."""
        rate = self.rate(line)
        return None if line.amount is None or rate is None else line.amount * rate

    def rate(self, line: Line) -> Decimal | None:
        """USD for one unit of its currency on its day."""
        if line.currency == "USD":
            return Decimal(1)
        rate = self.exchange.get(line.currency)
        if rate is None and line.currency in self.dated and line.day is not None:
            begun = [each for each in self.dated[line.currency] if each.since <= line.day.isoformat()]
            rate = Decimal(max(begun, key=lambda each: each.since).rate) / PICO if begun else None
        return rate

    def gap(self, attempts: Sequence[Attempt], lines: Sequence[Line]) -> Decimal | None:
        """How far lines and attempts are apart: in USD, or in tokens where the bill has no amounts; None: who knows."""
        if self.usage_only:
            told = sum((line.input or 0) + (line.output or 0) for line in lines)
            return Decimal(abs(told - sum(each.input + each.output for each in attempts)))
        amounts = [self.usd(line) for line in lines]
        known = [amount for amount in amounts if amount is not None]
        cost = sum((each.cost for each in attempts), Decimal(0))
        return abs(sum(known, Decimal(0)) - cost) if len(known) == len(amounts) else None

    def rounded(self, lines: Sequence[Line]) -> Decimal:
        """The most in USD that rounding of these lines can come to."""
        half = Decimal(5).scaleb(-self.decimals - 1)
        known = (line for line in lines if line.amount is not None and (self.decimals or line.currency in WHOLE))
        return sum((half * (self.rate(line) or 0) for line in known), Decimal(0))

    def notes(self) -> list[str]:
        found = [
            f"{counted(count, 'line')} in {currency} left out, since it has no rate: say --rate {currency}=USD, or"
            " declare its rates at the company"
            for currency, count in self.unpriced.items()
        ]
        if self.usage_only:
            found.append("the file has tokens and no amounts: they are valued as the ledger charges them")
        if self.unvalued:
            found.append(f"{counted(self.unvalued, 'line')} for models without a price here: counted as nothing")
        return found

    def compare(self, lines: Sequence[Line], attempts: Sequence[Attempt], *, model: str | None, told: str = "") -> None:
        """Rows for lines and attempts that belong together; `told` is what a note says of all of them."""
        known, unknown = self._priced(lines)
        if unknown and not known:
            self._unpriced(unknown, attempts, model)
            return
        left = self._without_open_and_demo(known, attempts, model)
        ledger, rates = _ledger_side(left), self._rates_of(left)
        bill = self._valued(self._bill_side(known), ledger, rates, model) if self.usage_only else self._bill_side(known)
        self.total += bill.usd
        found = parts(bill, ledger, rates)
        asked = _sum(line.requests for line in known)
        ours = sum(bool(each.cost) or each.outcome == "ok" for each in left)  # no bill counts one that was turned away
        counted = f"the bill counts {asked} requests, the ledger {ours}" if asked not in (None, ours) else ""
        for part in found:
            self.row(replace(part, note="; ".join(filter(None, (told, part.note, counted)))), known, left, model)

    def _valued(self, bill: Side, ledger: Side, rates: Rates | None, model: str | None) -> Side:
        """A side of tokens alone, with the amount that the ledger would charge for them."""
        if ledger.count:
            return replace(bill, usd=ledger.usd + value_of_tokens(bill, ledger, rates))
        rates = self.by_model.get(model or "")
        self.unvalued += bill.count if rates is None else 0
        nothing = Side(Decimal(0), 0, 0, count=0)
        return bill if rates is None else replace(bill, usd=value_of_tokens(bill, nothing, rates))

    def _priced(self, lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
        known, unknown = [], []
        for line in lines:
            if line.amount is not None and self.usd(line) is None:
                self.unpriced[line.currency] = self.unpriced.get(line.currency, 0) + 1
                unknown.append(line)
            else:
                known.append(line)
        return known, unknown

    def _unpriced(self, lines: Sequence[Line], attempts: Sequence[Attempt], model: str | None) -> None:
        cost = sum((attempt.cost for attempt in attempts), Decimal(0))
        if cost:
            self.row(Part("currency", -cost, ""), lines, attempts, model)

    def _without_open_and_demo(
        self, lines: Sequence[Line], attempts: Sequence[Attempt], model: str | None
    ) -> list[Attempt]:
        """Attempts that a bill can have. In a group, open ones and the demo are told apart; by id nothing is, and of
        what the ledger wrote itself the open ones alone."""
        named = any(line.call is not None for line in lines)
        left, demo = [], []
        for attempt in attempts:
            settled = attempt.state == "settled" and not attempt.demo
            if named or settled or (self.bill.own and attempt.state != "open"):
                left.append(attempt)
            elif attempt.demo:
                demo.append(attempt)
            elif attempt.cost:
                self.row(Part("open_reservation", -attempt.cost, ""), (), [attempt], model)
        if beside := sum((attempt.cost for attempt in demo), Decimal(0)):
            self.row(Part("demo", -beside, ""), (), demo, model)
        return left

    def _bill_side(self, lines: Sequence[Line]) -> Side:
        amounts = [amount for line in lines if (amount := self.usd(line)) is not None]
        classes: dict[str, tuple[Decimal, int]] = {}
        for line in lines:
            tokens = line.output if line.token_class == "output" else line.input
            if line.token_class and tokens and (amount := self.usd(line)) is not None:
                before = classes.get(line.token_class, (Decimal(0), 0))
                classes[line.token_class] = (before[0] + amount, before[1] + tokens)
        return Side(
            sum(amounts, Decimal(0)), _sum(line.input for line in lines), _sum(line.output for line in lines),
            count=len(lines), rounded=self.rounded(lines), classes=classes,
        )  # fmt: skip

    def _rates_of(self, attempts: Sequence[Attempt]) -> Rates | None:
        """Rates by which these attempts were charged, where they are the same for all."""
        several = [attempt.rates or self.rates.get(attempt.deployment) for attempt in attempts]
        return several[0] if several and all(rates is several[0] or rates == several[0] for rates in several) else None

    def row(self, part: Part, lines: Sequence[Line], attempts: Sequence[Attempt], model: str | None) -> None:
        """Note one part of the difference."""
        days = {line.day for line in lines if line.day} or {attempt.at.date() for attempt in attempts}
        places = {attempt.deployment for attempt in attempts}
        kind = part.kind
        if kind == "bill_line_without_call" and all(line.foreign for line in lines):
            purposes = {line.purpose for line in lines}
            kind = (purposes.pop() if len(purposes) == 1 else "") or "other_service"
        self.rows.append(
            Row(
                kind, part.amount, sum((self.usd(line) or Decimal(0) for line in lines), Decimal(0)),
                sum((attempt.cost for attempt in attempts), Decimal(0)), min(days, default=None),
                model or next((line.model for line in lines if line.model), None),
                places.pop() if len(places) == 1 else None,
                tuple(dict.fromkeys(attempt.call for attempt in attempts)) or _calls(lines),
                tuple(line.number for line in lines), part.note,
            )
        )  # fmt: skip


def _calls(lines: Sequence[Line]) -> tuple[UUID, ...]:
    return tuple(dict.fromkeys(line.call for line in lines if line.call is not None))


def _sum(values: Iterable[int | None]) -> int | None:
    told = [value for value in values if value is not None]
    return sum(told) if told else None


def _ledger_side(attempts: Sequence[Attempt]) -> Side:
    return Side(
        sum((attempt.cost for attempt in attempts), Decimal(0)),
        sum(attempt.input for attempt in attempts), sum(attempt.output for attempt in attempts), count=len(attempts),
        estimated=sum((one.cost for one in attempts if one.estimated), Decimal(0))
        if any(one.estimated for one in attempts)
        else None,
        open=any(attempt.state != "settled" for attempt in attempts),
        not_billed=bool(attempts) and all(not attempt.cost and attempt.outcome != "ok" for attempt in attempts),
    )  # fmt: skip


def _by_id(
    work: _Work, lines: Sequence[Line], attempts: Sequence[Attempt]
) -> tuple[list[Line], list[Attempt], set[str]]:
    """Compare what lines name; returns the lines and attempts that are left, and the models that were named."""
    known: dict[UUID, list[Attempt]] = {}
    for attempt in attempts:
        known.setdefault(attempt.call, []).append(attempt)
    named: dict[UUID, list[Line]] = {}
    rest = []
    ours = any(line.call in known for line in lines)
    for line in lines:
        if line.call is not None and (line.call in known or (ours and line.call.version == OUR_VERSION)):
            named.setdefault(line.call, []).append(line)
        else:
            rest.append(line)
    taken: set[tuple[UUID, int]] = set()
    for call, group in named.items():
        for some, tries in _attempts_of(group, known.get(call, [])):
            model = tries[0].model if tries else None
            once, again = told_again(some, sum(bool(each.cost) for each in tries), partial(work.gap, tries))
            work.compare(once, tries, model=model)
            if again:
                work.compare(again, (), model=model, told=AGAIN)
            taken |= {(attempt.call, attempt.number) for attempt in tries}
    left = [attempt for attempt in attempts if (attempt.call, attempt.number) not in taken]
    return rest, left, {attempt.model for attempt in attempts if (attempt.call, attempt.number) in taken}


def _by_use(work: _Work, lines: Sequence[Line], attempts: Sequence[Attempt]) -> tuple[list[Line], list[Attempt]]:
    """Of a bill that names our calls: a line with an id of its own is for one attempt of its day and model that used as
    much (some have no header that a provider keeps), or for none of ours. Returns the lines without an id, and the
    attempts that are left."""
    like: dict[tuple[date, str, int | None, int | None], list[Attempt]] = {}
    models = {attempt.model for attempt in attempts}
    named = {name: resolve(name, models) for name in {line.model for line in lines if line.other}}
    rest, taken = [], set[tuple[UUID, int]]()
    for attempt in reversed(attempts):
        like.setdefault((attempt.at.date(), attempt.model, attempt.input, attempt.output), []).append(attempt)
    for line in lines:
        if not line.other or line.foreign:
            rest.append(line)
            continue
        model = named[line.model]
        found = like.get((line.day, model, line.input, line.output)) if line.day and model else None
        tries = [found.pop()] if found else []
        work.compare([line], tries, model=model)
        taken |= {(attempt.call, attempt.number) for attempt in tries}
    return rest, [attempt for attempt in attempts if (attempt.call, attempt.number) not in taken]


def _attempts_of(lines: Sequence[Line], attempts: Sequence[Attempt]) -> list[tuple[list[Line], list[Attempt]]]:
    """Lines of one call with the attempts that they are for: by number where every line tells one."""
    if any(line.attempt is None for line in lines):
        return [(list(lines), list(attempts))]
    numbers = dict.fromkeys(line.attempt for line in lines)
    return [
        ([line for line in lines if line.attempt == number], [each for each in attempts if each.number == number])
        for number in numbers
    ]


Span = tuple[date, date]
"""First and last of several days."""
Key = tuple[date | Span | None, str | None, str | None]
MOST_SPANS = 1000
"""Different ones of a bill; beyond it such lines are compared with all of its days."""


def _by_group(
    work: _Work, lines: Sequence[Line], attempts: Sequence[Attempt], billed: set[str], *, everything: bool
) -> list[Attempt]:
    """Compare by day, model and deployment; returns the attempts that have nothing to do with the bill. No call pays
    for lines of other services, so they are compared with none."""
    models = {attempt.model for attempt in attempts}
    places = {attempt.deployment for attempt in attempts}
    groups: dict[Key, tuple[list[Line], list[Attempt]]] = {}
    foreign: dict[tuple[date | None, str], list[Line]] = {}
    billed = set(billed)
    named = {name: resolve(name, models) for name in {line.model for line in lines}}
    spans = _spans(lines)
    known = set(spans)
    for line in lines:
        if line.foreign:
            foreign.setdefault((line.day, line.purpose), []).append(line)
            continue
        model = named[line.model]
        billed |= {model} if model in models else set()
        span = _span(line)
        when = line.day if span is None else span if span in known else None
        key: Key = (when, model, line.deployment if line.deployment in places else None)
        groups.setdefault(key, ([], []))[0].append(line)
    every = everything or any(model is None for _, model, _ in groups)
    left_out, demo = [], list[Attempt]()
    days = {day: [span for span in spans if span[0] <= day <= span[1]] for day in {a.at.date() for a in attempts}}
    for attempt in attempts:
        found = next((key for key in _keys(attempt, days[attempt.at.date()]) if key in groups), None)
        if found is not None:
            groups[found][1].append(attempt)
        elif attempt.demo:
            demo.append(attempt)
        elif every or attempt.model in billed:
            _alone(work, attempt)
        else:
            left_out.append(attempt)
    _of_demo(work, demo)
    for (when, model, _), (some, tries) in groups.items():
        told = f"of {when[0]} to {when[1]}" if isinstance(when, tuple) else ""
        exact = partial(lambda calls, of: work.rounded(of) + Decimal(calls) / PICO, len(tries))
        once, again = told_again(some, 1, partial(work.gap, tries), exact)
        work.compare(once, tries, model=model, told=told)
        if again:
            work.compare(again, (), model=model, told=f"{told} {AGAIN}".lstrip())
    for some in foreign.values():
        work.compare(some, (), model=None)
    return left_out


def _span(line: Line) -> Span | None:
    return None if line.day is None or line.until is None else (line.day, line.until)


def _spans(lines: Iterable[Line]) -> list[Span]:
    """Those of lines that are of several days, the shortest first."""
    found = {span for line in lines if not line.foreign and (span := _span(line))}
    return sorted(found, key=lambda span: (span[1] - span[0], span))[:MOST_SPANS]


def _keys(attempt: Attempt, spans: Sequence[Span]) -> Iterable[Key]:
    """Groups that an attempt fits into, the narrowest first. `spans`: those that its day is in."""
    for when in (attempt.at.date(), *spans, None):
        yield when, attempt.model, attempt.deployment
        yield when, attempt.model, None
        yield when, None, attempt.deployment
        yield when, None, None


def _alone(work: _Work, attempt: Attempt) -> None:
    if attempt.cost:
        kind = "open_reservation" if attempt.state != "settled" else "call_without_bill_line"
        work.row(Part(kind, -attempt.cost, ""), (), [attempt], attempt.model)


def _of_demo(work: _Work, demo: Iterable[Attempt]) -> None:
    """One row for a day and model: no provider bills any of them."""
    found = defaultdict[tuple[date, str], list[Attempt]](list)
    for attempt in demo:
        found[attempt.at.date(), attempt.model].append(attempt)
    for (_, model), tries in found.items():
        if beside := sum((attempt.cost for attempt in tries), Decimal(0)):
            work.row(Part("demo", -beside, ""), (), tries, model)
