"""Which lines of a bill and which attempts of the ledger belong together: by id, by what they used, by day, model and
deployment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from uuid import UUID

from groundplan.core.money import PICO
from groundplan.economics.bills.compare import Comparison
from groundplan.economics.bills.explain_gap import Part
from groundplan.economics.bills.model import OUR_VERSION, Attempt
from groundplan.economics.bills.model_names import resolve
from groundplan.economics.bills.parse import Line
from groundplan.economics.bills.repeated_lines import AGAIN, told_again

Span = tuple[date, date]
"""First and last of several days."""
Key = tuple[date | Span | None, str | None, str | None]
MOST_SPANS = 1000
"""Different ones of a bill; beyond it such lines are compared with all of its days."""


def by_id(
    work: Comparison, lines: Sequence[Line], attempts: Sequence[Attempt]
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


def by_use(work: Comparison, lines: Sequence[Line], attempts: Sequence[Attempt]) -> tuple[list[Line], list[Attempt]]:
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


def by_group(
    work: Comparison, lines: Sequence[Line], attempts: Sequence[Attempt], billed: set[str], *, everything: bool
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


def _alone(work: Comparison, attempt: Attempt) -> None:
    if attempt.cost:
        kind = "open_reservation" if attempt.state != "settled" else "call_without_bill_line"
        work.row(Part(kind, -attempt.cost, ""), (), [attempt], attempt.model)


def _of_demo(work: Comparison, demo: Iterable[Attempt]) -> None:
    """One row for a day and model: no provider bills any of them."""
    found = defaultdict[tuple[date, str], list[Attempt]](list)
    for attempt in demo:
        found[attempt.at.date(), attempt.model].append(attempt)
    for (_, model), tries in found.items():
        if beside := sum((attempt.cost for attempt in tries), Decimal(0)):
            work.row(Part("demo", -beside, ""), (), tries, model)
