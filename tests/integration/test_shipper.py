"""The shipper over real journals and a real PostgreSQL: each record has its effect once, whoever dies when."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import psycopg
import pytest
from tests.integration.gateway_stack import blueprint
from tests.integration.test_full_disk import UNSHARE, needs_mounts

from groundplan.blueprint.artifact import encode
from groundplan.core.audit.entry import decode
from groundplan.core.audit.keys import create_keys
from groundplan.core.clock import SystemClock
from groundplan.core.database import connect
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.journal import epoch_shipper, ledger_store, ledger_writer
from groundplan.gateway.journal import shipper as shipper_module
from groundplan.gateway.journal.epoch_shipper import EpochShipper
from groundplan.gateway.journal.journal import SMALLEST_SEGMENT, Journal
from groundplan.gateway.journal.records import HEADER_BYTES, encode_frame, segment_numbers, segment_path
from groundplan.gateway.journal.segments import SPARE_SEGMENTS
from groundplan.gateway.journal.shipper import Shipper, main, run
from groundplan.ledger import archive, archive_store, rollup_store
from groundplan.ledger.model import Charge, Finish, Release, Reservation, Settlement, Usage
from groundplan.testing import ManualClock
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment

Record = TypeVar("Record", bound=msgspec.Struct)
MONTH = "2026-11"
USD = 10**12
PERSON = str(new_id())


@dataclass
class Installation:
    home: Home
    database: Database
    journals: list[Journal] = field(default_factory=list)

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.superuser, autocommit=True) as conn:
            cursor = conn.execute(query.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def step(self, times: int = 1, shipper: Shipper | None = None) -> None:
        """Rounds of a shipper after the turn of the loop in which a worker wrote."""
        for journal in self.journals:
            journal._flush()
        with psycopg.connect(self.database.urls["shipper"], autocommit=True) as conn:
            shipper = shipper or Shipper(self.home)
            for _ in range(times):
                shipper.run_round(conn)

    def journal(self, segment_bytes: int = SMALLEST_SEGMENT) -> Journal:
        epoch = new_id()
        made = Journal.open(self.home.journal / str(epoch), epoch, asyncio.get_running_loop(), segment_bytes)
        self.journals.append(made)
        return made

    def lend(self, epoch: UUID, amount: int, limit: int = 100 * USD) -> None:
        """What a grant leaves in the database."""
        usd = Decimal(amount).scaleb(-12)
        where = (socket.gethostname(), str(self.home.root))
        self.rows(
            """INSERT INTO gateway (epoch, host, home, pid, heartbeat_at)
               VALUES (%s, %s, %s, 1, now() - interval '1 minute')""",
            epoch, *where,
        )  # fmt: skip
        self.rows(
            """INSERT INTO budget_period AS p (budget, period, limit_usd, granted_usd) VALUES ('b', %s, %s, %s)
               ON CONFLICT (budget, period) DO UPDATE SET granted_usd = p.granted_usd + EXCLUDED.granted_usd""",
            MONTH,
            Decimal(limit).scaleb(-12),
            usd,
        )
        self.rows(
            "INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (%s, 'b', %s, %s)", epoch, MONTH, usd
        )

    def granted(self) -> Decimal:
        return Decimal(self.rows("SELECT granted_usd FROM budget_period WHERE budget = 'b'")[0][0])


@pytest.fixture
def installation(database: Database, tmp_path: Path) -> Installation:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    return Installation(home, database)


@contextmanager
def died(journal: Journal) -> Iterator[None]:
    """As after kill -9: the lock is free, nothing was closed or synced. (Ends the threads of the journal
    afterwards.)"""
    fcntl.flock(journal._lock, fcntl.LOCK_UN)
    yield


def reservation(call: bytes, attempt: int = 0, amount: int = USD, bound: int = USD) -> Reservation:
    at = time.time_ns() // 1_000_000
    charges = [Charge("b", MONTH, amount)]
    return Reservation(call, attempt, at, "assistant", PERSON, "k", "/v1", f"d{attempt}", "s", "m", 1, bound, charges)


def settlement(call: bytes, attempt: int = 0, cost: int = USD // 4, outcome: str = "ok") -> Settlement:
    usage = Usage(input=10, output=5)
    return Settlement(call, attempt, 2, cost, outcome, 200, usage, False, ["a,b", 'q"'], 5000)


def finish(call: bytes, status: str = "ok") -> Finish:
    at = time.time_ns() // 1_000_000
    steps, sources = [("serve", 4)], [(str(new_id()), "handbook/leave.md", 3, 9)]
    return Finish(
        call, at, "assistant", PERSON, "k", "/v1", status, 200, "", "d0", "none", 1, 9000, 7000, steps, sources,
        scores=[0.71],
    )  # fmt: skip


def replace_fields(record: Record, **fields: object) -> Record:
    return msgspec.structs.replace(record, **fields)


async def room(journal: Journal) -> None:
    """Until the next segment is there."""
    async with asyncio.timeout(30):
        while journal._room() <= 8192:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.002)


async def until_spare(journal: Journal) -> None:
    """Until nothing is made in its folder any more, as after a death."""
    async with asyncio.timeout(30):
        while len(journal._spare_segments.ready) < SPARE_SEGMENTS:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.002)


def one_call(journal: Journal) -> bytes:
    call = new_id().bytes
    journal.reserve(reservation(call))
    journal.settle(settlement(call))
    journal.finish(finish(call))
    return call


async def test_a_call_becomes_one_row_of_each_kind_and_one_audit_entry(installation: Installation) -> None:
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    call = UUID(bytes=one_call(journal))
    installation.step()
    installation.step(3)
    assert installation.rows("SELECT id, status, cost_usd, reserved_usd, model, site, epoch FROM call") == [
        (call, "ok", Decimal("0.25"), Decimal(1), "m", "s", journal.epoch)
    ]
    assert installation.rows("SELECT person_id, prompt_tokens, completion_tokens, duration_ms FROM call") == [
        (UUID(PERSON), 10, 5, 9.0)
    ]
    assert installation.rows("SELECT call_id, number, state, outcome, cost_usd, flags FROM attempt") == [
        (call, 0, "settled", "ok", Decimal("0.25"), ["a,b", 'q"'])
    ]
    assert installation.rows("SELECT * FROM charge") == [(call, 0, "b", MONTH, Decimal("0.25"))]
    assert installation.rows("SELECT detail -> 'scores' FROM call") == [([0.71],)]
    entries = installation.rows("SELECT id, action, actor, body FROM audit_entry")
    assert [(row[0], row[1], row[2]) for row in entries] == [(call, "call", f"gateway:{journal.epoch}")]
    assert f'"person":"sealed:{PERSON}:'.encode() in bytes(entries[0][3])
    await journal.close()


async def test_an_open_attempt_is_shown_after_two_seconds_and_settled_later(installation: Installation) -> None:
    journal, clock = installation.journal(), ManualClock(datetime.now(UTC))
    call = new_id().bytes
    journal.reserve(reservation(call))
    shipper = Shipper(installation.home, clock)
    installation.step(2, shipper)
    assert installation.rows("SELECT count(*) FROM attempt") == [(0,)]
    clock.advance(3)
    installation.step(2, shipper)
    assert installation.rows("SELECT state, cost_usd FROM attempt") == [("open", Decimal(0))]
    assert installation.rows("SELECT count(*) FROM call") == [(0,)]
    journal.settle(settlement(call))
    journal.finish(finish(call))
    installation.step(1, shipper)
    assert installation.rows("SELECT state, cost_usd FROM attempt") == [("settled", Decimal("0.25"))]
    await journal.close()


@pytest.mark.parametrize("many", [False, True])
async def test_a_crash_is_settled_at_the_bound_and_the_rest_returns(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """What it spent is added up beside where it made very many calls, once, while what others write goes on."""
    journal = installation.journal()
    await until_spare(journal)
    installation.lend(journal.epoch, 10 * USD)
    one_call(journal)
    cut = new_id().bytes
    journal.reserve(reservation(cut))
    journal.settle(settlement(cut, outcome="failed"))
    journal.reserve(reservation(cut, 1))
    passed = new_id().bytes
    journal.reserve(reservation(passed))
    journal.settle(settlement(passed, cost=0, outcome="not_billed"))
    journal.reserve(reservation(passed, 1, amount=0, bound=USD // 2))
    journal.release(Release(new_id().bytes, "b", MONTH, 2 * USD))
    tool = replace_fields(
        reservation(new_id().bytes, bound=0), deployment="", site="", model="tool crm/add", charges=[]
    )
    journal.reserve(replace_fields(tool, call=new_id().bytes))
    journal.reserve(tool)
    journal.finish(finish(tool.call))
    installation.step()
    assert installation.rows("SELECT state FROM gateway") == [("live",)], "the lock is held: it may only be stopped"
    shipper, left, added = Shipper(installation.home), ledger_store.unspent_amounts, threading.Event()

    def added_up(conn: psycopg.Connection[Any], epoch: UUID) -> dict[tuple[str, str], int]:
        if threading.current_thread().name == "sums":
            assert added.wait(30)
        elif many:
            conn.execute("SET LOCAL statement_timeout = 1")
            conn.execute("SELECT pg_sleep(5)")
        return left(conn, epoch)

    monkeypatch.setattr(ledger_store, "unspent_amounts", added_up)
    with died(journal):
        if many:
            installation.step(2, shipper)
            assert installation.rows("SELECT count(*) FROM call") == [(2,)], "nothing of it is half done"
            (adding,) = (thread for thread in threading.enumerate() if thread.name == "sums")
            added.set()
            await asyncio.to_thread(adding.join)
        installation.step(2, shipper)
    assert installation.granted() == Decimal(2)
    assert installation.rows("SELECT type, amount_usd FROM budget_movement ORDER BY type") == [
        ("recovered", Decimal(6)),
        ("release", Decimal(2)),
    ]
    assert installation.rows("SELECT state FROM gateway") == [("fenced",)]
    assert installation.rows("SELECT status, cost_usd FROM call ORDER BY status, cost_usd") == [
        ("crashed", Decimal(0)),
        ("crashed", Decimal("0.5")),
        ("crashed", Decimal("1.25")),
        ("ok", Decimal(0)),
        ("ok", Decimal("0.25")),
    ]
    query = "SELECT model, deployment, detail -> 'steps' -> 0 ->> 0 FROM call WHERE cost_usd = 0 ORDER BY status"
    uses = [(None, None, "tool crm/add"), (None, "d0", "serve")]
    assert installation.rows(query) == uses, "a use of a tool was about to be made"
    crashed = installation.rows("SELECT call_id, number, cost_usd, flags, parts FROM attempt WHERE state = 'crashed'")
    assert sorted(crashed, key=lambda row: str(row[0])) == [
        (UUID(bytes=cut), 1, Decimal(1), ["crash"], {"bound": [0, USD]}),
        (UUID(bytes=passed), 1, Decimal("0.5"), ["crash"], {"bound": [0, USD // 2]}),
    ]
    assert installation.rows("SELECT count(*) FROM audit_entry") == [(5,)]
    assert not journal.folder.exists()
    installation.step(2)
    assert installation.granted() == Decimal(2)
    await journal.close()


async def test_a_copied_home_does_not_recover_a_recently_seen_worker(
    installation: Installation, tmp_path: Path
) -> None:
    """Its machine has the same name, and HOME the same path."""
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    journal.reserve(reservation(new_id().bytes))
    installation.step()
    clone = Home(tmp_path / "clone")
    shutil.copytree(installation.home.root, clone.root)
    installation.rows("UPDATE gateway SET home = %s", str(clone.root))
    in_clone = Shipper(clone)
    for ago, state in (("0 s", "live"), ("-1 s", "live"), ("3 s", "fenced")):
        installation.rows("UPDATE gateway SET heartbeat_at = now() - %s::interval", ago)
        installation.step(2, in_clone)
        assert installation.rows("SELECT state FROM gateway") == [(state,)]
    await journal.close()


async def test_records_of_a_newer_version_wait_and_block_nothing_else(
    installation: Installation,
) -> None:
    """As after a release that was taken back: nothing is lost, nor written off, nor said to be damaged."""
    newer, own = installation.journal(), installation.journal()
    installation.lend(newer.epoch, 10 * USD)
    one_call(newer)
    newer._flush()
    newer._write_if_room(encode_frame(9, newer._sequence + 1, b"?"))
    one_call(own)
    shipper = Shipper(installation.home)
    with died(newer):
        installation.step(3, shipper)
    assert installation.rows("SELECT epoch FROM call") == [(own.epoch,)], "all of an epoch comes in its order"
    assert installation.rows("SELECT count(*) FROM finding") == [(0,)] and installation.granted() == 10
    assert newer.folder.exists()
    for journal in (newer, own):
        await journal.close()


@pytest.mark.parametrize("unheard", [False, True])
async def test_records_missing_on_a_promoted_standby_are_shipped_again(
    installation: Installation, unheard: bool
) -> None:
    """The journals of workers that had just died, too: nothing else tells of their calls, and of what they held."""
    journal, shipper = installation.journal(), Shipper(installation.home, kept_s=60.0)
    installation.lend(journal.epoch, 10 * USD)
    one_call(journal)
    with died(journal):
        installation.step(3, shipper)
        assert (installation.rows("SELECT count(*) FROM call"), installation.granted()) == ([(1,)], Decimal("0.25"))
        for table in ("call", "attempt", "charge", "shipped", "audit_entry"):
            installation.rows(f"DELETE FROM {table}")
        installation.rows("UPDATE gateway SET state = 'live'")
        installation.rows("DELETE FROM budget_movement")
        installation.rows("UPDATE budget_slice SET closed = false, released_usd = 0")
        installation.rows("UPDATE budget_period SET granted_usd = 10")
        if unheard:  # nothing had to be written since
            shipper._shipped_epochs = {
                epoch: (float("-inf"), each) for epoch, (_, each) in shipper._shipped_epochs.items()
            }
        else:
            shipper = Shipper(installation.home, kept_s=60.0)
        installation.step(3, shipper)
        assert (installation.rows("SELECT count(*) FROM call"), installation.granted()) == ([(1,)], Decimal("0.25"))
        assert journal.folder.exists()
        shipper._shipped_epochs = {epoch: (float("-inf"), each) for epoch, (_, each) in shipper._shipped_epochs.items()}
        installation.step(1, shipper)
    assert not journal.folder.exists() and shipper.unread == {}
    await journal.close()


async def test_no_segment_is_deleted_before_the_standby_has_its_calls(installation: Installation) -> None:
    journal, shipper = installation.journal(), Shipper(installation.home, kept_s=0.01)
    while journal._current.number < 3:
        await room(journal)
        one_call(journal)
    installation.step(2, shipper)
    first, count = segment_numbers(journal.folder)[0], installation.rows("SELECT count(*) FROM call")
    for table in ("call", "attempt", "charge", "shipped", "audit_entry"):
        installation.rows(f"DELETE FROM {table}")
    await asyncio.sleep(0.02)
    installation.step(1, shipper)
    assert segment_numbers(journal.folder)[0] == first == 1
    installation.step(2, shipper)
    assert installation.rows("SELECT count(*) FROM call") == count
    await asyncio.sleep(0.02)
    installation.step(1, shipper)
    assert segment_numbers(journal.folder)[0] == 3
    assert installation.rows("SELECT count(*) FROM finding") == [(0,)]
    await journal.close()


async def test_releases_are_forgotten_once_shipped(installation: Installation) -> None:
    """Near the end of a budget each call that ends gives something back, for as long as a worker lives."""
    journal, shipper = installation.journal(), Shipper(installation.home)
    installation.lend(journal.epoch, 10 * USD)
    for _ in range(20):
        journal.release(Release(new_id().bytes, "b", MONTH, USD // 10))
        installation.step(shipper=shipper)
        (epoch,) = shipper._epochs.values()
        assert not epoch.state.releases and not epoch.state.released
    assert installation.granted() == 8
    one_call(journal)
    installation.step(shipper=shipper)
    assert not epoch.state.spent and not epoch.state.calls, "of a budget for each key and day there is no end"
    await journal.close()


async def test_shipping_again_from_nothing_changes_nothing(installation: Installation) -> None:
    """As if the shipper died after its commit and before anything else, at every record."""
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    call = new_id().bytes
    writes: list[Callable[[], object]] = [
        lambda: journal.reserve(reservation(call)),
        lambda: journal.settle(settlement(call, cost=0, outcome="not_billed")),
        lambda: journal.reserve(reservation(call, 1, amount=0)),
        lambda: journal.release(Release(b"r" * 16, "b", MONTH, USD)),
        lambda: journal.settle(settlement(call, 1)),
        lambda: journal.finish(finish(call)),
    ]
    for write in writes:
        write()
        installation.step()
        installation.rows("UPDATE shipped SET segment = 0, position = 0")
        installation.step()
    with died(journal):
        installation.step()
    assert installation.granted() == Decimal("0.25")
    assert installation.rows("SELECT count(*), sum(cost_usd) FROM attempt") == [(2, Decimal("0.25"))]
    assert installation.rows("SELECT count(*), sum(cost_usd), sum(reserved_usd) FROM call") == [
        (1, Decimal("0.25"), Decimal(1))
    ]
    assert installation.rows("SELECT count(*) FROM audit_entry") == [(1,)]
    await journal.close()


async def test_a_restarted_shipper_never_reports_less_progress(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads again from where the oldest open call began. Killed meanwhile, it would do all again: a workload that is
    served again after it went beyond its bound would be stopped once more."""
    journal = installation.journal()
    journal.reserve(replace_fields(reservation(new_id().bytes), at=1))
    for _ in range(3):
        one_call(journal)
    installation.step(2)
    place = installation.rows("SELECT segment, position FROM shipped")
    for module in (shipper_module, epoch_shipper):
        monkeypatch.setattr(module, "BATCH", 2)
    shipper = Shipper(installation.home)
    for _ in range(7):
        installation.step(1, shipper)
        assert installation.rows("SELECT segment, position FROM shipped") == place
    assert len(shipper._epochs[journal.epoch].state.calls) == 1, "for others no segment is kept"
    one_call(journal)
    installation.step(3, shipper)
    assert installation.rows("SELECT segment, position FROM shipped") > place
    await journal.close()


def aged(record: Record, days: int = 30) -> Record:
    return replace_fields(record, at=record.at - days * 86_400_000)  # type: ignore[attr-defined]


async def test_a_journal_shipped_again_after_its_day_was_archived_adds_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    """Neither to sums nor to what its worker spent; what was open when the day left still follows."""
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    *ended, late = (new_id().bytes for _ in range(3))
    for call in ended:
        journal.reserve(aged(reservation(call)))
        journal.settle(settlement(call))
        journal.finish(aged(finish(call)))
    journal.reserve(aged(reservation(late)))
    installation.step()

    def sums() -> list[tuple[Any, ...]]:
        with psycopg.connect(installation.database.urls["control"]) as conn:
            rollup_store.roll_up(conn)
        return installation.rows(
            """SELECT (SELECT (sum(calls), sum(cost_usd))::text FROM call_day), (SELECT sum(cost_usd) FROM part_day),
                 (SELECT sum(cost_usd) FROM charge_total), (SELECT count(*) FROM call), (SELECT count(*) FROM charge)"""
        )

    def entered() -> list[UUID]:
        return [id for (id,) in installation.rows("SELECT id FROM audit_entry WHERE action = 'call' ORDER BY id")]

    def leave() -> archive.ArchiveResult:
        with psycopg.connect(installation.database.urls["control"]) as conn:
            (day,) = archive_store.days_to_archive(conn, datetime.now(UTC).date() - timedelta(days=8), 1)
            return archive.archive_day(conn, str(tmp_path / "facts"), day)

    sums()
    assert leave().attempts == 2
    ((calls, parts, charged, *left),) = sums()
    assert (parts, charged, left) == (Decimal("0.5"), Decimal("0.5"), [0, 0])
    assert entered() == [UUID(bytes=call) for call in ended]
    installation.rows("DELETE FROM audit_entry")  # entries leave as well
    for _ in range(2):
        installation.rows("UPDATE shipped SET segment = 0, position = 0")
        installation.step()
        assert sums() == [(calls, parts, charged, 0, 0)] and entered() == []
    journal.settle(settlement(late))
    journal.finish(aged(finish(late)))
    installation.step()
    assert sums()[0][1:3] == (Decimal("0.75"), Decimal("0.75"))
    assert leave().attempts == 1
    installation.rows("UPDATE shipped SET segment = 0, position = 0")
    with died(journal):
        installation.step()
    assert sums()[0][1:] == (Decimal("0.75"), Decimal("0.75"), 0, 0)
    assert installation.granted() == Decimal("0.75"), "what has left is spent"
    await journal.close()


async def test_shipped_segments_are_deleted_unless_a_call_in_them_is_open(installation: Installation) -> None:
    journal = installation.journal()
    shipper = Shipper(installation.home)
    long = new_id().bytes
    journal.reserve(reservation(long))
    for number in range(600):
        await room(journal)
        one_call(journal)
        if number % 100 == 99:
            installation.step(2, shipper)
    assert segment_numbers(journal.folder)[0] == 1
    journal.settle(settlement(long))
    journal.finish(finish(long))
    installation.step(2, shipper)
    assert segment_numbers(journal.folder)[0] > 1
    assert installation.rows("SELECT gaps FROM shipped") == [(0,)]
    installation.rows("DELETE FROM call")
    installation.rows("UPDATE shipped SET segment = 1")  # the database is restored to an earlier moment
    one_call(journal)
    installation.step()
    (lost,) = installation.rows("SELECT kind, message FROM finding")
    assert lost[0] == "journal_gap" and f"segments 1 to {segment_numbers(journal.folder)[0] - 1} of" in lost[1]
    with died(journal):
        installation.step(2)
    assert installation.rows("SELECT count(*) FROM finding") == [(1,)]
    assert installation.rows("SELECT gaps, done FROM shipped") == [(1, True)]
    assert 2 <= installation.rows("SELECT count(*) FROM call")[0][0] < 602, "what is there is shipped again"
    await journal.close()


async def test_a_call_without_its_beginning_is_reported_and_charged_at_its_bound(installation: Installation) -> None:
    """The database was restored to a moment at which it went on, and the segment in which it began is deleted since."""
    journal, shipper = installation.journal(), Shipper(installation.home)
    installation.lend(journal.epoch, 100 * USD)
    journal.reserve(replace_fields(reservation(long := new_id().bytes), at=1))
    while journal._current.number < 2:
        await room(journal)
        one_call(journal)
    installation.step(1, shipper)
    (moment,) = installation.rows("SELECT segment, position FROM shipped")
    journal.settle(settlement(long))
    journal.finish(finish(long))
    installation.step(2, shipper)
    assert segment_numbers(journal.folder)[0] == moment[0] == 2
    installation.rows("DELETE FROM charge WHERE call_id = %s", UUID(bytes=long))
    installation.rows("UPDATE attempt SET state = 'open', cost_usd = 0 WHERE call_id = %s", UUID(bytes=long))
    installation.rows("UPDATE shipped SET segment = %s, position = %s", *moment)
    with died(journal):
        installation.step(3)
    ended = "SELECT state, cost_usd, flags, parts FROM attempt WHERE call_id = %s"
    assert installation.rows(ended, UUID(bytes=long)) == [("crashed", 1, ["crash"], {"bound": [0, USD]})]
    ((message,),) = installation.rows("SELECT message FROM finding WHERE kind = 'journal_gap'")
    assert "taken over segments of its journal in which they began, and" in message
    assert installation.rows("SELECT gaps, done FROM shipped") == [(1, True)]
    assert installation.granted() == 100, "what it had spent is not known"
    await journal.close()


async def test_a_worker_without_journal_is_written_off_after_the_reconnection_time(
    installation: Installation,
) -> None:
    """It was taken over whole, before the database was restored to an earlier moment."""
    gone, elsewhere = new_id(), new_id()
    for epoch in (gone, elsewhere):
        installation.lend(epoch, 10 * USD)
    installation.rows("UPDATE gateway SET home = 'other' WHERE epoch = %s", elsewhere)
    installation.rows(
        """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, reserved_usd, cost_usd,
             usage, epoch, workload)
           SELECT gen_random_uuid(), 0, now(), 'd', 's', 'm', 'open', 'open', 3, 0, '{}', e, 'assistant'
           FROM unnest(%s::uuid[]) e""",
        [gone, elsewhere],
    )
    shipper, silent = Shipper(installation.home), "UPDATE gateway SET heartbeat_at = now() - interval '61 seconds'"
    installation.rows(silent)
    installation.step(1, shipper)
    installation.rows("UPDATE gateway SET heartbeat_at = now()")
    shipper._lost_checked_ms = 0
    installation.step(1, shipper)
    assert installation.rows("SELECT count(*) FROM finding") == [(0,)]
    installation.rows(silent)
    shipper._lost_checked_ms = 0
    installation.step(2, shipper)
    assert installation.rows("SELECT state FROM gateway WHERE epoch = %s", gone) == [("fenced",)]
    assert installation.rows("SELECT subject FROM finding") == [(f"gateway/{gone}",)]
    assert installation.rows("SELECT epoch, gaps, done FROM shipped") == [(gone, 1, True)]
    assert installation.granted() == 20, "what it spent of its slices is not known"
    assert sorted(installation.rows("SELECT state, cost_usd FROM attempt")) == [("crashed", 3), ("open", 0)]


@pytest.mark.parametrize("gone", ["all", "its beginning"])
async def test_a_call_without_journal_is_recorded_once_everywhere(
    installation: Installation, tmp_path: Path, gone: str
) -> None:
    """A first attempt that cost something, then one that is open."""
    journal, clock = installation.journal(), ManualClock(datetime.now(UTC) + timedelta(seconds=3))
    installation.lend(journal.epoch, 10 * USD)
    call = new_id().bytes
    journal.reserve(reservation(call))
    journal.settle(settlement(call, outcome="failed"))
    journal.reserve(reservation(call, 1))
    shipper = Shipper(installation.home, clock)
    installation.step(2, shipper)
    assert installation.rows("SELECT number, state FROM attempt ORDER BY 1") == [(0, "settled"), (1, "open")]
    journal.settle(settlement(call, 1))
    journal.finish(finish(call))
    journal._flush()
    installation.journals.clear()
    shutil.copytree(journal.folder, kept := tmp_path / "kept")
    spent = Decimal("1.25")
    with died(journal):
        if gone == "all":
            shutil.rmtree(journal.folder)
        else:  # what is left says how the call went on
            entries, _ = read_segment(path := segment_path(journal.folder, 1))
            with path.open("r+b") as file:
                file.seek(HEADER_BYTES + 20)
                file.write(b"\xff" * (entries[2].end - HEADER_BYTES - 30))
            spent = Decimal("0.5")
        installation.rows("UPDATE gateway SET heartbeat_at = now() - interval '61 seconds'")
        shipper = Shipper(installation.home, clock)
        for late in (False, True, True):
            shipper._lost_checked_ms = 0
            installation.step(3, shipper)
            sums = "SELECT (SELECT sum(cost_usd) FROM {}), (SELECT sum(cost_usd) FROM attempt), sum(cost_usd) FROM {}"
            for book in ("call", "charge", "call_delta", "charge_delta"):
                assert installation.rows(sums.format("charge", book)) == [(spent,) * 3], (book, late)
            assert installation.rows("SELECT count(*) FROM open_call") == [(0,)]
            assert installation.rows("SELECT person_id, key_id FROM call") == [(UUID(PERSON), None)]
            assert installation.granted() == 10, "what else was spent of the slice is not known"
            assert installation.rows("SELECT kind FROM finding") == [("journal_gap",)]
            if not late:
                shutil.copytree(kept, journal.folder)
                spent = Decimal("0.5")  # what stood open cost what is told of it now
    await journal.close()


@pytest.mark.parametrize("archived", [False, True], ids=["call", "archived"])
async def test_late_records_of_a_written_off_call_are_recorded_once_everywhere(
    installation: Installation, tmp_path: Path, archived: bool
) -> None:
    """Its first attempt was known as open; who has its journal tells that it was not billed, and of a second one."""
    journal, clock = installation.journal(), ManualClock(datetime.now(UTC) + timedelta(seconds=3))
    installation.lend(journal.epoch, USD, limit=USD)
    call = new_id().bytes
    of_then: Callable[[Record], Record] = aged if archived else replace_fields
    journal.reserve(of_then(reservation(call)))
    installation.step(1, Shipper(installation.home, clock))
    journal.settle(settlement(call, 0, cost=0, outcome="not_billed"))
    journal.reserve(of_then(reservation(call, 1, amount=0)))
    journal.settle(settlement(call, 1))
    journal.finish(of_then(finish(call)))
    journal._flush()
    installation.journals.clear()
    journal.folder.rename(kept := tmp_path / "kept")

    def sums() -> dict[str, Decimal]:
        with psycopg.connect(installation.database.urls["control"]) as conn:
            rollup_store.roll_up(conn)
        tables = ("call_day", "part_day", "charge_total", "person_day", "document_day")
        return {table: installation.rows(f"SELECT sum(cost_usd) FROM {table}")[0][0] for table in tables}

    with died(journal):
        (shipper := Shipper(installation.home, clock))._lost_checked_ms = 0
        installation.step(1, shipper)
        assert installation.rows("SELECT state, cost_usd FROM attempt") == [("crashed", 1)]
        assert set(sums().values()) == {Decimal(1)}
        if archived:
            with psycopg.connect(installation.database.urls["control"]) as conn:
                (day,) = archive_store.days_to_archive(conn, datetime.now(UTC).date() - timedelta(days=8), 1)
                archive.archive_day(conn, str(tmp_path / "facts"), day)
            spent = Decimal("1.25")  # what has left stays as it is there
        else:
            spent = Decimal("0.25")
        for _ in range(2):
            shutil.copytree(kept, journal.folder)
            installation.step(3, Shipper(installation.home, clock))
            found = installation.rows("SELECT number, state, cost_usd FROM attempt ORDER BY 1")
            assert found == [*([] if archived else [(0, "settled", 0)]), (1, "settled", Decimal("0.25"))]
            assert sums() == dict.fromkeys(sums(), spent)
            assert installation.rows("SELECT sum(calls) FROM call_day") == [(1,)]
            told = installation.rows("SELECT body FROM audit_entry WHERE action = 'call.cost'")
            usd = [decode(bytes(body)).detail["more_usd" if archived else "cost_usd"] for (body,) in told]
            assert usd == ["0.250000000000"]
            if not archived:
                assert installation.rows("SELECT cost_usd FROM call") == [(spent,)]
                assert installation.granted() == 1, "and no more than the budget is"
    await journal.close()


async def test_a_copied_journal_is_left_to_the_host_of_its_worker(installation: Installation) -> None:
    """A HOME was copied while it ran, and served on the same database."""
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    one_call(journal)
    journal.reserve(reservation(still_open := new_id().bytes))
    installation.step()
    copy = Home(installation.home.root.with_name("copy"))
    shutil.copytree(installation.home.root, copy.root)
    installation.rows("UPDATE gateway SET heartbeat_at = now() - interval '30 seconds'")
    installation.step(2, Shipper(copy))
    assert installation.rows("SELECT state FROM gateway") == [("live",)] and installation.granted() == 10
    installation.rows("UPDATE gateway SET heartbeat_at = now() - interval '61 seconds'")  # that machine is away
    installation.step(2, Shipper(copy))
    assert installation.rows("SELECT state FROM gateway") == [("fenced",)] and installation.granted() == Decimal("1.25")
    journal.settle(settlement(still_open))
    journal.finish(finish(still_open))
    late = one_call(journal)
    with died(journal):
        installation.step(3)
    assert (UUID(bytes=late),) in installation.rows("SELECT id FROM call"), "what came after the copy is not lost"
    assert installation.granted() == Decimal("0.75") and not journal.folder.exists(), "what all three cost"
    assert installation.rows("SELECT done FROM shipped") == [(True,)]
    await journal.close()


async def test_a_journal_older_than_the_shipped_state_returns_nothing(installation: Installation) -> None:
    """The volume of a gateway was restored from a snapshot: what its worker did after that is in the ledger as far as
    it was taken over, and the rest of it is nowhere."""
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    one_call(journal)
    journal.reserve(reservation(still_open := new_id().bytes))
    installation.step()
    snapshot = installation.home.root.with_name("snapshot")
    shutil.copytree(journal.folder, snapshot)
    journal.settle(settlement(still_open))
    journal.finish(finish(still_open))
    one_call(journal)
    installation.step()
    one_call(journal)  # the machine ends before this is taken over
    journal._flush()
    shutil.rmtree(journal.folder)
    shutil.copytree(snapshot, journal.folder)
    with died(journal):
        installation.step(3)
    assert installation.granted() == Decimal(10), "what was spent after the last that the ledger has is not known"
    assert installation.rows("SELECT state, cost_usd FROM attempt") == [("settled", Decimal("0.25"))] * 3
    assert installation.rows("SELECT status, cost_usd FROM call") == [("ok", Decimal("0.25"))] * 3
    assert installation.rows("SELECT count(*) FROM audit_entry") == [(3,)], "and nothing is told twice"
    assert installation.rows("SELECT gaps, done FROM shipped") == [(1, True)] and not journal.folder.exists()
    ((message, hint),) = installation.rows("SELECT message, hint FROM finding WHERE kind = 'journal_gap'")
    assert "snapshot" in message and "written off" in hint
    await journal.close()


async def test_a_dead_workers_journal_is_shipped_in_batches(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While PostgreSQL was away it may be more than fits into memory, or into one transaction."""
    for module in (shipper_module, epoch_shipper):
        monkeypatch.setattr(module, "BATCH", 30)
    journal, sizes = installation.journal(), list[int]()
    for _ in range(100):
        await room(journal)
        one_call(journal)
    ship = EpochShipper.ship

    def noted(shipper: EpochShipper, *arguments: Any) -> None:
        sizes.append(len(shipper._touched))
        ship(shipper, *arguments)

    monkeypatch.setattr(EpochShipper, "ship", noted)
    with died(journal):
        installation.step(20)
    assert installation.rows("SELECT count(*) FROM call") == [(100,)] and sum(sizes) >= 100
    assert max(sizes) <= 30, sizes
    assert installation.rows("SELECT gaps, done FROM shipped") == [(0, True)] and not journal.folder.exists()
    await journal.close()


async def test_a_dead_workers_slices_of_many_budgets_are_returned_in_parts(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once took longer than a transaction may stand still that has budgets locked: it never ended, and nothing
    came into the ledger behind it. What a failure leaves goes back with the next try."""
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    one_call(journal)
    installation.rows(
        """WITH many AS (INSERT INTO budget_period (budget, period, limit_usd, granted_usd)
             SELECT 'key/' || n, '2026-11', 3, 2 FROM generate_series(1, 9) n RETURNING *)
           INSERT INTO budget_slice (epoch, budget, period, granted_usd, released_usd)
             SELECT %s, budget, period, 3, CASE WHEN budget < 'key/5' THEN 3 ELSE 1 END FROM many""",
        journal.epoch,
    )
    parts, give_back = list[int](), ledger_store._return_amounts

    def returned(conn: ledger_store.Conn, epoch: UUID, back: dict[tuple[str, str], int]) -> None:
        if len(parts) == 1:
            parts.clear()
            raise psycopg.OperationalError("it goes away")
        parts.append(len(back))
        give_back(conn, epoch, back)

    monkeypatch.setattr(ledger_store, "RETURN_BATCH", 2)
    monkeypatch.setattr(ledger_store, "_return_amounts", returned)
    with died(journal):
        with pytest.raises(psycopg.OperationalError):
            installation.step(2)
        parts += [2, 2]  # the first part stays
        installation.step(2)
    assert parts == [2, 2, 2, 2], "of what is even there is nothing to return"
    assert installation.granted() == Decimal("0.25")
    assert installation.rows("SELECT DISTINCT granted_usd FROM budget_period WHERE budget >= 'key/5'") == [(0,)]
    assert installation.rows("SELECT count(*) FROM budget_movement WHERE type = 'recovered'") == [(6,)]
    await journal.close()


async def test_damage_is_quarantined_and_the_slices_are_written_off(installation: Installation) -> None:
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    for _ in range(5):
        one_call(journal)
    journal.reserve(reservation(cut := new_id().bytes))
    journal.settle(settlement(cut))
    journal._flush()
    path = segment_path(journal.folder, 1)
    entries, _ = read_segment(path)
    for before in (entries[6], entries[-3]):  # of the call that was cut nothing tells but what one attempt cost
        with path.open("r+b") as file:
            file.seek(before.end + 20)
            file.write(b"\xff\xff\xff")
    with died(journal):
        installation.step(2)
    assert installation.granted() == Decimal(10), "what cannot be proven unspent is not lent again"
    assert installation.rows("SELECT gaps FROM shipped") == [(1,)]
    assert installation.rows("SELECT kind FROM finding") == [("journal_gap",)]
    assert installation.rows("SELECT count(*) FROM call") == [(5,)], "records after the damage are used"
    kept = list(installation.home.journal.glob("*.quarantined"))
    assert len(kept) == 1 and kept[0].stat().st_size == SMALLEST_SEGMENT
    assert installation.rows("SELECT state FROM attempt WHERE state = 'crashed'") == [("crashed",)]
    await journal.close()


async def test_an_unreadable_page_is_damage_and_an_unreadable_journal_blocks_no_other(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, foreign, shipper = installation.journal(), installation.journal(), Shipper(installation.home)
    installation.lend(broken.epoch, 100 * USD)
    for _ in range(30):
        one_call(broken)
    one_call(foreign)
    whole = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.parent == foreign.folder and offset > HEADER_BYTES:  # behind what it gave
            raise PermissionError(errno.EACCES, "denied")
        if path == segment_path(broken.folder, 1) and offset < 8192 and offset + size > 4096:
            raise OSError(errno.EIO, "unreadable")
        return whole(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    with died(foreign), died(broken):
        installation.step(3, shipper)
        shipper.unread[new_id()] = "deleted by hand"
        installation.step(1, shipper)
        assert list(shipper.unread) == [foreign.epoch]
        assert installation.rows("SELECT epoch, gaps, done FROM shipped") == [(broken.epoch, 1, True)]
        assert 10 < installation.rows("SELECT count(*) FROM call")[0][0] < 30, "records around it are used"
        assert installation.granted() == 100 and len(list(installation.home.journal.glob("*.quarantined"))) == 1
        monkeypatch.undo()
        installation.step(3, shipper)
        assert installation.rows("SELECT gaps FROM shipped WHERE done AND epoch = %s", foreign.epoch) == [(0,)]
        assert installation.rows("SELECT count(*) FROM call WHERE epoch = %s", foreign.epoch) == [(1,)]
        assert shipper.unread == {}
    for journal in (broken, foreign):
        await journal.close()


async def test_damage_under_a_running_worker_is_found_at_its_next_segment(
    installation: Installation,
) -> None:
    journal = installation.journal()
    installation.lend(journal.epoch, 100 * USD)
    shipper = Shipper(installation.home)
    for _ in range(5):
        one_call(journal)
    entries, _ = read_segment(segment_path(journal.folder, 1))
    with segment_path(journal.folder, 1).open("r+b") as file:
        file.seek(entries[6].end + 20)
        file.write(b"\xff\xff\xff")
    installation.step(3, shipper)
    assert installation.rows("SELECT count(*) FROM call") == [(2,)], "perhaps it is still being written"
    while journal._current.number < 3:
        await room(journal)
        one_call(journal)
    installation.step(3, shipper)
    assert installation.rows("SELECT gaps FROM shipped") == [(1,)]
    assert installation.rows("SELECT kind FROM finding") == [("journal_gap",)]
    with died(journal):
        installation.step(2)
    assert len(list(installation.home.journal.glob("*.quarantined"))) == 1
    assert installation.granted() == Decimal(100)
    assert installation.rows("SELECT count(*) FROM finding") == [(1,)]
    await journal.close()


async def test_a_recovered_epoch_whose_folder_is_still_there_is_only_removed(installation: Installation) -> None:
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    one_call(journal)
    installation.step()
    installation.rows("UPDATE shipped SET done = true")
    with died(journal):
        installation.step()
    assert not journal.folder.exists()
    assert installation.granted() == Decimal(10)
    await journal.close()


ODD = 'a\tb\nc\rd\be\x01f\x7fg"h\\i\\nj\\u0041k,l\\.\nm\u2028n\xe9\U0001f600null'


async def test_odd_text_arrives_as_it_was_written(installation: Installation) -> None:
    journal = installation.journal()
    call, again = new_id().bytes, new_id().bytes
    odd = {"endpoint": ODD, "sources": [(ODD, ODD, 1, 2)], "feature": ODD, "workload": ODD}
    for id in (call, again):
        journal.reserve(replace_fields(reservation(id), deployment=ODD, model="", site="null"))
        journal.settle(replace_fields(settlement(id), flags=[ODD, "b"]))
        journal.finish(replace_fields(finish(id), **odd))
        installation.step()
        installation.rows("UPDATE shipped SET segment = 0, position = 0")  # the next round meets what is there
    facts = "SELECT endpoint, workload, detail->'sources'->0->>0, detail->>'feature', deployment, site, model FROM call"
    assert installation.rows(facts) == [(ODD, ODD, ODD, ODD, ODD, "null", "")] * 2
    assert installation.rows("SELECT deployment, flags, purpose FROM attempt") == [(ODD, [ODD, "b"], "")] * 2
    told = installation.rows("SELECT subject, body FROM audit_entry ORDER BY queued")
    assert [subject for subject, _ in told] == [f"workload/{ODD}"] * 2
    for (_, body), id in zip(told, (call, again), strict=True):
        entry = decode(body)
        assert (entry.id, entry.detail["sources"], entry.encode()) == (UUID(bytes=id), [[ODD, 1, 2]], body)
    await journal.close()


async def test_rows_cut_between_two_rounds_are_written_once(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a call that is settled in one round and ends in the next, of one that was shown as open before, and of one of
    which an attempt is read on after its end, to learn what it costs. A shipper that goes on knows what is there, and
    writes nothing a second time."""
    monkeypatch.setattr(ledger_writer, "record_many", lambda *_: pytest.fail("something was there already"))
    journal = installation.journal()
    shipper = Shipper(installation.home)
    call, shown, hedged = (new_id().bytes for _ in range(3))
    journal.reserve(replace_fields(reservation(shown), at=reservation(shown).at - 3000))
    journal.reserve(reservation(call))
    journal.settle(settlement(call))
    for attempt in range(2):
        journal.reserve(reservation(hedged, attempt))
    journal.settle(settlement(hedged))
    journal.finish(finish(hedged))
    installation.step(1, shipper)
    assert installation.rows("SELECT state FROM attempt ORDER BY state") == [("open",), ("settled",), ("settled",)]
    assert installation.rows("SELECT count(*) FROM call") == [(0,)]
    journal.settle(settlement(shown))
    journal.settle(settlement(hedged, 1))
    for id in (call, shown):
        journal.finish(finish(id))
    installation.step(1, shipper)
    assert installation.rows("SELECT state, count(*), sum(cost_usd) FROM attempt GROUP BY 1") == [
        ("settled", 4, Decimal(1))
    ]
    assert installation.rows("SELECT count(*), sum(cost_usd) FROM charge") == [(4, Decimal(1))]
    assert installation.rows("SELECT count(*), sum(cost_usd) FROM call") == [(3, Decimal(1))]
    assert installation.rows("SELECT count(*) FROM audit_entry") == [(3,)]
    await journal.close()


async def test_a_path_with_a_nul_does_not_stop_the_ledger(installation: Installation) -> None:
    journal = installation.journal()
    end = finish(new_id().bytes, "refused")
    odd = {"endpoint": "/v1/\0x", "sources": [("d", "a\0b", 1, 2)]}
    journal.finish(Finish(**{name: getattr(end, name) for name in end.__struct_fields__} | odd))
    installation.step()
    assert installation.rows("SELECT endpoint, status FROM call") == [("/v1/\ufffdx", "refused")]
    await journal.close()


async def test_a_torn_end_is_recovered_and_unspent_amounts_are_returned(installation: Installation) -> None:
    journal = installation.journal()
    installation.lend(journal.epoch, 10 * USD)
    one_call(journal)
    one_call(journal)
    await asyncio.sleep(0)
    path = segment_path(journal.folder, 1)
    entries, _ = read_segment(path)
    with path.open("r+b") as file:
        file.truncate(entries[-1].end - 3)
    with died(journal):
        installation.step(2)
    assert installation.granted() == Decimal("0.5")
    assert installation.rows("SELECT status FROM call ORDER BY status") == [("crashed",), ("ok",)]
    assert installation.rows("SELECT gaps FROM shipped") == [(0,)]
    await journal.close()


async def test_a_cost_above_the_bound_is_charged_to_the_budget(installation: Installation) -> None:
    journal = installation.journal()
    installation.lend(journal.epoch, USD)
    call = new_id().bytes
    journal.reserve(reservation(call))
    journal.settle(settlement(call, cost=3 * USD))
    journal.finish(finish(call))
    with died(journal):
        installation.step(2)
    assert installation.granted() == Decimal(3)
    await journal.close()


async def test_without_a_database_nothing_is_lost(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = installation.journal()
    one_call(journal)
    stop, tried = threading.Event(), threading.Event()

    def noted(*arguments: Any, **more: Any) -> Any:
        tried.set()
        return connect(*arguments, **more)

    monkeypatch.setattr(shipper_module, "connect", noted)
    down = "postgresql://127.0.0.1:1/none"
    thread = threading.Thread(target=run, args=(installation.home, down, stop))
    thread.start()
    assert await asyncio.to_thread(tried.wait, 30), "it holds the lock before it connects"
    with pytest.raises(Unavailable):
        run(installation.home, down, stop)
    stop.set()
    await asyncio.to_thread(thread.join)
    installation.step()
    assert installation.rows("SELECT count(*) FROM call") == [(1,)]
    await journal.close()


async def test_a_round_is_postponed_only_once_for_an_idle_core(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends a transaction that stands still, as it would each time on a machine that has too much to do."""
    stop, threads = threading.Event(), list[str]()

    def step(_shipper: Shipper, conn: psycopg.Connection[Any], **_: object) -> int:
        threads.append(threading.current_thread().name.partition("_")[0])
        if len(threads) == 1:
            assert conn.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("5s",)
            raise psycopg.errors.IdleInTransactionSessionTimeout
        stop.set()
        return 0

    monkeypatch.setattr(Shipper, "run_round", step)
    monkeypatch.setattr(shipper_module, "_WAIT_S", 0.01)
    monkeypatch.setattr(shipper_module, "is_machine_full", lambda: False)
    await asyncio.to_thread(run, installation.home, installation.database.urls["shipper"], stop)
    assert threads[0] == "calm" and "calm" not in threads[1:]


async def test_a_full_machine_is_not_waited_for(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, threads = threading.Event(), list[str]()

    def step(_shipper: Shipper, _conn: psycopg.Connection[Any], **_: object) -> int:
        threads.append(threading.current_thread().name.partition("_")[0])
        stop.set()
        return 0

    monkeypatch.setattr(Shipper, "run_round", step)
    monkeypatch.setattr(shipper_module, "is_machine_full", lambda: True)
    await asyncio.to_thread(run, installation.home, installation.database.urls["shipper"], stop)
    assert threads and "calm" not in threads


async def test_recovery_of_a_dead_worker_waits_for_no_idle_core(installation: Installation) -> None:
    """While its budgets are locked, callers of other workers wait for them."""
    journal, shipper = installation.journal(), Shipper(installation.home)
    installation.lend(journal.epoch, 10 * USD)
    one_call(journal)
    journal._flush()
    with died(journal), psycopg.connect(installation.database.urls["shipper"], autocommit=True) as conn:
        assert shipper.run_round(conn, calm=True) == epoch_shipper.BATCH, (
            "the next round comes at once, and is not calm"
        )
        assert installation.granted() == 10
        shipper.run_round(conn)
        assert installation.granted() == Decimal("0.25")
        shipper._lost_checked_ms = 0
        assert (shipper.run_round(conn, calm=True), shipper._lost_checked_ms) == (epoch_shipper.BATCH, 0)
    await journal.close()


FULL = 'mount -t tmpfs -o size=4k groundplan-test "$0" && head -c 4096 /dev/zero > "$0/ballast"; exec "$@"'


@pytest.mark.parametrize("before", [[], pytest.param([*UNSHARE, "sh", "-c", FULL], marks=needs_mounts)])
async def test_the_process_ships_within_a_second_and_stops_on_sigterm(
    installation: Installation, before: list[str]
) -> None:
    """Also where the disk has no room for what it tells of itself: it is what frees the disk."""
    journal = installation.journal()
    environment = {**os.environ, "GROUNDPLAN_DATABASE_URL": installation.database.dsn}
    shipping = [sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", str(installation.home.root)]
    process = subprocess.Popen(
        [*before, str(installation.home.run), *shipping] if before else shipping, env=environment
    )
    try:
        one_call(journal)
        async with asyncio.timeout(60):  # it has to start first
            while installation.rows("SELECT count(*) FROM call") != [(1,)]:  # noqa: ASYNC110 -- no event
                await asyncio.sleep(0.05)
        one_call(journal)
        await asyncio.sleep(0)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 60) == 0
    assert installation.rows("SELECT count(*) FROM call") == [(2,)]
    await journal.close()


def test_only_a_few_blueprints_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change makes one, and what one says of thousands of workloads takes a megabyte."""
    asked = list[int]()

    def body(_: object, number: int) -> bytes:
        asked.append(number)
        return encode(blueprint(number, [], []))

    monkeypatch.setattr(ledger_store, "blueprint_body", body)
    context: Any = ledger_writer.LedgerWriter(Home(tmp_path), SystemClock())
    for number in range(1, 101):
        context._load_blueprints(None, {number, 1})  # the first one is still in use
    assert asked == list(range(1, 101)), "each is read once"
    assert {1, 90, 100} <= context._teams.keys() == context._rates.keys() and len(context._teams) <= 20
    context._load_blueprints(None, {2})
    assert asked[-1] == 2 and 2 in context._teams


def test_a_missing_home_is_reported_on_the_command_line() -> None:
    with pytest.raises(SystemExit):
        main([])


async def test_an_abandoned_new_journal_is_removed(installation: Installation) -> None:
    folder = installation.home.journal / f".{new_id()}.new"
    folder.mkdir()
    (folder / "lock").touch()
    installation.step()
    assert folder.exists()
    long_ago = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    os.utime(folder, (long_ago, long_ago))
    installation.step()
    assert not folder.exists()
