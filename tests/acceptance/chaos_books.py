"""The invariants that the ledger, the audit log and the clients' results must satisfy after a chaos test: `faults`.

Pure functions of `Books`, without I/O: `chaos_world` reads the database rows and collects what the upstreams counted
and what the clients got.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

NOT_BILLED = "not_billed"
"""Outcome of an attempt that was not sent, or that its upstream certainly did not bill."""
MARGIN = 1.0
"""Seconds by which a client's times may differ from those of the disruptions."""
BACK = 3.0
"""Seconds after the end of a disruption in which gateways may still be without their database."""
STARTING = 5.0
"""Seconds after a gateway ended, or its database came back, within which its successor has a blueprint."""
GATEWAY = ("worker", "up")
"""Processes whose end closes client connections."""
GROUNDED = ("json", "stream", "abort")
"""Kinds of calls that are grounded in sources."""
DYING = 0.5
"""Seconds in which the remaining processes of a killed database server may still answer queries."""
TICK = 0.05
"""Seconds by which the clocks of one gateway may differ."""


@dataclass(frozen=True)
class Attempt:
    """A row of the ledger; money in picodollars."""

    call: str
    number: int
    state: str
    outcome: str
    cost: int
    reserved: int
    estimated: bool = False
    flags: tuple[str, ...] = ()
    tokens: int = 0
    """Tokens of prompt and answer; 0 where unknown."""

    @property
    def name(self) -> str:
        """`call-number`, as the upstreams count it."""
        return f"{self.call}-{self.number}"


@dataclass(frozen=True)
class Call:
    id: str
    workload: str
    status: str
    cost: int
    cache: str = "none"
    key: str = ""
    begun: float = 0.0
    last_attempt: float = 0.0
    """Seconds since the epoch at which the call arrived and at which its last attempt began; that attempt may have used
    the limits of the next minute."""
    sources: int = 0
    """Number of passages given to the model."""


@dataclass(frozen=True)
class Charge:
    call: str
    attempt: int
    budget: str
    period: str
    cost: int


@dataclass(frozen=True)
class Period:
    """A budget in one of its periods: its limit, and the amount granted (slices and spending)."""

    budget: str
    period: str
    limit: int
    granted: int


@dataclass(frozen=True)
class Limit:
    """A declared limit: an amount per minute over all replicas together."""

    name: str
    covers: str
    """workload/NAME or key/ID"""
    counts: str
    """requests, tokens, cost (picodollars)"""
    amount: int


@dataclass(frozen=True)
class LimitMinute:
    """One minute of a limit in the database: its amount, and the amount granted (slices and use)."""

    name: str
    """COUNTS/NAME"""
    minute: str
    amount: int
    granted: int


@dataclass(frozen=True)
class ClientResult:
    """What one client got: HTTP status (0: the connection broke) and the code of an error, also of one in a stream."""

    workload: str
    status: int
    code: str = ""
    call: str = ""
    kind: str = "json"
    aborted: bool = False
    text: str = ""
    """The message of the error."""
    replica: str = ""
    begun: float = 0.0
    ended: float = 0.0
    """Seconds of the clock that `Disruption` uses."""


@dataclass(frozen=True)
class Disruption:
    """A fault injected into a part, from when to when. The end of one that is not undone equals its beginning."""

    part: str
    """database, or a replica"""
    way: str
    """kill, pause, cut"""
    what: str
    """server of the database; worker, up, shipper or control of a replica"""
    begin: float
    end: float
    away: tuple[float, float] | None = None
    """The interval in which it certainly answered nothing."""


@dataclass(frozen=True)
class Books:
    attempts: tuple[Attempt, ...] = ()
    calls: tuple[Call, ...] = ()
    charges: tuple[Charge, ...] = ()
    periods: tuple[Period, ...] = ()
    audited: tuple[str, ...] = ()
    """Call ids of the audit log's entries about calls, one for each entry."""
    counted: tuple[str, ...] = ()
    """`call-number` of each attempt, as the upstreams recorded them durably."""
    client_results: tuple[ClientResult, ...] = ()
    covers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Workload -> the budgets that each of its calls is charged to (a key's own may come on top)."""
    may_refuse: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Workload -> codes of refusals that are expected at any time."""
    restricted: frozenset[str] = frozenset()
    """Workloads of restricted data, which have no grace."""
    disruptions: tuple[Disruption, ...] = ()
    grounded: frozenset[str] = frozenset()
    """Workloads that answer from sources, which cannot be read without PostgreSQL."""
    limits: tuple[Limit, ...] = ()
    limit_minutes: tuple[LimitMinute, ...] = ()


def faults(books: Books) -> list[str]:
    """A sentence for each violated invariant; empty if all hold."""
    checks = (
        _check_counted_once,
        _check_surplus_rows,
        _check_calls_and_audit,
        _check_charges,
        _check_budgets,
        _check_limits,
        _check_clients,
    )
    return [fault for check in checks for fault in check(books)]


def _duplicates(names: Iterable[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def _check_counted_once(books: Books) -> Iterator[str]:
    rows = Counter(attempt.name for attempt in books.attempts)
    for name in _duplicates(books.counted):
        yield f"the upstreams were asked {name} more than once"
    for name in sorted(set(books.counted)):
        if rows[name] != 1:
            yield f"attempt {name}, which an upstream counted, has {rows[name]} rows"
    for name in _duplicates(rows.elements()):
        yield f"attempt {name} has more than one row"


def _check_surplus_rows(books: Books) -> Iterator[str]:
    """A row that no upstream counted is a crash's open reservation, flagged and at its bound, or a failed attempt."""
    counted = set(books.counted)
    for attempt in books.attempts:
        if attempt.state == "open":
            yield f"attempt {attempt.name} is still open"
        elif attempt.state == "crashed" and ("crash" not in attempt.flags or attempt.cost != attempt.reserved):
            yield f"attempt {attempt.name} of a crash is not flagged and at its bound"
        elif attempt.name not in counted and attempt.state == "settled":
            if attempt.outcome == "ok":
                yield f"attempt {attempt.name} has an answer that no upstream gave"
            elif attempt.cost and not attempt.estimated:
                yield f"attempt {attempt.name} costs something, was counted by nobody and is not marked as estimated"
        if attempt.outcome == NOT_BILLED and attempt.cost:
            yield f"attempt {attempt.name} was not billed and costs something"


def _check_calls_and_audit(books: Books) -> Iterator[str]:
    calls = {call.id: call for call in books.calls}
    audited = Counter(books.audited)
    costs: Counter[str] = Counter()
    for attempt in books.attempts:
        costs[attempt.call] += attempt.cost
    for id in sorted({attempt.call for attempt in books.attempts} - calls.keys()):
        yield f"call {id} has attempts and no row"
    for call in books.calls:
        if audited[call.id] != 1:
            yield f"call {call.id} has {audited[call.id]} entries in the audit log"
        if call.cost != costs[call.id]:
            yield f"call {call.id} costs {call.cost}, its attempts {costs[call.id]}"
    for id in sorted(audited.keys() - calls.keys()):
        yield f"the audit log has an entry of call {id}, which is not in the ledger"


def _check_charges(books: Books) -> Iterator[str]:
    """Each attempt is charged in full to each budget above it, once."""
    workloads = {call.id: call.workload for call in books.calls}
    charged: dict[tuple[str, int], list[Charge]] = {}
    for charge in books.charges:
        charged.setdefault((charge.call, charge.attempt), []).append(charge)
    for attempt in books.attempts:
        charges = charged.pop((attempt.call, attempt.number), [])
        budgets = Counter(charge.budget for charge in charges)
        missing = books.covers.get(workloads.get(attempt.call, ""), frozenset()) - budgets.keys()
        if missing and attempt.state != "open":
            yield f"attempt {attempt.name} is not charged to {', '.join(sorted(missing))}"
        for name in _duplicates(budgets.elements()):
            yield f"attempt {attempt.name} is charged to {name} more than once"
        for charge in charges:
            if charge.cost != attempt.cost:
                yield f"attempt {attempt.name} costs {attempt.cost}, {charge.budget} was charged {charge.cost}"
    for call, number in sorted(charged):
        yield f"attempt {call}-{number} is charged and has no row"


def _check_budgets(books: Books) -> Iterator[str]:
    spent: Counter[tuple[str, str]] = Counter()
    for charge in books.charges:
        spent[charge.budget, charge.period] += charge.cost
    for period in books.periods:
        used = spent.pop((period.budget, period.period), 0)
        label = f"budget {period.budget} {period.period}"
        if used > period.limit:
            yield f"{label} has a limit of {period.limit} and {used} were spent"
        if period.granted > period.limit:
            yield f"{label} has a limit of {period.limit} and {period.granted} are granted"
        if used > period.granted:
            yield f"{label}: {used} were spent of {period.granted} that were granted"
    for (budget, name), used in sorted(spent.items()):
        if used:
            yield f"budget {budget} {name} was charged {used} and granted nothing"


def _check_limits(books: Books) -> Iterator[str]:
    """In no minute is more used than declared, nor more than was granted, over all replicas. What is counted is a lower
    bound: calls that were certainly admitted in that minute, and attempts whose usage is known."""
    limit_minutes = {(span.name, span.minute): span for span in books.limit_minutes}
    for span in books.limit_minutes:
        if span.granted > span.amount:
            yield f"limit {span.name} {span.minute} is {span.amount} and {span.granted} are granted"
    for limit in books.limits:
        used = _usage_by_minute(books, limit)
        for minute, amount in sorted(used.items()):
            in_database = limit_minutes.get((f"{limit.counts}/{limit.name}", minute))
            granted = in_database.granted if in_database is not None else 0
            if amount > limit.amount:
                yield f"limit {limit.name} {minute} is {limit.amount} {limit.counts} and {amount} were used"
            elif amount > granted:
                yield f"limit {limit.name} {minute}: {amount} {limit.counts} were used of {granted} that were granted"


def _usage_by_minute(books: Books, limit: Limit) -> Counter[str]:
    """Minute -> amount of the limit that was used."""
    counted = {name.rpartition("-")[0] for name in books.counted}
    tokens: Counter[str] = Counter()
    for attempt in books.attempts:
        tokens[attempt.call] += attempt.tokens
    used: Counter[str] = Counter()
    for call in books.calls:
        if limit.covers in (f"workload/{call.workload}", f"key/{call.key}") and (minute := _admission_minute(call)):
            amounts = {"requests": int(call.id in counted), "tokens": tokens[call.id], "cost": call.cost}
            used[minute] += amounts[limit.counts]
    return +used


def _admission_minute(call: Call) -> str:
    """The minute in which a call and all its attempts were admitted; empty if it may have been another one."""
    first, last = (
        f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M}" for at in (call.begun - TICK, call.last_attempt + TICK)
    )
    return first if first == last else ""


def _check_clients(books: Books) -> Iterator[str]:
    """Where a fallback is declared, no client gets an error except for refusals that are expected at that time, and no
    connection breaks except at a gateway that is killed."""
    calls = {call.id: call for call in books.calls}
    check_answer = partial(_check_answer_in_ledger, books, calls)
    for result in books.client_results:
        client = f"a client of {result.workload}"
        if result.status == 200 and _answered_without_database(books, result):
            yield f"{client} has an answer from sources ({result.kind}) while the database was away"
        if result.status == 0 and not _was_gateway_killed(books.disruptions, result):
            connection = f"a connection of {result.workload} to {result.replica}"
            yield f"{connection} broke ({result.kind}): no gateway there was killed"
        elif result.code and not _is_expected_refusal(books, result):
            details = (
                f"{result.status} {result.code} ({result.kind}, call {result.call} at {result.replica}): {result.text}"
            )
            yield f"{client} got {details}"
        elif result.status >= 400 and not result.code:
            yield f"{client} got {result.status} without a code"
        elif result.status == 200 and not result.code and not result.aborted:
            yield from check_answer(result)


def _was_gateway_killed(disruptions: Iterable[Disruption], result: ClientResult) -> bool:
    """Whether a gateway of that replica had been killed, or was not back yet, when the client lost its connection."""
    return any(
        disruption.begin - MARGIN <= result.ended <= disruption.end + MARGIN
        for disruption in disruptions
        if (disruption.part, disruption.way) == (result.replica, "kill") and disruption.what in GATEWAY
    )


def _is_expected_refusal(books: Books, result: ClientResult) -> bool:
    """Whether a gateway may refuse so because it cannot reach its database: restricted data without a grace, an empty
    slice, sources whose permissions cannot be read, a start without a blueprint. A budget that is used up in the round
    has empty slices all the time, and a database on a busy machine may take longer than a caller waits."""
    always = books.may_refuse.get(result.workload, frozenset())
    if result.code == "policy_lease_expired":
        return result.workload in books.restricted and _was_cut_off(books.disruptions, result)
    if result.code == "budget_unreachable":
        return "budget_exhausted" in always or _was_cut_off(books.disruptions, result)
    if result.code == "limit_unreachable":
        return "rate_limit_exceeded" in always and _was_cut_off(books.disruptions, result)
    if result.code == "grounding_unavailable":
        return result.workload in books.grounded and _was_cut_off(books.disruptions, result, processes=("up",))
    if result.code == "not_ready":
        return _was_starting(books.disruptions, result)
    return result.code in always


def _was_cut_off(disruptions: Iterable[Disruption], result: ClientResult, processes: tuple[str, ...] = GATEWAY) -> bool:
    """Whether the database was away, or one of these processes of that replica was stopped or restarted."""
    return any(
        disruption.begin - MARGIN <= result.ended and result.begun <= disruption.end + BACK
        for disruption in disruptions
        if disruption.part == "database" or (disruption.part == result.replica and disruption.what in processes)
    )


def _was_starting(disruptions: Iterable[Disruption], result: ClientResult) -> bool:
    """Whether a gateway of that replica had just been started, or had had no database since it was started."""
    away = [disruption for disruption in disruptions if disruption.part == "database"]
    for kill in disruptions:
        if (kill.part, kill.way) != (result.replica, "kill") or kill.what not in GATEWAY or kill.begin > result.ended:
            continue
        ready = kill.end + STARTING
        ready = max([ready, *(each.end + STARTING for each in away if each.begin <= ready)])
        if result.begun <= ready:
            return True
    return False


def _answered_without_database(books: Books, result: ClientResult) -> bool:
    """Whether it is an answer from sources although the database was away from the request to the answer."""
    if result.workload not in books.grounded or result.kind not in GROUNDED:
        return False
    away = [
        disruption.away
        for disruption in books.disruptions
        if disruption.part == "database" and disruption.away is not None
    ]
    return any(begin + DYING <= result.begun and result.ended <= end for begin, end in away)


def _check_answer_in_ledger(books: Books, calls: Mapping[str, Call], result: ClientResult) -> Iterator[str]:
    call = calls.get(result.call)
    answer = f"a client of {result.workload} has an answer of call {result.call}"
    if call is None:
        yield f"{answer}, which is not in the ledger"
    elif call.status != "ok":
        yield f"{answer}, which is in the ledger as {call.status}"
    elif result.workload in books.grounded and result.kind in GROUNDED and not call.sources:
        yield f"{answer}, which rests on no source"


def unreleased_grants(books: Books) -> list[str]:
    """A sentence for each budget that has grants left over after every process has stopped and was recovered."""
    spent: Counter[tuple[str, str]] = Counter()
    for charge in books.charges:
        spent[charge.budget, charge.period] += charge.cost
    return [
        f"budget {p.budget} {p.period}: {p.granted - spent[p.budget, p.period]} are held by nobody"
        for p in books.periods
        if p.granted != spent[p.budget, p.period]
    ]
