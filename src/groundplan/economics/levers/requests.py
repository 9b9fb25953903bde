"""Levers in how calls are made: room no answer needs, batches, the same question of several teams, retries. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from groundplan.blueprint.model import Deployment, Rates, Workload
from groundplan.economics import price
from groundplan.economics.experiment.model import BUDGET_PREFIX
from groundplan.economics.levers.model import SHARE, Active, Alike, Grounded, Lost, Outputs, Passage, Retried, Twice
from groundplan.economics.prices.reprice import cost_of_counts
from groundplan.economics.replay.opportunities import MTOK, PICO, Opportunity, Spent

SEEN = 200
"""Answers from which on the longest one is told."""
ROOM = 2
"""A cap this many times above the longest answer is never used."""
BUSY, RARE, WEEK, LEAST_HOURS = 50, 0.2, 7, 3
"""Calls of an active hour, the share of hours that may be active, and the days that are looked at at least, for a job
that runs by the clock."""
AGAIN = 20
"""Calls that were given the same passages as one of another team from which on it is told."""
DISTINCT = 10
"""Requests that are looked at, made alike by several teams, from which on that is told: fewer tell who guesses one
whether somebody else asks it."""
CHECKS = frozenset({"guardrail", "cascade"})
"""Purposes of calls that the gateway makes in the middle of another one."""
HELPS = 0.1
"""Share of retried calls that were answered in the end, below which retries never help."""


def bound_of_output(row: Spent, workload: Workload, place: Deployment | None) -> Decimal:
    """What was charged at the bound, since nobody knew better, as far as it is of the cap: a prompt stays as it is."""
    if not row.bound_usd or place is None:
        return row.bound_usd
    into, out = place.rates.dearest
    capped, given = workload.max_output_tokens * out, Decimal(row.input * into) / max(1, row.calls)
    return row.bound_usd * capped / (capped + given) if capped + given else row.bound_usd


def unused_room(
    seen: Outputs, workload: Workload, bound_usd: Decimal, rates: Sequence[Rates], month: Decimal
) -> Iterable[Opportunity]:
    """An output cap far above every answer. `bound_usd`: of `bound_of_output`; `rates`: where it may be answered."""
    cap = workload.max_output_tokens
    wanted = max(1, -(-seen.longest * 5 // 4))
    if seen.answers < SEEN or wanted * ROOM > cap:
        return
    spared = 1 - Decimal(wanted) / cap
    # what is set aside beyond the cost is of prompts, too, whose tokens nobody knows before
    most = max((Decimal((cap - wanted) * each.dearest[1]) / MTOK / PICO for each in rates), default=None)
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
    hours: Sequence[Active],
    places: Mapping[str, Deployment],
    days: int,
    month: Callable[[str], Decimal],
    spent: Sequence[Spent] = (),
) -> list[Opportunity]:
    """Features that ask many calls in few hours: a job by the clock, which can wait for a batch. `month`: of a
    workload, by how much what it cost is that of a month; `spent`: of which what is a batch already is taken off, and
    what the gateway itself asked."""
    if days < WEEK:
        return []
    found = []
    for asked in hours:
        if asked.feature.startswith(BUDGET_PREFIX):
            continue  # replays and shadows, which the gateway itself sends
        mine = _without_batches(_of_callers(asked, spent), spent)
        place = places.get(mine.deployment)
        spared = Decimal(0) if place is None else batch_discount(place.rates, place.serves)
        few = LEAST_HOURS <= mine.hours <= RARE * 24 * days
        if spared <= 0 or not few or mine.calls < BUSY * mine.hours:
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


def _of_callers(mine: Active, spent: Sequence[Spent]) -> Active:
    """Without what guardrails and cascades asked there: it bears the feature of the call that it was asked for, and no
    batch answers it."""
    rows = [row for row in spent if (row.workload, row.deployment) == (mine.workload, mine.deployment)]
    checks = [row for row in rows if row.purpose in CHECKS]
    if not checks:
        return mine
    asked = [row for row in rows if not row.purpose]
    return replace(
        mine,
        calls=int(mine.calls * _part(sum(row.calls for row in asked), sum(row.calls for row in checks))),
        cost_usd=mine.cost_usd * _part(_cost(asked), _cost(checks)),
    )


def _cost(rows: Sequence[Spent]) -> Decimal:
    return sum((row.cost_usd for row in rows), Decimal(0))


def _part(mine: Decimal | int, other: Decimal | int) -> Decimal:
    """Of both."""
    return Decimal(mine) / (mine + other) if mine else Decimal(0)


def _without_batches(mine: Active, spent: Sequence[Spent]) -> Active:
    """Lines of a batch name no feature."""
    if mine.feature:
        return mine
    rows = [row for row in spent if (row.workload, row.deployment, row.purpose) == (mine.workload, mine.deployment, "")]
    calls, cost = sum(row.batch_calls for row in rows), sum((row.batch_usd for row in rows), Decimal(0))
    return replace(mine, calls=max(0, mine.calls - calls), cost_usd=max(Decimal(0), mine.cost_usd - cost))


def batch_discount(rates: Rates, serves: Sequence[str] = ()) -> Decimal:
    """Share that a batch costs less, of as much input as output, at a deployment that `serves` so; 0 where its price of
    batches is none of calls and it has no batch endpoint."""
    service = price.BATCH if price.BATCHES in serves else price.batch_line_service(rates, serves)
    used = {"input": 1000, "output": 1000}
    now = cost_of_counts(used, rates)
    return 1 - Decimal(cost_of_counts(used, price.service_rates(rates, service))) / now if now else Decimal(0)


def twice(calls: Sequence[Grounded], times: Mapping[str, Decimal]) -> list[Twice]:
    """Calls that were given exactly the same passages as one of another team, by which workloads they are of. `times`:
    workload -> how many times as many calls there were as were looked at."""
    groups: dict[tuple[Passage, ...], list[Grounded]] = {}
    for call in calls:
        groups.setdefault(call.passages, []).append(call)
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[list[Grounded]]] = {}
    for mine in groups.values():
        teams = tuple(sorted({call.team for call in mine if call.team}))
        if len(teams) > 1:
            found.setdefault((tuple(sorted({call.workload for call in mine})), teams), []).append(mine)
    return [
        Twice(
            workloads,
            teams,
            sum(len(mine) for mine in several),
            sum(len(mine) - 1 for mine in several),
            sum((_again(mine, times) for mine in several), Decimal(0)),
        )
        for (workloads, teams), several in sorted(found.items())
    ]


def _again(calls: Sequence[Grounded], times: Mapping[str, Decimal]) -> Decimal:
    """What all but one of them cost, each as the mean, of all calls as of those that were looked at."""
    cost = sum((call.cost_usd * times.get(call.workload, Decimal(1)) for call in calls), Decimal(0))
    return cost * (len(calls) - 1) / len(calls)


def same_questions(found: Twice, month: Decimal) -> Iterable[Opportunity]:
    """Calls of several teams that were given exactly the same passages."""
    if found.repeated < AGAIN or len(found.teams) < 2:
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


def same_requests(found: Alike, month: Decimal) -> Iterable[Opportunity]:
    """Requests that several teams made alike. In round numbers and never of a single request: it says who could share,
    and nobody learns from it what the others ask."""
    if len(found.teams) < 2 or (found.requests < DISTINCT and found.fewest < 2 * DISTINCT):
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
    """To two digits."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return round(number / step) * step


def never_help(seen: Retried) -> bool:
    """Whether hardly a call was answered by a further attempt."""
    return seen.calls >= AGAIN and seen.rescued < HELPS * seen.calls


def retries_that_never_help(seen: Retried, month: Decimal) -> Iterable[Opportunity]:
    """Further attempts after which hardly a call was answered."""
    if not never_help(seen):
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


def useless_retries(lost: Lost, month: Decimal) -> Iterable[Opportunity]:
    """Further attempts that were billed and failed, too, where others of the workload help."""
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
