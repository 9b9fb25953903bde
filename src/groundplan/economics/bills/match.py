"""Matches lines of a bill with attempts of the ledger: by id, by equal usage, or in groups by day, model and
deployment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from uuid import UUID

from groundplan.core.money import PICO
from groundplan.economics.bills.compare import Comparison
from groundplan.economics.bills.explain_gap import GapPart
from groundplan.economics.bills.model import OUR_VERSION, Attempt
from groundplan.economics.bills.model_names import resolve
from groundplan.economics.bills.parse import BillLine
from groundplan.economics.bills.repeated_lines import REPEATED_NOTE, split_repeated

Span = tuple[date, date]
"""First and last of several days."""
Key = tuple[date | Span | None, str | None, str | None]
MAX_SPANS = 1000
"""Limit of different spans of days; lines of further ones are compared with all days of the bill."""


def match_by_id(
    comparison: Comparison, lines: Sequence[BillLine], attempts: Sequence[Attempt]
) -> tuple[list[BillLine], list[Attempt], set[str]]:
    """Compare lines with the calls that they name; returns the lines and attempts that are left, and the models of the
    matched attempts."""
    known: dict[UUID, list[Attempt]] = {}
    for attempt in attempts:
        known.setdefault(attempt.call, []).append(attempt)
    named: dict[UUID, list[BillLine]] = {}
    rest = []
    ours = any(line.call in known for line in lines)
    for line in lines:
        if line.call is not None and (line.call in known or (ours and line.call.version == OUR_VERSION)):
            named.setdefault(line.call, []).append(line)
        else:
            rest.append(line)
    taken: set[tuple[UUID, int]] = set()
    for call, group in named.items():
        for some, tries in _pair_attempts(group, known.get(call, [])):
            model = tries[0].model if tries else None
            once, again = split_repeated(some, sum(bool(each.cost) for each in tries), partial(comparison.gap, tries))
            comparison.compare(once, tries, model=model)
            if again:
                comparison.compare(again, (), model=model, told=REPEATED_NOTE)
            taken |= {(attempt.call, attempt.number) for attempt in tries}
    left = [attempt for attempt in attempts if (attempt.call, attempt.number) not in taken]
    return rest, left, {attempt.model for attempt in attempts if (attempt.call, attempt.number) in taken}


def match_by_usage(
    comparison: Comparison, lines: Sequence[BillLine], attempts: Sequence[Attempt]
) -> tuple[list[BillLine], list[Attempt]]:
    """For a bill that names calls: match each line with a foreign id to one attempt of the same day, model and usage
    (not every provider keeps the id that was sent), or to none. Returns the lines without an id and the attempts
    left."""
    like: dict[tuple[date, str, int | None, int | None], list[Attempt]] = {}
    models = {attempt.model for attempt in attempts}
    named = {name: resolve(name, models) for name in {line.model for line in lines if line.has_foreign_id}}
    rest, taken = [], set[tuple[UUID, int]]()
    for attempt in reversed(attempts):
        like.setdefault((attempt.at.date(), attempt.model, attempt.input, attempt.output), []).append(attempt)
    for line in lines:
        if not line.has_foreign_id or line.is_foreign:
            rest.append(line)
            continue
        model = named[line.model]
        found = like.get((line.day, model, line.input, line.output)) if line.day and model else None
        tries = [found.pop()] if found else []
        comparison.compare([line], tries, model=model)
        taken |= {(attempt.call, attempt.number) for attempt in tries}
    return rest, [attempt for attempt in attempts if (attempt.call, attempt.number) not in taken]


def _pair_attempts(
    lines: Sequence[BillLine], attempts: Sequence[Attempt]
) -> list[tuple[list[BillLine], list[Attempt]]]:
    """Pair the lines of one call with its attempts: by number where every line names one, else all together."""
    if any(line.attempt is None for line in lines):
        return [(list(lines), list(attempts))]
    numbers = dict.fromkeys(line.attempt for line in lines)
    return [
        ([line for line in lines if line.attempt == number], [each for each in attempts if each.number == number])
        for number in numbers
    ]


def match_by_group(
    comparison: Comparison,
    lines: Sequence[BillLine],
    attempts: Sequence[Attempt],
    billed: set[str],
    *,
    everything: bool,
) -> list[Attempt]:
    """Compare in groups by day, model and deployment; returns the attempts that have nothing to do with the bill. Lines
    of other services belong to no call, so they are compared with none."""
    models = {attempt.model for attempt in attempts}
    places = {attempt.deployment for attempt in attempts}
    groups: dict[Key, tuple[list[BillLine], list[Attempt]]] = {}
    foreign: dict[tuple[date | None, str], list[BillLine]] = {}
    billed = set(billed)
    named = {name: resolve(name, models) for name in {line.model for line in lines}}
    spans = _spans(lines)
    known = set(spans)
    for line in lines:
        if line.is_foreign:
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
        found = next((key for key in _candidate_keys(attempt, days[attempt.at.date()]) if key in groups), None)
        if found is not None:
            groups[found][1].append(attempt)
        elif attempt.demo:
            demo.append(attempt)
        elif every or attempt.model in billed:
            _add_unmatched(comparison, attempt)
        else:
            left_out.append(attempt)
    _add_demo_rows(comparison, demo)
    for (when, model, _), (some, tries) in groups.items():
        told = f"of {when[0]} to {when[1]}" if isinstance(when, tuple) else ""
        exact = partial(lambda calls, of: comparison.rounding_bound(of) + Decimal(calls) / PICO, len(tries))
        once, again = split_repeated(some, 1, partial(comparison.gap, tries), exact)
        comparison.compare(once, tries, model=model, told=told)
        if again:
            comparison.compare(again, (), model=model, told=f"{told} {REPEATED_NOTE}".lstrip())
    for some in foreign.values():
        comparison.compare(some, (), model=None)
    return left_out


def _span(line: BillLine) -> Span | None:
    return None if line.day is None or line.until is None else (line.day, line.until)


def _spans(lines: Iterable[BillLine]) -> list[Span]:
    """Different spans of lines for several days, the shortest first."""
    found = {span for line in lines if not line.is_foreign and (span := _span(line))}
    return sorted(found, key=lambda span: (span[1] - span[0], span))[:MAX_SPANS]


def _candidate_keys(attempt: Attempt, spans: Sequence[Span]) -> Iterable[Key]:
    """Keys of the groups that an attempt fits into, the narrowest first. `spans`: those that contain its day."""
    for when in (attempt.at.date(), *spans, None):
        yield when, attempt.model, attempt.deployment
        yield when, attempt.model, None
        yield when, None, attempt.deployment
        yield when, None, None


def _add_unmatched(comparison: Comparison, attempt: Attempt) -> None:
    if attempt.cost:
        kind = "open_reservation" if attempt.state != "settled" else "call_without_bill_line"
        comparison.add_row(GapPart(kind, -attempt.cost, ""), (), [attempt], attempt.model)


def _add_demo_rows(comparison: Comparison, demo: Iterable[Attempt]) -> None:
    """Add one row for each day and model of the demo's attempts, which no provider bills."""
    found = defaultdict[tuple[date, str], list[Attempt]](list)
    for attempt in demo:
        found[attempt.at.date(), attempt.model].append(attempt)
    for (_, model), tries in found.items():
        if beside := sum((attempt.cost for attempt in tries), Decimal(0)):
            comparison.add_row(GapPart("demo", -beside, ""), (), tries, model)
