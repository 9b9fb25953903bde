"""Interrupts a call at any of its waits, in whichever of its tasks, and finds what it leaves behind: entries of the
journal, slots, connections, tasks and timers.

An `Interruption` says at which wait and how. `interrupting` applies it to a request of a server, and
`track_call_tasks` also to the tasks that this request starts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Self

from tests.closing import active_requests
from tests.unit.call_rig import Rig, read_records

from groundplan.core.errors import Unavailable
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.upstream.http1_pool import Http1Pool
from groundplan.ledger.model import Finish, Reservation, Settlement

InterruptionKind = Literal["cancelled", "just_ready", "again", "gone", "os_error", "memory", "refused"]
INTERRUPTION_KINDS: tuple[InterruptionKind, ...] = (
    "cancelled",
    "just_ready",
    "again",
    "gone",
    "os_error",
    "memory",
    "refused",
)
"""cancelled: the call is cancelled while it waits. just_ready: cancelled just after the result that it waits for has
arrived. again: cancelled, and again at the next waits of its cleanup. gone: its client disconnects. The others are
errors that are raised where the call goes on."""
CLIENT_GONE_KINDS: tuple[InterruptionKind, ...] = INTERRUPTION_KINDS[:4]
"""Kinds after which nobody waits for the call any more."""
MARK_HEADER = b"x-cut"
"""Header that marks the request to interrupt."""
UNRELATED_TIMERS = {
    "Server._sweep", "Journal._want_sync_if_due", "Journal._end_pause", "Http1Pool._close_expired",
    "StallMonitor._tick", "Pressure._tick", "_SelectorTransport.abort", "Http1Connection._expire",
}  # fmt: skip
"""Timers of the worker and of its connections, which belong to no call."""
_ERRORS: dict[InterruptionKind, Callable[[], Exception]] = {
    "os_error": lambda: OSError(5, "interrupted"),
    "memory": lambda: MemoryError("interrupted"),
    "refused": lambda: Unavailable("interrupted", code="interrupted", hint="Nothing.", retry_after=1.0),
}
_REPEATED_CANCELLATIONS = 4
_current_interruption: ContextVar[Interruption | None] = ContextVar("cut", default=None)


class Interruption:
    """Interrupts a call in the way `kind` at its wait `wait_number`, counted over all its tasks; 0: never."""

    def __init__(self, wait_number: int, kind: InterruptionKind) -> None:
        self.wait_number, self.kind = wait_number, kind
        self.disconnect_client: Callable[[], None] = lambda: None
        """Closes the connection of the call's client."""
        self.waits = 0
        self.is_over = False
        """Whether waits are no longer counted."""
        self.interrupted_line = ""
        """File and line of the interrupted wait."""
        self.main_task: asyncio.Task[Any] | None = None
        self.error: BaseException | None = None
        self._remaining_cancellations = 0

    @property
    def is_reached(self) -> bool:
        """Whether the call has come to that wait."""
        return self.waits >= self.wait_number

    def on_wait(self, coroutine: Any, future: Any) -> Exception | None:
        """Count a wait for `future`, or for a turn of the loop if None. Returns the error to raise where the call goes
        on, if any."""
        main_task, loop = self.main_task, asyncio.get_running_loop()
        self.waits += 1
        if main_task is None:
            return None
        if self._remaining_cancellations and asyncio.current_task() is main_task:
            self._remaining_cancellations -= 1
            loop.call_soon(main_task.cancel)
        if self.waits != self.wait_number:
            return None
        self.interrupted_line = _innermost_line(coroutine)
        if self.kind == "gone":
            loop.call_soon(self.disconnect_client)
        elif self.kind == "just_ready" and future is not None and asyncio.current_task() is main_task:
            future.add_done_callback(lambda _: main_task.cancel())  # before the task's own callback
        elif self.kind in CLIENT_GONE_KINDS:
            self._remaining_cancellations = _REPEATED_CANCELLATIONS if self.kind == "again" else 0
            loop.call_soon(main_task.cancel)
        return _ERRORS[self.kind]() if self.kind in _ERRORS else None


def _innermost_line(coroutine: Any) -> str:
    """File and line of the innermost frame of the project that waits."""
    line = ""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None and "groundplan" in frame.f_code.co_filename:
            line = f"{frame.f_code.co_filename.rpartition('groundplan/')[2]}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return line


class InterruptibleCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine whose waits are reported to an interruption."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], interruption: Interruption) -> None:
        self._inner, self._interruption = coroutine, interruption
        self._pending_error: Exception | None = None

    def send(self, value: Any) -> Any:
        pending_error, self._pending_error = self._pending_error, None
        return self._record_wait(self._inner.send(value) if pending_error is None else self._inner.throw(pending_error))

    def throw(self, *error: Any) -> Any:
        self._pending_error = None
        return self._record_wait(self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def _record_wait(self, future: Any) -> Any:
        if not self._interruption.is_over:
            self._pending_error = self._interruption.on_wait(self._inner, future)
        return future

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def track_call_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on the waits of tasks that an interrupted call starts count as the call's own."""

    def create_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        interruption = _current_interruption.get()
        return asyncio.Task(
            coroutine
            if interruption is None or interruption.is_over
            else InterruptibleCoroutine(coroutine, interruption),
            loop=loop,
            **options,
        )

    loop.set_task_factory(create_task)


@contextmanager
def interrupting(server: Server, interruption: Interruption) -> Iterator[None]:
    """In this context the next request of the server that has the mark is interrupted."""
    handler = server.handler

    def handle(request: Request, response: Response) -> Awaitable[None]:
        is_marked = interruption.main_task is None and MARK_HEADER in request.headers
        return (
            _handle_interrupted(handler, request, response, interruption) if is_marked else handler(request, response)
        )

    server.handler = handle
    try:
        yield
    finally:
        server.handler = handler


async def _handle_interrupted(handler: Any, request: Request, response: Response, interruption: Interruption) -> None:
    interruption.main_task = asyncio.current_task()
    token = _current_interruption.set(interruption)
    try:
        await InterruptibleCoroutine(_await(handler(request, response)), interruption)
    except BaseException as error:
        interruption.error = error
        raise
    finally:
        _current_interruption.reset(token)


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable


# leftovers -----------------------------------------------------------------------------------------------------------


@dataclass
class HeldResources:
    """The resources that a worker holds, by name, without those that are empty; its timers and tasks."""

    held: dict[str, Any]
    timers: Counter[str]
    tasks: set[asyncio.Task[Any]]


def held_resources(rig: Rig) -> HeldResources:
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
        "upstreams": {
            name: active_requests(server) for name, server in rig.upstreams.items() if active_requests(server)
        },
        "connections": _connections_in_use(gateway),
        "answering": active_requests(rig.server),
    }
    scheduled: Any = loop
    timers = Counter(_timer_name(each) for each in scheduled._scheduled if not each.cancelled())
    return HeldResources({name: what for name, what in held.items() if what}, timers, asyncio.all_tasks())


def _timer_name(handle: Any) -> str:
    callback = handle._callback
    while hasattr(callback, "func"):
        callback = callback.func
    return str(getattr(callback, "__qualname__", callback))


def _connections_in_use(gateway: Any) -> dict[str, list[str]]:
    """By upstream URL, its connections in use, and the idle ones that still have something of a call in them."""
    states: dict[str, list[str]] = {}
    pools = gateway.targets._pools
    for pool in (*pools._plain_pools.values(), *(pool for _, pool in pools._pools.values())):
        if not isinstance(pool, Http1Pool):
            states[pool.url] = ["used"] * len(pool.calls)
            continue
        busy = [each for each in pool._connections if each not in pool._idle_connections]
        unclean = [
            each for each in pool._idle_connections if each.in_use or each._chunks or each._is_sent or each._unsent
        ]
        states[pool.url] = ["used"] * len(busy) + ["unclean"] * len(unclean)
    return {url: what for url, what in states.items() if what}


async def find_leftovers(rig: Rig, before: HeldResources, seconds: float = 20.0) -> list[str]:
    """The differences between what the worker holds and what it held `before`: empty as soon as there are none, else
    those that are left after `seconds`."""
    end = rig.gateway.loop.time() + seconds
    while True:
        now, held_before = held_resources(rig), before.held
        names = sorted({*now.held, *held_before})
        leftovers = [
            f"{n}: {now.held.get(n)}, was {held_before.get(n)}" for n in names if now.held.get(n) != held_before.get(n)
        ]
        tasks = [each for each in now.tasks - before.tasks if not each.done() and each is not asyncio.current_task()]
        leftovers += [f"task {each.get_coro()}" for each in tasks]
        leftovers += [f"timer {name}" for name in now.timers - before.timers if name not in UNRELATED_TIMERS]
        if not leftovers or rig.gateway.loop.time() > end:
            return leftovers
        await asyncio.sleep(0.005)


def journal_faults(rig: Rig) -> list[str]:
    """A sentence for each attempt without exactly one settlement and each call without exactly one finish."""
    records = read_records(rig.gateway.journal.folder)
    reserved = Counter((r.call, r.attempt) for r in records if isinstance(r, Reservation) and r.deployment)
    ended = Counter((r.call, r.attempt) for r in records if isinstance(r, Settlement))
    finished = Counter(r.call for r in records if isinstance(r, Finish))
    pairs, calls = {*reserved, *ended}, {*finished, *(call for call, _ in reserved)}
    faults = [
        f"attempt {each} is made {reserved[each]} and settled {ended[each]} times"
        for each in pairs
        if (reserved[each], ended[each]) != (1, 1)
    ]
    return faults + [f"call {each!r} has {finished[each]} ends" for each in calls if finished[each] != 1]
