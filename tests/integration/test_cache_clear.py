"""Clearing cached answers through the control API, and that no backup brings any back."""

from __future__ import annotations

from pathlib import Path

import psycopg
from tests.integration.test_api_control import run_control

from groundplan.core.ids import new_id
from groundplan.runtime.table_dump import dump_tables
from groundplan.testing.database import Database


def test_cached_answers_of_a_known_workload_are_cleared_by_permitted_people(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control:
        done = control.ask("POST", "/api/cache/clear", {"workload": "assistant"})
        assert done.status == 200 and done.body["workload"] == "assistant" and done.body["effective"]["complete"]
        assert control.ask("POST", "/api/cache/clear", {"workload": "assistant"}).status == 200
        unknown = control.ask("POST", "/api/cache/clear", {"workload": "nobody"})
        assert unknown.status == 404 and unknown.body["error"]["code"] == "workload_unknown"
        assert control.ask("POST", "/api/cache/clear", {"workload": "assistant", "more": 1}).status == 422


def test_no_backup_holds_cached_answers(database: Database, tmp_path: Path) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO answer (call_id, workload, cleared, made_at, expires_at, size, subjects, sealed)"
            " VALUES (%s, 'w', 0, now(), now(), 1, '{}', 'sealed')",
            (new_id(),),
        )
    facts = dump_tables(database.urls["control"], tmp_path)
    assert "answer_clear" in facts["tables"] and "answer" not in facts["tables"]
    assert not (tmp_path / "answer.copy").exists()
