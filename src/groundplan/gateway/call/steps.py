"""Runs the six steps of a call in their order: identify, admit, cache, ground, serve, settle, with the checks between
them.

Does not handle the errors of a step or the call's end in the journal: that is the pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from groundplan.blueprint.model import Workload
from groundplan.core.errors import Unavailable
from groundplan.gateway.caching import cache
from groundplan.gateway.caching.idempotency import IDEMPOTENCY_KEY, KeptAnswer
from groundplan.gateway.caching.idempotent_calls import check_replay, claim_idempotency_key, find_replay
from groundplan.gateway.call import admit, limits, settle, stored_answers, trace
from groundplan.gateway.call.ask import Ask, fork_ask
from groundplan.gateway.call.attempts import probe_turn
from groundplan.gateway.call.attempts.attempt import Attempt
from groundplan.gateway.call.attempts.failure import NO_PATH_STATUSES
from groundplan.gateway.call.attempts.reserve import reserve, reserve_locally
from groundplan.gateway.call.attempts.send_permission import wait_for_policy
from groundplan.gateway.call.attempts.sequence import AttemptSequence
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import send_all
from groundplan.gateway.call.estimate import HEADER, estimate, wants_estimate
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.ground import ground
from groundplan.gateway.call.grounding.abstain import answers_not_found, send_not_found
from groundplan.gateway.call.identify import identify, inherit_identity
from groundplan.gateway.call.serve import serve
from groundplan.gateway.experiments.assign import assign
from groundplan.gateway.guard.run import check_input, disable_guard, needs_guard
from groundplan.gateway.offload import READ_BYTES, in_thread
from groundplan.gateway.policy import dated_prices
from groundplan.gateway.policy.catalog import Catalog, Plan, without_prompt
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.routing.cascade import serve_routed
from groundplan.gateway.routing.question_embedding import read_question
from groundplan.gateway.surfaces import answers
from groundplan.gateway.surfaces.chat import storing as chat_storing
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.telemetry import content


async def run_steps(
    gateway: Gateway, exchange: Exchange, identify_caller: Callable[[Exchange, Policy, float], None] = identify
) -> None:
    """Run the six steps, by the newest blueprint where the exchange has none. Raises a `GroundplanError` when the call
    is refused or fails before its first byte."""
    steps, clock, began = exchange.steps, time.perf_counter_ns, exchange.started
    now, headers = gateway.clock.seconds(), exchange.request.headers
    gateway.step_batching.note_begin(began)
    given = exchange.catalog
    exchange.catalog = catalog = given or dated_prices.current_catalog(gateway.live.catalog, now)
    exchange.trace = trace.trace_of(headers)
    identify_caller(exchange, gateway.live.policy, now)
    steps.append(("identify", (clock() - began) // 1000))
    if (
        gateway.pressure.count_call(gateway.running_calls)
        and not exchange.parent_call
        and await _wait_to_begin(gateway, exchange, catalog)
    ):
        now = gateway.clock.seconds()
        exchange.catalog = catalog = given or dated_prices.current_catalog(gateway.live.catalog, now)
        identify_caller(exchange, gateway.live.policy, now)
        steps.append(("identify", (clock() - began) // 1000))
    await gateway.step_batching
    exchange.interface.check_content_type(headers.get(b"content-type"))
    if exchange.request.stream is not None:
        await exchange.interface.receive(exchange.request, gateway.scratch)
        steps.append(("receive", (clock() - began) // 1000))
    if len(exchange.request.body) > READ_BYTES:
        since = gateway.loop.time()
        exchange.ask = await in_thread(partial(exchange.interface.read, exchange.request))
        exchange.waited_seconds += gateway.loop.time() - since
    else:
        exchange.ask = gateway.answer_cache.known_requests.read_ask(exchange)
    if HEADER in headers and wants_estimate(headers):
        await _estimate(gateway, exchange, catalog)
        return
    kept = await find_replay(gateway, exchange) if IDEMPOTENCY_KEY in headers else None
    steps.append(("cache", (clock() - began) // 1000))
    if kept is not None:
        await _replay(gateway, exchange, catalog, kept)
        return
    await gateway.step_batching
    await admit_call(gateway, exchange, catalog, gateway.clock.seconds())
    if exchange.finished:
        return
    admitted_us = (clock() - began) // 1000
    steps.append(("admit", admitted_us))
    if exchange.workload is not None and exchange.workload.grounding is not None:
        await _ground(gateway, exchange)
        admitted_us = (clock() - began) // 1000
    steps.append(("ground", admitted_us))
    if exchange.idempotency is not None and await _answered_by_other_worker(gateway, exchange, catalog):
        return
    if not _try_answer_locally(gateway, exchange):
        serve_call = serve if exchange.route is None else serve_routed
        await (serve_call if exchange.interface.is_billed else _count_tokens)(gateway, exchange)


async def run_subcall_steps(gateway: Gateway, exchange: Exchange) -> None:
    """Run the steps of a sub-call, which has key, person and blueprint of the call that it is a part of. Guardrails do
    not apply to it."""
    disable_guard(gateway, exchange)
    await run_steps(gateway, exchange, inherit_identity)


async def _estimate(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> None:
    try:
        policy = _check(gateway, exchange, catalog, gateway.clock.seconds())
        if exchange.interface.can_store_answers or (exchange.ask is not None and exchange.ask.files):
            await _complete_request(gateway, exchange)
        if exchange.plan is None:
            raise AssertionError("not checked")
        data = estimate(gateway, exchange, exchange.plan, policy)
    finally:
        exchange.endpoint += ".estimate"  # an estimate is no call, even one that is refused
    exchange.steps.append(("estimate", (time.perf_counter_ns() - exchange.started) // 1000))
    settle.finish(gateway, exchange, "ok", 200)
    exchange.response.send(200, data, answers.headers(exchange, cost=True))


def _try_answer_locally(gateway: Gateway, exchange: Exchange) -> bool:
    """Answer a call that needs no deployment; returns whether that was done."""
    ask = exchange.ask
    if exchange.grounding_notes is not None and answers_not_found(exchange):
        send_not_found(gateway, exchange)
    elif (
        ask is not None
        and not exchange.interface.is_billed
        and (data := exchange.interface.local_answer(ask, exchange.deployments))
    ):
        _answer_locally(gateway, exchange, data)
    else:
        return False
    return True


class _TokenCountAttempts(AttemptSequence):
    """The attempts of a call that counts tokens: another path of the deployment, whose limits and times say nothing of
    its answers, neither bad nor good."""

    def record_latency(self, attempt: Attempt) -> None:
        attempt.first_us = 0

    def record_success(self, attempt: Attempt) -> None:  # noqa: ARG002 -- the signature of its base
        """Give the probe turn back: a count says nothing of the deployment's answers."""
        probe_turn.give_up_turn(self._gateway, self._exchange)


async def _count_tokens(gateway: Gateway, exchange: Exchange) -> None:
    """Count tokens by asking a deployment; where it has no path for that, as many have not, estimate them here."""
    if exchange.workload is None:
        raise AssertionError("not admitted")
    attempts = _TokenCountAttempts(gateway, exchange, exchange.workload)
    try:
        await serve(gateway, exchange, attempts)
    except Unavailable:
        deployment = exchange.deployment
        if exchange.ask is None or deployment is None or attempts.status not in NO_PATH_STATUSES:
            raise
        data = exchange.interface.estimated_count(exchange.ask, deployment)
        exchange.deployment = None
        _answer_locally(gateway, exchange, data)


def _answer_locally(gateway: Gateway, exchange: Exchange, data: bytes) -> None:
    exchange.estimated = True
    settle.finish(gateway, exchange, "ok", 200)
    data = exchange.interface.with_facts(data, answers.facts(exchange, settle.remaining_budget(gateway, exchange)))
    exchange.response.send(200, data, answers.headers(exchange, cost=True))


def shed_load(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> None:
    """Refuse a call of low priority before any work is done for it, as the worker is full. Raises `Unavailable`."""
    plan = catalog.plans.get(exchange.key.workload) if exchange.key is not None else None
    if plan is not None:
        gateway.pressure.check(plan.workload.reliability.priority, gateway.running_calls)


async def _wait_to_begin(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> bool:
    """As `Pressure.wait_to_begin`; before any work is done for the call, and within its deadline."""
    plan = catalog.plans.get(exchange.key.workload) if exchange.key is not None else None
    if plan is None:
        return False
    workload, began = plan.workload, gateway.loop.time()
    waited = await gateway.pressure.wait_to_begin(
        workload.reliability.priority, gateway.running_calls, workload.deadline_ms / 1000
    )
    if waited:
        exchange.waited_seconds += gateway.loop.time() - began
    return waited


async def admit_call(gateway: Gateway, exchange: Exchange, catalog: Catalog, now: float) -> None:
    """Run every check, then reserve; check again where live policy changed while a budget was waited for. `now`:
    seconds since the epoch.

    A call whose answer is cached is finished on return, and holds nothing.
    """
    try:
        policy = _check(gateway, exchange, catalog, now)
    except Unavailable:
        policy = await _check_again(gateway, exchange, catalog)
        now = gateway.clock.seconds()
    plan, ask = exchange.plan, exchange.ask
    if plan is None or ask is None or exchange.key is None:
        raise AssertionError("not checked")
    guarded = exchange.guard is None and needs_guard(exchange, plan, policy)
    if guarded or exchange.interface.can_store_answers or ask.files:
        began = gateway.loop.time()
        await _complete_request(gateway, exchange, guarded=guarded)
        await _check_completed(gateway, exchange, plan, policy)
        exchange.waited_seconds += gateway.loop.time() - began
        now, ask = gateway.clock.seconds(), exchange.ask or ask
        if exchange.interface.can_store_answers and stored_answers.in_background(exchange):
            await _accept_background(gateway, exchange, plan, ask, policy, now)
            return
    if plan.workload.routing is not None:
        await read_question(gateway, exchange, plan.workload, ask)
        now = gateway.clock.seconds()
    ask = _choose_deployments(gateway, exchange, plan, ask, policy, now)
    if (plan.workload.cache is not None and exchange.guard is None) or cache.DIRECTIVES in exchange.request.headers:
        if await cache.answer_from_cache(gateway, exchange, partial(_recheck, gateway, exchange, catalog)):
            return
        now = gateway.clock.seconds()
    policy = exchange.policy or policy
    amount = admit.set_bounds(exchange, plan, ask, exchange.deployments)
    admit.check_cost(exchange, plan, amount)
    book = catalog.limits
    if book is not None and not limits.admit_call_locally(gateway, exchange, book, amount, now):
        now = await limits.admit_call(gateway, exchange, book, amount, now)
    exchange.charges = admit.covering_budgets(exchange, plan, now)
    if not reserve_locally(gateway, exchange, 0, amount):
        began = gateway.loop.time()
        await reserve(gateway, exchange, 0, amount)
        exchange.waited_seconds += gateway.loop.time() - began
    _record_admitted(gateway, exchange, plan.workload)
    await gateway.step_batching
    _check_newest(gateway, exchange, catalog, policy)


async def _accept_background(
    gateway: Gateway, exchange: Exchange, plan: Plan, ask: Ask, policy: Policy, now: float
) -> None:
    """Accept a call that is made in the background: nothing is reserved before it is made, but one that could never be
    made is refused at once."""
    ask = _choose_deployments(gateway, exchange, plan, ask, policy, now)
    admit.check_cost(exchange, plan, admit.set_bounds(exchange, plan, ask, exchange.deployments))
    exchange.route = exchange.trial = None  # no deployment is asked yet
    if gateway.background_responses is None:
        raise Unavailable("nothing is made in the background here", code="background_unavailable", hint="Wait for it.")
    await gateway.background_responses.accept(exchange)


def _record_admitted(gateway: Gateway, exchange: Exchange, workload: Workload) -> None:
    """Count an admitted call for its person, and start recording its content where that is kept or compared."""
    if exchange.body_digest and exchange.ask is not None:  # equal requests may share it, and its answer is noted in it
        exchange.ask = fork_ask(exchange.ask)
    if exchange.person:
        gateway.live.record_person(workload.name, exchange.person)
    if workload.keep is not None:
        content.start_collecting(exchange, workload)
    if exchange.trial is not None and exchange.sent_chunks is None and exchange.trial.shadowed:
        exchange.sent_chunks = []


async def _complete_request(gateway: Gateway, exchange: Exchange, *, guarded: bool = False) -> None:
    """Check the request where it is `guarded`, and put in what it only names: an earlier response, files."""
    if guarded and exchange.plan is not None:
        await check_input(gateway, exchange, exchange.plan)
    if exchange.interface.can_store_answers:
        await stored_answers.prepare(gateway, exchange)
    if exchange.ask is None or not exchange.ask.files:
        return
    if gateway.files is None:
        raise Unavailable("files are not kept here", code="files_unavailable", hint="Send the content itself.")
    await gateway.files.put_in(exchange)


async def _check_completed(gateway: Gateway, exchange: Exchange, plan: Plan, policy: Policy) -> None:
    """Check a completed request that has to be guarded only since what was put in offers functions."""
    if exchange.guard is None and needs_guard(exchange, plan, policy):
        await check_input(gateway, exchange, plan)


def _choose_deployments(gateway: Gateway, exchange: Exchange, plan: Plan, ask: Ask, policy: Policy, now: float) -> Ask:
    """Set the deployments that this call may use, in the order in which they are tried; returns the request for
    them."""
    if plan.workload.keep is not None and exchange.interface is CHAT:
        ask = chat_storing.prepare(exchange, ask)
    exchange.deployments = admit.choose_deployments(exchange, plan, ask, policy, now)
    if plan.workload.routing is not None:
        gateway.routes.arrange(exchange, plan.workload, ask, gateway.latencies, gateway.loop.time())
    if policy.experiments is not None:
        assign(exchange, plan.workload, ask, policy.experiments, now)
    return ask


async def _ground(gateway: Gateway, exchange: Exchange) -> None:
    """Run step 4; the passages found may change which deployment is tried first."""
    searched, plan, ask = await ground(gateway, exchange), exchange.plan, exchange.ask
    if not searched or exchange.route is None or plan is None or ask is None:
        return
    named = plan.allowed(ask.model, exchange.interface.deployment_kind)
    gateway.routes.reorder_by_passages(exchange, plan.workload, ask, named, gateway.latencies, gateway.loop.time())


async def _check_again(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> Policy:
    """Run the checks under the policy that the next heartbeat confirms, where a connected worker had only stalled, or a
    clock was set. Raises as they do."""
    if exchange.plan is not None and gateway.live.is_following:
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
        (inherit_identity if exchange.parent_call else identify)(exchange, gateway.live.policy, now)


def _check_newest(gateway: Gateway, exchange: Exchange, catalog: Catalog, policy: Policy) -> None:
    """Run every check again where `policy` is not the newest any more."""
    if gateway.live.policy is not policy:
        _recheck(gateway, exchange, catalog)


def _recheck(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> None:
    """Run every check again under the newest policy."""
    now = gateway.clock.seconds()
    _identify_again(gateway, exchange, now)
    policy = _check(gateway, exchange, catalog, now)
    if exchange.plan is None or exchange.ask is None:
        raise AssertionError("not checked")
    _choose_deployments(gateway, exchange, exchange.plan, exchange.ask, policy, now)
    exchange.deployments = admit.with_bounds(exchange, exchange.deployments)


def _check(gateway: Gateway, exchange: Exchange, catalog: Catalog, now: float, *, used: bool = True) -> Policy:
    """Run every check that does not depend on the request, at `now` (seconds since the epoch). `used`: also check the
    limit of people of an experiment or a pilot."""
    key, policy = exchange.key, exchange.policy
    if key is None or policy is None:
        raise AssertionError("not identified")
    plan = catalog.plans.get(key.workload)
    if plan is None:
        raise admit.workload_unknown(key.workload)
    if exchange.is_judge_call:
        plan = without_prompt(plan)
    exchange.plan, exchange.workload = plan, plan.workload
    admit.check_use(catalog, policy, key, plan, gateway.live.age(now), now)
    if used and plan.workload.people is not None:
        check_people(gateway, exchange)
    return policy


def check_people(gateway: Gateway, exchange: Exchange) -> None:
    """Refuse a new person where an experiment or a pilot has reached its limit of people. Those who are counted already
    may go on even above the limit, which a lowered limit or two people at the same moment can exceed. Raises
    `Exhausted`."""
    workload = exchange.workload
    if workload is None or workload.people is None:
        return
    people, person = gateway.live.people(workload.name), exchange.person
    if person and person not in people and len(people) >= workload.people:
        raise admit.people_limit_reached(workload, workload.people)


async def _answered_by_other_worker(gateway: Gateway, exchange: Exchange, catalog: Catalog) -> bool:
    """Replay the answer that another worker gave for the Idempotency-Key of this call; returns whether there was one.
    Checks the call again where live policy changed meanwhile."""
    kept = await claim_idempotency_key(gateway, exchange)
    exchange.steps.append(("cache", (time.perf_counter_ns() - exchange.started) // 1000))
    if kept is not None:
        exchange.route = exchange.trial = None  # no deployment is asked
        await _replay(gateway, exchange, catalog, kept)
        return True
    if gateway.live.policy is not exchange.policy:
        _recheck(gateway, exchange, catalog)
    return False


async def _replay(gateway: Gateway, exchange: Exchange, catalog: Catalog, kept: KeptAnswer) -> None:
    """Replay an answer, which takes nothing from any quota. Raises as a call's checks do, under the newest policy, and
    `Unavailable` where the journal cannot take it."""
    now = gateway.clock.seconds()
    identify(exchange, gateway.live.policy, now)
    _check(gateway, exchange, catalog, now, used=False)
    await check_replay(gateway, exchange, kept)
    if exchange.plan is None:
        raise AssertionError("not checked")
    exchange.charges = admit.covering_budgets(exchange, exchange.plan, now)
    settle.remaining_budget(gateway, exchange)
    settle.finish_or_raise(gateway, exchange, "ok", kept.status)
    _, left = answers.split_replayed_headers(answers.headers(exchange, cost=False))
    lines = kept.headers + left + b"groundplan-replay: true\r\n"
    if exchange.sent_chunks is None:  # the body is not needed while a slow client takes the answer
        exchange.response.resize_reservation(exchange.request, 0)
        exchange.request.body, exchange.ask = b"", None
    await send_all(gateway, exchange, kept.status, kept.body, lines, kept.content_type)
