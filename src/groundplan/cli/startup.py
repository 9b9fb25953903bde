"""Startup of `groundplan up` until everything is ready, and the start of local services that a later blueprint needs.

`processes` defines the processes; the supervisor keeps them alive.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from groundplan.api.genesis import check_database, check_keys, genesis_if_empty, note_database, prepare_home
from groundplan.api.served_blueprint import current_or_none, required_services
from groundplan.cli import processes
from groundplan.cli.client import ControlClient, read_token
from groundplan.cli.listeners import Listeners
from groundplan.cli.progress import StartupProgress
from groundplan.core.database import connect, database_url, translate_database_errors
from groundplan.core.endpoints import lookup
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import Settings
from groundplan.runtime.backup import delete_killed_backups
from groundplan.runtime.child import tail
from groundplan.runtime.database import start_database
from groundplan.runtime.models import ensure
from groundplan.runtime.supervisor import Process, Supervisor

READY_SECONDS = 180.0
INDEXING = "sources are being indexed"
"""Indexing does not fail a start: its duration depends on how many documents there are to read and embed."""
NOTICE_SECONDS = 5.0
"""After this wait `up` prints, once, what it waits for; all other slow steps print progress themselves."""
STATUS_TIMEOUT_SECONDS = 10.0
"""Timeout of a status request: `up` holds the sockets, so a request to a dead process connects too, and no process is
supervised meanwhile."""
FOLLOW_SECONDS = 2.0
"""Interval, and request timeout, of the check for newly needed services."""
MAX_STARTS = 5
"""A process that was started this often during the startup counts as failed."""


class Startup:
    """The steps of a startup, to be called in the order of their definition. `folder`: the workspace for the first
    blueprint, if one was named."""

    def __init__(
        self, home: Home, settings: Settings, folder: Path | None, demo: bool, progress: StartupProgress
    ) -> None:
        self.home = home
        self.settings = settings
        self.folder = folder
        self.demo = demo
        self.progress = progress

    def start_database(self, supervisor: Supervisor, workers: int) -> None:
        """Start PostgreSQL (unless there is an external one) with connections for `workers` gateway workers, upgrade
        its schema, and check that it belongs to this HOME and that its blueprint was signed here."""
        delete_killed_backups(self.home)
        prepare_home(self.home)
        start_database(supervisor, self.settings, self.progress.report, workers)
        with _translate_refusals():
            check_database(self.home, self.settings)
            check_keys(self.home, self.settings)
        self.progress.report("database is ready")

    def ensure_blueprint(self) -> tuple[str, ...]:
        """Create blueprint 1 from the workspace if there is none; returns the names of the local services needed."""
        with _translate_refusals():
            created = genesis_if_empty(self.home, self.settings, self.folder, self.demo)
            note_database(self.home, self.settings)
            with connect(database_url(self.home, self.settings, "control")) as connection:
                has_blueprint, services = current_or_none(connection) is not None, required_services(connection)
        if created:
            self.progress.report("blueprint 1 was made from the workspace")
        elif not has_blueprint:
            self.progress.report("nothing is declared yet: `groundplan apply -w DIR` makes blueprint 1")
        return services

    def gateway_processes(self, listeners: Listeners, count: int) -> list[Process]:
        """The gateway worker processes."""
        drain, leave = self.settings.drain_seconds, self.settings.reload_drain_seconds
        return [processes.gateway(self.home, listeners, slot, drain, leave, count) for slot in range(count)]

    def start_schema_upgrade(self, supervisor: Supervisor) -> subprocess.Popen[bytes]:
        """Start the process that upgrades the schema for new code, if the database still belongs to this HOME: nothing
        is created in another database or in one that was emptied. Raises `Conflict` (`database_differs`)."""
        if self.settings.database_url is not None:
            check_database(self.home, self.settings)
        return processes.start_schema_upgrade(self.home, [state.name for state in supervisor.states()])

    def replacement_groups(self, supervisor: Supervisor, listeners: Listeners, count: int) -> tuple[list[Process], ...]:
        """Groups of processes that a reload replaces, in order: the running local services that are our own code, then
        the gateway, since old services may not understand requests of new workers, then console and API.

        Raises `Conflict` (`database_differs`) if the configured database has changed since the start: nothing of this
        installation may start working in another one.
        """
        if self.settings.database_url is not None:
            check_database(self.home, self.settings)
        running = {state.name for state in supervisor.states()}
        services = [
            process
            for name in processes.RELOADABLE_SERVICES
            if name in running and (process := self._service_process(name)) is not None
        ]
        return services, self.gateway_processes(listeners, count), [self._control_process(listeners)]

    def _control_process(self, listeners: Listeners) -> Process:
        leave = self.settings.reload_drain_seconds
        return processes.control(self.home, listeners.control.fileno(), self.folder, self.demo, leave)

    def start_processes(
        self, supervisor: Supervisor, listeners: Listeners, workers: int, services: tuple[str, ...]
    ) -> None:
        """Fetch models and start all processes, without waiting for any."""
        supervisor.announce(listeners.gateway_url, listeners.control_url, listeners.public_url, listeners.tls_paths)
        supervisor.start(self._control_process(listeners))
        supervisor.start(processes.shipper(self.home))
        for worker in self.gateway_processes(listeners, workers):
            supervisor.start(worker)
        for name in services:
            self.fetch_models((name,))
            self.start_service(supervisor, name)

    def fetch_models(self, services: tuple[str, ...]) -> None:
        """Fetch and check the model files that services need."""
        for model in processes.models_for(services):
            ensure(self.settings.models, model, self.progress.update_download)

    def start_service(self, supervisor: Supervisor, name: str) -> None:
        """Start the local service of that name, unless it runs or is not ours to start."""
        process = self._service_process(name)
        if process is not None and all(state.name != name for state in supervisor.states()):
            supervisor.start(process)

    def _service_process(self, name: str) -> Process | None:
        return processes.local_service(self.home, name, self.settings.reload_drain_seconds)

    def wait_until_ready(self, supervisor: Supervisor, listeners: Listeners, workers: int) -> ControlClient:
        """Wait until the control process answers, all workers serve the current blueprint, local services run and
        sources are indexed; returns a client. Where only indexing takes longer, serving starts before it ends."""
        client = ControlClient(listeners.control_url, read_token(self.home), timeout=60.0)
        status_client, deadline = client.with_timeout(STATUS_TIMEOUT_SECONDS), time.monotonic() + READY_SECONDS
        missing, notice_at = "the control process does not answer", time.monotonic() + NOTICE_SECONDS
        while missing:
            if time.monotonic() > notice_at and missing != INDEXING:
                self.progress.report(f"still waiting: {missing}{self._last_gateway_log(supervisor)}")
                notice_at = float("inf")
            _check_alive(supervisor)
            if time.monotonic() > deadline and missing == INDEXING:
                self.progress.report("sources are read on beside it: search finds what is there already")
                break
            if time.monotonic() > deadline:
                raise Unavailable(missing, code="not_ready", hint=f"See {self.home.logs}.")
            time.sleep(0.03)
            missing = self.describe_missing(
                status_client, workers, {state.name: state.pid for state in supervisor.states()}
            )
        return client

    def _last_gateway_log(self, supervisor: Supervisor) -> str:
        """The last log line of a gateway worker that logged recently: it may wait, for example for space on a disk."""
        recent = time.time() - NOTICE_SECONDS - STATUS_TIMEOUT_SECONDS
        for state in supervisor.states():
            log = supervisor.log_path(state.name)
            with suppress(OSError):
                if state.name.startswith("gateway") and log.stat().st_mtime > recent and (line := tail(log, 1)):
                    return f"; {state.name} said: {line}"
        return ""

    def describe_missing(self, client: ControlClient, workers: int, pids: Mapping[str, int | None]) -> str:
        """Describe what is still missing until everything is ready; empty if nothing is.

        `pids`: process name -> pid of our processes, since the status also lists workers of other replicas, and
        processes of a killed `up` may still be announced.
        """
        try:
            status = client.get("/api/status")
        except GroundplanError as error:
            return error.message
        own_pids = set(pids.values())
        gateways = [gateway for gateway in status["gateways"] if gateway["pid"] in own_pids]
        ready = [g for g in gateways if g["ready"] and g["blueprint"] == status["blueprint"]]
        if status["blueprint"] and len(ready) < workers:
            return f"{len(ready)} of {workers} gateway workers are ready"
        if len(gateways) < workers:
            return f"{len(gateways)} of {workers} gateway workers have reported"
        announced = {
            name: lookup(self.home, name) for name in status["services"] if processes.local_service(self.home, name)
        }
        missing = [name for name, endpoint in announced.items() if endpoint is None or endpoint.pid != pids.get(name)]
        if missing:
            return f"waiting for {', '.join(missing)}"
        return "" if status["indexed"] else INDEXING


def _translate_refusals() -> AbstractContextManager[None]:
    return translate_database_errors(
        "the database refused a statement that the start needs",
        code="database_unavailable",
        hint="Check its disk and its log, then start again; completed steps are kept.",
    )


def _check_alive(supervisor: Supervisor) -> None:
    """Restart processes that died; raise `Unavailable` for one that keeps dying during the start."""
    supervisor.check()
    for state in supervisor.states():
        if state.starts >= MAX_STARTS:
            raise Unavailable(
                f"{state.name} keeps ending: {tail(supervisor.log_path(state.name)) or 'it printed nothing'}",
                code="process_failed",
                hint=f"See {supervisor.log_path(state.name)}.",
            )


class ServiceFollower:
    """Starts local services that a later blueprint needs. A thread requests their names and fetches their models, so
    that supervision goes on while the control process answers slowly or hangs."""

    def __init__(self, startup: Startup, supervisor: Supervisor, client: ControlClient) -> None:
        self._startup = startup
        self._supervisor = supervisor
        self._client = client.with_timeout(FOLLOW_SECONDS)
        self._next_check_at = time.monotonic() + FOLLOW_SECONDS
        self._fetcher: threading.Thread | None = None
        self._fetched: list[str] = []

    def tick(self) -> None:
        """Called every 0.1 s by the supervisor's loop."""
        while self._fetched:
            self._start_service(self._fetched.pop())
        if time.monotonic() < self._next_check_at or (self._fetcher is not None and self._fetcher.is_alive()):
            return
        self._next_check_at = time.monotonic() + FOLLOW_SECONDS
        running = frozenset(state.name for state in self._supervisor.states())
        fetcher = threading.Thread(target=self._fetch_missing, args=(running,), name="services", daemon=True)
        with suppress(RuntimeError):  # the user's limit of threads may be reached
            fetcher.start()
            self._fetcher = fetcher

    def _start_service(self, name: str) -> None:
        try:
            self._startup.start_service(self._supervisor, name)
        except (GroundplanError, OSError) as error:  # the machine may be out of processes or memory
            self._startup.progress.report(f"{name} cannot start yet: {error}")

    def _required_services(self) -> list[str]:
        try:
            status: dict[str, Any] = self._client.get("/api/status")
        except GroundplanError:
            return []
        return list(status["services"])

    def _fetch_missing(self, running: frozenset[str]) -> None:
        """Fetch the models of needed services that do not run, and queue these services for `tick` to start."""
        for name in self._required_services():
            if name in running or processes.local_service(self._startup.home, name) is None:
                continue
            try:
                self._startup.fetch_models((name,))
            except GroundplanError as error:
                self._startup.progress.report(f"{name} cannot start yet: {error}")
            else:
                self._fetched.append(name)
