"""What scripts rely on, to the letter: the ready line, the JSON of commands, the facts of an answer; and that no secret
is ever written down.

One installation, in folders with spaces in their names, with two gateway workers; the key of its first provider comes
from the environment, that of the second one from a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.acceptance.stack import Stack, Upstream, init_workspace, request, wait_until
from tests.integration.nursery import run_command

from groundplan.core.audit.verify import copy_log

FROM_ENVIRONMENT = "canary-of-the-environment-7f3a91"
FROM_FILE = "canary-of-the-file-55aa12"
PICODOLLARS = re.compile(r"\d+\.\d{12}")
FACTS = {
    "call_id", "workload", "model", "deployment", "site", "cost_usd", "cache", "sources", "budget_remaining_usd",
    "blueprint",
}  # fmt: skip
SECOND = """\
---
kind: deployment
name: second
site: here
model: scripted-too
url: {url}
key: file:{key}
price: {{input: 0 USD/Mtok, output: 10 USD/Mtok}}
context: 128k
"""


@dataclass
class Scene:
    stack: Stack
    upstream: Upstream
    ready: str
    key: str
    key_told: dict[str, Any]

    def headers(self, **more: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", **more}

    def stream(self, **more: Any) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """The headers of a stream, and its chunks without the last `[DONE]`."""
        body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "stream": True, **more}
        reply = request(self.stack.port, "POST", "/v1/chat/completions", body, self.headers())
        events = [line[6:] for line in bytes(reply.body).decode().splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        return reply.headers, [json.loads(event) for event in events[:-1]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("exact") / "a folder with spaces"
    upstream = Upstream(folder / "upstream")
    upstream.start()
    workspace = init_workspace(folder / "my company", upstream)
    secret = folder / "second key"
    secret.write_text(FROM_FILE)
    company = workspace / "groundplan.yaml"
    company.write_text(company.read_text() + SECOND.format(url=upstream.url, key=json.dumps(str(secret))[1:-1]))
    stack = Stack(folder, workspace, 2, environment={"UPSTREAM_KEY": FROM_ENVIRONMENT})
    try:
        ready = stack.start()
        told = stack.cli("keys", "create", "--workload", "assistant", "--user", "you@company.example")
        stack.wait_until_effective(told["effective"])
        yield Scene(stack, upstream, ready, str(told["key"]), told)
    finally:
        stack.stop()
        upstream.stop()


def test_only_the_ready_line_goes_to_stdout(scene: Scene) -> None:
    gateway, control = scene.stack.port, scene.stack.control_port
    assert scene.ready == f"ready gateway=http://127.0.0.1:{gateway}/v1 control=http://127.0.0.1:{control}"
    assert (scene.stack.folder / "ready").read_text() == scene.ready + "\n"


def test_a_key_and_its_id(scene: Scene) -> None:
    assert UUID(scene.key_told["id"]) and scene.key.startswith("gp_")
    assert scene.key_told["user"] == "you@company.example"


@pytest.mark.parametrize(
    ("program", "count"),
    [("groundplan.gateway.app", 2), ("groundplan.gateway.journal.shipper", 1), ("groundplan.console.app", 1)],
)
def test_a_process_is_a_child_of_up_by_its_own_command(scene: Scene, program: str, count: int) -> None:
    pids = scene.stack.pids(program)
    assert len(pids) == count and scene.stack.process is not None
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
        assert command[:6] == [sys.executable, "-m", "groundplan.program", program, "--home", str(scene.stack.home)]
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert (parent, os.getsid(pid)) == (scene.stack.process.pid, pid)


def test_cost(scene: Scene) -> None:
    before = scene.stack.cli("cost")
    assert scene.stack.chat(scene.key).status == 200
    wait_until(lambda: scene.stack.calls_in_ledger() > before["calls"], 60, "a cost")
    told = scene.stack.cli("cost")
    assert PICODOLLARS.fullmatch(told["total_usd"])
    assert type(told["calls"]) is int and type(told["open_reservations"]) is int and told["open_reservations"] == 0
    (row,) = told["by_workload"]
    assert row["workload"] == "assistant" and row["calls"] == told["calls"] and row["total_usd"] == told["total_usd"]


def test_audit_verify_says_whether_it_holds_also_by_its_exit_code(scene: Scene, tmp_path: Path) -> None:
    told = scene.stack.cli("audit", "verify")
    assert told["ok"] is True and type(told["entries"]) is int and told["entries"] > 0
    copy = tmp_path / "copied home"
    copy_log(scene.stack.home / "audit", copy / "audit")  # it is being written to
    shutil.copytree(scene.stack.home / "keys", copy / "keys")
    (bundle, *_) = sorted((copy / "audit" / "tile" / "entries").rglob("*.p/*"), key=lambda path: -int(path.name))
    bundle.write_bytes(bundle.read_bytes().replace(b'"operator"', b'"operatoR"', 1))
    done = run_command(("audit", "verify", "--home", str(copy), "--json"), os.environ, 60)
    assert done.returncode == 1 and json.loads(done.stdout)["ok"] is False


def all_ready(told: dict[str, Any]) -> bool:
    return len(told["gateways"]) == 2 and all(gateway["ready"] for gateway in told["gateways"])


def test_status(scene: Scene) -> None:
    wait_until(lambda: all_ready(scene.stack.control("GET", "/api/status").body), 60, "both are heard of")
    told = scene.stack.cli("status")
    assert told["blueprint"] == 1
    for gateway in told["gateways"]:
        assert type(gateway["pid"]) is int and gateway["blueprint"] == 1
        assert type(gateway["journal_lag"]) is int and gateway["ready"] is True


def test_an_answer_and_its_headers_tell_the_same_facts(scene: Scene) -> None:
    reply = scene.stack.chat(scene.key)
    facts = reply.body["groundplan"]
    assert set(facts) >= FACTS
    assert (facts["workload"], facts["model"], facts["deployment"], facts["site"]) == (
        "assistant", "scripted", "main", "here",
    )  # fmt: skip
    assert PICODOLLARS.fullmatch(facts["cost_usd"]) and Decimal(facts["cost_usd"]) > 0
    assert Decimal(facts["budget_remaining_usd"]) < 1000 and facts["blueprint"] == 1 and facts["sources"] == []
    for name in ("call_id", "workload", "model", "deployment", "site", "cost_usd", "blueprint"):
        assert reply.headers[f"groundplan-{name.replace('_', '-')}"] == str(facts[name]), name


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}], ids=["plain", "with usage"])
def test_a_stream_has_its_facts_in_the_last_chunk_that_it_has_anyway(scene: Scene, asked: dict[str, Any]) -> None:
    headers, chunks = scene.stream(**asked)
    assert [("groundplan" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    facts = chunks[-1]["groundplan"]
    assert set(facts) >= FACTS and Decimal(facts["cost_usd"]) > 0
    assert bool(chunks[-1]["choices"]) is not bool(asked), "an empty chunk comes only to whoever asked for usage"
    assert all(chunk["choices"] for chunk in chunks[:-1])
    for name in ("call_id", "workload", "model", "deployment", "site", "blueprint"):
        assert headers[f"groundplan-{name.replace('_', '-')}"] == str(facts[name]), name
    assert "groundplan-cost-usd" not in headers, "it is not known before the body"


def written_files(scene: Scene, archive: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that the installation keeps: HOME with the files of its database, its backup unpacked, its output."""
    kept = [Path(folder) / name for folder, _, names in os.walk(scene.stack.home) for name in names]
    for path in (*kept, scene.stack.folder / "up.log", scene.stack.folder / "ready"):
        with contextlib.suppress(FileNotFoundError):  # what is only there for a moment, such as files of PostgreSQL
            if path.is_file():
                yield str(path), path.read_bytes()
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            file = members.extractfile(member)
            if file is not None:
                yield f"backup: {member.name}", file.read()


def shown(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """Every answer of the control API that can be read without naming something, and each call, key and blueprint."""
    token = (scene.stack.home / "operator.token").read_text().strip()

    def read(path: str) -> Any:
        return request(scene.stack.control_port, "GET", path, headers={"authorization": f"Bearer {token}"}).body

    described = read("/api/openapi.json")["paths"]
    plain = [path for path, ways in described.items() if "get" in ways and "{" not in path and "/live" not in path]
    calls = [call["id"] for call in read("/api/calls")["calls"]]
    keys = [key["id"] for key in read("/api/keys")["keys"]]
    named = [f"/api/calls/{id}" for id in calls] + [f"/api/why/{id}" for id in (*calls, *keys)] + ["/api/blueprints/1"]
    assert calls and keys and len(plain) > 15
    for path in (*plain, *named):
        told = read(path)
        yield path, told if isinstance(told, bytes) else json.dumps(told).encode()


def test_no_secret_is_stored_logged_or_shown(scene: Scene) -> None:
    for model in ("main", "second"):
        assert scene.stack.chat(scene.key, model=model).status == 200
    scene.upstream.control(mode="error", status=401)
    assert scene.stack.chat(scene.key, model="second").status >= 500
    scene.upstream.control(mode="ok")
    assert scene.stack.chat(scene.key[:-1] + ("a" if scene.key[-1] != "a" else "b")).status == 401
    status = partial(scene.stack.control, "GET", "/api/status")
    wait_until(lambda: all(not g["journal_lag"] for g in status().body["gateways"]), 60, "no lag")
    archive = scene.stack.folder / "archive"
    scene.stack.cli("backup", str(archive))
    kept = [*written_files(scene, archive), *shown(scene)]
    assert any(name.startswith("backup: tables/attempt") for name, _ in kept)
    for secret in (FROM_ENVIRONMENT, FROM_FILE, scene.key, scene.key.removeprefix("gp_")):
        assert [name for name, content in kept if secret.encode() in content] == []
