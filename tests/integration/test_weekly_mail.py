"""Owners get three lines a week about what their workloads cost, once each, over a real SMTP server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from psycopg_pool import ConnectionPool
from tests.acceptance.stack import free_port
from tests.integration.test_api_control import run_control

from groundplan.api.context import Services
from groundplan.api.cost.book import Days
from groundplan.api.mail import smtp as mail
from groundplan.api.mail import weekly
from groundplan.core.database import connect
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.core.settings import load_settings
from groundplan.economics.allocate.model import Line
from groundplan.gateway.journal import ledger_store
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Database

MONDAY = datetime(2026, 11, 23, 7, tzinfo=UTC)


class Inbox:
    def __init__(self) -> None:
        self.found: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: ARG002, N802 -- the library's
        self.found.append(envelope.content.decode())
        return "250 OK"


def spend(conn: Any, at: datetime, usd: str) -> None:
    attempt: tuple[Any, ...] = (
        new_id(), 0, at, "local", "here", "acme/model", "settled", "ok", 200, Decimal(usd), Decimal(usd), {}, False, [],
        1.0, new_id(), 0.0, None, None, "assistant", 1, False, {"output": [9, int(Decimal(usd) * PICO)]}, "", "",
    )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [attempt])


@pytest.mark.parametrize("days", [0, 2])
def test_owners_get_three_lines_once_a_week(database: Database, tmp_path: Path, days: int) -> None:
    """`days` after Monday, where nothing ran before."""
    inbox = Inbox()
    port = free_port()
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    with run_control(database, tmp_path), connect(database.urls["owner"], autocommit=True) as conn:
        spend(conn, MONDAY - timedelta(days=3), "3")
        spend(conn, MONDAY - timedelta(days=10), "2")
        controller.start()
        try:
            settings = replace(load_settings({}), mail_url=f"smtp://127.0.0.1:{port}")
            with ConnectionPool[Any](database.urls["control"], min_size=1, max_size=2, open=True) as pool:
                clock = ManualClock(MONDAY + timedelta(days=3))
                services = Services(Home(tmp_path / "home"), settings, None, False, None, pool, clock)  # type: ignore[arg-type]
                assert weekly.queue_if_due(services) == 0, "on a Thursday it is no news"
                services = replace(services, clock=ManualClock(MONDAY - timedelta(hours=2)))
                assert weekly.queue_if_due(services) == 0, "it is not six yet"
                clock = ManualClock(MONDAY + timedelta(days=days))
                services = replace(services, clock=clock)
                assert weekly.queue_if_due(services) == 1
                assert weekly.queue_if_due(services) == 0
                assert mail.send_waiting(services) == 1
                clock.advance(86_400)
                assert weekly.queue_if_due(services) == 0
        finally:
            controller.stop()
    text = inbox.found[0].replace("\r\n", "\n")
    assert "Subject: Your AI workloads cost $3.00 last week, +50% on the week before." in text
    assert "Most changed: output of assistant, +$1.00.\n" in text
    assert "\nWhy: each of the tokens cost 50% more (+$1.00). Nothing unusual was found." in text
    assert "/cost" in text and "To: ana@acme.example" in text


def line(amount: int, term: str = "input") -> Line:
    return Line(term=term, workload="a", amount=amount * PICO, basis="measured", rule="", source="")


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [
        ([], [], ["cost $0.00 last week.", "Nothing changed.", "Nothing unusual"]),
        ([line(5)], [line(5)], ["cost $5.00 last week, +0%", "Nothing changed.", "Nothing unusual"]),
        (
            [line(5)],
            [line(5, "credit"), line(-9, "credit")],
            ["cost $5.00 last week.", "Most changed", "Nothing unusual"],
        ),
        ([line(90_000)], [line(3)], ["+2,999,900% on", "+$89,997.00", "Why: what is carried of it is 2,999,900% more"]),
        ([line(1), line(2, "idle")], [line(9)], ["-67%", "Most changed: input of a, -$8.00.", "Nothing unusual"]),
    ],
)
def test_the_lines_say_what_changed(now: list[Line], before: list[Line], told: list[str]) -> None:
    lines = weekly.three_lines(now, before, [])
    assert len(lines) == 3
    assert all(part in text for part, text in zip(told, lines, strict=True))


def test_the_third_line_says_what_the_change_of_the_second_is_made_of() -> None:
    def tokens(amount: int, count: int, at: str) -> Line:
        return replace(line(amount), quantity=count, unit="Tokens", deployment=at)

    now, before = [tokens(20, 100, "eu"), tokens(16, 80, "us")], [tokens(20, 100, "eu"), tokens(4, 20, "us")]
    told = weekly.three_lines(now, before, ["a: since 14:05"], ({"a": 30}, {"a": 20}))
    assert told[1] == "Most changed: input of a, +$12.00."
    assert told[2] == "Why: 50% more calls (+$12.00), mostly at us. Unusual: a: since 14:05"
    told = weekly.three_lines([tokens(9, 50, "")], [tokens(4, 20, "")], [], ({"a": 10}, {"a": 10}))
    parts = "150% more tokens a call (+$6.00), each of the tokens cost 10% less (-$1.00)"
    assert told[2] == f"Why: {parts}. Nothing unusual was found."
    assert weekly.three_lines([line(3)], [], [])[2].startswith("Why: it is new. ")
    shared = [replace(line(8, "platform"), allocation="p")], [replace(line(5, "platform"), allocation="p")]
    assert weekly.three_lines(*shared, [])[2].startswith("Why: what is carried of it is 60% more (+$3.00). ")


def test_what_was_unusual_is_the_reason() -> None:
    assert weekly.three_lines([], [], ["assistant: since 14:05 ..."])[2] == "Unusual: assistant: since 14:05 ..."


def test_what_was_unusual_after_the_week_is_of_the_next_one() -> None:
    week = Days(MONDAY.date() - timedelta(days=7), MONDAY.date() - timedelta(days=1))
    told = [
        {"subject": "workload/a", "message": message, "severity": "medium", "at": MONDAY + timedelta(hours=hours)}
        for message, hours in (("before", -7 * 24 - 8), ("in it", -8), ("this morning", -1))
    ]
    assert weekly._unusual_messages([*told, {**told[1], "subject": "workload/b"}], {"a"}, week, "") == [
        "on Sunday, in it"
    ]
    grave = {**told[1], "severity": "high", "message": "graver"}
    assert weekly._unusual_messages([*told, grave], {"a"}, week, "") == ["on Sunday, graver", "on Sunday, in it"]
