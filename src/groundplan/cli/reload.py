"""`groundplan reload`: switches to newly installed code. If it can be loaded, the database schema is upgraded and the
shipper restarts; then local services, gateway workers, and console and API are replaced in this order, and the old
processes finish their running answers.

Local models, PostgreSQL and `up` itself are not restarted. Workers of the old code run for a while on the newer schema,
as those of other machines do on a common database.
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
"""Restarts before the gateway workers are replaced: new code reads the journals of old and new workers."""
PROBE_BYTES = 64 << 10
SHIPPER_RESTART_SECONDS = 60.0
"""How long to wait until the restarted shipper works."""


@dataclass(frozen=True, slots=True)
class _ShipperRestart:
    """A restart of the shipper that is under way: its earlier number of starts and pid, and the deadline."""

    starts: int
    pid: int | None
    until: float


def reload(
    seconds: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the new workers.")] = 120.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch to newly installed code without failing a call. Exits with 69 if the new workers do not become ready: the
    old ones stay. So it does where they are not ready in time: they take over once they are."""
    place = home_for(home)
    up = require_running(place)
    before = _read_state(place).get("number", 0)
    lacks_upgrades = not up.get("upgrades")
    _check_disk_space(place)
    if lacks_upgrades:
        _upgrade_schema(place, int(up["pid"]))
    os.kill(int(up["pid"]), signal.SIGUSR1)
    started, deadline = time.time(), time.monotonic() + seconds
    while (state := _read_state(place)).get("number", 0) <= before or state["state"] == "running":
        require_running(place)
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the new workers are not ready yet{_upgrade_blocker(place, started)}",
                code="reload_slow",
                hint=f"The reload goes on: they take over once they are ready, and the old ones serve until then. "
                f"{_state_path(place)} says how it ends; see {place.logs}.",
            )
        time.sleep(0.05)
    if state["state"] != "done":
        raise _reload_failed(place, str(state["message"]))
    if lacks_upgrades and SEARCH not in state["replaced"]:
        _restart_search(place)
    services = [name for name in state["replaced"] if not name.startswith("gateway-")]
    summary = quantity(len(state["replaced"]) - len(services), "gateway worker", "gateway workers")
    summary = " and ".join(", ".join([*services, summary]).rsplit(", ", 1))
    emit(state, as_json, f"{summary} replaced; running answers end on the old ones")


def _check_disk_space(home: Home) -> None:
    """Raise `Unavailable` where the disk is full: new workers need a journal, and the outcome could not be recorded."""
    probe = _state_path(home).with_suffix(".probe")
    try:
        write_atomically(probe, bytes(PROBE_BYTES))
        probe.unlink()
    except OSError as error:
        raise Unavailable(
            f"nothing is reloaded: {home.run} takes no file: {error.strerror}",
            code="reload_failed",
            hint="Free space on the disk of HOME, or make it writable, then reload again; the old ones serve.",
        ) from error


def _upgrade_schema(home: Home, up: int) -> None:
    """Upgrade the schema on behalf of an `up` whose code is from before reloads did so, with its environment, since the
    database's address may be set only there."""
    variables = Path(f"/proc/{up}/environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    environment = dict(each.split("=", 1) for each in variables if "=" in each)
    if code := start_schema_upgrade(home, RELOADABLE_SERVICES, environment).wait():
        raise _reload_failed(home, _upgrade_failure(home, code))


def _upgrade_failure(home: Home, code: int) -> str:
    """Why the upgrade of the schema failed."""
    return tail(schema_log(home), 1) or f"what upgrades the database ended with code {code}"


def _upgrade_blocker(home: Home, since: float) -> str:
    """What the upgrade of the schema waits for, if it logged anything since then."""
    with suppress(OSError):
        if schema_log(home).stat().st_mtime >= since and (line := tail(schema_log(home), 1)):
            return f": {line}"
    return ""


def _restart_search(home: Home) -> None:
    """Restart the search service for an `up` whose code is from before reloads replaced it: the old service does not
    understand new workers, so every call with sources would be refused. `up` starts it again when it ends."""
    if (before := lookup(home, SEARCH)) is None:
        return
    os.kill(before.pid, signal.SIGTERM)
    end = time.monotonic() + READY_SECONDS
    while (now := lookup(home, SEARCH)) is None or now.pid == before.pid:
        if time.monotonic() > end:
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

    `again` returns the groups of processes to replace, one group after the other. `schema` starts the upgrade of the
    database that precedes them.
    """

    def __init__(
        self,
        home: Home,
        supervisor: Supervisor,
        again: Callable[[], Iterable[Sequence[Process]]],
        schema: Callable[[], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        self._home = home
        self._supervisor = supervisor
        self._replacements = again
        self._schema = schema
        self._upgrading: subprocess.Popen[bytes] | None = None
        self._number = int(_read_state(home).get("number", 0))
        self._groups: deque[Sequence[Process]] | None = None
        """Groups that wait to be replaced; None: no reload is under way."""
        self._before: dict[str, int | None] = {}
        self._shipper_restart: _ShipperRestart | None = None
        self._unwritten: bytes | None = None
        """State that a full disk did not take yet."""

    def tick(self) -> None:
        if self._unwritten is not None:
            self._write_state(self._unwritten)
        if self._upgrading is not None:
            if (code := self._upgrading.poll()) is not None:
                self._upgrading = None
                self._on_schema_upgraded(code)
        elif self._shipper_restart is not None:
            self._check_shipper(self._shipper_restart)
        elif self._groups is None:
            if self._supervisor.take_reload_request():
                self._begin()
        elif not self._supervisor.replacing:
            self._on_group_replaced(self._groups)

    def _begin(self) -> None:
        self._number += 1
        self._before = {}
        self._record_state("running")
        if self._schema is None:
            self._on_schema_upgraded(0)
            return
        try:
            self._upgrading = self._schema()
        except (GroundplanError, OSError) as error:
            self._fail(error)

    def _on_schema_upgraded(self, code: int) -> None:
        if code != 0:
            self._record_state("failed", message=_upgrade_failure(self._home, code))
            return
        try:
            self._groups = deque(group for group in self._replacements() if group)
        except (GroundplanError, OSError) as error:
            self._fail(error)
            return
        before = {state.name: state for state in self._supervisor.states()}.get(SHIPPER_NAME)
        self._supervisor.restart(SHIPPER_NAME)
        if before is None:
            self._on_shipper_restarted()
        else:
            self._shipper_restart = _ShipperRestart(
                before.starts, before.pid, time.monotonic() + SHIPPER_RESTART_SECONDS
            )

    def _check_shipper(self, anew: _ShipperRestart) -> None:
        """Go on once the shipper works again. If it ended once more, the new code does not run here: the reload
        fails."""
        now = {state.name: state for state in self._supervisor.states()}[SHIPPER_NAME]
        if now.starts > anew.starts and now.pid not in (None, anew.pid) and self._supervisor.is_fit(SHIPPER_NAME):
            self._shipper_restart = None
            self._on_shipper_restarted()
        elif now.starts > anew.starts + 1 or time.monotonic() > anew.until:
            self._shipper_restart = self._groups = None
            why = self._last_log_line(SHIPPER_NAME)
            self._record_state("failed", message=f"{SHIPPER_NAME} did not start again{why}", replaced=self._replaced())

    def _on_shipper_restarted(self) -> None:
        """Begin to replace the groups: the shipper and local services are never older than the gateway that uses
        them."""
        if not self._groups:
            self._finish()
            return
        try:
            self._replace_next_group(self._groups)
        except (GroundplanError, OSError) as error:
            self._fail(error)

    def _last_log_line(self, name: str) -> str:
        """The last line of a process's log, as a suffix to a message."""
        told = tail(self._supervisor.log_path(name), 1)
        return f": {told}" if told else ""

    def _replace_next_group(self, groups: deque[Sequence[Process]]) -> None:
        group = groups.popleft()
        self._before |= self._pids([process.name for process in group])
        for process in group:
            self._supervisor.replace(process)

    def _on_group_replaced(self, groups: deque[Sequence[Process]]) -> None:
        replaced = self._replaced()
        if len(replaced) < len(self._before):
            lacking = sorted(set(self._before) - set(replaced))
            missing, why = ", ".join(lacking), self._last_log_line(lacking[0])
            self._groups = None
            self._record_state(
                "failed", message=f"the successor of {missing} did not become ready{why}", replaced=replaced
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
        """Start no further group; processes that are being replaced finish first, and then report the state."""
        if self._supervisor.replacing and self._groups is not None:
            self._groups.clear()
            return
        self._groups = None
        self._record_state("failed", message=str(error), replaced=self._replaced())

    def _replaced(self) -> dict[str, Any]:
        now = self._pids(list(self._before))
        return {
            name: {"before": pid, "now": now[name]}
            for name, pid in self._before.items()
            if now[name] not in (None, pid)
        }

    def _pids(self, names: list[str]) -> dict[str, int | None]:
        found = {state.name: state.pid for state in self._supervisor.states()}
        return {name: found.get(name) for name in names}

    def _record_state(self, state: str, *, message: str = "", replaced: dict[str, Any] | None = None) -> None:
        value = {"number": self._number, "state": state, "message": message, "replaced": replaced or {}}
        self._write_state(json.dumps(value).encode())

    def _write_state(self, told: bytes) -> None:
        """Write the state file, or keep it for the next tick where the disk is full: the command waits, `up` goes
        on."""
        self._unwritten = told
        with suppress(OSError):
            write_atomically(_state_path(self._home), told)
            self._unwritten = None
