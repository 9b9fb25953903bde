"""How much is running and how much may: at each deployment by what it bears, in the worker by how late it is.

The limit of a deployment falls by a third when it says that it has too much (429, 503) or became much slower under
load, as streams tell by their first token and what is no chat by all of its time. It rises with each answer to where it
first fell, and from there by one for each round of answers; without such signs there is none but the declared one.
Where everything is full, the less important wait behind or are refused. Times are arguments, in monotonic seconds; only
`Pressure` looks at the loop itself. Knows no budgets and no people.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Unavailable
from groundplan.gateway.stalls import Alarm
from groundplan.gateway.ticks import next_tick

RANKS = {"critical": 0, "high": 1, "normal": 2, "low": 3}
"""The higher, the earlier it is refused."""
DECREASE = 0.7
FLOOR = 4.0
"""A learned limit is never below, and nothing is learned from so few: outages are the breaker's."""
HOLD_SECONDS = 0.25
"""Answers to calls that were sent before a decrease say nothing about what holds after it."""
SLOWER = 3.0
SLOWER_US = 500_000
"""Slowness is `SLOWER` times the usual and so much more than it: answers differ in length, and machines are busy."""
SLOW_LEAST = 8
"""Running calls below which slowness is not put down to load."""
SLOW_SAMPLES = 25
SAMPLED = 4
"""Of so many answers one is timed."""
FORGET_SECONDS = 30.0
"""After so long without a sign of overload the learned limit is dropped."""
QUEUE_MOST = 64
"""Calls that wait for room at the same deployments."""
QUEUE_SECONDS = 2.0
"""Longest that a call waits for room at its deployments."""


def overloaded(what: str, seconds: float) -> Unavailable:
    """The refusal of a call for which there is no room."""
    return Unavailable(
        f"{what} at its limit, and more important calls come first",
        code="overloaded",
        hint="Send it again after retry-after; `reliability.priority` of a workload says how important its calls are.",
        retry_after=seconds,
    )


class Load:
    """What runs at one deployment, and how much of it is good for it."""

    __slots__ = ("_base", "_changed", "_recent", "_seen", "_turn", "declared", "limit", "running")

    def __init__(self) -> None:
        self.running = 0
        self.declared: int | None = None
        self.limit: float | None = None
        """Learned; None without signs of overload."""
        self._changed = 0.0
        self._turn = 0.0
        """The limit where it first fell, less what it fell by."""
        self._seen = 0
        self._recent = self._base = 0.0

    @property
    def most(self) -> float | None:
        """Calls that may run now; None: any number."""
        if self.limit is None:
            return self.declared
        return self.limit if self.declared is None else min(self.limit, self.declared)

    @property
    def room(self) -> bool:
        """Whether one more call may be sent there."""
        if self.limit is None and self.declared is None:
            return True  # as at nearly every one
        most = self.most
        return most is None or self.running < most

    def ended(self, now: float, microseconds: int, overload: bool, tells: bool = True) -> None:
        """One call ended. `microseconds` until its first byte, 0 where none came; `overload`: it was refused for want
        of room; `tells`: that time is of how busy the deployment is, and not of how long an answer was asked for."""
        at = self.running
        self.running -= 1
        if overload:
            self._decrease(now, at)
            return
        limit = self.limit
        if limit is not None:
            if now - self._changed > FORGET_SECONDS:
                self.limit = None
            elif microseconds and at + 1 >= limit:
                self.limit = limit + (1.0 if limit < self._turn else 1 / limit)
        self._seen += 1
        if microseconds and tells and not self._seen % SAMPLED:
            self._learn(now, microseconds, at)

    def forget(self) -> None:
        """It is another one from now on, which nothing is known of; what runs there goes on."""
        self.limit = None
        self._seen = 0
        self._recent = self._base = 0.0

    def _decrease(self, now: float, at: int) -> None:
        if at <= FLOOR:
            return  # so few are no load: what is refused is a rate, or a moment's outage, and no number at once
        if now - self._changed >= HOLD_SECONDS or self.limit is None:
            self._changed = now
            if self.limit is None:
                self._turn = at * DECREASE
            self.limit = max(FLOOR, min(self.limit or at, at) * DECREASE)

    def _learn(self, now: float, microseconds: int, at: int) -> None:
        seen = self._seen // SAMPLED
        self._recent += (microseconds - self._recent) * max(0.05, 1 / seen)
        self._base += (microseconds - self._base) * max(0.005, 1 / seen)
        more = self._recent - self._base
        if more > SLOWER_US and more > (SLOWER - 1) * self._base and at >= SLOW_LEAST and seen > SLOW_SAMPLES:
            self._decrease(now, at)


class _Waiter:
    """A call in the queue. `future` gives the load at which a place is held for it, or None: it has to go."""

    __slots__ = ("future", "loads", "rank")

    def __init__(self, rank: int, loads: list[Load], future: asyncio.Future[Load | None]) -> None:
        self.rank = rank
        self.loads = loads
        self.future = future


class Loads:
    """All deployments of one worker, and the calls that wait for room at one of them."""

    __slots__ = ("_loads", "_loop", "_queue", "refused")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loads: dict[str, Load] = {}
        self._queue: list[_Waiter] = []
        """The most important first, then the longest waiting."""
        self.refused = 0
        """Calls that found no room in time."""

    def of(self, deployment: Deployment) -> Load:
        load = self._loads.get(deployment.name)
        if load is None:
            load = self._loads[deployment.name] = Load()
        load.declared = deployment.concurrent
        return load

    def running(self, name: str) -> int:
        """Calls at a deployment."""
        load = self._loads.get(name)
        return 0 if load is None else load.running

    def forget(self, names: Iterable[str]) -> None:
        """These are others from now on."""
        for name, load in [(name, found) for name in names if (found := self._loads.get(name)) is not None]:
            load.forget()
            self._hand_on(load)
            if not load.running:  # of one that is gone nothing is told any more; any other is made anew
                del self._loads[name]

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return len(self._queue)

    def limits(self) -> dict[str, tuple[int, float | None]]:
        """(running, most that may) by deployment."""
        return {name: (load.running, load.most) for name, load in self._loads.items()}

    def ended(self, load: Load, microseconds: int, overload: bool, tells: bool = True) -> None:
        """One call at a deployment ended; its place goes to whoever matters most, then has waited longest."""
        load.ended(self._loop.time(), microseconds, overload, tells)
        if self._queue:
            self._hand_on(load)

    def give_back(self, load: Load) -> None:
        """A place that was held is not used; it goes to whoever waits for one."""
        load.running -= 1
        if self._queue:
            self._hand_on(load)

    def _hand_on(self, load: Load) -> None:
        for waiter in list(self._queue):
            if not load.room:
                return
            if load in waiter.loads and not waiter.future.done():  # its client may have left this very moment
                self._queue.remove(waiter)
                load.running += 1
                waiter.future.set_result(load)

    async def room(self, deployments: Sequence[Deployment], priority: str, seconds: float) -> Deployment:
        """One of the deployments, all of which are full, as soon as it has room for this call.

        Raises `Unavailable` (`overloaded`): the queue is full of calls that matter as much, or `seconds` are over.
        """
        rank = RANKS[priority]
        seconds = min(seconds, QUEUE_SECONDS)
        loads = [self.of(deployment) for deployment in deployments]
        if seconds <= 0 or not self._make_way(rank, loads):
            self.refused += 1
            raise overloaded("every deployment that may answer this call is", 1.0 + rank)
        waiter = _Waiter(rank, loads, self._loop.create_future())
        place = next((n for n, other in enumerate(self._queue) if other.rank > rank), len(self._queue))
        self._queue.insert(place, waiter)
        timer = Alarm(self._loop, seconds, partial(self._dismiss, waiter))
        try:
            found = await waiter.future
        except BaseException:  # whatever ends it: nobody takes the place
            self._leave(waiter)
            raise
        finally:
            timer.cancel()
        if found is None:
            self.refused += 1
            raise overloaded("every deployment that may answer this call is", 1.0 + rank)
        found.running -= 1  # whoever takes the place counts it
        return deployments[loads.index(found)]

    def _make_way(self, rank: int, loads: Sequence[Load]) -> bool:
        """Whether there is a place in the queue; the last of the less important leaves it. Who waits for others is in
        nobody's way."""
        if len(self._queue) < QUEUE_MOST:
            return True
        rivals = [other for other in self._queue if any(load in other.loads for load in loads)]
        if len(rivals) < QUEUE_MOST:
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

    def _leave(self, waiter: _Waiter) -> None:
        """Its client went away; a place that is held for it goes to the next."""
        if waiter in self._queue:
            self._queue.remove(waiter)
        elif waiter.future.done() and not waiter.future.cancelled() and (load := waiter.future.result()) is not None:
            self.give_back(load)


TICK_SECONDS = 0.1
LATE_SECONDS = (4.0, 1.5, 0.5, 0.15)
"""By rank: so late must the loop be, several times in a row, before calls of that rank are refused."""
IN_A_ROW = 5
MOST_RUNNING = 8000
SHARES = (1.0, 0.9, 0.8, 0.7)
"""By rank: of `MOST_RUNNING`, and of what bodies may take."""


class Pressure:
    """How full this worker is. `level`: calls of this rank and above are refused; 4 where none are."""

    __slots__ = ("_expected", "_few", "_lags", "_loop", "_timer", "level", "most_running", "refused")

    def __init__(self, loop: asyncio.AbstractEventLoop, most_running: int = MOST_RUNNING) -> None:
        self._loop = loop
        self.most_running = most_running
        self.refused = 0
        """Calls that came when it was too full for them."""
        self._few = most_running * SHARES[-1]
        """No more running: nobody is refused."""
        self.level = len(RANKS)
        self._lags: deque[float] = deque([0.0] * IN_A_ROW, IN_A_ROW)
        self._expected = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lag(self) -> float:
        """Seconds by which the loop was late at least, each of the last few times."""
        return min(self._lags)

    def start(self) -> None:
        """Look at the loop from now on."""
        self._expected = next_tick(self._loop.time(), TICK_SECONDS)
        self._timer = self._loop.call_at(self._expected, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self.noted(self._loop.time() - self._expected)
        self.start()

    def noted(self, late: float) -> None:
        """The loop was `late` seconds behind."""
        self._lags.append(late)
        lag = self.lag
        self.level = sum(lag < seconds for seconds in LATE_SECONDS)

    def full(self, running: int) -> bool:
        """Whether some calls are to be refused: `check` says which."""
        return running > self._few or self.level < len(RANKS)

    def check(self, priority: str, running: int) -> None:
        """Refuse a call of this priority early where the worker is too full for it. Raises `Unavailable`
        (`overloaded`)."""
        rank = RANKS[priority]
        if rank >= self.level or running > self.most_running * SHARES[rank]:
            self.refused += 1
            raise overloaded("this gateway is", 1.0 + rank)
