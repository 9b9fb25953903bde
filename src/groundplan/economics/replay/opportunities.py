"""Finds opportunities to save money in the costs of calls, with evidence, effort and limits of each. Pure.

Savings assume that the lever works on all calls; for a cheaper model on the share that a replay or an experiment has
shown it to answer as well. Without such evidence the opportunity says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType

from groundplan.blueprint.model import Deployment, Rates, Workload
from groundplan.economics.prices.time_of_day import MINUTES_PER_HOUR, rates_in_hour

MTOK = 1_000_000
PICO = Decimal(10) ** 12
CHARACTERS = 4
"""Estimated characters of a token."""
LONG_PROMPT = 1024
"""Tokens from which on providers cache a prompt's beginning."""
SMALL = Decimal("0.01")
"""US dollars a month below which savings are not reported."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Spending of one workload at one deployment in the observed days."""

    workload: str
    deployment: str
    model: str
    calls: int
    cost_usd: Decimal
    failed_usd: Decimal
    """Cost of attempts that failed by themselves."""
    failed_attempts: int
    input: int
    cache_read: int
    output: int
    bound_usd: Decimal = Decimal(0)
    """Cost of answers charged at the bound because their usage is unknown."""
    purpose: str = ""
    """That of `Reservation.purpose` for calls of the gateway itself; empty: calls of clients."""
    batch_calls: int = 0
    batch_usd: Decimal = Decimal(0)
    """The parts of `calls` and `cost_usd` at the price of batches."""
    unanswered: int = 0
    """Those of `calls` that were billed but not answered."""
    hours: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    """Hour of the day, UTC -> (calls, input, cache_read, output); empty where no price is by time of day."""


@dataclass(frozen=True, slots=True)
class TrialEvidence:
    """Evidence of a replay or an experiment about a deployment. `told`: the finding in words; `most`: upper limit of
    the share of calls that it answers as well; `then`: the next step; `tried`: an experiment has decided about it or
    runs, so that none is proposed."""

    told: str
    most: float
    then: str
    tried: bool = False


_NOBODY: Mapping[tuple[str, str], TrialEvidence] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Opportunity:
    """One lever. `saves_usd`: a month, at most; `effort`: small | medium; `proof`: what must still be shown."""

    lever: str
    workload: str
    saves_usd: Decimal
    what: str
    evidence: str
    effort: str
    proof: str
    frees_usd: Decimal = Decimal(0)
    """US dollars per call that are reserved of a budget and never spent."""
    candidate: str = ""
    """Deployment that would answer instead. A shadow experiment may start at once, unless it is `tried`."""
    tried: bool = False
    """Whether an experiment has decided about the candidate, or runs."""
    waits: str = ""
    """The experiment with another candidate of the workload that has to end first; else empty."""
    others: tuple[str, ...] = ()
    """Other workloads that it is about."""
    deployment: str = ""
    """Deployment of the calls that it is about; empty: all."""

    @property
    def about(self) -> tuple[str, ...]:
        """All workloads that it is about; empty: the whole company."""
        return (self.workload, *self.others) if self.workload else ()


def found(
    spent: Sequence[Spent], workloads: Iterable[Workload], places: Mapping[str, Deployment], days: int,
    seen: Mapping[str, float] = MappingProxyType({}), shown: Mapping[tuple[str, str], TrialEvidence] = _NOBODY,
    runs: Mapping[str, str] = MappingProxyType({}),
) -> list[Opportunity]:  # fmt: skip
    """All levers that save more than a cent a month, the largest first. `seen`: as in `month`; `shown`: (workload,
    deployment) -> evidence; `runs`: workload -> its running experiment in words."""
    declared = {workload.name: workload for workload in workloads}
    levers: list[Opportunity] = []
    for row in spent:
        a_month = month(row.workload, days, seen)
        workload, place = declared.get(row.workload), places.get(row.deployment)
        levers += _failed(row, a_month)
        if workload is not None and place is not None and not row.purpose:
            levers += _cheaper(row, workload, place, places, a_month, shown, runs.get(workload.name, ""))
            levers += _prefix(row, workload, place.rates, a_month)
    return sorted((each for each in levers if each.saves_usd >= SMALL), key=lambda each: -each.saves_usd)


def month(workload: str, days: int, seen: Mapping[str, float]) -> Decimal:
    """Factor from a workload's cost in these days to that of a month. `seen`: workload -> days since its first call, of
    newer workloads."""
    return Decimal(30) / Decimal(str(round(max(1.0, min(float(days), seen.get(workload, days))), 3)))


def cost(rates: Rates, row: Spent) -> Decimal:
    """US dollars of the row's tokens at these rates, for prompts of mean length, with tokens read from a prompt cache
    at their own rate."""
    while rates.long is not None and row.input > rates.long_above * row.calls:
        rates = rates.long
    read = rates.input if rates.cache_read is None else rates.cache_read
    fresh = max(0, row.input - row.cache_read)
    tokens = Decimal(fresh * rates.input + row.cache_read * read + row.output * rates.output) / MTOK
    return (tokens + row.calls * rates.request) / PICO


def elsewhere(rates: Rates, row: Spent) -> Decimal:
    """As `cost`, with prices by time of day at the hours of the calls if these are known."""
    if not rates.windows or not row.hours:
        return cost(rates, row)
    total = Decimal(0)
    for hour, (calls, given, read, output) in row.hours.items():
        mine = replace(row, calls=calls, input=given, cache_read=read, output=output)
        total += (
            sum((cost(each, mine) * minutes for minutes, each in rates_in_hour(rates, hour)), Decimal(0))
            / MINUTES_PER_HOUR
        )
    return total


def paid(rates: Rates, row: Spent) -> Decimal:
    """The share of these rates that was paid for the row's tokens: below 1 for batches and cheaper times of the day."""
    whole = cost(rates, row)
    return min(Decimal(1), (row.cost_usd - row.bound_usd) / whole) if whole > 0 else Decimal(1)


def _failed(row: Spent, month: Decimal) -> Iterable[Opportunity]:
    if row.failed_attempts:
        yield Opportunity(
            "failed attempts",
            row.workload,
            row.failed_usd * month,
            f"attempts at {row.deployment} that were billed and failed" + (f" ({row.purpose})" if row.purpose else ""),
            f"{row.failed_attempts} attempts cost ${row.failed_usd:.4f}",
            "medium",
            "see why they failed: time limits, broken streams, refusals",
            deployment=row.deployment,
        )


def _cheaper(
    row: Spent, workload: Workload, place: Deployment, places: Mapping[str, Deployment], month: Decimal,
    shown: Mapping[tuple[str, str], TrialEvidence], runs: str,
) -> Iterable[Opportunity]:  # fmt: skip
    """Deployments of the same kind that this workload may use and where the same tokens cost less, without those barred
    by a floor or with too small a context. The present cost is limited to what was paid, since `rates` hold the dearest
    price of the day."""
    now = min(cost(place.rates, row), row.cost_usd - row.bound_usd)
    barred = workload.routing.barred if workload.routing is not None else {}
    names = [name for name in workload.deployments if name not in barred and name != row.deployment]
    others = [places[name] for name in names if name in places and _fits(row, places[name])]
    for other in others:
        known = shown.get((workload.name, other.name))
        saves = (now - elsewhere(other.rates, row)) * month * (1 if known is None else Decimal(str(known.most)))
        tried = known is not None and known.tried
        waits = "" if tried else runs
        if saves > 0 and other.model != row.model and other.kind == place.kind:
            yield Opportunity(
                "over-strong model",
                row.workload,
                saves,
                f"{other.model} at {other.name} instead of {row.model}",
                f"{row.calls:,} calls, {row.input:,} + {row.output:,} tokens, repriced",
                "small",
                _proof(known, waits),
                candidate=other.name,
                tried=tried,
                waits=waits,
                deployment=row.deployment,
            )


def _fits(row: Spent, place: Deployment) -> bool:
    """Whether the mean prompt and answer fit the context; longer ones go to other deployments."""
    return row.input + row.output <= place.context_tokens * row.calls


def _proof(known: TrialEvidence | None, waits: str) -> str:
    if known is None:
        proof = "quality is unknown until a replay or an evaluation set shows it; then route the calls that keep it"
    else:
        proof = f"{known.told}; {known.then}"
    return f"{proof}; {waits}, and no other is tried beside it" if waits else proof


def _prefix(row: Spent, workload: Workload, rates: Rates, month: Decimal) -> Iterable[Opportunity]:
    """Long prompts whose constant beginning could be read from the provider's cache at a lower price: the workload's
    instructions if they are long enough, else an assumed half of the prompt."""
    if rates.cache_read is None or rates.cache_read >= rates.input or not row.calls:
        return
    each = row.input // row.calls
    fresh = row.input - row.cache_read
    spared = (rates.input - rates.cache_read) * paid(rates, row) / MTOK / PICO * month
    own = min(len(workload.system_prompt or "") // CHARACTERS, each)
    if own >= LONG_PROMPT:
        if (unread := min(fresh, own * row.calls - row.cache_read)) > 0:
            yield Opportunity(
                "cacheable prefixes",
                row.workload,
                unread * spared,
                f"let the provider keep {workload.prompt or 'its instructions'}, with which every prompt begins",
                f"about {own} of {each} tokens a prompt are its instructions, {row.cache_read / row.input:.0%} of all "
                "are read from the cache",
                "small",
                "a provider keeps a beginning for minutes, so rare calls find it gone; the cache rate on the cost page "
                "shows it",
                deployment=row.deployment,
            )
        return
    if each < LONG_PROMPT or row.cache_read > row.input // 2:
        return
    yield Opportunity(
        "cacheable prefixes",
        row.workload,
        fresh // 2 * spared,
        "put what never changes in front of every prompt, so that the provider reads it from its cache",
        f"{each} tokens a prompt, {row.cache_read / max(1, row.input):.0%} of them read from the cache",
        "small",
        "assumes that half of each prompt is the same; the cache rate on the cost page shows it",
        deployment=row.deployment,
    )
