"""Grants at the control port: which keys are made, who may search as a workload does, what a plan tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.test_api_control import WORKSPACE, Control, run_control

from groundplan.cli.release import plan_text
from groundplan.testing.database import Database

GRANT = """---
kind: grant
name: hr-only
to: [hr]
on: workload/assistant
allows: [use, act-for-others]
"""


@pytest.fixture
def control(database: Database, tmp_path: Path) -> Iterator[Control]:
    with run_control(database, tmp_path) as found:
        yield found


def test_only_granted_people_get_keys_that_act_for_others(control: Control) -> None:
    key = {"workload": "assistant", "acts_for_others": True}
    assert control.ask("POST", "/api/keys", key).status == 201, "without grants it is as it was"
    files = {"acme.yaml": WORKSPACE + GRANT}
    told = plan_text(control.ask("POST", "/api/plan", {"files": files}).body)
    assert "use: lost by whoever has a key, but for hr" in told
    assert control.ask("POST", "/api/apply", {"files": files, "reason": "r"}).body["blueprint"] == 2
    for user in ({}, {"user": "sam"}):
        refused = control.ask("POST", "/api/keys", {**key, **user})
        assert (refused.status, refused.code) == (403, "act_for_others_not_granted")
    assert control.ask("POST", "/api/keys", {**key, "user": "ana"}).status == 201
    assert control.ask("POST", "/api/keys", {"workload": "assistant", "user": "sam"}).status == 201
    control.ask("DELETE", "/api/groups/hr/members/ana@acme.example")
    assert control.ask("POST", "/api/keys", {**key, "user": "ana"}).code == "act_for_others_not_granted"
    again = plan_text(control.ask("POST", "/api/plan", {"files": {"acme.yaml": WORKSPACE}}).body)
    assert "use: gained by whoever has a key" in again
    assert "act_for_others: gained by every key made with --on-behalf-of" in again


def test_only_granted_people_search(control: Control) -> None:
    files = {"acme.yaml": WORKSPACE + GRANT}
    assert control.ask("POST", "/api/apply", {"files": files, "reason": "r"}).status == 200
    question = {"workload": "assistant", "query": "leave"}
    refused = control.ask("POST", "/api/knowledge/search", question, **control.sign_in("sam@acme.example"))
    assert (refused.status, refused.code) == (403, "use_not_granted")
    granted = control.ask("POST", "/api/knowledge/search", question, **control.sign_in("ana@acme.example"))
    assert granted.code == "no_sources"
