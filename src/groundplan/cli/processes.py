"""Definitions of the processes of one installation, for the supervisor. Starts none of them itself."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from groundplan.api.served_blueprint import SEARCH, TRANSLATE
from groundplan.cli.listeners import Listeners
from groundplan.core.endpoints import CACHE_SECONDS, lookup
from groundplan.core.home import Home
from groundplan.core.settings import RELOAD_DRAIN_SECONDS, child_environment, load_settings, mimalloc_environment
from groundplan.gateway.http.listeners import LEAVE_SIGNAL, is_serving
from groundplan.runtime.child import spawn
from groundplan.runtime.models import MINILM, SMOLLM2
from groundplan.runtime.supervisor import Process

CONTROL, INSTALLED_MODULE = "control", "groundplan.cli.installed"
GATEWAY_MODULE, SHIPPER_MODULE = "groundplan.gateway.app", "groundplan.gateway.journal.shipper"
SHIPPER_ENDPOINT = "gateway-metrics-shipper"
"""Name under which the shipper is announced once it reads journals. A copy of the name in `gateway.telemetry.scrape`,
whose import would be expensive."""
RELOADABLE_SERVICES = {SEARCH: "groundplan.gateway.search_app", TRANSLATE: "groundplan.gateway.translate_app"}
"""Local service -> its module, for services that are our own code rather than a model, so that a reload replaces
them."""
CONTROL_EXIT_SECONDS = 15.0
"""How long a control process may take to end after the grace of its running requests (`api.app`)."""
READY_SECONDS = 120.0
"""How long a new search service may take to read its index."""
EMBEDDED_SERVICE = "embedded"
SCRIPTED_PREFIX = "scripted-"


def models_for(services: Iterable[str]) -> tuple[str, ...]:
    """Names of the model files that these services load."""
    model_of_service = {EMBEDDED_SERVICE: SMOLLM2.name, SEARCH: MINILM.name}
    return tuple(model_of_service[name] for name in services if name in model_of_service)


def module_command(name: str, *arguments: str) -> tuple[str, ...]:
    """Command line that runs one of our modules with this Python."""
    return (sys.executable, "-m", "groundplan.program", name, *arguments)


def start_schema_upgrade(
    home: Home, running: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start the process that checks whether the installed code can be loaded, for every process that a reload would
    restart, upgrades the database schema, and ends. `running`: names of the running processes."""
    programs = [
        _control_module(),
        SHIPPER_MODULE,
        GATEWAY_MODULE,
        *(RELOADABLE_SERVICES[name] for name in running if name in RELOADABLE_SERVICES),
    ]
    importlib.invalidate_caches()
    if importlib.util.find_spec(INSTALLED_MODULE) is None:  # a downgrade to code without this module is possible
        command = module_command("groundplan.runtime.migrate", "--home", str(home.root))
    else:
        command = module_command(INSTALLED_MODULE, "--home", str(home.root), *programs)
    schema_log(home).unlink(missing_ok=True)  # errors of an earlier upgrade must not be reported for this one
    return spawn(command, env=child_environment() if environment is None else environment, log=schema_log(home))


def schema_log(home: Home) -> Path:
    return home.logs / "schema.log"


def control(
    home: Home, fd: int, workspace: Path | None, demo: bool, leave_seconds: float = RELOAD_DRAIN_SECONDS
) -> Process:
    """The control process: console and API if the console is installed, else the API alone."""
    arguments = ["--home", str(home.root), "--fd", str(fd), "--leave", str(leave_seconds)]
    arguments += ["--workspace", str(workspace)] if workspace is not None else []
    arguments += ["--demo"] if demo else []
    return Process(
        CONTROL,
        module_command(_control_module(), *arguments),
        fds=(fd,),
        fit=lambda pid: _is_announced(home, CONTROL, pid),
        leave_signal=signal.SIGTERM,
        leave_grace=leave_seconds + CONTROL_EXIT_SECONDS,
    )


def _is_announced(home: Home, name: str, pid: int) -> bool:
    """Whether the process with this pid has announced itself as `name`, which processes do once they work."""
    return (endpoint := lookup(home, name)) is not None and endpoint.pid == pid


def _control_module() -> str:
    console = importlib.util.find_spec("groundplan.console.app")
    return "groundplan.console.app" if console is not None else "groundplan.api.app"


def shipper(home: Home) -> Process:
    """The shipper, fit once it is announced: by then the previous shipper has ended."""
    return Process(
        "shipper",
        module_command(SHIPPER_MODULE, "--home", str(home.root)),
        fit=lambda pid: _is_announced(home, SHIPPER_ENDPOINT, pid),
    )


def gateway(
    home: Home,
    listeners: Listeners,
    slot: int,
    drain_seconds: float,
    leave_seconds: float = RELOAD_DRAIN_SECONDS,
    workers: int = 0,
) -> Process:
    """Gateway worker number `slot` of `workers`; all accept from the same listening sockets."""
    fds = [listeners.public.fileno()]
    arguments = ["--home", str(home.root), "--fd", str(fds[0]), "--slot", str(slot), "--drain", str(drain_seconds)]
    arguments += ["--leave", str(leave_seconds), "--workers", str(workers)]
    if listeners.local is not None:
        fds.append(listeners.local.fileno())
        arguments += ["--local-fd", str(fds[1])]
    if (files := listeners.tls_files) is not None:
        arguments += ["--tls-cert", str(files.cert), "--tls-key", str(files.key)]
        arguments += ["--tls-client-ca", str(files.client_ca)] if files.client_ca is not None else []
    return Process(
        f"gateway-{slot}",
        module_command(GATEWAY_MODULE, *arguments),
        env=mimalloc_environment(),
        fds=tuple(fds),
        grace=drain_seconds + 5.0,
        leave_signal=LEAVE_SIGNAL,
        leave_grace=leave_seconds + drain_seconds + 5.0,
        fit=lambda pid: is_serving(home, pid),
        front=True,
    )


def local_service(home: Home, name: str, leave_seconds: float = RELOAD_DRAIN_SECONDS) -> Process | None:
    """The process of a local service; None for a name of no local service. `leave_seconds`: how long answers may run
    through a process that was replaced."""
    if name == EMBEDDED_SERVICE:
        return Process(name, module_command("groundplan.runtime.embedded", "--home", str(home.root)))
    if name in RELOADABLE_SERVICES:
        drain = ("--drain", str(leave_seconds)) if name == TRANSLATE else ()
        return Process(
            name,
            module_command(RELOADABLE_SERVICES[name], "--home", str(home.root), *drain),
            ready_seconds=READY_SECONDS,
            fit=lambda pid: _is_announced(home, name, pid),
            leave_signal=signal.SIGTERM,
            leave_grace=leave_seconds + 5.0,
            leave_after=2 * CACHE_SECONDS,
        )
    if name.startswith(SCRIPTED_PREFIX):
        meaning = str(load_settings().models / MINILM.name)
        scripted = ("--home", str(home.root), "--name", name, "--meaning", meaning)
        return Process(name, module_command("groundplan.testing.scripted", *scripted))
    return None


def traffic(home: Home, people: bool = False) -> Process:
    """The simulated callers of the demo; with `people` also the simulated approvers and reviewers."""
    options = ("--people",) if people else ()
    return Process("traffic", module_command("groundplan.testing.traffic", "--home", str(home.root), *options))
