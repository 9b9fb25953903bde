"""The keys of search and index: one for each workload that a deployment is called for, and none that nothing needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg_pool import ConnectionPool
from tests.integration.gateway_stack import GROUNDING, blueprint, deployment, workload

from groundplan.api.context import Services
from groundplan.api.knowledge.editions import update_keys
from groundplan.api.knowledge.index_key import ensure_key
from groundplan.blueprint.model import Blueprint, Rerank
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.knowledge import gateway_client
from groundplan.testing.database import Database


@pytest.fixture
def services(database: Database, tmp_path: Path) -> Iterator[Services]:
    home = Home(tmp_path / "home")
    home.create()
    pool: ConnectionPool[Any] = ConnectionPool(database.urls["control"], min_size=1, max_size=2, open=True)
    yield Services(home, load_settings({}), None, False, None, pool, SystemClock())  # type: ignore[arg-type]
    pool.close()


def declared(*rerankers: str) -> Blueprint:
    asking = [
        workload(f"asks-{name}", ["chat"], grounding=replace(GROUNDING, rerank=Rerank(workload=name, deployment="d")))
        for name in rerankers
    ]
    return blueprint(1, [deployment("chat", 9)], [*asking, workload("plain", ["chat"], grounding=GROUNDING)])


def test_each_workload_has_a_key_while_something_needs_it(services: Services, database: Database) -> None:
    # as it was kept when there was one for everything
    old = gateway_client.ServiceKey("0192d3a0-0000-7000-8000-000000000001", "one", "gp_old")
    old.write(services.home)
    gateway_client.key_file(services.home, "one").rename(services.home.keys / "index-service.json")

    def look(*rerankers: str) -> dict[str, bool]:
        """Workload -> whether its newest key may be used."""
        update_keys(services, conn, declared(*rerankers))
        with services.transaction() as own:
            keys = own.execute("SELECT workload, revoked_at IS NULL FROM api_key ORDER BY id").fetchall()
        return dict(keys)

    with psycopg.connect(database.urls["control"], autocommit=True) as conn:
        assert look("one", "two") == {"one": True, "two": True}
        kept = {key.workload: key.secret for _, key in gateway_client.list_keys(services.home)}
        assert set(kept) == {"one", "two"} and kept["one"] != "gp_old"
        assert gateway_client.key_file(services.home, "one").stat().st_mode & 0o077 == 0
        assert look("one", "two") == {"one": True, "two": True}
        assert {key.workload: key.secret for _, key in gateway_client.list_keys(services.home)} == kept, (
            "they are made once"
        )
        assert look("two") == {"one": False, "two": True}
        assert gateway_client.read_key(services.home, "one") is None
        conn.execute("UPDATE api_key SET revoked_at = now() WHERE workload = 'two'")
        assert look("two") == {"one": False, "two": False}, "who revoked it has the last word"
        with pytest.raises(Unavailable) as caught:
            ensure_key(services, "two")
        assert (caught.value.code, "index-service-two.json" in (caught.value.hint or "")) == ("index_key", True)
