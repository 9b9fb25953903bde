"""Matches lines of a bill with attempts of the ledger: by id, by equal usage, or in groups by day, model and
deployment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from uuid import UUID

from groundplan.core.money import PICO
from groundplan.economics.bills.compare import Comparison
from groundplan.economics.bills.explain_gap import GapPart
from groundplan.economics.bills.model import CALL_ID_VERSION, Attempt
from groundplan.economics.bills.model_names import resolve_model
from groundplan.economics.bills.parse import BillLine
from groundplan.economics.bills.repeated_lines import REPEATED_NOTE, split_repeated

DaySpan = tuple[date, date]
"""(first day, last day) of a line for several days."""
GroupKey = tuple[date | DaySpan | None, str | None, str | None]
MAX_DAY_SPANS = 1000
"""Limit of distinct spans; the lines of further spans are compared with all days of the bill."""


def match_by_id(
    comparison: Comparison, lines: Sequence[BillLine], attempts: Sequence[Attempt]
) -> tuple[list[BillLine], list[Attempt], set[str]]:
    """Compare each line that names a call with the attempts of that call. Returns (the other lines, the unmatched
    attempts, the models of the matched attempts)."""
    attempts_by_call: dict[UUID, list[Attempt]] = {}
    for attempt in attempts:
        attempts_by_call.setdefault(attempt.call, []).append(attempt)
    lines_by_call: dict[UUID, list[BillLine]] = {}
    rest = []
    names_calls = any(line.call in attempts_by_call for line in lines)
    for line in lines:
        if line.call is not None and (
            line.call in attempts_by_call or (names_calls and line.call.version == CALL_ID_VERSION)
        ):
            lines_by_call.setdefault(line.call, []).append(line)
        else:
            rest.append(line)
    matched: set[tuple[UUID, int]] = set()
    for call, group in lines_by_call.items():
        for call_lines, tries in _pair_attempts(group, attempts_by_call.get(call, [])):
            model = tries[0].model if tries else None
            distinct, repeated = split_repeated(
                call_lines, sum(bool(each.cost) for each in tries), partial(comparison.gap, tries)
            )
            comparison.compare(distinct, tries, model=model)
            if repeated:
                comparison.compare(repeated, (), model=model, note=REPEATED_NOTE)
            matched |= {(attempt.call, attempt.number) for attempt in tries}
    unmatched = [attempt for attempt in attempts if (attempt.call, attempt.number) not in matched]
    return rest, unmatched, {attempt.model for attempt in attempts if (attempt.call, attempt.number) in matched}


def match_by_usage(
    comparison: Comparison, lines: Sequence[BillLine], attempts: Sequence[Attempt]
) -> tuple[list[BillLine], list[Attempt]]:
    """For a bill that names calls: compare each line with a foreign id with one attempt of the same day, model and
    usage (not every provider keeps the id that was sent), or with none. Returns (the lines without an id, the unmatched
    attempts)."""
    candidates: dict[tuple[date, str, int | None, int | None], list[Attempt]] = {}
    models = {attempt.model for attempt in attempts}
    model_by_name = {
        name: resolve_model(name, models) for name in {line.model for line in lines if line.has_foreign_id}
    }
    rest, matched = [], set[tuple[UUID, int]]()
    for attempt in reversed(attempts):
        candidates.setdefault((attempt.at.date(), attempt.model, attempt.input, attempt.output), []).append(attempt)
    for line in lines:
        if not line.has_foreign_id or line.is_foreign:
            rest.append(line)
            continue
        model = model_by_name[line.model]
        same_usage = candidates.get((line.day, model, line.input, line.output)) if line.day and model else None
        tries = [same_usage.pop()] if same_usage else []
        comparison.compare([line], tries, model=model)
        matched |= {(attempt.call, attempt.number) for attempt in tries}
    return rest, [attempt for attempt in attempts if (attempt.call, attempt.number) not in matched]


def _pair_attempts(
    lines: Sequence[BillLine], attempts: Sequence[Attempt]
) -> list[tuple[list[BillLine], list[Attempt]]]:
    """Pair the lines of one call with its attempts: by attempt number where every line names one, else all with all."""
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
    """Compare lines and attempts in groups of the same day, model and deployment. Returns the attempts that do not
    belong to the bill: those of models that are neither in `billed` nor named by a line, unless `everything` does.
    Lines of other services belong to no call, so they are compared with no attempt."""
    models = {attempt.model for attempt in attempts}
    deployments = {attempt.deployment for attempt in attempts}
    groups: dict[GroupKey, tuple[list[BillLine], list[Attempt]]] = {}
    foreign: dict[tuple[date | None, str], list[BillLine]] = {}
    billed = set(billed)
    model_by_name = _models_by_name(comparison, lines, models, everything=everything)
    spans = _day_spans(lines)
    known_spans = set(spans)
    for line in lines:
        if line.is_foreign:
            foreign.setdefault((line.day, line.purpose), []).append(line)
            continue
        model = model_by_name[line.model]
        billed |= {model} if model in models else set()
        span = _day_span(line)
        days = line.day if span is None else span if span in known_spans else None
        key: GroupKey = (days, model, line.deployment if line.deployment in deployments else None)
        groups.setdefault(key, ([], []))[0].append(line)
    include_all = everything or any(model is None for _, model, _ in groups)
    excluded, demo = [], list[Attempt]()
    spans_by_day = _spans_by_day(spans, attempts)
    for attempt in attempts:
        found = next((key for key in _candidate_keys(attempt, spans_by_day[attempt.at.date()]) if key in groups), None)
        if found is not None:
            groups[found][1].append(attempt)
        elif attempt.demo:
            demo.append(attempt)
        elif include_all or attempt.model in billed:
            _add_unmatched(comparison, attempt)
        else:
            excluded.append(attempt)
    _add_demo_rows(comparison, demo)
    for (days, model, _), (group_lines, tries) in groups.items():
        note = f"of {days[0]} to {days[1]}" if isinstance(days, tuple) else ""
        rounding = partial(lambda calls, some: comparison.rounding_bound(some) + Decimal(calls) / PICO, len(tries))
        distinct, repeated = split_repeated(group_lines, 1, partial(comparison.gap, tries), rounding)
        comparison.compare(distinct, tries, model=model, note=note)
        if repeated:
            comparison.compare(repeated, (), model=model, note=f"{note} {REPEATED_NOTE}".lstrip())
    for group_lines in foreign.values():
        comparison.compare(group_lines, (), model=None)
    return excluded


def _models_by_name(
    comparison: Comparison, lines: Sequence[BillLine], models: Collection[str], *, everything: bool
) -> dict[str | None, str | None]:
    """Name on the bill -> model; None for all if lines that are compared with `everything` name no model."""
    found = {name: resolve_model(name, models) for name in {line.model for line in lines}}
    comparison.describes_no_model = everything and _describes_no_model(lines, models, found)
    return dict.fromkeys(found) if comparison.describes_no_model else found


def _describes_no_model(
    lines: Iterable[BillLine], models: Collection[str], model_by_name: Mapping[str | None, str | None]
) -> bool:
    """Whether the texts of lines without tokens, which may name models, are descriptions that name none, as on an
    invoice: `API usage, November`."""
    usage = [line for line in lines if not line.is_foreign]
    return bool(usage) and all(
        line.model is not None
        and " " in line.model.strip()
        and model_by_name[line.model] not in models
        and line.input is line.output is line.requests is None
        for line in usage
    )


def _day_span(line: BillLine) -> DaySpan | None:
    return None if line.day is None or line.until is None else (line.day, line.until)


def _day_spans(lines: Iterable[BillLine]) -> list[DaySpan]:
    """Distinct spans of the lines for several days, the shortest first."""
    spans = {span for line in lines if not line.is_foreign and (span := _day_span(line))}
    return sorted(spans, key=lambda span: (span[1] - span[0], span))[:MAX_DAY_SPANS]


def _spans_by_day(spans: Sequence[DaySpan], attempts: Iterable[Attempt]) -> dict[date, list[DaySpan]]:
    """Day of an attempt -> the spans that contain it."""
    return {day: [span for span in spans if span[0] <= day <= span[1]] for day in {each.at.date() for each in attempts}}


def _candidate_keys(attempt: Attempt, spans: Sequence[DaySpan]) -> Iterable[GroupKey]:
    """Keys of the groups that an attempt can belong to, the narrowest first. `spans`: those that contain its day."""
    for days in (attempt.at.date(), *spans, None):
        yield days, attempt.model, attempt.deployment
        yield days, attempt.model, None
        yield days, None, attempt.deployment
        yield days, None, None


def _add_unmatched(comparison: Comparison, attempt: Attempt) -> None:
    """Add a discrepancy for an attempt that no line of the bill covers."""
    if attempt.cost:
        kind = "open_reservation" if attempt.state != "settled" else "call_without_bill_line"
        comparison.add_discrepancy(GapPart(kind, -attempt.cost, ""), (), [attempt], attempt.model)


def _add_demo_rows(comparison: Comparison, attempts: Iterable[Attempt]) -> None:
    """Add one discrepancy for each day and model of the demo's attempts, which no provider bills."""
    groups = defaultdict[tuple[date, str], list[Attempt]](list)
    for attempt in attempts:
        groups[attempt.at.date(), attempt.model].append(attempt)
    for (_, model), tries in groups.items():
        if cost := sum((attempt.cost for attempt in tries), Decimal(0)):
            comparison.add_discrepancy(GapPart("demo", -cost, ""), (), tries, model)
