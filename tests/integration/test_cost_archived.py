"""What finance asks is answered alike before and after facts left for Parquet, and DuckDB says the same of them."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from psycopg.rows import tuple_row
from tests.integration.test_api_control import Control, run_control
from tests.integration.test_cost_book import DAYS, OF_CALLS, costs, fill
from tests.integration.this_day import today

from groundplan.api.cost.book import DIMENSIONS
from groundplan.core.database import connect
from groundplan.ledger import archive, archive_store
from groundplan.testing.database import Database

BILL = "date,model,input_tokens,output_tokens,cost\n{},model,200,4000,0.04\n"


def figures(control: Control, first: date, last: date) -> dict[str, Any]:
    """Every answer of Cost that speaks of those days."""
    span = f"first={first}&last={last}"
    paths = [f"/api/cost/book?{span}&lines=true&by={by}" for by in (*DIMENSIONS, *OF_CALLS, "tag")]
    paths += [f"/api/cost/{name}?{span}" for name in ("people", "features", "sources", "outcomes", "own", "tickets")]
    months = sorted({(last + timedelta(days=1 - back)).strftime("%Y-%m") for back in range(1, DAYS)})
    paths += [f"/api/cost/statements?month={month}" for month in months]
    paths += ["/api/cost/runway", "/api/cost/days?days=90", "/api/cost?days=90", f"/api/cost/focus.csv?{span}"]
    found = {path: control.ask("GET", path) for path in paths}
    asked = {"/api/cost/forecast": {"days": 7}, "/api/cost/what-if": {"changes": ["users=2"], "first": str(first)}}
    found |= {path: control.ask("POST", path, body) for path, body in asked.items()}
    assert {answer.status for answer in found.values()} == {200}, [p for p, a in found.items() if a.status != 200]
    return {path: answer.body for path, answer in found.items()}


def test_nothing_that_finance_asks_changes_with_retention(database: Database, tmp_path: Path) -> None:
    now = today().date()
    first, last = now - timedelta(days=DAYS), now - timedelta(days=1)
    with run_control(database, tmp_path) as control:
        (control.workspace / "costs.yaml").write_text(costs())
        company = control.workspace / "acme.yaml"
        company.write_text(company.read_text().replace("[local]\n", "[local]\nworkflow: asking\n"))
        assert control.ask("POST", "/api/apply", {"files": control.files()}).status in (200, 201)
        fill(database.dsn)
        before = figures(control, first, last)
        call = control.ask("GET", "/api/calls").body["calls"][0]["id"]
        with connect(database.urls["owner"], autocommit=True) as conn, conn.cursor(row_factory=tuple_row) as cursor:
            days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
            sums = "SELECT {} AS day, workload, count(*), sum(cost_usd) FROM {} GROUP BY 1, 2 ORDER BY 1, 2"
            day_of = "(at AT TIME ZONE 'UTC')::date"
            facts = [cursor.execute(sums.format(day_of, table).encode()).fetchall() for table in ("call", "attempt")]
            for day in days:
                with conn.transaction():
                    archive.archive_day(conn, str(tmp_path / "facts"), day)
            row = cursor.execute("SELECT count(*) FROM call").fetchone()
            assert row == (0,)
            noted = [(each["day"], each["url"]) for each in archive_store.list_parts(conn)]
        after = figures(control, first, last)
        assert {path for path in before if before[path] != after[path]} == set()
        kept = [archive.query_facts(noted, sums.format("day", table))[1] for table in ("calls", "attempts")]
        assert kept == facts
        book = after[f"/api/cost/book?first={first}&last={last}&lines=true&by=basis"]["lines"]
        measured = sum((Decimal(line["cost_usd"]) for line in book if not line["allocation"]), Decimal(0))
        looked_up = sum((Decimal(line["cost_usd"]) for line in book if line["term"] == "cache_lookup"), Decimal(0))
        assert measured - looked_up == sum(cost for *_, cost in kept[1]) > 0
        span = {"first": str(first), "last": str(last)}
        longer = control.ask("POST", "/api/cost/what-if", {"changes": ["context=2"], **span}).body
        assert longer["notes"] == [
            f"calls of {first} to {last} are archived, and nobody looked at whether they would fit"
        ]
        refused = control.ask("POST", "/api/cost/reconcile", BILL.format(last).encode())
        assert (refused.status, refused.code) == (400, "bill_archived")
        for told in ("", str(now)):
            refused = control.ask("POST", "/api/cost/reconcile", f"call id,date,cost\n{call},{told},0.02\n".encode())
            assert (refused.status, refused.code) == (400, "bill_archived"), "whatever day a bill tells, or none"
