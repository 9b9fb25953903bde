"""Which processes make up one installation, as a list for the supervisor. It starts nothing itself."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from groundplan.api.served_blueprint import SEARCH, TRANSLATE
from groundplan.cli.listeners import Listeners
from groundplan.core.endpoints import KNOWN_SECONDS, lookup
from groundplan.core.home import Home
from groundplan.core.settings import LEAVE_SECONDS, child_environment, crowd_allocator, load_settings
from groundplan.gateway.http.listeners import LEAVE_SIGNAL, is_serving
from groundplan.runtime.child import spawn
from groundplan.runtime.models import MINILM, SMOLLM2
from groundplan.runtime.supervisor import Process

CONTROL, INSTALLED = "control", "groundplan.cli.installed"
GATEWAY, SHIPPER = "groundplan.gateway.app", "groundplan.gateway.journal.shipper"
SHIPPER_TELLS = "gateway-metrics-shipper"
"""As which the shipper is found once it reads journals (`gateway.telemetry.scrape`, which loads far more)."""
REPLACED = {SEARCH: "groundplan.gateway.search_app", TRANSLATE: "groundplan.gateway.translate_app"}
"""Local services that are our own code rather than a model: new code replaces them."""
CONTROL_ENDS_SECONDS = 15.0
"""In which a control process ends whose running requests had their time (`api.app`)."""
READY_SECONDS = 120.0
"""In which a successor has read its index."""
EMBEDDED = "embedded"
SCRIPTED = "scripted-"


def models_for(services: Iterable[str]) -> tuple[str, ...]:
    """Names of the model files that these services load."""
    wanted = {EMBEDDED: SMOLLM2.name, SEARCH: MINILM.name}
    return tuple(wanted[name] for name in services if name in wanted)


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of one of our modules in this Python."""
    return (sys.executable, "-m", "groundplan.program", name, *arguments)


def schema(
    home: Home, running: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Started: what sees whether the code that is installed now can be loaded, for all that is to start anew of what is
    `running`, brings the database to its schema, and ends."""
    programs = [_console(), SHIPPER, GATEWAY, *(REPLACED[name] for name in running if name in REPLACED)]
    importlib.invalidate_caches()
    if importlib.util.find_spec(INSTALLED) is None:  # whoever goes back to code that has none is not kept from it
        command = module("groundplan.runtime.migrate", "--home", str(home.root))
    else:
        command = module(INSTALLED, "--home", str(home.root), *programs)
    schema_log(home).unlink(missing_ok=True)  # what was wrong with the one before is not what is with this
    return spawn(command, env=child_environment() if environment is None else environment, log=schema_log(home))


def schema_log(home: Home) -> Path:
    return home.logs / "schema.log"


def control(home: Home, fd: int, workspace: Path | None, demo: bool, leave_seconds: float = LEAVE_SECONDS) -> Process:
    """The control process: the console where it is installed, else the API alone."""
    arguments = ["--home", str(home.root), "--fd", str(fd), "--leave", str(leave_seconds)]
    arguments += ["--workspace", str(workspace)] if workspace is not None else []
    arguments += ["--demo"] if demo else []
    return Process(
        CONTROL,
        module(_console(), *arguments),
        fds=(fd,),
        fit=lambda pid: _tells(home, CONTROL, pid),
        leave_signal=signal.SIGTERM,
        leave_grace=leave_seconds + CONTROL_ENDS_SECONDS,
    )


def _tells(home: Home, name: str, pid: int) -> bool:
    """Whether the process with this pid has told where it is to be found as `name`, which it does once it works."""
    return (found := lookup(home, name)) is not None and found.pid == pid


def _console() -> str:
    console = importlib.util.find_spec("groundplan.console.app")
    return "groundplan.console.app" if console is not None else "groundplan.api.app"


def shipper(home: Home) -> Process:
    """It is fit once it has told where it is to be found: the one before has ended by then."""
    return Process(
        "shipper",
        module(SHIPPER, "--home", str(home.root)),
        fit=lambda pid: _tells(home, SHIPPER_TELLS, pid),
    )


def gateway(
    home: Home,
    listeners: Listeners,
    slot: int,
    drain_seconds: float,
    leave_seconds: float = LEAVE_SECONDS,
    workers: int = 0,
) -> Process:
    """Gateway worker `slot` of so many; all accept from the same listening sockets."""
    fds = [listeners.public.fileno()]
    arguments = ["--home", str(home.root), "--fd", str(fds[0]), "--slot", str(slot), "--drain", str(drain_seconds)]
    arguments += ["--leave", str(leave_seconds), "--workers", str(workers)]
    if listeners.local is not None:
        fds.append(listeners.local.fileno())
        arguments += ["--local-fd", str(fds[1])]
    if (files := listeners.files) is not None:
        arguments += ["--tls-cert", str(files.cert), "--tls-key", str(files.key)]
        arguments += ["--tls-client-ca", str(files.client_ca)] if files.client_ca is not None else []
    return Process(
        f"gateway-{slot}",
        module(GATEWAY, *arguments),
        env=crowd_allocator(),
        fds=tuple(fds),
        grace=drain_seconds + 5.0,
        leave_signal=LEAVE_SIGNAL,
        leave_grace=leave_seconds + drain_seconds + 5.0,
        fit=lambda pid: is_serving(home, pid),
        front=True,
    )


def service(home: Home, name: str, leave_seconds: float = LEAVE_SECONDS) -> Process | None:
    """The process that answers for a local name; None for a name that is not ours to start. `leave_seconds`: of
    answers that run through one whose successor has taken over."""
    if name == EMBEDDED:
        return Process(name, module("groundplan.runtime.embedded", "--home", str(home.root)))
    if name in REPLACED:
        drain = ("--drain", str(leave_seconds)) if name == TRANSLATE else ()
        return Process(
            name,
            module(REPLACED[name], "--home", str(home.root), *drain),
            ready_seconds=READY_SECONDS,
            fit=lambda pid: _tells(home, name, pid),
            leave_signal=signal.SIGTERM,
            leave_grace=leave_seconds + 5.0,
            leave_after=2 * KNOWN_SECONDS,
        )
    if name.startswith(SCRIPTED):
        meaning = str(load_settings().models / MINILM.name)
        scripted = ("--home", str(home.root), "--name", name, "--meaning", meaning)
        return Process(name, module("groundplan.testing.scripted", *scripted))
    return None


def traffic(home: Home, people: bool = False) -> Process:
    """The demo's callers; `people`: those who approve and review, too."""
    more = ("--people",) if people else ()
    return Process("traffic", module("groundplan.testing.traffic", "--home", str(home.root), *more))
