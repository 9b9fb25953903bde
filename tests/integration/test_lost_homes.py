"""A HOME that is declared lost: when that may be said, and what becomes of its calls and its money."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from tests.integration.test_api_control import run_control
from tests.integration.test_shipper import USD, Installation, installation, reservation

from groundplan.api.propagation_store import longest_grace_s
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.gateway.journal.shipper import Shipper
from groundplan.release import store as release_store
from groundplan.testing import ManualClock
from groundplan.testing.database import Database

__all__ = ["installation"]
HEARD = "UPDATE gateway SET host = 'pod-1', home = '/data', heartbeat_at = now() - interval '{}'"


async def test_calls_of_a_home_that_is_declared_lost_end_though_its_host_never_comes_back(
    installation: Installation, tmp_path: Path
) -> None:
    """Its worker had an open attempt that the ledger knows, and more of a budget than that."""
    lost = {"host": "pod-1", "home": "/data", "reason": "its node was scaled away"}
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    journal.reserve(reservation(new_id().bytes, bound=2 * USD))
    installation.step(1, Shipper(installation.home, ManualClock(datetime.now(UTC) + timedelta(seconds=3))))
    installation.rows(HEARD.format("9 minutes"))
    other = Home(tmp_path / "other")
    shutil.copytree(installation.home.root / "keys", other.root / "keys")
    other.journal.mkdir()
    elsewhere = Shipper(other)

    def look() -> list[tuple[object, ...]]:
        elsewhere._lost_checked_ms = 0
        installation.journals.clear()
        installation.step(1, elsewhere)
        return installation.rows("SELECT state, cost_usd FROM attempt")

    with run_control(installation.database, tmp_path) as control:
        assert control.ask("GET", "/api/gateways/gone").body == {"homes": []}
        early = control.ask("POST", "/api/gateways/lost", lost)
        assert (early.status, early.body["error"]["code"]) == (409, "home_alive")
        installation.rows(HEARD.format("2 hours"))
        (told,) = control.ask("GET", "/api/gateways/gone").body["homes"]
        assert (told["host"], told["home"], told["workers"], told["declared"]) == ("pod-1", "/data", 1, False)
        assert (told["open_attempts"], told["open_usd"]) == (1, "2.000000000000")
        assert look() == [("open", 0)], "nobody has said so"
        unknown = control.ask("POST", "/api/gateways/lost", {**lost, "home": "/date"})
        assert (unknown.status, unknown.body["error"]["code"]) == (404, "home_unknown")
        for _ in range(2):
            assert control.ask("POST", "/api/gateways/lost", lost).body["workers"] == [str(journal.epoch)]
        assert control.ask("GET", "/api/gateways/gone").body["homes"][0]["declared"]
        assert look() == [("crashed", 2)]
        assert installation.granted() == 10, "what it spent beyond that is not known"
        assert installation.rows("SELECT state FROM gateway") == [("fenced",)]
        assert installation.rows("SELECT gaps, done FROM shipped") == [(1, True)]
        assert control.ask("GET", "/api/gateways/gone").body == {"homes": []}
        assert control.ask("POST", "/api/gateways/lost", lost).status == 404
    entries = installation.rows("SELECT actor, subject FROM audit_entry WHERE action = 'gateway.lost'")
    assert entries == [("operator", "host/pod-1")]
    assert installation.rows("SELECT sum(cost_usd) FROM call") == [(Decimal(2),)]
    await journal.close()


def test_two_that_look_at_once_write_it_off_once(installation: Installation) -> None:
    installation.lend(epoch := new_id(), USD)
    url = installation.database.urls["shipper"]

    def left() -> bool:
        with psycopg.connect(url) as other:
            return ledger_store.is_unfinished(other, epoch)

    with ThreadPoolExecutor(1) as apart:
        with psycopg.connect(url) as conn:
            assert ledger_store.is_unfinished(conn, epoch)
            asked = apart.submit(left)
            while not installation.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                assert not asked.done()
            ledger_store.set_position(conn, epoch, (1, 64), 1, done=True)
        assert not asked.result(20)


def test_for_a_worker_that_just_began_not_every_blueprint_is_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes up one that is new now. While a change spreads it is asked again and again, and there are thousands."""
    read: list[int] = []

    def decoded(_: object, number: int) -> None:
        read.append(number)

    monkeypatch.setattr(release_store, "load_blueprint", decoded)
    with psycopg.connect(database.superuser) as conn:
        for number in range(1, 31):
            conn.execute(
                """INSERT INTO blueprint (number, body, digest, signature, key_id, sources, created_by, reason,
                     created_at) VALUES (%s, '', %s, '', '', '{}', '', '', now() - make_interval(hours => %s))""",
                (number, new_id().hex, 40 - number if number < 30 else 0),
            )
        conn.execute(
            "INSERT INTO gateway (epoch, host, home, pid, blueprint) VALUES (%s, 'h', '/', 1, 29)", (new_id(),)
        )
        longest_grace_s(conn)
        assert sorted(read) == [29, 30]
        conn.execute("INSERT INTO gateway (epoch, host, home, pid) VALUES (%s, 'h', '/', 1)", (worker := new_id(),))
        longest_grace_s(conn)
        assert sorted(read) == [29, 30], "of which each is read once"
        conn.execute("UPDATE gateway SET started_at = now() - interval '630 minutes' WHERE epoch = %s", (worker,))
        longest_grace_s(conn)
        assert sorted(read) == [28, 29, 30], "one that never could take up any may have had one when it began"
