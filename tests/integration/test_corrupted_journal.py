"""One byte of a dead worker's journal is flipped: that segment is set aside, the gap counted, and nothing else is lost.

Damage at every byte, cuts and gaps are in test_journal, test_journal_tail and test_shipper; here a real journal.
"""

from __future__ import annotations

import asyncio
import json
import os
from decimal import Decimal
from pathlib import Path

import psycopg
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.nursery import run_command

from groundplan.core.audit.keys import load_private, load_public
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.sequencer import heal, sequence_batch
from groundplan.core.audit.verify import verify
from groundplan.core.database import connect
from groundplan.core.money import PICO
from groundplan.gateway.journal.records import RESERVATION, SETTLEMENT, segment_path
from groundplan.gateway.journal.shipper import Shipper
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment
from groundplan.testing.scripted import Script

CALLS = 9


def ship(stack: Stack) -> None:
    with psycopg.connect(stack.database.urls["shipper"], autocommit=True) as conn:
        conn.execute("UPDATE gateway SET heartbeat_at = heartbeat_at - interval '1 minute'")  # dead for as long
        shipper = Shipper(stack.home)
        for _ in range(3):
            shipper.run_round(conn)


def flip_in_the_middle(stack: Stack) -> None:
    """One bit of one byte inside the settlement in the middle."""
    (folder,) = (path for path in stack.home.journal.iterdir() if path.is_dir())
    path = segment_path(folder, 1)
    settlements = [entry for entry in read_segment(path)[0] if entry.type == SETTLEMENT]
    assert len(settlements) == CALLS
    with path.open("r+b") as file:
        file.seek(settlements[CALLS // 2].end - 8)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    assert sum(entry.type == RESERVATION for entry in read_segment(path)[0]) >= 1


async def test_a_flipped_byte_costs_one_settlement_and_nothing_else(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("primary") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=5)
        stack.apply(blueprint(1, [deployment("primary", port)], [workload("assistant", ["primary"])], limit=PICO))
        stack.start()
        await stack.wait_until_ready()
        key = stack.key()
        for _ in range(CALLS):
            assert (await stack.chat(key)).status == 200
        stack.workers[0].kill()
        stack.workers.pop().wait()
        flip_in_the_middle(stack)
        ship(stack)

        assert stack.sql("SELECT gaps FROM shipped") == [(1,)]
        assert stack.sql("SELECT kind FROM finding WHERE closed_at IS NULL") == [("journal_gap",)]
        assert stack.sql("SELECT state FROM gateway") == [("fenced",)]
        (kept,) = stack.home.journal.glob("*.quarantined")
        assert kept.stat().st_size > 0

        states = dict(stack.sql("SELECT state, count(*) FROM attempt GROUP BY state"))
        assert states == {"settled": CALLS - 1, "crashed": 1}, "every attempt that was sent has its one row"
        costs = stack.sql("SELECT state, sum(cost_usd) FROM attempt GROUP BY state ORDER BY state")
        settled, bound = Decimal("0.00005") * (CALLS - 1), Decimal("0.0002")
        assert costs == [("crashed", bound), ("settled", settled)], "the one unknown is charged at its bound"
        assert stack.sql("SELECT count(DISTINCT id) FROM call") == [(CALLS,)]
        (granted,) = stack.sql("SELECT granted_usd FROM budget_period")[0]
        assert settled + bound <= granted <= 1, "what cannot be proven unspent is not lent again"

        ship(stack)
        assert dict(stack.sql("SELECT state, count(*) FROM attempt GROUP BY state")) == states, "and never twice"
        with connect(database.urls["control"], autocommit=True) as conn:
            with AuditLog(stack.home.audit, load_private(stack.home, "checkpoint")) as log:
                sequence_batch(conn, log, heal(conn, log).orphans, 1000)
            verdict = verify(stack.home.audit, load_public(stack.home, "checkpoint").public_bytes_raw())
            assert verdict.ok and verdict.entries >= CALLS

        told = await asyncio.to_thread(doctor, stack)
        assert any(check["name"] == "journal" and str(kept) in check["message"] for check in told)

        stack.start()
        await stack.wait_until_ready()
        assert (await stack.chat(key)).status == 200, "the next worker serves from what was never lent"


def doctor(stack: Stack) -> list[dict[str, str]]:
    """What is bad, as `groundplan doctor` tells it."""
    environment = {**os.environ, "GROUNDPLAN_DATABASE_URL": stack.database.dsn}
    done = run_command(("doctor", "--home", str(stack.home.root), "--json"), environment, 60)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done
    return [check for check in json.loads(done.stdout)["checks"] if check["state"] == "bad"]
