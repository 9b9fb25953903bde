"""`groundplan up`: starts everything for one HOME, prints one `ready` line, and keeps it running until it is stopped.

Only the ready line goes to stdout. What processes there are is `processes.py`; keeping them alive is the supervisor's.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from groundplan.api.genesis import genesis_if_empty, take_up_keys
from groundplan.api.served import current_or_none, local_services
from groundplan.blueprint.model import Blueprint
from groundplan.catalog.check import validate
from groundplan.cli import processes
from groundplan.cli.client import ControlClient, read_token
from groundplan.cli.listeners import Listeners, open_listeners, with_tls
from groundplan.cli.options import HomeOption, settings_for
from groundplan.cli.output import note
from groundplan.cli.progress import Steps
from groundplan.cli.reload import Reloading
from groundplan.cli.tour import take_tour
from groundplan.core.database import connect, database_url
from groundplan.core.endpoints import lookup
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import DEFAULT_CONTROL_PORT, DEFAULT_PORT, Settings, load_settings
from groundplan.economics.price import known_price
from groundplan.governance import declared
from groundplan.runtime.child import tail
from groundplan.runtime.migrate import migrate
from groundplan.runtime.models import ensure
from groundplan.runtime.postgres import EmbeddedPostgres
from groundplan.runtime.supervisor import Process, Supervisor

READY_SECONDS = 180.0
FOLLOW_SECONDS = 2.0
MOST_DEATHS = 5
LEFT_SECONDS = 20.0
"""How long the workers of an `up` that was killed may hold its ports: they drain for 15 s."""


def up(
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Folder of declarations for the first start.")
    ] = None,
    home: HomeOption = None,
    port: Annotated[int, typer.Option("--port", help="Port of the gateway; 0 picks one.")] = DEFAULT_PORT,
    control_port: Annotated[
        int, typer.Option("--control-port", help="Port of console and API; 0 picks one.")
    ] = DEFAULT_CONTROL_PORT,
    gateway_workers: Annotated[int, typer.Option("--gateway-workers", min=1, max=64)] = max(
        1, (os.cpu_count() or 2) // 2
    ),
    demo: Annotated[bool, typer.Option("--demo", help="Scripted providers and traffic; act as people.")] = False,
    tour: Annotated[bool, typer.Option("--tour", help="Ask one real question once ready.")] = False,
    host: Annotated[
        str | None, typer.Option("--host", help="Address of the gateway; others than 127.0.0.1 need TLS.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain of the gateway, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option("--tls-client-ca", help="Callers must show a certificate of these.")
    ] = None,
    drain: Annotated[
        float | None,
        typer.Option("--drain", min=0, max=86_400, help="Seconds for running answers at a stop."),
    ] = None,
    reload_drain: Annotated[
        float | None,
        typer.Option("--reload-drain", min=0, max=86_400, help="Seconds for running answers at a reload."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ready line as one line of JSON.")] = False,
) -> None:
    """Start everything and serve until Ctrl-C. Without --workspace the last blueprint is served."""
    settings = with_tls(settings_for(home), host, tls_cert, tls_key, tls_client_ca)
    settings = settings if drain is None else replace(settings, drain_seconds=drain)
    settings = settings if reload_drain is None else replace(settings, reload_drain_seconds=reload_drain)
    folder = workspace or load_settings().workspace
    if folder is not None:
        folder = folder.absolute()
        _check_workspace(folder, Home(settings.home))
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        steps = stack.enter_context(Steps())
        start = Start(Home(settings.home), settings, folder, demo, steps)
        supervisor = stack.enter_context(Supervisor(start.home, notice=steps.say))
        # what an `up` that was killed here left behind lets go of its ports when it has told its callers so
        left = (start.home.run / "up.json").exists()
        listeners = open_listeners(settings, port, control_port, patience=LEFT_SECONDS if left else 0.0)
        stack.callback(listeners.close)
        start.database(supervisor, stack)
        blueprint = start.declare()
        start.processes(supervisor, listeners, gateway_workers, blueprint)
        client = start.until_ready(supervisor, listeners, gateway_workers)
        reloading = Reloading(start.home, supervisor, lambda: start.workers(listeners, gateway_workers))
        _serve(start, supervisor, client, ready_line(listeners, as_json), tour, reloading)
        listeners.close_gateway()
        steps.say("stopping")


def _check_workspace(folder: Path, home: Home) -> None:
    """Refuse a wrong workspace at the first start; later the last blueprint is served whatever the folder says."""
    try:
        today = datetime.now(UTC).date()
        validate(folder, known_price=lambda model: known_price(model, today), beyond=declared.problems)
    except GroundplanError as error:
        if not home.workspace.exists():
            raise
        note(f"the workspace has problems; the last blueprint is served: {error}")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _serve(
    start: Start, supervisor: Supervisor, client: ControlClient, ready: str, tour: bool, reloading: Reloading
) -> None:
    with supervisor.signals():
        start.steps.say("ready")
        typer.echo(ready)
        if start.demo:
            supervisor.start(processes.traffic(start.home))
        link = login_link(client)
        if tour and link is not None:
            threading.Thread(target=take_tour, args=(client, start.home, link), daemon=True).start()
        elif link is not None:
            note(f"\nSign in once, within ten minutes: {link}\nCtrl-C ends it.")
        following = Following(start, supervisor, client)

        def tick() -> None:
            following.tick()
            reloading.tick()

        supervisor.run(tick)


def login_link(client: ControlClient) -> str | None:
    """A link to sign in with once; None, and a word about it, where the control process is just not there.

    The gateway serves by now: that nobody can sign in for a moment does not end it.
    """
    try:
        return str(client.post("/api/login-links", {"person": None})["url"])
    except GroundplanError as error:
        note(f"\nNo link to sign in was made: {error.message}\n`groundplan login` makes one. Ctrl-C ends it.")
        return None


def ready_line(listeners: Listeners, as_json: bool) -> str:
    """The one line on stdout."""
    gateway, control = listeners.public_url, listeners.control_url
    if as_json:
        return json.dumps({"ready": True, "gateway": gateway, "control": control})
    return f"ready gateway={gateway} control={control}"


class Start:
    """The steps from nothing to ready, in order."""

    def __init__(self, home: Home, settings: Settings, folder: Path | None, demo: bool, steps: Steps) -> None:
        self.home = home
        self.settings = settings
        self.folder = folder
        self.demo = demo
        self.steps = steps

    def database(self, supervisor: Supervisor, stack: ExitStack) -> None:
        """Start PostgreSQL (unless there is an external one) and bring its schema up to date."""
        take_up_keys(self.home)
        if self.settings.database_url is None:
            server = EmbeddedPostgres(self.home, progress=self.steps.say)
            server.open()
            stack.callback(server.close)
            # stopped by the supervisor before the server's lock is let go: the stack unwinds in reverse
            stack.callback(supervisor.close)
            supervisor.start(server.process())
            server.prepared()
        migrate(database_url(self.home, self.settings, "owner"))
        self.steps.say("database is ready")

    def declare(self) -> Blueprint | None:
        """Make blueprint 1 from the workspace where there is none; return what is served."""
        made = genesis_if_empty(self.home, self.settings, self.folder, self.demo)
        with connect(database_url(self.home, self.settings, "control")) as connection:
            blueprint = current_or_none(connection)
        if made:
            self.steps.say("blueprint 1 is made from the workspace")
        elif blueprint is None:
            self.steps.say("nothing is declared yet: `groundplan apply -w DIR` makes blueprint 1")
        return blueprint

    def workers(self, listeners: Listeners, count: int) -> list[Process]:
        """The processes of the gateway."""
        drain, leave = self.settings.drain_seconds, self.settings.reload_drain_seconds
        return [processes.gateway(self.home, listeners, slot, drain, leave) for slot in range(count)]

    def processes(
        self, supervisor: Supervisor, listeners: Listeners, workers: int, blueprint: Blueprint | None
    ) -> None:
        """Fetch models and start all processes; none waits for another."""
        supervisor.announce(listeners.gateway_url, listeners.control_url)
        supervisor.start(processes.control(self.home, listeners.control.fileno(), self.folder, self.demo))
        supervisor.start(processes.shipper(self.home))
        for worker in self.workers(listeners, workers):
            supervisor.start(worker)
        for name in local_services(blueprint):
            self.models((name,))
            self.service(supervisor, name)

    def models(self, services: tuple[str, ...]) -> None:
        """Fetch and check the model files that services need."""
        for model in processes.models_for(services):
            ensure(self.settings.models, model, self.steps.bytes)

    def service(self, supervisor: Supervisor, name: str) -> None:
        """Start the local service of that name, unless it runs or is not ours."""
        process = processes.service(self.home, name)
        if process is not None and all(state.name != name for state in supervisor.states()):
            supervisor.start(process)

    def until_ready(self, supervisor: Supervisor, listeners: Listeners, workers: int) -> ControlClient:
        """Wait until control answers, all workers serve the current blueprint and local services are there."""
        client = ControlClient(listeners.control_url, read_token(self.home), timeout=60.0)
        deadline = time.monotonic() + READY_SECONDS
        lacks = "the control process does not answer"
        while lacks:
            _check_alive(supervisor)
            if time.monotonic() > deadline:
                raise Unavailable(lacks, code="not_ready", hint=f"See {self.home.logs}.")
            time.sleep(0.03)
            lacks = self.lacks(client, workers, {state.name: state.pid for state in supervisor.states()})
        return client

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
        return "" if status["indexed"] else "sources are being indexed"


def _check_alive(supervisor: Supervisor) -> None:
    """Restart what died; give up on a process that keeps dying at the start."""
    supervisor.check()
    for state in supervisor.states():
        if state.starts >= MOST_DEATHS:
            raise Unavailable(
                f"{state.name} keeps ending: {tail(supervisor.log(state.name)) or 'it said nothing'}",
                code="process_failed",
                hint=f"See {supervisor.log(state.name)}.",
            )


class Following:
    """Starts local services that a later blueprint needs; models are fetched beside, so that supervision goes on."""

    def __init__(self, start: Start, supervisor: Supervisor, client: ControlClient) -> None:
        self._start = start
        self._supervisor = supervisor
        self._client = client.within(FOLLOW_SECONDS)
        self._due = time.monotonic() + FOLLOW_SECONDS
        self._fetching: threading.Thread | None = None
        self._fetched: list[str] = []

    def tick(self) -> None:
        """Called every 0.1 s by the supervisor's loop."""
        while self._fetched:
            self._start.service(self._supervisor, self._fetched.pop())
        if time.monotonic() < self._due or (self._fetching is not None and self._fetching.is_alive()):
            return
        self._due = time.monotonic() + FOLLOW_SECONDS
        running = {state.name for state in self._supervisor.states()}
        wanted = [name for name in self._wanted() if name not in running and processes.service(self._start.home, name)]
        if wanted:
            self._fetching = threading.Thread(target=self._fetch, args=(wanted,), daemon=True)
            self._fetching.start()

    def _wanted(self) -> list[str]:
        try:
            status: dict[str, Any] = self._client.get("/api/status")
        except GroundplanError:
            return []
        return list(status["services"])

    def _fetch(self, names: list[str]) -> None:
        for name in names:
            try:
                self._start.models((name,))
            except GroundplanError as error:
                self._start.steps.say(f"{name} cannot start yet: {error}")
            else:
                self._fetched.append(name)
