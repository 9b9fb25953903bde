"""Hedging: a second attempt of a call is sent while the first one is slow, and the one that first has something for the
client becomes the answer.

The hedge is reserved and journalled before it is sent, like any attempt, and only out of what this worker holds of the
budgets: a call is never made to wait, or refused, for a hedge. The loser is cancelled and settled by its provider's
rule. When and how often to hedge is decided by `hedge`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from groundplan.blueprint.model import Deployment, Hedge
from groundplan.core.errors import Denied, GroundplanError, Unavailable
from groundplan.gateway.call import limits, settle
from groundplan.gateway.call.admit import check_next_attempt, is_policy_fresh
from groundplan.gateway.call.ask import fork_ask
from groundplan.gateway.call.attempts import probe_turn
from groundplan.gateway.call.attempts.attempt import Attempt
from groundplan.gateway.call.attempts.begin import begin_attempt
from groundplan.gateway.call.attempts.failure import AttemptFailed
from groundplan.gateway.call.attempts.send_permission import may_send
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.upstream.providers import SERVICE

HEDGE = "hedge"
"""Flag in the settlement of a hedge; an attempt made after both does not carry it."""


async def race(
    gateway: Gateway, first: Attempt, candidates: list[Deployment], rule: Hedge, count_hedge: Callable[[], None]
) -> Attempt:
    """Open `first`, and a hedge at one of `candidates` if it is slow, which calls `count_hedge`; returns the attempt
    that has something for the client, which is the exchange's own from then on.

    Raises `AttemptFailed` when all failed: for the attempt that the exchange then has, which is not settled yet.
    """
    exchange = first.exchange
    hedge_after = None
    ask = exchange.ask
    if candidates and exchange.workload is not None and ask is not None and ask.upload is None:
        stream = ask.stream
        latency = gateway.latencies.of(first.deployment.name, stream)
        hedge_after = gateway.hedges.next_delay(exchange.workload.name, rule, latency)
    if hedge_after is None:
        await first.open()
        return first
    opening = gateway.loop.create_task(first.open())
    running = {opening: first}
    try:
        await _wait_until_slow(gateway, opening, hedge_after)
        second = (
            None
            if opening.done() or first.was_delayed
            else await _begin_hedge_while_waiting(gateway, exchange, candidates, (opening, first))
        )
        if second is not None:
            count_hedge()
            running[gateway.loop.create_task(second.open())] = second
        return await _await_first(gateway, exchange, running, candidates)
    except BaseException:
        await _cancel_all(gateway, exchange, running)
        raise


async def _wait_until_slow(gateway: Gateway, opening: asyncio.Task[None], after: float) -> None:
    """Wait until `opening` is done, or has taken `after` seconds, not counting those in which this worker stalled."""
    since = gateway.loop.time()
    left = after
    while left > 0:
        await asyncio.wait([opening], timeout=left)
        left = 0.0 if opening.done() else gateway.stalls.remaining(since, after)


async def _begin_hedge_while_waiting(
    gateway: Gateway, exchange: Exchange, candidates: list[Deployment], first: tuple[asyncio.Task[None], Attempt]
) -> Attempt | None:
    """As `_begin_hedge`, given up when the first attempt opens: the hedge may wait for a limit, the answer does not."""
    if exchange.limit_use is None:
        return await _begin_hedge(gateway, exchange, candidates, first)
    beginning = gateway.loop.create_task(_begin_hedge(gateway, exchange, candidates, first))
    try:
        await asyncio.wait((first[0], beginning), return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            beginning.cancel()
            await asyncio.wait((beginning,))
    except BaseException:
        beginning.cancel()
        if beginning.done():
            _cancel_unwanted(beginning)
        else:
            beginning.add_done_callback(_cancel_unwanted)
        raise
    return None if beginning.cancelled() else beginning.result()


def _cancel_unwanted(beginning: asyncio.Task[Attempt | None]) -> None:
    """Cancel the hedge that the task began, since the race was given up."""
    if not beginning.cancelled() and beginning.exception() is None and (hedge := beginning.result()) is not None:
        hedge.cancel()


async def _begin_hedge(
    gateway: Gateway, exchange: Exchange, candidates: list[Deployment], first: tuple[asyncio.Task[None], Attempt]
) -> Attempt | None:
    """Begin a hedge, which is journalled; None where no deployment is fit, a budget or limit has no room, both attempts
    together may cost more than a call may, or the first one has opened."""
    deployment = next((d for d in candidates if _is_fit(gateway, exchange, d)), None)
    if deployment is None:
        return None
    fork, hedge = exchange.fork(), None
    fork.ask = None if exchange.ask is None else fork_ask(exchange.ask, exchange.sent_left_out)
    fork.probe_turn = gateway.health.current_probe(deployment.name)
    try:
        hedge = await _reserve_hedge(gateway, exchange, fork, deployment, first)
    finally:
        if hedge is None:
            probe_turn.give_up_turn(gateway, fork)
    if hedge is not None:
        candidates.remove(deployment)
    return hedge


async def _reserve_hedge(
    gateway: Gateway,
    exchange: Exchange,
    fork: Exchange,
    deployment: Deployment,
    first: tuple[asyncio.Task[None], Attempt],
) -> Attempt | None:
    """Reserve and journal a hedge at the deployment for `fork`; None as `_begin_hedge`."""
    if exchange.workload is None or not _can_afford(exchange, deployment, first[1].deployment):
        return None
    # the attempt after it may inherit its reservation, wherever that is
    number, bound, sequence = exchange.attempt_count, max(exchange.bounds.values()), 0
    token = (exchange.id_bytes, number)
    if gateway.slices.reserve(token, exchange.charge_list(bound)) is not None:
        return None
    fork.reservation, fork.reserved_amount, fork.attempt_flags = token, bound, (*exchange.attempt_flags, HEDGE)
    exchange.attempt_count = number + 1
    try:
        if exchange.limit_use is None or await limits.admit_attempt(gateway, fork, deployment, number, is_hedge=True):
            late = first[0].done() or not _may_hedge(gateway, exchange, deployment)
            sequence = 0 if late else begin_attempt(gateway, fork, deployment, inherits=False)
    except Unavailable:
        return None
    finally:
        if not sequence:
            gateway.slices.settle(token, 0)
            if exchange.limit_use is not None:
                limits.release_unsent(gateway, exchange.limit_use, number)
    if not sequence:
        return None
    gateway.hedges.record_sent(exchange.workload.name)
    return Attempt(gateway, fork, deployment, sequence, first[1].deadline)


def _can_afford(exchange: Exchange, deployment: Deployment, open_at: Deployment) -> bool:
    """Whether the call stays within what one call may cost, with an attempt there beside the open one."""
    if exchange.plan is None:
        raise AssertionError("not admitted")
    try:
        check_next_attempt(exchange, exchange.plan, exchange.bounds[deployment.name], exchange.bounds[open_at.name])
    except Denied:
        return False
    return True


def _is_fit(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    return _may_hedge(gateway, exchange, deployment) and gateway.health.may_attempt(
        deployment.name, gateway.loop.time()
    )


def _may_hedge(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    """Whether the deployment has room for a hedge, and live policy allows it."""
    if not gateway.loads.of(deployment).has_room or exchange.plan is None:
        return False
    try:
        return is_policy_fresh(exchange.plan, gateway.live.age()) and may_send(gateway, exchange, deployment)
    except GroundplanError:
        return False  # none of its kind may be sent now, but the first one was sent before


async def _await_first(
    gateway: Gateway, exchange: Exchange, running: dict[asyncio.Task[None], Attempt], candidates: list[Deployment]
) -> Attempt:
    other_status: int | None = None
    while True:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in running if task.done()]:
            attempt = running.pop(task)
            failure = task.exception()
            if isinstance(failure, AttemptFailed) and running:
                _settle_loser(gateway, exchange, attempt, failure)
                other_status = failure.status
                if failure.has_other_key or failure.stale_connection or failure.mismatch == "sealed":
                    # it may be healthy: tried again when the other one fails, too
                    candidates.append(attempt.deployment)
                continue
            if isinstance(failure, GroundplanError) and running:
                _settle_error(gateway, attempt)  # such as a stop while it connected: the other one was sent before
                if attempt.exchange is not exchange:
                    exchange.add_cost(attempt.exchange)
                continue
            if running and attempt.is_refused and attempt.exchange is not exchange:
                # the first deployment may take what this one refuses: a hedge fails no call
                attempt.cancel()
                exchange.add_cost(attempt.exchange)
                candidates.append(attempt.deployment)
                continue
            # the slower one has not failed: should the winner's stream break, it may continue there
            slower = [slow.deployment for other, slow in running.items() if not (slow.is_refused or _has_failed(other))]
            await _adopt_winner(gateway, exchange, attempt, running)
            candidates.extend(slower)
            if isinstance(failure, AttemptFailed):
                failure.other_status = other_status
            if failure is not None:
                raise failure
            return attempt


def _has_failed(opening: asyncio.Task[None]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


async def _adopt_winner(
    gateway: Gateway, exchange: Exchange, attempt: Attempt, running: dict[asyncio.Task[None], Attempt]
) -> None:
    """Make `attempt` the exchange's own, and end the other one, in the fork."""
    fork = attempt.exchange
    if fork is not exchange:
        for slow in running.values():
            _record_outlasted(gateway, slow)
        exchange.swap_attempts(fork)
        attempt.exchange = exchange
        for other in running.values():
            other.exchange = fork
    try:
        await _cancel_all(gateway, exchange, running)
    except BaseException:
        attempt.cancel()
        raise


def _record_outlasted(gateway: Gateway, attempt: Attempt) -> None:
    """Record the time of the slower attempt so far: without the slowest, whose share decides when to hedge, the learned
    times would be too short. Counts of tokens say nothing of answers."""
    ask, now, is_answer = attempt.exchange.ask, gateway.loop.time(), attempt.exchange.interface.is_billed
    is_delayed = attempt.was_delayed or gateway.stalls.stalled_seconds(attempt.started_at)
    if ask is not None and is_answer and not is_delayed:
        times = gateway.latencies.of(attempt.deployment.name, ask.stream)
        times.observe(int((now - attempt.started_at) * 1e6), now)


def _settle_loser(gateway: Gateway, exchange: Exchange, attempt: Attempt, failed: AttemptFailed) -> None:
    """Settle the one of two attempts that failed; the call goes on with the other."""
    own = attempt.exchange
    outcome = "failed" if failed.billed else "not_billed"
    settle.attempt(gateway, own, outcome, failed.status, None, flag=failed.flag)
    if own is not exchange:
        exchange.add_cost(own)
    # a status of a token count says nothing of answers, as in `sequence`
    if failed.blames_deployment and (own.interface.is_billed or not failed.status):
        gateway.health.record_failure(attempt.deployment.name, gateway.loop.time(), failed.retry_after)
    probe_turn.give_up_turn(gateway, own)
    gateway.targets.forget(attempt.deployment.name if not failed.service_unavailable else SERVICE)


def _settle_error(gateway: Gateway, attempt: Attempt) -> None:
    """Settle an attempt that ended with an error of its own."""
    if attempt.exchange.attempt_started:
        settle.attempt(gateway, attempt.exchange, "failed" if attempt.exchange.attempt_sent else "not_billed", 0, None)
    probe_turn.give_up_turn(gateway, attempt.exchange)


async def _cancel_all(gateway: Gateway, exchange: Exchange, running: dict[asyncio.Task[None], Attempt]) -> None:
    """Cancel the running attempts and settle each, however it ends; their cost is added to the call's."""
    for task in running:
        task.cancel()
    try:
        if running:
            await asyncio.wait(running)
    finally:  # also where this is cancelled once more: nothing else settles them
        for task, attempt in running.items():
            failure = None if not task.done() or task.cancelled() else task.exception()
            if isinstance(failure, AttemptFailed):
                _settle_loser(gateway, exchange, attempt, failure)
            elif failure is not None and attempt.exchange.attempt_started:
                _settle_error(gateway, attempt)
            else:
                attempt.cancel()
            if attempt.exchange is not exchange:
                exchange.add_cost(attempt.exchange)
        running.clear()
