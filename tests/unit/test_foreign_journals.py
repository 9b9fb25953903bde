"""A journal that another user wrote, as after `up` was once started by root, is told by status and doctor."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from groundplan.api import health
from groundplan.cli import doctor
from groundplan.core.home import Home
from groundplan.core.settings import load_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A HOME with two journals, of which this user may not use one; root may always."""
    home = Home(tmp_path)
    home.create()
    for name in ("foreign", "own"):
        (home.journal / name).mkdir()
    (home.journal / "idempotency.log").touch()
    used = os.access

    def may_use(path: Any, mode: int) -> bool:
        return "foreign" not in str(path) and used(path, mode)

    monkeypatch.setattr(os, "access", may_use)
    return home


def test_it_is_named_with_what_to_do(home: Home) -> None:
    (problem,) = health.ledger_problems(home, [], datetime.now(UTC))
    assert str(home.journal / "foreign") in problem and "not in the ledger" in problem and "chown" in problem


def test_there_is_none_in_a_new_home(tmp_path: Path) -> None:
    assert health.ledger_problems(Home(tmp_path / "none"), [], datetime.now(UTC)) == []


def test_doctor_is_not_content_with_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = list(doctor._check_journals(home, load_settings()))
    assert [(check.name, check.state) for check in checks] == [("journal", "bad")]
    monkeypatch.setattr(doctor, "find_running", lambda _: {"control": "http://127.0.0.1:1"})
    told_by_up = list(doctor._check_journals(home, load_settings()))
    assert [(check.name, check.state) for check in told_by_up] == [("journal", "ok")]
