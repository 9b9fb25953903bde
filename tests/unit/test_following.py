"""What `up` does beside keeping processes alive holds that up for nobody."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import NoReturn

import pytest

import groundplan.cli.reload
import groundplan.cli.starting
from groundplan.cli.client import ControlClient
from groundplan.cli.listeners import open_listeners
from groundplan.cli.progress import Steps
from groundplan.cli.reload import Reloading
from groundplan.cli.starting import FOLLOW_SECONDS, Following, Start
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.runtime.supervisor import Process, State, Supervisor


def test_a_control_process_that_hangs_keeps_nothing_from_being_started_again(tmp_path: Path) -> None:
    """As where PostgreSQL says nothing: a worker that dies meanwhile is replaced within a second all the same."""
    home = Home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = ControlClient(f"http://127.0.0.1:{silent.getsockname()[1]}", "token")
        start = Start(home, load_settings({}), None, False, Steps())
        following = Following(start, Supervisor(home), client)
        time.sleep(FOLLOW_SECONDS)
        began = time.monotonic()
        for _ in range(5):
            following.tick()
        assert time.monotonic() - began < FOLLOW_SECONDS / 2
        asked, _ = silent.accept()
        with asked:
            assert asked.recv(100).startswith(b"GET /api/status ")


def test_a_service_that_cannot_be_started_now_ends_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where this user may have no more processes; it is tried again."""
    steps = Steps()
    said: list[str] = []
    monkeypatch.setattr(steps, "say", said.append)
    home = Home(tmp_path)
    start = Start(home, load_settings({}), None, False, steps)
    following = Following(start, Supervisor(home), ControlClient("http://127.0.0.1:1", "token"))

    def full(*_: object) -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(start, "service", full)
    following._fetched.append("search")
    following.tick()
    assert said == ["search cannot start yet: [Errno 11] Resource temporarily unavailable"]


def test_a_reload_on_a_disk_that_is_full_ends_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    home = Home(tmp_path)
    supervisor = Supervisor(home)
    reloading = Reloading(home, supervisor, lambda: ([Process("gateway-0", ("sleep", "9"))],))
    monkeypatch.setattr(groundplan.cli.reload, "write_atomically", full)
    supervisor._reload.set()
    reloading.tick()
    reloading.tick()
    assert not supervisor.reload_wanted() and not supervisor.replacing


@pytest.mark.parametrize("command", ["echo the schema is newer >> logs/schema.log; exit 75", "exit 0"])
def test_a_reload_upgrades_the_schema_before_anything_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    home, done = Home(tmp_path), list[str]()
    home.create()
    supervisor = Supervisor(home)
    monkeypatch.setattr(supervisor, "restart", done.append)
    monkeypatch.setattr(supervisor, "replace", lambda process: done.append(process.name))
    upgrading = subprocess.Popen(("sh", "-c", command), cwd=tmp_path)
    reloading = Reloading(home, supervisor, lambda: ([Process("gateway-0", ("sleep", "9"))],), lambda: upgrading)
    supervisor._reload.set()
    reloading.tick()
    assert done == []
    upgrading.wait()
    reloading.tick()
    if upgrading.returncode:
        assert done == [] and groundplan.cli.reload._noted(home)["message"] == "the schema is newer"
    else:
        assert done == ["shipper", "gateway-0"], "who reads journals is never older than who writes them"


def test_a_control_process_that_keeps_ending_at_the_start_is_told_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever calls it is not refused: its socket is `up`'s."""
    home = Home(tmp_path)
    home.create()
    home.operator_token.write_text("token")
    (home.logs / "control.log").write_text("MemoryError\n")
    supervisor, looks = Supervisor(home), list[float]()
    monkeypatch.setattr(supervisor, "check", lambda: looks.append(time.monotonic()))
    monkeypatch.setattr(supervisor, "states", lambda: [State("control", None, 3 + len(looks), 3)])
    monkeypatch.setattr(groundplan.cli.starting, "ASK_SECONDS", 0.1)
    start = Start(home, load_settings({}), None, False, Steps())
    listeners = open_listeners(start.settings, 0, 0)
    try:
        with pytest.raises(Unavailable, match="control keeps ending: MemoryError"):
            start.until_ready(supervisor, listeners, 1)
    finally:
        listeners.close()
    assert len(looks) == 2
