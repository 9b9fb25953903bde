"""A day of generated traffic through the real gateway: provider, ledger, statement, FOCUS and Parquet say the same.

The day is compressed into seconds: whole answers and streams, features, and a worker that is killed in the middle.
"""

from __future__ import annotations

import csv
import io
import os
import random
import signal
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from groundplan.core.database import connect, database_url
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.ledger import archive
from tests.acceptance.stack import Stack, installation, wait_until

CALLS = 120
TOKENS = 10
PRICE = "2/10"


def day(stack: Stack, key: str, chance: random.Random) -> int:
    """Calls one after the other; how many were answered."""
    answered = 0
    for number in range(CALLS):
        headers = {"groundplan-feature": chance.choice(["search", "summary"])}
        try:
            answer = stack.chat(key, "x" * chance.randint(1, 200), stream=chance.random() < 0.4, headers=headers)
            answered += answer.status == 200
        except OSError:
            wait_until(lambda: stack.chat(key, "are you there?").status == 200, 30, "a worker answers again")
            answered += 1
        if number == CALLS // 2:
            os.kill(stack.pids("groundplan.gateway.app")[0], signal.SIGKILL)
            wait_until(lambda: len(stack.pids("groundplan.gateway.app")) >= 1, 30, "the worker is started again")
    return answered


def settled(stack: Stack) -> bool:
    status = stack.cli("status", code=None)
    return "error" not in status and all(g["ready"] and g["journal_lag"] == 0 for g in status["gateways"])


def usd(rows: list[dict[str, str]], name: str) -> Decimal:
    return sum((Decimal(row[name]) for row in rows), Decimal(0))


@pytest.mark.soak
def test_every_book_of_a_day_says_the_same(tmp_path: Path) -> None:
    with installation(tmp_path, price=PRICE, budget="100") as (stack, upstream):
        upstream.control(mode="ok", tokens=TOKENS, latency_ms=2, chunk_ms=1)
        answered = day(stack, stack.key(), random.Random(7))
        assert answered >= CALLS // 2
        wait_until(lambda: settled(stack), 60, "every journal is in the ledger")

        today = datetime.now(UTC).date().isoformat()
        book = stack.control("GET", f"/api/cost/book?by=term&first={today}&last={today}&lines=true").body
        total = Decimal(book["total_usd"])
        assert total == Decimal(stack.cli("cost")["total_usd"]) > 0
        assert usd(book["lines"], "cost_usd") == total

        sure = [row for row in book["lines"] if row["basis"] == "measured"]
        attempts = len(upstream.counted())
        with connect(database_url(Home(stack.home), load_settings({}), "control")) as conn:
            row = conn.execute(
                """SELECT count(*) FILTER (WHERE state = 'settled' AND outcome <> 'not_billed'),
                     count(*) FILTER (WHERE state = 'crashed'), sum(cost_usd),
                     sum(cost_usd) FILTER (WHERE NOT estimated) FROM attempt"""
            ).fetchone()
            assert row is not None
            assert row[0] <= attempts <= row[0] + row[1]
            assert row[2] == total and row[3] == usd(sure, "cost_usd")
            with conn.transaction(force_rollback=True):
                archive.archive_day(conn, str(tmp_path / "facts"), datetime.now(UTC).date())
        _, files = archive.query(str(tmp_path / "facts"), "SELECT sum(cost_usd) FROM attempts")
        assert files[0][0] == total

        stack.cli("cost", "export", str(tmp_path / "focus.csv"), "--from", today, "--to", today)
        focus = list(csv.DictReader(io.StringIO((tmp_path / "focus.csv").read_text())))
        assert usd(focus, "BilledCost") == total
        statements = stack.cli("cost", "statement")["statements"]
        assert usd(statements, "total_usd") == total
        features = stack.control("GET", "/api/cost/features").body["features"]
        assert usd(features, "cost_usd") == total
        assert {row["feature"] for row in features} >= {"search", "summary"}
