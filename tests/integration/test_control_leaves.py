"""Requests of the control API that take long while their process ends: of a reload, and of a stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.test_api_control import WORKSPACE, Answer, Control

from groundplan.api.genesis import prepare_home
from groundplan.cli import processes
from groundplan.core.database import connect
from groundplan.core.home import Home
from groundplan.runtime.locks import open_listener
from groundplan.runtime.supervisor import Process, Supervisor
from groundplan.testing.database import Database


class Asking(threading.Thread):
    """Asks for something, and waits as long as that takes."""

    def __init__(self, control: Control) -> None:
        super().__init__(daemon=True)
        self._control = control
        self.answer: Answer | None = None
        self.failed = ""

    def run(self) -> None:
        try:
            self.answer = self._control.ask("GET", "/api/keys")
        except OSError as error:
            self.failed = repr(error)


def until(supervisor: Supervisor, true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        supervisor.check()
        time.sleep(0.02)


@pytest.fixture
def served(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Supervisor, Process, Control]]:
    monkeypatch.setenv("GROUNDPLAN_DATABASE_URL", database.dsn)
    home, workspace = Home(tmp_path / "home"), tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "acme.yaml").write_text(WORKSPACE)
    prepare_home(home)
    listener = open_listener("127.0.0.1", 0)
    process = processes.control(home, listener.fileno(), workspace, True)
    with Supervisor(home) as supervisor:
        supervisor.start(process)
        until(supervisor, lambda: supervisor.is_fit(processes.CONTROL))
        yield supervisor, process, Control(home, workspace, listener.getsockname()[1])
    listener.close()


def test_long_requests_complete_beside_a_successor_and_end_with_an_error_on_a_stop(
    database: Database, served: tuple[Supervisor, Process, Control]
) -> None:
    supervisor, process, control = served
    with connect(database.superuser) as holding:
        slow = _asking(database, control, holding.execute)
        supervisor.replace(process)
        until(supervisor, lambda: not supervisor.replacing)
        assert control.ask("GET", "/livez").status == 200, "the successor serves"
        (leaving,) = supervisor._leaving
        until(supervisor, lambda: _threads(leaving.popen.pid) < 20)  # what is done beside is its successor's
        time.sleep(6)  # longer than a stop waits
        assert slow.is_alive() and len(supervisor._leaving) == 1
        assert leaving.kill_at - time.monotonic() > 500, "as long as running answers of the gateway may take"
        holding.rollback()
        slow.join(30)
        assert slow.failed == "" and slow.answer is not None and slow.answer.status == 200
        until(supervisor, lambda: not supervisor._leaving, 30)
    with connect(database.superuser) as holding:
        slow = _asking(database, control, holding.execute)
        supervisor.stop(processes.CONTROL)
        slow.join(30)
        assert slow.failed == "" and slow.answer is not None
        assert (slow.answer.status, slow.answer.code) == (503, "control_ends")
        assert slow.answer.headers["retry-after"] == "2" and slow.answer.body["error"]["hint"]
    wrong = [line for line in supervisor.log_path(processes.CONTROL).read_text().splitlines() if '"error"' in line]
    assert wrong == []


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _asking(database: Database, control: Control, execute: Callable[[str], object]) -> Asking:
    """Somebody whose request waits for a lock."""
    execute("LOCK TABLE api_key IN ACCESS EXCLUSIVE MODE")
    slow = Asking(control)
    slow.start()
    waiting = (
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE NOT granted AND datname = %s"
    )
    end = time.monotonic() + 30
    with connect(database.superuser, autocommit=True) as looking:
        while looking.execute(waiting, (looking.info.dbname,)).fetchall() == [(0,)]:
            assert time.monotonic() < end, "the request waits"
            time.sleep(0.02)
    return slow
