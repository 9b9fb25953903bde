"""The command line by itself: fast help, spelling, exit codes and one error shape."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import typer
from tests.integration.nursery import run_command
from typer.core import TyperGroup
from typer.testing import CliRunner

from groundplan.cli import kill
from groundplan.cli.client import ControlClient
from groundplan.cli.main import COMMANDS, app
from groundplan.console.render import NAVIGATION

ALONE = """\
import importlib, os, sys, traceback
import groundplan.cli.main
for name in ("pydantic", "psycopg", "rich.console", "ruamel.yaml", "cryptography.hazmat.primitives.serialization"):
    importlib.import_module(name)
for module in sys.argv[1:]:
    if (child := os.fork()) == 0:
        try:
            importlib.import_module(module)
        except ImportError:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(module)
"""
"""Loads each module where none of the others is loaded, and prints those that cannot be."""


def from_nothing(*arguments: str, output: IO[str] | int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groundplan.cli.main", *arguments]
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(arguments, os.environ, 60)


def test_help_is_fast_and_lists_every_command() -> None:
    best = 10.0
    for _ in range(10):  # the machine may be busy elsewhere; once is proof that nothing slow is loaded
        began = time.monotonic()
        done = from_nothing("--help")
        best = min(best, time.monotonic() - began)
        if best < 1.0:
            break
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert best < 1.0, "0.1 s on an idle machine"


def test_help_imports_no_command() -> None:
    code = (
        "import sys; sys.argv=['groundplan','--help']\n"
        "from groundplan.cli.main import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "sys.exit(int(any(m in sys.modules for m in ('psycopg','fastapi','rich','pydantic','groundplan.cli.up'))))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_help_is_in_the_sections_of_the_console() -> None:
    titles = re.findall(r"^(\w+):$", run("--help").stdout, re.MULTILINE)
    assert titles == ["Options", "Start", *(name for name, _ in NAVIGATION if name != "Overview")]


def test_help_of_a_group_tells_each_command_to_the_end() -> None:
    done = run("knowledge", "--help")
    assert "..." not in done.stdout.partition("Commands:")[2]
    assert "completion" not in done.stdout, "completion is of the program, not of a group"


@pytest.mark.parametrize("name", ["routing", "keys", "cache"])
def test_a_group_without_a_command_shows_its_commands(name: str) -> None:
    done = run(name)
    assert done.returncode == 2 and "Commands:" in done.stdout + done.stderr


def test_every_argument_and_option_says_what_it_is() -> None:
    root = typer.main.get_command(app)
    silent = [
        f"{path} {each.name}"
        for path, command in every(root, "groundplan")
        for each in command.params
        if not has_help(each)
    ]
    assert silent == []


def every(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A command and all below it, with the words that call it."""
    yield path, command
    if isinstance(command, TyperGroup):
        context = command.context_class(command)
        for name in command.list_commands(context):
            yield from every(command.get_command(context, name), f"{path} {name}")


def has_help(parameter: Any) -> bool:
    return parameter.name == "help" or (getattr(parameter, "help", None) or "").endswith((".", ")", "?"))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_every_command_loads_where_no_other_is_loaded() -> None:
    modules = sorted({f"groundplan.cli.{module}" for module, *_ in COMMANDS.values()})
    done = subprocess.run([sys.executable, "-c", ALONE, *modules], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_misspelt_command_is_corrected() -> None:
    done = run("statsu")
    assert done.returncode == 2
    assert "status" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--version"], "system_refused"), (["status", "--json", "--home"], "not_running")]
)
def test_where_there_is_no_room_for_what_a_command_says_it_ends_with_an_error(
    tmp_path: Path, arguments: list[str], code: str
) -> None:
    with Path("/dev/full").open("w") as full:
        done = from_nothing(*arguments, *([str(tmp_path)] if "--home" in arguments else []), output=full)
    assert done.returncode == 69 and done.stderr.count(f"[{code}]") == 1 and "Traceback" not in done.stderr


def test_without_up_commands_say_so_and_exit_69(tmp_path: Path) -> None:
    done = from_nothing("status", "--home", str(tmp_path))
    assert done.returncode == 69
    assert done.stdout == ""
    assert "not_running" in done.stderr and "groundplan up" in done.stderr


def test_with_json_an_error_is_one_document_on_stdout(tmp_path: Path) -> None:
    done = run("cost", "--home", str(tmp_path), "--json")
    assert done.returncode == 69
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "not_running" and error["hint"] and error["type"] == "unavailable"


def test_version() -> None:
    assert from_nothing("--version").stdout.startswith("groundplan ")


def test_a_blueprint_number_that_there_cannot_be_is_a_wrong_command_line(tmp_path: Path) -> None:
    for number in ("-1", "0", "abc"):
        done = run("rollback", "--home", str(tmp_path), "--", number)
        assert done.returncode == 2 and "Invalid value" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("keys", "create"), "--workload"),
        (("rollback", "abc"), "integer"),
        (("statsu",), "statsu"),
        (("up", "--n"), "--n"),
    ],
)
def test_a_wrong_command_line_is_json_too(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments, "--home", str(tmp_path), "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2 and error["code"] == "usage" and said in error["message"] and error["hint"]


def test_kill_refuses_what_is_no_scope(tmp_path: Path) -> None:
    done = run("kill", "everything", "-m", "test", "--home", str(tmp_path), "--json")
    assert done.returncode == 65
    assert json.loads(done.stdout)["error"]["code"] == "kill_scope"


def test_kill_works_on_files_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for scope in ("workload/assistant", "company"):
        done = run("kill", scope, "-m", "leak", "--offline", "--home", str(tmp_path), "--json")
        assert done.returncode == 69, "no gateway has acknowledged it"
    held = json.loads((tmp_path / "run" / "kill.json").read_text())
    assert [item["scope"] for item in held] == ["workload/assistant", "company"]


def test_a_kill_is_written_where_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon, and not when the network gives a PostgreSQL up that says nothing."""
    (tmp_path / "run").mkdir()
    assert kill.API_TIMEOUT_SECONDS <= 5
    monkeypatch.setattr(kill, "API_TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("GROUNDPLAN_TOKEN", "t")
        assert kill._kill_online(tmp_path, "company", "leak", streams=False)["file"] == str(
            tmp_path / "run" / "kill.json"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_kill_that_root_writes_is_read_by_whoever_serves(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", 4242, 4242)
    run("kill", "company", "-m", "leak", "--offline", "--home", str(tmp_path))
    file = (tmp_path / "run" / "kill.json").stat()
    assert (file.st_uid, file.st_gid, file.st_mode & 0o777) == (4242, 4242, 0o600)


def test_a_kill_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "run" / "kill.json").mkdir(parents=True)
    done = run("kill", "company", "-m", "leak", "--offline", "--home", str(tmp_path), "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (69, "kill_unwritten") and "company is not stopped" in error["message"]


def test_doctor_on_an_empty_machine(tmp_path: Path) -> None:
    done = run("doctor", "--home", str(tmp_path / "none"), "--json")
    value = json.loads(done.stdout)
    assert {check["name"] for check in value["checks"]} >= {"home", "disk", "ports", "models", "postgres", "journal"}


def test_doctor_names_an_open_secret(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    key = home / "keys" / "checkpoint.key"
    key.write_text("x")
    key.chmod(0o644)
    done = run("doctor", "--home", str(home), "--json")
    assert done.returncode == 1
    assert any(check["state"] == "bad" and str(key) in check["message"] for check in json.loads(done.stdout)["checks"])


def test_whoever_starts_it_may_have_closed_its_standard_files() -> None:
    opened = "main._open_standard_files(); raise SystemExit(socket.socket().fileno() < 3 or sys.stderr.isatty())"
    program = (sys.executable, "-c", f"import socket, sys; from groundplan.cli import main; {opened}")
    assert subprocess.run(("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *program), check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["--help"], 0), (["check", "--schema", "--json"], 0), (["check", "bad", "--json"], 65)],
)
def test_a_reader_that_has_gone_is_no_failure(tmp_path: Path, arguments: list[str], code: int) -> None:
    """As of `groundplan tail --json | head -1`; what a command found out it says by its code all the same."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "w.yaml").write_text("kind: workloud\n")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        command = [sys.executable, "-m", "groundplan.cli.main", *arguments]
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert bool(done.stderr) == (code != 0), "an error that nobody reads there is told where people read errors"


@pytest.mark.parametrize("name", ["batches", "responses"])
@pytest.mark.parametrize(
    "said", ["", "list", "--workload a --json", "list --workload a --json", "--workload a --json list"]
)
def test_a_list_is_asked_for_with_or_without_that_word(monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    """And what is said before it holds as what is said behind it."""
    asked: list[tuple[str, dict[str, str]]] = []

    class Answering:
        def get(self, path: str, **query: str) -> dict[str, Any]:
            asked.append((path, query))
            return {name: [], "files": [], "open": []}

    monkeypatch.setattr(ControlClient, "connect", lambda _: Answering())
    told = CliRunner().invoke(app, [name, *said.split()])
    assert told.exit_code == 0, told.output
    assert asked == [(f"/api/{name}", {"workload": "a"} if said.startswith(("--", "list ")) else {})]
    assert told.stdout.startswith("{") == ("--json" in said)


def test_a_home_that_is_said_before_a_command_holds_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    homes: list[Path | None] = []

    class Answering:
        def post(self, *_: Any) -> dict[str, Any]:
            return {"workload": "a"}

    def connect(home: Path | None) -> Answering:
        homes.append(home)
        return Answering()

    monkeypatch.setattr(ControlClient, "connect", connect)
    assert CliRunner().invoke(app, ["responses", "--home", "h", "cancel", "resp_1"]).exit_code == 0
    assert CliRunner().invoke(app, ["responses", "cancel", "resp_1", "--home", "i"]).exit_code == 0
    assert homes == [Path("h"), Path("i")]
