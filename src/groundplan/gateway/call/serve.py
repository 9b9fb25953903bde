"""Step 5: attempts at the allowed deployments, each journalled before it is sent, until one has answered the client.

A failure before the client's first byte goes on to the next deployment; after it, a stream is continued or broken off,
as the workload says. An attempt that was certainly not billed passes its reservation on; any other keeps it, and the
next one needs a new one. Decisions are pure functions of `health`, `retry`, `choose`, `hedge`, `pressure` and
`resume`; which deployment is allowed was decided when the blueprint was made.
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
from groundplan.gateway.call.attempts import probe_turn, retry
from groundplan.gateway.call.attempts.attempt import Attempt
from groundplan.gateway.call.attempts.begin import begin
from groundplan.gateway.call.attempts.failure import MEANT, About, AttemptFailed, hint_of
from groundplan.gateway.call.attempts.order import in_order
from groundplan.gateway.call.attempts.race import HEDGE, race
from groundplan.gateway.call.attempts.reserve import reserve
from groundplan.gateway.call.attempts.resume import continuation, goes_on
from groundplan.gateway.call.attempts.send_permission import may_be_sent, renewed
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.stream import break_off
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.surfaces.codec import Relay, final_usage
from groundplan.gateway.upstream.providers import SERVICE
from groundplan.gateway.upstream.service_restart import BACK_SECONDS


async def serve(gateway: Gateway, exchange: Exchange, course: Course | None = None) -> None:
    """Answer the client from the first deployment that can. Raises a `GroundplanError` when none could.

    `course`: of a call of which something was tried already.
    """
    workload = exchange.workload
    if workload is None:
        raise AssertionError("not admitted")
    course = Course(gateway, exchange, workload) if course is None else course
    try:
        while (deployment := course.first() or await course.next()) is not None:
            try:
                attempt = course.begin(deployment)
                hedge = workload.reliability.hedge
                if hedge is None or not course.another or course.unhurried:
                    await attempt.open()
                else:
                    attempt = await race(gateway, attempt, course.waiting, hedge, course.hedged)
                course.learn(attempt)
                await attempt.deliver()
            except AttemptFailed as failed:
                if not course.goes_on(failed):
                    await course.break_off(course.reason)
                    return
                await course.pause()
            else:
                course.answered(attempt)
                return
        course.give_up()
    except GroundplanError as error:
        probe_turn.give_up_turn(gateway, exchange)
        if course.relay is None:
            raise
        told = error.message if course.reason in error.message else f"{course.reason}; {error.message}"
        await course.break_off(told)


_TICK_SECONDS = 0.001
"""A loop's clock goes in steps, and its timers are rounded to them: without one more a deployment that asked for a
pause would be found still at rest when that is over."""
_TOO_SLOW = 408
"""What an upstream says that lost patience with a request which did not come to its end."""
_NO_ROOM = 429


class Course:
    """The attempts of one call: what was tried, what may still be."""

    # what follows is asked only once something went wrong, and is not set before
    _about: About | None = None
    """Why whoever was asked last does not take this request. Where that is too long, who is left can read more."""
    _too_dear: Denied | None = None
    """Why a deployment was not asked: with it the call could cost more than one may."""
    wait = 0.0
    """Seconds before the next attempt."""
    _repeated: Mapping[str, int] = MappingProxyType({})
    """How often each was asked again that failed."""
    _keys: Mapping[str, int] = MappingProxyType({})
    """How many refused keys of a deployment were changed for another one, which is no try of its own."""
    _away: Deployment | None = None
    """Asked in vain, since our own service was not there that asks it."""
    _awaited = False
    """That was waited for."""
    reason = "no deployment may be used now"
    """Why the last attempt failed."""
    _hint = ""
    status = 0
    """What it answered, where it did."""
    _ours: bool | None = None
    """Whether all that were asked refused us, and nobody's request: None where nobody was."""
    relay: Relay | None = None
    """Of the stream of which the client has a part."""
    code = "stream_broken"
    unhurried = False
    """At the service tier flex answers may take minutes, and say nothing of how soon others come: nobody is asked
    beside it, and no deployment given up for being slow."""
    lasts = False
    """Its budgets stay those of the periods in which it was begun."""

    def __init__(self, gateway: Gateway, exchange: Exchange, workload: Workload) -> None:
        now = gateway.loop.time()
        self._gateway = gateway
        self._exchange = exchange
        self._workload = workload
        self._health = gateway.health
        self._rule = rule = workload.reliability
        self._deadline = now + workload.deadline_ms / 1000 - exchange.waited
        ask = exchange.ask
        if ask is not None and ask.service == FLEX:
            self._health, self.unhurried = gateway.flex, True
        if rule.on_broken_stream == "resume" and ask is not None and ask.stream and goes_on(exchange.endpoint):
            exchange.continuation = continuation(ask, exchange.endpoint)
        self.waiting = in_order(gateway, exchange, workload, now, self._health)
        self._full: list[Deployment] = []
        self._tries = 0

    # who is next -----------------------------------------------------------------------------------------------------

    def first(self) -> Deployment | None:
        """Whoever is next where that needs no waiting, which is nearly always; None: ask `next`."""
        gateway, exchange, waiting = self._gateway, self._exchange, self.waiting
        if not waiting or gateway.live.policy.kills or not self._health.closed(waiting[0].name):
            return None
        deployment = waiting[0]
        if self._tries or exchange.waited or exchange.of:  # what is within another call may be of an older blueprint
            return None
        if exchange.token is None or not gateway.loads.of(deployment).room:
            return None
        if exchange.use is not None and (exchange.attempts or not limits.at_hand(gateway, exchange, deployment)):
            return None
        self._tries = 1
        return waiting.pop(0)

    async def next(self) -> Deployment | None:
        """The deployment to ask now, with money for it; None: there is none, or no time and no attempt is left.

        Raises `Exhausted`, `Denied` where the call itself was stopped meanwhile, and `Unavailable` (`overloaded`) where
        those that there are have no room for so long.
        """
        gateway = self._gateway
        self.wait = 0.0
        while self._tries < self._workload.attempts and (left := self._deadline - gateway.loop.time()) > 0:
            deployment = self._ready() or await self._roomy(left)
            if deployment is None:
                return None
            if await self._takes(deployment):
                return deployment
        if not self._tries and gateway.loop.time() >= self._deadline:
            self.reason = "its deadline was over before one could be asked"
        return None

    def _ready(self) -> Deployment | None:
        """The first that has room and is not to be asked after others; those without room are kept apart."""
        for _ in range(len(self.waiting)):
            deployment = self.waiting.pop(0)
            if not self._gateway.loads.of(deployment).room:
                self._full.append(deployment)
            elif self._is_put_off(deployment):
                self.waiting.append(deployment)
            else:
                return deployment
        return None

    async def _roomy(self, left: float) -> Deployment | None:
        """One that had no room, once it has; where none has in time, one that fails. Raises as `next`."""
        if not self._full:
            return None
        try:
            deployment = await self._gateway.loads.room(self._full, self._rule.priority, left)
        except Unavailable:
            if not self.waiting:
                raise
            return self.waiting.pop(0)
        self._full.remove(deployment)
        return deployment

    def _is_put_off(self, deployment: Deployment) -> bool:
        """Whether one that is not well, or that another call finds out about, is to be asked after those that are: one
        that fails also after those that have no room now."""
        health, name = self._health, deployment.name
        if name in self._repeated:
            return False
        if health.may_ask(name, self._gateway.loop.time()):
            self._exchange.turn = health.turn(name)
            return False
        others = (*self.waiting, *self._full) if health.fails(name) else self.waiting
        return any(health.closed(each.name) for each in others)

    async def pause(self) -> None:
        """As long as is due before the next attempt: where nobody else is left, also until our own service is back."""
        if self.wait:
            await asyncio.sleep(self.wait)
        away, self._away = self._away, None
        if away is None or self.waiting or self._full:
            return
        until = min(self._deadline, self._gateway.loop.time() + BACK_SECONDS)
        if await self._gateway.targets.returning.back(SERVICE, until, self._deadline):
            self.waiting.append(away)

    async def _takes(self, deployment: Deployment) -> bool:
        """Whether it may be asked now; it has a try and money for it then. Its place is held while a limit or a budget
        is waited for, so that no others are sent there meanwhile. Raises `Exhausted`."""
        loads, taken = self._gateway.loads, False
        load = loads.of(deployment)
        load.running += 1
        try:
            if await self._may(deployment):
                if self._exchange.token is None:
                    await self._reserve(deployment)
                self._tries, taken = self._tries + 1, True
            return taken
        finally:
            if taken:
                load.running -= 1  # by the attempt, which begins at once
            else:
                loads.give_back(load)
                probe_turn.give_up_turn(self._gateway, self._exchange)

    @property
    def another(self) -> bool:
        """Whether one more attempt may be made beside the one that runs."""
        return self._tries < self._workload.attempts

    @property
    def left(self) -> float:
        """Seconds until its deadline."""
        return self._deadline - self._gateway.loop.time()

    def hedged(self) -> None:
        """One was made beside it."""
        self._tries += 1

    def leave_out(self, name: str) -> Deployment | None:
        """That deployment, which is not asked in its turn any more; None: it is not among those that wait."""
        found = next((each for each in self.waiting if each.name == name), None)
        if found is not None:
            self.waiting.remove(found)
        return found

    async def only(self, name: str) -> Deployment | None:
        """That deployment out of its turn, with money for it; None: it may not be asked now. Raises `Exhausted`."""
        found = self.leave_out(name)
        if found is None or not self._gateway.loads.of(found).room:
            return None
        if self._is_put_off(found):
            self.reason = "it has failed lately, or is very slow"
            return None
        return found if await self._takes(found) else None

    async def _may(self, deployment: Deployment) -> bool:
        gateway, exchange = self._gateway, self._exchange
        if exchange.plan is not None:
            await renewed(gateway, exchange.plan)
        if not may_be_sent(gateway, exchange, deployment) or self._is_at_rest(deployment):
            return False
        if exchange.attempts and not self._affords(deployment):
            return False
        return exchange.use is None or await limits.admit_attempt(gateway, exchange, deployment, exchange.attempts)

    def _is_at_rest(self, deployment: Deployment) -> bool:
        """Whether it asked to be left alone. Where nobody else is left a call finds out now and then."""
        health, now = self._health, self._gateway.loop.time()
        if not health.rests(deployment.name, now):
            return False
        others = any(not health.rests(each.name, now) for each in (*self.waiting, *self._full))
        if not others:
            self._exchange.turn = health.finds_out(deployment.name, now)
        return others or self._exchange.turn is None

    def _affords(self, deployment: Deployment) -> bool:
        """Whether the call, with one more attempt there, stays below what one may cost."""
        exchange = self._exchange
        if exchange.plan is None:
            raise AssertionError("not admitted")
        try:
            admit.check_next(exchange, exchange.plan, exchange.bounds[deployment.name])
        except Denied as error:
            self._too_dear = error
            return False
        return True

    async def _reserve(self, deployment: Deployment) -> None:
        """Money for whichever of the deployments that still wait is dearest: the next one may inherit it. Raises
        `Exhausted`."""
        exchange = self._exchange
        dearest = max(exchange.bounds[other.name] for other in (deployment, *self.waiting, *self._full))
        await reserve(self._gateway, exchange, exchange.attempts, dearest, lasts=self.lasts)

    def begin(self, deployment: Deployment) -> Attempt:
        """Journal the next attempt, for which there is a reservation. Raises `Unavailable`."""
        gateway, exchange = self._gateway, self._exchange
        token = exchange.token
        if token is None:
            raise AssertionError("nothing is reserved")
        if exchange.attempt_flags:
            exchange.attempt_flags = tuple(flag for flag in exchange.attempt_flags if flag != HEDGE)
        inherits = token[1] != exchange.attempts
        if inherits:
            exchange.token = (exchange.raw, exchange.attempts)
            gateway.slices.pass_on(token, exchange.token)
        upload = exchange.ask is not None and exchange.ask.upload is not None
        soon = deployment.http == 1 and deployment.proxy is None and not upload
        sequence = begin(gateway, exchange, deployment, inherits=inherits, soon=soon)
        alone = not (self.waiting or self._full or self._rule.same) or not self.another or self.unhurried
        return Attempt(gateway, exchange, deployment, sequence, self._deadline, alone)

    def learn(self, attempt: Attempt) -> None:
        """How long it took until there was something for the client."""
        gateway, exchange, rule = self._gateway, self._exchange, self._rule
        if self.unhurried:
            attempt.first_us = 0
        if not attempt.first_us:
            return
        if len(exchange.deployments) > 1:
            gateway.health.timed(
                attempt.deployment, exchange.deployments, attempt.first_us, gateway.loop.time(),
                streamed=attempt.streaming is not None,
            )  # fmt: skip
        if rule.hedge is not None or rule.balance == "latency" or exchange.route is not None:
            stream = exchange.ask is not None and exchange.ask.stream
            gateway.times.of(attempt.deployment.name, stream).observe(attempt.first_us, gateway.loop.time())

    # how it went -----------------------------------------------------------------------------------------------------

    def answered(self, attempt: Attempt) -> None:
        """The client has its answer."""
        self._health.succeeded(attempt.deployment.name, attempt.began)

    def goes_on(self, failed: AttemptFailed) -> bool:
        """Settle the attempt that failed; whether another one may follow it, after `wait` seconds."""
        exchange, deployment = self._exchange, self._exchange.deployment
        if deployment is None:
            raise AssertionError("no attempt was made")
        self.reason, self.status = failed.reason, failed.status
        self._hint = failed.hint
        self._ours = self._ours is not False and failed.status in MEANT
        if failed.refusal is not None:
            probe_turn.give_up_turn(self._gateway, exchange)
            self._refused(failed, failed.refusal)
            return False
        upload = None if exchange.ask is None else exchange.ask.upload
        passed_on = upload is not None and upload.passed_on
        if not (passed_on and failed.status == _TOO_SLOW):  # that was its client
            self._blame(deployment, failed)
        probe_turn.give_up_turn(self._gateway, exchange)
        if passed_on:
            self.waiting, self._full, self.wait = [], [], 0.0  # nobody else can have it
        more = bool(self.waiting or self._full) and self._tries < self._workload.attempts
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
            return True
        self.relay = failed.relay
        return self._resumes(failed.relay)

    def _refused(self, failed: AttemptFailed, refusal: Denied) -> None:
        """The answer was refused: nobody else is asked, and nothing is held against the deployment. Raises the refusal
        where the client has nothing yet."""
        exchange = self._exchange
        if exchange.guard is not None and failed.guarded is not None:
            exchange.guard.adopt(failed.guarded)
            exchange.guard.count(exchange)
        if exchange.attempt_started:  # else all of it was there before somebody refused it
            settle.cancelled(self._gateway, exchange, final_usage(failed.relay) if failed.relay is not None else None)
        if failed.relay is None:
            raise refusal
        self.relay, self.code = failed.relay, refusal.code

    def _blame(self, deployment: Deployment, failed: AttemptFailed) -> None:
        gateway = self._gateway
        if failed.stale:
            # nothing is known against the deployment itself, so this costs none of the workload's attempts
            self._tries -= 1
            self.waiting.insert(0, deployment)
            gateway.targets.stale(deployment.name)
            return
        if failed.service_away:
            gateway.targets.forget(SERVICE)
            if not self._awaited:
                self._tries, self._away, self._awaited = self._tries - 1, deployment, True
            return
        changed = self._keys.get(deployment.name, 0)
        other_key = failed.other_key and changed + 1 < len(deployment.keys)
        if other_key or failed.about == "sealed":
            self._keys = {**self._keys, deployment.name: changed + other_key}
            self._tries -= 1
            self.waiting.insert(0, deployment)
            return
        self._about = failed.about
        if failed.about == "too_long":
            read = deployment.context_tokens
            self.waiting = [each for each in self.waiting if each.context_tokens > read]
            self._full = [each for each in self._full if each.context_tokens > read]
        if failed.about is not None or failed.refuses_rest or failed.crowded:
            return
        if failed.status and not self._exchange.interface.is_billed:
            return  # to count tokens is another path there, with limits of its own, and says nothing of its answers
        now = gateway.loop.time()
        gateway.targets.forget(deployment.name)
        self._health.failed(deployment.name, now, failed.rest)
        others = bool(self.waiting or self._full)  # for whom the last attempt is kept
        if self._rule.same and failed.temporary and self._tries + others < self._workload.attempts:
            before = self._repeated.get(deployment.name, 0)
            wait = retry.pause(self._rule, before, failed.rest, random.random)
            if retry.repeats(self._rule, before, wait, self._deadline - now, others=others):
                self._repeated = {**self._repeated, deployment.name: before + 1}
                self.waiting.insert(0, deployment)
                self.wait = wait + _TICK_SECONDS

    def _resumes(self, relay: Relay) -> bool:
        """The client has a part of a stream that broke: whether somebody else is to go on with it."""
        exchange, plan = self._exchange, self._exchange.plan
        kept = exchange.continuation
        if kept is None or plan is None:
            return False
        why_not = kept.refusal(relay)
        if not why_not and not (self.waiting or self._full):
            why_not = "no other deployment is left to go on with it"
        if why_not:
            self.reason = f"{self.reason}; {why_not}"
            return False
        kept.broke(relay, exchange.usage)
        guard = exchange.guard
        exchange.ask = kept.rest(self._workload.max_output_tokens, None if guard is None else guard.masks.hide)
        left = [*self.waiting, *self._full]
        try:
            admit.set_bounds(exchange, plan, exchange.ask, left)
        except GroundplanError as error:
            self.reason = f"{self.reason}; {error.message}"
            return False
        exchange.attempt_flags = ("resumed",)
        self._deadline = self._gateway.loop.time() + self._workload.deadline_ms / 1000
        return True

    async def break_off(self, reason: str) -> None:
        """The client has a part of a stream, and the rest will not come."""
        if self.relay is not None:
            await break_off(self._gateway, self._exchange, self.relay, reason, self.code)

    def give_up(self) -> None:
        """Nobody could answer. Raises what is to be told."""
        if not self._gateway.journal.healthy:
            raise settle.unwritten()  # nobody was asked
        if self._too_dear is not None:
            raise self._too_dear
        now, health, use = self._gateway.loop.time(), self._health, self._exchange.use
        passed = () if use is None else use.passed
        rests = [
            health.rests(each.name, now, alone=True) for each in self._exchange.deployments if each.name not in passed
        ]
        after = max(1.0, min(rests, default=0.0))
        in_vain = self._about is not None or not (rests and (self._tries or any(rests)))
        limits.check_room(self._gateway, self._exchange, None if in_vain else after)
        last = self._exchange.deployment
        where = "" if last is None else f" ({last.name})"
        if self._about == "above_rate" and last is not None:
            hint = f"Send a shorter prompt, ask for fewer tokens, or raise what {last.name} may be sent in a minute."
            raise TooLarge(f"{last.name} takes no request as large as this one", code="above_rate", hint=hint)
        if self._about == "too_long" and last is not None:
            hint = "Send a shorter prompt, or name a model that reads more."
            raise Invalid(f"the prompt is too long: {self.reason}{where}", code="context_length_exceeded", hint=hint)
        if self._about == "unfit" and last is not None:
            hint = "Leave it out, or name a model that can do it."
            raise Invalid(f"{last.name} cannot do what is asked: {self.reason}", code="request_unfit", hint=hint)
        if self.unhurried and (self.status == _NO_ROOM or not self._tries):
            self._hint = "There is no room at flex now: ask again later, or without service_tier."
        all_ours = self._ours and self._tries >= len(self._exchange.deployments)
        raise (Misconfigured if all_ours else Unavailable)(
            f"no deployment of {self._workload.name} could answer: {self.reason}{where}",
            code="upstream_failed",
            hint=self._hint or hint_of(0 if last is None else self.status, "" if last is None else last.name),
            retry_after=None if all_ours else after,
        )
