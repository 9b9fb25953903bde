"""`groundplan reload`: the database is brought to the schema of the code that is installed now and the shipper starts
again; the local services and then the gateway workers of that code take over, and those that ran let their answers end;
then console and API start again.

The models that run here and PostgreSQL stay as they are, and so does `up` itself. Workers of the code before go on for
a while on the newer schema, as those of other machines do on a common database.
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
from typing import Annotated, Any

import typer

from groundplan.cli.client import found_running
from groundplan.cli.options import HomeOption, JsonOption, home_for
from groundplan.cli.output import emit
from groundplan.cli.processes import schema_log
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.core.words import counted
from groundplan.runtime.child import tail
from groundplan.runtime.supervisor import Process, Supervisor

READER = "shipper"
"""Starts again before the gateway's are replaced: it reads what those before write, and all of what comes after."""
LAST = "control"
"""Starts again once they have been."""


def reload(
    seconds: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the new workers.")] = 120.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch to newly installed code without failing a call. Exits with 69 if the new workers did not become ready; the
    old ones stay."""
    place = home_for(home)
    state = found_running(place)
    before = _noted(place).get("number", 0)
    os.kill(int(state["pid"]), signal.SIGUSR1)
    deadline = time.monotonic() + seconds
    while (noted := _noted(place)).get("number", 0) <= before or noted["state"] == "running":
        if time.monotonic() > deadline:
            raise Unavailable(
                "the new workers are not ready yet", code="reload_slow", hint=f"See {place.logs}; the old ones serve."
            )
        time.sleep(0.05)
    if noted["state"] != "done":
        raise Unavailable(str(noted["message"]), code="reload_failed", hint=f"See {place.logs}; the old ones serve.")
    beside = [name for name in noted["replaced"] if not name.startswith("gateway-")]
    told = counted(len(noted["replaced"]) - len(beside), "gateway worker", "gateway workers")
    told = " and ".join(", ".join([*beside, told]).rsplit(", ", 1))
    emit(noted, as_json, f"{told} replaced; running answers end on the old ones")


def _path(home: Home) -> Any:
    return home.run / "reload.json"


def _noted(home: Home) -> dict[str, Any]:
    try:
        value = json.loads(_path(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Reloading:
    """The part of a reload that `up` does; `tick` is called all the time. `again` makes what is replaced, those of a
    group together once the group before it is; `schema` starts what upgrades the database before."""

    def __init__(
        self,
        home: Home,
        supervisor: Supervisor,
        again: Callable[[], Iterable[Sequence[Process]]],
        schema: Callable[[], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        self._home = home
        self._supervisor = supervisor
        self._again = again
        self._schema = schema
        self._upgrading: subprocess.Popen[bytes] | None = None
        self._number = int(_noted(home).get("number", 0))
        self._groups: deque[Sequence[Process]] | None = None
        """Those that wait; None: none is under way."""
        self._before: dict[str, int | None] = {}

    def tick(self) -> None:
        if self._upgrading is not None:
            if (code := self._upgrading.poll()) is not None:
                self._upgrading = None
                self._upgraded(code)
        elif self._groups is None:
            if self._supervisor.reload_wanted():
                self._begin()
        elif not self._supervisor.replacing:
            self._go_on(self._groups)

    def _begin(self) -> None:
        self._number += 1
        self._before = {}
        self._tell("running")
        if self._schema is None:
            self._upgraded(0)
            return
        try:
            self._upgrading = self._schema()
        except (GroundplanError, OSError) as error:
            self._fail(error)

    def _upgraded(self, code: int) -> None:
        if code != 0:
            told = tail(schema_log(self._home), 1) or f"what upgrades the database ended with code {code}"
            self._tell("failed", message=told)
            return
        try:
            self._groups = deque(group for group in self._again() if group)
            self._supervisor.restart(READER)
            self._replace(self._groups)
        except (GroundplanError, OSError) as error:
            self._fail(error)

    def _replace(self, groups: deque[Sequence[Process]]) -> None:
        group = groups.popleft()
        self._before |= self._pids([process.name for process in group])
        for process in group:
            self._supervisor.replace(process)

    def _go_on(self, groups: deque[Sequence[Process]]) -> None:
        replaced = self._replaced()
        if len(replaced) < len(self._before):
            missing = ", ".join(sorted(set(self._before) - set(replaced)))
            self._groups = None
            self._tell("failed", message=f"the successor of {missing} did not become ready", replaced=replaced)
            return
        if groups:
            try:
                self._replace(groups)
            except (GroundplanError, OSError) as error:
                self._fail(error)
            return
        self._groups = None
        self._supervisor.restart(LAST)
        self._tell("done", replaced=replaced)

    def _fail(self, error: Exception) -> None:
        """Nothing more is begun; what is under way comes to its end, which tells."""
        if self._supervisor.replacing and self._groups is not None:
            self._groups.clear()
            return
        self._groups = None
        self._tell("failed", message=str(error), replaced=self._replaced())

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

    def _tell(self, state: str, *, message: str = "", replaced: dict[str, Any] | None = None) -> None:
        value = {"number": self._number, "state": state, "message": message, "replaced": replaced or {}}
        with suppress(OSError):  # on a disk that is full the command waits in vain, and `up` goes on
            write_atomically(_path(self._home), json.dumps(value).encode())
