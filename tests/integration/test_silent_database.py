"""How gateways are connected to PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from groundplan.core.database import external_url
from groundplan.core.errors import Unavailable
from groundplan.gateway.journal.threads import InThreads
from groundplan.testing.database import Database


@asynccontextmanager
async def in_threads(url: str) -> AsyncIterator[InThreads]:
    made = InThreads(url, "shelf", 1, lambda: Unavailable("it is away", code="database_unavailable", hint="Wait."))
    yield made
    await made.close()


async def test_threads_speak_as_the_gateways_role_wherever_the_database_is(database: Database) -> None:
    """Its login may do everything there."""
    async with in_threads(external_url(f"{database.dsn}?options=-c%20work_mem%3D8MB", "gateway")) as made:
        asked = "SELECT current_user::text, current_setting('work_mem'), current_setting('statement_timeout')"
        found = await made.run(lambda conn: conn.execute(asked).fetchone())
    assert found == (f"{database.name}_gateway", "8MB", "2s")
