"""Responses in the background as whoever runs Groundplan sees them, in the same words everywhere, and cancels one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.integration.test_api_control import Control, run_control
from tests.integration.test_experiment_pages import Console
from typer.testing import CliRunner

from groundplan.cli.main import app
from groundplan.core.ids import new_id
from groundplan.testing.database import Database

REFUSED = "the limit slot (1 calls at the same time for workload/assistant) has no room for this call"


def ask(conn: psycopg.Connection[Any], id: str, status: str, **more: Any) -> None:
    columns = {"id": id, "status": status, "workload": "assistant", "owner": new_id(), "key_id": new_id()}
    values = columns | {"person": "", "sealed": "sealed:x", **more}
    names = ", ".join(values)
    places = ", ".join(["%s"] * len(values))
    query = f"INSERT INTO background_response ({names}, expires_at) VALUES ({places}, now() + interval '1 day')"
    conn.execute(query.encode(), list(values.values()))


def run_responses_command(control: Control, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{control.port}")
    made = CliRunner().invoke(app, ["responses", *arguments, "--home", str(control.home.root)])
    assert made.exit_code == 0, made.output
    return made.output


def test_they_are_listed_with_why_they_wait_and_one_is_cancelled(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        run_control(database, tmp_path, module="groundplan.console.app") as control,
        psycopg.connect(database.superuser, autocommit=True) as conn,
    ):
        console = Console(control, database.urls["control"], database.urls["owner"], control.sign_in())
        assert control.ask("GET", "/api/responses").body == {"responses": [], "open": []}
        assert "POST /v1/responses" in run_responses_command(
            control, monkeypatch, "list"
        ) and "POST /v1/responses" in console.page("/calls")
        ask(conn, "resp_over", "failed")
        ask(conn, "resp_gone", "queued")
        conn.execute("UPDATE background_response SET expires_at = now() WHERE id = 'resp_gone'")
        ask(conn, "resp_made", "in_progress")
        ask(conn, "resp_waits", "queued", waits=Jsonb({"code": "rate_limit_exceeded", "message": REFUSED, "hint": "x"}))
        conn.execute("UPDATE background_response SET due = now() + interval '9 minutes' WHERE id = 'resp_waits'")
        found = control.ask("GET", "/api/responses", None).body
        assert [(each["id"], each["status"], each["problem"]) for each in found["responses"]] == [
            ("resp_waits", "queued", REFUSED), ("resp_made", "in_progress", None),
            ("resp_over", "failed", "background_interrupted"),
        ]  # fmt: skip
        assert found["open"] == [{"workload": "assistant", "queued": 1, "in_progress": 1}]
        assert (
            control.ask("GET", "/api/responses?workload=assistant&limit=1").body["responses"] == found["responses"][:1]
        )
        for text in (run_responses_command(control, monkeypatch, "list"), console.page("/calls")):
            assert REFUSED in text and "background_interrupted" in text and "resp_gone" not in text
        assert control.ask("POST", "/api/responses/resp_none/cancel", {}).code == "response_not_found"
        assert control.ask("POST", "/api/responses/resp_gone/cancel", {}).code == "response_not_found"
        assert control.ask("POST", "/api/responses/resp_over/cancel", {}).code == "response_finished"
        assert "resp_made of assistant is cancelled" in run_responses_command(
            control, monkeypatch, "cancel", "resp_made"
        )
        assert "cancelled" in console.form("/do/responses/cancel", id="resp_waits")
        assert conn.execute("SELECT id, status FROM background_response ORDER BY id").fetchall() == [
            ("resp_gone", "queued"), ("resp_made", "cancelled"), ("resp_over", "failed"), ("resp_waits", "cancelled"),
        ]  # fmt: skip
        entries = "SELECT subject, convert_from(body, 'UTF8')::jsonb -> 'detail' ->> 'response' FROM audit_entry"
        assert conn.execute(f"{entries} WHERE action = 'response.cancelled' ORDER BY at").fetchall() == [
            ("workload/assistant", "resp_made"), ("workload/assistant", "resp_waits"),
        ]  # fmt: skip
