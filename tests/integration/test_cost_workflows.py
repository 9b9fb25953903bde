"""What workflows cost: all their workloads together, for each outcome once; and as they were, whatever is declared."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_api_control import Control, run_control

from groundplan.cli.outcomes import format_outcomes as told_to_people
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Database

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - timedelta(hours=15)
FLOW = "---\nkind: workflow\nname: {}\noutcome: a case is closed\nbaseline: {{cost_per_case: 12 USD}}\n"
TEAM = "---\nkind: team\nname: {}\ncost_center: '{}'\n"
WORKLOAD = """\
---
kind: workload
name: {}
purpose: Work on cases
stage: pilot
sensitivity: internal
residency: [EU]
deployments: [local]
workflow: {}
owners: {{business: ana, security: sam}}
---
kind: budget
name: {}
covers: workload/{}
limit: 100 USD/month
"""


def declared(**workflows: str) -> str:
    """Workloads with their workflows."""
    flows = "".join(FLOW.format(name) for name in dict.fromkeys(workflows.values()))
    return (flows + "".join(WORKLOAD.format(name, flow, name, name) for name, flow in workflows.items()))[4:]


def apply(control: Control, text: str) -> int:
    (control.workspace / "cases.yaml").write_text(text)
    answer = control.ask("POST", "/api/apply", {"files": control.files()})
    assert answer.status in (200, 201), answer.body
    return int(control.ask("GET", "/api/blueprints").body["blueprints"][0]["number"])


def call(dsn: str, workload: str, number: int, usd: int, ticket: str | None = None, at: datetime = YESTERDAY) -> None:
    id, cost = new_id(), Decimal(usd)
    attempt: tuple[Any, ...] = (
        id, 0, at, "local", "here", "acme/model", "settled", "ok", 200, cost, cost, {}, False, [], 1.0, new_id(), 0.0,
        None, None, workload, number, False, {"output": [usd * 100_000, usd * PICO]}, "", "",
    )  # fmt: skip
    row: tuple[Any, ...] = (
        id, at, workload, None, None, None, "chat", "ok", 200, None, "acme/model", "local", "here", cost, cost, 0,
        usd * 100_000, "none", number, new_id(), False, 12.5, 3.5, {"ticket": ticket} if ticket else {}, 0, 0,
    )  # fmt: skip
    with connect(dsn, autocommit=True) as conn:
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [attempt])
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [row])


@pytest.fixture
def control(database: Database, tmp_path: Path) -> Iterator[Control]:
    with run_control(database, tmp_path, module="groundplan.console.app") as found:
        yield found


def span(first: datetime, last: datetime) -> str:
    return f"first={first.date()}&last={last.date()}"


def sums(control: Control, first: datetime, last: datetime) -> dict[str, int]:
    rows = control.ask("GET", f"/api/cost/book?by=workflow&{span(first, last)}").body["sums"]
    return {row["key"]: int(Decimal(row["cost_usd"])) for row in rows}


def test_a_workflow_costs_what_all_its_workloads_do_and_a_ticket_counts_once(
    control: Control, database: Database
) -> None:
    number = apply(control, declared(triage="cases", writer="cases", sorter="cases"))
    for workload, usd, ticket in (
        ("triage", 1, "S-1"),
        ("writer", 2, "S-1"),
        ("writer", 2, "S-2"),
        ("sorter", 5, None),
    ):
        call(database.dsn, workload, number, usd, ticket)
    for ticket, value in (("S-1", 30), ("S-2", 10)):
        told = {"ticket": ticket, "status": "resolved", "at": YESTERDAY.isoformat(), "value_usd": value}
        assert control.ask("POST", "/api/outcomes/import", told).status in (200, 201)
    found = control.ask("GET", f"/api/cost/outcomes?{span(YESTERDAY, TODAY)}").body
    assert {row["workload"]: row["accepted"] for row in found["outcomes"]} == {"triage": 1, "writer": 2}
    (row,) = found["workflows"]
    assert (row["workflow"], row["workloads"]) == ("cases", ["sorter", "triage", "writer"])
    assert (row["reported"], row["accepted"], row["calls"]) == (2, 2, 4), "S-1 is one case of both"
    amounts = [Decimal(row[name]) for name in ("cost_usd", "cost_per_accepted_usd", "value_usd", "saved_usd")]
    assert amounts == [10, 5, 40, 14], "the sorter, of which nobody reports an outcome, is paid for"
    assert row["returned"] == 4 and "(workflow cases)" in row["baseline_rule"]
    text = told_to_people({**found, "from": "a", "to": "b", "tickets": []})
    assert re.search(r"cases +sorter, triage, writer +2 +2 +\$10\.00 +\$5\.00 +\$12\.00", text), text
    page = control.ask("GET", f"/cost/workload/sorter?month={YESTERDAY:%Y-%m}", **control.sign_in()).body.decode()
    assert "The workflow cases (sorter, triage, writer) carries $10.00 for 2 accepted outcomes" in page


def test_days_that_are_over_keep_the_workflow_of_then(control: Control, database: Database) -> None:
    before = apply(control, declared(triage="cases", writer="cases", sorter="cases"))
    for workload, usd, ticket in (("triage", 1, None), ("writer", 2, None), ("sorter", 5, "S-9")):
        call(database.dsn, workload, before, usd, ticket)
    told = {"ticket": "S-9", "status": "resolved", "at": YESTERDAY.isoformat()}
    assert control.ask("POST", "/api/outcomes/import", told).status in (200, 201)

    def flows() -> list[tuple[Any, ...]]:
        rows = control.ask("GET", f"/api/cost/outcomes?{span(YESTERDAY, YESTERDAY)}").body["workflows"]
        return [(row["workflow"], row["workloads"], Decimal(row["cost_usd"]), row["baseline_usd"]) for row in rows]

    assert sums(control, YESTERDAY, YESTERDAY) == {"cases": 8}
    told_then = [("cases", ["sorter", "triage", "writer"], 8, "12.000000000000")]
    assert flows() == told_then
    after = apply(control, declared(triage="cases", writer="letters"))
    assert after == before + 1
    call(database.dsn, "writer", after, 3, at=TODAY)
    assert sums(control, YESTERDAY, YESTERDAY) == {"cases": 8}, "also of what is not declared any more"
    assert sums(control, TODAY, TODAY) == {"letters": 3}
    assert flows() == told_then, "its outcomes, too"
    apply(control, declared(triage="letters"))
    assert flows() == told_then, "though the workflow itself is not declared any more"


def test_what_an_outcome_may_cost_is_told_beside_what_it_does(control: Control, database: Database) -> None:
    """A changed objective or baseline alone holds from the next apply on."""
    text = declared(triage="cases", writer="cases")
    wanted = text.replace("workflow: cases\n", "workflow: cases\nobjectives: {cost_per_outcome: 2 USD}\n")
    number = apply(control, wanted)
    call(database.dsn, "triage", number, 2, "S-1")
    call(database.dsn, "writer", number, 3, "S-1")
    told = {"ticket": "S-1", "status": "resolved", "at": YESTERDAY.isoformat()}
    assert control.ask("POST", "/api/outcomes/import", told).status in (200, 201)

    def outcomes() -> dict[str, tuple[str | None, bool | None, str]]:
        rows = control.ask("GET", f"/api/cost/outcomes?{span(YESTERDAY, TODAY)}").body["outcomes"]
        return {row["workload"]: (row["may_cost_usd"], row["kept"], row["baseline_usd"]) for row in rows}

    two, twelve = "2.000000000000", "12.000000000000"
    assert outcomes() == {"triage": (two, True, twelve), "writer": (two, False, twelve)}
    page = control.ask("GET", f"/cost/workload/writer?month={YESTERDAY:%Y-%m}", **control.sign_in()).body.decode()
    assert "may cost, by its objective: above it" in page
    assert apply(control, wanted.replace("cost_per_case: 12 USD", "cost_per_case: 7.40 USD")) == number + 1
    assert outcomes()["writer"] == (two, False, "7.400000000000")
    assert apply(control, text) == number + 2
    assert outcomes()["writer"] == (None, None, twelve)


def test_documents_tell_of_the_process_and_of_what_was_reported(control: Control, database: Database) -> None:
    before = "cost_per_case: 12 USD, cases: 240/day, measured: 2026-08-31"
    number = apply(control, declared(triage="cases").replace("cost_per_case: 12 USD", before))

    def said(document: str) -> list[str]:
        sections = control.ask("GET", f"/api/exports/documents/{document}/triage").body["sections"]
        return [each["text"] for section in sections for each in section["said"]]

    call(database.dsn, "triage", number, 1, "S-1")
    assert not [text for text in said("annex-iv") if "reported" in text]
    told = {"ticket": "S-1", "status": "resolved", "at": TODAY.isoformat()}
    assert control.ask("POST", "/api/outcomes/import", told).status in (200, 201)
    assert "1 outcome was reported in the last 30 days." in said("annex-iv")
    process = said("fria")
    assert {"cases.", "A good result is: a case is closed."} <= set(process), "it has no purpose of its own"
    assert "Before, there were 240 cases a day, measured on 2026-08-31." in process


def test_work_that_goes_to_a_new_team_is_on_its_statement_from_then_on(control: Control, database: Database) -> None:
    text = declared(triage="cases")
    before = apply(
        control, text.replace("workflow: cases\n", "workflow: cases\nteam: care\n") + TEAM.format("care", 41)
    )
    call(database.dsn, "triage", before, 2)
    both = TEAM.format("care", 41) + TEAM.format("service", 52)
    after = apply(control, text.replace("workflow: cases\n", "workflow: cases\nteam: service\n") + both)
    call(database.dsn, "triage", after, 3)
    month = YESTERDAY.strftime("%Y-%m")
    path = f"/api/cost/statements?month={month}"
    found = control.ask("GET", path).body["statements"]
    for row in found:
        assert control.ask("GET", f"{path}&team={row['team']}").body["statements"] == [row]
    sums = control.ask("GET", f"{path}&lines=false").body["statements"]
    assert sums == [{name: value for name, value in row.items() if name != "lines"} for row in found]
    told = {row["team"]: (int(Decimal(row["total_usd"])), row["cost_center"]) for row in found}
    assert told == {"care": (2, "41"), "service": (3, "52")}
    text = control.ask("GET", f"/api/cost/focus.csv?{span(YESTERDAY, YESTERDAY)}").body.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    booked = {row["SubAccountId"]: json.loads(row["Tags"])["cost_center"] for row in rows}
    assert booked == {"care": "41", "service": "52"}
