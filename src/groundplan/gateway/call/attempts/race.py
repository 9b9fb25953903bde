"""Two attempts of one call at the same time: the second one is sent when the first one is slow, and whichever has
something for the client first is the answer.

The second one is reserved and journalled before it is sent, like any other, and only out of what this worker holds of
the budgets: a call is never made to wait, or refused, for a hedge. The loser is cancelled and settled by its provider's
rule. When, and how often, is `hedge`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from groundplan.blueprint.model import Deployment, Hedge
from groundplan.core.errors import Denied, GroundplanError, Unavailable
from groundplan.gateway.call import limits, settle
from groundplan.gateway.call.admit import check_next, is_confirmed
from groundplan.gateway.call.attempts import probe_turn
from groundplan.gateway.call.attempts.attempt import Attempt
from groundplan.gateway.call.attempts.begin import begin
from groundplan.gateway.call.attempts.failure import AttemptFailed
from groundplan.gateway.call.attempts.send_permission import may_be_sent
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.upstream.providers import SERVICE

HEDGE = "hedge"
"""Of the settlement of a second attempt; whichever comes after both is none."""


async def race(
    gateway: Gateway, first: Attempt, waiting: list[Deployment], rule: Hedge, hedged: Callable[[], None]
) -> Attempt:
    """Open `first`, and perhaps another one of `waiting`, of which `hedged` is told; returns the one that has something
    for the client, which is the exchange's own from then on.

    Raises `AttemptFailed` when all failed: for the attempt that the exchange then has, which is not settled yet.
    """
    exchange = first.exchange
    after = None
    ask = exchange.ask
    if waiting and exchange.workload is not None and ask is not None and ask.upload is None:
        stream = ask.stream
        learned = gateway.times.of(first.deployment.name, stream)
        after = gateway.hedges.after(exchange.workload.name, rule, learned)
    if after is None:
        await first.open()
        return first
    opening = gateway.loop.create_task(first.open())
    running = {opening: first}
    try:
        await _slow(gateway, opening, after)
        second = (
            None if opening.done() or first.delayed else await _meanwhile(gateway, exchange, waiting, (opening, first))
        )
        if second is not None:
            hedged()
            running[gateway.loop.create_task(second.open())] = second
        return await _first_of(gateway, exchange, running, waiting)
    except BaseException:
        await _stop(gateway, exchange, running)
        raise


async def _slow(gateway: Gateway, opening: asyncio.Task[None], after: float) -> None:
    """Until it is there, or took so long. A worker that stood still is not the first one's slowness."""
    since = gateway.loop.time()
    left = after
    while left > 0:
        await asyncio.wait([opening], timeout=left)
        left = 0.0 if opening.done() else gateway.stalls.left(since, after)


async def _meanwhile(
    gateway: Gateway, exchange: Exchange, waiting: list[Deployment], first: tuple[asyncio.Task[None], Attempt]
) -> Attempt | None:
    """As `_second`, unless the first one is there before: a limit may have to be asked for, and nobody waits for it."""
    if exchange.use is None:
        return await _second(gateway, exchange, waiting, first)
    making = gateway.loop.create_task(_second(gateway, exchange, waiting, first))
    try:
        await asyncio.wait((first[0], making), return_when=asyncio.FIRST_COMPLETED)
        if not making.done():
            making.cancel()
            await asyncio.wait((making,))
    except BaseException:
        making.cancel()
        if making.done():
            _unwanted(making)
        else:
            making.add_done_callback(_unwanted)
        raise
    return None if making.cancelled() else making.result()


def _unwanted(making: asyncio.Task[Attempt | None]) -> None:
    """Nobody waits for what it made any more."""
    if not making.cancelled() and making.exception() is None and (made := making.result()) is not None:
        made.cancel()


async def _second(
    gateway: Gateway, exchange: Exchange, waiting: list[Deployment], first: tuple[asyncio.Task[None], Attempt]
) -> Attempt | None:
    """A hedge, journalled; None where nobody is fit for it, a budget or limit has no room, both together may cost more
    than a call may, or the first is there."""
    deployment = next((d for d in waiting if _fit(gateway, exchange, d)), None)
    if deployment is None:
        return None
    fork, made = exchange.fork(), None
    fork.turn = gateway.health.turn(deployment.name)
    try:
        made = await _made(gateway, exchange, fork, deployment, first)
    finally:
        if made is None:
            probe_turn.give_up_turn(gateway, fork)
    if made is not None:
        waiting.remove(deployment)
    return made


async def _made(
    gateway: Gateway,
    exchange: Exchange,
    fork: Exchange,
    deployment: Deployment,
    first: tuple[asyncio.Task[None], Attempt],
) -> Attempt | None:
    """A hedge there, of the fork, as `_second`."""
    if exchange.workload is None or not _affords(exchange, deployment, first[1].deployment):
        return None
    # whoever is asked after it may inherit its reservation
    number, bound, sequence = exchange.attempts, max(exchange.bounds.values()), 0
    token = (exchange.raw, number)
    if gateway.slices.reserve(token, exchange.charge_list(bound)) is not None:
        return None
    fork.token, fork.reserved, fork.attempt_flags = token, bound, (*exchange.attempt_flags, HEDGE)
    exchange.attempts = number + 1
    try:
        if exchange.use is None or await limits.admit_attempt(gateway, fork, deployment, number, beside=True):
            late = first[0].done() or not gateway.loads.of(deployment).room
            sequence = 0 if late else begin(gateway, fork, deployment, inherits=False)
    except Unavailable:
        return None
    finally:
        if not sequence:
            gateway.slices.settle(token, 0)
            if exchange.use is not None:
                limits.unsent(gateway, exchange.use, number)
    if not sequence:
        return None
    gateway.hedges.sent(exchange.workload.name)
    return Attempt(gateway, fork, deployment, sequence, first[1].deadline)


def _affords(exchange: Exchange, deployment: Deployment, open_at: Deployment) -> bool:
    """Whether the call stays below what one may cost, with an attempt there beside the one that is open."""
    if exchange.plan is None:
        raise AssertionError("not admitted")
    try:
        check_next(exchange, exchange.plan, exchange.bounds[deployment.name], exchange.bounds[open_at.name])
    except Denied:
        return False
    return True


def _fit(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    if not gateway.loads.of(deployment).room or exchange.plan is None:
        return False
    try:
        if not is_confirmed(exchange.plan, gateway.live.age()) or not may_be_sent(gateway, exchange, deployment):
            return False
    except GroundplanError:
        return False  # no call of its kind is: the one that was sent before may answer
    return gateway.health.may_ask(deployment.name, gateway.loop.time())


async def _first_of(
    gateway: Gateway, exchange: Exchange, running: dict[asyncio.Task[None], Attempt], waiting: list[Deployment]
) -> Attempt:
    while True:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in running if task.done()]:
            attempt = running.pop(task)
            failure = task.exception()
            if isinstance(failure, AttemptFailed) and running:
                _lost(gateway, exchange, attempt, failure)
                if failure.other_key or failure.stale or failure.about == "sealed":
                    waiting.append(attempt.deployment)  # it may be well: asked again when the other one fails, too
                continue
            if running and attempt.refused and attempt.exchange is not exchange:
                # whoever was asked first may take what this one does not: a hedge spoils no call
                attempt.cancel()
                exchange.add_cost(attempt.exchange)
                waiting.append(attempt.deployment)
                continue
            # who only was not the first has not failed: should this one's stream break, it goes on there
            lost = [slow.deployment for other, slow in running.items() if not (slow.refused or _failed(other))]
            await _take_over(gateway, exchange, attempt, running)
            waiting.extend(lost)
            if failure is not None:
                raise failure
            return attempt


def _failed(opening: asyncio.Task[None]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


async def _take_over(
    gateway: Gateway, exchange: Exchange, attempt: Attempt, running: dict[asyncio.Task[None], Attempt]
) -> None:
    """The exchange's own attempt is this one from now on, and the other one, in the fork, ends."""
    fork = attempt.exchange
    if fork is not exchange:
        for slow in running.values():
            _outlasted(gateway, slow)
        exchange.swap_attempts(fork)
        attempt.exchange = exchange
        for other in running.values():
            other.exchange = fork
    try:
        await _stop(gateway, exchange, running)
    except BaseException:
        attempt.cancel()
        raise


def _outlasted(gateway: Gateway, attempt: Attempt) -> None:
    """The first attempt took longer than this. It is learned, too: else none of the slowest were, whose share decides
    when to hedge."""
    ask, now = attempt.exchange.ask, gateway.loop.time()
    if ask is not None and not attempt.delayed and not gateway.stalls.stood(attempt.began):
        times = gateway.times.of(attempt.deployment.name, ask.stream)
        times.observe(int((now - attempt.began) * 1e6), now)


def _lost(gateway: Gateway, exchange: Exchange, attempt: Attempt, failed: AttemptFailed) -> None:
    """One of two failed: settle it, the other one decides."""
    mine = attempt.exchange
    outcome = "failed" if failed.billed else "not_billed"
    settle.attempt(gateway, mine, outcome, failed.status, None, flag=failed.flag)
    if mine is not exchange:
        exchange.add_cost(mine)
    if failed.blames:
        gateway.health.failed(attempt.deployment.name, gateway.loop.time(), failed.rest)
    probe_turn.give_up_turn(gateway, mine)
    gateway.targets.forget(attempt.deployment.name if not failed.service_away else SERVICE)


async def _stop(gateway: Gateway, exchange: Exchange, running: dict[asyncio.Task[None], Attempt]) -> None:
    """Cancel what runs, and see that it is settled, however it ends; what it cost is the call's."""
    for task in running:
        task.cancel()
    try:
        if running:
            await asyncio.wait(running)
    finally:  # also where this is cancelled once more: nobody else settles them
        for task, attempt in running.items():
            failure = None if not task.done() or task.cancelled() else task.exception()
            if isinstance(failure, AttemptFailed):
                _lost(gateway, exchange, attempt, failure)
            elif failure is not None and attempt.exchange.attempt_started:
                settle.attempt(gateway, attempt.exchange, "failed", 0, None)
                probe_turn.give_up_turn(gateway, attempt.exchange)
            else:
                attempt.cancel()
            if attempt.exchange is not exchange:
                exchange.add_cost(attempt.exchange)
        running.clear()
