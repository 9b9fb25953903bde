"""The control API as a process: composes routes, security and background work over one database.

The console mounts its pages on `create_app` and speaks to the same routes. Rules are the domains'; SQL is in stores.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from psycopg import Connection
from psycopg.abc import RV, PQGen
from psycopg_pool import ConnectionPool

from groundplan.api import background, controls, errors
from groundplan.api.access.protected_routes import routes_of
from groundplan.api.audit.failed_sign_ins import FailedSignIns
from groundplan.api.audit.log_check import LogCheck
from groundplan.api.calls.live import Calls
from groundplan.api.context import Services
from groundplan.api.genesis import genesis_if_empty
from groundplan.api.health import Searching
from groundplan.api.http.protocol import ControlProtocol
from groundplan.api.http.security import LOCAL_HOSTS, LocalOnly
from groundplan.api.http.shutdown import OpenRequests
from groundplan.api.knowledge.ingest import Indexing
from groundplan.api.placement import views
from groundplan.api.release import Releases
from groundplan.api.routes import ALL, PAGES
from groundplan.core import logs
from groundplan.core.clock import SystemClock
from groundplan.core.database import database_url
from groundplan.core.endpoints import announce_at_last, lookup
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home
from groundplan.core.last_known_address import LastKnownAddress
from groundplan.core.settings import LEAVE_SECONDS as DRAIN_SECONDS
from groundplan.core.settings import Settings, load_settings
from groundplan.placement import plan_process, workload_routes

SERVICE = "control"
"""As which it tells `up` that it serves; whoever asks it knows where it is from `up`."""
STOP_SECONDS = 5.0
"""Longest that requests may go on where the process is to end."""
HEARD_SECONDS = 0.2
"""In which whoever has just connected has said what they want."""
POOL_SIZE = 12
POOL_WAIT_SECONDS = 5.0
CHECK_SECONDS = 8.0
"""Longest that is waited for a server to say that it is there: the system waits for 20 s where a network gives no
answer, and for ever where something in it takes what is sent. Whoever asks waits no longer for why."""

log = logging.getLogger("groundplan.api")


class _Checked(LastKnownAddress):
    """One of which it is known before it is used whether the server answers."""

    _most: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        return super().wait(gen, interval, self._most if timeout is None else timeout)

    @staticmethod
    def check(connection: Connection[Any]) -> None:
        """As the pool's own. Raises psycopg.Error."""
        if isinstance(connection, _Checked):
            connection._most = CHECK_SECONDS
        ConnectionPool.check_connection(connection)
        if isinstance(connection, _Checked):
            connection._most = None


def create_app(home: Home, settings: Settings, workspace: Path | None = None, demo: bool = False) -> FastAPI:
    """The application. It connects at its start, makes blueprint 1 where there is none and a workspace is given."""
    pool: ConnectionPool[Any] = ConnectionPool(
        lambda: database_url(home, settings, "control"), min_size=2, max_size=POOL_SIZE,
        timeout=POOL_WAIT_SECONDS, open=False, name="control",
        connection_class=_Checked, check=_Checked.check, reconnect_timeout=30.0,
    )  # fmt: skip
    clock = SystemClock()
    services = Services(home, settings, workspace, demo, Releases(home, clock, demo), pool, clock)
    beside = ExitStack()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            pool.open(wait=True, timeout=30)
            stack.callback(pool.close)
            stack.enter_context(plan_process.aside(home.logs, (views.__name__, workload_routes.__name__)))
            genesis_if_empty(home, settings, workspace, demo)
            app.state.log_check.start()
            stack.callback(app.state.log_check.stop)
            stack.enter_context(beside)
            app.state.sequencer = background.start(services, app.state.indexing, beside)
            controls.start(services, app.state.log_check, beside)
            yield

    app = FastAPI(
        title="Groundplan control API",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.services = services
    app.state.indexing = Indexing(services)
    app.state.live = Calls(pool)
    app.state.beside = beside
    app.state.log_check = LogCheck(home, clock)
    app.state.searching = Searching(home)
    app.state.failed_sign_ins = FailedSignIns(services)
    app.router.routes += routes_of(ALL)
    for pages in PAGES:
        app.router.routes += pages.routes
    app.add_api_route("/livez", lambda: {"alive": True}, include_in_schema=False)
    errors.install(app)
    own = frozenset({urlsplit(settings.console_url).hostname or ""}) if settings.console_url else frozenset()
    app.add_middleware(LocalOnly, hosts=LOCAL_HOSTS | own)
    return app


Make = Callable[[Home, Settings, Path | None, bool], FastAPI]


def run(make: Make, arguments: Sequence[str] | None = None) -> int:
    """Serve what `make` makes on the inherited socket `--fd`; returns the exit code. Also for the console."""
    options = _options(arguments)
    logs.configure("control")
    settings = replace(load_settings(), home=options.home.absolute())
    try:
        app = make(Home(settings.home), settings, options.workspace, options.demo)
    except GroundplanError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    requests = OpenRequests(app)
    config = uvicorn.Config(
        requests, http=ControlProtocol, log_config=None, access_log=False, lifespan="on", timeout_keep_alive=30,
        server_header=False, h11_max_incomplete_event_size=64 << 10,
    )  # fmt: skip
    listener = socket.socket(fileno=options.fd) if options.fd is not None else _listen(options.port)
    over = threading.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    home = Home(settings.home)
    shutdown = _Shutdown(requests, app.state.live, app.state.beside, options.leave)
    _Server(config, shutdown, home, partial(announce_at_last, home, SERVICE, url, "", over)).run([listener])
    over.set()
    return 0


@dataclass(frozen=True, slots=True)
class _Shutdown:
    """What ends with a process, one after the other."""

    requests: OpenRequests
    live: Calls
    beside: ExitStack
    """Work beside the requests."""
    seconds: float
    """Longest that running requests may go on beside a successor, so that nobody waits for it."""


class _Server(uvicorn.Server):
    """Tells when it serves. When it is to stop it ends live streams, which would otherwise keep it waiting, and beside
    a successor the work that this does now. Running requests have their time then, and who is not answered in it is
    told so."""

    def __init__(self, config: uvicorn.Config, shutdown: _Shutdown, home: Home, tell: Callable[[], None]) -> None:
        super().__init__(config)
        self._shutdown = shutdown
        self._home = home
        self._tell = tell
        self._until = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._shutdown.live.stop()
        if self.should_exit:  # asked once more, as where `up` ends while its successor serves
            self._until = min(self._until, time.monotonic() + STOP_SECONDS)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        serves = lookup(self._home, SERVICE)
        overtaken = serves is not None and serves.pid != os.getpid()
        self._until = min(self._until, time.monotonic() + (self._shutdown.seconds if overtaken else STOP_SECONDS))
        for server in self.servers:
            server.close()
        await asyncio.sleep(HEARD_SECONDS)
        refusing = asyncio.create_task(self._refuse())
        if overtaken:
            await asyncio.to_thread(self._shutdown.beside.close)
        await super().shutdown(sockets)
        refusing.cancel()

    async def _refuse(self) -> None:
        while (left := self._until - time.monotonic()) > 0:  # noqa: ASYNC110 -- a signal brings the end nearer
            await asyncio.sleep(min(left, 0.1))
        if number := await self._shutdown.requests.refuse():
            log.warning("ends beside %d requests that took too long", number)
        for connection in list(self.server_state.connections):
            connection.transport.close()
        self.server_state.tasks.clear()  # not cancelled, which ends no thread: they end with the process


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="groundplan control", description="The control API of one HOME.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--fd", type=int, help="listening socket that was opened by the parent")
    parser.add_argument("--port", type=int, default=8601, help="port of 127.0.0.1 where no --fd is given")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument(
        "--leave", type=float, default=DRAIN_SECONDS, help="seconds for running requests where a successor serves"
    )
    return parser.parse_args(arguments)


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    return listener


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m groundplan.api.app --home HOME --fd N`: the API without pages."""
    return run(create_app, arguments)


if __name__ == "__main__":
    sys.exit(main())
