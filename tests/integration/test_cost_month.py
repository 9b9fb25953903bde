"""This month on the page of Cost is the whole month, whatever its length and the time of the day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from psycopg_pool import ConnectionPool

from groundplan.api.caller import Caller
from groundplan.api.context import Services
from groundplan.api.routes import ledger
from groundplan.console.cost_figures import daily_rows, total_row
from groundplan.core.database import connect
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import archive
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Database


@pytest.fixture
def services(database: Database, tmp_path: Path) -> Iterator[Services]:
    with ConnectionPool[Any](database.urls["control"], min_size=1, max_size=2, open=True) as pool:
        clock = ManualClock(datetime(2026, 12, 31, 18, tzinfo=UTC))
        yield Services(Home(tmp_path / "home"), load_settings({}), None, False, None, pool, clock)  # type: ignore[arg-type]


def call(conn: Any, at: datetime) -> None:
    row: tuple[Any, ...] = (
        new_id(), at, "assistant", None, None, None, "chat", "ok", 200, None, "acme/m", "local", "here", Decimal(1),
        Decimal(1), 3, 2, "none", 1, new_id(), False, 12.5, 3.5, {}, 0, 0,
    )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [row])


@pytest.mark.parametrize("hour", [0, 18, 23])
def test_the_first_day_of_a_month_of_31_days_is_in_it_until_its_end(
    services: Services, database: Database, hour: int
) -> None:
    with connect(database.urls["owner"], autocommit=True) as conn:
        for minutes in (-1, 0, 150):
            call(conn, datetime(2026, 12, 1, tzinfo=UTC) + timedelta(minutes=minutes))
    services = replace(services, clock=ManualClock(datetime(2026, 12, 31, hour, 5, tzinfo=UTC)))
    days = ledger.cost_by_day(services, cast("Caller", None), ledger.CHART_DAYS)["days"]
    assert {row["day"] for row in days} == {"2026-12-01"}, "a day is there in whole or not at all"
    month = total_row(daily_rows(days, "2026-12-31"))
    assert month.calls_month == 2 and Decimal(month.month_usd) == 2


def test_the_last_days_are_the_same_once_the_first_of_them_has_left(
    services: Services, database: Database, tmp_path: Path
) -> None:
    """They begin with an hour: what is within one is known of facts alone."""
    services.home.create()
    with connect(database.urls["owner"], autocommit=True) as conn:
        for minutes in (-1, 2, 30):
            call(conn, datetime(2026, 12, 1, 18, tzinfo=UTC) + timedelta(minutes=minutes))
        services = replace(services, clock=ManualClock(datetime(2026, 12, 31, 18, 5, tzinfo=UTC)))
        before = ledger.cost(services, cast("Caller", None), None, 30)
        with conn.transaction():
            archive.archive_day(conn, str(tmp_path / "facts"), date(2026, 12, 1))
    assert ledger.cost(services, cast("Caller", None), None, 30) == before
    assert Decimal(before["total_usd"]) == 2
