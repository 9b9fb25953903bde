"""An installation for one test: `groundplan up` as real processes in an empty folder, and an upstream that counts.

Tests drive it from outside, as a user would: the command line, the OpenAI API, signals.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundplan.testing.passkey import SoftPasskey
from tests.integration.nursery import Worker, fork_program, run_command
from tests.made_database import copy_database

START_SECONDS = 120.0
RETRY_SECONDS = 30.0
FIRST_PORT, PORTS_EACH, WORKERS = 20_000, 1_500, 8
"""Below the range that Linux assigns to outgoing connections, so that none of them takes a port before its server
listens; each worker of a test run has a range of its own."""
_allocated_ports: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on; each is returned only once in this process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = FIRST_PORT + PORTS_EACH * (int(worker) % WORKERS if worker.isdecimal() else 0)
    while True:
        port = first + random.randrange(PORTS_EACH)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _allocated_ports:
                _allocated_ports.add(port)
                return port


def wait_until(check: Any, seconds: float, what: str) -> Any:
    """Call `check()` until its result is true, and return that result; fails the test after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


def request(
    port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 30.0
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        reply = connection.getresponse()
        raw = reply.read()
        parsed = json.loads(raw) if raw.startswith((b"{", b"[")) else raw
        return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, parsed)
    finally:
        connection.close()


@dataclass
class Upstream:
    """The shipped scripted model as a process of its own; it records each attempt durably before it answers."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: Worker | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def count_file(self) -> Path:
        return self.folder / "counted"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--home", str(self.folder), "--name", "scripted-upstream", "--port", str(self.port)]
        with Path(os.devnull).open("wb") as devnull:
            self.process = fork_program(
                "groundplan.testing.scripted",
                [*arguments, "--count-file", str(self.count_file)],
                devnull.fileno(),
                os.environ,
            )

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return request(self.port, "GET", "/v1/models").status < 500
            return False

        wait_until(answers, 60, "the scripted model answers")

    def control(self, **mode: Any) -> None:
        assert request(self.port, "POST", "/control", mode).status == 200

    def counted(self) -> list[str]:
        """`call-number` of each attempt that reached the upstream, as it recorded them durably."""
        return self.count_file.read_text().split() if self.count_file.exists() else []

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Stack:
    folder: Path
    workspace: Path
    workers: int = 1
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    control_port: int = field(default_factory=free_port)
    process: Worker | None = None
    environment: dict[str, str] = field(default_factory=dict)
    devices: dict[str, SoftPasskey] = field(default_factory=dict)
    """Each person's passkey, by e-mail address."""
    retries_unreachable: bool = True
    """Whether `chat` retries a call that was refused because a busy PostgreSQL did not answer in time what is left of
    its budget or limit; the refusal asks for a retry."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, seconds: float = START_SECONDS) -> str:
        """Start `groundplan up` and return its `ready` line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if "GROUNDPLAN_DATABASE_URL" not in self.environment:
            copy_database(self.home)
        log = (self.folder / "up.log").open("ab")
        ready = self.folder / "ready"
        ready_file = ready.open("wb")
        arguments = [
            *("up", "--workspace", str(self.workspace), "--home", str(self.home), "--port", str(self.port)),
            *("--control-port", str(self.control_port), "--gateway-workers", str(self.workers), *self.options),
        ]
        environment = {**os.environ, **self.environment}
        self.process = fork_program(
            "groundplan.cli.main", arguments, log.fileno(), environment, out=ready_file.fileno()
        )
        log.close()
        ready_file.close()
        end = time.monotonic() + seconds
        while "\n" not in ready.read_text():
            assert self.process.poll() is None, f"up ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < end, f"up is not ready after {seconds:g} s:\n{self.log()}"
            time.sleep(0.05)
        return ready.read_text().strip()

    def log(self) -> str:
        return (self.folder / "up.log").read_text()[-4000:]

    def cli(self, *arguments: str, code: int | None = 0) -> Any:
        """Run a command with --home and --json; returns the parsed output. `code=None` accepts any exit code."""
        command = (*arguments, "--home", str(self.home), "--json")
        completed = run_command(command, {**os.environ, **self.environment}, timeout=120)
        if code is not None:
            assert completed.returncode == code, (
                f"{arguments}: exit {completed.returncode}\n{completed.stdout}\n{completed.stderr}"
            )
        return json.loads(completed.stdout) if completed.stdout.strip() else None

    def key(self, workload: str = "assistant", *options: str) -> str:
        """A new key that every worker knows."""
        created = self.cli("keys", "create", "--workload", workload, *options)
        self.wait_until_effective(created["effective"])
        return str(created["key"])

    def wait_until_effective(self, effect: dict[str, Any]) -> None:
        """Wait until every worker has acknowledged a change. `effect`: `effective` of the answer to the change."""
        wait_until(
            lambda: effect["complete"] or self.has_acknowledged(effect["number"]),
            60,
            "every worker has acknowledged it",
        )

    def has_acknowledged(self, number: int) -> bool:
        """Whether every worker has acknowledged live policy of that number or a later one."""
        status = self.control("GET", "/api/status")
        return status.status == 200 and all(gateway["policy_ack"] >= number for gateway in status.body["gateways"])

    def chat(self, key: str, text: str = "hello", timeout: float = 30.0, **more: Any) -> Answer:
        headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
        end = time.monotonic() + RETRY_SECONDS
        while True:
            answer = request(self.port, "POST", "/v1/chat/completions", body, headers, timeout)
            unreachable = answer.status == 503 and answer.code in ("budget_unreachable", "limit_unreachable")
            if not (unreachable and self.retries_unreachable) or time.monotonic() > end:
                return answer
            time.sleep(0.05)

    def control(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """A request to the control API, by default as the operator; `headers` may be those of a person's session."""
        token = (self.home / "operator.token").read_text().strip()
        sent = {"host": f"localhost:{self.control_port}", **(headers or {"authorization": f"Bearer {token}"})}
        return request(self.control_port, method, path, body, sent)

    def calls_in_ledger(self) -> int:
        """Number of calls in the ledger; -1 while the control API does not answer."""
        cost = self.control("GET", "/api/cost")
        return int(cost.body["calls"]) if cost.status == 200 else -1

    def serves_blueprint(self, number: int) -> bool:
        """Whether every worker serves the blueprint of that number."""
        status = self.control("GET", "/api/status")
        return status.status == 200 and all(gateway["blueprint"] == number for gateway in status.body["gateways"])

    def follow_link(self, email: str) -> dict[str, str]:
        """Headers of a browser session that followed a login link made by the operator."""
        url = self.control("POST", "/api/login-links", {"person": email}).body["url"]
        return self._session(request(self.control_port, "GET", "/" + url.split("/", 3)[3]))

    def sign_in(self, email: str) -> dict[str, str]:
        """Headers of a browser session signed in with the person's passkey. The first time it is registered, and
        a colleague, if there is one, confirms it."""
        if email not in self.devices:
            device, session = SoftPasskey(f"http://localhost:{self.control_port}"), self.follow_link(email)
            options = self.control("POST", "/api/passkeys/registration", {}, session).body
            response = {"ceremony": options["ceremony"], "response": device.create(options["options"])}
            passkey = self.control("POST", "/api/passkeys", response, session).body
            if not passkey["confirmed"]:
                colleague = self.sign_in(next(iter(self.devices)))
                assert self.control("POST", f"/api/passkeys/{passkey['id']}/confirm", {}, colleague).status == 200
            self.devices[email] = device
        options = self.control("POST", "/api/sign-in/passkey/options", {}, {"accept": "*/*"}).body
        response = {"ceremony": options["ceremony"], "response": self.devices[email].get(options["options"])}
        return self._session(self.control("POST", "/api/sign-in/passkey", response, {"accept": "*/*"}))

    def _session(self, reply: Answer) -> dict[str, str]:
        cookie = {"cookie": reply.headers["set-cookie"].partition(";")[0]}
        return {**cookie, "x-csrf-token": self.control("GET", "/api/session", None, cookie).body["csrf"]}

    def pids(self, name: str = "gateway") -> list[int]:
        """Process ids below `up` whose command line contains `name`."""
        assert self.process is not None
        found = []
        for child in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if name.encode() in Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" "):
                    found.append(child)
        return found

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            for pid in descendants(self.process.pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def descendants(pid: int) -> list[int]:
    """All living process ids below `pid`, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found.extend(below)
        queue.extend(below)
    return found


def init_workspace(folder: Path, upstream: Upstream, price: str = "0/10", budget: str = "1000") -> Path:
    """Run `groundplan init` for an upstream that the user already has; returns the folder."""
    arguments = (
        *("init", str(folder), "--upstream", upstream.url, "--upstream-model", "scripted"),
        *("--upstream-key", "env:UPSTREAM_KEY", "--price", price, "--budget", budget),
    )
    completed = run_command(arguments, os.environ, timeout=60)
    assert completed.returncode == 0, completed.stderr
    return folder


@contextlib.contextmanager
def installation(
    folder: Path, *, workers: int = 1, price: str = "0/10", budget: str = "1000", start: bool = True
) -> Iterator[tuple[Stack, Upstream]]:
    """An upstream and an installation in front of it; both are stopped at the end."""
    upstream = Upstream(folder / "upstream")
    upstream.start()
    workspace = init_workspace(folder / "workspace", upstream, price, budget)
    stack = Stack(folder, workspace, workers, environment={"UPSTREAM_KEY": "sk-local-upstream"})
    try:
        if start:
            stack.start()
        yield stack, upstream
    finally:
        stack.stop()
        upstream.stop()
