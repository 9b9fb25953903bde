"""Calls that are interrupted at each of their waits in turn, in whichever of their tasks that is; and what has to be as
before then: books, places, connections, tasks and timers.

A `Cut` says at which wait and how. `cutting` puts it around a server's handler, and `watch` around every task that is
begun within a call that is cut.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Self

from tests.unit.call_rig import Rig, read_records

from groundplan.core.errors import Unavailable
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.upstream.http1_pool import Http1Pool
from groundplan.ledger.model import Finish, Reservation, Settlement

How = Literal["cancelled", "just_ready", "again", "gone", "os_error", "memory", "refused"]
HOWS: tuple[How, ...] = ("cancelled", "just_ready", "again", "gone", "os_error", "memory", "refused")
"""cancelled: while it waits. just_ready: when what it waits for has just come. again: at each wait of its cleaning up,
too. gone: its client is. The others are raised where it goes on."""
ENDS: tuple[How, ...] = HOWS[:4]
"""Those by which nobody waits for the call any more."""
MARK = b"x-cut"
"""Header of the request that is cut."""
PASSING = {
    "Server._sweep", "Journal._want_sync_if_due", "Journal._end_pause", "Http1Pool._close_expired",
    "StallMonitor._tick", "Pressure._tick", "_SelectorTransport.abort", "Http1Connection._expire",
}  # fmt: skip
"""Timers of a worker, and of connections, that are no call's."""
_RAISED: dict[How, Callable[[], Exception]] = {
    "os_error": lambda: OSError(5, "interrupted"),
    "memory": lambda: MemoryError("interrupted"),
    "refused": lambda: Unavailable("interrupted", code="interrupted", hint="Nothing.", retry_after=1.0),
}
_AGAIN = 4
_cut: ContextVar[Cut | None] = ContextVar("cut", default=None)


class Cut:
    """At the `at`-th wait of a call, counted over all its tasks; 0: never."""

    def __init__(self, at: int, how: How) -> None:
        self.at, self.how = at, how
        self.leave: Callable[[], None] = lambda: None
        """Closes its client's connection."""
        self.waits = 0
        self.over = False
        """Nothing is counted any more."""
        self.where = ""
        """The code that waited."""
        self.main: asyncio.Task[Any] | None = None
        self.ended: BaseException | None = None
        self._more = 0

    @property
    def reached(self) -> bool:
        """Whether it waited so often."""
        return self.waits >= self.at

    def waiting(self, coroutine: Any, waited: Any) -> Exception | None:
        """One more wait; `waited` is the future, or nothing for a turn of the loop. Returns what is raised where it
        goes on."""
        main, loop = self.main, asyncio.get_running_loop()
        self.waits += 1
        if main is None:
            return None
        if self._more and asyncio.current_task() is main:
            self._more -= 1
            loop.call_soon(main.cancel)
        if self.waits != self.at:
            return None
        self.where = _where(coroutine)
        if self.how == "gone":
            loop.call_soon(self.leave)
        elif self.how == "just_ready" and waited is not None and asyncio.current_task() is main:
            waited.add_done_callback(lambda _: main.cancel())  # before the task itself hears of it
        elif self.how in ENDS:
            self._more = _AGAIN if self.how == "again" else 0
            loop.call_soon(main.cancel)
        return _RAISED[self.how]() if self.how in _RAISED else None


def _where(coroutine: Any) -> str:
    """The innermost line of ours that waits."""
    found = ""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None and "groundplan" in frame.f_code.co_filename:
            found = f"{frame.f_code.co_filename.rpartition('groundplan/')[2]}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return found


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine of which each wait is told to a cut."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], cut: Cut) -> None:
        self._inner, self._cut = coroutine, cut
        self._raised: Exception | None = None

    def send(self, value: Any) -> Any:
        raised, self._raised = self._raised, None
        return self._waits(self._inner.send(value) if raised is None else self._inner.throw(raised))

    def throw(self, *error: Any) -> Any:
        self._raised = None
        return self._waits(self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def _waits(self, waited: Any) -> Any:
        if not self._cut.over:
            self._raised = self._cut.waiting(self._inner, waited)
        return waited

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """From now on tasks that are begun within a call that is cut belong to it."""

    def task(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        cut = _cut.get()
        return asyncio.Task(coroutine if cut is None or cut.over else Stepped(coroutine, cut), loop=loop, **more)

    loop.set_task_factory(task)


@contextmanager
def cutting(server: Server, cut: Cut) -> Iterator[None]:
    """The next request of a server that has the mark is cut."""
    inner = server.handler

    def handle(request: Request, response: Response) -> Awaitable[None]:
        cuts = cut.main is None and MARK in request.headers
        return _handled(inner, request, response, cut) if cuts else inner(request, response)

    server.handler = handle
    try:
        yield
    finally:
        server.handler = inner


async def _handled(inner: Any, request: Request, response: Response, cut: Cut) -> None:
    cut.main = asyncio.current_task()
    token = _cut.set(cut)
    try:
        await Stepped(_awaited(inner(request, response)), cut)
    except BaseException as error:
        cut.ended = error
        raise
    finally:
        _cut.reset(token)


async def _awaited(work: Awaitable[None]) -> None:
    await work


# what is left --------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a worker holds, by name; what it holds nothing of is not there."""

    held: dict[str, Any]
    timers: Counter[str]
    tasks: set[asyncio.Task[Any]]


def seen(rig: Rig) -> Seen:
    gateway, loop = rig.gateway, rig.gateway.loop
    held: dict[str, Any] = {
        "running": gateway.running_calls,
        "streams": len(gateway.streams) + gateway.call_counters.open_streams,
        "background": len(gateway.background),
        "reserved": gateway.slices.open_reservations,
        "limits": gateway.limit_slices.open_reservations,
        "queued": gateway.loads.queued_calls,
        "places": {name: running for name, (running, _) in gateway.loads.limits().items() if running},
        "room": gateway.answer_memory.held_bytes + gateway.answer_memory.waiting_count,
        "beyond": gateway.answer_memory._overdrawn,
        "bodies": rig.server.held_bytes,
        "flights": len(gateway.answer_cache._flights),
        "keys": sum(not each.answer.done() for each in gateway.idempotent_answers._entries.values()),
        "open calls": gateway.journal.open_calls,
        "files": 0 if gateway.files is None else gateway.files.held,
        "upstreams": {name: server.active_requests for name, server in rig.upstreams.items() if server.active_requests},
        "connections": _connections(gateway),
        "answering": rig.server.active_requests,
    }
    scheduled: Any = loop
    timers = Counter(_name(each) for each in scheduled._scheduled if not each.cancelled())
    return Seen({name: what for name, what in held.items() if what}, timers, asyncio.all_tasks())


def _name(handle: Any) -> str:
    callback = handle._callback
    while hasattr(callback, "func"):
        callback = callback.func
    return str(getattr(callback, "__qualname__", callback))


def _connections(gateway: Any) -> dict[str, list[str]]:
    """By upstream, those that are neither idle nor used, or idle with something of a call in them."""
    found: dict[str, list[str]] = {}
    pools = gateway.targets._pools
    for pool in (*pools._plain_pools.values(), *(pool for _, pool in pools._pools.values())):
        if not isinstance(pool, Http1Pool):
            found[pool.url] = ["used"] * len(pool.calls)
            continue
        used = [each for each in pool._connections if each not in pool._idle_connections]
        kept = [each for each in pool._idle_connections if each.in_use or each._chunks or each._is_sent or each._unsent]
        found[pool.url] = ["used"] * len(used) + ["unclean"] * len(kept)
    return {url: what for url, what in found.items() if what}


async def settles(rig: Rig, before: Seen, seconds: float = 20.0) -> list[str]:
    """What is not as before, once nothing goes on any more, or after so long."""
    end = rig.gateway.loop.time() + seconds
    while True:
        now, was = seen(rig), before.held
        names = sorted({*now.held, *was})
        wrong = [f"{n}: {now.held.get(n)}, was {was.get(n)}" for n in names if now.held.get(n) != was.get(n)]
        tasks = [each for each in now.tasks - before.tasks if not each.done() and each is not asyncio.current_task()]
        wrong += [f"task {each.get_coro()}" for each in tasks]
        wrong += [f"timer {name}" for name in now.timers - before.timers if name not in PASSING]
        if not wrong or rig.gateway.loop.time() > end:
            return wrong
        await asyncio.sleep(0.005)


def books(rig: Rig) -> list[str]:
    """What is wrong in the journal: each attempt has one settlement, each call one end."""
    records = read_records(rig.gateway.journal.folder)
    made = Counter((r.call, r.attempt) for r in records if isinstance(r, Reservation) and r.deployment)
    ended = Counter((r.call, r.attempt) for r in records if isinstance(r, Settlement))
    ends = Counter(r.call for r in records if isinstance(r, Finish))
    pairs, calls = {*made, *ended}, {*ends, *(call for call, _ in made)}
    wrong = [
        f"attempt {each} is made {made[each]} and settled {ended[each]} times"
        for each in pairs
        if (made[each], ended[each]) != (1, 1)
    ]
    return wrong + [f"call {each!r} has {ends[each]} ends" for each in calls if ends[each] != 1]
