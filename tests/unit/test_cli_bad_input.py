"""What reaches a command through its environment, its files and its words: told in one message, never as a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundplan.core.home import Home


def run(home: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """(exit code, error code) of a command with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "groundplan.cli.main", *arguments, "--home", str(home), "--json"],
        capture_output=True, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip
    assert b"Traceback" not in done.stdout + done.stderr, done
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


@pytest.mark.parametrize("arguments", [("why", "WORD"), ("audit", "list", "--subject", "WORD")])
def test_words_that_are_not_utf8_are_sent_as_they_are(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    words = [os.fsdecode(b"\xff") if word == "WORD" else word for word in arguments]
    assert run(tmp_path, *words, GROUNDPLAN_TOKEN="x", GROUNDPLAN_URL="http://127.0.0.1:9") == (69, "not_running")
