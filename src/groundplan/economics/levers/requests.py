"""Levers in how calls are made: oversized output caps, batches, questions shared by teams, useless retries. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from groundplan.blueprint.model import Deployment, Rates, Workload
from groundplan.economics import price
from groundplan.economics.experiment.model import BUDGET_PREFIX
from groundplan.economics.levers.model import (
    SHARE,
    ActiveHours,
    FailedRetries,
    GroundedCall,
    OutputSizes,
    Passage,
    RetryOutcomes,
    SharedPassages,
    SharedRequests,
)
from groundplan.economics.prices.reprice import cost_of_counts
from groundplan.economics.replay.opportunities import MTOK, PICO, Opportunity, Spent

MIN_ANSWERS = 200
"""Answers from which on their longest is reported."""
MIN_HEADROOM = 2
"""Ratio of the output cap to the longest answer from which on the cap is oversized."""
BUSY_CALLS, MAX_ACTIVE_SHARE, MIN_DAYS, LEAST_HOURS = 50, 0.2, 7, 3
"""A scheduled job: lowest mean calls of an active hour, highest share of active hours, fewest days of history, fewest
active hours."""
MIN_REPEATED = 20
"""Fewest repeated calls to report."""
MIN_REQUESTS = 10
"""Fewest shared requests to report: fewer would tell whoever guesses one whether others ask it."""
INTERNAL_PURPOSES = frozenset({"guardrail", "cascade"})
"""Purposes of calls that the gateway makes within another one."""
MIN_RESCUED_SHARE = 0.1
"""Share of retried calls answered in the end, below which retries do not help."""


def bound_of_output(row: Spent, workload: Workload, place: Deployment | None) -> Decimal:
    """The part of charges at the bound (for unknown usage) that is due to the output cap, not to the prompt."""
    if not row.bound_usd or place is None:
        return row.bound_usd
    into, out = place.rates.highest_token_rates
    capped, given = workload.max_output_tokens * out, Decimal(row.input * into) / max(1, row.calls)
    return row.bound_usd * capped / (capped + given) if capped + given else row.bound_usd


def unused_room(
    seen: OutputSizes, workload: Workload, bound_usd: Decimal, rates: Sequence[Rates], month: Decimal
) -> Iterable[Opportunity]:
    """An output cap far above every answer. `bound_usd`: of `bound_of_output`; `rates`: of the deployments."""
    cap = workload.max_output_tokens
    wanted = max(1, -(-seen.longest * 5 // 4))
    if seen.answers < MIN_ANSWERS or wanted * MIN_HEADROOM > cap:
        return
    spared = 1 - Decimal(wanted) / cap
    # reservations also exceed costs because of prompts, whose tokens are not known beforehand
    most = max((Decimal((cap - wanted) * each.highest_token_rates[1]) / MTOK / PICO for each in rates), default=None)
    aside = seen.set_aside_usd / seen.answers * spared
    yield Opportunity(
        "output that is never used",
        seen.workload,
        bound_usd * spared * month,
        f"limits: {{max_output: {wanted}}} instead of {cap}",
        f"the longest of {seen.answers:,} answers had {seen.longest:,} tokens, 99 of 100 at most {seen.common:,}",
        "small",
        "a longer answer would be cut; the cap is also the most that a call whose usage is unknown is charged",
        frees_usd=aside if most is None else min(aside, most),
    )


def batches(
    hours: Sequence[ActiveHours],
    places: Mapping[str, Deployment],
    days: int,
    month: Callable[[str], Decimal],
    spent: Sequence[Spent] = (),
) -> list[Opportunity]:
    """Features with many calls in few hours: scheduled jobs, which could be batches. `month`: workload -> factor to a
    month; `spent`: tells calls that are in batches already, and those that the gateway made itself."""
    if days < MIN_DAYS:
        return []
    found = []
    for asked in hours:
        if asked.feature.startswith(BUDGET_PREFIX):
            continue  # replays and shadows, which the gateway sends itself
        mine = _without_batches(_without_internal_calls(asked, spent), spent)
        place = places.get(mine.deployment)
        spared = Decimal(0) if place is None else batch_discount(place.rates, place.serves)
        few = LEAST_HOURS <= mine.hours <= MAX_ACTIVE_SHARE * 24 * days
        if spared <= 0 or not few or mine.calls < BUSY_CALLS * mine.hours:
            continue
        when = f", mostly at {mine.busiest:02d}:00 UTC" if 2 * mine.busiest_calls > mine.calls else ""
        found.append(
            Opportunity(
                "calls that could be batched",
                mine.workload,
                mine.cost_usd * spared * month(mine.workload),
                f"send {mine.feature or 'them'} by POST /v1/batches at {mine.deployment}",
                f"{mine.calls:,} calls in {mine.hours} of {24 * days} hours{when}",
                "medium",
                "a batch answers within a day: nobody may be waiting for these answers",
                deployment=mine.deployment,
            )
        )
    return found


def _without_internal_calls(mine: ActiveHours, spent: Sequence[Spent]) -> ActiveHours:
    """Without calls of guardrails and cascades: they carry the feature of the call they belong to, and cannot be
    batched."""
    rows = [row for row in spent if (row.workload, row.deployment) == (mine.workload, mine.deployment)]
    checks = [row for row in rows if row.purpose in INTERNAL_PURPOSES]
    if not checks:
        return mine
    asked = [row for row in rows if not row.purpose]
    return replace(
        mine,
        calls=int(mine.calls * _share(sum(row.calls for row in asked), sum(row.calls for row in checks))),
        cost_usd=mine.cost_usd * _share(_cost(asked), _cost(checks)),
    )


def _cost(rows: Sequence[Spent]) -> Decimal:
    return sum((row.cost_usd for row in rows), Decimal(0))


def _share(mine: Decimal | int, other: Decimal | int) -> Decimal:
    """Share of the first in both."""
    return Decimal(mine) / (mine + other) if mine else Decimal(0)


def _without_batches(mine: ActiveHours, spent: Sequence[Spent]) -> ActiveHours:
    """Without calls in batches, which have no feature."""
    if mine.feature:
        return mine
    rows = [row for row in spent if (row.workload, row.deployment, row.purpose) == (mine.workload, mine.deployment, "")]
    calls, cost = sum(row.batch_calls for row in rows), sum((row.batch_usd for row in rows), Decimal(0))
    return replace(mine, calls=max(0, mine.calls - calls), cost_usd=max(Decimal(0), mine.cost_usd - cost))


def batch_discount(rates: Rates, serves: Sequence[str] = ()) -> Decimal:
    """Discount of a batch with as much input as output; 0 if the deployment has no batch endpoint and no batch price
    for calls."""
    service = price.BATCH if price.BATCHES in serves else price.batch_line_service(rates, serves)
    used = {"input": 1000, "output": 1000}
    now = cost_of_counts(used, rates)
    return 1 - Decimal(cost_of_counts(used, price.service_rates(rates, service))) / now if now else Decimal(0)


def shared_passages(calls: Sequence[GroundedCall], times: Mapping[str, Decimal]) -> list[SharedPassages]:
    """Calls with exactly the same passages as a call of another team, by workloads. `times`: workload -> its calls
    divided by the sampled ones."""
    groups: dict[tuple[Passage, ...], list[GroundedCall]] = {}
    for call in calls:
        groups.setdefault(call.passages, []).append(call)
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[list[GroundedCall]]] = {}
    for mine in groups.values():
        teams = tuple(sorted({call.team for call in mine if call.team}))
        if len(teams) > 1:
            found.setdefault((tuple(sorted({call.workload for call in mine})), teams), []).append(mine)
    return [
        SharedPassages(
            workloads,
            teams,
            sum(len(mine) for mine in several),
            sum(len(mine) - 1 for mine in several),
            sum((_repeated_cost(mine, times) for mine in several), Decimal(0)),
        )
        for (workloads, teams), several in sorted(found.items())
    ]


def _repeated_cost(calls: Sequence[GroundedCall], times: Mapping[str, Decimal]) -> Decimal:
    """Mean cost of all but one of these calls, extrapolated from the sample."""
    cost = sum((call.cost_usd * times.get(call.workload, Decimal(1)) for call in calls), Decimal(0))
    return cost * (len(calls) - 1) / len(calls)


def same_questions(found: SharedPassages, month: Decimal) -> Iterable[Opportunity]:
    """The lever for calls of several teams with exactly the same passages."""
    if found.repeated < MIN_REPEATED or len(found.teams) < 2:
        return
    yield Opportunity(
        "the same asked by several teams",
        found.workloads[0],
        found.repeated_usd * month,
        f"answer {', '.join(found.teams)} from one workload with a cache: {', '.join(found.workloads)}",
        f"{found.calls:,} calls were given exactly the same passages, {found.repeated:,} of them again",
        "medium",
        "the same passages are not always the same question; a cache by meaning keeps a bound on wrong answers",
        others=found.workloads[1:],
    )


def same_requests(found: SharedRequests, month: Decimal) -> Iterable[Opportunity]:
    """The lever for requests that several teams share. Rounded, and never for a single request: it tells who could
    share, not what the others ask."""
    if len(found.teams) < 2 or (found.requests < MIN_REQUESTS and found.fewest < 2 * MIN_REQUESTS):
        return
    calls, again = _round(found.calls * SHARE), _round((found.calls - found.requests) * SHARE)
    owners = f" ({', '.join(found.owners)})" if found.owners else ""
    yield Opportunity(
        "the same asked by several teams",
        found.workloads[0],
        Decimal(_round(round(found.repeated_usd * SHARE * month * 10_000))) / 10_000,
        f"answer {', '.join(found.teams)}{owners} from one workload with a cache: {', '.join(found.workloads)}",
        f"about {calls} calls asked exactly the same as one of another team, about {again} of them again; estimated"
        f" from one request in {SHARE}, of which nothing is kept",
        "medium",
        "that the same answer may be given to both; their owners know what they ask, this page does not",
        others=found.workloads[1:],
    )


def _round(number: int) -> int:
    """Rounded to two digits."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return round(number / step) * step


def retries_never_help(seen: RetryOutcomes) -> bool:
    """Whether retries hardly ever led to an answer."""
    return seen.calls >= MIN_REPEATED and seen.rescued < MIN_RESCUED_SHARE * seen.calls


def retries_that_never_help(seen: RetryOutcomes, month: Decimal) -> Iterable[Opportunity]:
    """The lever for retries that hardly ever led to an answer."""
    if not retries_never_help(seen):
        return
    yield Opportunity(
        "retries that never help",
        seen.workload,
        seen.lost_usd * month,
        "limits: {attempts: 1}, or a fallback of another provider",
        f"{seen.rescued} of {seen.calls} calls that were tried again were answered",
        "small",
        "look at why the first attempt fails; a retry of the same cause fails the same way",
    )


def useless_retries(lost: FailedRetries, month: Decimal) -> Iterable[Opportunity]:
    """The lever for billed and failed retries at one deployment, where others of the workload help."""
    yield Opportunity(
        "useless retries",
        lost.workload,
        lost.cost_usd * month,
        f"retries at {lost.deployment} that were billed and failed as the attempt before had",
        f"{lost.attempts} attempts cost ${lost.cost_usd:.4f}",
        "medium",
        "see why they failed: time limits, broken streams, refusals",
        deployment=lost.deployment,
    )
