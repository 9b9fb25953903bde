"""The control process: composes routes, security and background tasks over one database, and serves them.

The console mounts its pages on `create_app` and calls the same routes. Rules are in the domains, SQL is in the stores.
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
from groundplan.api.access.protected_routes import protected_routes
from groundplan.api.audit.failed_sign_ins import FailedSignIns
from groundplan.api.audit.log_check import LogCheck
from groundplan.api.calls.live import LiveCalls
from groundplan.api.context import Services
from groundplan.api.genesis import genesis_if_empty
from groundplan.api.health import SearchHealth
from groundplan.api.http.protocol import ControlProtocol
from groundplan.api.http.security import LOCAL_HOSTS, LocalOnly
from groundplan.api.http.shutdown import OpenRequests
from groundplan.api.knowledge.ingest import Indexer
from groundplan.api.placement import views
from groundplan.api.release import Releases
from groundplan.api.routes import API_ROUTERS, PAGE_ROUTERS
from groundplan.core import logs
from groundplan.core.clock import SystemClock
from groundplan.core.database import database_url
from groundplan.core.endpoints import announce_retrying, lookup
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home
from groundplan.core.last_known_address import LastKnownAddress
from groundplan.core.settings import RELOAD_DRAIN_SECONDS as DRAIN_SECONDS
from groundplan.core.settings import Settings, load_settings
from groundplan.placement import plan_process, workload_routes

SERVICE = "control"
"""The name under which this process announces its address to `up`."""
STOP_SECONDS = 5.0
"""How long running requests may take once the process is to stop."""
REQUEST_HEAD_SECONDS = 0.2
"""Time for a client that has just connected to send the head of its request."""
POOL_SIZE = 12
POOL_WAIT_SECONDS = 5.0
CONNECTION_CHECK_SECONDS = 8.0
"""Timeout of the check of a pooled connection. Without it, the operating system waits 20 s if the network does not
answer, and forever if a proxy accepts the data without forwarding it; the client would wait as long for its error."""

log = logging.getLogger("groundplan.api")


class _CheckedConnection(LastKnownAddress):
    """A connection that the pool checks before each use, within `CONNECTION_CHECK_SECONDS`."""

    _check_timeout: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        return super().wait(gen, interval, self._check_timeout if timeout is None else timeout)

    @staticmethod
    def check(connection: Connection[Any]) -> None:
        """The pool's check, with a timeout. Raises psycopg.Error."""
        if isinstance(connection, _CheckedConnection):
            connection._check_timeout = CONNECTION_CHECK_SECONDS
        ConnectionPool.check_connection(connection)
        if isinstance(connection, _CheckedConnection):
            connection._check_timeout = None


def create_app(home: Home, settings: Settings, workspace: Path | None = None, demo: bool = False) -> FastAPI:
    """Create the application. At startup it connects to the database, and creates blueprint 1 from `workspace` if there
    is no blueprint yet and a workspace is given."""
    pool: ConnectionPool[Any] = ConnectionPool(
        lambda: database_url(home, settings, "control"), min_size=2, max_size=POOL_SIZE,
        timeout=POOL_WAIT_SECONDS, open=False, name="control",
        connection_class=_CheckedConnection, check=_CheckedConnection.check, reconnect_timeout=30.0,
    )  # fmt: skip
    clock = SystemClock()
    services = Services(home, settings, workspace, demo, Releases(home, clock, demo), pool, clock)
    background_tasks = ExitStack()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            pool.open(wait=True, timeout=30)
            stack.callback(pool.close)
            stack.enter_context(plan_process.planning_processes(home.logs, (views.__name__, workload_routes.__name__)))
            genesis_if_empty(home, settings, workspace, demo)
            app.state.log_check.start()
            stack.callback(app.state.log_check.stop)
            stack.enter_context(background_tasks)
            app.state.sequencer = background.start(services, app.state.indexer, background_tasks)
            controls.start(services, app.state.log_check, background_tasks)
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
    app.state.indexer = Indexer(services)
    app.state.live = LiveCalls(pool)
    app.state.background_tasks = background_tasks
    app.state.log_check = LogCheck(home, clock)
    app.state.search_health = SearchHealth(home)
    app.state.failed_sign_ins = FailedSignIns(services)
    app.router.routes += protected_routes(API_ROUTERS)
    for pages in PAGE_ROUTERS:
        app.router.routes += pages.routes
    app.add_api_route("/livez", lambda: {"alive": True}, include_in_schema=False)
    errors.install(app)
    own = frozenset({urlsplit(settings.console_url).hostname or ""}) if settings.console_url else frozenset()
    app.add_middleware(LocalOnly, hosts=LOCAL_HOSTS | own)
    return app


AppFactory = Callable[[Home, Settings, Path | None, bool], FastAPI]


def run(create: AppFactory, arguments: Sequence[str] | None = None) -> int:
    """Serve the application that `create` returns on the inherited socket `--fd`, or a new one; returns the exit code.
    The console uses it, too."""
    options = _options(arguments)
    logs.configure("control")
    settings = replace(load_settings(), home=options.home.absolute())
    try:
        app = create(Home(settings.home), settings, options.workspace, options.demo)
    except GroundplanError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    requests = OpenRequests(app)
    config = uvicorn.Config(
        requests, http=ControlProtocol, log_config=None, access_log=False, lifespan="on", timeout_keep_alive=30,
        server_header=False, h11_max_incomplete_event_size=64 << 10,
    )  # fmt: skip
    listener = socket.socket(fileno=options.fd) if options.fd is not None else _listen(options.port)
    stopping = threading.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    home = Home(settings.home)
    shutdown = _Shutdown(requests, app.state.live, app.state.background_tasks, options.leave)
    _Server(config, shutdown, home, partial(announce_retrying, home, SERVICE, url, "", stopping)).run([listener])
    stopping.set()
    return 0


@dataclass(frozen=True, slots=True)
class _Shutdown:
    """The parts of the application that are stopped at shutdown, in this order."""

    requests: OpenRequests
    live: LiveCalls
    background_tasks: ExitStack
    """Closing it stops the background tasks."""
    seconds: float
    """How long running requests may take while a successor process serves already."""


class _Server(uvicorn.Server):
    """A server that announces when it serves, and shuts down gracefully.

    At shutdown it ends live streams, which would keep it waiting; where a successor serves already, it also stops the
    background tasks, which the successor runs now. Running requests get time to finish; those that are not answered by
    the deadline get an error.
    """

    def __init__(self, config: uvicorn.Config, shutdown: _Shutdown, home: Home, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._shutdown = shutdown
        self._home = home
        self._announce = announce
        self._deadline = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._shutdown.live.stop()
        if self.should_exit:  # a second signal, as where `up` ends while its successor serves
            self._deadline = min(self._deadline, time.monotonic() + STOP_SECONDS)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        serves = lookup(self._home, SERVICE)
        has_successor = serves is not None and serves.pid != os.getpid()
        self._deadline = min(
            self._deadline, time.monotonic() + (self._shutdown.seconds if has_successor else STOP_SECONDS)
        )
        for server in self.servers:
            server.close()
        await asyncio.sleep(REQUEST_HEAD_SECONDS)
        refusing = asyncio.create_task(self._refuse())
        if has_successor:
            await asyncio.to_thread(self._shutdown.background_tasks.close)
        await super().shutdown(sockets)
        refusing.cancel()

    async def _refuse(self) -> None:
        while (remaining := self._deadline - time.monotonic()) > 0:  # noqa: ASYNC110 -- a signal brings the end nearer
            await asyncio.sleep(min(remaining, 0.1))
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
    """Entry point of `python -m groundplan.api.app --home HOME --fd N`: the API without the console's pages."""
    return run(create_app, arguments)


if __name__ == "__main__":
    sys.exit(main())
