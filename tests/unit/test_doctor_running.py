"""Doctor tells what a running `up` itself reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundplan.cli import doctor
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import load_settings


def reported(monkeypatch: pytest.MonkeyPatch, home: Home, answer: dict[str, Any] | GroundplanError) -> Any:
    class Client:
        def __init__(self, url: str, token: str, timeout: float) -> None:
            assert (url, token) == ("http://127.0.0.1:8601", "a-token") and timeout <= 20

        def get(self, path: str) -> Any:
            assert path == "/api/status"
            if isinstance(answer, GroundplanError):
                raise answer
            return answer

    monkeypatch.setattr(doctor, "find_running", lambda _: {"control": "http://127.0.0.1:8601"})
    monkeypatch.setattr(doctor, "ControlClient", Client)
    return [(check.state, check.message) for check in doctor._check_running(home, load_settings())]


def test_what_up_reports_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.operator_token.write_text("a-token\n")
    problem = "the audit log is not written: No space left on device"
    assert reported(monkeypatch, home, {"problems": [problem, "other"]}) == [("bad", problem), ("bad", "other")]
    assert reported(monkeypatch, home, {"problems": []}) == [("ok", "`groundplan up` reports no problem")]


def test_an_up_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert [state for state, _ in reported(monkeypatch, home, {"problems": []})] == ["bad"], "no token can be read"
    home.operator_token.write_text("a-token\n")
    silent = Unavailable("it gives no answer within 10 s", code="control_unreachable", hint="Look.")
    assert reported(monkeypatch, home, silent) == [("bad", "it gives no answer within 10 s")]
    database = Unavailable("the database is not reachable", code="database_unavailable", hint="Look.")
    assert reported(monkeypatch, home, database) == []


def test_nothing_is_asked_where_nothing_runs(tmp_path: Path) -> None:
    assert list(doctor._check_running(Home(tmp_path), load_settings())) == []
