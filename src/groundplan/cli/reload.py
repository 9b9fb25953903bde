"""`groundplan reload`: switches to newly installed code. If the code can be loaded, the database schema is upgraded and
the shipper restarts; then local services, gateway workers, and console and API are replaced, in this order. The old
processes finish their running answers.

Local models, PostgreSQL and `up` itself are not restarted. Workers of the old code run for a while on the newer schema,
as workers of other machines do on a shared database.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.api.served_blueprint import SEARCH
from groundplan.cli.client import require_running
from groundplan.cli.options import HomeOption, JsonOption, home_for
from groundplan.cli.output import emit
from groundplan.cli.processes import READY_SECONDS, RELOADABLE_SERVICES, schema_log, start_schema_upgrade
from groundplan.core.endpoints import lookup
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.core.words import quantity
from groundplan.runtime.child import tail
from groundplan.runtime.supervisor import Process, Supervisor

SHIPPER_NAME = "shipper"
"""The shipper restarts before the gateway workers are replaced: new code reads the journals of old and new workers."""
PROBE_BYTES = 64 << 10
SHIPPER_RESTART_SECONDS = 60.0
"""Deadline for the restarted shipper to work."""


@dataclass(frozen=True, slots=True)
class _ShipperRestart:
    """A restart of the shipper in progress: number of starts and pid before it, and the deadline."""

    starts: int
    pid: int | None
    deadline: float


def reload(
    seconds: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the new workers.")] = 120.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch to newly installed code without failing a call. Exits with 69 if the new workers do not become ready, and
    the old ones stay; if they only become ready too late, they take over then."""
    paths = home_for(home)
    up_state = require_running(paths)
    previous_number = _read_state(paths).get("number", 0)
    lacks_upgrades = not up_state.get("upgrades")
    _check_disk_space(paths)
    if lacks_upgrades:
        _upgrade_schema(paths, int(up_state["pid"]))
    os.kill(int(up_state["pid"]), signal.SIGUSR1)
    started, deadline = time.time(), time.monotonic() + seconds
    while (state := _read_state(paths)).get("number", 0) <= previous_number or state["state"] == "running":
        require_running(paths)
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the new workers are not ready yet{_upgrade_blocker(paths, started)}",
                code="reload_slow",
                hint=f"The reload goes on: they take over once they are ready, and the old ones serve until then. "
                f"{_state_path(paths)} says how it ends; see {paths.logs}.",
            )
        time.sleep(0.05)
    if state["state"] != "done":
        raise _reload_failed(paths, str(state["message"]))
    if lacks_upgrades and SEARCH not in state["replaced"]:
        _restart_search(paths)
    services = [name for name in state["replaced"] if not name.startswith("gateway-")]
    summary = quantity(len(state["replaced"]) - len(services), "gateway worker", "gateway workers")
    summary = " and ".join(", ".join([*services, summary]).rsplit(", ", 1))
    emit(state, as_json, f"{summary} replaced; running answers end on the old ones")


def _check_disk_space(home: Home) -> None:
    """Raise `Unavailable` if the disk is full: new workers need a journal, and the outcome could not be recorded."""
    probe = _state_path(home).with_suffix(".probe")
    try:
        write_atomically(probe, bytes(PROBE_BYTES))
        probe.unlink()
    except OSError as error:
        raise Unavailable(
            f"nothing is reloaded: no file can be written to {home.run}: {error.strerror}",
            code="reload_failed",
            hint="Free space on the disk of HOME, or make it writable, then reload again; the old ones serve.",
        ) from error


def _upgrade_schema(home: Home, pid: int) -> None:
    """Upgrade the schema on behalf of an `up` whose code does not do so itself, with the environment of that process,
    since the database's address may be set only there."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    environment = dict(variable.split("=", 1) for variable in variables if "=" in variable)
    if code := start_schema_upgrade(home, RELOADABLE_SERVICES, environment).wait():
        raise _reload_failed(home, _upgrade_failure(home, code))


def _upgrade_failure(home: Home, code: int) -> str:
    """Why the upgrade of the schema failed."""
    return tail(schema_log(home), 1) or f"what upgrades the database ended with code {code}"


def _upgrade_blocker(home: Home, since: float) -> str:
    """What the upgrade of the schema waits for, as a suffix to a message: its last log line, if it is newer than
    `since`."""
    with suppress(OSError):
        if schema_log(home).stat().st_mtime >= since and (line := tail(schema_log(home), 1)):
            return f": {line}"
    return ""


def _restart_search(home: Home) -> None:
    """Restart the search service for an `up` whose code does not replace it itself: the old service does not understand
    new workers, so every call with sources would be refused. `up` starts the service again when it ends."""
    if (old := lookup(home, SEARCH)) is None:
        return
    os.kill(old.pid, signal.SIGTERM)
    deadline = time.monotonic() + READY_SECONDS
    while (current := lookup(home, SEARCH)) is None or current.pid == old.pid:
        if time.monotonic() > deadline:
            raise _reload_failed(home, "the search service does not get ready again")
        time.sleep(0.05)


def _reload_failed(home: Home, message: str) -> Unavailable:
    return Unavailable(message, code="reload_failed", hint=f"See {home.logs}; calls go on being answered.")


def _state_path(home: Home) -> Any:
    return home.run / "reload.json"


def _read_state(home: Home) -> dict[str, Any]:
    try:
        value = json.loads(_state_path(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Reloading:
    """The part of a reload that runs in `up`; the supervisor's loop calls `tick`.

    `replacement_groups` returns the groups of processes to replace, one group after the other. `start_schema_upgrade`
    starts the upgrade of the database that precedes them.
    """

    def __init__(
        self,
        home: Home,
        supervisor: Supervisor,
        replacement_groups: Callable[[], Iterable[Sequence[Process]]],
        start_schema_upgrade: Callable[[], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        self._home = home
        self._supervisor = supervisor
        self._replacement_groups = replacement_groups
        self._start_schema_upgrade = start_schema_upgrade
        self._schema_upgrade: subprocess.Popen[bytes] | None = None
        self._number = int(_read_state(home).get("number", 0))
        self._groups: deque[Sequence[Process]] | None = None
        """Groups that wait to be replaced; None: no reload is in progress."""
        self._old_pids: dict[str, int | None] = {}
        """Name -> pid of each process at the time when its replacement started."""
        self._shipper_restart: _ShipperRestart | None = None
        self._unwritten: bytes | None = None
        """State that could not be written yet, as on a full disk."""

    def tick(self) -> None:
        """Take the next step of the reload, if it is due."""
        if self._unwritten is not None:
            self._write_state(self._unwritten)
        if self._schema_upgrade is not None:
            if (code := self._schema_upgrade.poll()) is not None:
                self._schema_upgrade = None
                self._on_schema_upgraded(code)
        elif self._shipper_restart is not None:
            self._check_shipper(self._shipper_restart)
        elif self._groups is None:
            if self._supervisor.take_reload_request():
                self._start_reload()
        elif not self._supervisor.replacing:
            self._on_group_replaced(self._groups)

    def _start_reload(self) -> None:
        self._number += 1
        self._old_pids = {}
        self._record_state("running")
        if self._start_schema_upgrade is None:
            self._on_schema_upgraded(0)
            return
        try:
            self._schema_upgrade = self._start_schema_upgrade()
        except (GroundplanError, OSError) as error:
            self._fail(error)

    def _on_schema_upgraded(self, code: int) -> None:
        if code != 0:
            self._record_state("failed", message=_upgrade_failure(self._home, code))
            return
        try:
            self._groups = deque(group for group in self._replacement_groups() if group)
        except (GroundplanError, OSError) as error:
            self._fail(error)
            return
        shipper = {state.name: state for state in self._supervisor.states()}.get(SHIPPER_NAME)
        self._supervisor.restart(SHIPPER_NAME)
        if shipper is None:
            self._on_shipper_restarted()
        else:
            self._shipper_restart = _ShipperRestart(
                shipper.starts, shipper.pid, time.monotonic() + SHIPPER_RESTART_SECONDS
            )

    def _check_shipper(self, restart: _ShipperRestart) -> None:
        """Continue once the shipper works again. If it ended once more, the new code does not run here: the reload
        fails."""
        shipper = {state.name: state for state in self._supervisor.states()}[SHIPPER_NAME]
        if (
            shipper.starts > restart.starts
            and shipper.pid not in (None, restart.pid)
            and self._supervisor.is_fit(SHIPPER_NAME)
        ):
            self._shipper_restart = None
            self._on_shipper_restarted()
        elif shipper.starts > restart.starts + 1 or time.monotonic() > restart.deadline:
            self._shipper_restart = self._groups = None
            last_line = self._last_log_line(SHIPPER_NAME)
            self._record_state(
                "failed", message=f"{SHIPPER_NAME} did not start again{last_line}", replaced=self._replaced()
            )

    def _on_shipper_restarted(self) -> None:
        """Replace the first group: the shipper and local services are never older than the gateway that uses them."""
        if not self._groups:
            self._finish()
            return
        try:
            self._replace_next_group(self._groups)
        except (GroundplanError, OSError) as error:
            self._fail(error)

    def _last_log_line(self, name: str) -> str:
        """The last line of a process's log, as a suffix to a message."""
        line = tail(self._supervisor.log_path(name), 1)
        return f": {line}" if line else ""

    def _replace_next_group(self, groups: deque[Sequence[Process]]) -> None:
        group = groups.popleft()
        self._old_pids |= self._pids([process.name for process in group])
        for process in group:
            self._supervisor.replace(process)

    def _on_group_replaced(self, groups: deque[Sequence[Process]]) -> None:
        replaced = self._replaced()
        if len(replaced) < len(self._old_pids):
            missing_names = sorted(set(self._old_pids) - set(replaced))
            missing, last_line = ", ".join(missing_names), self._last_log_line(missing_names[0])
            self._groups = None
            self._record_state(
                "failed", message=f"the successor of {missing} did not become ready{last_line}", replaced=replaced
            )
            return
        if groups:
            try:
                self._replace_next_group(groups)
            except (GroundplanError, OSError) as error:
                self._fail(error)
            return
        self._finish()

    def _finish(self) -> None:
        self._groups = None
        self._record_state("done", replaced=self._replaced())

    def _fail(self, error: Exception) -> None:
        """End the reload as failed. Processes that are being replaced finish first; no further group starts."""
        if self._supervisor.replacing and self._groups is not None:
            self._groups.clear()
            return
        self._groups = None
        self._record_state("failed", message=str(error), replaced=self._replaced())

    def _replaced(self) -> dict[str, Any]:
        """Name -> old and new pid of each process that has been replaced."""
        pids = self._pids(list(self._old_pids))
        return {
            name: {"before": pid, "now": pids[name]}
            for name, pid in self._old_pids.items()
            if pids[name] not in (None, pid)
        }

    def _pids(self, names: list[str]) -> dict[str, int | None]:
        pids = {state.name: state.pid for state in self._supervisor.states()}
        return {name: pids.get(name) for name in names}

    def _record_state(self, state: str, *, message: str = "", replaced: dict[str, Any] | None = None) -> None:
        value = {"number": self._number, "state": state, "message": message, "replaced": replaced or {}}
        self._write_state(json.dumps(value).encode())

    def _write_state(self, content: bytes) -> None:
        """Write the state file, or keep the content for the next tick if the disk is full: the command waits, while
        `up` goes on."""
        self._unwritten = content
        with suppress(OSError):
            write_atomically(_state_path(self._home), content)
            self._unwritten = None
