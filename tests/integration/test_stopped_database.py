"""PostgreSQL stops below a whole running installation: calls go on, commands and API say so, and nothing is lost.

How long a worker may go on without it (the grace) is tested in test_gateway_policy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from tests.acceptance.stack import Answer, Stack, Upstream, init_workspace, request, wait_until
from tests.integration.nursery import run_command
from tests.made_database import copy_database

from groundplan.core.home import Home
from groundplan.runtime.postgres import EmbeddedPostgres
from groundplan.testing.database import FAST, Database, found_cluster


@dataclass
class Scene:
    server: EmbeddedPostgres
    database: Database
    stack: Stack
    upstream: Upstream
    key: str
    answered_calls: int = 0

    def call(self) -> None:
        answer = self.stack.chat(self.key)
        assert answer.status == 200, answer.body
        self.answered_calls += 1


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A running installation with its own database server, which is stopped after three calls and stays stopped."""
    folder = tmp_path_factory.mktemp("stopped")
    home = Home(folder / "server")
    home.create()
    copy_database(home.root)
    server = EmbeddedPostgres(home, tuning=FAST)
    upstream = Upstream(folder / "upstream")
    try:
        server.start()
        with found_cluster(home.root).database() as database:
            upstream.start()
            workspace = init_workspace(folder / "workspace", upstream)
            environment = {"UPSTREAM_KEY": "sk-local", "GROUNDPLAN_DATABASE_URL": database.dsn}
            stack = Stack(folder, workspace, environment=environment)
            try:
                stack.start()
                created = Scene(server, database, stack, upstream, stack.key())
                for _ in range(3):
                    created.call()
                server.stop()
                for _ in range(5):
                    created.call()
                yield created
            finally:
                stack.stop()
                if server.pid is None:
                    server.start()
    finally:
        upstream.stop()
        server.remove()


@dataclass
class CommandResult:
    code: int
    out: str
    err: str

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)["error"]
        return found


def command(scene: Scene, *arguments: str) -> CommandResult:
    x = run_command(
        [*arguments, "--home", str(scene.stack.home), "--json"],
        {**os.environ, **scene.stack.environment},
        timeout=300,  # all commands at once, on a machine that does more than this
    )
    assert "Traceback" not in x.stdout + x.stderr, x
    assert "psycopg" not in x.stdout + x.stderr, x
    return CommandResult(x.returncode, x.stdout, x.stderr)


COMMANDS = [
    ("status",),
    ("cost",),
    ("keys", "list"),
    ("keys", "create", "--workload", "assistant"),
    ("keys", "revoke", "01a2131a-f04e-7000-9ee1-3a63a6b660e9"),
    ("people", "list"),
    ("groups", "list"),
    ("plan", "-w", "WORKSPACE"),
    ("apply", "-w", "WORKSPACE"),
    ("rollback",),
    ("audit", "list"),
    ("why", "01a2131a-f04e-7000-9ee1-3a63a6b660e9"),
    ("login",),
    ("readiness",),
    ("ask", "hello", "--workload", "assistant"),
    ("kill", "workload/other", "--reason", "test", "--lift"),
    ("backup", "ARCHIVE"),
]


def test_every_command_says_that_the_database_is_unreachable(scene: Scene) -> None:
    """All at once: each waits a few seconds for the database to come back."""
    places = {"WORKSPACE": str(scene.stack.workspace), "ARCHIVE": str(scene.stack.folder / "archive")}
    asked = [[places.get(argument, argument) for argument in arguments] for arguments in COMMANDS]
    with ThreadPoolExecutor(len(asked)) as threads:
        for arguments, done in zip(
            asked, threads.map(lambda arguments: command(scene, *arguments), asked), strict=True
        ):
            assert done.code == 69, (arguments, done)
            assert done.error["code"] == "database_unavailable" and done.error["hint"], (arguments, done)
    assert not (scene.stack.folder / "archive").exists()


def test_the_log_verifies_from_its_files(scene: Scene) -> None:
    assert command(scene, "audit", "verify").code == 0


def test_a_kill_works_without_the_database(scene: Scene) -> None:
    done = command(scene, "kill", "workload/other", "--reason", "test")
    assert done.code == 69 and json.loads(done.out)["file"]
    assert (scene.stack.home / "run" / "kill.json").exists()


def test_the_doctor_names_the_database(scene: Scene) -> None:
    done = command(scene, "doctor")
    bad = [check for check in json.loads(done.out)["checks"] if check["state"] == "bad"]
    assert done.code == 1 and any(check["name"] == "postgres" and check["hint"] for check in bad)


ASKED: dict[str, Any] = {
    "/api/status": None, "/api/calls": None, "/api/keys": {"workload": "assistant"},
    "/api/kill": {"scope": "company", "reason": "x"},
}  # fmt: skip
PAGES = ("/", "/governance")


def test_api_and_console_answer_503_with_retry_after(scene: Scene) -> None:
    """All at once, as the commands."""
    port, token = scene.stack.control_port, (scene.stack.home / "operator.token").read_text().strip()
    api = {"authorization": f"Bearer {token}"}
    browser = {"cookie": f"groundplan_session_{port}=x", "accept": "text/html"}

    def ask(path: str) -> Answer:
        body = ASKED[path]
        return request(port, "GET" if body is None else "POST", path, body, api)

    with ThreadPoolExecutor(len(ASKED) + len(PAGES)) as threads:
        answers = threads.map(ask, ASKED)
        pages = threads.map(lambda path: request(port, "GET", path, headers=browser), PAGES)
    for asked, answer in zip(ASKED, answers, strict=True):
        assert (answer.status, answer.code) == (503, "database_unavailable"), (asked, answer)
        assert answer.headers["retry-after"] and answer.body["error"]["hint"]
    for page in pages:
        assert page.status in (401, 503), page
        assert b"Traceback" not in page.body and b"psycopg" not in page.body


def test_nothing_is_missing_once_the_database_is_back(scene: Scene) -> None:
    """Runs last. The five calls that were answered without a database are in the ledger and in the log, once."""
    assert scene.answered_calls == 8
    scene.server.start()

    def ledger_is_complete() -> bool:
        done = command(scene, "cost")
        found = json.loads(done.out) if done.code == 0 else {}
        return done.code == 0 and (found["calls"], found["open_reservations"]) == (scene.answered_calls, 0)

    wait_until(ledger_is_complete, 120, "all calls are in the ledger")
    assert len(scene.upstream.counted()) == scene.answered_calls
    scene.call()
    wait_until(lambda: json.loads(command(scene, "audit", "verify").out)["ok"], 60, "the log holds")
    logs = "".join(path.read_text() for path in (scene.stack.home / "logs").glob("*.log"))
    assert "Traceback" not in logs, logs[logs.index("Traceback") - 500 :][:3000]
