"""Tickets: many calls, one ticket, one outcome; told by an export, a webhook or an application, and taken back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.integration.nursery import run_command
from tests.integration.test_api_control import Control, run_control
from tests.integration.this_day import today

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Database

IMPORT = "/api/outcomes/import"


@dataclass(frozen=True)
class Desk:
    """A running control process over a ledger with calls that worked on tickets."""

    control: Control
    dsn: str
    folder: Path

    def call(self, ticket: str | None, cost: str = "0.10", workload: str = "assistant", **more: Any) -> UUID:
        id, detail = new_id(), {"ticket": ticket} if ticket else {}
        row: tuple[Any, ...] = (
            id, more.get("at", today() - timedelta(days=1, hours=-9)), workload, None, None, "care", "chat",
            more.get("status", "ok"), 200, None, "acme/m", "local", "here", Decimal(cost), 0, 3, 2, "none", 1, new_id(),
            False, 12.5, 3.5, {**detail, **more.get("detail", {})}, 0, 0,
        )  # fmt: skip
        with connect(self.dsn, autocommit=True) as conn:
            ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [row])
        return id

    def take(self, *lines: str, code: int = 0, options: tuple[str, ...] = ()) -> Any:
        file = self.folder / "export.csv"
        file.write_text("\n".join(("Key,Status,Updated,Value", *lines)) + "\n")
        told = ("cost", "outcomes", "import", str(file), *options, "--json", "--home", str(self.control.home.root))
        environment = {**os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{self.control.port}"}
        done = run_command(told, environment, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else done.stderr

    def tickets(self, workload: str = "assistant") -> Any:
        days = f"first={(today() - timedelta(days=5)).date()}&last={today().date()}"
        rows = self.control.ask("GET", f"/api/cost/tickets?{days}").body["tickets"]
        return next((row for row in rows if row["workload"] == workload), None)

    def accepted(self, workload: str = "assistant") -> tuple[int, str]:
        """As `/api/cost/outcomes` counts."""
        days = f"first={(today() - timedelta(days=5)).date()}&last={today().date()}"
        rows = self.control.ask("GET", f"/api/cost/outcomes?{days}").body["outcomes"]
        row = next(row for row in rows if row["workload"] == workload)
        return row["accepted"], row["value_usd"]


def day(back: float) -> str:
    return (today() - timedelta(days=back)).isoformat()


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Iterator[Desk]:
    with run_control(database, tmp_path, module="groundplan.console.app") as control:
        assert control.ask("POST", "/api/apply", {"files": control.files()}).status in (200, 201)
        yield Desk(control, database.dsn, tmp_path)


def test_a_resolved_ticket_costs_what_all_its_calls_cost(desk: Desk) -> None:
    for cost in ("0.10", "0.25", "0.15"):
        newest = desk.call("SUP-1", cost)
    desk.call("SUP-1", "0.05", detail={"of": str(newest), "purpose": "guardrail"})
    desk.call("SUP-2", "0.40")
    desk.call(None, "9.00")
    taken = desk.take(f"SUP-1,Done,{day(0)},30", f"SUP-2,Open,{day(0)},", f"HR-7,Closed,{day(0)},")
    assert [taken[name] for name in ("new", "same", "waiting", "others", "refused")] == [1, 0, 1, 1, []]
    told = desk.tickets()
    assert (told["resolved"], told["unresolved"], told["calls"]) == (1, 0, 3)
    assert Decimal(told["cost_usd"]) == Decimal(told["cost_per_resolved_usd"]) == Decimal("0.55")
    assert desk.accepted() == (1, told["value_usd"]) and Decimal(told["value_usd"]) == 30
    receipt = desk.control.ask("GET", f"/api/calls/{newest}").body
    assert receipt["ticket"] == "SUP-1" and [o["label"] for o in receipt["outcomes"]] == ["ticket SUP-1"]
    page = desk.control.ask("GET", "/cost/workload/assistant", **desk.control.sign_in()).body.decode()
    assert "for each resolved one" in page


def test_an_export_that_is_imported_again_changes_nothing_and_a_reopened_ticket_is_taken_back(desk: Desk) -> None:
    desk.call("SUP-1", "0.10", at=today() - timedelta(days=3))
    first = f"SUP-1,Done,{day(2)},30"
    assert desk.take(first)["new"] == 1
    assert [desk.take(first)[name] for name in ("new", "same")] == [0, 1]
    assert desk.accepted()[0] == 1
    taken = desk.take(first, f"SUP-1,Reopened,{day(1)},")
    assert (taken["new"], taken["same"]) == (1, 1)
    assert desk.accepted() == (0, "0.000000000000")
    assert (desk.tickets()["resolved"], desk.tickets()["unresolved"]) == (0, 1)
    assert desk.tickets()["cost_per_resolved_usd"] is None
    desk.call("SUP-1", "0.30")
    assert desk.take(f"SUP-1,Solved,{day(0.2)},25")["new"] == 1
    assert desk.accepted()[0] == 1 and Decimal(desk.accepted()[1]) == 25
    assert Decimal(desk.tickets()["cost_per_resolved_usd"]) == Decimal("0.40")
    desk.call("SUP-1", "0.20", at=today() - timedelta(days=0.15))
    assert desk.take(f"SUP-1,Closed,{day(0.1)},")["new"] == 1
    assert desk.accepted()[0] == 1, "it is one ticket, whichever call was its newest"


def test_what_comes_late_counts_by_when_it_happened(desk: Desk) -> None:
    desk.call("SUP-1")
    desk.take(f"SUP-1,Done,{day(1)},")
    assert desk.take(f"SUP-1,In Progress,{day(2)},")["new"] == 1
    assert desk.accepted()[0] == 1, "that it was open before it was resolved takes nothing back"
    desk.take(f"SUP-1,In Progress,{day(0.5)},")
    assert desk.accepted()[0] == 0


def test_bad_lines_are_refused_with_their_place_and_the_rest_is_taken(desk: Desk) -> None:
    desk.call("SUP-1")
    lines = (f"SUP-1,Erledigt,{day(1)},1", f"SUP-1,Done,{day(1)},5", f"SUP-1,Done,{day(1)},6")
    taken = desk.take(*lines, code=1)
    assert (taken["new"], taken["refused_in_all"]) == (1, 2)
    assert [(row["where"], row["code"]) for row in taken["refused"]] == [
        ("export.csv:2:1", "ticket_state"), ("export.csv:4:1", "outcome_differs"),
    ]  # fmt: skip
    assert desk.take(lines[0], options=("--state", "Erledigt=unresolved"))["new"] == 1
    unknown = desk.control.ask("POST", IMPORT, f"call,status,at\n{new_id()},Done,{day(1)}\n".encode())
    assert (unknown.status, unknown.code) == (400, "call_unknown")
    assert unknown.body["error"]["problems"][0]["where"] == "tickets:2:1"


def test_a_webhook_tells_one_ticket_and_every_workload_that_worked_on_it_counts_it_once(desk: Desk) -> None:
    desk.call("SUP-1", "0.10", "assistant")
    desk.call("SUP-1", "0.20", "triage")
    hook = {"ticket": "SUP-1", "status": "Resolved", "at": day(0.5), "value_usd": "3"}
    reply = desk.control.ask("POST", "/api/outcomes", hook)
    assert reply.status == 201, reply.body
    assert sorted(row["workload"] for row in reply.body["outcomes"]) == ["assistant", "triage"]
    again = desk.control.ask("POST", IMPORT, hook)
    assert (again.status, again.body["same"], again.body["new"]) == (200, 1, 0)
    assert desk.accepted("assistant")[0] == desk.accepted("triage")[0] == 1
    for wrong in ({"ticket": "SUP-1"}, {"accepted": True}, {**hook, "call_id": str(new_id())}, {**hook, "ticket": "ü"}):
        assert desk.control.ask("POST", "/api/outcomes", wrong).status in (400, 422), wrong
    nobody = desk.control.ask("POST", "/api/outcomes", {**hook, "ticket": "HR-1"})
    assert (nobody.status, nobody.code) == (404, "ticket_unknown")


def test_a_call_that_is_named_by_its_id_is_told_as_well(desk: Desk) -> None:
    call = desk.call(None)
    body = f"call_id,resolved,at\n{call},yes,{day(1)}\n"
    for told in ("new", "same"):
        assert desk.control.ask("POST", IMPORT, body.encode()).body[told] == 1
    assert desk.accepted()[0] == 1
    desk.control.ask("POST", IMPORT, body.replace("yes", "open").replace(day(1), day(0.5)).encode())
    assert desk.accepted()[0] == 0
