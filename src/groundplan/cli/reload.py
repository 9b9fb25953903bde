"""`groundplan reload`: gateway workers of the code that is installed now take over the listening socket, and those that
ran let their answers end; then console, API and shipper start again.

The models that run here and PostgreSQL stay as they are, and so does `up` itself.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from groundplan.cli.client import running
from groundplan.cli.options import HomeOption, JsonOption, home_for
from groundplan.cli.output import emit
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.core.words import counted
from groundplan.runtime.supervisor import Process, Supervisor

BESIDE = ("control", "shipper")
"""Processes that start again once the gateway's have been replaced."""


def reload(
    seconds: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the new workers.")] = 120.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch to newly installed code without failing a call. Exits with 69 if the new workers did not become ready; the
    old ones stay."""
    place = home_for(home)
    state = running(place)
    if state is None:
        raise Unavailable(
            f"no running `groundplan up` was found for {place.root}",
            code="not_running",
            hint="Start it: groundplan up.",
        )
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
    workers = counted(len(noted["replaced"]), "gateway worker is", "gateway workers are")
    emit(noted, as_json, f"{workers} replaced; running answers end on the old ones")


def _path(home: Home) -> Any:
    return home.run / "reload.json"


def _noted(home: Home) -> dict[str, Any]:
    try:
        value = json.loads(_path(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Reloading:
    """The part of a reload that `up` does; `tick` is called all the time. `again` makes the gateway's processes."""

    def __init__(self, home: Home, supervisor: Supervisor, again: Callable[[], Sequence[Process]]) -> None:
        self._home = home
        self._supervisor = supervisor
        self._again = again
        self._number = int(_noted(home).get("number", 0))
        self._before: dict[str, int | None] | None = None

    def tick(self) -> None:
        if self._before is None and self._supervisor.reload_wanted():
            self._begin()
        elif self._before is not None and not self._supervisor.replacing:
            self._end(self._before)

    def _begin(self) -> None:
        self._number += 1
        self._tell("running")
        try:
            successors = self._again()
            self._before = self._pids([process.name for process in successors])
            for process in successors:
                self._supervisor.replace(process)
        except (GroundplanError, OSError) as error:
            if not self._supervisor.replacing:
                self._before = None
                self._tell("failed", message=str(error))

    def _end(self, before: dict[str, int | None]) -> None:
        self._before = None
        now = self._pids(list(before))
        replaced = {name: {"before": before[name], "now": now[name]} for name in before if now[name] != before[name]}
        if len(replaced) < len(before):
            missing = ", ".join(sorted(set(before) - set(replaced)))
            self._tell("failed", message=f"the successor of {missing} did not become ready", replaced=replaced)
            return
        for name in BESIDE:
            self._supervisor.restart(name)
        self._tell("done", replaced=replaced)

    def _pids(self, names: list[str]) -> dict[str, int | None]:
        found = {state.name: state.pid for state in self._supervisor.states()}
        return {name: found.get(name) for name in names}

    def _tell(self, state: str, *, message: str = "", replaced: dict[str, Any] | None = None) -> None:
        value = {"number": self._number, "state": state, "message": message, "replaced": replaced or {}}
        write_atomically(_path(self._home), json.dumps(value).encode())
