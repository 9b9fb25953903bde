"""Rate limits: requests, tokens, concurrent calls and cost per period, for the callers or deployments that they cover.

Limits are leased like budgets (`leases`, `lease_client`): a call takes from the slices that this worker holds, and
waits for PostgreSQL only when one is empty. Limits that cover the caller are taken at admission, those of a deployment
or its model at each attempt: a deployment without room is skipped like one that is down. A call that was never sent
uses nothing; tokens and cost are taken at their bound and settled at what was used. Admission takes them for one
attempt, as for budgets: an attempt after one that used nothing inherits them, any other (a retry, a hedge, the rest of
a stream) takes its own before it is sent, and an attempt that is drained in the background holds its own until it ends.
A blueprint without limits costs one read of `Catalog.limits`. Responses and headers about limits are made by
`limit_report`.
"""

from __future__ import annotations

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Exhausted, GroundplanError
from groundplan.gateway.budgets.leases import CONCURRENT, COST, REQUESTS, TOKENS, Quota
from groundplan.gateway.budgets.limit_book import NO_QUOTA_PERIODS, CoveringQuotas, LimitBook, QuotaPeriods
from groundplan.gateway.budgets.periods import current_key, ends
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.limit_report import LONG_WINDOW_S, limit_refusal, rate_limit_headers
from groundplan.gateway.call.limit_use import Hold, LimitUse, Shortage
from groundplan.ledger.model import Charge, Usage

CALL_TOKEN = -1
"""Attempt number in the token of what the whole call holds."""
AHEAD_TOKEN = -2
"""Attempt number in the token of what was taken at admission for the first attempt."""


def _now(gateway: Gateway) -> float:
    """The time by which the windows of limits begin and end, in seconds since the epoch."""
    return gateway.clock.seconds() + gateway.windows.seconds_ahead


async def admit_call(gateway: Gateway, exchange: Exchange, book: LimitBook, amount: int, now: float) -> float:
    """Take what the call needs from every limit that covers its caller. Raises `Exhausted`, taking nothing.

    `amount`: the most that one attempt can cost, in picodollars. `now`: seconds since the epoch; returns the time when
    all was taken.
    """
    use = exchange.limit_use = LimitUse()
    return await _admit_covering(gateway, exchange, use, _caller_coverage(exchange, book), amount, now)


def admit_call_locally(gateway: Gateway, exchange: Exchange, book: LimitBook, amount: int, now: float) -> bool:
    """Take as `admit_call`, from what this worker holds, which is nearly always enough; False, with nothing taken,
    where it is not."""
    covering = _caller_coverage(exchange, book)
    use = exchange.limit_use = LimitUse()
    return not covering.quotas or _reserve_covering(gateway, exchange, use, covering, amount, now) is None


def _caller_coverage(exchange: Exchange, book: LimitBook) -> CoveringQuotas:
    """The limits that cover the caller of this call, or a part of them for a sub-call."""
    key, workload, policy = exchange.key, exchange.workload, exchange.policy
    if key is None or workload is None or policy is None:
        raise AssertionError("not identified")
    family, within = key.family or key.id, bool(exchange.parent_call)
    return book.caller_quotas(workload, family, exchange.person, policy.people, key.line, within=within)


async def admit_unrequested(gateway: Gateway, exchange: Exchange, book: LimitBook, amount: int) -> None:
    """Take as `admit_call` for a call that no client asked for, sparing the limits of single persons and keys."""
    workload, policy = exchange.workload, exchange.policy
    if workload is None or policy is None:
        raise AssertionError("not identified")
    use = exchange.limit_use = LimitUse()
    await _admit_covering(
        gateway, exchange, use, book.caller_quotas(workload, "", "", policy.people), amount, gateway.clock.seconds()
    )


async def _admit_covering(
    gateway: Gateway, exchange: Exchange, use: LimitUse, covering: CoveringQuotas, amount: int, now: float
) -> float:
    if not covering.quotas:
        return now
    while (short := _reserve_covering(gateway, exchange, use, covering, amount, now)) is not None:
        spans, held, empty = short
        taken = await _acquire_for_call(gateway, exchange, held, empty)
        now = gateway.clock.seconds()
        if taken:
            _note_held(gateway, exchange, use, covering, spans, held, now + gateway.windows.seconds_ahead)
            break
    return now


def _reserve_covering(
    gateway: Gateway, exchange: Exchange, use: LimitUse, covering: CoveringQuotas, amount: int, now: float
) -> tuple[QuotaPeriods, Hold, Charge] | None:
    """Take what a call needs from the slices held here and return None; where one is short, take nothing and return
    (spans, what is to be taken, the charge that is short)."""
    at = now + gateway.windows.seconds_ahead
    spans = covering.periods_at(at)
    charges = spans.call_charges
    if covering.per_attempt:
        tokens = (exchange.most_tokens or _max_tokens(exchange)) if covering.counts_tokens else 0
        charges = [*charges, *spans.attempt_charges(tokens, amount)]
    held = Hold((exchange.id_bytes, CALL_TOKEN), covering.quotas, charges)
    empty = gateway.limit_slices.reserve(held.token, charges)
    if empty is not None:
        return spans, held, empty
    _note_held(gateway, exchange, use, covering, spans, held, at)
    return None


def _note_held(
    gateway: Gateway,
    exchange: Exchange,
    use: LimitUse,
    covering: CoveringQuotas,
    spans: QuotaPeriods,
    held: Hold,
    at: float,
) -> None:
    """Note at the call what was taken. `at`: by the time of windows."""
    use.header_lines = rate_limit_headers(gateway, exchange.interface, spans, at)
    use.measured_quotas = covering.per_attempt
    if not covering.per_attempt:
        use.call_hold = held
    elif covering.per_call:
        use.combined = held
    else:
        use.prepaid = held


def _split_hold(gateway: Gateway, use: LimitUse) -> None:
    """Split `combined` into what the whole call holds and what its attempt does."""
    both, use.combined = use.combined, None
    if both is None:
        return
    (call, _), measured = both.token, use.measured_quotas
    at = len(both.quotas) - len(measured)
    once, ahead = both.charges[:at], both.charges[at:]
    use.call_hold = Hold(both.token, both.quotas[:at], once)
    use.prepaid = Hold((call, AHEAD_TOKEN), measured, ahead)
    gateway.limit_slices.split_reservation(both.token, once, use.prepaid.token, ahead)


async def _acquire_for_call(gateway: Gateway, exchange: Exchange, held: Hold, empty: Charge) -> bool:
    """Lease more of `empty`, which is short in this worker, and take all charges. Returns False, with nothing taken, if
    its window ended meanwhile and the next one is to be tried. Raises `Exhausted`, taking nothing."""
    short = await _acquire(gateway, exchange, held, empty)
    if short is None:
        return True
    if short.is_window_over(_now(gateway)):
        return False
    if exchange.flight is not None:
        exchange.flight.exhausted = short.quota.name
    raise _with_header_lines(gateway, exchange, short, limit_refusal(gateway, short))


def _with_header_lines(
    gateway: Gateway, exchange: Exchange, short: Shortage, error: GroundplanError
) -> GroundplanError:
    """Return the refusal, after setting the rate-limit headers that go with it."""
    catalog = exchange.catalog
    if isinstance(error, Exhausted) and exchange.key is not None and catalog is not None and catalog.limits is not None:
        use = exchange.limit_use = exchange.limit_use or LimitUse()
        now, covering = _now(gateway), _caller_coverage(exchange, catalog.limits)
        spans = covering.periods_at(now) if covering.quotas else NO_QUOTA_PERIODS
        use.header_lines = rate_limit_headers(gateway, exchange.interface, spans, now, short)
    return error


def is_covered(exchange: Exchange, name: str) -> bool:
    """Whether the quota of this name covers the caller."""
    book = None if exchange.catalog is None else exchange.catalog.limits
    return book is not None and any(quota.name == name for quota in _caller_coverage(exchange, book).quotas)


async def admit_cached(gateway: Gateway, exchange: Exchange, book: LimitBook) -> None:
    """Take one request and one concurrent call, no tokens and no cost, of every limit that covers the caller of a
    cached answer. Raises `Exhausted`, taking nothing."""
    covering = _caller_coverage(exchange, book)
    if not covering.per_call:
        return
    token, now = (exchange.id_bytes, CALL_TOKEN), _now(gateway)
    spans = covering.periods_at(now)
    while (empty := gateway.limit_slices.reserve(token, spans.call_charges)) is not None:
        held = Hold(token, covering.per_call, spans.call_charges)
        taken, now = await _acquire_for_call(gateway, exchange, held, empty), _now(gateway)
        if taken:
            break
        spans = covering.periods_at(now)
    lines = rate_limit_headers(gateway, exchange.interface, spans, now)
    exchange.limit_use = LimitUse(call_hold=Hold(token, covering.per_call, spans.call_charges), header_lines=lines)


async def admit_attempt(
    gateway: Gateway,
    exchange: Exchange,
    deployment: Deployment,
    attempt: int,
    *,
    key: str | None = None,
    is_hedge: bool = False,
) -> bool:
    """Take what an attempt needs from every limit that covers its deployment or the key there, and again from those of
    its caller what an earlier attempt has used; returns whether there was room.

    Of a deployment with several keys the least used one with room is chosen. `key`: the reference of the one that an
    open connection uses already; empty where it uses none. `is_hedge`: another attempt runs, so nothing is leased for
    the limits of its caller.
    """
    use, catalog = exchange.limit_use, exchange.catalog
    if use is None or catalog is None or catalog.limits is None:
        return True
    book = catalog.limits
    again_quotas = _quotas_to_take_again(gateway, use, attempt)
    quotas_of_all_keys = (*again_quotas, *book.deployment_quotas(deployment))
    if not quotas_of_all_keys and not deployment.keys:
        use.prepaid_attempt = attempt
        return True
    tokens, amount = _max_tokens_at(exchange, deployment), exchange.bounds[deployment.name]
    key_order = _key_order(gateway, deployment, key)
    if not key_order:
        return True  # all keys rest, for which the attempt itself will fail
    shortage: Shortage | None = None
    for place, index in enumerate(key_order):
        quotas = (
            quotas_of_all_keys if index is None else (*quotas_of_all_keys, *book.provider_key_quotas(deployment, index))
        )
        held: Hold | None = None
        missing: Shortage | None = None
        if quotas:
            waits, idle = place == len(key_order) - 1, again_quotas if is_hedge else ()
            held, missing = await _reserve_attempt(
                gateway, exchange, quotas, attempt, tokens, amount, waits=waits, idle=idle
            )
        if missing is None:
            _note_attempt(use, attempt, held, index)
            if not again_quotas:
                use.prepaid_attempt = attempt
            return True
        shortage = _first_to_have_room(shortage, missing)
    if not is_hedge:
        use.skipped_deployments = (*use.skipped_deployments, deployment.name)
        if shortage is not None:
            use.shortage = _first_to_have_room(use.shortage, shortage)
    return False


def admit_attempt_locally(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    """Take as `admit_attempt` for the first attempt of a call, from what this worker holds, which is nearly always
    enough; False, with nothing taken, where it is not, or one of several keys is to be chosen."""
    use, catalog, attempt = exchange.limit_use, exchange.catalog, exchange.attempt_count
    if use is None or catalog is None or catalog.limits is None:
        return True
    if deployment.keys:
        return False
    quotas = catalog.limits.deployment_quotas(deployment)
    if quotas:
        tokens, amount = _max_tokens_at(exchange, deployment), exchange.bounds[deployment.name]
        held = _attempt_hold(gateway, exchange, quotas, attempt, tokens, amount)
        if gateway.limit_slices.reserve(held.token, held.charges) is not None:
            return False
        use.attempts[attempt] = held
    use.prepaid_attempt = attempt
    return True


def _attempt_hold(
    gateway: Gateway, exchange: Exchange, quotas: tuple[Quota, ...], attempt: int, tokens: int, amount: int
) -> Hold:
    """What an attempt is to take now from these limits."""
    needs, now = {REQUESTS: 1, CONCURRENT: 1, TOKENS: tokens, COST: amount}, _now(gateway)
    charges = [Charge(q.name, current_key(q.period, "", "UTC", now), needs[q.type]) for q in quotas]
    return Hold((exchange.id_bytes, attempt), quotas, charges)


def _quotas_to_take_again(gateway: Gateway, use: LimitUse, attempt: int) -> tuple[Quota, ...]:
    """The limits of the caller that an attempt takes from anew; none where it uses what was taken at admission."""
    release_unsent(gateway, use, attempt)
    ahead = use.combined or use.prepaid
    return use.measured_quotas if ahead is None or use.prepaid_attempt is not None else ()


def release_unsent(gateway: Gateway, use: LimitUse, attempt: int) -> None:
    """Give back what was taken for an attempt that is not sent after all."""
    held = use.attempts.pop(attempt, None)
    if held is not None:
        _settle(gateway, held, 0, 0, 0)
    use.key_indexes.pop(attempt, None)
    if use.prepaid_attempt == attempt:
        use.prepaid_attempt = None


def _note_attempt(use: LimitUse, attempt: int, held: Hold | None, index: int | None) -> None:
    if held is not None:
        use.attempts[attempt] = held
    if index is not None:
        use.key_indexes[attempt] = index


def _key_order(gateway: Gateway, deployment: Deployment, key: str | None) -> list[int | None]:
    """Indexes of the keys that an attempt may use, the first choice first; [None] for a deployment without several
    keys."""
    if not deployment.keys:
        return [None]
    if key is not None:
        return [index for index, each in enumerate(deployment.keys) if each.key == key] or [None]
    return [*gateway.targets.key_pool(deployment).order(gateway.loop.time())]


async def _reserve_attempt(
    gateway: Gateway,
    exchange: Exchange,
    quotas: tuple[Quota, ...],
    number: int,
    tokens: int,
    amount: int,
    *,
    waits: bool,
    idle: tuple[Quota, ...],
) -> tuple[Hold, Shortage | None]:
    """(what was taken, None or the limit that is short). `waits`: ask PostgreSQL also where a limit seems used up. Of
    quotas in `idle` only what this worker holds already is taken."""
    while True:
        held = _attempt_hold(gateway, exchange, quotas, number, tokens, amount)
        empty = gateway.limit_slices.reserve(held.token, held.charges)
        short = None if empty is None else await _acquire(gateway, exchange, held, empty, waits=waits, idle=idle)
        if short is None or not short.is_window_over(_now(gateway)):
            return held, short


async def _acquire(
    gateway: Gateway,
    exchange: Exchange,
    wanted: Hold,
    empty: Charge,
    *,
    waits: bool = True,
    idle: tuple[Quota, ...] = (),
) -> Shortage | None:
    """As `_reserve_attempt` where `empty` is short here: lease what is missing."""
    quotas, charges = wanted.quotas, wanted.charges
    shorts = [Shortage(q, charge.amount, charge.period) for q, charge in zip(quotas, charges, strict=True)]
    if (never := next((each for each in shorts if each.exceeds_limit), None)) is not None:
        return never
    first = shorts[charges.index(empty)]
    if first.quota in idle:
        return first
    if not waits and gateway.leases.remaining((first.quota.name, empty.period), first.quota.limit) < first.need:
        return _last_to_have_room(gateway, shorts, charges, empty)
    blueprint = exchange.catalog.number if exchange.catalog else 0
    short = await gateway.leases.acquire(wanted.token, charges, quotas, blueprint)
    return None if short is None else _last_to_have_room(gateway, shorts, charges, short)


def _last_to_have_room(gateway: Gateway, shorts: list[Shortage], charges: list[Charge], first: Charge) -> Shortage:
    """Of all limits that surely have no room, `first` among them, the one that has room again last, since a client that
    waits for another one would be refused again. Sure is what this worker used itself and what PostgreSQL reported."""
    spent, told = gateway.limit_slices.spent, gateway.leases.was_refused_lately
    found, latest = shorts[charges.index(first)], _window_end(first)
    for short, each in zip(shorts, charges, strict=True):
        out = short.quota.limit - spent(each.budget, each.period) < each.amount or told(each.budget, each.period)
        if out and (frees := _window_end(each)) > latest:
            found, latest = short, frees
    return found


def _first_to_have_room(known: Shortage | None, other: Shortage) -> Shortage:
    """Of two limits without room, each of another deployment or key there, the one that has room again first: any of
    them can serve the call."""
    return other if known is None or _frees_at(other) < _frees_at(known) else known


def _frees_at(shortage: Shortage) -> float:
    """When a limit has room again, in seconds since the epoch; 0: as other calls end, infinity: never for this call."""
    if shortage.exceeds_limit:
        return float("inf")
    end = ends(shortage.period)
    return 0.0 if end is None else end.timestamp()


def _window_end(charge: Charge) -> float:
    """When the window of a charge ends, in seconds since the epoch; 0: it frees as other calls end."""
    end = ends(charge.period)
    return 0.0 if end is None else end.timestamp()


def _max_tokens(exchange: Exchange) -> int:
    """The most tokens of one attempt at any of the deployments."""
    first, *others = exchange.deployments
    most = _max_tokens_at(exchange, first)
    for other in others:
        most = max(most, _max_tokens_at(exchange, other))
    return most


def _max_tokens_at(exchange: Exchange, deployment: Deployment) -> int:
    ask, workload = exchange.ask, exchange.workload
    if ask is None or workload is None:
        raise AssertionError("not checked")
    added, cap = admit.added_bytes(exchange, workload), admit.output_cap(exchange, deployment)
    return exchange.interface.token_bound(ask, deployment, added, cap)


def raise_if_limited(gateway: Gateway, exchange: Exchange, others: float | None = None) -> None:
    """Raise `Exhausted` where no deployment could answer and one was skipped for a limit. `others`: seconds after which
    a deployment that was not skipped may answer; None: none may. A limit of a deployment that frees later than that,
    and later than in a minute, is not raised."""
    use = exchange.limit_use
    if use is None or use.shortage is None:
        return
    error, own = limit_refusal(gateway, use.shortage), use.shortage.quota in use.measured_quotas
    if own or others is None or (error.retry_after is not None and error.retry_after <= max(others, LONG_WINDOW_S)):
        raise _with_header_lines(gateway, exchange, use.shortage, error)


def resting_key_seconds(gateway: Gateway, exchange: Exchange) -> list[float]:
    """For each deployment that was skipped for a limit of its keys, and of which another key rests: the seconds until
    that one is used again."""
    use, now = exchange.limit_use, gateway.loop.time()
    skipped = () if use is None else use.skipped_deployments
    pools = [gateway.targets.key_pool(each) for each in exchange.deployments if each.keys and each.name in skipped]
    return [seconds for pool in pools if (seconds := pool.next_rest_end(now)) is not None]


def end_attempt(gateway: Gateway, use: LimitUse, attempt: int, usage: Usage, cost: int) -> None:
    """Settle an attempt at its usage (`cost` in picodollars); the rest of what it held is free again."""
    tokens = usage.input + usage.output
    held = use.attempts.pop(attempt, None)
    if held is not None:
        _settle(gateway, held, 1, tokens, cost)
    if attempt != use.prepaid_attempt:
        return
    use.prepaid_attempt = None
    if tokens or cost or use.has_ended:  # otherwise the next attempt inherits it
        _settle_ahead(gateway, use, tokens, cost)


def end_attempt_and_call(
    gateway: Gateway, use: LimitUse, attempt: int, usage: Usage, cost: int, *, written: bool
) -> None:
    """Settle the last attempt and end its call, as `end_attempt` and `end_call` do."""
    both = use.combined
    if both is None or attempt != use.prepaid_attempt or use.attempts:
        end_attempt(gateway, use, attempt, usage, cost)
        end_call(gateway, use, sent=written)
        return
    use.combined = use.prepaid_attempt = None
    use.has_ended = True
    _settle(gateway, both, 1 if written else 0, usage.input + usage.output, cost)


def mark_draining(use: LimitUse, attempt: int) -> None:
    """Note that an attempt is drained in the background, which may outlast its call: it holds what it took until it
    ends."""
    use.draining = (*use.draining, attempt)


def end_call(gateway: Gateway, use: LimitUse, *, sent: bool) -> None:
    """End the call: give back what it holds. A call that was never `sent` used nothing."""
    _split_hold(gateway, use)
    held, use.call_hold = use.call_hold, None
    use.has_ended = True
    if held is not None:
        _settle(gateway, held, 1 if sent else 0, 0, 0)
    if use.prepaid is not None and use.prepaid_attempt not in use.draining:
        _settle_ahead(gateway, use, 0, 0)
    if use.attempts:
        for attempt in [number for number in use.attempts if number not in use.draining]:
            _settle(gateway, use.attempts.pop(attempt), 0, 0, 0)


def _settle_ahead(gateway: Gateway, use: LimitUse, tokens: int, cost: int) -> None:
    _split_hold(gateway, use)
    held, use.prepaid = use.prepaid, None
    if held is not None:
        _settle(gateway, held, 0, tokens, cost)


def _settle(gateway: Gateway, held: Hold, requests: int, tokens: int, cost: int) -> None:
    used = {REQUESTS: requests, CONCURRENT: 0, TOKENS: tokens, COST: cost}
    gateway.limit_slices.settle_charges(held.token, [used[quota.type] for quota in held.quotas])
