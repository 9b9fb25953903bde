"""What `up` does beside keeping processes alive holds that up for nobody."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import NoReturn

import pytest

import groundplan.cli.reload
import groundplan.cli.startup
from groundplan.cli import installed, processes
from groundplan.cli.client import ControlClient
from groundplan.cli.listeners import open_listeners
from groundplan.cli.progress import StartupProgress
from groundplan.cli.reload import SHIPPER_NAME, Reloading, _read_state
from groundplan.cli.startup import FOLLOW_SECONDS, ServiceFollower, Startup
from groundplan.core.endpoints import Endpoint
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.gateway.telemetry.scrape import SERVICE, SHIPPER
from groundplan.runtime import migrate
from groundplan.runtime.supervisor import Process, ProcessState, Supervisor


def test_a_control_process_that_hangs_keeps_nothing_from_being_started_again(tmp_path: Path) -> None:
    """As where PostgreSQL says nothing: a worker that dies meanwhile is replaced within a second all the same."""
    home = Home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = ControlClient(f"http://127.0.0.1:{silent.getsockname()[1]}", "token")
        start = Startup(home, load_settings({}), None, False, StartupProgress())
        following = ServiceFollower(start, Supervisor(home), client)
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
    progress = StartupProgress()
    said: list[str] = []
    monkeypatch.setattr(progress, "report", said.append)
    home = Home(tmp_path)
    start = Startup(home, load_settings({}), None, False, progress)
    following = ServiceFollower(start, Supervisor(home), ControlClient("http://127.0.0.1:1", "token"))

    def full(*_: object) -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(start, "start_service", full)
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
    assert not supervisor.take_reload_request() and not supervisor.replacing
    monkeypatch.undo()
    home.create()
    reloading.tick()
    assert _read_state(home)["state"] == "failed", "it is told once there is room"


def test_whoever_reloads_on_a_disk_that_is_full_is_told_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, asked = Home(tmp_path), list[int]()
    home.create()
    monkeypatch.setattr(groundplan.cli.reload, "require_running", lambda _: {"pid": 1, "upgrades": True})
    monkeypatch.setattr(os, "kill", lambda pid, _: asked.append(pid))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(Unavailable) as told:
            groundplan.cli.reload.reload(1.0, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert told.value.code == "reload_failed" and "space" in told.value.hint and "File too large" in told.value.message
    assert asked == [] and [path.name for path in home.run.iterdir()] == [], "nothing is asked for, or left"


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
    assert done == [], "nothing is begun"
    upgrading.wait()
    reloading.tick()
    if upgrading.returncode:
        assert done == [] and _read_state(home)["message"] == "the schema is newer"
    else:
        assert done == ["shipper", "gateway-0"], "who reads journals is never older than who writes them"


@pytest.mark.parametrize("works", [True, False])
def test_nothing_is_replaced_before_who_reads_journals_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """And one that ends again is told of, and why."""
    home, done, child = Home(tmp_path), list[str](), ProcessState(SHIPPER_NAME, 7, 1, None)
    home.create()
    (home.logs / f"{SHIPPER_NAME}.log").write_text("no such column\n")
    supervisor = Supervisor(home)
    monkeypatch.setattr(supervisor, "states", lambda: (child,))
    monkeypatch.setattr(supervisor, "is_fit", lambda _: works)
    monkeypatch.setattr(supervisor, "replace", lambda process: done.append(process.name))
    reloading = Reloading(home, supervisor, lambda: ([Process("gateway-0", ("sleep", "9"))],))
    supervisor._reload.set()
    reloading.tick()
    assert done == [] and _read_state(home)["state"] == "running"
    child = ProcessState(SHIPPER_NAME, 8, 2, 0)
    reloading.tick()
    assert _read_state(home)["state"] == "running"
    if works:
        assert done == ["gateway-0"]
        return
    child = ProcessState(SHIPPER_NAME, None, 3, 1)
    reloading.tick()
    told = f"{SHIPPER_NAME} did not start again: no such column"
    assert (_read_state(home)["state"], _read_state(home)["message"], done) == ("failed", told, [])


def test_a_reload_is_done_when_console_and_api_are_replaced_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose successor does not work goes on, and is told of."""
    home, done, pids = Home(tmp_path), list[str](), {"gateway-0": 1, "control": 2}
    home.create()
    (home.logs / "control.log").write_text("no such column\n")
    supervisor = Supervisor(home)
    monkeypatch.setattr(supervisor, "states", lambda: [ProcessState(name, pid, 1, None) for name, pid in pids.items()])
    monkeypatch.setattr(supervisor, "restart", lambda _: None)
    monkeypatch.setattr(supervisor, "replace", lambda process: done.append(process.name))
    groups = [[Process(name, ("sleep", "9"))] for name in pids]
    reloading = Reloading(home, supervisor, lambda: groups)
    for message in ("", "the successor of control did not become ready: no such column"):
        supervisor._reload.set()
        done.clear()
        reloading.tick()
        pids["gateway-0"] += 10
        reloading.tick()
        assert done == ["gateway-0", "control"] and _read_state(home)["state"] == "running"
        pids["control"] += 0 if message else 10
        reloading.tick()
        assert (_read_state(home)["state"], _read_state(home)["message"]) == ("failed" if message else "done", message)


def test_code_that_cannot_be_loaded_is_told_of_before_the_schema_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_of_now.py").write_text("def serve(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(migrate, "main", lambda _: pytest.fail("the schema is upgraded"))
    assert installed.main(("--home", str(tmp_path), "json", "broken_of_now")) == 1
    assert capsys.readouterr().err.startswith("broken_of_now cannot be loaded: SyntaxError: ")
    assert processes.SHIPPER_ENDPOINT == SERVICE + SHIPPER


@pytest.mark.parametrize("there", [True, False])
def test_code_that_one_goes_back_to_is_asked_for_no_more_than_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    asked, home = list[tuple[str, ...]](), Home(tmp_path)
    home.create()
    processes.schema_log(home).write_text("of the one before\n")
    monkeypatch.setattr(processes, "spawn", lambda command, **_: asked.append(command))
    monkeypatch.setattr(
        processes, "INSTALLED_MODULE", processes.INSTALLED_MODULE if there else "groundplan.cli.not_there"
    )
    processes.start_schema_upgrade(home, ["search", "gateway-0"])
    assert not processes.schema_log(home).exists(), "what it said is not told again"
    loaded = (
        "groundplan.console.app",
        processes.SHIPPER_MODULE,
        processes.GATEWAY_MODULE,
        "groundplan.gateway.search_app",
    )
    upgrade = ("groundplan.runtime.migrate", "--home", str(tmp_path))
    assert asked[0][3:] == (("groundplan.cli.installed", *upgrade[1:], *loaded) if there else upgrade)


@pytest.mark.parametrize("code", [None, 0, 75])
def test_the_command_does_what_the_code_of_an_up_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """One of before left the schema, and search, as they were."""
    home, done = Home(tmp_path), list[str]()
    home.create()
    (home.logs / "schema.log").write_text("the schema is newer\n")
    told = {"pid": os.getpid(), **({"upgrades": True} if code is None else {})}

    class Upgraded:
        def wait(self) -> int:
            done.append("upgraded")
            return code or 0

    def kill(_: int, number: int) -> None:
        done.append(signal.Signals(number).name)
        noted = {"number": 1, "state": "done", "message": "", "replaced": {}}
        (home.run / "reload.json").write_text(json.dumps(noted))

    monkeypatch.setattr(groundplan.cli.reload, "require_running", lambda _: told)
    monkeypatch.setattr(groundplan.cli.reload, "start_schema_upgrade", lambda *_: Upgraded())
    monkeypatch.setattr("groundplan.cli.reload.os.kill", kill)
    found = lambda *_: Endpoint("search", "", "", done.count("SIGTERM"))  # noqa: E731
    monkeypatch.setattr(groundplan.cli.reload, "lookup", found)
    if code == 75:
        with pytest.raises(Unavailable, match="the schema is newer"):
            groundplan.cli.reload.reload(home=tmp_path)
    else:
        groundplan.cli.reload.reload(home=tmp_path)
    assert done == {None: ["SIGUSR1"], 0: ["upgraded", "SIGUSR1", "SIGTERM"], 75: ["upgraded"]}[code]


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
    monkeypatch.setattr(supervisor, "states", lambda: [ProcessState("control", None, 3 + len(looks), 3)])
    monkeypatch.setattr(groundplan.cli.startup, "STATUS_TIMEOUT_SECONDS", 0.1)
    start = Startup(home, load_settings({}), None, False, StartupProgress())
    listeners = open_listeners(start.settings, 0, 0)
    try:
        with pytest.raises(Unavailable, match="control keeps ending: MemoryError"):
            start.wait_until_ready(supervisor, listeners, 1)
    finally:
        listeners.close()
    assert len(looks) == 2
