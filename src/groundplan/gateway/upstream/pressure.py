"""Load limits: how many calls may run at each deployment, by what it can take, and in the worker, by how late its loop
is.

The limit of a deployment falls by a third when it reports overload (429, 503) or became much slower under load, as
streams show by their first token and other calls by their whole duration. It rises with each answer to where it first
fell, and from there by one per round of answers; without such signs there is only the declared limit. When everything
is full, less important calls wait behind others or are refused. Times are arguments, in monotonic seconds; only
`Pressure` observes the loop itself. Knows no budgets and no people.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from math import inf

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Unavailable
from groundplan.gateway.stalls import Alarm
from groundplan.gateway.ticks import next_tick
from groundplan.gateway.upstream.backlog import Backlog

RANKS = {"critical": 0, "high": 1, "normal": 2, "low": 3}
"""The higher, the earlier it is refused."""
DECREASE = 0.7
MIN_LIMIT = 4.0
"""A learned limit is never lower, and nothing is learned from so few running calls: outages are the breaker's
business."""
HOLD_SECONDS = 0.25
"""Answers to calls that were sent before a decrease say nothing about the limit after it."""
SLOWER_FACTOR = 3.0
SLOWER_US = 500_000
"""A deployment is slower if it takes `SLOWER_FACTOR` times as long as usual and this much longer: answers differ in
length, and machines are busy."""
MIN_SLOW_RUNNING = 8
"""Running calls below which slowness is not attributed to load."""
SLOW_SAMPLES = 25
SAMPLE_EVERY = 4
"""One in so many answers is timed."""
FORGET_SECONDS = 30.0
"""After so long without a sign of overload the learned limit is dropped."""
MAX_QUEUED = 64
"""Calls that may wait for room at the same deployments."""
MAX_QUEUE_SECONDS = 2.0
"""Longest time that a call waits for room at its deployments."""


def overloaded_error(what: str, seconds: float) -> Unavailable:
    """The error for a call for which there is no room."""
    return Unavailable(
        f"{what} at its limit, and more important calls come first",
        code="overloaded",
        hint="Send it again after retry-after; `reliability.priority` of a workload says how important its calls are.",
        retry_after=seconds,
    )


class DeploymentLoad:
    """The running calls of one deployment, and their learned limit."""

    __slots__ = (
        "_answers",
        "_decreased_at",
        "_recent_us",
        "_slow_growth_from",
        "_usual_us",
        "declared",
        "limit",
        "running",
    )

    def __init__(self) -> None:
        self.running = 0
        self.declared: int | None = None
        self.limit: float | None = None
        """Learned; None without signs of overload."""
        self._decreased_at = 0.0
        self._slow_growth_from = 0.0
        """The limit after its first decrease: below it the limit rises quickly, above it slowly."""
        self._answers = 0
        self._recent_us = self._usual_us = 0.0

    @property
    def max_running(self) -> float | None:
        """Number of calls that may run now; None: any number."""
        if self.limit is None:
            return self.declared
        return self.limit if self.declared is None else min(self.limit, self.declared)

    @property
    def has_room(self) -> bool:
        """Whether one more call may be sent there."""
        if self.limit is None and self.declared is None:
            return True  # as for nearly every deployment
        max_running = self.max_running
        return max_running is None or self.running < max_running

    def record_end(self, now: float, microseconds: int, is_overload: bool, shows_load: bool = True) -> None:
        """Record that one call ended. `microseconds` until its first byte, 0 if none came; `is_overload`: it was
        refused for lack of capacity; `shows_load`: that time depends on how busy the deployment is, not on the length
        of the answer."""
        running = self.running
        self.running -= 1
        if is_overload:
            self._decrease(now, running)
            return
        limit = self.limit
        if limit is not None:
            if now - self._decreased_at > FORGET_SECONDS:
                self.limit = None
            elif microseconds and running + 1 >= limit:
                self.limit = limit + (1.0 if limit < self._slow_growth_from else 1 / limit)
        self._answers += 1
        if microseconds and shows_load and not self._answers % SAMPLE_EVERY:
            self._record_latency(now, microseconds, running)

    def forget(self) -> None:
        """Forget what was learned: the deployment has changed. Running calls go on."""
        self.limit = None
        self._answers = 0
        self._recent_us = self._usual_us = 0.0

    def _decrease(self, now: float, running: int) -> None:
        if running <= MIN_LIMIT:
            return  # so few calls are no load: the refusal is about a rate, or a moment's outage
        if now - self._decreased_at >= HOLD_SECONDS or self.limit is None:
            self._decreased_at = now
            if self.limit is None:
                self._slow_growth_from = running * DECREASE
            self.limit = max(MIN_LIMIT, min(self.limit or running, running) * DECREASE)

    def _record_latency(self, now: float, microseconds: int, running: int) -> None:
        samples = self._answers // SAMPLE_EVERY
        self._recent_us += (microseconds - self._recent_us) * max(0.05, 1 / samples)
        self._usual_us += (microseconds - self._usual_us) * max(0.005, 1 / samples)
        excess = self._recent_us - self._usual_us
        if (
            excess > SLOWER_US
            and excess > (SLOWER_FACTOR - 1) * self._usual_us
            and running >= MIN_SLOW_RUNNING
            and samples > SLOW_SAMPLES
        ):
            self._decrease(now, running)


class _Waiter:
    """A call in the queue. `future` resolves to the load at which a place is held for it, or None: it has to leave."""

    __slots__ = ("future", "loads", "rank")

    def __init__(self, rank: int, loads: list[DeploymentLoad], future: asyncio.Future[DeploymentLoad | None]) -> None:
        self.rank = rank
        self.loads = loads
        self.future = future


class DeploymentLoads:
    """All deployments of one worker, and the calls that wait for room at one of them."""

    __slots__ = ("_loads", "_loop", "_queue", "refused_calls")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loads: dict[str, DeploymentLoad] = {}
        self._queue: list[_Waiter] = []
        """The most important first, then the longest waiting."""
        self.refused_calls = 0
        """Number of calls that found no room in time."""

    def of(self, deployment: Deployment) -> DeploymentLoad:
        load = self._loads.get(deployment.name)
        if load is None:
            load = self._loads[deployment.name] = DeploymentLoad()
        load.declared = deployment.concurrent
        return load

    def running(self, name: str) -> int:
        """Number of calls that are running at a deployment."""
        load = self._loads.get(name)
        return 0 if load is None else load.running

    def forget(self, names: Iterable[str]) -> None:
        """Forget deployments that have changed or are gone."""
        for name, load in [(name, found) for name in names if (found := self._loads.get(name)) is not None]:
            load.forget()
            self._admit_waiters(load)
            if not load.running:  # a deployment that is gone is no longer reported; any other is created again
                del self._loads[name]

    @property
    def queued_calls(self) -> int:
        """Number of calls that wait."""
        return len(self._queue)

    def limits(self) -> dict[str, tuple[int, float | None]]:
        """(running calls, most that may run) by deployment."""
        return {name: (load.running, load.max_running) for name, load in self._loads.items()}

    def record_end(self, load: DeploymentLoad, microseconds: int, is_overload: bool, shows_load: bool = True) -> None:
        """Record that one call ended; its place goes to the most important call that waits, then to the one that has
        waited longest."""
        load.record_end(self._loop.time(), microseconds, is_overload, shows_load)
        if self._queue:
            self._admit_waiters(load)

    def release_place(self, load: DeploymentLoad) -> None:
        """Release a place that was held and is not used; it goes to a waiting call."""
        load.running -= 1
        if self._queue:
            self._admit_waiters(load)

    def _admit_waiters(self, load: DeploymentLoad) -> None:
        for waiter in list(self._queue):
            if not load.has_room:
                return
            if load in waiter.loads and not waiter.future.done():  # its client may just have left
                self._queue.remove(waiter)
                load.running += 1
                waiter.future.set_result(load)

    async def wait_for_room(self, deployments: Sequence[Deployment], priority: str, seconds: float) -> Deployment:
        """One of the deployments, as soon as it has room for this call: at once where one that was full has some again,
        as while another deployment was asked.

        Raises `Unavailable` (`overloaded`) if the queue is full of calls that matter as much, or after `seconds`.
        """
        rank = RANKS[priority]
        seconds = min(seconds, MAX_QUEUE_SECONDS)
        loads = [self.of(deployment) for deployment in deployments]
        for deployment, load in zip(deployments, loads, strict=True):
            if load.has_room:  # and nobody waits for it
                return deployment
        if seconds <= 0 or not self._make_queue_place(rank, loads):
            self.refused_calls += 1
            raise overloaded_error("every deployment that may answer this call is", 1.0 + rank)
        waiter = _Waiter(rank, loads, self._loop.create_future())
        place = next((n for n, other in enumerate(self._queue) if other.rank > rank), len(self._queue))
        self._queue.insert(place, waiter)
        timer = Alarm(self._loop, seconds, partial(self._dismiss, waiter))
        try:
            found = await waiter.future
        except BaseException:  # whatever ends the wait: nobody takes the place
            self._cancel_wait(waiter)
            raise
        finally:
            timer.cancel()
        if found is None:
            self.refused_calls += 1
            raise overloaded_error("every deployment that may answer this call is", 1.0 + rank)
        found.running -= 1  # the caller that takes the place counts it
        return deployments[loads.index(found)]

    def _make_queue_place(self, rank: int, loads: Sequence[DeploymentLoad]) -> bool:
        """Whether there is a place in the queue; if necessary, the last of the less important calls leaves it. Calls
        that wait for other deployments do not count."""
        if len(self._queue) < MAX_QUEUED:
            return True
        rivals = [other for other in self._queue if any(load in other.loads for load in loads)]
        if len(rivals) < MAX_QUEUED:
            return True
        last = rivals[-1]
        if last.rank <= rank:
            return False
        self._dismiss(last)
        return True

    def _dismiss(self, waiter: _Waiter) -> None:
        if waiter in self._queue:
            self._queue.remove(waiter)
            if not waiter.future.done():
                waiter.future.set_result(None)

    def _cancel_wait(self, waiter: _Waiter) -> None:
        """The call's client went away: a place that is held for it goes to the next."""
        if waiter in self._queue:
            self._queue.remove(waiter)
        elif waiter.future.done() and not waiter.future.cancelled() and (load := waiter.future.result()) is not None:
            self.release_place(load)


TICK_SECONDS = 0.1
LATE_SECONDS = (4.0, 1.5, 0.5, 0.15)
"""By rank: how late the loop must be, several times in a row, before calls of that rank are refused."""
LATE_TICKS = 5
MAX_RUNNING = 8000
RANK_SHARES = (1.0, 0.9, 0.8, 0.7)
"""By rank: share of `MAX_RUNNING`, and of the memory for bodies."""


class Pressure:
    """How full this worker is. Calls of rank `level` and above are refused; 4: none are."""

    __slots__ = (
        "_lags",
        "_loop",
        "_next_tick",
        "_timer",
        "_uncrowded",
        "backlog",
        "level",
        "max_running",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, max_running: int = MAX_RUNNING) -> None:
        self._loop = loop
        self.backlog = Backlog(loop)
        self.max_running = max_running
        self._uncrowded = max_running * RANK_SHARES[-1]
        """With no more running calls, none is refused."""
        self.level = len(RANKS)
        self._lags: deque[float] = deque([0.0] * LATE_TICKS, LATE_TICKS)
        self._next_tick = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def refused_calls(self) -> int:
        """Number of calls that were refused because the worker was too full."""
        return self.backlog.refused

    @property
    def lag(self) -> float:
        """The least of the last few delays of the loop, in seconds."""
        return min(self._lags)

    def start(self) -> None:
        """Begin to measure the loop's delay."""
        self._next_tick = next_tick(self._loop.time(), TICK_SECONDS)
        self._timer = self._loop.call_at(self._next_tick, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self.backlog.start_interval()
        self.record_lag(self._loop.time() - self._next_tick)
        self.start()

    def record_lag(self, late: float) -> None:
        """Record that the loop was `late` seconds behind."""
        self._lags.append(late)
        lag = self.lag
        self.level = sum(lag < seconds for seconds in LATE_SECONDS)

    def is_crowded(self, running: int) -> bool:
        """Whether some calls are to be refused or to wait: `check` and the backlog say which."""
        return running > self._uncrowded or self.level < len(RANKS) or self.backlog.waiting > 0

    def count_call(self, running: int) -> bool:
        """Count a call that has arrived. Returns whether some calls are refused or have to wait: `wait_to_begin` says
        whether this one is."""
        backlog = self.backlog
        backlog.arrived += 1
        return backlog.arrived > backlog.limit or running > self._uncrowded or self.level < len(RANKS)

    async def wait_to_begin(self, priority: str, running: int, seconds: float = inf) -> bool:
        """Refuse a counted call of this priority if the worker is too full for it, or let it wait for its turn, not
        beyond the `seconds` of its deadline. Returns whether it has waited. Raises `Unavailable` (`overloaded`)."""
        self.check(priority, running)
        if self.backlog.arrived <= self.backlog.limit:
            return False
        if not await self.backlog.wait(RANKS[priority], seconds):
            self.backlog.refused += 1
            raise overloaded_error("this gateway is", 1.0 + RANKS[priority])
        return True

    def check(self, priority: str, running: int, *, counts: bool = True) -> None:
        """Refuse a call of this priority if the worker is too full for it. `counts`: false for one that is made later
        then, so that nobody is refused. Raises `Unavailable` (`overloaded`)."""
        rank = RANKS[priority]
        if rank >= self.level or running > self.max_running * RANK_SHARES[rank]:
            self.backlog.refused += counts
            raise overloaded_error("this gateway is", 1.0 + rank)
