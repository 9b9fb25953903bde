"""The six steps of a call in their order: identify, admit, cache, ground, serve, settle, with all that is asked between
them.

What becomes of a call that a step refuses, and of its place in the journal, is the pipeline's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from groundplan.blueprint.model import Workload
from groundplan.core.errors import Unavailable
from groundplan.gateway.caching import cache
from groundplan.gateway.caching.idempotency import NAMED, Kept
from groundplan.gateway.call import admit, limits, settle, stored_answers, trace
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.attempts import probe_turn
from groundplan.gateway.call.attempts.attempt import Attempt
from groundplan.gateway.call.attempts.failure import NO_PATH_STATUSES
from groundplan.gateway.call.attempts.reserve import reserve, reserve_locally
from groundplan.gateway.call.attempts.send_permission import wait_for_policy
from groundplan.gateway.call.attempts.sequence import AttemptSequence
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import send_all
from groundplan.gateway.call.estimate import HEADER, estimate, is_asked
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.ground import ground
from groundplan.gateway.call.grounding.abstain import nothing_to_say, say_so
from groundplan.gateway.call.identify import identify, inherit
from groundplan.gateway.call.serve import serve
from groundplan.gateway.experiments.assign import assign
from groundplan.gateway.guard.run import guards, look_in, unguarded
from groundplan.gateway.offload import READ_BYTES, in_thread
from groundplan.gateway.policy import dated_prices
from groundplan.gateway.policy.catalog import Catalog, Plan, bare
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.routing.cascade import served
from groundplan.gateway.routing.question_embedding import read_question
from groundplan.gateway.surfaces import answers
from groundplan.gateway.surfaces.chat import storing as chat_storing
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.telemetry import content


async def run(
    gateway: Gateway, exchange: Exchange, whose: Callable[[Exchange, Policy, float], None] = identify
) -> None:
    """The six steps, by the newest blueprint where the exchange has none. Raises a `GroundplanError` when the call is
    refused or fails before its first byte."""
    steps, clock, began = exchange.steps, time.perf_counter_ns, exchange.started
    now, headers = gateway.clock.seconds(), exchange.request.headers
    gateway.step_batching.begun(began)
    exchange.catalog = catalog = exchange.catalog or dated_prices.newest(gateway.live.catalog, now)
    exchange.trace = trace.of(headers)
    whose(exchange, gateway.live.policy, now)
    steps.append(("identify", (clock() - began) // 1000))
    if gateway.pressure.is_crowded(gateway.running_calls) and not exchange.parent_call:
        shed(gateway, exchange, catalog)
    await gateway.step_batching
    exchange.interface.check_content_type(headers.get(b"content-type"))
    if exchange.request.stream is not None:
        await exchange.interface.receive(exchange.request)
    if len(exchange.request.body) > READ_BYTES:
        exchange.ask = await in_thread(partial(exchange.interface.read, exchange.request))
    else:
        exchange.ask = gateway.answer_cache.known_requests.read(exchange)
    if HEADER in headers and is_asked(headers):
        await _estimate(gateway, exchange, catalog)
        return
    kept = await cache.replay(gateway, exchange) if NAMED in headers else None
    steps.append(("cache", (clock() - began) // 1000))
    if kept is not None:
        await _replay(gateway, exchange, catalog, kept)
        return
    await gateway.step_batching
    await admit_call(gateway, exchange, catalog, gateway.clock.seconds())
    if exchange.finished:
        return
    done = (clock() - began) // 1000
    steps.append(("admit", done))
    if exchange.workload is not None and exchange.workload.grounding is not None:
        await _ground(gateway, exchange)
        done = (clock() - began) // 1000
    steps.append(("ground", done))
    if exchange.idempotency is not None and await _elsewhere(gateway, exchange, catalog):
        return
    if not _answered_here(gateway, exchange):
        way = serve if exchange.route is None else served
        await (way if exchange.interface.is_billed else _count)(gateway, exchange)


async def run_within(gateway: Gateway, exchange: Exchange) -> None:
    """The same, for a call that the gateway makes itself within another one, whose key, person and blueprint it has.
    Nothing of it is checked or held."""
    unguarded(gateway, exchange)
    await run(gateway, exchange, inherit)


async def _estimate(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> None:
    try:
        policy = _check(gateway, exchange, catalog, gateway.clock.seconds())
        if exchange.interface.can_store_answers or (exchange.ask is not None and exchange.ask.files):
            await _complete(gateway, exchange)
        if exchange.plan is None:
            raise AssertionError("not checked")
        data = estimate(gateway, exchange, exchange.plan, policy)
    finally:
        exchange.endpoint += ".estimate"  # it is no call, also where it is refused
    exchange.steps.append(("estimate", (time.perf_counter_ns() - exchange.started) // 1000))
    settle.finish(gateway, exchange, "ok", 200)
    exchange.response.send(200, data, answers.headers(exchange, cost=True))


def _answered_here(gateway: Gateway, exchange: Exchange) -> bool:
    """Whether it is answered by now, since no deployment has to be asked."""
    ask = exchange.ask
    if exchange.grounding_notes is not None and nothing_to_say(exchange):
        say_so(gateway, exchange)
    elif (
        ask is not None
        and not exchange.interface.is_billed
        and (data := exchange.interface.local_answer(ask, exchange.deployments))
    ):
        _answer_here(gateway, exchange, data)
    else:
        return False
    return True


class _Counting(AttemptSequence):
    """Of a call that asks another path of a deployment, with limits and times of its own, than its answers come from:
    it says nothing of those, neither bad nor good."""

    def record_latency(self, attempt: Attempt) -> None:
        attempt.first_us = 0

    def record_success(self, attempt: Attempt) -> None:  # noqa: ARG002 -- as that of a `AttemptSequence`
        """Nothing is known of its answers by that."""
        probe_turn.give_up_turn(self._gateway, self._exchange)


async def _count(gateway: Gateway, exchange: Exchange) -> None:
    """Ask a deployment that counts tokens itself. Many that speak an API have no path for that: then they are estimated
    here, as for those that do not speak it."""
    if exchange.workload is None:
        raise AssertionError("not admitted")
    attempts = _Counting(gateway, exchange, exchange.workload)
    try:
        await serve(gateway, exchange, attempts)
    except Unavailable:
        last = exchange.deployment
        if exchange.ask is None or last is None or attempts.status not in NO_PATH_STATUSES:
            raise
        data = exchange.interface.estimated_count(exchange.ask, last)
        exchange.deployment = None
        _answer_here(gateway, exchange, data)


def _answer_here(gateway: Gateway, exchange: Exchange, data: bytes) -> None:
    exchange.estimated = True
    settle.finish(gateway, exchange, "ok", 200)
    data = exchange.interface.with_facts(data, answers.facts(exchange, settle.remaining(gateway, exchange)))
    exchange.response.send(200, data, answers.headers(exchange, cost=True))


def shed(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> None:
    """The worker is full: refuse what matters less, before anything is done for it. Raises `Unavailable`."""
    plan = catalog.plans.get(exchange.key.workload) if exchange.key is not None else None
    if plan is not None:
        gateway.pressure.check(plan.workload.reliability.priority, gateway.running_calls)


async def admit_call(gateway: Gateway, exchange: Exchange, catalog: Catalog, now: float) -> None:
    """Every check, then the reservation; checked again where live policy changed while a budget was waited for. `now`:
    seconds since the epoch.

    A call whose answer is cached is finished then, and holds nothing.
    """
    try:
        policy = _check(gateway, exchange, catalog, now)
    except Unavailable:
        policy = await _check_again(gateway, exchange, catalog)
        now = gateway.clock.seconds()
    plan, ask = exchange.plan, exchange.ask
    if plan is None or ask is None or exchange.key is None:
        raise AssertionError("not checked")
    guarded = exchange.guard is None and guards(exchange, plan, policy)
    if guarded or exchange.interface.can_store_answers or ask.files:
        began = gateway.loop.time()
        await _complete(gateway, exchange, guarded=guarded)
        exchange.waited_seconds += gateway.loop.time() - began
        now, ask = gateway.clock.seconds(), exchange.ask or ask
        if exchange.interface.can_store_answers and stored_answers.in_background(exchange):
            await _leave_it(gateway, exchange, plan, ask, policy, now)
            return
    if plan.workload.routing is not None:
        await read_question(gateway, exchange, plan.workload, ask)
        now = gateway.clock.seconds()
    ask = _choose(gateway, exchange, plan, ask, policy, now)
    if (plan.workload.cache is not None and exchange.guard is None) or cache.DIRECTIVES in exchange.request.headers:
        if await cache.answered(gateway, exchange, partial(_recheck, gateway, exchange, catalog)):
            return
        now = gateway.clock.seconds()
    policy = exchange.policy or policy
    amount = admit.set_bounds(exchange, plan, ask, exchange.deployments)
    admit.check_cost(exchange, plan, amount)
    book = catalog.limits
    if book is not None and not limits.call_at_hand(gateway, exchange, book, amount, now):
        now = await limits.admit_call(gateway, exchange, book, amount, now)
    exchange.charges = admit.covering(exchange, plan, now)
    if not reserve_locally(gateway, exchange, 0, amount):
        began = gateway.loop.time()
        await reserve(gateway, exchange, 0, amount)
        exchange.waited_seconds += gateway.loop.time() - began
    _remember(gateway, exchange, plan.workload)
    await gateway.step_batching
    _check_newest(gateway, exchange, catalog, policy)


async def _leave_it(gateway: Gateway, exchange: Exchange, plan: Plan, ask: Ask, policy: Policy, now: float) -> None:
    """Its caller does not wait for it: nothing is reserved before it is made, but what could never be made is refused
    at once."""
    ask = _choose(gateway, exchange, plan, ask, policy, now)
    admit.check_cost(exchange, plan, admit.set_bounds(exchange, plan, ask, exchange.deployments))
    exchange.route = exchange.trial = None  # nobody is asked yet
    if gateway.background_responses is None:
        raise Unavailable("nothing is made in the background here", code="background_unavailable", hint="Wait for it.")
    await gateway.background_responses.accept(exchange)


def _remember(gateway: Gateway, exchange: Exchange, workload: Workload) -> None:
    """What is to be known of an admitted call once it is over."""
    if exchange.person:
        gateway.live.count(workload.name, exchange.person)
    if workload.keep is not None:
        content.begin(exchange, workload)
    if exchange.trial is not None and exchange.sent_chunks is None and exchange.trial.shadowed:
        exchange.sent_chunks = []


async def _complete(gateway: Gateway, exchange: Exchange, *, guarded: bool = False) -> None:
    """Look at what is sent in, where it is `guarded`, and put into a request what it only names: an earlier response,
    files."""
    if guarded and exchange.plan is not None:
        await look_in(gateway, exchange, exchange.plan)
    if exchange.interface.can_store_answers:
        await stored_answers.prepare(gateway, exchange)
    if exchange.ask is None or not exchange.ask.files:
        return
    if gateway.files is None:
        raise Unavailable("files are not kept here", code="files_unavailable", hint="Send the content itself.")
    await gateway.files.put_in(exchange)


def _choose(gateway: Gateway, exchange: Exchange, plan: Plan, ask: Ask, policy: Policy, now: float) -> Ask:
    """The deployments that this call may use, in the order in which they are asked; returns what they are asked."""
    if plan.workload.keep is not None and exchange.interface is CHAT:
        ask = chat_storing.prepare(exchange, ask)
    exchange.deployments = admit.choose(exchange, plan, ask, policy, now)
    if plan.workload.routing is not None:
        gateway.routes.arrange(exchange, plan.workload, ask, gateway.latencies, gateway.loop.time())
    if policy.experiments is not None:
        assign(exchange, plan.workload, ask, policy.experiments, now)
    return ask


async def _ground(gateway: Gateway, exchange: Exchange) -> None:
    """Step 4; what was found may change which deployment is asked first."""
    searched, plan, ask = await ground(gateway, exchange), exchange.plan, exchange.ask
    if not searched or exchange.route is None or plan is None or ask is None:
        return
    named = plan.allowed(ask.model, exchange.interface.deployment_kind)
    gateway.routes.regard(exchange, plan.workload, ask, named, gateway.latencies, gateway.loop.time())


async def _check_again(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> Policy:
    """The checks under the policy that the next heartbeat confirms, where a worker that follows it only stood still, or
    a clock was set. Raises as they do."""
    if exchange.plan is not None and gateway.live.follows:
        began = gateway.loop.time()
        await wait_for_policy(gateway, exchange.plan)
        exchange.waited_seconds += gateway.loop.time() - began
    now = gateway.clock.seconds()
    _identify_again(gateway, exchange, now)
    return _check(gateway, exchange, catalog, now)


def _identify_again(gateway: Gateway, exchange: Exchange, now: float) -> None:
    if exchange.identify_caller is not None:
        exchange.identify_caller(gateway.live.policy, now)
    else:
        (inherit if exchange.parent_call else identify)(exchange, gateway.live.policy, now)


def _check_newest(gateway: Gateway, exchange: Exchange, catalog: Catalog, policy: Policy) -> None:
    """Every check again, where `policy` is the newest no more."""
    if gateway.live.policy is not policy:
        _recheck(gateway, exchange, catalog)


def _recheck(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> None:
    """Every check again, under the newest policy."""
    now = gateway.clock.seconds()
    _identify_again(gateway, exchange, now)
    policy = _check(gateway, exchange, catalog, now)
    if exchange.plan is None or exchange.ask is None:
        raise AssertionError("not checked")
    _choose(gateway, exchange, exchange.plan, exchange.ask, policy, now)
    exchange.deployments = admit.bounded(exchange, exchange.deployments)


def _check(gateway: Gateway, exchange: Exchange, catalog: Catalog, now: float, *, used: bool = True) -> Policy:
    """Every check that looks at no request, at `now` (seconds since the epoch). `used`: how many people an
    experiment or a pilot has counts, too."""
    key, policy = exchange.key, exchange.policy
    if key is None or policy is None:
        raise AssertionError("not identified")
    plan = catalog.plans.get(key.workload)
    if plan is None:
        raise admit.undeclared(key.workload)
    if exchange.is_judge_call:
        plan = bare(plan)
    exchange.plan, exchange.workload = plan, plan.workload
    admit.check_use(catalog, policy, key, plan, gateway.live.age(now), now)
    if used and plan.workload.people is not None:
        check_people(gateway, exchange)
    return policy


def check_people(gateway: Gateway, exchange: Exchange) -> None:
    """Refuse a further person where an experiment or a pilot has as many as it is for; whoever is one of them goes on,
    also where there are more, for which a lower limit or two at the same moment are enough. Raises `Exhausted`."""
    workload = exchange.workload
    if workload is None or workload.people is None:
        return
    people, person = gateway.live.people(workload.name), exchange.person
    if person and person not in people and len(people) >= workload.people:
        raise admit.too_many_people(workload, workload.people)


async def _elsewhere(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> bool:
    """Whether another worker had the Idempotency-Key of a call before, whose answer it has then; checked again where
    live policy changed while that was waited for."""
    kept = await cache.elsewhere(gateway, exchange)
    exchange.steps.append(("cache", (time.perf_counter_ns() - exchange.started) // 1000))
    if kept is not None:
        exchange.route = exchange.trial = None  # nobody is asked
        await _replay(gateway, exchange, catalog, kept)
        return True
    if gateway.live.policy is not exchange.policy:
        _recheck(gateway, exchange, catalog)
    return False


async def _replay(gateway: Gateway, exchange: Exchange, catalog: Catalog, kept: Kept) -> None:
    """Give an answer again, which takes nothing of any quota. Raises as a call's checks do, under the newest policy,
    and `Unavailable` where the journal cannot take it."""
    now = gateway.clock.seconds()
    identify(exchange, gateway.live.policy, now)
    _check(gateway, exchange, catalog, now, used=False)
    await cache.check_replay(gateway, exchange, kept)
    if exchange.plan is None:
        raise AssertionError("not checked")
    exchange.charges = admit.covering(exchange, exchange.plan, now)
    settle.remaining(gateway, exchange)
    settle.record(gateway, exchange, "ok", kept.status)
    _, left = answers.parted(answers.headers(exchange, cost=False))
    lines = kept.headers + left + b"groundplan-replay: true\r\n"
    if exchange.sent_chunks is None:  # then nobody needs its body any more, however slowly the answer is taken
        exchange.response.resize_reservation(exchange.request, 0)
        exchange.request.body, exchange.ask = b"", None
    await send_all(gateway, exchange, kept.status, kept.body, lines, kept.content_type)
