"""One gateway worker: `python -m groundplan.gateway.app --home HOME --fd N --slot I`.

The composition root of the request path. It serves on the listening socket that it inherits, writes its own journal
epoch, and exits when its journal fails or its epoch is fenced: the supervisor starts another. Asked to stop, it accepts
no more, lets running answers end, and ends the remaining streams with an error event. Asked to leave, since another
worker has taken over, it gives them far longer. Does not restart itself.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar

import uvloop

from groundplan.core import logs
from groundplan.core.clock import Clock, NonDecreasingClock, SystemClock
from groundplan.core.database import database_url
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway import memory, preload
from groundplan.gateway.background.runner import BackgroundRunner
from groundplan.gateway.batches.batch_runner import BatchRunner
from groundplan.gateway.batches.batches_api import BatchesApi
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.budgets.windows import WindowClock
from groundplan.gateway.caching.answer_cache import AnswerCache
from groundplan.gateway.caching.cache_link import AnswerLink
from groundplan.gateway.caching.idempotency import IdempotentAnswers
from groundplan.gateway.caching.semantic import SemanticCache
from groundplan.gateway.caching.semantic_checks import CheckStore
from groundplan.gateway.caching.semantic_counts import SemanticCounts
from groundplan.gateway.caching.sharing import AnswerServer
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.facts_api import FactsApi
from groundplan.gateway.call.grounding.citation_store import Citations
from groundplan.gateway.call.model_versions import ModelVersions
from groundplan.gateway.call.pipeline import Pipeline, body_memory_share, has_streamed_body, is_realtime, workload_of
from groundplan.gateway.call.repeats import Repeats
from groundplan.gateway.call.signals import Signals
from groundplan.gateway.experiments.pairs import Pairs
from groundplan.gateway.experiments.replays import replayed
from groundplan.gateway.experiments.shadow import Shadows
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.guard.counts import GuardCounts
from groundplan.gateway.guard.kills import sever_stopped
from groundplan.gateway.guard.reviews import Reviews
from groundplan.gateway.http.bounds import Limits
from groundplan.gateway.http.listeners import LEAVE_SIGNAL, Listeners, ListenSockets, mark_serving, serving_file
from groundplan.gateway.http.server import Server
from groundplan.gateway.http.tls import ServerFiles
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.journal_unavailable import journal_of
from groundplan.gateway.mcp.endpoint import McpApi
from groundplan.gateway.policy.catalog import Catalog
from groundplan.gateway.policy.ended_key_budgets import unusable_budgets
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.routing.routes import Routes
from groundplan.gateway.stalls import stall_monitor_of
from groundplan.gateway.surfaces.chat.sealed_store import SealedCompletions
from groundplan.gateway.surfaces.messages import errors as messages_errors
from groundplan.gateway.surfaces.responses.sealed_store import SealedResponses
from groundplan.gateway.telemetry.content_link import ContentSender
from groundplan.gateway.telemetry.scrape import MetricsScraper
from groundplan.gateway.telemetry.worker_families import gather_families
from groundplan.gateway.ticks import sleep_to_tick
from groundplan.gateway.upstream.dial import resolver_of
from groundplan.gateway.upstream.health import Health
from groundplan.gateway.upstream.targets import Targets

SEGMENT_BYTES = 16 << 20
GC_THRESHOLDS = (10_000, 5, 200)
"""Thresholds of the garbage collector. Calls leave hardly any cycles, and the default of 2,000 objects would collect at
every tenth call. All calls wait for a collection: where fifty thousand keys are reloaded, or a burst of calls comes, it
covers 50,000 young objects, which takes 20 ms, and not four times as many."""
CLOSING_SECONDS = 2.0
"""The part of the time for draining that is reserved for ending streams."""
POLL_SECONDS = 0.05
"""How often a worker checks whether to end, and reads what a `kill` without PostgreSQL wrote."""
LOADING_SECONDS = 2.0
"""How long a worker waits for a blueprint before it listens without one."""
JOURNAL_FAILED = 74
"""Exit code (EX_IOERR): restart with a new epoch."""
FENCED = 75
BROKEN = 70
_log = logging.getLogger(__name__)


class _HasClose(Protocol):
    async def close(self) -> None: ...


class _HasRun(_HasClose, Protocol):
    async def run(self) -> None: ...


class _Runner(_HasRun, Protocol):
    """Makes calls in the background. `run` until cancelled; `stop` begins no more, `close` ends it."""

    @property
    def busy(self) -> bool: ...

    def stop(self) -> None: ...


OWN_FILES = 256
"""Open files of a worker besides those of calls."""
_FEWEST_CALLS = 64
_Closed = TypeVar("_Closed", bound=_HasClose)
_Running = TypeVar("_Running", bound=_HasRun)


async def serve(
    home: Home,
    sockets: ListenSockets,
    slot: int,
    drain_seconds: float = 15.0,
    leave_seconds: float = 600.0,
    segment_bytes: int = SEGMENT_BYTES,
    clock: Clock | None = None,
    workers: int = 0,
) -> int:
    """Serve until a signal, a failed journal or a fence; returns the exit code. `clock` is the machine's by default.
    `workers`: how many should run; 0: not known."""
    loop = asyncio.get_running_loop()
    loop.getaddrinfo = resolver_of(loop).getaddrinfo_of_database  # type: ignore[method-assign]  # psycopg alone asks it
    async with Parts() as parts:
        stalls = stall_monitor_of(loop)
        stalls.start()
        parts.callback(stalls.stop)
        url = database_url(home, load_settings(), "gateway")
        journal = await journal_of(home, sockets, partial(_open_journal, home, loop, segment_bytes))
        gateway, live, leases = _build_gateway(parts, home, url, journal, NonDecreasingClock(clock or SystemClock()))
        await parts.close_at_end(AnswerServer(gateway.idempotent_answers)).open()
        gateway.scrapes = parts.close_at_end(MetricsScraper(home, slot, load_settings().metrics_token, workers))
        await gateway.scrapes.open(lambda: gather_families(gateway))
        _start_background_parts(parts, gateway, home, url)
        pipeline, batches, background = _request_path(parts, gateway, home, url, leases)
        worker = Worker(gateway, live, home, _server(gateway, pipeline), sockets, (batches, background))
        await leases.start()
        await worker.begin()
        _log.info("worker %d started: epoch %s, pid %d", slot, journal.epoch, os.getpid())
        code = await worker.watch()
        await worker.end(code, drain_seconds, leave_seconds)
    _log.info("worker %d stopped: epoch %s, code %d", slot, journal.epoch, code)
    return code


def _open_journal(home: Home, loop: asyncio.AbstractEventLoop, segment_bytes: int) -> Journal:
    """Open a new journal with an epoch of its own. Raises `Unavailable`."""
    return Journal.open(home.journal / str(epoch := new_id()), epoch, loop, segment_bytes)


class Parts(AsyncExitStack):
    """The parts of a worker, closed in the reverse order of their creation."""

    def close_at_end(self, part: _Closed) -> _Closed:
        """Close `part` at the end."""
        self.push_async_callback(part.close)
        return part

    def run_until_end(self, part: _Running) -> _Running:
        """Run a part in the background; that is cancelled before the part is closed."""
        self.close_at_end(part)
        self.push_async_callback(_cancel_and_wait, asyncio.get_running_loop().create_task(part.run()))
        return part


async def _cancel_and_wait(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end, so that what it held is released before its part is closed."""
    task.cancel()
    await asyncio.wait([task])


class Worker:
    """A worker from its first call to its last. Handles signals and follows live policy from its creation on; does not
    close its parts."""

    def __init__(
        self,
        gateway: Gateway,
        live: LiveView,
        home: Home,
        server: Server,
        sockets: ListenSockets,
        runners: Sequence[_Runner],
    ) -> None:
        self._gateway = gateway
        self._live = live
        self._home = home
        self._server = server
        self._listeners = Listeners(server, sockets)
        self._runners = runners
        self._stop, self._leave = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            gateway.loop.add_signal_handler(number, self._stop.set)
        gateway.loop.add_signal_handler(LEAVE_SIGNAL, self._leave.set)
        self._following = gateway.loop.create_task(live.run())
        self._tasks = [self._following]

    async def begin(self) -> None:
        """Listen once there is a blueprint: a worker that listens without one would refuse calls that its siblings can
        answer."""
        gateway = self._gateway
        self._tasks += [gateway.loop.create_task(each.run()) for each in self._runners]
        with suppress(TimeoutError):
            await asyncio.wait_for(self._live.loaded.wait(), LOADING_SECONDS)
        if (catalog := self._live.catalog) is not None:
            preload.load(preload.missing(catalog.blueprint))
        self._set_ready(ready=self._live.loaded.is_set())
        gc.collect()
        gc.freeze()
        memory.move_to_large_pages()
        await self._listeners.open()
        gateway.loop.add_signal_handler(signal.SIGHUP, self._listeners.check_soon)
        self._tasks.append(gateway.loop.create_task(self._listeners.watch()))
        gc.set_threshold(*GC_THRESHOLDS)
        gateway.pressure.start()

    async def watch(self) -> int:
        """Keep `ready` up to date until it is time to end; returns the exit code."""
        is_marked = False
        while not self._stop.is_set() and not self._leave.is_set():
            if self._live.fenced.is_set():
                return FENCED
            if not self._gateway.journal.healthy:
                return JOURNAL_FAILED
            if self._following.done():
                _log.error("live policy is followed no more", exc_info=self._following.exception())
                return BROKEN
            self._live.read_kill_file()
            ready = self._live.loaded.is_set()
            serves = ready or self._live.is_undeclared  # without a blueprint each worker refuses calls alike
            is_marked = serves and (is_marked or self._mark_serving())
            self._set_ready(ready=ready)
            await sleep_to_tick(POLL_SECONDS)
        return 0

    def _mark_serving(self) -> bool:
        """Write the file that says that this worker serves; returns whether that succeeded. Where HOME/run cannot be
        written the worker serves all the same, and tries again."""
        try:
            mark_serving(self._home)
        except OSError:
            return False
        return True

    async def end(self, code: int, drain_seconds: float, leave_seconds: float) -> None:
        """Accept no more, let running answers end, and end those that do not. `code`: the result of `watch`."""
        self._set_ready(ready=False)
        for each in self._runners:
            each.stop()
        self._listeners.close()
        with suppress(OSError):  # running calls get their time also where the disk is full
            serving_file(self._home, os.getpid()).unlink(missing_ok=True)
        if code == 0 and not self._stop.is_set():
            await self._finish_running(leave_seconds)
        await self._drain(drain_seconds)
        self._gateway.pressure.stop()  # not before: its level decides about every call that still comes
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for each in self._runners:
            await each.close()

    def _set_ready(self, *, ready: bool) -> None:
        self._gateway.ready = self._live.ready = ready

    @property
    def _is_busy(self) -> bool:
        """Whether any work runs: calls with an Idempotency-Key and attempts being drained outlive their connections."""
        return bool(any(each.busy for each in self._runners) or self._gateway.running_calls or self._gateway.background)

    async def _finish_running(self, seconds: float) -> None:
        """Let running calls, streams and conversations end by themselves, until `seconds` are over or the worker is
        asked to stop. Live policy and budgets apply to them meanwhile."""
        gateway = self._gateway
        ending, end = gateway.loop.create_task(self._server.quiesce(seconds)), gateway.loop.time() + seconds
        gateway.conversations_until = end
        while not (ending.done() and not self._is_busy) and gateway.loop.time() < end:
            if self._stop.is_set() or self._live.fenced.is_set() or not gateway.journal.healthy:
                break
            self._live.read_kill_file()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._stop.wait()
        gateway.conversations_until = 0.0
        ending.cancel()
        await asyncio.wait([ending])

    async def _drain(self, seconds: float) -> None:
        """Let running answers end; then end the others, while there is still time to send their clients an error."""
        gateway = self._gateway
        end = gateway.loop.time() + seconds
        await self._server.quiesce(max(0.0, seconds - CLOSING_SECONDS))
        while self._is_busy and gateway.loop.time() < end - CLOSING_SECONDS:  # noqa: ASYNC110 -- it has a deadline
            await asyncio.sleep(0.02)
        gateway.targets.stop("this gateway is being stopped")
        await self._server.drain(min(seconds, CLOSING_SECONDS))
        while self._is_busy and gateway.loop.time() < end:  # noqa: ASYNC110 -- it has a deadline
            await asyncio.sleep(0.02)


def _build_gateway(
    parts: Parts, home: Home, url: str, journal: Journal, clock: Clock
) -> tuple[Gateway, LiveView, LeaseClient]:
    """Build what every call uses. Its journal and leases are closed last, as other parts still write to them."""
    loop, slices, counters, windows = asyncio.get_running_loop(), Slices(), Slices(), WindowClock()
    live = LiveView(url, home, journal.epoch, clock, slices)
    leases = LeaseClient(url, journal, slices, home=home.root, clock=clock, counters=counters, windows=windows)
    answers = IdempotentAnswers(home.journal, journal.epoch, clock.now().timestamp())
    targets = Targets(home, loop)
    gateway = Gateway(
        epoch=journal.epoch,
        loop=loop,
        clock=clock,
        journal=journal,
        slices=slices,
        limit_slices=counters,
        windows=windows,
        leases=leases,
        live=live,
        targets=targets,
        idempotent_answers=answers,
        answer_cache=AnswerCache(load_settings().cache_memory),
        scratch=home.run,
    )
    gateway.routes = Routes(home.root / "routers")
    live.health = lambda: told_health(gateway.health, loop.time(), targets.key_problems(), gateway.flex_health)
    leases.set_ended_key_lookup(lambda budgets: unusable_budgets(budgets, live.policy.keys, clock.seconds()))
    live.on_policy = lambda policy: heed(gateway, policy)
    live.on_blueprint = partial(_take_up, gateway, leases)
    parts.callback(answers.close)
    parts.callback(targets.close)
    for part in (live, journal, leases):
        parts.push_async_callback(part.close)
    return gateway, live, leases


def _request_path(
    parts: Parts, gateway: Gateway, home: Home, url: str, leases: LeaseClient
) -> tuple[Pipeline, BatchRunner, BackgroundRunner]:
    """What answers requests, and what makes the calls that nobody waits for."""
    blobs = Blobs(home)
    gateway.stored_responses = parts.close_at_end(SealedResponses(home, url))
    gateway.stored_completions = parts.close_at_end(SealedCompletions(home, url))
    batches, facts = parts.close_at_end(BatchesApi(gateway, url, blobs)), parts.close_at_end(FactsApi(gateway, url))
    facts.replay = replayed
    pipeline = Pipeline(gateway, facts, batches, parts.close_at_end(McpApi(gateway, home, facts.search)))
    gateway.background_responses = background = BackgroundRunner(gateway, home, url)
    return pipeline, BatchRunner(gateway, leases, pipeline, url, blobs), background


def _server(gateway: Gateway, pipeline: Pipeline) -> Server:
    """Its HTTP, which is not listening yet."""
    files, held = resource.getrlimit(resource.RLIMIT_NOFILE)[0], load_settings().request_memory
    server = Server(
        pipeline.handle,
        messages_errors.refusal_body,
        gateway.loop,
        Limits(total_body_bytes=held, connections=connections(files)),
    )
    gateway.answer_memory.limit, gateway.server = held, server
    server.is_streamed, server.accepts_websocket = has_streamed_body, is_realtime
    server.memory_share, server.workload_name = partial(body_memory_share, gateway), partial(workload_of, gateway)
    return server


def _start_background_parts(parts: Parts, gateway: Gateway, home: Home, url: str) -> None:
    """Start the parts that write to PostgreSQL what calls have produced (counts, citations, signals ...). No call waits
    for them, except for `gateway.reviews`."""
    start = parts.run_until_end
    gateway.guard_counts = start(GuardCounts(url, gateway.clock))
    gateway.citations = start(Citations(url))
    gateway.shadow_trials = Shadows(gateway, start(Pairs(url)))
    gateway.signals = start(Signals(home, url, gateway.clock))
    gateway.model_versions = start(ModelVersions(url))
    gateway.repeats = start(Repeats(url))
    gateway.answer_cache.similar = meanings = SemanticCache(gateway)
    meanings.tally, meanings.checks = start(SemanticCounts(url, gateway.clock)), start(CheckStore(url))
    gateway.reviews = parts.close_at_end(Reviews(home, url, gateway.epoch))
    gateway.content_sender = ContentSender(home, gateway.call_counters)
    for work in (
        gateway.content_sender.run(),
        AnswerLink(gateway, home).run(),
        memory.watch(lambda: gateway.running_calls),
    ):
        parts.callback(gateway.loop.create_task(work).cancel)


def _allow_files() -> None:
    """As many open connections as this user may have: one stream takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections(files: int) -> int:
    """How many clients may be connected to a process that may have so many files open. A call takes two, and the
    journal, PostgreSQL and whoever is called have theirs however many clients there are."""
    return min(Limits().connections, max(_FEWEST_CALLS, (files - OWN_FILES) // 2))


def _sockets(arguments: argparse.Namespace) -> ListenSockets:
    files = None
    if arguments.tls_cert is not None:
        files = ServerFiles(arguments.tls_cert, arguments.tls_key or arguments.tls_cert, arguments.tls_client_ca)
    local = socket.socket(fileno=arguments.local_fd) if arguments.local_fd is not None else None
    return ListenSockets(socket.socket(fileno=arguments.fd), files, local, close_sockets=True)


def heed(gateway: Gateway, policy: Policy) -> None:
    """What holds of a new policy at once: answers that may not be given again, and those that may not go on."""
    gateway.answer_cache.apply_policy(policy)
    sever_stopped(policy, gateway.streams)


def told_health(
    health: Health, now: float, keys: Mapping[str, str] = MappingProxyType({}), flex: Health | None = None
) -> dict[str, str]:
    """`open: why` or `half_open: why` of each deployment that is not well, or has lately not been, and `closed: why` of
    one of whose `keys` some rest, or that calls at `flex` ask last."""
    health.forget_old(now)
    last = {}
    if flex is not None:
        flex.forget_old(now)
        last = {name: f"calls at flex ask it last: {why}" for name, why in flex.reasons().items()}
    reasons, states = health.reasons(), health.states(now)
    names = dict.fromkeys((*states, *keys, *last))
    whys = {name: [each for each in (reasons.get(name), keys.get(name), last.get(name)) if each] for name in names}
    return {name: f"{states.get(name, 'closed')}: {'; '.join(whys[name])}" for name in names}


def _take_up(gateway: Gateway, leases: LeaseClient, catalog: Catalog) -> None:
    """What a new blueprint changes beside the calls that come under it."""
    most = {} if catalog.limits is None else catalog.limits.limit_amounts
    leases.apply_declarations(catalog.blueprint.budgets, most, catalog.number)
    others = gateway.health.declare(catalog.blueprint.deployments)
    gateway.flex_health.declare(catalog.blueprint.deployments)
    gateway.latencies.forget(others)
    gateway.loads.forget(others)
    gateway.targets.declare(catalog.blueprint.deployments)
    if names := preload.missing(catalog.blueprint):
        gateway.run_in_background(asyncio.to_thread(preload.load, names))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m groundplan.gateway.app")
    parser.add_argument("--home", required=True)
    parser.add_argument("--fd", type=int, required=True, help="the inherited listening socket")
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="how many should run")
    parser.add_argument("--local-fd", type=int, help="an inherited socket of this machine, served in the clear")
    parser.add_argument("--tls-cert", type=Path, help="certificate chain that --fd shows")
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--tls-client-ca", type=Path, help="whose certificates callers at --fd must show")
    parser.add_argument("--drain", type=float, default=15.0, help="seconds for running answers after a stop")
    parser.add_argument("--leave", type=float, default=600.0, help="seconds for them where another worker takes over")
    parser.add_argument(
        "--segment-bytes", type=int, default=SEGMENT_BYTES, help="size of a journal segment; two are always there"
    )
    arguments = parser.parse_args(argv)
    logs.configure(f"gateway-{arguments.slot}")
    try:
        _allow_files()
        home = Home(Path(arguments.home).absolute())
        sockets, size = _sockets(arguments), arguments.segment_bytes
        times = arguments.drain, arguments.leave
        return uvloop.run(serve(home, sockets, arguments.slot, *times, size, workers=arguments.workers))
    except GroundplanError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
