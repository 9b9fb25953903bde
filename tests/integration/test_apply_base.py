"""Two people with copies of the same files: what one declared is not undone by the other without being told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.integration.nursery import run_command
from tests.integration.test_api_control import WORKSPACE, Answer, Control, run_control
from tests.integration.test_reads_write_nothing import PRODUCTION

from groundplan.blueprint.artifact import decode, digest, encode
from groundplan.core.audit import SYSTEM
from groundplan.core.database import connect
from groundplan.release import store as release
from groundplan.testing.database import Database

RAISED = WORKSPACE.replace("100 USD/month", "300 USD/month")
REWORDED = WORKSPACE.replace("Answer questions", "Answer all questions")


@pytest.fixture
def control(database: Database, tmp_path: Path) -> Iterator[Control]:
    with run_control(database, tmp_path) as found:
        yield found


def applied(control: Control, text: str, base: int | None = None, reason: str = "because") -> Answer:
    return control.ask("POST", "/api/apply", {"files": {"acme.yaml": text}, "base": base, "reason": reason})


def test_an_apply_based_on_an_outdated_declaration_is_refused(control: Control) -> None:
    assert applied(control, RAISED, 1, "more people").body["blueprint"] == 2
    refused = applied(control, REWORDED, 1)
    assert (refused.status, refused.code) == (409, "base_moved")
    error = refused.body["error"]
    assert "blueprint 2 (operator, " in error["message"] and "more people) changed budget/assistant" in error["message"]
    assert "--base 2" in error["hint"] and "budget/assistant" in error["problems"][0]["message"]
    assert control.ask("GET", "/api/blueprints/current").body["number"] == 2, "nothing was made"
    assert applied(control, REWORDED.replace("100 USD", "300 USD"), 2).body["blueprint"] == 3
    assert applied(control, RAISED, 9).code == "blueprint_unknown"
    assert applied(control, RAISED, 0).code == "request_invalid"


def test_a_rollback_counts_as_a_declaration_and_automatic_blueprints_do_not(
    control: Control, database: Database
) -> None:
    assert applied(control, RAISED, 1).body["blueprint"] == 2
    assert control.ask("POST", "/api/rollback", {"reason": "too much"}).body["blueprint"] == 3
    assert applied(control, RAISED, 2).code == "base_moved"
    with connect(database.dsn) as conn:  # as where prices begin: of the same files
        stored = release.blueprint_by_number(conn, 3)
        assert stored is not None
        body = encode(msgspec.structs.replace(decode(stored.body), number=4))
        made = replace(stored, number=4, body=body, digest=digest(body), created_by=SYSTEM, rollback_of=None)
        release.insert_blueprint(conn, made)
    assert applied(control, REWORDED, 3).body["blueprint"] == 5


def test_plan_and_apply_list_the_changes_of_others_that_they_revert(control: Control) -> None:
    applied(control, RAISED, reason="more people")
    planned = control.ask("POST", "/api/plan", {"files": {"acme.yaml": REWORDED}}).body
    assert planned["base"] == 2
    (told,) = [note for note in planned["notes"] if "goes back" in note]
    assert told.startswith("budget/assistant (limit) goes back to what it was before blueprint 2 (operator, ")
    made = applied(control, REWORDED).body
    assert (made["blueprint"], [note for note in made["notes"] if "goes back" in note]) == (3, [told])
    again = applied(control, REWORDED.replace("100 USD", "50 USD"))
    assert [note for note in again.body["notes"] if "goes back" in note] == [], "that is something else"


def test_a_pending_change_is_dropped_only_by_an_apply_that_knows_it(control: Control) -> None:
    waiting = applied(control, PRODUCTION, 1, "to everybody").body
    assert waiting["pending"] and waiting["blueprint"] is None
    files = {"acme.yaml": REWORDED}
    told = [
        note for note in control.ask("POST", "/api/plan", {"files": files}).body["notes"] if "waits no longer" in note
    ]
    assert len(told) == 1 and told[0].startswith("workload/assistant: the change that operator asked for at ")
    assert applied(control, REWORDED, 1).code == "base_moved"
    assert control.ask("GET", "/api/changes?state=pending").body["changes"], "it waits still"
    assert [note for note in applied(control, REWORDED).body["notes"] if "waits no longer" in note] == told


def test_the_command_names_its_base(control: Control) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        at = ("--workspace", str(control.workspace), "--home", str(control.home.root))
        environment = {**os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{control.port}"}
        done = run_command((*words, *at), environment, timeout=60)
        return done.returncode, done.stdout, done.stderr

    (control.workspace / "acme.yaml").write_text(RAISED)
    code, out, _ = run("plan")
    assert code == 0 and "compared with blueprint 1" in out and "apply --base 1" in out
    assert run("apply", "--base", "1")[0] == 0
    (control.workspace / "acme.yaml").write_text(REWORDED)
    code, out, _ = run("apply", "--base", "1", "--json")
    assert code == 75 and json.loads(out)["error"]["code"] == "base_moved"
