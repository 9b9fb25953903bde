"""How long budgets of keys last: told as of every other, under the key's name, and cheaply where there are many."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.integration.nursery import run_command
from tests.integration.test_api_control import Control, run_control
from tests.integration.test_cost_book import command
from tests.integration.this_day import today

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import daily_attribution_store
from groundplan.testing.database import Database

DAYS = 3
MANY = 3000


def year() -> str:
    """Of a budget of this year its period."""
    return today().strftime("%Y")


def create_key(control: Control, **terms: Any) -> tuple[str, str]:
    """A key: its id and how it is named."""
    key = control.ask("POST", "/api/keys", {"workload": "assistant", **terms}).body
    shown = next(each for each in control.ask("GET", "/api/keys").body["keys"] if each["id"] == key["id"])
    return key["id"], f"key {shown['prefix']}..."


def called(key: str | None, back: int, cost: str) -> Any:
    """One call of a key so many days ago."""
    return (
        new_id(), today() - timedelta(days=back) + timedelta(minutes=1), "assistant", None,
        None if key is None else UUID(key), "care", "chat", "ok", 200, None, "acme/model", "local", "here",
        Decimal(cost), Decimal(cost), 100, 2000, "none", 1, new_id(), False, 12.5, 3.5, {}, 0, 0,
    )  # fmt: skip


def granted(conn: Any, budget: str, limit: str, spent: str) -> None:
    conn.execute(
        "INSERT INTO budget_period (budget, period, limit_usd, granted_usd) VALUES (%s, %s, %s, 0)"
        " ON CONFLICT (budget, period) DO UPDATE SET limit_usd = EXCLUDED.limit_usd",
        (budget, year(), Decimal(limit)),
    )
    conn.execute("INSERT INTO charge_delta VALUES (%s, %s, %s)", (budget, year(), Decimal(spent)))


def test_a_budget_that_is_declared_for_a_rotated_key_is_of_all_of_its_line(database: Database) -> None:
    first, second, third = (new_id() for _ in range(3))
    with connect(database.dsn, autocommit=True) as conn:
        for key, family in ((first, None), (second, first), (third, first)):
            conn.execute(
                "INSERT INTO api_key (id, hash, prefix, workload, created_by, family)"
                " VALUES (%s, %s, 'gp_', 'w', 't', %s)",
                (key, key.bytes, family),
            )
        rows = [called(str(key), 1, "10") for key in (first, second, third)]
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
        for key in (first, second, third):
            (costs,) = daily_attribution_store.key_costs(conn, [str(key)], today() - timedelta(days=9)).values()
            assert sum(costs.values()) == 30


def test_a_key_whose_budget_has_no_room_for_a_call_is_made_and_told_of(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control:
        wanted = {"workload": "assistant", "budget": "0.001 USD/month"}
        small = control.ask("POST", "/api/keys", wanted)
        assert small.status == 201 and small.body["key"]
        (warning,) = small.body["warnings"]
        assert warning["code"] == "too_small" and "limits.max_output" in warning["hint"]
        assert warning["message"].startswith(
            "the budget of the key ($0.00100/month) has no room for a call of assistant"
        )
        for fits in ({}, {"budget": "20 USD/month"}):
            assert control.ask("POST", "/api/keys", {"workload": "assistant", **fits}).body["warnings"] == []
        bounds = ("--budget", "0.001 USD/month", "--home", str(control.home.root))
        environment = {**os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{control.port}"}
        told = run_command(("keys", "create", "--workload", "assistant", *bounds), environment, 120).stdout
        assert "Keep it now" in told and f"\n! {warning['message']} [too_small]\n    {warning['hint']}" in told
        again = control.ask("POST", f"/api/keys/{small.body['id']}/rotate", {})
        assert again.status == 201 and again.body["warnings"] == [warning]
        told = run_command(("keys", "rotate", again.body["id"], *bounds[2:]), environment, 120).stdout
        assert "Keep it now" in told and f"\n! {warning['message']} [too_small]\n    {warning['hint']}" in told


def test_budgets_of_keys_end_on_a_day_under_their_names(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path, module="groundplan.console.app") as control:
        tight, name = create_key(control, budget="65 USD/year")
        loose, other = create_key(control, budget="100000 USD/year")
        gone, _ = create_key(control, budget="1 USD/year")
        declared, third = create_key(control)
        assert control.ask("DELETE", f"/api/keys/{gone}").status == 200
        more = f"\n---\nkind: budget\nname: partner\ncovers: key/{declared}\nlimit: 50 USD/year\n"
        text = control.files()["acme.yaml"].rstrip() + more
        assert control.ask("POST", "/api/apply", {"files": {"acme.yaml": text}}).status == 200
        rotated = control.ask("POST", f"/api/keys/{tight}/rotate", {"overlap": "24h"}).body["id"]
        with connect(database.dsn, autocommit=True) as conn:
            rows = [called(key, back, "10") for key in (tight, loose, gone, declared) for back in range(1, DAYS)]
            rows += [called(each, DAYS, "10") for each in (rotated, loose, gone, declared)]
            ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
            for budget, limit in ((tight, "65"), (loose, "100000"), (gone, "1")):
                granted(conn, f"key/{budget}", limit, "30")
            granted(conn, "partner", "50", "30")
        found = control.ask("GET", "/api/cost/runway").body
        told = {row["title"]: row for row in found["budgets"] if row["covers"].startswith("key/")}
        assert set(told) == {name, other, f"partner of {third}"} and found["more"] == 0
        assert {row["history_days"] for row in told.values()} == {DAYS}, "what a rotated key cost is of its budget"
        assert told[other]["ends"] is None and told[name]["budget"] == f"key/{tight}"
        if (today() + timedelta(days=8)).year == today().year:  # of 10 a day 35 and 20 are left
            assert told[name]["ends"] == (today() + timedelta(days=3)).date().isoformat()
            assert told[f"partner of {third}"]["ends"] <= told[name]["ends"]
            assert Decimal(told[name]["expected_usd"]) > 65
        assert all(row["covers"] != f"key/{gone}" for row in found["budgets"]), "a revoked key spends nothing more"
        mine = control.ask("GET", "/api/cost/runway?workload=assistant").body["budgets"]
        assert {row["title"] for row in mine} >= set(told)
        nobody = control.ask("GET", "/api/cost/runway?workload=nobody")
        assert (nobody.status, nobody.code) == (404, "workload_unknown"), "one without budgets has an empty list"
        with connect(database.dsn, autocommit=True) as conn:
            rows = [called(loose, back, "10") for back in range(DAYS + 1, 30)]
            ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
            refused = f'{{"refusal": "the budget key/{loose} (65 USD) has no room for this call"}}'
            conn.execute("UPDATE call SET detail = detail || %s::jsonb WHERE id = %s", (refused, rows[0][0]))
            conn.execute("INSERT INTO charge VALUES (%s, 0, %s, %s, 1)", (rows[0][0], f"key/{loose}", year()))
        ahead = command(control, "forecast")
        assert name in {row["title"] for row in ahead["budgets"]} and ahead["more_budgets"] == 0
        shown = control.ask("GET", f"/api/calls/{rows[0][0]}").body
        assert [(each["budget"], each["title"]) for each in shown["charges"]] == [(f"key/{loose}", other)]
        assert shown["refusal"] == f"the budget {other} (65 USD) has no room for this call"
        receipt = str(control.ask("GET", f"/calls/{rows[0][0]}", **control.follow_link()).body)
        assert other in receipt and f"key/{loose}" not in receipt
        page = str(control.ask("GET", "/cost/ahead", **control.follow_link()).body)
        assert name in page and f"key/{tight}" not in page


def test_of_thousands_of_keys_those_that_are_nearest_are_told(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control:
        first, _ = create_key(control, budget="65 USD/year")
        with connect(database.dsn, autocommit=True) as conn:
            conn.execute(
                """INSERT INTO api_key (id, hash, prefix, workload, created_by, budget_usd, budget_period)
                   SELECT gen_random_uuid(), sha256(n::text::bytea), 'gp_' || n, 'assistant', 'test', 50 + n, 'year'
                   FROM generate_series(1, %s) n""",
                (MANY,),
            )
            conn.execute(
                """INSERT INTO key_day SELECT d, 'assistant', id, 1, 1 FROM api_key,
                     generate_series(%s::timestamptz, %s::timestamptz, '1 day') d""",
                (today() - timedelta(days=60), today() - timedelta(days=1)),
            )
            conn.execute(
                """INSERT INTO budget_period (budget, period, limit_usd, granted_usd)
                   SELECT 'key/' || id, %s, budget_usd, 0 FROM api_key WHERE budget_usd IS NOT NULL""",
                (year(),),
            )
            conn.execute("INSERT INTO charge_delta SELECT budget, period, 40 FROM budget_period WHERE budget ~ '^key/'")
            conn.execute("ANALYZE")
        taken = []
        for _ in range(3):
            began = time.monotonic()
            found = control.ask("GET", "/api/cost/runway").body
            taken.append(time.monotonic() - began)
        keys = [row for row in found["budgets"] if row["covers"].startswith("key/")]
        assert found["more"] == MANY + 1 - len(keys) and len(keys) == 20
        limits = [Decimal(row["limit_usd"]) for row in keys]
        assert limits == sorted(limits) and limits[0] == 51, "the nearest first"
        assert min(taken) < 2, taken
        assert first not in {row["budget"].partition("/")[2] for row in keys[:10]}
