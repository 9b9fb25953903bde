"""The first days of a company: nothing is forecast of them yet, and when a budget ends is told all the same."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.integration.test_api_control import run_control
from tests.integration.this_day import today

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Database

EACH = Decimal(10)


def test_a_budget_ends_by_the_mean_of_the_days_that_are_known(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control:
        assert control.ask("GET", "/api/cost/runway").body["budgets"] == []
        calls: list[Any] = [
            (new_id(), today() - timedelta(days=back) + timedelta(minutes=1), "assistant", None, None, "care", "chat",
             "ok", 200, None, "acme/model", "local", "here", EACH, EACH, 100, 2000, "none", 1, new_id(), False, 12.5,
             3.5, {}, 0, 0)
            for back in (1, 2, 3)
        ]  # fmt: skip
        year = today().strftime("%Y")
        text = control.files()["acme.yaml"].replace("limit: 100 USD/month", "limit: 35 USD/year")
        assert control.ask("POST", "/api/apply", {"files": {"acme.yaml": text}}).status == 200
        with connect(database.dsn, autocommit=True) as conn:
            ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, calls)
            conn.execute(
                """INSERT INTO budget_period (budget, period, limit_usd, granted_usd) VALUES ('assistant', %s, 35, 0)
                   ON CONFLICT (budget, period) DO UPDATE SET limit_usd = EXCLUDED.limit_usd""",
                (year,),
            )
        (told,) = control.ask("GET", "/api/cost/runway").body["budgets"]
        assert told["history_days"] == 3 and told["period"] == year
        if (today() + timedelta(days=8)).year == today().year:  # nothing is charged to it: 35 of 10 a day
            ends = [(today() + timedelta(days=days)).date().isoformat() for days in (2, 3, 4)]
            assert told["ends"] == ends[1] and told["earliest"] == ends[0] and told["latest"] == ends[2]
        refused = control.ask("POST", "/api/cost/forecast", {})
        assert (refused.status, refused.code) == (400, "forecast_impossible")
