"""Levers in how calls are made: room no answer needs, batches, the same question of several teams, retries. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from groundplan.blueprint.model import Deployment, Rates, Workload
from groundplan.economics import price
from groundplan.economics.levers.model import Active, Outputs, Retried, Twice
from groundplan.economics.prices.reprice import priced
from groundplan.economics.replay.opportunities import Opportunity

SEEN = 200
"""Answers from which on the longest one is told."""
ROOM = 2
"""A cap this many times above the longest answer is never used."""
BUSY, RARE, WEEK = 50, 0.2, 7
"""Calls of an active hour, the share of hours that may be active, and the days that are looked at at least, for a job
that runs by the clock."""
AGAIN = 20
"""Calls that were given the same passages as one of another team from which on it is told."""
HELPS = 0.1
"""Share of retried calls that were answered in the end, below which retries never help."""


def unused_room(seen: Outputs, workload: Workload, bound_usd: Decimal, month: Decimal) -> Iterable[Opportunity]:
    """An output cap far above every answer. `bound_usd`: what was charged at the bound, since nobody knew better."""
    cap = workload.max_output_tokens
    wanted = max(1, -(-seen.longest * 5 // 4))
    if seen.answers < SEEN or wanted * ROOM > cap:
        return
    spared = 1 - Decimal(wanted) / cap
    yield Opportunity(
        "output that is never used",
        seen.workload,
        bound_usd * spared * month,
        f"limits: {{max_output: {wanted}}} instead of {cap}",
        f"the longest of {seen.answers} answers had {seen.longest} tokens, 99 of 100 at most {seen.common}",
        "small",
        "a longer answer would be cut; the cap is also the most that a call whose usage is unknown is charged",
        frees_usd=seen.set_aside_usd / seen.answers * spared,
    )


def batches(hours: Sequence[Active], places: Mapping[str, Deployment], days: int, month: Decimal) -> list[Opportunity]:
    """Features that ask many calls in few hours: a job by the clock, which can wait for a batch."""
    if days < WEEK:
        return []
    found = []
    groups: dict[tuple[str, str, str], list[Active]] = {}
    for hour in hours:
        groups.setdefault((hour.workload, hour.feature, hour.deployment), []).append(hour)
    for (workload, feature, deployment), mine in sorted(groups.items()):
        place = places.get(deployment)
        spared = Decimal(0) if place is None else batch_discount(place.rates)
        calls = sum(each.calls for each in mine)
        active = len({each.at for each in mine})
        if spared <= 0 or active < 3 or calls < BUSY * active or active > RARE * 24 * days:
            continue
        found.append(
            Opportunity(
                "calls that could be batched",
                workload,
                sum((each.cost_usd for each in mine), Decimal(0)) * spared * month,
                f"send {feature or 'them'} by POST /v1/batches at {deployment}",
                f"{calls} calls in {active} of {24 * days} hours{_times(mine)}",
                "medium",
                "a batch answers within a day: nobody may be waiting for these answers",
            )
        )
    return found


def batch_discount(rates: Rates) -> Decimal:
    """Share that a batch costs less, of as much input as output; 0 without a price of batches."""
    if rates.batch is None:
        return Decimal(0)
    used = {"input": 1000, "output": 1000}
    now = priced(used, rates)
    return 1 - Decimal(priced(used, price.of_service(rates, price.BATCH))) / now if now else Decimal(0)


def _times(mine: Sequence[Active]) -> str:
    """`, mostly at 02:00 UTC` where most are."""
    by_hour: dict[int, int] = {}
    for each in mine:
        by_hour[each.at.hour] = by_hour.get(each.at.hour, 0) + each.calls
    hour, calls = max(by_hour.items(), key=lambda item: item[1])
    return f", mostly at {hour:02d}:00 UTC" if calls * 2 > sum(by_hour.values()) else ""


def same_questions(found: Twice, month: Decimal) -> Iterable[Opportunity]:
    """Calls of several teams that were given exactly the same passages."""
    if found.repeated < AGAIN or len(found.teams) < 2:
        return
    yield Opportunity(
        "the same asked by several teams",
        found.workloads[0],
        found.repeated_usd * month,
        f"answer {', '.join(found.teams)} from one workload with a cache: {', '.join(found.workloads)}",
        f"{found.calls} calls were given exactly the same passages, {found.repeated} of them again",
        "medium",
        "the same passages are not always the same question; a cache by meaning keeps a bound on wrong answers",
    )


def useless_retries(seen: Retried, month: Decimal) -> Iterable[Opportunity]:
    """Further attempts after which hardly a call was answered."""
    if seen.calls < AGAIN or seen.rescued >= HELPS * seen.calls:
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
