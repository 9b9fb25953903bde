"""Finds all levers in the observations of some days, ranked by monthly savings. Pure; `api.cost.levers` reads these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from groundplan.blueprint.model import Deployment, Workload
from groundplan.economics.allocate.model import Line
from groundplan.economics.levers import idle, prompts, requests
from groundplan.economics.levers.model import FailedRetries, Observations
from groundplan.economics.replay import opportunities
from groundplan.economics.replay.opportunities import SMALL, Opportunity, Spent


def rank_levers(
    spent: Sequence[Spent],
    workloads: Sequence[Workload],
    places: Mapping[str, Deployment],
    looked: Observations,
    lines: Sequence[Line] = (),
    only: str | None = None,
) -> list[Opportunity]:
    """All levers, largest savings first, without those that save less than a cent a month and free less of a budget.
    `only`: levers of this workload, alone or among others."""
    found = opportunities.found(
        _without_failed_retries(spent, looked), workloads, places, looked.days, looked.seen, looked.shown, looked.runs
    )
    month = Decimal(30) / Decimal(max(1, looked.days))

    def of(*names: str) -> Decimal:
        """Factor from the cost in these days to that of a month."""
        return min((opportunities.month(name, looked.days, looked.seen) for name in names), default=month)

    declared = {workload.name: workload for workload in workloads}
    for row in spent:
        workload, place = declared.get(row.workload), places.get(row.deployment)
        if workload is not None and place is not None and place.kind == "chat" and not row.purpose:
            found += prompts.instructions(row, workload, place.rates, of(row.workload))
            calls = [call for call in looked.grounded if call.workload == row.workload]
            sampled = looked.sampled.get(row.workload, len(calls))
            found += prompts.passages(row, workload, place.rates, calls, sampled, of(row.workload))
    found += _from_usage(looked, declared, spent, places, of)
    found += requests.batches(looked.hours, places, looked.days, of, spent)
    found += idle.idle_capacity(lines, month)
    for kept in looked.content:
        found += idle.unread_content(kept, lines, month)
    told = [
        each for each in found if max(each.saves_usd, each.frees_usd) >= SMALL and (only is None or only in each.about)
    ]
    return sorted(told, key=lambda each: (-each.saves_usd, -each.frees_usd, each.lever, each.workload))


def _sampling_factors(looked: Observations, spent: Sequence[Spent]) -> dict[str, Decimal]:
    """Workload -> its calls divided by the sampled ones."""
    calls: dict[str, int] = {}
    for row in spent:
        if not row.purpose:
            calls[row.workload] = calls.get(row.workload, 0) + row.calls - row.unanswered
    return {
        name: max(Decimal(1), Decimal(calls.get(name, 0)) / count) for name, count in looked.sampled.items() if count
    }


def _without_failed_retries(spent: Sequence[Spent], looked: Observations) -> list[Spent]:
    """Rows without the cost of failed retries, which are a lever of their own: no dollar counts twice."""
    return [row if row.purpose else _subtract_retries(row, looked.lost) for row in spent]


def _subtract_retries(row: Spent, lost: Sequence[FailedRetries]) -> Spent:
    mine = [each for each in lost if (each.workload, each.deployment) == (row.workload, row.deployment)]
    return replace(
        row,
        failed_usd=max(Decimal(0), row.failed_usd - sum(each.cost_usd for each in mine)),
        failed_attempts=max(0, row.failed_attempts - sum(each.attempts for each in mine)),
    )


def _from_usage(
    looked: Observations,
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
    for same in requests.shared_passages(looked.grounded, _sampling_factors(looked, spent)):
        yield from requests.same_questions(same, of(*same.workloads))
    for alike in looked.alike:
        yield from requests.same_requests(alike, of(*alike.workloads))
    never = {retried.workload for retried in looked.retried if requests.retries_never_help(retried)}
    for retried in looked.retried:
        yield from requests.retries_that_never_help(retried, of(retried.workload))
    for lost in looked.lost:
        if lost.workload not in never:
            yield from requests.useless_retries(lost, of(lost.workload))
