"""What reaches a command through its environment, its files and its words: told in one message, never as a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.nursery import run_command

from groundplan.cli.output import error_from_os, print_error
from groundplan.core.endpoints import home_identity, start_ticks
from groundplan.core.errors import Invalid, Problem
from groundplan.core.home import Home
from groundplan.identity.keys import make_key


def run(home: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """(exit code, error code) of a command with --json."""
    done = run_command([*arguments, "--home", str(home), "--json"], {**os.environ, **environment}, timeout=60)
    assert "Traceback" not in done.stdout + done.stderr, done
    error = json.loads(done.stdout)["error"]
    assert error["message"] and error["hint"]
    return done.returncode, str(error["code"])


@pytest.mark.parametrize("token", ["a\nx-injected: 1", "a\r\nb", "ä€", "\udcff"])
def test_a_token_that_would_break_a_header_is_never_sent(tmp_path: Path, token: str) -> None:
    found = run(tmp_path, "status", GROUNDPLAN_TOKEN=token, GROUNDPLAN_URL="http://127.0.0.1:9")
    assert found == (65, "token_invalid")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999999", "http://[::", "ftp://127.0.0.1", "nonsense", "http://", "/"]
)
def test_an_address_that_is_none(tmp_path: Path, url: str) -> None:
    assert run(tmp_path, "status", GROUNDPLAN_TOKEN="x", GROUNDPLAN_URL=url) == (65, "url_invalid")


def test_nobody_answers_at_the_address(tmp_path: Path) -> None:
    assert run(tmp_path, "status", GROUNDPLAN_TOKEN="x", GROUNDPLAN_URL="http://127.0.0.1:9") == (69, "not_running")


def test_a_log_that_is_not_there_fails_and_says_how_to_name_one(tmp_path: Path) -> None:
    done = run_command(["audit", "verify", "--home", str(tmp_path / "none")], dict(os.environ), timeout=60)
    assert done.returncode == 1 and "name the HOME with --home" in done.stdout


def test_a_damaged_token_file(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.operator_token.write_bytes(b"\xff\xfe")
    assert run(home.root, "status", GROUNDPLAN_URL="http://127.0.0.1:9") == (77, "operator_token")


def test_a_damaged_note_of_what_runs_counts_as_none(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    for content in (b"\xff", b"[]", b"{", b'{"pid": "../../.."}', b""):
        (home.run / "up.json").write_bytes(content)
        assert run(home.root, "status") == (69, "not_running")


def test_whoever_got_the_number_of_an_up_that_was_killed_is_not_asked_in_its_place(tmp_path: Path) -> None:
    """To ask it to reload would end most programs."""
    home = Home(tmp_path / "home")
    home.create()
    other = subprocess.Popen(["sleep", "60"])
    try:
        told = {"pid": other.pid, "began": "1", "gateway": "http://127.0.0.1:9/v1", "control": "http://127.0.0.1:9"}
        (home.run / "up.json").write_text(json.dumps(told))
        for command in ("reload", "status"):
            assert run(home.root, command) == (69, "not_running")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_reload_that_is_not_waited_for_to_its_end_is_not_said_to_be_over(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    slow = "import signal, time; signal.signal(signal.SIGUSR1, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE) as up:
        assert up.stdout is not None and up.stdout.readline() == b"\n"
        told = {"pid": up.pid, "began": start_ticks(up.pid), "home": home_identity(home), "upgrades": True}
        told |= {"gateway": "http://127.0.0.1:9/v1", "control": "http://127.0.0.1:9"}
        (home.run / "up.json").write_text(json.dumps(told))
        done = run_command(["reload", "--timeout", "1", "--home", str(home.root), "--json"], {**os.environ}, timeout=60)
        up.kill()
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (69, "reload_slow")
    assert "The reload goes on" in error["hint"] and str(home.run / "reload.json") in error["hint"]


@pytest.mark.parametrize(
    "command", [("why",), ("keys", "revoke"), ("keys", "rotate"), ("kill", "--reason", "leaked"), ("kill", "-m", "x")]
)
def test_a_key_in_the_place_of_its_id_goes_nowhere_and_is_told_how_to_find_that(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    key = make_key()
    given = f"key/{key}" if "-m" in command else key
    done = run_command([*command, given, "--home", str(tmp_path), "--json"], {**os.environ}, timeout=60)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (65, "key_itself") and key not in done.stdout + done.stderr
    assert f"begins with {key[:9]}." in error["hint"]


def test_nothing_is_not_asked(tmp_path: Path) -> None:
    assert run(tmp_path, "ask", " ", "--workload", "assistant") == (65, "question_empty")


@pytest.mark.parametrize(
    "arguments",
    [
        ("why", "WORD"), ("audit", "list", "--subject", "WORD"), ("cost", "statement", "WORD", "--save", "none.csv"),
        ("cost", "reconcile", "FILE"), ("cost", "outcomes", "import", "FILE"),
    ],
)  # fmt: skip
def test_words_that_are_not_utf8_are_sent_as_they_are(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / os.fsdecode(b"bill\xff.csv")
    file.write_text("date,cost\n2026-11-01,1\n")
    said = {"WORD": os.fsdecode(b"\xff"), "FILE": str(file)}
    words = [said.get(word, word) for word in arguments]
    assert run(tmp_path, *words, GROUNDPLAN_TOKEN="x", GROUNDPLAN_URL="http://127.0.0.1:9") == (69, "not_running")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_command(("init", str(tmp_path / "file" / "company")), os.environ, 60)
    assert (done.returncode, done.stdout) == (69, "")
    assert "Traceback" not in done.stderr and "cannot be used" in done.stderr and "[file_unusable]" in done.stderr


def test_what_may_not_be_read_is_named_with_the_reason() -> None:
    for name in ("/srv/x", b"/srv/x"):
        told = error_from_os(PermissionError(13, "Permission denied", name))
        assert told.message == "/srv/x cannot be used: Permission denied" and told.hint


def test_a_file_of_the_workspace_that_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "company"
    folder.mkdir()
    (folder / "a.yaml").symlink_to("/proc/self/mem")
    assert run(tmp_path / "home", "plan", "-w", str(folder)) == (65, "unreadable")


def test_a_file_that_is_not_there_is_told_by_its_reason(tmp_path: Path) -> None:
    done = run_command(("import", "litellm", str(tmp_path / "none.yaml")), os.environ, 60)
    assert done.returncode == 65 and "No such file or directory" in done.stderr


def test_doctor_says_that_home_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_command(("doctor", "--home", str(tmp_path / "file"), "--json"), os.environ, 60)
    home = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "home")
    assert done.returncode == 1 and home["state"] == "bad" and home["hint"]


def test_each_problem_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    one = Problem("url is not valid", "invalid_value", "Write https://HOST/PATH.")
    other = Problem("price is missing", "price_missing", "Add one.")
    print_error(Invalid(one.message, code=one.code, hint=one.hint, problems=(one,)), as_json=False)
    told = capsys.readouterr().err
    assert told.count("url is not valid") == 1 and told.count(one.hint) == 1 and "error: 1 problem\n" in told
    more = Invalid(f"{one.message} (and 1 more)", code=one.code, hint=one.hint, problems=(one, other))
    print_error(more, as_json=False)
    told = capsys.readouterr().err
    assert told.count(one.hint) == told.count(other.hint) == 1 and told.endswith("error: 2 problems\n")
    print_error(Invalid("nothing was changed", hint="Look at each.", problems=(one, other)), as_json=False)
    assert "error: nothing was changed" in capsys.readouterr().err
