"""Makes one line of a batch as a call like any other: the same checks, budgets, attempts and records.

What differs: the key is known by its id, the money was held when the batch began, a limit of use makes the call wait
instead of refusing it, and the answer is kept. `batch_runner` decides which lines are made when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Budget, Deployment, Reliability, Workload
from groundplan.core.errors import Denied, GroundplanError, Invalid
from groundplan.economics.price import BATCH, BATCHES
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT, Batch
from groundplan.gateway.batches.orders.order_store import NEW, Order
from groundplan.gateway.caching import cache
from groundplan.gateway.call import admit, limits, settle
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.attempts.reserve import reserve, reserve_locally
from groundplan.gateway.call.attempts.sequence import AttemptSequence
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.ground import ground, system_messages
from groundplan.gateway.call.grounding.abstain import answers_not_found, send_not_found
from groundplan.gateway.call.identify import check_grants
from groundplan.gateway.call.key_by_id import KeysById
from groundplan.gateway.call.pipeline import Steps
from groundplan.gateway.call.pricing import NAMED_CLASSES
from groundplan.gateway.call.serve import serve
from groundplan.gateway.call.steps import check_people
from groundplan.gateway.call.stored_answers import stores
from groundplan.gateway.call.transient_refusals import give_back, is_transient, may_be_made_later
from groundplan.gateway.guard.run import needs_guard, start_guard
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.offload import CHECKED_BYTES, WorkSteps, run_inline, run_steps
from groundplan.gateway.policy import dated_prices
from groundplan.gateway.policy.catalog import Catalog, Plan
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.surfaces.completions import COMPLETIONS
from groundplan.gateway.surfaces.embeddings import EMBEDDINGS
from groundplan.gateway.surfaces.images import IMAGES
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.messages.surface import MESSAGES, passed_header_lines
from groundplan.gateway.surfaces.moderations import MODERATIONS
from groundplan.gateway.surfaces.responses.request_types import unsupported
from groundplan.gateway.surfaces.responses.surface import RESPONSES, request_state
from groundplan.gateway.telemetry import content

INTERFACES: dict[str, Interface] = {
    "/v1/chat/completions": CHAT,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/moderations": MODERATIONS,
    "/v1/responses": RESPONSES,
    "/v1/completions": COMPLETIONS,
    "/v1/images/generations": IMAGES,
    MESSAGES_ENDPOINT: MESSAGES,
}
_LONGEST_WAIT_S = 5.0


def order_header_lines(batch: Batch) -> bytes:
    """Complete header lines for an order at a provider that speaks the batch's own API."""
    return passed_header_lines(_call_headers(batch)) if batch.endpoint == MESSAGES_ENDPOINT else b""


def _call_headers(batch: Batch) -> dict[bytes, bytes]:
    """The headers of each call of a batch: those of the batch's creation that name the feature, the ticket and the
    version of the API."""
    headers = dict(batch.said)
    if batch.endpoint == MESSAGES_ENDPOINT:
        headers |= batch.metadata or {}
    return {name.encode("latin-1"): value.encode("latin-1") for name, value in headers.items()}


def _attempt_sequence(gateway: Gateway, exchange: Exchange) -> AttemptSequence:
    """The attempts of a call; whenever they are made, they are charged to the budget periods of their batch."""
    if exchange.workload is None:
        raise AssertionError("not admitted")
    attempts = AttemptSequence(gateway, exchange, exchange.workload)
    attempts.keeps_periods = True
    return attempts


async def _ground_and_serve(gateway: Gateway, exchange: Exchange) -> None:
    """Serve the call, grounded anew where its workload has documents: permissions may have changed while it waited."""
    exchange.passages, exchange.grounding_notes = [], None
    await ground(gateway, exchange)
    if answers_not_found(exchange):
        send_not_found(gateway, exchange)
    else:
        await serve(gateway, exchange, _attempt_sequence(gateway, exchange))


class BatchCalls:
    """Checks and makes the lines of all batches in one worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._keys = KeysById()
        self._low_priority_workloads: dict[str, tuple[Workload, Workload]] = {}
        self.end_reasons: dict[UUID, tuple[str, str]] = {}
        """By batch that ends: why its calls are no longer sent, as (code, message)."""
        self.waiting_calls: set[UUID] = set()
        """Calls that wait until they may be sent."""
        self.stopping = False
        """Whether this worker ends: calls stop waiting, and are left to another worker."""
        self.unmade_reasons: dict[UUID, tuple[str, str]] = {}
        """By call that waited in vain: why, as (code, message). Removed by the runner once the result is stored."""

    def exchange(self, batch: Batch, call: UUID, body: bytes) -> Exchange:
        """The exchange of a line's call, before any check."""
        request = Request(0.0, b"POST", batch.endpoint.encode("ascii"), _call_headers(batch), body)
        return Exchange(call.bytes, request, CollectedResponse(), INTERFACES[batch.endpoint])

    def assess(self, exchange: Exchange, batch: Batch, *, call: bool = False) -> int:
        """Run every check that does not depend on the time, and return the most that the call can cost (picodollars):
        at batch prices where `provider_deployment` lets it go into an order; otherwise, and always with `call`, as a
        call. Raises as admission does."""
        return run_inline(self._assess_steps(exchange, batch, call=call))

    async def assess_off_loop(self, exchange: Exchange, batch: Batch, *, call: bool = False) -> int:
        """As `assess`, but a long line is read off the event loop."""
        long = len(exchange.request.body) > CHECKED_BYTES
        return await run_steps(self._assess_steps(exchange, batch, call=call), offload=long)

    def _assess_steps(self, exchange: Exchange, batch: Batch, *, call: bool) -> WorkSteps[int]:
        gateway = self._gateway
        policy, now = gateway.live.policy, gateway.clock.seconds()
        catalog = dated_prices.current_catalog(gateway.live.catalog, now)
        exchange.catalog, exchange.policy, exchange.person = catalog, policy, batch.person
        exchange.key = key = self._keys.living(policy, batch.key, batch.person, now)
        exchange.plan = plan = self._usable_plan(batch, key, catalog, policy, now)
        if call:  # it may have waited since an earlier blueprint, and reserves under the number of this one
            exchange.charges = self.budgets(batch, catalog)
        exchange.workload = self._with_low_priority(plan.workload)
        ask: Ask = yield partial(exchange.interface.read, exchange.request)
        if ask.stream:
            raise Invalid("a call in a batch is not streamed", code="field_unsupported", hint="Leave stream out.")
        if ask.files:
            hint = "Send its content: a batch outlives the file."
            raise Invalid("a call in a batch names a file by its id", code="field_unsupported", hint=hint)
        if exchange.interface is RESPONSES and request_state(ask).background:
            raise unsupported("background", "Leave background out: nobody waits for a batch's lines anyhow.")
        if exchange.interface is RESPONSES and request_state(ask).previous_id is not None:
            hint = "Send the earlier items in input."
            raise Invalid("a call in a batch goes on with no response", code="field_unsupported", hint=hint)
        exchange.ask = ask
        if needs_guard(exchange, plan, policy):
            yield from self._guard(exchange, plan, call=call)
            ask = exchange.ask  # as the guardrails leave it
        asked, own = ask.service, ask.service in NAMED_CLASSES
        if not own:
            exchange.ask = ask = replace(ask, service=BATCH, needs=ask.needs | {BATCH})
        exchange.deployments = admit.choose_deployments(exchange, plan, ask, policy, now)
        if not own and (call or self.provider_deployment(exchange) is None):
            exchange.ask = ask = replace(ask, service=asked, is_batch_line=True)
        amount = admit.set_bounds(exchange, plan, ask, exchange.deployments)
        admit.check_cost(exchange, plan, amount)
        return amount

    def _guard(self, exchange: Exchange, plan: Plan, *, call: bool) -> WorkSteps[None]:
        """Run the guardrails. Before the batch has begun only a denial is counted: whatever passes is checked again,
        and counted then, when the call is made."""
        try:
            yield from start_guard(self._gateway, exchange, plan, records_passes=call)
        except Denied:
            if exchange.guard is not None:
                exchange.guard.records_findings = True
                exchange.guard.record_findings(exchange)
            raise

    def _usable_plan(self, batch: Batch, key: KeyEntry, catalog: Catalog, policy: Policy, now: float) -> Plan:
        """The plan of the batch's workload, if its key may use it. Raises as admission does."""
        plan = catalog.plans.get(batch.workload)
        if plan is None:
            raise admit.workload_unknown(batch.workload)
        admit.check_use(catalog, policy, key, plan, self._gateway.live.age(), now)
        if catalog.granted_workloads:
            check_grants(catalog, policy, key, batch.person, self._gateway.clock.now().date())
        return plan

    def check(self, batch: Batch, order: Order) -> None:
        """Check that a batch may still use its key, its workload and the deployment of an order, whatever its calls
        ask. The company's present rules are applied to the time of the order. Raises as admission does."""
        deployment = order.deployment
        policy, now = self._gateway.live.policy, self._gateway.clock.seconds()
        catalog = dated_prices.current_catalog(self._gateway.live.catalog, now)
        key = self._keys.living(policy, batch.key, batch.person, now)
        plan = self._usable_plan(batch, key, catalog, policy, now)
        if not admit.without_killed(policy, [deployment]):
            hint = "Lift the kill switch, and order the batch again."
            raise Denied(f"the deployment {deployment.name} is stopped", code="killed", hint=hint)
        if catalog.approved is not None:
            catalog.approved.usable(policy, batch.workload, [deployment], now)
        if catalog.number < order.blueprint:
            return  # this worker has not received the order's blueprint yet
        interface, begun_at = INTERFACES[batch.endpoint], order.created_at.timestamp()
        allowed = [d for d in plan.allowed("auto", interface.deployment_kind) if d.name == deployment.name]
        allowed = [
            d for d in allowed if d.site == deployment.site and (not key.models or admit.allowed_by_key(key, [d]))
        ]
        if not allowed:
            hint = "Order the batch again: what may make its calls has changed."
            message = f"{batch.workload} may not use the deployment {deployment.name} any more"
            raise Denied(message, code="batch_place_changed", hint=hint)
        if order.state == NEW and (plan.guard is not None or plan.workload.review is not None):
            hint = "Order the batch again: its calls are then made one by one, with what checks them."
            message = f"{batch.workload} has guardrails or a review that it did not have when this order was written"
            raise Denied(message, code="batch_place_changed", hint=hint)
        if catalog.gate is not None:
            catalog.gate.allowed(policy, batch.workload, key, batch.person, interface.name, allowed, begun_at)

    def provider_deployment(self, exchange: Exchange) -> Deployment | None:
        """The deployment at whose own batch endpoint a checked call may be ordered; None: it is made as a call.

        It is made as a call where it needs something that only the gateway does: guardrails, reviews, passages, limits
        of use, images, stored answers, conversion to another API; and where it makes images, which have no batch price.
        """
        first, ask, workload = exchange.deployments[0], exchange.ask, exchange.workload
        if (
            BATCHES not in first.serves
            or ask is None
            or ask.is_batch_line
            or workload is None
            or exchange.interface is IMAGES
        ):
            return None
        own = b"/v1" + exchange.interface.codec(first).path(first) == exchange.request.target
        if not own or stores(exchange):
            return None
        if exchange.guard is not None or ask.needs != {BATCH} or ask.images or self._is_limited(exchange, first):
            return None
        grounded = workload.grounding is not None and exchange.interface.grounded
        return None if grounded or workload.people is not None else first

    def _is_limited(self, exchange: Exchange, deployment: Deployment) -> bool:
        """Whether a limit of use covers the call, its deployment, or the upstream key that an order would use."""
        catalog, key, workload, policy = exchange.catalog, exchange.key, exchange.workload, exchange.policy
        if catalog is None or catalog.limits is None or key is None or workload is None or policy is None:
            return False
        book = catalog.limits
        callers = book.caller_quotas(workload, key.family or key.id, exchange.person, policy.people, key.line).quotas
        return bool(
            callers
            or book.deployment_quotas(deployment)
            or (deployment.keys and book.provider_key_quotas(deployment, 0))
        )

    def forwarded_body(self, batch: Batch, deployment: Deployment, call: UUID, body: bytes, most: int) -> bytes:
        """Check a call of an order again, and return its body in the format of `deployment`. `most`: what is held for
        it (picodollars).

        Raises what admission raises, and `Denied` where it may no longer be ordered there.
        """
        exchange = self.exchange(batch, call, body)
        self.assess(exchange, batch)
        place, ask, workload = self.provider_deployment(exchange), exchange.ask, exchange.workload
        if place is None or place.name != deployment.name or ask is None or workload is None:
            hint = "Order the batch again: what may make this call has changed."
            raise Denied("the call may not be ordered there any more", code="batch_place_changed", hint=hint)
        cap = admit.output_cap(exchange, deployment)
        if exchange.interface.cost_bound(ask, deployment, admit.added_bytes(exchange, workload), cap) > most:
            hint = "Order the batch again."
            raise Denied("what the call may cost has risen since", code="batch_bound_changed", hint=hint)
        system = system_messages(workload, []) if exchange.interface.grounded else []
        return exchange.interface.codec(deployment).request_body(ask, deployment, cap, system)

    def known_key(self, batch: Batch) -> KeyEntry | None:
        """The batch's key in live policy; None: it is not known there."""
        return self._keys.known(self._gateway.live.policy, batch.key)

    def line_steps(self, batch: Batch, body: Callable[[], Awaitable[bytes]]) -> Steps:
        """The steps that make a claimed line, for the pipeline; the exchange already holds the line's reservation.
        `body` reads the line's body."""

        async def make_call(gateway: Gateway, exchange: Exchange) -> None:
            data, counted = await body(), False
            while True:
                amount = await self._admit(exchange, batch, data)
                if exchange.finished:
                    return
                exchange.waited_seconds = 0.0  # no client waits: the deadline begins when the call is sent
                attempts_before = exchange.attempt_count
                try:
                    await self._reserve(exchange, amount)
                    if not counted:
                        counted = True
                        self._count_use(exchange)
                    await _ground_and_serve(gateway, exchange)
                except GroundplanError as error:
                    if not may_be_made_later(gateway, exchange, error, attempts_before):
                        raise
                    await self._wait_for_retry(exchange, batch, error)
                else:
                    return

        async def make_or_leave(gateway: Gateway, exchange: Exchange) -> None:
            try:
                await make_call(gateway, exchange)
            except asyncio.CancelledError:
                settle.finish_stopped(gateway, exchange)
                raise

        return make_or_leave

    async def _reserve(self, exchange: Exchange, amount: int) -> None:
        """Reserve money for the next attempt where the line's reservation is gone or too small."""
        if not exchange.charges:
            raise Denied("the batch has no budget", code="budget_missing", hint="Nothing runs without a budget.")
        if amount > exchange.reserved_amount:
            settle.release_reservation(self._gateway, exchange)
        if exchange.reservation is None:
            await reserve(self._gateway, exchange, exchange.attempt_count, amount, keeps_periods=True)

    async def _wait_for_retry(self, exchange: Exchange, batch: Batch, error: GroundplanError) -> None:
        """Wait as long as the refusal `error` asks. Raises `Denied` if the batch ends before or after."""
        self._give_back(exchange)
        self._check_ending(exchange, batch)
        if exchange.flight is not None:
            cache.finish_flight(self._gateway, exchange)  # identical requests do not wait for this call
        self.waiting_calls.add(exchange.call)
        try:
            await asyncio.sleep(min(error.retry_after or 1.0, _LONGEST_WAIT_S))
        finally:
            self.waiting_calls.discard(exchange.call)
        self._check_ending(exchange, batch)

    def _give_back(self, exchange: Exchange) -> None:
        """Release everything that a waiting call holds, but reserve its money again before any other call can."""
        finished = exchange.finished
        give_back(self._gateway, exchange)
        if not finished and exchange.reservation is None and exchange.reserved_amount:
            reserve_locally(self._gateway, exchange, exchange.attempt_count, exchange.reserved_amount)

    async def _admit(self, exchange: Exchange, batch: Batch, data: bytes) -> int:
        """Admit the call and return the most that it can cost, waiting for limits of use and for an overloaded worker
        until the batch expires. A call whose answer is cached is finished on return. `data`: the original body;
        each try starts from it, since guardrails know only within one pass what they mask."""
        gateway = self._gateway

        def recheck() -> None:
            self.assess(exchange, batch, call=True)

        while True:
            exchange.request.body = data
            try:
                amount = await self.assess_off_loop(exchange, batch, call=True)
                gateway.pressure.check("low", gateway.running_calls, counts=False)
                check_people(gateway, exchange)
                if exchange.guard is not None:
                    await exchange.guard.check_personal_input(exchange)
                if self._may_use_cache(exchange) and await cache.answer_from_cache(gateway, exchange, recheck):
                    return 0
                catalog = exchange.catalog
                if catalog is not None and catalog.limits is not None:
                    await limits.admit_call(gateway, exchange, catalog.limits, amount, gateway.clock.seconds())
                return amount
            except GroundplanError as error:
                if not is_transient(error):
                    raise
                await self._wait_for_retry(exchange, batch, error)

    def _check_ending(self, exchange: Exchange, batch: Batch) -> None:
        """Raise `Denied` if the call's batch ends, `CancelledError` if this worker ends."""
        if self.stopping:
            raise asyncio.CancelledError
        reason = self.end_reasons.get(batch.id)
        if reason is not None:
            self.unmade_reasons[exchange.call] = reason
            raise Denied(reason[1], code=reason[0], hint="Order it again.")

    def _may_use_cache(self, exchange: Exchange) -> bool:
        """Whether the call may be answered from the cache. Not while it leads identical requests: it would wait for
        itself."""
        workload = exchange.workload
        return (
            workload is not None and workload.cache is not None and exchange.guard is None and exchange.flight is None
        )

    def _count_use(self, exchange: Exchange) -> None:
        """Count the call in live use, and begin keeping its content where that is declared."""
        gateway, workload = self._gateway, exchange.workload
        if workload is None:
            raise AssertionError("not admitted")
        gateway.live.record_person(workload.name, exchange.person)
        content.start_collecting(exchange, workload)

    def budgets(self, batch: Batch, catalog: Catalog | None) -> list[tuple[Budget, str]]:
        """The (budget, period) pairs that a batch's calls are charged to, as a blueprint declares the budgets.

        A budget that is no longer declared has no limit left: calls can use only what the batch holds of it.
        """
        plan = catalog.plans.get(batch.workload) if catalog is not None else None
        declared = {budget.name: budget for budget in plan.budgets} if plan is not None else {}
        if catalog is not None:
            of_keys = catalog.key_budgets.values()
            declared |= {budget.name: budget for budgets in of_keys for budget in budgets}
        key = self._keys.known(self._gateway.live.policy, batch.key)
        if key is not None and key.budget is not None:
            declared[key.budget.name] = key.budget
        undeclared = {name: Budget(name=name, covers="", limit=0, period="total") for name, _ in batch.charges}
        return [(declared.get(name) or undeclared[name], period) for name, period in batch.charges]

    def _with_low_priority(self, workload: Workload) -> Workload:
        """The workload with the priority of batches, behind all other calls, and without hedging."""
        known = self._low_priority_workloads.get(workload.name)
        if known is None or known[0] is not workload:
            rule: Reliability = msgspec.structs.replace(workload.reliability, priority="low", hedge=None)
            known = self._low_priority_workloads[workload.name] = (
                workload,
                msgspec.structs.replace(workload, reliability=rule),
            )
        return known[1]
