"""The book of costs through the control API: exact sums by everything, statements and FOCUS that agree, forecasts."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from calendar import monthrange
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pdfplumber
import pytest
from tests.integration.nursery import run_command
from tests.integration.test_api_control import Control, run_control
from tests.integration.this_day import DailyValue, daily_value, today

from groundplan.api.cost.book import DIMENSIONS
from groundplan.api.cost.forecasts import RowsByCover, nearest_to_limit
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Cluster

ALLOCATIONS = """\
---
kind: allocation
name: platform
term: platform
cost: 31 USD/month
by: equal
source: contract 12
---
kind: allocation
name: rack
term: capacity
cost: 3.10 USD/day
covers: deployment/local
capacity: 10M/day
source: invoice 7
---
kind: allocation
name: desk-before
term: support
rate: 2 USD
per: 1000 calls
until: {before}
basis: estimated
source: contract 3
---
kind: allocation
name: desk-since
term: support
rate: 4 USD
per: 1000 calls
from: {since}
basis: estimated
source: contract 4
---
kind: allocation
name: people
term: review
rate: 30 USD
per: review hour
source: HR 2026
---
kind: workflow
name: asking
outcome: a question is answered
baseline: {{minutes_per_case: 3}}
---
kind: budget
name: all-month
covers: company
limit: 0.05 USD/month
"""
DAYS = 60
COST = Decimal("0.020000000001")
OF_CALLS = ("feature", "prompt", "source", "person")


def newest_month() -> str:
    """Of the newest calls: on the first of a month there are none of that month."""
    return (today() - timedelta(days=1)).strftime("%Y-%m")


@pytest.fixture(scope="module")
def controls(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DailyValue[Control]]:
    @contextmanager
    def made() -> Iterator[Control]:
        with postgres_cluster.database() as database:
            folder = tmp_path_factory.mktemp("costs")
            with run_control(database, folder) as found:
                (found.workspace / "costs.yaml").write_text(costs())
                company = found.workspace / "acme.yaml"
                company.write_text(company.read_text().replace("[local]\n", "[local]\nworkflow: asking\n"))
                assert found.ask("POST", "/api/apply", {"files": found.files()}).status in (200, 201)
                fill(database.dsn)
                yield found

    with daily_value(made) as found:
        yield found


@pytest.fixture
def control(controls: DailyValue[Control]) -> Control:
    return controls.get()


def costs() -> str:
    """What the workspace declares beside calls. For ten days support has cost twice as much."""
    changed = today() - timedelta(days=10)
    before = changed - timedelta(days=1)
    return ALLOCATIONS.removeprefix("---\n").format(before=before.date(), since=changed.date())


JUDGED = Decimal("0.003000000001")
"""What the judge of a guardrail cost, once, on a working day three weeks ago."""
TAGGED, TAGGED_BACK = new_id(), 5
"""The key of the calls of one day, which has tags."""
LOOKED_UP_US = 3_600_000_000
"""An hour of look-ups by meaning, at the 0.05 USD that an hour of the processor costs unless said."""


def fill(dsn: str, newest: int = 1) -> None:
    """Two calls a day of two months, one on a weekend, and one outcome; with `newest` 0 one at the begin of today, too:
    so a month has one on its first day."""
    with connect(dsn, autocommit=True) as conn:
        calls: list[Any] = []
        attempts: list[Any] = []
        for back in range(newest, DAYS):
            at = today() - timedelta(days=back) + timedelta(hours=9 if back else 0)
            key = TAGGED if back == TAGGED_BACK else None
            for _ in range(2 if back and at.weekday() < 5 else 1):
                id = new_id()
                calls.append(
                    (id, at, "assistant", None, key, "care", "chat", "ok", 200, None, "acme/model", "local", "here",
                     COST, COST, 100, 2000, "none", 1, new_id(), False, 12.5, 3.5, {"sources": [["d1", "a", 1, 2]]},
                     0, 0)
                )  # fmt: skip
                parts = {"input": [100, 1], "output": [2000, 20_000_000_000]}
                attempts.append(
                    (id, 0, at, "local", "here", "acme/model", "settled", "ok", 200, COST, COST, {"input": 100}, False,
                     [], 1.0, new_id(), 0.0, None, None, "assistant", 1, False, parts, "", "")
                )  # fmt: skip
        judged = next(day for back in range(20, 27) if (day := today() - timedelta(days=back)).weekday() < 5)
        at = judged + timedelta(hours=9)
        calls.append(
            (new_id(), at, "assistant", None, None, "care", "chat", "ok", 200, None, "acme/model", "local", "here",
             JUDGED, JUDGED, 100, 2000, "none", 1, new_id(), False, 2.5, 1.5,
             {"of": str(calls[0][0]), "purpose": "guardrail"}, 0, 0)
        )  # fmt: skip
        attempts.append(
            (calls[-1][0], 0, at, "local", "here", "acme/model", "settled", "ok", 200, JUDGED, JUDGED, {"input": 100},
             False, [], 1.0, new_id(), 0.0, None, None, "assistant", 1, False,
             {"input": [100, 3_000_000_001], "output": [2000, 0]}, "guardrail", "batch long")
        )  # fmt: skip
        conn.execute(
            "INSERT INTO api_key (id, hash, prefix, workload, tags, created_by) "
            "VALUES (%s, %s, 'gp_abc', 'assistant', '{web,batch}', 'test')",
            (TAGGED, bytes(32)),
        )
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, attempts)
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, calls)
        conn.execute(
            "INSERT INTO semantic_day (day, workload, looked, spent_us) VALUES (%s, 'assistant', 9, %s)",
            (at.date(), LOOKED_UP_US),
        )
        month = today().strftime("%Y-%m")
        year = today().strftime("%Y")  # of when it was one of a year
        for budget, period, limit in (
            ("assistant", month, 100), ("all-month", month, Decimal("0.05")), ("assistant", year, 7)
        ):  # fmt: skip
            conn.execute(
                """INSERT INTO budget_period (budget, period, limit_usd, granted_usd) VALUES (%s, %s, %s, 0)
                   ON CONFLICT (budget, period) DO UPDATE SET limit_usd = EXCLUDED.limit_usd""",
                (budget, period, limit),
            )
        conn.execute(
            "INSERT INTO outcome (id, call_id, accepted, value_usd, by) VALUES (%s, %s, true, 2, 'test')",
            (new_id(), calls[0][0]),
        )


def pdf_text(data: bytes) -> str:
    with pdfplumber.open(io.BytesIO(data)) as document:
        return "\n".join(page.extract_text() for page in document.pages)


def ask(control: Control, path: str) -> Any:
    answer = control.ask("GET", path)
    assert answer.status == 200, answer.body
    return answer.body


def span() -> str:
    return f"first={(today() - timedelta(days=30)).date()}&last={(today() - timedelta(days=1)).date()}"


def test_two_halves_of_a_time_are_the_whole_of_it(control: Control) -> None:
    first, last = (today() - timedelta(days=30)).date(), (today() - timedelta(days=1)).date()
    middle = first + timedelta(days=12)
    spans = [(first, last), (first, middle), (middle + timedelta(days=1), last)]
    for by in ("workload", "team", "term", "provider"):
        whole, one, two = (
            {
                row["key"]: Decimal(row["cost_usd"])
                for row in ask(control, f"/api/cost/book?by={by}&first={since}&last={until}")["sums"]
            }
            for since, until in spans
        )
        assert whole == {key: one.get(key, Decimal(0)) + two.get(key, Decimal(0)) for key in {*one, *two}}


def total(rows: list[dict[str, str]]) -> Decimal:
    return sum((Decimal(row["cost_usd"]) for row in rows), Decimal(0))


def test_every_way_to_sum_the_book_is_the_same_sum(control: Control) -> None:
    whole = Decimal(ask(control, f"/api/cost/book?{span()}")["total_usd"])
    for by in (*DIMENSIONS, *OF_CALLS, "tag"):
        assert total(ask(control, f"/api/cost/book?{span()}&by={by}")["sums"]) == whole
    found = ask(control, f"/api/cost/book?{span()}&lines=true")
    assert total(found["lines"]) == whole
    dearest = ask(control, f"/api/cost/book?{span()}&lines=true&limit=1")
    assert found["more_lines"] == 0 and dearest["more_lines"] == len(found["lines"]) - 1
    assert Decimal(dearest["lines"][0]["cost_usd"]) == max(Decimal(line["cost_usd"]) for line in found["lines"])
    terms = {row["key"]: row for row in found["sums"]}
    assert set(terms) == {"input", "output", "platform", "capacity", "idle", "guardrail", "cache_lookup", "support"}
    assert Decimal(terms["idle"]["cost_usd"]) > Decimal(terms["capacity"]["cost_usd"]) > 0
    assert total([terms["capacity"], terms["idle"]]) == Decimal("93.00")
    assert all(line["rule"] and line["source"] for line in found["lines"])
    assert found["blueprints"] == [1, 2] and {tuple(line["blueprints"]) for line in found["lines"]} == {(1,), (2,)}
    assert {line["allocation"] for line in found["lines"]} == {"", "platform", "rack", "desk-before", "desk-since"}
    providers = {row["key"] for row in ask(control, f"/api/cost/book?{span()}&by=provider")["sums"]}
    assert providers == {"acme", "own"}


def test_what_the_gateway_asked_and_looked_up_is_a_term_of_its_own_counted_once(control: Control) -> None:
    found = ask(control, f"/api/cost/book?{span()}&lines=true")
    (judged,) = [line for line in found["lines"] if line["term"] == "guardrail"]
    assert (Decimal(judged["cost_usd"]), judged["basis"], judged["deployment"]) == (JUDGED, "measured", "local")
    assert judged["tier"] == "batch long" and judged["rule"] == "input x price of local (batch long)"
    tiers = {row["key"]: Decimal(row["cost_usd"]) for row in ask(control, f"/api/cost/book?{span()}&by=tier")["sums"]}
    assert set(tiers) == {"", "batch long"} and tiers["batch long"] == JUDGED
    (looked,) = [line for line in found["lines"] if line["term"] == "cache_lookup"]
    assert (Decimal(looked["cost_usd"]), looked["basis"]) == (Decimal("0.05"), "estimated")
    assert "3600 s of look-ups" in looked["rule"] and "allocation platform" in looked["rule"]
    days = [today().date() - timedelta(days=back) for back in range(1, 31)]
    platform = sum((Decimal(31) / monthrange(day.year, day.month)[1] for day in days), Decimal(0))
    mine = [line for line in found["lines"] if "allocation platform" in line["rule"]]
    assert total(mine) == pytest.approx(platform, abs=Decimal("1e-9"))


def test_a_rate_that_changed_is_paid_for_the_days_on_which_it_held(control: Control) -> None:
    found = ask(control, f"/api/cost/book?{span()}&lines=true")["lines"]
    paid = {
        line["rule"].partition("(allocation ")[2][:-1]: Decimal(line["cost_usd"])
        for line in found
        if line["term"] == "support"
    }
    calls = [2 if (today() - timedelta(days=back)).weekday() < 5 else 1 for back in range(1, 31)]
    since, before = sum(calls[:10]), sum(calls[10:]) + 1  # one of them is the judge's
    assert paid == {"desk-since": Decimal(since) * 4 / 1000, "desk-before": Decimal(before) * 2 / 1000}


def test_what_is_allocated_is_told_by_site(control: Control) -> None:
    sites = {row["key"]: row["basis"] for row in ask(control, f"/api/cost/book?{span()}&by=site")["sums"]}
    whole = ask(control, f"/api/cost/book?{span()}")["basis"]
    elsewhere = {name: each for name, each in sites.items() if name != "here"}
    assert sites["here"]["measured"] == whole["measured"] and sites["here"]["estimated"] == whole["estimated"]
    assert all("measured" not in each for each in elsewhere.values())
    # what no workload carries stands at the site of its deployment, or at none
    assert Decimal(sites["here"]["allocated"]) >= Decimal(93)


def test_a_receipt_lists_what_was_asked_for_its_call(control: Control) -> None:
    calls = ask(control, "/api/calls?workload=assistant")["calls"]
    key = next(each["key_id"] for each in calls if each["key_id"])
    assert {each["key_id"] for each in ask(control, f"/api/calls?key={key}")["calls"]} == {key}
    assert ask(control, f"/api/calls?key={calls[0]['id']}")["calls"] == []
    judge = next(each["id"] for each in calls if Decimal(each["cost_usd"]) == JUDGED)
    own = ask(control, f"/api/calls/{judge}")
    found = ask(control, f"/api/calls/{own['of']}")
    (made,) = found["made_for_it"]
    assert (made["call"], made["purpose"], Decimal(made["cost_usd"])) == (judge, "guardrail", JUDGED)
    assert Decimal(found["together_usd"]) == COST + JUDGED
    assert own["made_for_it"] == [] and own["together_usd"] == own["cost_usd"]
    beside = found["allocated"]
    assert beside["known"] and {term["term"] for term in beside["terms"]} >= {"platform", "capacity"}
    assert Decimal(beside["cost_usd"]) == total(beside["terms"]) > 0
    assert found["chosen"][0].startswith("It is placed at local: "), "where nothing routes the placement chose"
    why = ask(control, f"/api/why/{own['of']}")
    assert why["facts"]["allocated"] == beside and why["facts"]["attempts"] == found["attempts"]
    carried = f"Its share of the costs allocated on {beside['day']} is {beside['cost_usd']} USD."
    assert {carried, found["chosen"][0]} <= set(why["because"])


def test_the_book_by_what_only_calls_know_is_what_they_say(control: Control) -> None:
    found = {by: ask(control, f"/api/cost/book?{span()}&by={by}")["sums"] for by in OF_CALLS}
    measured = {by: {row["key"]: row["basis"].get("measured") for row in rows} for by, rows in found.items()}
    whole = ask(control, f"/api/cost/book?{span()}")["basis"]["measured"]
    assert all(whole in each.values() for each in measured.values())
    features = ask(control, f"/api/cost/features?{span()}")["features"]
    assert Decimal(measured["feature"][features[0]["feature"]] or 0) == Decimal(features[0]["cost_usd"])
    mine = ask(control, f"/api/cost/book?{span()}&by=feature&workload=assistant")
    assert total(mine["sums"]) == Decimal(mine["total_usd"]) > Decimal(whole)


def test_the_book_by_the_tags_of_keys(control: Control) -> None:
    sums = {row["key"]: row for row in ask(control, f"/api/cost/book?{span()}&by=tag")["sums"]}
    assert set(sums) == {"", "batch, web"}
    day = today() - timedelta(days=TAGGED_BACK)
    calls = 2 if day.weekday() < 5 else 1
    only = f"first={day.date()}&last={day.date()}&by=tag"
    (row,) = (row for row in ask(control, f"/api/cost/book?{only}")["sums"] if "measured" in row["basis"])
    assert (row["key"], Decimal(row["basis"]["measured"])) == ("batch, web", COST * calls)
    assert 0 < Decimal(sums["batch, web"]["cost_usd"]) < Decimal(sums[""]["cost_usd"])


def test_what_was_measured_is_what_the_ledger_has(control: Control) -> None:
    found = ask(control, f"/api/cost/book?{span()}")
    measured = Decimal(found["basis"]["measured"])
    assert measured == total(ask(control, f"/api/cost/sources?{span()}")["sources"])
    assert measured == total(ask(control, f"/api/cost/people?{span()}")["people"])
    assert measured == total(ask(control, f"/api/cost/features?{span()}")["features"])


def test_statement_focus_and_book_agree(control: Control) -> None:
    text = control.ask("GET", f"/api/cost/focus.csv?{span()}").body.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    whole = Decimal(ask(control, f"/api/cost/book?{span()}")["total_usd"])
    assert sum(Decimal(row["BilledCost"]) for row in rows) == whole
    month = (today().replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
    statements = ask(control, f"/api/cost/statements?month={month}&charge=true")["statements"]
    last = today().replace(day=1) - timedelta(days=1)
    book = ask(control, f"/api/cost/book?first={last.replace(day=1).date()}&last={last.date()}")
    assert sum(Decimal(each["total_usd"]) for each in statements) == Decimal(book["total_usd"])
    assert all(each["over"] for each in statements)
    now = ask(control, f"/api/cost/statements?month={today():%Y-%m}")["statements"]
    assert now and not any(each["over"] for each in now), "this month grows until its end"
    mine = control.ask("GET", f"/api/cost/statements.csv?team=care&month={month}").body.decode()
    taken = control.ask("GET", "/api/audit?action=export.").body["entries"][0]
    assert (taken["action"], taken["detail"]["team"]) == ("export.cost", "care")
    care = next(each for each in statements if each["team"] == "care")
    assert list(csv.DictReader(io.StringIO(mine)))[-1]["cost_usd"] == care["total_usd"]
    data = control.ask("GET", f"/api/cost/statements.pdf?team=care&month={month}&charge=true").body
    text = pdf_text(data)
    assert text.count(care["total_usd"]) >= 3 and "Chargeback: care" in text
    assert all(row["cost_usd"] in text for row in [*care["lines"], *care["by_term"], *care["by_workload"]])


def test_an_accepted_outcome_has_its_cost(control: Control) -> None:
    row = ask(control, f"/api/cost/outcomes?{span()}")["outcomes"][0]
    assert (row["workload"], row["reported"], row["accepted"]) == ("assistant", 1, 1)
    days = [today() - timedelta(days=back) for back in range(1, 31)]
    assert row["calls"] == sum(2 if day.weekday() < 5 else 1 for day in days), "its guardrail's judge is no caller"
    assert Decimal(row["cost_per_accepted_usd"]) == Decimal(row["cost_usd"]) > 0
    assert row["returned"] == pytest.approx(2 / float(row["cost_usd"]))
    assert row["baseline_usd"] == "1.500000000000" and row["baseline_basis"] == "estimated"
    assert row["baseline_rule"] == "3 declared minutes of a case x $30.00 an hour (workflow asking)"


def test_levers_are_ranked_with_what_the_book_says_stands_idle(control: Control) -> None:
    found = ask(control, "/api/opportunities?days=30")["opportunities"]
    assert [float(row["saves_usd"]) for row in found] == sorted((float(r["saves_usd"]) for r in found), reverse=True)
    idle = next(row for row in found if row["lever"] == "idle capacity")
    assert float(idle["saves_usd"]) == pytest.approx(93, rel=0.05) and idle["workload"] == ""
    assert ask(control, "/api/opportunities?days=30&workload=assistant")["opportunities"] == [
        row for row in found if row["workload"] == "assistant"
    ]


def test_own_hardware_is_told_at_its_measured_use(control: Control) -> None:
    (row,) = ask(control, f"/api/cost/own?{span()}")["own"]
    calls = Decimal(ask(control, f"/api/cost/features?{span()}")["features"][0]["calls"])
    assert (row["deployment"], Decimal(row["cost_usd"])) == ("local", Decimal(93))
    assert row["used"] == pytest.approx(float(calls * 2100 / 300_000_000), abs=1e-6)
    assert row["other"] is None and row["needed"] is None and "nothing else" in row["told"]
    assert command(control, "own")["own"][0]["deployment"] == "local"
    ahead, now = ask(control, "/api/placement/ahead"), datetime.now(UTC).date()  # midnight may pass meanwhile
    days = f"first={now - timedelta(days=30)}&last={now - timedelta(days=1)}"
    (row,) = ask(control, f"/api/cost/own?{days}")["own"]
    assert ahead["own"][0]["used"] == row["used"] and ahead["words"][-1] == f"local: {row['told']}"


def test_a_team_s_runway_is_that_of_its_calls() -> None:
    rows = [
        {"day": today().date() - timedelta(days=n % 3), "workload": f"w{n % 2}", "team": team, "cost_usd": Decimal(n)}
        for n, team in enumerate(["care", "sales", "care", ""])
    ]
    days = RowsByCover(rows)
    assert [days.cost(covers) // PICO for covers in ("company", "team/care", "team/nobody", "workload/w1")] == [
        6, 2, 0, 4,
    ]  # fmt: skip


def test_of_many_budgets_those_that_are_nearest_to_their_limits_are_forecast() -> None:
    rows = [
        {"day": today().date() - timedelta(days=1), "workload": name, "team": "", "cost_usd": Decimal(usd)}
        for name, usd in (("a", 1), ("b", 9), ("c", 2))
    ]
    month = f"{today():%Y-%m}"
    charged = [
        ({"period": month, "limit_usd": "100", "spent_usd": spent}, f"workload/{name}")
        for name, spent in (("a", "99"), ("b", "10"), ("c", "3"))
    ]
    days = RowsByCover(rows)
    assert [covers for _, covers in nearest_to_limit(charged, days, today(), 3)] == [
        "workload/a",
        "workload/b",
        "workload/c",
    ]
    assert [covers for _, covers in nearest_to_limit(charged, days, today(), 2)] == ["workload/a", "workload/b"]


def test_what_is_ahead(control: Control) -> None:
    made = control.ask("POST", "/api/cost/forecast", {"what": "calls", "days": 14})
    assert made.status == 200, made.body
    weekend = [row["middle"] for row in made.body["days"] if datetime.fromisoformat(row["day"]).weekday() >= 5]
    assert all(value == pytest.approx(1, abs=0.3) for value in weekend)
    runways = {row["budget"]: row for row in ask(control, "/api/cost/runway")["budgets"]}
    assert set(runways) == {"assistant", "all-month"}
    assert {row["period"] for row in runways.values()} == {today().strftime("%Y-%m")}
    assert runways["assistant"]["ends"] is None and runways["assistant"]["days"] is None
    expected = {name: Decimal(row["expected_usd"]) for name, row in runways.items()}
    assert expected["all-month"] == expected["assistant"] > 0
    ends = runways["all-month"]["ends"]
    if expected["all-month"] > Decimal("0.05"):
        assert today().date() <= datetime.fromisoformat(ends).date() <= today().date() + timedelta(days=6)
    assert control.ask("GET", "/api/cost/runway?workload=nobody").code == "workload_unknown"
    asked = {"changes": ["users=10", "price=-50%"], "first": str((today() - timedelta(days=30)).date())}
    told = control.ask("POST", "/api/cost/what-if", asked).body
    assert Decimal(told["after_usd"]) == pytest.approx(5 * Decimal(told["before_usd"]), rel=Decimal("1e-9"))
    other = control.ask("POST", "/api/cost/what-if", {**asked, "model": "openai/gpt-4.1-mini"})
    assert other.status == 200 and "another model" in str(other.body["steps"])
    assert other.body["price_source"].startswith("genai-prices")
    same = control.ask("POST", "/api/cost/what-if", {**asked, "model": "acme/model"}).body
    by_name = control.ask("POST", "/api/cost/what-if", {**asked, "model": "local"}).body
    assert same == by_name and same["price_source"].startswith("declared")
    tokens = sum(row["quantity"] for row in _output_of_callers(control))
    declared = tokens * Decimal(10) / 10**6 + JUDGED
    assert Decimal(same["after_usd"]) == 5 * declared, "at what is declared for it, and the judge as it was"


def _output_of_callers(control: Control) -> list[Any]:
    lines = ask(control, f"/api/cost/book?first={(today() - timedelta(days=30)).date()}&lines=true")["lines"]
    return [line for line in lines if line["term"] == "output"]


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/api/cost/book?first=2026-02-01&last=2026-01-01", None, "days_invalid"),
        ("GET", "/api/cost/book?by=mood", None, "dimension_unknown"),
        ("GET", "/api/cost/book?last=9999-12-31", None, "days_invalid"),
        ("GET", "/api/cost/sources?last=0001-01-01", None, "days_invalid"),
        ("GET", "/api/cost/statements?month=9999-12", None, "days_invalid"),
        ("POST", "/api/cost/what-if", {"changes": ["users=nan"]}, "scenario_invalid"),
        ("GET", "/api/cost/statements?month=2026-13", None, "request_invalid"),
        ("GET", "/api/cost/statements.pdf?team=nobody", None, "statement_unknown"),
        ("GET", "/api/cost/statements.csv?team=nobody", None, "statement_unknown"),
        ("POST", "/api/cost/what-if", {"changes": ["users=many"]}, "scenario_invalid"),
        ("POST", "/api/cost/what-if", {"model": "acme/unheard-of"}, "price_missing"),
        ("POST", "/api/cost/what-if", {"changes": ["users=2"], "workload": "asistant"}, "workload_unknown"),
        ("POST", "/api/cost/what-if", {"changes": ["users=2"], "workload": ""}, "workload_unknown"),
        ("POST", "/api/cost/what-if", {"changes": ["users=1_0"]}, "scenario_invalid"),
        ("POST", "/api/cost/what-if", {"changes": ["users=\u0662"]}, "scenario_invalid"),
        ("GET", "/api/cost/book?workload=asistant", None, "workload_unknown"),
        ("GET", "/api/opportunities?workload=asistant", None, "workload_unknown"),
        ("POST", "/api/cost/forecast", {"what": "luck"}, "forecast_unknown"),
        ("POST", "/api/cost/forecast", {"countries": ["XX"]}, "country_unknown"),
        ("POST", "/api/cost/forecast", {"countries": ["PUBLIC"]}, "country_unknown"),
        ("POST", "/api/cost/forecast", {"countries": [""]}, "country_unknown"),
        ("POST", "/api/cost/forecast", {"growth": "adoption"}, "adoption_unknown"),
        ("POST", "/api/cost/forecast", {"workload": "nobody"}, "workload_unknown"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_what_to_do(
    control: Control, method: str, path: str, body: Any, code: str
) -> None:
    answer = control.ask(method, path, body)
    assert answer.status in (400, 404, 422), answer.body
    assert answer.code == code and answer.body["error"]["hint"]


def test_an_export_that_is_refused_has_not_left(control: Control) -> None:
    left = ask(control, "/api/audit?action=export.")["entries"]
    assert control.ask("GET", "/api/cost/focus.csv?first=2026-02-01&last=2026-01-01").code == "days_invalid"
    assert ask(control, "/api/audit?action=export.")["entries"] == left


def command(control: Control, *arguments: str) -> Any:
    return json.loads(words(control, *arguments, "--json"))


def words(control: Control, *arguments: str) -> str:
    environment = {**os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{control.port}"}
    done = run_command(["cost", *arguments, "--home", str(control.home.root)], environment, timeout=60)
    assert done.stdout.strip(), done.stderr
    return done.stdout


def test_the_commands_say_the_same(control: Control, tmp_path: Path) -> None:
    days = [text.partition("=")[2] for text in span().split("&")]
    between = ("--from", days[0], "--to", days[1])
    whole = ask(control, f"/api/cost/book?{span()}")["total_usd"]
    told = command(control, "book", "--by", "team", *between)
    assert told["total_usd"] == whole and total(told["lines"]) == Decimal(whole)
    text = words(control, "book", *between)
    assert "input x price of local (batch long)" in text and "by equal (allocation platform)" in text
    assert "contract 12" in text and "declared" in text
    file = tmp_path / "focus.csv"
    assert command(control, "export", str(file), *between)["bytes"] == file.stat().st_size
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(whole)
    told = command(control, "forecast", "--what", "calls", "--days", "7", "--launch", f"{today().date()}=2")
    assert len(told["days"]) == 7 and len(told["budgets"]) == 2
    assert command(control, "what-if", "users=2", *between)["steps"][0]["change"] == "people"
    teams = {each["team"] for each in command(control, "statement")["statements"]}
    assert teams >= {"not carried by a team"}
    assert re.search(
        r"\nall teams: \$[\d.,]+, exactly what was spent\n$", words(control, "statement", "--month", newest_month())
    )
    assert "allocated beside them is in `groundplan cost book`" in words(control)
    month = (today().replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
    pdf = tmp_path / "care.pdf"
    assert command(control, "statement", "care", "--month", month, "--save", str(pdf))["bytes"] == pdf.stat().st_size
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert command(control, "statement", "care", "--save", "care.doc")["error"]["code"] == "statement_file"
    assert command(control, "statement", "nobody")["error"]["code"] == "statement_unknown"
    assert " -$0." in (cheaper := words(control, "what-if", "price=-50%", *between)) and "$-" not in cheaper
    assert command(control, "forecast", "--growth", "much")["error"]["code"] == "growth_invalid"
    assert command(control, "what-if", "wishes=3")["error"]["code"] == "scenario_invalid"
    unknown = command(control, "forecast", "--workload", "nobody")["error"]
    assert (unknown["code"], "assistant" in unknown["hint"]) == ("workload_unknown", True)
    ahead = words(control, "forecast", "--days", "3")
    assert re.search(r"3 days: \$\d+\.\d+ \(\$\d+\.\d+ to \$\d+\.\d+\), of calls", ahead) and "$100.00" in ahead
    assert re.search(r"3 days: \d+\.\d+ .* calls\n", words(control, "forecast", "--days", "3", "--what", "calls"))
    worth = words(control, "outcomes", "--from", str((today() - timedelta(days=DAYS)).date()))
    assert "returned per dollar" in worth and "$2.00" in worth
