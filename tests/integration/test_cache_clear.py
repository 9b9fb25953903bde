"""Clearing cached answers through the control API: who may, what is told, what is recorded."""

from __future__ import annotations

from pathlib import Path

from tests.integration.test_api_control import running

from groundplan.testing.database import Database


def test_answers_of_a_known_workload_are_cleared_by_who_may(database: Database, tmp_path: Path) -> None:
    with running(database, tmp_path) as control:
        done = control.ask("POST", "/api/cache/clear", {"workload": "assistant"})
        assert done.status == 200 and done.body["workload"] == "assistant" and done.body["effective"]["complete"]
        assert control.ask("POST", "/api/cache/clear", {"workload": "assistant"}).status == 200
        unknown = control.ask("POST", "/api/cache/clear", {"workload": "nobody"})
        assert unknown.status == 404 and unknown.body["error"]["code"] == "workload_unknown"
        assert control.ask("POST", "/api/cache/clear", {"workload": "assistant", "more": 1}).status == 422
