"""One gateway worker: `python -m groundplan.gateway.app --home HOME --fd N --slot I`.

The composition root of the request path. It serves on the listening socket that it inherits, writes its own journal
epoch, and ends itself when its journal fails or its epoch is fenced: the supervisor starts another. Restarts are not
its business.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import uvloop

from groundplan.core import logs
from groundplan.core.clock import Clock, OnwardClock, SystemClock
from groundplan.core.database import database_url
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway.answers import of_refusal
from groundplan.gateway.context import Gateway
from groundplan.gateway.facts_api import FactsApi
from groundplan.gateway.idempotency import Answers
from groundplan.gateway.journal import Journal
from groundplan.gateway.lease_store import LeaseClient
from groundplan.gateway.leases import Slices
from groundplan.gateway.live import LiveView
from groundplan.gateway.metrics import families
from groundplan.gateway.pipeline import Pipeline
from groundplan.gateway.scrape import Scrapes
from groundplan.gateway.server import Server
from groundplan.gateway.sharing import AnswerDesk
from groundplan.gateway.targets import Targets

DRAIN_SECONDS = 15.0
SEGMENT_BYTES = 16 << 20
JOURNAL_FAILED = 74
"""Exit code (EX_IOERR): restart with a new epoch."""
FENCED = 75
BROKEN = 70
_log = logging.getLogger(__name__)


async def serve(
    home: Home, listening: socket.socket, slot: int, segment_bytes: int = SEGMENT_BYTES, clock: Clock | None = None
) -> int:
    """Serve until a signal, a failed journal or a fence; returns the exit code. `clock` is the machine's by default."""
    loop = asyncio.get_running_loop()
    url = database_url(home, load_settings(), "gateway")
    epoch, clock, slices = new_id(), OnwardClock(clock or SystemClock()), Slices()
    journal = Journal.open(home.journal / str(epoch), epoch, loop, segment_bytes)
    live = LiveView(url, home, epoch, clock, slices)
    leases = LeaseClient(url, epoch, journal, slices, home=home.root, clock=clock)
    answers = Answers(home.journal, epoch, clock.now().timestamp())
    desk = AnswerDesk(answers)
    await desk.open()
    scrapes = Scrapes(home, slot, load_settings().metrics_token)
    gateway = Gateway(
        epoch=epoch,
        loop=loop,
        clock=clock,
        journal=journal,
        slices=slices,
        leases=leases,
        live=live,
        targets=Targets(home, loop),
        answers=answers,
        scrapes=scrapes,
    )
    live.health = lambda: gateway.health.states(loop.time())
    await scrapes.open(lambda: families(gateway))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    following = loop.create_task(live.run())
    await leases.start()
    facts = FactsApi(gateway, url)
    server = Server(Pipeline(gateway, facts).handle, of_refusal, loop)
    listener = await loop.create_server(server.protocol, sock=listening)
    _log.info("worker %d started: epoch %s, pid %d", slot, epoch, os.getpid())
    gc.collect()
    gc.freeze()
    code = await _watch(gateway, live, following, stop)
    gateway.ready = live.ready = False
    listener.close()
    end = loop.time() + DRAIN_SECONDS
    await server.drain(DRAIN_SECONDS)
    while gateway.running and loop.time() < end:  # noqa: ASYNC110 -- keyed calls outlive their connection; it has an end
        await asyncio.sleep(0.02)
    following.cancel()
    await asyncio.wait([following])
    await desk.close()
    await scrapes.close()
    await facts.close()
    await leases.close()
    await journal.close()
    await live.close()
    gateway.targets.close()
    answers.close()
    _log.info("worker %d stopped: epoch %s, code %d", slot, epoch, code)
    return code


async def _watch(gateway: Gateway, live: LiveView, following: asyncio.Task[None], stop: asyncio.Event) -> int:
    """Keep `ready` true to the facts until it is time to end."""
    while not stop.is_set():
        if live.fenced.is_set():
            return FENCED
        if not gateway.journal.healthy:
            return JOURNAL_FAILED
        if following.done():
            _log.error("live policy is followed no more", exc_info=following.exception())
            return BROKEN
        live.read_kill_file()
        gateway.ready = live.ready = live.loaded.is_set()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await stop.wait()
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m groundplan.gateway.app")
    parser.add_argument("--home", required=True)
    parser.add_argument("--fd", type=int, required=True, help="the inherited listening socket")
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument(
        "--segment-bytes", type=int, default=SEGMENT_BYTES, help="size of a journal segment; two are always there"
    )
    arguments = parser.parse_args(argv)
    logs.configure(f"gateway-{arguments.slot}")
    try:
        listening = socket.socket(fileno=arguments.fd)
        home = Home(Path(arguments.home).absolute())
        return uvloop.run(serve(home, listening, arguments.slot, arguments.segment_bytes))
    except GroundplanError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
