"""A database that is emptied, or made anew, under everything that runs on it: each says what happened, and nothing of
this HOME goes into what comes there next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.acceptance.stack import wait_until
from tests.integration.test_api_control import run_control

from groundplan.cli.doctor import _check_postgres
from groundplan.cli.startup import Startup
from groundplan.core.errors import Conflict, Misconfigured, Unavailable
from groundplan.gateway.database import Pool
from groundplan.gateway.thread_connections import ThreadConnections
from groundplan.release import store as release_store
from groundplan.testing.database import Database


async def test_of_a_database_that_was_emptied_everybody_is_told_and_nothing_is_made_there(
    database: Database, tmp_path: Path
) -> None:
    nothing: Any = None
    with run_control(database, tmp_path) as control, psycopg.connect(database.superuser, autocommit=True) as conn:
        noted = control.home.database
        wait_until(noted.exists, 30, "it is noted, though no `up` made the first blueprint")
        assert noted.read_text().strip() == release_store.identity(conn, 1)
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public AUTHORIZATION CURRENT_USER")
        for method, path, body in (
            ("GET", "/api/status", None), ("GET", "/api/calls", None), ("GET", "/api/people", None),
            ("POST", "/api/apply", {"files": control.files(), "reason": "again"}),
        ):  # fmt: skip
            told = control.ask(method, path, body)
            assert (told.status, told.code) == (503, "database_emptied"), (path, told.body)
            assert "retry-after" not in told.headers, "to try again is in vain"
        start = Startup(control.home, database.settings(control.home.root), None, False, nothing)
        with pytest.raises(Conflict, match="database_differs"):
            start.start_schema_upgrade(nothing)
        assert conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        (looked,) = _check_postgres(control.home, database.settings(control.home.root))
        assert looked.state == "bad" and "is empty" in looked.message
        pool = Pool(database.urls["gateway"], "emptied")
        with pytest.raises(Misconfigured, match="database_emptied"):
            async with pool.connection() as connection:
                await connection.execute("SELECT FROM batch")
        await pool.close()
        stored = ThreadConnections(
            database.urls["gateway"], "emptied", 1, lambda: Unavailable("away", hint="Try again.")
        )
        with pytest.raises(Misconfigured, match="database_emptied"):
            await stored.run(lambda connection: connection.execute("SELECT FROM stored_response"))
        await stored.close()
    assert "Traceback" not in (tmp_path / "control.log").read_text()
