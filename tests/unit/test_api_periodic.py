"""Work beside the requests goes on after failures, and ends when it is told to."""

from __future__ import annotations

import logging
import threading
import time

import psycopg
import pytest

from groundplan.api.periodic import PeriodicTask


def test_it_goes_on_after_what_is_expected_and_what_is_not(caplog: pytest.LogCaptureFixture) -> None:
    enough = threading.Event()
    rounds: list[int] = []

    def work() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise psycopg.OperationalError("the database is away")
        if len(rounds) == 2:
            raise ValueError("a mistake of ours")
        enough.set()

    every = PeriodicTask("counting", 0.01, work)
    with caplog.at_level(logging.WARNING, "groundplan.api.periodic"):
        every.start()
        assert enough.wait(30)
        every.stop()
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told[:2] == [("WARNING", "counting is not possible now: OperationalError"), ("ERROR", "counting failed")]


def test_it_ends_without_another_round() -> None:
    rounds: list[int] = []
    every = PeriodicTask("counting", 60.0, lambda: rounds.append(1))
    every.start()
    every.stop()
    assert rounds == [] and not any(thread.name == "counting" for thread in threading.enumerate())


def test_what_is_done_seldom_is_done_soon_after_a_start() -> None:
    done, rounds = threading.Event(), list[int]()

    def work() -> None:
        rounds.append(1)
        done.set()

    every = PeriodicTask("seldom", 6 * 3600.0, work, first=0.01)
    every.start()
    assert done.wait(10)
    every.stop()
    assert rounds == [1], "and then every so many seconds"


def test_what_takes_long_is_done_less_often() -> None:
    second, rounds = threading.Event(), list[int]()

    def work() -> None:
        rounds.append(1)
        time.sleep(0.02)
        if len(rounds) > 1:
            second.set()

    every = PeriodicTask("long", 0.001, work, part=0.001)
    every.start()
    assert not second.wait(0.2), "twenty seconds of rest"
    every.stop()
    assert rounds == [1]
