"""Capacity of a day that is not over does not stand idle yet: opportunities are told by days that are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_api_control import Control, run_control

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Database

RACK = """\
kind: allocation
name: rack
term: capacity
cost: 3.10 USD/day
covers: deployment/local
capacity: 10M/day
source: invoice 7
from: 2026-01-01
"""


def used(dsn: str, tokens: int, days: int) -> None:
    """That many tokens, so many days ago."""
    at = datetime.now(UTC).replace(hour=0, minute=0, second=1, microsecond=0) - timedelta(days=days)
    id, cost = new_id(), Decimal(0)
    attempt: tuple[Any, ...] = (
        id, 0, at, "local", "here", "acme/model", "settled", "ok", 200, cost, cost, {"input": tokens}, False, [], 1.0,
        new_id(), 0.0, None, None, "assistant", 1, False, {"input": [tokens, 0]}, "", "",
    )  # fmt: skip
    call: tuple[Any, ...] = (
        id, at, "assistant", None, None, None, "chat", "ok", 200, None, "acme/model", "local", "here", cost, cost,
        tokens, 0, "none", 1, new_id(), False, 12.5, 3.5, {"sources": []}, 0, 0,
    )  # fmt: skip
    with connect(dsn, autocommit=True) as conn:
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [attempt])
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [call])


def idle(control: Control, days: int) -> list[dict[str, Any]]:
    found = control.ask("GET", f"/api/opportunities?days={days}").body["opportunities"]
    return [each for each in found if each["lever"] == "idle capacity"]


def test_what_is_left_of_today_is_not_idle(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control:
        (control.workspace / "rack.yaml").write_text(RACK)
        assert control.ask("POST", "/api/apply", {"files": control.files()}).status in (200, 201)
        used(database.dsn, 10_000_000, 1)
        assert idle(control, 1) == [], "all of yesterday was used"
        used(database.dsn, 1_000_000, 2)
        (lever,) = idle(control, 2)
        assert float(lever["saves_usd"]) == pytest.approx(3.10 * 0.9 * 15)
