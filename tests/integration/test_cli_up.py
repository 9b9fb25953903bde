"""`groundplan up` as a user meets it: one ready line, a governed call, a second start, a clean end, clear refusals."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.contract.ways import Authority
from tests.integration.nursery import Worker, fork_program, run_command

from groundplan.core.home import Home
from groundplan.runtime.postgres import EmbeddedPostgres

START_SECONDS = 120.0


@dataclass
class Up:
    """A started `up`: its ready line, what it said, and the addresses from the line."""

    process: subprocess.Popen[bytes] | Worker
    ready: str
    said: list[str]

    @property
    def gateway(self) -> str:
        return self.ready.split()[1].removeprefix("gateway=")

    @property
    def control(self) -> str:
        return self.ready.split()[2].removeprefix("control=")


def cli(*arguments: str, code: int | tuple[int, ...] = 0, alone: bool = False) -> Any:
    """The JSON that a command prints, which ends with that code, or one of those; `alone`: it starts from nothing."""
    told = [*arguments, "--json"]
    if alone:
        command = [sys.executable, "-m", "groundplan.cli.main", *told]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    else:
        done = run_command(told, os.environ, 120)
    codes = code if isinstance(code, tuple) else (code,)
    assert done.returncode in codes, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@contextmanager
def started(home: Path, *arguments: str, alone: bool = True) -> Iterator[Up]:
    """`alone`: it, and all that it starts, starts from nothing."""
    told = ["up", "--home", str(home), "--port", "0", "--control-port", "0", "--gateway-workers", "1", *arguments]
    environment = {**os.environ, "UPSTREAM_KEY": "sk-test"}
    (out, shown), (errors, log) = os.pipe(), os.pipe()
    process: subprocess.Popen[bytes] | Worker
    if alone:
        command = [sys.executable, "-m", "groundplan.cli.main", *told]
        process = subprocess.Popen(command, stdout=shown, stderr=log, env=environment)
    else:
        process = fork_program("groundplan.cli.main", told, log, environment, out=shown)
    for given in (shown, log):
        os.close(given)
    said: list[str] = []
    with os.fdopen(out) as lines, os.fdopen(errors) as words:
        reader = threading.Thread(target=lambda: said.extend(words), daemon=True)
        reader.start()
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        try:
            line = lines.readline()
            timer.cancel()
            assert line.startswith("ready "), f"{line!r}\n{''.join(said)}"
            yield Up(process, line.strip(), said)
        finally:
            timer.cancel()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(120)
            reader.join(10)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    EmbeddedPostgres(Home(tmp_path / "home")).remove()


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[str]:
    """The shipped scripted model as a server that the user already has."""
    folder = tmp_path / "upstream"
    process = subprocess.Popen(
        [sys.executable, "-m", "groundplan.testing.scripted", "--home", str(folder), "--name", "scripted-here"]
    )
    announced = folder / "run" / "endpoints.d" / "scripted-here.json"
    deadline = time.monotonic() + 30
    while not announced.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    told = json.loads(announced.read_text())
    key = tmp_path / "upstream.key"
    key.write_text(told["token"])
    yield str(told["url"])
    process.terminate()
    process.wait(60)


@pytest.fixture
def workspace(tmp_path: Path, upstream: str) -> Path:
    folder = tmp_path / "workspace"
    key = f"file:{tmp_path / 'upstream.key'}"
    cli(
        *("init", str(folder), "--upstream", upstream, "--upstream-model", "scripted", "--upstream-key", key),
        *("--price", "1/10", "--budget", "20"),
    )
    return folder


@pytest.mark.timeout(400)
def test_from_nothing_to_a_governed_call_and_again(home: Path, workspace: Path) -> None:
    place = ("--home", str(home))
    with started(home, "--workspace", str(workspace)) as up:
        assert up.gateway.startswith("http://127.0.0.1:") and up.gateway.endswith("/v1")
        status = cli("status", *place, alone=True)
        assert status["blueprint"] == 1 and status["gateways"][0]["ready"] and status["difference"] == []
        assert set(status["gateways"][0]) >= {"pid", "blueprint", "journal_lag", "ready"}
        answer = cli("ask", "hello", "--workload", "assistant", *place, alone=True)
        assert answer["groundplan"]["blueprint"] == 1 and float(answer["groundplan"]["cost_usd"]) > 0
        call = answer["groundplan"]["call_id"]
        deadline = time.monotonic() + 60
        while cli("cost", *place)["calls"] < 1:
            assert time.monotonic() < deadline, "the call is in the ledger"
            time.sleep(0.2)
        cost = cli("cost", *place)
        assert cost["total_usd"] == answer["groundplan"]["cost_usd"] and cost["open_reservations"] == 0
        assert cost["by_workload"][0]["workload"] == "assistant"
        why = cli("why", call, *place)
        assert why["kind"] == "call" and why["facts"]["cost_usd"] == cost["total_usd"]
        assert cli("readiness", "assistant", *place)["workloads"][0]["workload"] == "assistant"
        assert cli("doctor", *place)["ok"]
        second = cli_up_error(home)
        assert second["error"]["code"] == "up_running"
        killed = cli("kill", "workload/assistant", "-m", "test", *place, code=(0, 69))["effective"]
        deadline = time.monotonic() + 60  # it is effective, later on a busy machine
        while not killed["complete"] and cli("status", *place)["gateways"][0]["policy_ack"] < killed["number"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        refused = cli("ask", "hello", "--workload", "assistant", *place, code=65)
        assert refused["error"]["code"] == "killed"
        cli("kill", "workload/assistant", "-m", "over", "--lift", *place)
    assert up.process.returncode == 0
    assert any("login/" in line for line in up.said)
    assert not (home / "run" / "up.json").exists()
    assert cli("status", *place, code=69)["error"]["code"] == "not_running"
    assert cli("audit", "verify", *place)["ok"]
    (home / "run" / "backup-killed" / "tables").mkdir(parents=True)
    with reloaded_meanwhile(home), started(home) as again:
        status = cli("status", *place)
        assert status["blueprint"] == 1, "without a workspace the last blueprint is served"
        assert not (home / "run" / "backup-killed").exists()
        assert cli("cost", *place)["total_usd"] == cost["total_usd"]
        deadline = time.monotonic() + 60
        while json.loads((home / "run" / "reload.json").read_text())["state"] != "done":
            assert time.monotonic() < deadline, "what was asked for during the start is done after it"
            time.sleep(0.1)
        del again


@contextmanager
def reloaded_meanwhile(home: Path) -> Iterator[None]:
    """As soon as commands find what is being started, one asks it to reload."""
    told = home / "run" / "up.json"

    def ask() -> None:
        deadline = time.monotonic() + START_SECONDS
        while not told.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(json.loads(told.read_text())["pid"], signal.SIGUSR1)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield
    finally:
        asking.join(START_SECONDS)


def cli_up_error(home: Path) -> Any:
    """What a second `up` on the same HOME says."""
    return cli("up", "--home", str(home), "--port", "0", "--control-port", "0", code=75, alone=True)


def test_up_refuses_a_wrong_workspace_at_once(home: Path, workspace: Path) -> None:
    file = next(path for path in sorted(workspace.glob("*.yaml")) if "kind: workload" in path.read_text())
    file.write_text(file.read_text().replace("purpose:", "porpose:", 1))
    done = subprocess.run(
        [sys.executable, "-m", "groundplan.cli.main", "up", "--home", str(home), "--workspace", str(workspace)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 65 and done.stdout == ""
    assert f"{file.name}:" in done.stderr and "purpose" in done.stderr
    assert not home.exists(), "nothing was started"


def test_up_refuses_a_port_that_is_taken(home: Path, workspace: Path, upstream: str) -> None:
    port = upstream.split(":")[2].partition("/")[0]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "groundplan.cli.main", "up", "--home", str(home), "--workspace", str(workspace)),
            *("--port", port),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 69 and "port_in_use" in done.stderr and "--port" in done.stderr


@pytest.mark.timeout(400)
def test_tls_with_client_certificates_and_a_reload(home: Path, workspace: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("gateway", "127.0.0.1")
    context = ssl.create_default_context(cafile=str(authority.file))
    place = ("--home", str(home))
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(authority.file))
    with started(home, "--workspace", str(workspace), "--drain", "5", *tls, alone=False) as up:
        assert up.gateway.startswith("https://127.0.0.1:")
        port = int(up.gateway.split(":")[2].partition("/")[0])

        def models() -> int:
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
            try:
                connection.request("GET", "/v1/models", headers={"authorization": "Bearer gp_nobody"})
                return connection.getresponse().status
            finally:
                connection.close()

        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            models()
        context.load_cert_chain(*authority.issue("caller"))
        assert models() == 401
        assert cli("ask", "hello", "--workload", "assistant", *place)["choices"], "this machine needs no certificate"
        status = cli("status", *place)
        assert status["addresses"]["public"] == up.gateway, "what callers are given"
        before = {one["pid"] for one in status["gateways"]}
        told = cli("reload", *place)
        replaced = {name: pids["before"] for name, pids in told["replaced"].items()}
        assert told["state"] == "done" and replaced.pop("control") and set(replaced.values()) == before
        assert models() == 401
        assert cli("ask", "hello", "--workload", "assistant", *place)["choices"]
    assert up.process.returncode == 0
    assert cli("reload", *place, code=69)["error"]["code"] == "not_running"
