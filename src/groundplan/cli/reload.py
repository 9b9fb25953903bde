"""`groundplan reload`: where the code that is installed now can be loaded, the database is brought to its schema and
the shipper starts again; the local services, then the gateway workers, then console and API of that code take over, and
those that ran let their answers end.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.api.served_blueprint import SEARCH
from groundplan.cli.client import found_running
from groundplan.cli.options import HomeOption, JsonOption, home_for
from groundplan.cli.output import emit
from groundplan.cli.processes import READY_SECONDS, REPLACED, schema, schema_log
from groundplan.core.endpoints import lookup
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.core.words import counted
from groundplan.runtime.child import tail
from groundplan.runtime.supervisor import Process, Supervisor

READER = "shipper"
"""Starts again before the gateway's are replaced: it reads what those before write, and all of what comes after."""
PROBE_BYTES = 64 << 10
ANEW_SECONDS = 60.0
"""How long is waited until it has taken up its work."""


@dataclass(frozen=True, slots=True)
class _Anew:
    """The reader was asked to start again: how often it had been started, and which it was, and until when."""

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
    state = found_running(place)
    before = _noted(place).get("number", 0)
    older = not state.get("upgrades")
    _check_room(place)
    if older:
        _upgrade(place, int(state["pid"]))
    os.kill(int(state["pid"]), signal.SIGUSR1)
    begun, deadline = time.time(), time.monotonic() + seconds
    while (noted := _noted(place)).get("number", 0) <= before or noted["state"] == "running":
        found_running(place)
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the new workers are not ready yet{_waits_for(place, begun)}",
                code="reload_slow",
                hint=f"The reload goes on: they take over once they are ready, and the old ones serve until then. "
                f"{_path(place)} says how it ends; see {place.logs}.",
            )
        time.sleep(0.05)
    if noted["state"] != "done":
        raise _failed(place, str(noted["message"]))
    if older and SEARCH not in noted["replaced"]:
        _search_anew(place)
    beside = [name for name in noted["replaced"] if not name.startswith("gateway-")]
    told = counted(len(noted["replaced"]) - len(beside), "gateway worker", "gateway workers")
    told = " and ".join(", ".join([*beside, told]).rsplit(", ", 1))
    emit(noted, as_json, f"{told} replaced; running answers end on the old ones")


def _check_room(home: Home) -> None:
    """Raise `Unavailable` where the disk takes nothing more: what starts anew needs a journal, and what is to be told
    of it could not be."""
    probe = _path(home).with_suffix(".probe")
    try:
        write_atomically(probe, bytes(PROBE_BYTES))
        probe.unlink()
    except OSError as error:
        raise Unavailable(
            f"nothing is reloaded: {home.run} takes no file: {error.strerror}",
            code="reload_failed",
            hint="Free space on the disk of HOME, or make it writable, then reload again; the old ones serve.",
        ) from error


def _upgrade(home: Home, up: int) -> None:
    """Upgrade the schema for an `up` whose code is of before a reload did so. Where its database is may have been told
    to it alone."""
    told = Path(f"/proc/{up}/environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    environment = dict(each.split("=", 1) for each in told if "=" in each)
    if code := schema(home, REPLACED, environment).wait():
        raise _failed(home, _not_upgraded(home, code))


def _not_upgraded(home: Home, code: int) -> str:
    """Why the schema was not upgraded."""
    return tail(schema_log(home), 1) or f"what upgrades the database ended with code {code}"


def _waits_for(home: Home, begun: float) -> str:
    """What keeps the schema from being upgraded, where that was said since then."""
    with suppress(OSError):
        if schema_log(home).stat().st_mtime >= begun and (told := tail(schema_log(home), 1)):
            return f": {told}"
    return ""


def _search_anew(home: Home) -> None:
    """For one whose code is of before a reload replaced the search service, which understands nothing of what workers
    of today ask: every call that rests on documents would be refused. It is started again by `up` as it ends."""
    if (before := lookup(home, SEARCH)) is None:
        return
    os.kill(before.pid, signal.SIGTERM)
    end = time.monotonic() + READY_SECONDS
    while (now := lookup(home, SEARCH)) is None or now.pid == before.pid:
        if time.monotonic() > end:
            raise _failed(home, "the search service does not get ready again")
        time.sleep(0.05)


def _failed(home: Home, message: str) -> Unavailable:
    return Unavailable(message, code="reload_failed", hint=f"See {home.logs}; calls go on being answered.")


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
        self._anew: _Anew | None = None
        self._untold: bytes | None = None
        """What a full disk did not take yet."""

    def tick(self) -> None:
        if self._untold is not None:
            self._write(self._untold)
        if self._upgrading is not None:
            if (code := self._upgrading.poll()) is not None:
                self._upgrading = None
                self._upgraded(code)
        elif self._anew is not None:
            self._look(self._anew)
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
            self._tell("failed", message=_not_upgraded(self._home, code))
            return
        try:
            self._groups = deque(group for group in self._again() if group)
        except (GroundplanError, OSError) as error:
            self._fail(error)
            return
        before = {state.name: state for state in self._supervisor.states()}.get(READER)
        self._supervisor.restart(READER)
        if before is None:
            self._anew_is()
        else:
            self._anew = _Anew(before.starts, before.pid, time.monotonic() + ANEW_SECONDS)

    def _look(self, anew: _Anew) -> None:
        """Whether it is there again. One that ends again is of code that does not run here."""
        now = {state.name: state for state in self._supervisor.states()}[READER]
        if now.starts > anew.starts and now.pid not in (None, anew.pid) and self._supervisor.is_fit(READER):
            self._anew = None
            self._anew_is()
        elif now.starts > anew.starts + 1 or time.monotonic() > anew.until:
            self._anew = self._groups = None
            why = self._why(READER)
            self._tell("failed", message=f"{READER} did not start again{why}", replaced=self._replaced())

    def _anew_is(self) -> None:
        """What comes after it: of those that others read, and are asked by, the gateway is never the older one."""
        if not self._groups:
            self._done()
            return
        try:
            self._replace(self._groups)
        except (GroundplanError, OSError) as error:
            self._fail(error)

    def _why(self, name: str) -> str:
        """What it said last, to go behind what happened to it."""
        told = tail(self._supervisor.log(name), 1)
        return f": {told}" if told else ""

    def _replace(self, groups: deque[Sequence[Process]]) -> None:
        group = groups.popleft()
        self._before |= self._pids([process.name for process in group])
        for process in group:
            self._supervisor.replace(process)

    def _go_on(self, groups: deque[Sequence[Process]]) -> None:
        replaced = self._replaced()
        if len(replaced) < len(self._before):
            lacking = sorted(set(self._before) - set(replaced))
            missing, why = ", ".join(lacking), self._why(lacking[0])
            self._groups = None
            self._tell("failed", message=f"the successor of {missing} did not become ready{why}", replaced=replaced)
            return
        if groups:
            try:
                self._replace(groups)
            except (GroundplanError, OSError) as error:
                self._fail(error)
            return
        self._done()

    def _done(self) -> None:
        self._groups = None
        self._tell("done", replaced=self._replaced())

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
        self._write(json.dumps(value).encode())

    def _write(self, told: bytes) -> None:
        """On a disk that is full again and again: the command waits, and `up` goes on."""
        self._untold = told
        with suppress(OSError):
            write_atomically(_path(self._home), told)
            self._untold = None
