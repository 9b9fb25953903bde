"""`groundplan up`: starts everything for one HOME, prints one `ready` line, and keeps it running until it is stopped.

Only the ready line goes to stdout. `processes` defines the processes; the supervisor keeps them alive.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from groundplan.catalog.check import validate
from groundplan.catalog.workspace import Workspace
from groundplan.cli import processes
from groundplan.cli.client import ControlClient
from groundplan.cli.listeners import Listeners, open_listeners, with_tls
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, settings_for
from groundplan.cli.output import discard_stdout, note
from groundplan.cli.progress import StartupProgress
from groundplan.cli.reload import Reloading
from groundplan.cli.startup import ServiceFollower, Startup
from groundplan.cli.tour import take_tour
from groundplan.cli.unknown_settings import misspelt_settings
from groundplan.cli.workspace import release_rules
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.home import Home
from groundplan.core.settings import DEFAULT_CONTROL_PORT, DEFAULT_PORT, Settings, load_settings, resolve_secret
from groundplan.economics.price import has_listed_price
from groundplan.release.warnings import collect
from groundplan.runtime.processors import processors
from groundplan.runtime.supervisor import Supervisor

STALE_WORKERS_SECONDS = 20.0
"""How long the workers of an `up` that was killed may hold its ports: they drain for 15 s."""


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """Ports of the gateway and the control API, and the number of gateway workers."""

    port: Annotated[int, typer.Option("--port", help="Port of the gateway; 0 picks a free one.")] = DEFAULT_PORT
    control_port: Annotated[
        int, typer.Option("--control-port", help="Port of console and control API; 0 picks a free one.")
    ] = DEFAULT_CONTROL_PORT
    workers: Annotated[
        int, typer.Option("--gateway-workers", min=1, max=64, help="Number of gateway worker processes.")
    ] = min(64, max(1, processors() // 2))


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Address of the gateway and its TLS files."""

    host: Annotated[
        str | None, typer.Option("--host", help="Address the gateway listens on; any other than 127.0.0.1 needs TLS.")
    ] = None
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain of the gateway (PEM).")] = None
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Private key of the certificate (PEM).")] = None
    tls_client_ca: Annotated[
        Path | None, typer.Option("--tls-client-ca", help="Require client certificates issued by these CAs (PEM).")
    ] = None


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How long running answers may take at a stop or a reload."""

    drain: Annotated[
        float | None,
        typer.Option("--drain", min=0, max=86_400, help="Seconds that running answers may take at a stop."),
    ] = None
    reload_drain: Annotated[
        float | None,
        typer.Option("--reload-drain", min=0, max=86_400, help="Seconds that running answers may take at a reload."),
    ] = None


@grouped
def up(
    listen: ListenOptions,
    tls: TlsOptions,
    draining: DrainOptions,
    workspace: Annotated[Path | None, typer.Option("--workspace", "-w", help="Workspace for the first start.")] = None,
    home: HomeOption = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Demo: scripted providers and traffic, and acting as the company's people.")
    ] = False,
    tour: Annotated[bool, typer.Option("--tour", help="Ask one real question as soon as everything is ready.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ready line as one JSON line.")] = False,
) -> None:
    """Start everything and serve until Ctrl-C. Without --workspace the last blueprint is served."""
    settings = _load_settings(home, tls, draining)
    folder, warnings = workspace or load_settings().workspace, [str(problem) for problem in misspelt_settings()]
    if folder is not None:
        folder = folder.absolute()
        warnings += _workspace_warnings(folder, Home(settings.home))
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        progress = stack.enter_context(StartupProgress())
        start = Startup(Home(settings.home), settings, folder, demo, progress)
        supervisor = stack.enter_context(Supervisor(start.home, notice=progress.report))
        supervisor.handle_reload_signals()
        # workers left behind by a killed `up` release its ports once they have drained
        is_after_kill = (start.home.run / "up.json").exists()
        listeners = open_listeners(
            settings, listen.port, listen.control_port, patience=STALE_WORKERS_SECONDS if is_after_kill else 0.0
        )
        stack.callback(listeners.close)
        stack.callback(supervisor.close)
        start.start_database(supervisor, listen.workers)
        services = start.ensure_blueprint()
        start.start_processes(supervisor, listeners, listen.workers, services)
        client = start.wait_until_ready(supervisor, listeners, listen.workers)
        for line in warnings:
            note(f"! {line}")
        replacement_groups = partial(start.replacement_groups, supervisor, listeners, listen.workers)
        reloading = Reloading(
            start.home, supervisor, replacement_groups, partial(start.start_schema_upgrade, supervisor)
        )
        _serve(start, supervisor, client, ready_line(listeners, as_json), tour, reloading)
        listeners.close_gateway()
        progress.report("stopping")


def _load_settings(home: Path | None, tls: TlsOptions, draining: DrainOptions) -> Settings:
    """Settings of HOME, overridden by the command line."""
    settings = settings_for(home)
    settings = with_tls(settings, tls.host, tls.tls_cert, tls.tls_key, tls.tls_client_ca)
    drain, reload_drain = draining.drain, draining.reload_drain
    return replace(
        settings,
        drain_seconds=settings.drain_seconds if drain is None else drain,
        reload_drain_seconds=settings.reload_drain_seconds if reload_drain is None else reload_drain,
    )


def _workspace_warnings(folder: Path, home: Home) -> list[str]:
    """Warnings about the workspace: missing keys, and declarations without effect. Refuses an invalid workspace at the
    first start; later the last blueprint is served whatever the folder contains."""
    try:
        today = datetime.now(UTC).date()
        workspace_read = validate(
            folder, known_price=lambda model: has_listed_price(model, today), extra_rules=release_rules(today)
        )
    except GroundplanError as error:
        if not home.workspace.exists():
            raise
        note(f"the workspace has problems; the last blueprint is served: {error}")
        return []
    return [*missing_secrets(workspace_read), *map(str, collect.workspace_warnings(workspace_read, today))]


def missing_secrets(workspace: Workspace) -> Iterator[str]:
    """A warning for each deployment key that this process, and so its children, cannot resolve."""
    for name, item in workspace.deployments.items():
        for reference in (item.key, *(key.key for key in item.keys), item.proxy_key):
            try:
                if reference is not None:
                    resolve_secret(reference)
            except Invalid as error:
                yield f"{workspace.where('deployment', name)}: calls of {name} will fail: {error.message}. {error.hint}"


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _serve(
    start: Startup, supervisor: Supervisor, client: ControlClient, ready: str, tour: bool, reloading: Reloading
) -> None:
    with supervisor.signals():
        start.progress.report("ready")
        print_ready(ready)
        if start.demo:
            supervisor.start(processes.traffic(start.home, people=tour))
        link = login_link(client)
        if tour and link is not None:
            threading.Thread(target=take_tour, args=(client, start.home, link), daemon=True).start()
        elif link is not None:
            note(f"\nSign in once, within ten minutes: {link}\nCtrl-C ends it.")
        following = ServiceFollower(start, supervisor, client)

        def tick() -> None:
            following.tick()
            reloading.tick()

        supervisor.run(tick)


def login_link(client: ControlClient) -> str | None:
    """Create a one-time link to sign in; None, with a note on stderr, where the control process does not answer.

    The gateway serves by now, so a moment in which nobody can sign in must not end it.
    """
    try:
        return str(client.post("/api/login-links", {"person": None})["url"])
    except GroundplanError as error:
        note(f"\nNo link to sign in was made: {error.message}\n`groundplan login` makes one. Ctrl-C ends it.")
        return None


def print_ready(line: str) -> None:
    """Print the ready line, if stdout takes it: everything serves by now, whoever listens."""
    try:
        typer.echo(line)
    except OSError:
        discard_stdout()


def ready_line(listeners: Listeners, as_json: bool) -> str:
    """The one line on stdout."""
    gateway, control = listeners.public_url, listeners.control_url
    if as_json:
        return json.dumps({"ready": True, "gateway": gateway, "control": control})
    return f"ready gateway={gateway} control={control}"
