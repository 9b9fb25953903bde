"""A whole installation for one test: `groundplan up` as real processes in an empty folder, and a counting upstream.

Everything is driven from outside, as a user would: the command line, the OpenAI API, signals.
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
from tests.made_database import lay_out

START_SECONDS = 120.0
PATIENT_SECONDS = 30.0
FIRST_PORT, PORTS_EACH, WORKERS = 20_000, 1_500, 8
"""Below those that Linux gives to connections by itself, so that none takes one before its server listens there; each
worker of a test run has ports of its own."""
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that is given once in this process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = FIRST_PORT + PORTS_EACH * (int(worker) % WORKERS if worker.isdecimal() else 0)
    while True:
        port = first + random.randrange(PORTS_EACH)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def wait_until(check: Any, seconds: float, what: str) -> Any:
    """The first true answer of `check()`; fails the test after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
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
    """The shipped scripted model as its own process; it writes each attempt durably before it answers."""

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
        with Path(os.devnull).open("wb") as unheard:
            self.process = fork_program(
                "groundplan.testing.scripted",
                [*arguments, "--count-file", str(self.count_file)],
                unheard.fileno(),
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
        """One line for each attempt that reached the upstream, as it wrote them durably."""
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
    patient: bool = True
    """Whether a call is made again that was refused because a busy PostgreSQL did not say in time what is left of its
    budget or limit, as the refusal asks for."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, seconds: float = START_SECONDS) -> str:
        """Start `groundplan up` and return its `ready` line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if "GROUNDPLAN_DATABASE_URL" not in self.environment:
            lay_out(self.home)
        log = (self.folder / "up.log").open("ab")
        ready = self.folder / "ready"
        out = ready.open("wb")
        arguments = [
            *("up", "--workspace", str(self.workspace), "--home", str(self.home), "--port", str(self.port)),
            *("--control-port", str(self.control_port), "--gateway-workers", str(self.workers), *self.options),
        ]
        environment = {**os.environ, **self.environment}
        self.process = fork_program("groundplan.cli.main", arguments, log.fileno(), environment, out=out.fileno())
        log.close()
        out.close()
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
        told = (*arguments, "--home", str(self.home), "--json")
        done = run_command(told, {**os.environ, **self.environment}, timeout=120)
        if code is not None:
            assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def key(self, workload: str = "assistant", *options: str) -> str:
        """A new key that every worker knows."""
        made = self.cli("keys", "create", "--workload", workload, *options)
        self.confirm(made["effective"])
        return str(made["key"])

    def confirm(self, told: dict[str, Any]) -> None:
        """Whether it is told as effective or not: from here on every worker has taken note of a change."""
        wait_until(lambda: told["complete"] or self.heed(told["number"]), 60, "every worker has taken note")

    def heed(self, number: int) -> bool:
        """Whether every worker has acknowledged live policy of that number, for what is waited for."""
        told = self.control("GET", "/api/status")
        return told.status == 200 and all(gateway["policy_ack"] >= number for gateway in told.body["gateways"])

    def chat(self, key: str, text: str = "hello", timeout: float = 30.0, **more: Any) -> Answer:
        headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
        end = time.monotonic() + PATIENT_SECONDS
        while True:
            answer = request(self.port, "POST", "/v1/chat/completions", body, headers, timeout)
            untold = answer.status == 503 and answer.code in ("budget_unreachable", "limit_unreachable")
            if not (untold and self.patient) or time.monotonic() > end:
                return answer
            time.sleep(0.05)

    def control(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """A request to the control API as somebody; as the operator where no headers are given."""
        token = (self.home / "operator.token").read_text().strip()
        sent = {"host": f"localhost:{self.control_port}", **(headers or {"authorization": f"Bearer {token}"})}
        return request(self.control_port, method, path, body, sent)

    def in_ledger(self) -> int:
        """How many calls are in the ledger by now, for what is waited for; -1 where nobody says."""
        told = self.control("GET", "/api/cost")
        return int(told.body["calls"]) if told.status == 200 else -1

    def serve(self, number: int) -> bool:
        """Whether every worker has taken the blueprint of that number up, for what is waited for."""
        told = self.control("GET", "/api/status")
        return told.status == 200 and all(gateway["blueprint"] == number for gateway in told.body["gateways"])

    def follow_link(self, email: str) -> dict[str, str]:
        """Headers of a browser that followed a link which the operator made."""
        url = self.control("POST", "/api/login-links", {"person": email}).body["url"]
        return self._session(request(self.control_port, "GET", "/" + url.split("/", 3)[3]))

    def sign_in(self, email: str) -> dict[str, str]:
        """Headers of a browser in which somebody signed in with a passkey; the first time it is registered, and a
        colleague confirms it."""
        if email not in self.devices:
            device, session = SoftPasskey(f"http://localhost:{self.control_port}"), self.follow_link(email)
            asked = self.control("POST", "/api/passkeys/registration", {}, session).body
            given = {"ceremony": asked["ceremony"], "response": device.create(asked["options"])}
            made = self.control("POST", "/api/passkeys", given, session).body
            if not made["confirmed"]:
                colleague = self.sign_in(next(iter(self.devices)))
                assert self.control("POST", f"/api/passkeys/{made['id']}/confirm", {}, colleague).status == 200
            self.devices[email] = device
        asked = self.control("POST", "/api/sign-in/passkey/options", {}, {"accept": "*/*"}).body
        given = {"ceremony": asked["ceremony"], "response": self.devices[email].get(asked["options"])}
        return self._session(self.control("POST", "/api/sign-in/passkey", given, {"accept": "*/*"}))

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
    """`groundplan init` on an upstream that the user already has."""
    arguments = (
        *("init", str(folder), "--upstream", upstream.url, "--upstream-model", "scripted"),
        *("--upstream-key", "env:UPSTREAM_KEY", "--price", price, "--budget", budget),
    )
    done = run_command(arguments, os.environ, timeout=60)
    assert done.returncode == 0, done.stderr
    return folder


@contextlib.contextmanager
def installation(
    folder: Path, *, workers: int = 1, price: str = "0/10", budget: str = "1000", start: bool = True
) -> Iterator[tuple[Stack, Upstream]]:
    """An upstream and an installation in front of it, both stopped at the end."""
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
