"""Where money may be saved, ranked by how much: found in what calls cost, each with evidence, effort and limits. Pure.

An amount is what would be saved if the lever worked on all calls; of a cheaper model on as many as it was shown to
answer as well, where a replay or an experiment showed that. Where none did, it says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType

from groundplan.blueprint.model import Deployment, Rates, Workload
from groundplan.economics.prices.time_of_day import HOUR, rates_in_hour

MTOK = 1_000_000
PICO = Decimal(10) ** 12
CHARACTERS = 4
"""Of a token."""
LONG_PROMPT = 1024
"""Tokens from which providers keep a prompt's beginning."""
SMALL = Decimal("0.01")
"""US dollars a month below which nothing is told."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one workload spent at one deployment in the days looked at."""

    workload: str
    deployment: str
    model: str
    calls: int
    cost_usd: Decimal
    failed_usd: Decimal
    """What attempts cost that failed by themselves."""
    failed_attempts: int
    input: int
    cache_read: int
    output: int
    bound_usd: Decimal = Decimal(0)
    """What answers were charged at the bound, because nobody knew what was used."""
    purpose: str = ""
    """One of `ledger.model.PURPOSES`: what the gateway itself asked; empty: to answer callers."""
    batch_calls: int = 0
    batch_usd: Decimal = Decimal(0)
    """Of `calls` and `cost_usd` those at the price of batches."""
    unanswered: int = 0
    """Of `calls` those that were billed and answered nobody, for whatever reason."""
    hours: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    """Hour of the day, UTC -> (calls, input, cache_read, output); empty where no price is by time of day."""


@dataclass(frozen=True, slots=True)
class TrialEvidence:
    """What a replay or an experiment found of a deployment. `most`: share of the calls that it answers as well, at
    most; `then`: what may be done; `tried`: an experiment decided about it or runs, so that none is proposed."""

    told: str
    most: float
    then: str
    tried: bool = False


_NOBODY: Mapping[tuple[str, str], TrialEvidence] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Opportunity:
    """One lever. `saves_usd` a month at most, `effort` is small | medium; `proof`: what must still be shown."""

    lever: str
    workload: str
    saves_usd: Decimal
    what: str
    evidence: str
    effort: str
    proof: str
    frees_usd: Decimal = Decimal(0)
    """Of a budget, for each call: what is set aside and never spent."""
    candidate: str = ""
    """Deployment that would answer instead. It may be tried in shadow at once, unless it is `tried`."""
    tried: bool = False
    """An experiment has decided about it, or runs."""
    waits: str = ""
    """What runs of another candidate for the same workload, and keeps this one from being tried; else empty."""
    others: tuple[str, ...] = ()
    """Workloads that it is about as much as `workload`."""
    deployment: str = ""
    """Where the calls are that it is about; empty: wherever they are."""

    @property
    def about(self) -> tuple[str, ...]:
        """All workloads that it is about; none: the whole company."""
        return (self.workload, *self.others) if self.workload else ()


def found(
    spent: Sequence[Spent], workloads: Iterable[Workload], places: Mapping[str, Deployment], days: int,
    seen: Mapping[str, float] = MappingProxyType({}), shown: Mapping[tuple[str, str], TrialEvidence] = _NOBODY,
    runs: Mapping[str, str] = MappingProxyType({}),
) -> list[Opportunity]:  # fmt: skip
    """All levers that save more than a cent a month, the largest first. `seen`: as of `month`; `shown`: (workload,
    deployment) -> what was found of it; `runs`: workload -> what is being tried on it."""
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
    """By how much what a workload cost in these days is that of a month. `seen`: days since its first call, of those
    that are newer."""
    return Decimal(30) / Decimal(str(round(max(1.0, min(float(days), seen.get(workload, days))), 3)))


def cost(rates: Rates, row: Spent) -> Decimal:
    """US dollars of the row's tokens at some rates, those of prompts as long as they are in the mean; what was read
    from a prompt cache at its own."""
    while rates.long is not None and row.input > rates.long_above * row.calls:
        rates = rates.long
    read = rates.input if rates.cache_read is None else rates.cache_read
    fresh = max(0, row.input - row.cache_read)
    tokens = Decimal(fresh * rates.input + row.cache_read * read + row.output * rates.output) / MTOK
    return (tokens + row.calls * rates.request) / PICO


def elsewhere(rates: Rates, row: Spent) -> Decimal:
    """As `cost`, at the hours of the calls where they are known and the price is by time of day."""
    if not rates.windows or not row.hours:
        return cost(rates, row)
    total = Decimal(0)
    for hour, (calls, given, read, output) in row.hours.items():
        mine = replace(row, calls=calls, input=given, cache_read=read, output=output)
        total += sum((cost(each, mine) * minutes for minutes, each in rates_in_hour(rates, hour)), Decimal(0)) / HOUR
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
    """Deployments of the same type that this workload may use already, at which the same tokens cost less; none below a
    floor, and none that cannot hold them. What they cost now is not more than was paid: a price by the time of day is
    there as its dearest."""
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
    """Whether prompt and answer do, as they are in the mean: what is longer goes to whoever holds it."""
    return row.input + row.output <= place.context_tokens * row.calls


def _proof(known: TrialEvidence | None, waits: str) -> str:
    if known is None:
        proof = "quality is unknown until a replay or an evaluation set shows it; then route the calls that keep it"
    else:
        proof = f"{known.told}; {known.then}"
    return f"{proof}; {waits}, and no other is tried beside it" if waits else proof


def _prefix(row: Spent, workload: Workload, rates: Rates, month: Decimal) -> Iterable[Opportunity]:
    """Long prompts of which less was read from the provider's cache than is the same in them, where that is cheaper:
    the workload's own instructions, where they are long enough; else half of it, which is said to be a guess."""
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
