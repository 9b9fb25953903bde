"""What must hold of the books of an installation, whatever was killed, paused or cut: one pure function of them.

It reads nothing: `chaos_world` gathers the rows, what the upstreams counted and what the clients saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

NOT_BILLED = "not_billed"
"""Outcome of an attempt of which nothing was sent, or that its upstream certainly did not bill."""
MARGIN = 1.0
"""Seconds that a client's clock may be apart from the story's."""
BACK = 3.0
"""Seconds after a part is back in which gateways may still be without their database."""
STARTING = 5.0
"""Seconds after a gateway's end, or its database's return, within which its successor has a blueprint."""
GATEWAY = ("worker", "up")
"""What holds the connections of clients."""
GROUNDED = ("json", "stream", "abort")
"""Kinds of calls that sources are searched for."""
DYING = 0.5
"""Seconds in which what is left of a killed server may still end what it was asked."""
TICK = 0.05
"""Seconds that the clocks of a gateway may be apart."""


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
    """Of prompt and answer, where that is known."""

    @property
    def name(self) -> str:
        """As the upstream counts it."""
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
    asked: float = 0.0
    """Seconds since the epoch at which it came, and at which its last attempt began, which may have taken its own of
    the limits of the next minute."""
    sources: int = 0
    """Passages that were given to the model."""


@dataclass(frozen=True)
class Charge:
    call: str
    attempt: int
    budget: str
    period: str
    cost: int


@dataclass(frozen=True)
class Period:
    """A budget in one of its periods: its limit, and what slices and spending take of it."""

    budget: str
    period: str
    limit: int
    granted: int


@dataclass(frozen=True)
class Limit:
    """What is declared: so much of it a minute, over all replicas together."""

    name: str
    covers: str
    """workload/NAME or key/ID"""
    counts: str
    """requests, tokens, cost (picodollars)"""
    most: int


@dataclass(frozen=True)
class Span:
    """One minute of a limit in the database: what slices and use take of it."""

    name: str
    """COUNTS/NAME"""
    minute: str
    most: int
    granted: int


@dataclass(frozen=True)
class Seen:
    """What one client saw: HTTP status (0: the connection broke) and the code of an error, also one in a stream."""

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
    """Seconds of the clock of `Hurt`."""


@dataclass(frozen=True)
class Hurt:
    """What was done to a part, from when until it was mended. What mends itself ends when it begins."""

    part: str
    """database, or a replica"""
    way: str
    """kill, pause, cut"""
    what: str
    """server of the database; worker, up, shipper or control of a replica"""
    begin: float
    end: float
    away: tuple[float, float] | None = None
    """From when until when it answered nothing, for certain."""


@dataclass(frozen=True)
class Books:
    attempts: tuple[Attempt, ...] = ()
    calls: tuple[Call, ...] = ()
    charges: tuple[Charge, ...] = ()
    periods: tuple[Period, ...] = ()
    audited: tuple[str, ...] = ()
    """Call ids of the audit log's entries about calls, one for each entry."""
    counted: tuple[str, ...] = ()
    """`call-number` as the upstreams wrote them down durably."""
    seen: tuple[Seen, ...] = ()
    covers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Workload -> the budgets that each of its calls is charged to (a key's own may come on top)."""
    may_refuse: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Workload -> codes of refusals that are right at any time."""
    restricted: frozenset[str] = frozenset()
    """Workloads of restricted data, which have no grace."""
    hurts: tuple[Hurt, ...] = ()
    grounded: frozenset[str] = frozenset()
    """Workloads that answer from sources, of which nothing is read without PostgreSQL."""
    limits: tuple[Limit, ...] = ()
    spans: tuple[Span, ...] = ()


def faults(books: Books) -> list[str]:
    """Everything that is wrong, in words; empty where all holds."""
    checks = (_counted_once, _surplus, _calls_and_audit, _charges, _budgets, _limits, _clients)
    return [fault for check in checks for fault in check(books)]


def _more_than_once(names: Iterable[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def _counted_once(books: Books) -> Iterator[str]:
    rows = Counter(attempt.name for attempt in books.attempts)
    for name in _more_than_once(books.counted):
        yield f"the upstreams were asked {name} more than once"
    for name in sorted(set(books.counted)):
        if rows[name] != 1:
            yield f"attempt {name}, which an upstream counted, has {rows[name]} rows"
    for name in _more_than_once(rows.elements()):
        yield f"attempt {name} has more than one row"


def _surplus(books: Books) -> Iterator[str]:
    """Rows of what no upstream counted: open reservations of a crash, flagged and at their bound, or what failed."""
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


def _calls_and_audit(books: Books) -> Iterator[str]:
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


def _charges(books: Books) -> Iterator[str]:
    """Each attempt is charged in full to each budget above it, once."""
    workloads = {call.id: call.workload for call in books.calls}
    charged: dict[tuple[str, int], list[Charge]] = {}
    for charge in books.charges:
        charged.setdefault((charge.call, charge.attempt), []).append(charge)
    for attempt in books.attempts:
        found = charged.pop((attempt.call, attempt.number), [])
        budgets = Counter(charge.budget for charge in found)
        lacking = books.covers.get(workloads.get(attempt.call, ""), frozenset()) - budgets.keys()
        if lacking and attempt.state != "open":
            yield f"attempt {attempt.name} is not charged to {', '.join(sorted(lacking))}"
        for name in _more_than_once(budgets.elements()):
            yield f"attempt {attempt.name} is charged to {name} more than once"
        for charge in found:
            if charge.cost != attempt.cost:
                yield f"attempt {attempt.name} costs {attempt.cost}, {charge.budget} was charged {charge.cost}"
    for call, number in sorted(charged):
        yield f"attempt {call}-{number} is charged and has no row"


def _budgets(books: Books) -> Iterator[str]:
    spent: Counter[tuple[str, str]] = Counter()
    for charge in books.charges:
        spent[charge.budget, charge.period] += charge.cost
    for period in books.periods:
        used = spent.pop((period.budget, period.period), 0)
        told = f"budget {period.budget} {period.period}"
        if used > period.limit:
            yield f"{told} has a limit of {period.limit} and {used} were spent"
        if period.granted > period.limit:
            yield f"{told} has a limit of {period.limit} and {period.granted} are granted"
        if used > period.granted:
            yield f"{told}: {used} were spent of {period.granted} that were granted"
    for (budget, name), used in sorted(spent.items()):
        if used:
            yield f"budget {budget} {name} was charged {used} and granted nothing"


def _limits(books: Books) -> Iterator[str]:
    """In no minute is more used than declared, nor more than was granted, whoever served it. Counted is the least that
    was used: of calls that were admitted in that minute for certain, and of attempts whose use is known."""
    spans = {(span.name, span.minute): span for span in books.spans}
    for span in books.spans:
        if span.granted > span.most:
            yield f"limit {span.name} {span.minute} is {span.most} and {span.granted} are granted"
    for limit in books.limits:
        used = _used(books, limit)
        for minute, amount in sorted(used.items()):
            found = spans.get((f"{limit.counts}/{limit.name}", minute))
            granted = found.granted if found is not None else 0
            if amount > limit.most:
                yield f"limit {limit.name} {minute} is {limit.most} {limit.counts} and {amount} were used"
            elif amount > granted:
                yield f"limit {limit.name} {minute}: {amount} {limit.counts} were used of {granted} that were granted"


def _used(books: Books, limit: Limit) -> Counter[str]:
    """Minute -> what was used of a limit."""
    counted = {name.rpartition("-")[0] for name in books.counted}
    tokens: Counter[str] = Counter()
    for attempt in books.attempts:
        tokens[attempt.call] += attempt.tokens
    used: Counter[str] = Counter()
    for call in books.calls:
        if limit.covers in (f"workload/{call.workload}", f"key/{call.key}") and (minute := _minute(call)):
            amounts = {"requests": int(call.id in counted), "tokens": tokens[call.id], "cost": call.cost}
            used[minute] += amounts[limit.counts]
    return +used


def _minute(call: Call) -> str:
    """The one in which it was admitted, with all its attempts; empty where it may have been another."""
    first, last = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M}" for at in (call.begun - TICK, call.asked + TICK))
    return first if first == last else ""


def _clients(books: Books) -> Iterator[str]:
    """Where a fallback is declared nobody sees an error, but for the refusals that are right, when they are; and
    nobody's connection breaks but at a gateway that is killed."""
    calls = {call.id: call for call in books.calls}
    kept = partial(_answer_kept, books, calls)
    for seen in books.seen:
        if seen.status == 200 and _without_database(books, seen):
            yield f"a client of {seen.workload} has an answer from sources ({seen.kind}) while the database was away"
        if seen.status == 0 and not _killed(books.hurts, seen):
            yield f"a connection of {seen.workload} to {seen.replica} broke ({seen.kind}): no gateway there was killed"
        elif seen.code and not _right(books, seen):
            told = f"{seen.status} {seen.code} ({seen.kind}, call {seen.call} at {seen.replica}): {seen.text}"
            yield f"a client of {seen.workload} got {told}"
        elif seen.status >= 400 and not seen.code:
            yield f"a client of {seen.workload} got {seen.status} without a code"
        elif seen.status == 200 and not seen.code and not seen.aborted:
            yield from kept(seen)


def _killed(hurts: Iterable[Hurt], seen: Seen) -> bool:
    """Whether a gateway of that replica was killed, or not back yet, when the client lost it."""
    return any(
        hurt.begin - MARGIN <= seen.ended <= hurt.end + MARGIN
        for hurt in hurts
        if (hurt.part, hurt.way) == (seen.replica, "kill") and hurt.what in GATEWAY
    )


def _right(books: Books, seen: Seen) -> bool:
    """Whether it is a refusal of a gateway that its database is away from: restricted data without a grace, a slice
    that is empty, sources whose permissions cannot be read, a start without a blueprint. A budget that is used up in
    the round has empty slices all the time, and a database on a busy machine may take longer than a caller waits."""
    always = books.may_refuse.get(seen.workload, frozenset())
    if seen.code == "policy_lease_expired":
        return seen.workload in books.restricted and _cut_off(books.hurts, seen)
    if seen.code == "budget_unreachable":
        return "budget_exhausted" in always or _cut_off(books.hurts, seen)
    if seen.code == "limit_unreachable":
        return "rate_limit_exceeded" in always and _cut_off(books.hurts, seen)
    if seen.code == "grounding_unavailable":
        return seen.workload in books.grounded and _cut_off(books.hurts, seen, of=("up",))
    if seen.code == "not_ready":
        return _starting(books.hurts, seen)
    return seen.code in always


def _cut_off(hurts: Iterable[Hurt], seen: Seen, of: tuple[str, ...] = GATEWAY) -> bool:
    """Whether the database was away, or one `of` these of that replica stopped or new."""
    return any(
        hurt.begin - MARGIN <= seen.ended and seen.begun <= hurt.end + BACK
        for hurt in hurts
        if hurt.part == "database" or (hurt.part == seen.replica and hurt.what in of)
    )


def _starting(hurts: Iterable[Hurt], seen: Seen) -> bool:
    """Whether a gateway of that replica was started a moment ago, or as long ago as its database is away."""
    away = [hurt for hurt in hurts if hurt.part == "database"]
    for kill in hurts:
        if (kill.part, kill.way) != (seen.replica, "kill") or kill.what not in GATEWAY or kill.begin > seen.ended:
            continue
        ready = kill.end + STARTING
        ready = max([ready, *(each.end + STARTING for each in away if each.begin <= ready)])
        if seen.begun <= ready:
            return True
    return False


def _without_database(books: Books, seen: Seen) -> bool:
    """Whether it is an answer from sources all of whose time the database was away."""
    if seen.workload not in books.grounded or seen.kind not in GROUNDED:
        return False
    away = [hurt.away for hurt in books.hurts if hurt.part == "database" and hurt.away is not None]
    return any(begin + DYING <= seen.begun and seen.ended <= end for begin, end in away)


def _answer_kept(books: Books, calls: Mapping[str, Call], seen: Seen) -> Iterator[str]:
    call = calls.get(seen.call)
    if call is None:
        yield f"a client of {seen.workload} has an answer of call {seen.call}, which is not in the ledger"
    elif call.status != "ok":
        yield f"a client of {seen.workload} has an answer of call {seen.call}, which is in the ledger as {call.status}"
    elif seen.workload in books.grounded and seen.kind in GROUNDED and not call.sources:
        yield f"a client of {seen.workload} has an answer of call {seen.call}, which rests on no source"


def held_for_nothing(books: Books) -> list[str]:
    """Budgets of which more is granted than spent, once every process has stopped and was recovered."""
    spent: Counter[tuple[str, str]] = Counter()
    for charge in books.charges:
        spent[charge.budget, charge.period] += charge.cost
    return [
        f"budget {p.budget} {p.period}: {p.granted - spent[p.budget, p.period]} are held by nobody"
        for p in books.periods
        if p.granted != spent[p.budget, p.period]
    ]
