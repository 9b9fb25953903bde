"""All levers of some days, ranked by what they would save a month. Pure; what they are found in is read elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from groundplan.blueprint.model import Deployment, Workload
from groundplan.economics.allocate.model import Line
from groundplan.economics.levers import idle, prompts, requests
from groundplan.economics.levers.model import Looked, Lost
from groundplan.economics.replay import opportunities
from groundplan.economics.replay.opportunities import SMALL, Opportunity, Spent


def levers(
    spent: Sequence[Spent],
    workloads: Sequence[Workload],
    places: Mapping[str, Deployment],
    looked: Looked,
    lines: Sequence[Line] = (),
    only: str | None = None,
) -> list[Opportunity]:
    """The largest first; what saves less than a cent a month is left out, unless it frees as much of a budget. `only`:
    what is about this workload, alone or among others."""
    found = opportunities.found(
        _first(spent, looked), workloads, places, looked.days, looked.seen, looked.shown, looked.runs
    )
    month = Decimal(30) / Decimal(max(1, looked.days))

    def of(*names: str) -> Decimal:
        """By how much what these workloads cost in these days is that of a month."""
        return min((opportunities.month(name, looked.days, looked.seen) for name in names), default=month)

    declared = {workload.name: workload for workload in workloads}
    for row in spent:
        workload, place = declared.get(row.workload), places.get(row.deployment)
        if workload is not None and place is not None and place.kind == "chat" and not row.purpose:
            found += prompts.instructions(row, workload, place.rates, of(row.workload))
            calls = [call for call in looked.grounded if call.workload == row.workload]
            sampled = looked.sampled.get(row.workload, len(calls))
            found += prompts.passages(row, workload, place.rates, calls, sampled, of(row.workload))
    found += _of_use(looked, declared, spent, places, of)
    found += requests.batches(looked.hours, places, looked.days, of, spent)
    found += idle.idle_capacity(lines, month)
    for kept in looked.content:
        found += idle.unread_content(kept, lines, month)
    told = [
        each for each in found if max(each.saves_usd, each.frees_usd) >= SMALL and (only is None or only in each.about)
    ]
    return sorted(told, key=lambda each: (-each.saves_usd, -each.frees_usd, each.lever, each.workload))


def _times(looked: Looked, spent: Sequence[Spent]) -> dict[str, Decimal]:
    """Workload -> how many times as many calls as were looked at there were."""
    calls: dict[str, int] = {}
    for row in spent:
        if not row.purpose:
            calls[row.workload] = calls.get(row.workload, 0) + row.calls - row.unanswered
    return {
        name: max(Decimal(1), Decimal(calls.get(name, 0)) / count) for name, count in looked.sampled.items() if count
    }


def _first(spent: Sequence[Spent], looked: Looked) -> list[Spent]:
    """What failed attempts cost without the retries among them, which are told apart: no dollar is told twice."""
    return [row if row.purpose else _less(row, looked.lost) for row in spent]


def _less(row: Spent, lost: Sequence[Lost]) -> Spent:
    mine = [each for each in lost if (each.workload, each.deployment) == (row.workload, row.deployment)]
    return replace(
        row,
        failed_usd=max(Decimal(0), row.failed_usd - sum(each.cost_usd for each in mine)),
        failed_attempts=max(0, row.failed_attempts - sum(each.attempts for each in mine)),
    )


def _of_use(
    looked: Looked,
    declared: Mapping[str, Workload],
    spent: Sequence[Spent],
    places: Mapping[str, Deployment],
    of: Callable[..., Decimal],
) -> Iterator[Opportunity]:
    for seen in looked.outputs:
        if (workload := declared.get(seen.workload)) is not None:
            rows = [row for row in spent if row.workload == seen.workload and not row.purpose]
            bound = sum(
                (requests.bound_of_output(row, workload, places.get(row.deployment)) for row in rows), Decimal(0)
            )
            rates = [places[name].rates for name in workload.deployments if name in places]
            yield from requests.unused_room(seen, workload, bound, rates, of(seen.workload))
    for same in requests.twice(looked.grounded, _times(looked, spent)):
        yield from requests.same_questions(same, of(*same.workloads))
    for alike in looked.alike:
        yield from requests.same_requests(alike, of(*alike.workloads))
    never = {retried.workload for retried in looked.retried if requests.never_help(retried)}
    for retried in looked.retried:
        yield from requests.retries_that_never_help(retried, of(retried.workload))
    for lost in looked.lost:
        if lost.workload not in never:
            yield from requests.useless_retries(lost, of(lost.workload))
