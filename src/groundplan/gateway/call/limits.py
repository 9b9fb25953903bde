"""Limits of use: requests, tokens, concurrent calls and cost of whom or what a declared limit covers, in a time.

They are leased like budgets (`leases`, `lease_client`): a call takes from the slices that this worker holds, and waits
for PostgreSQL only when one is empty. What covers the caller is taken at admission, what covers a deployment or its
model at each attempt: one that has no room is passed over like one that is down. A call that was never sent uses
nothing; tokens and cost are taken at their bound and settled at what they were. Admission takes them for one attempt,
as of budgets: whoever comes after one that used nothing goes on with that, any other (a retry, a hedge, the rest of a
stream) takes its own before it is sent, and what is read on for nobody holds its own until that is over. A blueprint
without limits costs one look at `Catalog.limits`. What a caller is told of them is `limit_report`'s.
"""

from __future__ import annotations

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Exhausted, GroundplanError
from groundplan.gateway.budgets.leases import CONCURRENT, COST, REQUESTS, TOKENS, Quota, Token
from groundplan.gateway.budgets.limit_book import NO_QUOTA_PERIODS, CoveringQuotas, LimitBook, QuotaPeriods
from groundplan.gateway.budgets.periods import current_key, ends
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.limit_report import LONG_S, header_lines_of, refusal
from groundplan.gateway.call.limit_use import Held, LimitUse, Short
from groundplan.ledger.model import Charge, Usage

CALL = -1
"""Attempt number in the token of what a whole call holds."""
AHEAD = -2
"""The same of what was taken for one attempt before there was any."""


def _now(gateway: Gateway) -> float:
    """The time by which windows begin and end, in seconds since the epoch."""
    return gateway.clock.seconds() + gateway.windows.seconds_ahead


async def admit_call(gateway: Gateway, exchange: Exchange, book: LimitBook, amount: int, now: float) -> float:
    """Take what the call needs of every limit that covers its caller. Raises `Exhausted`, taking nothing.

    `amount`: the most that one attempt can cost, in picodollars. `now`: seconds since the epoch; returned as it is once
    all is taken.
    """
    use = exchange.limit_use = LimitUse()
    return await _admit(gateway, exchange, use, _of_caller(exchange, book), amount, now)


def call_at_hand(gateway: Gateway, exchange: Exchange, book: LimitBook, amount: int, now: float) -> bool:
    """As `admit_call`, of what this worker holds, which nearly always is enough; False, with nothing taken: it is
    not."""
    covering = _of_caller(exchange, book)
    use = exchange.limit_use = LimitUse()
    return not covering.quotas or _take_all(gateway, exchange, use, covering, amount, now) is None


def _of_caller(exchange: Exchange, book: LimitBook) -> CoveringQuotas:
    """What covers its caller; what the gateway asks within a call is a part of that."""
    key, workload, policy = exchange.key, exchange.workload, exchange.policy
    if key is None or workload is None or policy is None:
        raise AssertionError("not identified")
    family, within = key.family or key.id, bool(exchange.parent_call)
    return book.caller_quotas(workload, family, exchange.person, policy.people, key.line, within=within)


async def admit_beside(gateway: Gateway, exchange: Exchange, book: LimitBook, amount: int) -> None:
    """As `admit_call` for a call that nobody asked for: what one person or one key may use is left to them."""
    workload, policy = exchange.workload, exchange.policy
    if workload is None or policy is None:
        raise AssertionError("not identified")
    use = exchange.limit_use = LimitUse()
    await _admit(
        gateway, exchange, use, book.caller_quotas(workload, "", "", policy.people), amount, gateway.clock.seconds()
    )


async def _admit(
    gateway: Gateway, exchange: Exchange, use: LimitUse, covering: CoveringQuotas, amount: int, now: float
) -> float:
    if not covering.quotas:
        return now
    while (short := _take_all(gateway, exchange, use, covering, amount, now)) is not None:
        spans, charges, empty = short
        taken = await _wait(gateway, exchange, covering.quotas, charges, (exchange.id_bytes, CALL), empty)
        now = gateway.clock.seconds()
        if taken:
            _hold(gateway, exchange, use, covering, spans, charges, now + gateway.windows.seconds_ahead)
            break
    return now


def _take_all(
    gateway: Gateway, exchange: Exchange, use: LimitUse, covering: CoveringQuotas, amount: int, now: float
) -> tuple[QuotaPeriods, list[Charge], Charge] | None:
    """Take what there is here of what covers a call; where that is not all, nothing is taken, and returned is what
    would be, with what is short of it."""
    at = now + gateway.windows.seconds_ahead
    spans = covering.periods_at(at)
    charges = spans.call_charges
    if covering.per_attempt:
        tokens = (exchange.most_tokens or _most_tokens(exchange)) if covering.counts_tokens else 0
        charges = [*charges, *spans.attempt_charges(tokens, amount)]
    empty = gateway.limit_slices.reserve((exchange.id_bytes, CALL), charges)
    if empty is not None:
        return spans, charges, empty
    _hold(gateway, exchange, use, covering, spans, charges, at)
    return None


def _hold(
    gateway: Gateway,
    exchange: Exchange,
    use: LimitUse,
    covering: CoveringQuotas,
    spans: QuotaPeriods,
    charges: list[Charge],
    at: float,
) -> None:
    """`charges` were taken, at a time of windows."""
    token = (exchange.id_bytes, CALL)
    use.lines = header_lines_of(gateway, spans, at, anthropics=exchange.interface.uses_anthropic_headers)
    use.measured = covering.per_attempt
    held = Held(token, covering.quotas, charges)
    if not covering.per_attempt:
        use.call = held
    elif covering.per_call:
        use.both = held
    else:
        use.ahead = held


def _part(gateway: Gateway, use: LimitUse) -> None:
    """What its attempt holds is apart from what the whole call does, from now on."""
    both, use.both = use.both, None
    if both is None:
        return
    (call, _), measured = both.token, use.measured
    at = len(both.quotas) - len(measured)
    once, ahead = both.charges[:at], both.charges[at:]
    use.call = Held(both.token, both.quotas[:at], once)
    use.ahead = Held((call, AHEAD), measured, ahead)
    gateway.limit_slices.split_reservation(both.token, once, use.ahead.token, ahead)


async def _wait(
    gateway: Gateway, exchange: Exchange, quotas: tuple[Quota, ...], charges: list[Charge], token: Token, empty: Charge
) -> bool:
    """Take all, of which `empty` is short here; False, with nothing taken: its window ended meanwhile, and the next one
    is to be asked. Raises `Exhausted`, taking nothing."""
    short = await _acquire(gateway, exchange, quotas, charges, token, empty)
    if short is None:
        return True
    if short.over(_now(gateway)):
        return False
    if exchange.flight is not None:
        exchange.flight.lacked = short.quota.name
    raise _telling(gateway, exchange, short, refusal(gateway, short))


def _telling(gateway: Gateway, exchange: Exchange, short: Short, error: GroundplanError) -> GroundplanError:
    """The refusal; what is left of limits then is told beside it."""
    catalog = exchange.catalog
    if isinstance(error, Exhausted) and exchange.key is not None and catalog is not None and catalog.limits is not None:
        use = exchange.limit_use = exchange.limit_use or LimitUse()
        now, covering = _now(gateway), _of_caller(exchange, catalog.limits)
        spans = covering.periods_at(now) if covering.quotas else NO_QUOTA_PERIODS
        use.lines = header_lines_of(
            gateway, spans, now, anthropics=exchange.interface.uses_anthropic_headers, short=short
        )
    return error


def is_covered(exchange: Exchange, name: str) -> bool:
    """Whether the quota of this name covers the caller."""
    book = None if exchange.catalog is None else exchange.catalog.limits
    return book is not None and any(quota.name == name for quota in _of_caller(exchange, book).quotas)


async def admit_cached(gateway: Gateway, exchange: Exchange, book: LimitBook) -> None:
    """Take one request and one concurrent call, no tokens and no cost, of every limit that covers the caller of a
    cached answer. Raises `Exhausted`, taking nothing."""
    covering = _of_caller(exchange, book)
    if not covering.per_call:
        return
    token, now = (exchange.id_bytes, CALL), _now(gateway)
    spans = covering.periods_at(now)
    while (empty := gateway.limit_slices.reserve(token, spans.call_charges)) is not None:
        taken, now = await _wait(gateway, exchange, covering.per_call, spans.call_charges, token, empty), _now(gateway)
        if taken:
            break
        spans = covering.periods_at(now)
    lines = header_lines_of(gateway, spans, now, anthropics=exchange.interface.uses_anthropic_headers)
    exchange.limit_use = LimitUse(call=Held(token, covering.per_call, spans.call_charges), lines=lines)


async def admit_attempt(
    gateway: Gateway,
    exchange: Exchange,
    deployment: Deployment,
    attempt: int,
    *,
    key: str | None = None,
    beside: bool = False,
) -> bool:
    """Take what an attempt needs of every limit that covers its deployment, or the key there, and of those of its
    caller what an earlier attempt has used; whether there was room.

    Of a deployment with several keys the least used one with room is chosen. `key`: the reference of the one that it
    uses already, over a connection that stands; empty where it uses none. `beside`: another attempt runs, and nothing
    is fetched of the limits of its caller.
    """
    use, catalog = exchange.limit_use, exchange.catalog
    if use is None or catalog is None or catalog.limits is None:
        return True
    book = catalog.limits
    again = _again(gateway, use, attempt)
    own = (*again, *book.deployment_quotas(deployment))
    if not own and not deployment.keys:
        use.bearer = attempt
        return True
    tokens, amount = _tokens(exchange, deployment), exchange.bounds[deployment.name]
    order = _keys(gateway, deployment, key)
    if not order:
        return True  # every one rests, which the attempt itself will say
    short: Short | None = None
    for place, index in enumerate(order):
        quotas = own if index is None else (*own, *book.provider_key_quotas(deployment, index))
        held: Held | None = None
        missing: Short | None = None
        if quotas:
            waits, idle = place == len(order) - 1, again if beside else ()
            held, missing = await _take(gateway, exchange, quotas, attempt, tokens, amount, waits=waits, idle=idle)
        if missing is None:
            _begin(use, attempt, held, index)
            if not again:
                use.bearer = attempt
            return True
        short = missing if short is None or not missing.never else short
    if not beside:
        use.passed = (*use.passed, deployment.name)
        if use.no_room is None or (short is not None and not short.never):
            use.no_room = short  # of several the one for which waiting helps
    return False


def at_hand(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    """As `admit_attempt` of the first attempt of a call, of what this worker holds, which nearly always is enough;
    False, with nothing taken: it is not, or one of several keys is to be chosen."""
    use, catalog, attempt = exchange.limit_use, exchange.catalog, exchange.attempt_count
    if use is None or catalog is None or catalog.limits is None:
        return True
    if deployment.keys:
        return False
    quotas = catalog.limits.deployment_quotas(deployment)
    if quotas:
        tokens, amount = _tokens(exchange, deployment), exchange.bounds[deployment.name]
        at = gateway.clock.seconds() + gateway.windows.seconds_ahead
        held = Held((exchange.id_bytes, attempt), quotas, _charges(quotas, tokens, amount, at))
        if gateway.limit_slices.reserve(held.token, held.charges) is not None:
            return False
        use.attempts[attempt] = held
    use.bearer = attempt
    return True


def _charges(quotas: tuple[Quota, ...], tokens: int, amount: int, now: float) -> list[Charge]:
    needs = {REQUESTS: 1, CONCURRENT: 1, TOKENS: tokens, COST: amount}
    return [Charge(q.name, current_key(q.period, "", "UTC", now), needs[q.type]) for q in quotas]


def _again(gateway: Gateway, use: LimitUse, attempt: int) -> tuple[Quota, ...]:
    """Of which of its caller's limits an attempt takes its own: none where it uses what was taken ahead."""
    unsent(gateway, use, attempt)
    ahead = use.both or use.ahead
    return use.measured if ahead is None or use.bearer is not None else ()


def unsent(gateway: Gateway, use: LimitUse, attempt: int) -> None:
    """An attempt that there was room for is not sent in the end: what it took is free again."""
    held = use.attempts.pop(attempt, None)
    if held is not None:
        _settle(gateway, held, 0, 0, 0)
    use.keys.pop(attempt, None)
    if use.bearer == attempt:
        use.bearer = None


def _begin(use: LimitUse, attempt: int, held: Held | None, index: int | None) -> None:
    if held is not None:
        use.attempts[attempt] = held
    if index is not None:
        use.keys[attempt] = index


def _keys(gateway: Gateway, deployment: Deployment, key: str | None) -> list[int | None]:
    """Places of the keys that an attempt may use, the first choice first; None for a deployment that has no several."""
    if not deployment.keys:
        return [None]
    if key is not None:
        return [index for index, each in enumerate(deployment.keys) if each.key == key] or [None]
    return [*gateway.targets.key_pool(deployment).order(gateway.loop.time())]


async def _take(
    gateway: Gateway,
    exchange: Exchange,
    quotas: tuple[Quota, ...],
    number: int,
    tokens: int,
    amount: int,
    *,
    waits: bool = True,
    idle: tuple[Quota, ...] = (),
) -> tuple[Held, Short | None]:
    """What was taken, and None or the limit that is short; `waits` for it also where it seems used up. Of those in
    `idle` only what this worker holds already is taken."""
    charges = _charges(quotas, tokens, amount, _now(gateway))
    token = (exchange.id_bytes, number)
    held = Held(token, quotas, charges)
    empty = gateway.limit_slices.reserve(token, charges)
    if empty is None:
        return held, None
    short = await _acquire(gateway, exchange, quotas, charges, token, empty, waits=waits, idle=idle)
    if short is not None and short.over(_now(gateway)):
        return await _take(gateway, exchange, quotas, number, tokens, amount, waits=waits, idle=idle)
    return held, short


async def _acquire(
    gateway: Gateway,
    exchange: Exchange,
    quotas: tuple[Quota, ...],
    charges: list[Charge],
    token: Token,
    empty: Charge,
    *,
    waits: bool = True,
    idle: tuple[Quota, ...] = (),
) -> Short | None:
    """As `_take`, of which `empty` is short here: what is missing is fetched."""
    shorts = [Short(q, charge.amount, charge.period) for q, charge in zip(quotas, charges, strict=True)]
    if (never := next((each for each in shorts if each.never), None)) is not None:
        return never
    first = shorts[charges.index(empty)]
    if first.quota in idle:
        return first
    if not waits and gateway.leases.remaining((first.quota.name, empty.period), first.quota.limit) < first.need:
        return first
    blueprint = exchange.catalog.number if exchange.catalog else 0
    short = await gateway.leases.acquire(token, charges, quotas, blueprint)
    return None if short is None else _last(gateway, shorts, charges, short)


def _last(gateway: Gateway, shorts: list[Short], charges: list[Charge], first: Charge) -> Short:
    """Of all that surely have no room, of which `first` was found first: the one that has room again last, since
    whoever waits for another one is refused again. Sure is what this worker used itself, and what PostgreSQL told."""
    spent, told = gateway.limit_slices.spent, gateway.leases.was_refused_lately
    found, latest = shorts[charges.index(first)], _frees(first)
    for short, each in zip(shorts, charges, strict=True):
        out = short.quota.limit - spent(each.budget, each.period) < each.amount or told(each.budget, each.period)
        if out and (frees := _frees(each)) > latest:
            found, latest = short, frees
    return found


def _frees(charge: Charge) -> float:
    """When its window ends, in seconds; 0: by other calls' end."""
    end = ends(charge.period)
    return 0.0 if end is None else end.timestamp()


def _most_tokens(exchange: Exchange) -> int:
    """Of an attempt at whichever deployment takes most."""
    first, *others = exchange.deployments
    most = _tokens(exchange, first)
    for other in others:
        most = max(most, _tokens(exchange, other))
    return most


def _tokens(exchange: Exchange, deployment: Deployment) -> int:
    ask, workload = exchange.ask, exchange.workload
    if ask is None or workload is None:
        raise AssertionError("not checked")
    added, cap = admit.added_bytes(exchange, workload), admit.output_cap(exchange, deployment)
    return exchange.interface.token_bound(ask, deployment, added, cap)


def check_room(gateway: Gateway, exchange: Exchange, others: float | None = None) -> None:
    """No deployment could answer: raise `Exhausted` where one was passed over for a limit. `others`: seconds after
    which one may answer that was not; what of the others' own frees later than that, and than in a minute, is no
    reason to wait for."""
    use = exchange.limit_use
    if use is None or use.no_room is None:
        return
    error, own = refusal(gateway, use.no_room), use.no_room.quota in use.measured
    if own or others is None or (error.retry_after is not None and error.retry_after <= max(others, LONG_S)):
        raise _telling(gateway, exchange, use.no_room, error)


def end_attempt(gateway: Gateway, use: LimitUse, attempt: int, usage: Usage, cost: int) -> None:
    """An attempt used so much (`cost` in picodollars); what else it held is free again."""
    tokens = usage.input + usage.output
    held = use.attempts.pop(attempt, None)
    if held is not None:
        _settle(gateway, held, 1, tokens, cost)
    if attempt != use.bearer:
        return
    use.bearer = None
    if tokens or cost or use.over:  # else the next one goes on with it
        _settle_ahead(gateway, use, tokens, cost)


def end_answered(gateway: Gateway, use: LimitUse, attempt: int, usage: Usage, cost: int, *, written: bool) -> None:
    """The last attempt used so much, and with it the call is over: as `end_attempt` and `end_call`."""
    both = use.both
    if both is None or attempt != use.bearer or use.attempts:
        end_attempt(gateway, use, attempt, usage, cost)
        end_call(gateway, use, sent=written)
        return
    use.both = use.bearer = None
    use.over = True
    _settle(gateway, both, 1 if written else 0, usage.input + usage.output, cost)


def read_on(use: LimitUse, attempt: int) -> None:
    """An attempt that nobody waits for goes on, also after its call: what it holds is held until it ends."""
    use.draining = (*use.draining, attempt)


def end_call(gateway: Gateway, use: LimitUse, *, sent: bool) -> None:
    """The call is over; one that was never sent used nothing."""
    _part(gateway, use)
    held, use.call = use.call, None
    use.over = True
    if held is not None:
        _settle(gateway, held, 1 if sent else 0, 0, 0)
    if use.ahead is not None and use.bearer not in use.draining:
        _settle_ahead(gateway, use, 0, 0)
    if use.attempts:
        for attempt in [number for number in use.attempts if number not in use.draining]:
            _settle(gateway, use.attempts.pop(attempt), 0, 0, 0)


def _settle_ahead(gateway: Gateway, use: LimitUse, tokens: int, cost: int) -> None:
    _part(gateway, use)
    held, use.ahead = use.ahead, None
    if held is not None:
        _settle(gateway, held, 0, tokens, cost)


def _settle(gateway: Gateway, held: Held, requests: int, tokens: int, cost: int) -> None:
    used = {REQUESTS: requests, CONCURRENT: 0, TOKENS: tokens, COST: cost}
    gateway.limit_slices.settle_charges(held.token, [used[quota.type] for quota in held.quotas])
