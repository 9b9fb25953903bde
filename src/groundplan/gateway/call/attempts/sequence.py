"""The sequence of attempts of one call: which deployment is tried next, what a failed attempt leaves open, and the
error where none is left. Sends nothing; `serve` runs the attempts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from types import MappingProxyType

from groundplan.blueprint.model import Deployment, Workload
from groundplan.core.errors import Denied, GroundplanError, Invalid, Misconfigured, TooLarge, Unavailable
from groundplan.economics.price import FLEX
from groundplan.gateway.call import admit, limits, settle
from groundplan.gateway.call.ask import NO_NAMES, reset_left_out
from groundplan.gateway.call.attempts import probe_turn, retry
from groundplan.gateway.call.attempts.attempt import Attempt
from groundplan.gateway.call.attempts.begin import begin_attempt
from groundplan.gateway.call.attempts.failure import REFUSAL_MEANINGS, AttemptFailed, RequestMismatch, hint_for_status
from groundplan.gateway.call.attempts.flags import next_attempt_flags
from groundplan.gateway.call.attempts.order import ordered_deployments
from groundplan.gateway.call.attempts.reserve import reserve
from groundplan.gateway.call.attempts.resume import begin_continuation, can_continue
from groundplan.gateway.call.attempts.send_permission import may_send, wait_for_policy
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.stream_end import break_off
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.surfaces.codec import Relay, final_usage
from groundplan.gateway.upstream.providers import SERVICE
from groundplan.gateway.upstream.service_restart import RESTART_SECONDS

_TICK_SECONDS = 0.001
"""Resolution of the loop's clock and timers. Added to each retry delay: otherwise a deployment that asked for a pause
would be found still resting when the pause is over."""
_REQUEST_TIMEOUT = 408
"""Status of an upstream that gave up waiting for the rest of a request."""
_NO_ROOM_STATUSES = (429, 498)
"""How providers say that there is no room at flex: the second one is Groq's."""


class AttemptSequence:
    """The attempts of one call: those made, and the deployments that may still be tried."""

    # class attributes are the defaults of what is read only after a failure, so a call that succeeds sets none of them
    _mismatch: RequestMismatch | None = None
    """Why the last deployment does not take this request; after `too_long` only those with a larger context are
    left."""
    _cost_refusal: Denied | None = None
    """Why a deployment was skipped: with it the call could exceed what one call may cost."""
    retry_delay = 0.0
    """Seconds before the next attempt."""
    _retries: Mapping[str, int] = MappingProxyType({})
    """Deployment -> how often a failed attempt there was repeated."""
    _key_changes: Mapping[str, int] = MappingProxyType({})
    """Deployment -> how many of its keys were refused and replaced by another, which costs no attempt."""
    _awaiting_service: Deployment | None = None
    """The deployment whose attempt failed because our own translation service was not running."""
    _has_awaited_service = False
    """Whether this call has been given such an attempt back already."""
    reason = "no deployment may be used now"
    """Why the last attempt failed."""
    _hint = ""
    status = 0
    """HTTP status of the last failed attempt; 0 where the upstream sent none."""
    _all_refused_us: bool | None = None
    """Whether every attempt so far failed with a refusal of our key, account or path; None before the first failure."""
    broken_relay: Relay | None = None
    """Relay of the broken stream of which the client has a part."""
    stream_error_code = "stream_broken"
    is_flex = False
    """Whether the call is at the service tier flex. Answers there may take minutes and say nothing of how fast others
    come: no attempt is hedged, and no deployment is given up for being slow."""
    keeps_periods = False
    """Whether its budgets stay those of the periods in which the call began, as for batches."""

    def __init__(self, gateway: Gateway, exchange: Exchange, workload: Workload) -> None:
        now = gateway.loop.time()
        self._gateway = gateway
        self._exchange = exchange
        self._workload = workload
        self._health = gateway.health
        self._reliability = rule = workload.reliability
        self._deadline = now + workload.deadline_ms / 1000 - exchange.waited_seconds
        ask = exchange.ask
        if ask is not None and ask.service == FLEX:
            self._health, self.is_flex = gateway.flex_health, True
        if rule.on_broken_stream == "resume" and ask is not None and ask.stream and can_continue(exchange.endpoint):
            exchange.continuation = begin_continuation(ask, exchange.endpoint)
        self.candidates = ordered_deployments(gateway, exchange, workload, now, self._health)
        self._without_room: list[Deployment] = []
        self._attempts_made = 0

    # the next deployment ----------------------------------------------------------------------------------------------

    def take_first(self) -> Deployment | None:
        """Return the first deployment where nothing has to be waited for or checked again, as for nearly every call;
        None: use `take_next`."""
        gateway, exchange, waiting = self._gateway, self._exchange, self.candidates
        if not waiting or gateway.live.policy.kills or not self._health.is_closed(waiting[0].name):
            return None
        deployment = waiting[0]
        # a sub-call may use an older blueprint
        if self._attempts_made or exchange.waited_seconds or exchange.parent_call:
            return None
        if exchange.reservation is None or not gateway.loads.of(deployment).has_room:
            return None
        if exchange.limit_use is not None and (
            exchange.attempt_count or not limits.admit_attempt_locally(gateway, exchange, deployment)
        ):
            return None
        self._attempts_made = 1
        return waiting.pop(0)

    async def take_next(self) -> Deployment | None:
        """Return the next deployment to try, with its cost reserved; None: no deployment, time or attempt is left.

        Raises `Exhausted`, `Denied` where the call itself was stopped meanwhile, and `Unavailable` (`overloaded`) where
        every deployment stays full until the deadline.
        """
        gateway = self._gateway
        self.retry_delay = 0.0
        while self._attempts_made < self._workload.attempts and (remaining := self._deadline - gateway.loop.time()) > 0:
            deployment = self._pop_ready() or await self._wait_for_room(remaining)
            if deployment is None:
                return None
            if await self._claim(deployment):
                return deployment
        if not self._attempts_made and gateway.loop.time() >= self._deadline:
            self.reason = "its deadline was over before one could be asked"
        return None

    def _pop_ready(self) -> Deployment | None:
        """Return the first candidate that has room and is not deferred; moves those without room to `_without_room`."""
        for _ in range(len(self.candidates)):
            deployment = self.candidates.pop(0)
            if not self._gateway.loads.of(deployment).has_room:
                self._without_room.append(deployment)
            elif self._is_deferred(deployment):
                self.candidates.append(deployment)
            else:
                return deployment
        return None

    async def _wait_for_room(self, timeout: float) -> Deployment | None:
        """Wait up to `timeout` seconds until a full deployment has room; where none has in time, return an unhealthy
        one that has. Raises as `take_next`."""
        if not self._without_room:
            return None
        loads = self._gateway.loads
        try:
            deployment = await loads.wait_for_room(self._without_room, self._reliability.priority, timeout)
        except Unavailable:
            unhealthy = next((each for each in self.candidates if loads.of(each).has_room), None)
            if unhealthy is None:
                raise
            self.candidates.remove(unhealthy)
            return unhealthy
        self._without_room.remove(deployment)
        return deployment

    def _is_deferred(self, deployment: Deployment) -> bool:
        """Whether an unhealthy deployment, or one that another call is probing, is to be tried after the healthy ones:
        a failing one also after those that have no room now."""
        health, name = self._health, deployment.name
        if name in self._retries:
            return False
        if health.may_attempt(name, self._gateway.loop.time()):
            self._exchange.probe_turn = health.current_probe(name)
            return False
        others = (*self.candidates, *self._without_room) if health.is_failing(name) else self.candidates
        return any(health.is_closed(each.name) for each in others)

    async def pause(self) -> None:
        """Wait for the delay before the next attempt, and, where no other deployment is left, until our own translation
        service is back."""
        if self.retry_delay:
            await asyncio.sleep(self.retry_delay)
        away, self._awaiting_service = self._awaiting_service, None
        if away is None or self.candidates or self._without_room:
            return
        until = min(self._deadline, self._gateway.loop.time() + RESTART_SECONDS)
        if await self._gateway.targets.service_restart.wait_until_back(SERVICE, until, self._deadline):
            self.candidates.append(away)

    async def _claim(self, deployment: Deployment) -> bool:
        """Whether the deployment may be tried now; if so, count the attempt and reserve its cost. A place there is held
        while a limit or a budget is waited for, so that other calls do not take it meanwhile. Raises as
        `take_next`."""
        loads, is_claimed = self._gateway.loads, False
        load = loads.of(deployment)
        load.running += 1
        try:
            if await self._may_attempt(deployment):
                if self._exchange.reservation is None:
                    await self._reserve(deployment)
                # again: live policy may have changed while a limit or a budget was waited for
                if may_send(self._gateway, self._exchange, deployment):
                    self._attempts_made, is_claimed = self._attempts_made + 1, True
            return is_claimed
        finally:
            if is_claimed:
                load.running -= 1  # the attempt, which begins at once, counts itself
            else:
                loads.release_place(load)
                probe_turn.give_up_turn(self._gateway, self._exchange)

    @property
    def has_attempts_left(self) -> bool:
        """Whether one more attempt may be made."""
        return self._attempts_made < self._workload.attempts

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the call's deadline."""
        return self._deadline - self._gateway.loop.time()

    def count_hedge(self) -> None:
        """Count a hedge: an attempt made beside the open one."""
        self._attempts_made += 1

    def exclude(self, name: str) -> Deployment | None:
        """Remove a deployment from the candidates and return it; None: it is not one of them."""
        found = next((each for each in self.candidates if each.name == name), None)
        if found is not None:
            self.candidates.remove(found)
        return found

    async def take_named(self, name: str) -> Deployment | None:
        """Return the named deployment out of its turn, with its cost reserved; None: it may not be tried now. Raises
        `Exhausted`."""
        found = self.exclude(name)
        if found is None or not self._gateway.loads.of(found).has_room:
            return None
        if self._is_deferred(found):
            self.reason = "it has failed lately, or is very slow"
            return None
        return found if await self._claim(found) else None

    async def _may_attempt(self, deployment: Deployment) -> bool:
        gateway, exchange = self._gateway, self._exchange
        if exchange.plan is not None:
            await wait_for_policy(gateway, exchange.plan)
        if not may_send(gateway, exchange, deployment) or self._is_resting(deployment):
            return False
        if exchange.attempt_count and not self._can_afford(deployment):
            return False
        return exchange.limit_use is None or await limits.admit_attempt(
            gateway, exchange, deployment, exchange.attempt_count
        )

    def _is_resting(self, deployment: Deployment) -> bool:
        """Whether the deployment rests after a retry-after. Where every other one rests, too, a call probes it now and
        then."""
        health, now = self._health, self._gateway.loop.time()
        if not health.retry_after_left(deployment.name, now):
            return False
        others = any(not health.retry_after_left(each.name, now) for each in (*self.candidates, *self._without_room))
        if not others:
            self._exchange.probe_turn = health.begin_early_probe(deployment.name, now)
        return others or self._exchange.probe_turn is None

    def _can_afford(self, deployment: Deployment) -> bool:
        """Whether the call, with one more attempt there, stays within what one call may cost."""
        exchange = self._exchange
        if exchange.plan is None:
            raise AssertionError("not admitted")
        try:
            admit.check_next_attempt(exchange, exchange.plan, exchange.bounds[deployment.name])
        except Denied as error:
            self._cost_refusal = error
            return False
        return True

    async def _reserve(self, deployment: Deployment) -> None:
        """Reserve the cost of the dearest remaining deployment, since the next attempt may inherit the reservation.
        Raises `Exhausted`."""
        exchange = self._exchange
        dearest = max(exchange.bounds[other.name] for other in (deployment, *self.candidates, *self._without_room))
        await reserve(self._gateway, exchange, exchange.attempt_count, dearest, keeps_periods=self.keeps_periods)

    def begin_attempt(self, deployment: Deployment) -> Attempt:
        """Journal the next attempt, whose cost is reserved. Raises `Unavailable`."""
        gateway, exchange = self._gateway, self._exchange
        token = exchange.reservation
        if token is None:
            raise AssertionError("nothing is reserved")
        if exchange.attempt_flags or self._health.has_problems:
            exchange.attempt_flags = next_attempt_flags(exchange, deployment, self.candidates, self._health)
        inherits = token[1] != exchange.attempt_count
        if inherits:
            exchange.reservation = (exchange.id_bytes, exchange.attempt_count)
            gateway.slices.transfer_reservation(token, exchange.reservation)
        upload = exchange.ask is not None and exchange.ask.upload is not None
        may_defer_write = deployment.http == 1 and deployment.proxy is None and not upload
        sequence = begin_attempt(gateway, exchange, deployment, inherits=inherits, may_defer_write=may_defer_write)
        is_last = (
            not (self.candidates or self._without_room or self._reliability.same)
            or not self.has_attempts_left
            or self.is_flex
        )
        return Attempt(gateway, exchange, deployment, sequence, self._deadline, is_last)

    def record_latency(self, attempt: Attempt) -> None:
        """Record how long the attempt took until it had something for the client."""
        gateway, exchange, rule = self._gateway, self._exchange, self._reliability
        if self.is_flex:
            attempt.first_us = 0
        if not attempt.first_us:
            return
        if len(exchange.deployments) > 1:
            gateway.health.record_latency(
                attempt.deployment, exchange.deployments, attempt.first_us, gateway.loop.time(),
                streamed=attempt.streaming is not None,
            )  # fmt: skip
        if rule.hedge is not None or rule.balance == "latency" or exchange.route is not None:
            stream = exchange.ask is not None and exchange.ask.stream
            gateway.latencies.of(attempt.deployment.name, stream).observe(attempt.first_us, gateway.loop.time())

    # the outcome of an attempt ----------------------------------------------------------------------------------------

    def record_success(self, attempt: Attempt) -> None:
        """Note that the client has the answer of this attempt."""
        self._health.record_success(attempt.deployment.name, attempt.started_at)

    def handle_failure(self, failed: AttemptFailed) -> bool:
        """Settle the failed attempt; returns whether another one may follow, after `retry_delay` seconds."""
        exchange, deployment = self._exchange, self._exchange.deployment
        if deployment is None:
            raise AssertionError("no attempt was made")
        self.reason, self.status = failed.reason, failed.status
        self._hint = failed.hint
        statuses = {failed.status} if failed.other_status is None else {failed.status, failed.other_status}
        self._all_refused_us = self._all_refused_us is not False and statuses <= REFUSAL_MEANINGS.keys()
        if failed.guardrail_refusal is not None:
            probe_turn.give_up_turn(self._gateway, exchange)
            self._handle_refused_answer(failed, failed.guardrail_refusal)
            return False
        upload = None if exchange.ask is None else exchange.ask.upload
        passed_on = upload is not None and upload.passed_on
        if not (passed_on and failed.status == _REQUEST_TIMEOUT):  # the client was slow, not the deployment
            self._record_failure(deployment, failed)
        probe_turn.give_up_turn(self._gateway, exchange)
        if passed_on:
            # the upload is gone, so no other deployment can get it
            self.candidates, self._without_room, self.retry_delay = [], [], 0.0
        more = bool(self.candidates or self._without_room) and self._attempts_made < self._workload.attempts
        usage = final_usage(failed.relay) if failed.relay is not None else None
        outcome = "failed" if failed.billed else "not_billed"
        settle.attempt(
            self._gateway,
            exchange,
            outcome,
            failed.status,
            usage,
            keep_reservation=more and not failed.billed,
            flag=failed.flag,
        )
        if failed.relay is None:
            if exchange.ask is not None:
                reset_left_out(exchange.ask, exchange.sent_left_out)
            return True
        self.broken_relay = failed.relay
        return self._prepare_continuation(failed.relay)

    def _handle_refused_answer(self, failed: AttemptFailed, refusal: Denied) -> None:
        """A guardrail or kill refused the answer: no other deployment is tried, and none is blamed. Raises the refusal
        where the client has nothing yet."""
        exchange = self._exchange
        if exchange.guard is not None and failed.guarded_relay is not None:
            exchange.guard.adopt(failed.guarded_relay)
            exchange.guard.record_findings(exchange)
        if exchange.attempt_started:  # otherwise the answer was complete and settled before the refusal
            settle.cancelled_attempt(
                self._gateway, exchange, final_usage(failed.relay) if failed.relay is not None else None
            )
        self.stream_error_code = refusal.code
        if failed.relay is None:
            raise refusal  # a stream that broke before ends with it
        self.broken_relay = failed.relay

    def _record_failure(self, deployment: Deployment, failed: AttemptFailed) -> None:
        """Note the failure where it says something of the deployment, and decide whether it is tried again."""
        gateway = self._gateway
        if failed.stale_connection:
            # says nothing of the deployment itself, so it costs none of the workload's attempts
            self._attempts_made -= 1
            self.candidates.insert(0, deployment)
            gateway.targets.drop_idle_connections(deployment.name)
            return
        if failed.service_unavailable:
            gateway.targets.forget(SERVICE)
            if not self._has_awaited_service:
                self._attempts_made, self._awaiting_service, self._has_awaited_service = (
                    self._attempts_made - 1,
                    deployment,
                    True,
                )
            return
        key_changes = self._key_changes.get(deployment.name, 0)
        other_key = failed.has_other_key and key_changes + 1 < len(deployment.keys)
        if other_key or failed.mismatch == "sealed":
            self._key_changes = {**self._key_changes, deployment.name: key_changes + other_key}
            self._attempts_made -= 1
            self.candidates.insert(0, deployment)
            return
        self._mismatch = failed.mismatch
        if failed.mismatch == "too_long":
            context_tokens = deployment.context_tokens
            self.candidates = [each for each in self.candidates if each.context_tokens > context_tokens]
            self._without_room = [each for each in self._without_room if each.context_tokens > context_tokens]
        if failed.mismatch is not None or failed.refuses_continuation or failed.lacked_room or failed.is_withheld:
            return
        if failed.status and not self._exchange.interface.is_billed:
            return  # counting tokens is another path there, with limits of its own, and says nothing of its answers
        now = gateway.loop.time()
        gateway.targets.forget(deployment.name)
        self._health.record_failure(deployment.name, now, failed.retry_after)
        others = bool(self.candidates or self._without_room)  # the last attempt is kept for them
        if self._reliability.same and failed.is_temporary and self._attempts_made + others < self._workload.attempts:
            retries = self._retries.get(deployment.name, 0)
            delay = retry.retry_delay(self._reliability, retries, failed.retry_after, random.random)
            if retry.may_retry(self._reliability, retries, delay, self._deadline - now, has_others=others):
                self._retries = {**self._retries, deployment.name: retries + 1}
                self.candidates.insert(0, deployment)
                self.retry_delay = delay + _TICK_SECONDS

    def _prepare_continuation(self, relay: Relay) -> bool:
        """Whether another deployment is to continue the stream that broke; if so, prepare its request and deadline."""
        exchange, plan = self._exchange, self._exchange.plan
        continuation = exchange.continuation
        if continuation is None or plan is None:
            return False
        obstacle = continuation.obstacle(relay)
        if not obstacle and not (self.candidates or self._without_room):
            obstacle = "no other deployment is left to go on with it"
        if obstacle:
            self.reason = f"{self.reason}; {obstacle}"
            return False
        continuation.record_broken(relay, exchange.usage)
        guard = exchange.guard
        continuation.left_out = NO_NAMES if exchange.ask is None else frozenset(exchange.ask.left_out or ())
        exchange.ask = continuation.rest_request(
            self._workload.max_output_tokens, None if guard is None else guard.masks.remask
        )
        reset_left_out(exchange.ask, continuation.left_out)
        remaining = [*self.candidates, *self._without_room]
        try:
            admit.set_bounds(exchange, plan, exchange.ask, remaining)
        except GroundplanError as error:
            self.reason = f"{self.reason}; {error.message}"
            return False
        exchange.attempt_flags = ("resumed",)
        self._deadline = self._gateway.loop.time() + self._workload.deadline_ms / 1000
        return True

    async def break_stream(self, reason: str) -> None:
        """End the stream of which the client has a part with an error."""
        if self.broken_relay is not None:
            await break_off(self._gateway, self._exchange, self.broken_relay, reason, self.stream_error_code)

    def raise_failure(self) -> None:
        """Raise the error for the client, as no deployment could answer."""
        if not self._gateway.journal.healthy:
            raise settle.journal_unavailable()  # no deployment was asked
        if self._cost_refusal is not None:
            raise self._cost_refusal
        now, health, use = self._gateway.loop.time(), self._health, self._exchange.limit_use
        passed = () if use is None else use.skipped_deployments
        rest_seconds = [
            health.retry_after_left(each.name, now, is_last_resort=True)
            for each in self._exchange.deployments
            if each.name not in passed
        ]
        rest_seconds += limits.resting_key_seconds(self._gateway, self._exchange)
        retry_after = max(1.0, min(rest_seconds, default=0.0))
        never_succeeds = self._mismatch is not None or not (rest_seconds and (self._attempts_made or any(rest_seconds)))
        limits.raise_if_limited(self._gateway, self._exchange, None if never_succeeds else retry_after)
        last = self._exchange.deployment
        where = "" if last is None else f" ({last.name})"
        if self._mismatch == "above_rate" and last is not None:
            hint = f"Send a shorter prompt, ask for fewer tokens, or raise what {last.name} may be sent in a minute."
            raise TooLarge(f"{last.name} takes no request as large as this one", code="above_rate", hint=hint)
        if self._mismatch == "too_long" and last is not None:
            hint = "Send a shorter prompt, or name a model that reads more."
            raise Invalid(f"the prompt is too long: {self.reason}{where}", code="context_length_exceeded", hint=hint)
        if self._mismatch == "unfit" and last is not None:
            hint = "Leave it out, or name a model that can do it."
            raise Invalid(f"{last.name} cannot do what is asked: {self.reason}", code="request_unfit", hint=hint)
        if self.is_flex and (self.status in _NO_ROOM_STATUSES or not self._attempts_made):
            self._hint = "There is no room at flex now: ask again later, or without service_tier."
        all_refused_us = self._all_refused_us and self._attempts_made >= len(self._exchange.deployments)
        raise (Misconfigured if all_refused_us else Unavailable)(
            f"no deployment of {self._workload.name} could answer: {self.reason}{where}",
            code="upstream_failed",
            hint=self._hint or hint_for_status(0 if last is None else self.status, "" if last is None else last.name),
            retry_after=None if all_refused_us else retry_after,
        )
