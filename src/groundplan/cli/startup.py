"""The steps of `groundplan up` from nothing to ready, and the local services that a later blueprint needs.

What processes there are is `processes`; keeping them alive is the supervisor's.
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
from groundplan.cli.progress import Steps
from groundplan.core.database import connect, database_url, refusal_told
from groundplan.core.endpoints import lookup
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import Settings
from groundplan.runtime.backup import forget_killed
from groundplan.runtime.child import tail
from groundplan.runtime.database import start_database
from groundplan.runtime.models import ensure
from groundplan.runtime.supervisor import Process, Supervisor

READY_SECONDS = 180.0
READING = "sources are being indexed"
"""It takes as long as there is much to read and to embed."""
SAY_SECONDS = 5.0
"""After so long it is said, once, what is waited for: everything else that takes its time says so itself."""
ASK_SECONDS = 10.0
"""How long an answer is waited for: one that died is called all the same, since its socket is ours, and meanwhile no
process is looked after."""
FOLLOW_SECONDS = 2.0
MOST_DEATHS = 5


class Start:
    """The steps from nothing to ready, in order."""

    def __init__(self, home: Home, settings: Settings, folder: Path | None, demo: bool, steps: Steps) -> None:
        self.home = home
        self.settings = settings
        self.folder = folder
        self.demo = demo
        self.steps = steps

    def database(self, supervisor: Supervisor, workers: int) -> None:
        """Start PostgreSQL (unless there is an external one), with room for so many gateway workers, bring its
        schema up to date, and see that it is that of this HOME, and what it serves was signed here."""
        forget_killed(self.home)
        prepare_home(self.home)
        start_database(supervisor, self.settings, self.steps.say, workers)
        with _refusal_told():
            check_database(self.home, self.settings)
            check_keys(self.home, self.settings)
        self.steps.say("database is ready")

    def declare(self) -> tuple[str, ...]:
        """Make blueprint 1 from the workspace where there is none; return the local services that are needed."""
        with _refusal_told():
            made = genesis_if_empty(self.home, self.settings, self.folder, self.demo)
            note_database(self.home, self.settings)
            with connect(database_url(self.home, self.settings, "control")) as connection:
                declared, services = current_or_none(connection) is not None, required_services(connection)
        if made:
            self.steps.say("blueprint 1 was made from the workspace")
        elif not declared:
            self.steps.say("nothing is declared yet: `groundplan apply -w DIR` makes blueprint 1")
        return services

    def workers(self, listeners: Listeners, count: int) -> list[Process]:
        """The processes of the gateway."""
        drain, leave = self.settings.drain_seconds, self.settings.reload_drain_seconds
        return [processes.gateway(self.home, listeners, slot, drain, leave, count) for slot in range(count)]

    def upgrade(self, supervisor: Supervisor) -> subprocess.Popen[bytes]:
        """Start what upgrades the schema for new code, where that can be loaded, and the database is still that of this
        HOME: in another one, or in one that was emptied, nothing is made. Raises `Conflict` (`database_differs`)."""
        if self.settings.database_url is not None:
            check_database(self.home, self.settings)
        return processes.schema(self.home, [state.name for state in supervisor.states()])

    def again(self, supervisor: Supervisor, listeners: Listeners, count: int) -> tuple[list[Process], ...]:
        """What new code replaces, one after the other: the local services that run and are no models, then the gateway,
        which may ask them for more than those before understand, then console and API. Raises `Conflict`
        (`database_differs`) where the file that tells the database's address tells another's by now: nothing takes up
        there what is of this one."""
        if self.settings.database_url is not None:
            check_database(self.home, self.settings)
        running = {state.name for state in supervisor.states()}
        beside = [each for name in processes.REPLACED if name in running and (each := self._service(name)) is not None]
        return beside, self.workers(listeners, count), [self._control(listeners)]

    def _control(self, listeners: Listeners) -> Process:
        leave = self.settings.reload_drain_seconds
        return processes.control(self.home, listeners.control.fileno(), self.folder, self.demo, leave)

    def processes(self, supervisor: Supervisor, listeners: Listeners, workers: int, services: tuple[str, ...]) -> None:
        """Fetch models and start all processes; none waits for another."""
        supervisor.announce(listeners.gateway_url, listeners.control_url, listeners.public_url, listeners.tls)
        supervisor.start(self._control(listeners))
        supervisor.start(processes.shipper(self.home))
        for worker in self.workers(listeners, workers):
            supervisor.start(worker)
        for name in services:
            self.models((name,))
            self.service(supervisor, name)

    def models(self, services: tuple[str, ...]) -> None:
        """Fetch and check the model files that services need."""
        for model in processes.models_for(services):
            ensure(self.settings.models, model, self.steps.bytes)

    def service(self, supervisor: Supervisor, name: str) -> None:
        """Start the local service of that name, unless it runs or is not ours."""
        process = self._service(name)
        if process is not None and all(state.name != name for state in supervisor.states()):
            supervisor.start(process)

    def _service(self, name: str) -> Process | None:
        return processes.service(self.home, name, self.settings.reload_drain_seconds)

    def until_ready(self, supervisor: Supervisor, listeners: Listeners, workers: int) -> ControlClient:
        """Wait until control answers, all workers serve the current blueprint, local services are there and sources are
        read; where only reading takes longer it serves meanwhile."""
        client = ControlClient(listeners.control_url, read_token(self.home), timeout=60.0)
        asking, deadline = client.within(ASK_SECONDS), time.monotonic() + READY_SECONDS
        lacks, say_at = "the control process does not answer", time.monotonic() + SAY_SECONDS
        while lacks:
            if time.monotonic() > say_at and lacks != READING:
                self.steps.say(f"still waiting: {lacks}{self._why(supervisor)}")
                say_at = float("inf")
            _check_alive(supervisor)
            if time.monotonic() > deadline and lacks == READING:
                self.steps.say("sources are read on beside it: search finds what is there already")
                break
            if time.monotonic() > deadline:
                raise Unavailable(lacks, code="not_ready", hint=f"See {self.home.logs}.")
            time.sleep(0.03)
            lacks = self.lacks(asking, workers, {state.name: state.pid for state in supervisor.states()})
        return client

    def _why(self, supervisor: Supervisor) -> str:
        """What a worker of the gateway said last, where it runs and waits for something, as for room on a disk."""
        began = time.time() - SAY_SECONDS - ASK_SECONDS
        for state in supervisor.states():
            log = supervisor.log(state.name)
            with suppress(OSError):
                if state.name.startswith("gateway") and log.stat().st_mtime > began and (said := tail(log, 1)):
                    return f"; {state.name} said: {said}"
        return ""

    def lacks(self, client: ControlClient, workers: int, pids: Mapping[str, int | None]) -> str:
        """What is still missing, in words; empty when nothing is. `pids`: of the processes by name. The database tells
        of other replicas' workers, too, and what an `up` that was killed here left behind may still be announced.
        """
        try:
            status = client.get("/api/status")
        except GroundplanError as error:
            return error.message
        own = set(pids.values())
        gateways = [gateway for gateway in status["gateways"] if gateway["pid"] in own]
        ready = [g for g in gateways if g["ready"] and g["blueprint"] == status["blueprint"]]
        if status["blueprint"] and len(ready) < workers:
            return f"{len(ready)} of {workers} gateway workers are ready"
        if len(gateways) < workers:
            return f"{len(gateways)} of {workers} gateway workers have reported"
        announced = {name: lookup(self.home, name) for name in status["services"] if processes.service(self.home, name)}
        missing = [name for name, found in announced.items() if found is None or found.pid != pids.get(name)]
        if missing:
            return f"waiting for {', '.join(missing)}"
        return "" if status["indexed"] else READING


def _refusal_told() -> AbstractContextManager[None]:
    return refusal_told(
        "the database refuses what a start needs",
        code="database_unavailable",
        hint="Look at its disk and its log; then start again: what was done already stays as it is.",
    )


def _check_alive(supervisor: Supervisor) -> None:
    """Restart what died; give up on a process that keeps dying at the start."""
    supervisor.check()
    for state in supervisor.states():
        if state.starts >= MOST_DEATHS:
            raise Unavailable(
                f"{state.name} keeps ending: {tail(supervisor.log(state.name)) or 'it printed nothing'}",
                code="process_failed",
                hint=f"See {supervisor.log(state.name)}.",
            )


class Following:
    """Starts local services that a later blueprint needs. What they are is asked, and models are fetched, beside, so
    that supervision goes on: the control process may take its time to answer, or hang."""

    def __init__(self, start: Start, supervisor: Supervisor, client: ControlClient) -> None:
        self._start = start
        self._supervisor = supervisor
        self._client = client.within(FOLLOW_SECONDS)
        self._due = time.monotonic() + FOLLOW_SECONDS
        self._looking: threading.Thread | None = None
        self._fetched: list[str] = []

    def tick(self) -> None:
        """Called every 0.1 s by the supervisor's loop."""
        while self._fetched:
            self._begin(self._fetched.pop())
        if time.monotonic() < self._due or (self._looking is not None and self._looking.is_alive()):
            return
        self._due = time.monotonic() + FOLLOW_SECONDS
        running = frozenset(state.name for state in self._supervisor.states())
        looking = threading.Thread(target=self._look, args=(running,), name="services", daemon=True)
        with suppress(RuntimeError):  # this user may have no more threads now
            looking.start()
            self._looking = looking

    def _begin(self, name: str) -> None:
        try:
            self._start.service(self._supervisor, name)
        except (GroundplanError, OSError) as error:  # the machine may have no room for one more process now
            self._start.steps.say(f"{name} cannot start yet: {error}")

    def _wanted(self) -> list[str]:
        try:
            status: dict[str, Any] = self._client.get("/api/status")
        except GroundplanError:
            return []
        return list(status["services"])

    def _look(self, running: frozenset[str]) -> None:
        for name in self._wanted():
            if name in running or processes.service(self._start.home, name) is None:
                continue
            try:
                self._start.models((name,))
            except GroundplanError as error:
                self._start.steps.say(f"{name} cannot start yet: {error}")
            else:
                self._fetched.append(name)
