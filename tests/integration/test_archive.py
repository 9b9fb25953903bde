"""Facts that leave for Parquet give the same answers there, sums stay, and nothing is lost when it breaks off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID, uuid4

import duckdb
import fsspec
import psycopg
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from psycopg_pool import ConnectionPool
from typer.testing import CliRunner

from groundplan.api.context import Services
from groundplan.api.cost import upkeep as costs
from groundplan.cli.client import ControlClient
from groundplan.cli.cost import app
from groundplan.core.database import connect
from groundplan.core.errors import GroundplanError, NotFound
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway.journal import archived_store, ledger_store
from groundplan.ledger import (
    archive,
    archive_store,
    batch_queries,
    daily_attribution_store,
    finding_store,
    queries,
    rollup_store,
)
from groundplan.testing.charges import charges_by_period
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Cluster, Database

Conn = psycopg.Connection[Any]
DAY = date(2026, 6, 3)
AT = datetime(2026, 6, 3, 12, tzinfo=UTC)


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as opened:
        for place in range(40):
            add(opened, AT + timedelta(minutes=30 * place), place)
        rollup_store.roll_up(opened)
        yield opened


def add(conn: Conn, at: datetime, number: int) -> None:
    id = UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | number)
    cost = Decimal(number) * Decimal("0.000000000001")
    detail = {"sources": [], "note": 'a "quoted", text\nof two lines \\N'}
    call = (
        id, at, f"workload-{number % 3}", None, None, None, "chat", "ok", 200, None, "acme/m", "own", "rack", cost,
        cost, number, 2, "none", 1, new_id(), False, 12.5, None, detail, 0, 0,
    )  # fmt: skip
    attempt = (
        id, 0, at, "own", "rack", "acme/m", "settled", "ok", 200, cost, cost, {"input": number}, False, ["a,b"], 1.0,
        new_id(), 0.0, None, None, f"workload-{number % 3}", 1, False, {"input": [number, number]}, "", "",
    )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [attempt])
    ledger_store.insert_rows(conn, ledger_store.INSERT_CHARGES, [(id, 0, "support", "2026-06", cost)])
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [call])


SUMS = "SELECT workload, count(*), sum(cost_usd), sum(prompt_tokens) FROM {} GROUP BY 1 ORDER BY 1"


def ask(url: str, statement: str, *more: tuple[date, str]) -> list[tuple[Any, ...]]:
    return archive.query_facts([(DAY, url), *more], statement)[1]


def figures(conn: Conn) -> dict[str, Any]:
    """Whatever the pages of Cost sum over that time, by everything that they sum by."""
    since, until = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    wanted = {"since": since, "until": until, "workload": None, "status": None, "deployment": None, "demo": None}
    return {
        "calls": rollup_store.calls_by(conn, ["day", "workload", "team", "model", "status"], wanted),
        "parts": rollup_store.parts_by(conn, ["day", "workload", "deployment", "part", "tier", "purpose"], wanted),
        "people": daily_attribution_store.cost_by_person(conn, since, until, None, 100),
        "sources": daily_attribution_store.cost_by_source(conn, since, until, None),
        "sources by workload": sorted(daily_attribution_store.sources_by_workload(conn, since, until)),
        "people by workload": sorted(zip(*daily_attribution_store.people_by_workload(conn, since, until), strict=True)),
        "tags by workload": sorted(daily_attribution_store.tags_by_workload(conn, since, until)),
        "people of the day": sorted(
            zip(*daily_attribution_store.people_by_workload(conn, AT, AT + timedelta(hours=12)), strict=True)
        ),
        "sources of some days": daily_attribution_store.cost_by_source(
            conn, since + timedelta(days=1), AT + timedelta(hours=12), None
        ),
        "charged": charges_by_period(conn),
        "summary": queries.cost_summary(conn),
    }


def raw(conn: Conn) -> list[tuple[Any, ...]]:
    return conn.execute(SUMS.format("call WHERE at < '2026-06-04Z'").encode()).fetchall()


def test_archived_days_give_the_same_answers_and_sums(conn: Conn, database: Database, tmp_path: Path) -> None:
    before, whole = raw(conn), figures(conn)
    assert all(whole.values())
    with connect(database.urls["control"]) as control, control.transaction():
        assert archive_store.try_lock(control)
        assert archive_store.days_to_archive(control, date(2026, 6, 4), 9) == [DAY]
        gone = archive.archive_day(control, str(tmp_path), DAY)
    assert (gone.calls, gone.attempts, gone.charges) == (24, 24, 24)
    assert raw(conn) == []
    assert ask(str(tmp_path), SUMS.format("calls")) == before
    assert ask(str(tmp_path), "SELECT sum(cost_usd) FROM charges")[0][0] == gone.cost
    note = ask(str(tmp_path), "SELECT detail ->> 'note' FROM (SELECT detail::JSON AS detail FROM calls)")[0][0]
    assert note == 'a "quoted", text\nof two lines \\N'
    assert figures(conn) == whole
    assert archive_store.days_to_archive(conn, date(2026, 6, 4), 9) == []
    assert [row["day"] for row in archive_store.list_parts(conn)] == [DAY]


def test_a_day_of_many_calls_is_archived_in_parts(conn: Conn, tmp_path: Path) -> None:
    for place in range(40, 45):
        add(conn, AT, place)  # six of one moment are more than leave together, and leave together all the same
    rollup_store.roll_up(conn)
    conn.execute("UPDATE attempt SET epoch = %s", (epoch := new_id(),))
    before, whole = raw(conn), figures(conn)
    gone: list[archive.ArchiveResult] = []
    while not gone or gone[-1].more:
        with conn.transaction():
            gone.append(archive.archive_day(conn, str(tmp_path), DAY, most=5))
    assert [each.attempts for each in gone] == [each.calls for each in gone] == [6, 5, 5, 5, 5, 3]
    assert raw(conn) == [] and figures(conn) == whole
    charged = conn.execute("SELECT epoch, budget, period, cost_usd FROM archived_charge").fetchall()
    assert charged == [(epoch, "support", "2026-06", sum(each.cost for each in gone))], "by which its books are closed"
    parts = [archive.ArchivedPart(row["day"], row["url"], row["part"]) for row in archive_store.list_parts(conn)]
    assert archive.query_facts(parts, SUMS.format("calls"))[1] == before
    assert archive.query_facts(parts, "SELECT sum(cost_usd) FROM charges")[1][0][0] == sum(each.cost for each in gone)
    assert archive_store.days_to_archive(conn, date(2026, 6, 4), 9) == []


def test_a_part_that_was_cut_off_later_in_the_day_is_rewritten(
    conn: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(archive_store, "record_part", killed)
    with pytest.raises(ConnectionError), conn.transaction():
        archive.archive_day(conn, str(tmp_path), DAY, most=15)
    monkeypatch.undo()
    add(conn, AT, 99)  # of a gateway that was cut off, so that fewer hours are as many calls
    for rest, most in ((13, 12), (0, 99)):
        with conn.transaction():
            gone = archive.archive_day(conn, str(tmp_path), DAY, most)
        assert conn.execute("SELECT count(*) FROM call WHERE at < '2026-06-04Z'").fetchone() == (rest,)
        assert gone.more is (rest > 0)


def test_an_archived_call_says_where_it_can_be_read(conn: Conn, database: Database, tmp_path: Path) -> None:
    row = conn.execute("SELECT id FROM call WHERE at < '2026-06-04' ORDER BY at LIMIT 1").fetchone()
    assert row is not None
    with conn.transaction():
        archive.archive_day(conn, str(tmp_path), DAY)
    with connect(database.urls["control"]) as control:
        with pytest.raises(NotFound, match="with those of 2026-06-03") as left:
            queries.receipt(control, row[0])
        for id in (new_id(), uuid4(), UUID(int=2**128 - 1), UUID(int=0)):
            with pytest.raises(NotFound, match="there is no call") as never:
                queries.receipt(control, id)
            assert never.value.code == "call_unknown"
    assert left.value.code == "call_archived"
    (query,) = left.value.hint.split('"')[1:2]
    assert ask(str(tmp_path), query)[0][0] == row[0]


def test_an_object_store_gives_the_same_answers_as_a_folder(conn: Conn, tmp_path: Path) -> None:
    url, before = f"memory://{tmp_path.name}/facts", raw(conn)
    with conn.transaction():
        archive.archive_day(conn, url, DAY)
    assert raw(conn) == [] and ask(url, SUMS.format("calls")) == before
    with pytest.raises(GroundplanError) as refused:
        ask(f"memory://{tmp_path.name}/nothing", "SELECT 1")
    assert refused.value.code == "store_unreadable"


def test_files_without_a_later_column_are_read_with_the_others(conn: Conn, tmp_path: Path) -> None:
    with conn.transaction():
        archive.archive_day(conn, str(tmp_path), DAY)
    newer = tmp_path / "attempts" / f"{DAY}.parquet"
    before = date(2020, 1, 1)
    with duckdb.connect() as duck:
        older = tmp_path / "attempts" / f"{before}.parquet"
        duck.execute(f"COPY (SELECT * EXCLUDE (purpose) FROM read_parquet('{newer}')) TO '{older}' (FORMAT parquet)")
    for other in ("calls", "charges"):
        shutil.copy(tmp_path / other / f"{DAY}.parquet", tmp_path / other / f"{before}.parquet")
    mark = (before, str(tmp_path))
    found = ask(str(tmp_path), "SELECT count(*), count(purpose), sum(cost_usd) FROM attempts", mark)
    alone = ask(str(tmp_path), "SELECT sum(cost_usd) FROM charges")
    assert found == [(48, 24, 2 * alone[0][0])]


def test_days_archived_to_an_earlier_store_are_still_read(conn: Conn, tmp_path: Path) -> None:
    """Nor does a file count whose day was not noted: a write that broke off, or one that somebody put there."""
    later, whole = DAY + timedelta(days=1), conn.execute(SUMS.format("call").encode()).fetchall()
    one, two = tmp_path / "one", f"memory://{tmp_path.name}/two"
    with conn.transaction(force_rollback=True):
        archive.archive_day(conn, str(one), later)
    with conn.transaction():
        archive.archive_day(conn, str(one), DAY)
    with conn.transaction():
        archive.archive_day(conn, two, later)
    noted = [(row["day"], row["url"]) for row in archive_store.list_parts(conn)]
    assert noted == [(DAY, str(one)), (later, two)] and (one / "calls" / f"{later}.parquet").exists()
    assert archive.query_facts(noted, SUMS.format("calls"))[1] == whole
    (one / "calls" / f"{DAY}.parquet").unlink()
    with pytest.raises(GroundplanError) as refused:
        archive.query_facts(noted, SUMS.format("calls"))
    assert refused.value.code == "store_unreadable" and str(DAY) in refused.value.message


def test_an_interrupted_archival_deletes_no_rows(conn: Conn, tmp_path: Path) -> None:
    before = raw(conn)
    with conn.transaction(force_rollback=True):
        archive.archive_day(conn, str(tmp_path), DAY)
    assert raw(conn) == before
    with conn.transaction():
        archive.archive_day(conn, str(tmp_path), DAY)
    assert ask(str(tmp_path), SUMS.format("calls")) == before


class Lossy(MemoryFileSystem):  # type: ignore[misc]
    """A store that takes a file and keeps only its beginning, as one does whose disk fills up behind a cache."""

    protocol = "lossy"
    store: ClassVar[dict[str, Any]] = {}

    def put_file(self, lpath: str, rpath: str) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes()[:-1])


def test_rows_that_the_store_lost_are_not_deleted(conn: Conn) -> None:
    fsspec.register_implementation("lossy", Lossy, clobber=True)
    before = raw(conn)
    with pytest.raises(GroundplanError) as refused, conn.transaction():
        archive.archive_day(conn, "lossy://facts", DAY)
    assert refused.value.code == "archive_differs" and "Nothing was deleted" in refused.value.hint
    assert raw(conn) == before and archive_store.list_parts(conn) == []


def test_two_installations_do_not_write_over_each_other(conn: Conn, postgres_cluster: Cluster, tmp_path: Path) -> None:
    with conn.transaction():
        archive.archive_day(conn, str(tmp_path), DAY)
    mine = ask(str(tmp_path), SUMS.format("calls"))
    with postgres_cluster.database() as second, connect(second.urls["owner"], autocommit=True) as other:
        for place in range(3):
            add(other, AT + timedelta(minutes=place), 500 + place)
        rollup_store.roll_up(other)
        with pytest.raises(GroundplanError) as refused, other.transaction():
            archive.archive_day(other, str(tmp_path), DAY)
        assert refused.value.code == "archive_taken" and "folder of its own" in refused.value.hint
        assert len(raw(other)) == 3 and archive_store.list_parts(other) == []
    assert ask(str(tmp_path), SUMS.format("calls")) == mine


@pytest.mark.parametrize("step", ["calls", "attempts", "charges", "note"])
def test_killing_the_archival_loses_no_facts(conn: Conn, database: Database, tmp_path: Path, step: str) -> None:
    """In the middle of any file, or once all are there: facts stay, and leave whole the next time."""
    before, whole = raw(conn), figures(conn)
    killed = f"""
import os, signal, sys
from datetime import date
from pathlib import Path
from groundplan.core.database import connect
from groundplan.ledger import archive, archive_store
put, note = archive._put, archive_store.record_part
def half(url, name, file):
    put(url, name, file)
    if name.startswith({step!r}):
        Path(url, name).write_bytes(file.read_bytes()[:40])
        os.kill(os.getpid(), signal.SIGKILL)
def last(*args):
    note(*args)
    if {step!r} == "note":
        os.kill(os.getpid(), signal.SIGKILL)
archive._put, archive_store.record_part = half, last
with connect(sys.argv[1], autocommit=True) as conn, conn.transaction():
    archive.archive_day(conn, sys.argv[2], date(2026, 6, 3))
"""
    done = subprocess.run([sys.executable, "-c", killed, database.urls["owner"], str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert raw(conn) == before and figures(conn) == whole and archive_store.list_parts(conn) == []
    add(conn, AT + timedelta(minutes=7), 900)  # what came since
    rollup_store.roll_up(conn)
    before, whole = raw(conn), figures(conn)
    with conn.transaction():
        archive.archive_day(conn, str(tmp_path), DAY)
    assert ask(str(tmp_path), SUMS.format("calls")) == before and figures(conn) == whole and raw(conn) == []


def test_files_and_folders_are_synced_before_rows_are_deleted(
    conn: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are gone for good once the transaction is durable; a page cache is not."""
    synced: list[Path] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    url = tmp_path / "new" / "facts"
    with conn.transaction():
        archive.archive_day(conn, str(url), DAY)
    for table in archive_store.TABLES:
        assert {url / f"{table}/{DAY}.parquet", url / table, url, url.parent} <= set(synced)


def test_facts_arriving_during_archival_are_not_deleted(conn: Conn, tmp_path: Path) -> None:
    with pytest.raises(psycopg.errors.SerializationFailure), conn.transaction():
        archive_store.record_part(conn, DAY, str(tmp_path), {"calls": 1, "attempts": 1, "charges": 1}, Decimal(0), "")
        archive_store.delete_archived(conn, DAY)
    assert len(raw(conn)) == 3


def test_late_facts_of_an_archived_day_are_archived_too(conn: Conn, tmp_path: Path) -> None:
    """Such as of a gateway that was cut off for weeks: sums had it at once, files and DuckDB once it is archived."""
    later, url = date(2026, 6, 4), str(tmp_path)
    with conn.transaction():
        archive.archive_day(conn, url, DAY)
    assert archive_store.days_to_archive(conn, later, 9) == []
    add(conn, AT + timedelta(hours=1), 1000)
    rollup_store.roll_up(conn)
    whole, late = figures(conn), raw(conn)
    assert archive_store.days_to_archive(conn, later, 9) == [DAY], "of an archived day facts came"
    with pytest.raises(GroundplanError), conn.transaction():
        (tmp_path / "file").write_text("")
        archive.archive_day(conn, str(tmp_path / "file" / "below"), DAY)
    assert raw(conn) == late, "nothing is lost where it breaks off"
    with conn.transaction():
        gone = archive.archive_day(conn, f"memory://{tmp_path.name}/late", DAY)
    add(conn, AT + timedelta(hours=2), 2000)
    with conn.transaction():
        again = archive.archive_day(conn, url, DAY)
    assert (gone.calls, again.attempts, again.charges) == (1, 1, 1) and raw(conn) == []
    assert archive_store.days_to_archive(conn, later, 9) == []
    kept = [archive.ArchivedPart(row["day"], row["url"], row["part"]) for row in archive_store.list_parts(conn)]
    assert [each.part for each in kept] == [0, 1, 2] and kept[0].url == kept[2].url
    rollup_store.roll_up(conn)
    now = figures(conn)
    assert now["calls"] != whole["calls"] and sum(row["calls"] for row in now["calls"]) == 42
    assert archive.query_facts(kept, "SELECT count(*), sum(cost_usd) FROM attempts")[1] == [
        (26, sum((row["cost_usd"] for row in now["calls"] if row["day"] == DAY), Decimal(0)))
    ]
    assert archive.query_facts(kept[:2], "SELECT count(*) FROM charges")[1] == [(25,)]


def test_an_attempt_open_at_archival_is_archived_once_settled(conn: Conn, tmp_path: Path) -> None:
    conn.execute("UPDATE attempt SET state = 'open' WHERE at < '2026-06-04Z' AND (usage ->> 'input')::int = 7")
    with conn.transaction():
        assert archive.archive_day(conn, str(tmp_path), DAY).attempts == 23
    assert archive_store.days_to_archive(conn, date(2026, 6, 4), 9) == [], "what is open stays"
    conn.execute("UPDATE attempt SET state = 'settled' WHERE state = 'open'")
    assert archive_store.days_to_archive(conn, date(2026, 6, 4), 9) == [DAY]
    with conn.transaction():
        gone = archive.archive_day(conn, str(tmp_path), DAY)
    assert (gone.calls, gone.attempts, gone.charges) == (0, 1, 1)
    kept = [archive.ArchivedPart(DAY, str(tmp_path), part) for part in (0, 1)]
    assert archive.query_facts(kept, "SELECT count(*), count(DISTINCT call_id) FROM attempts")[1] == [(24, 24)]


def test_an_impossible_store_is_refused(conn: Conn, tmp_path: Path) -> None:
    for url in ("gopher://x/y", str(tmp_path / "file" / "below")):
        (tmp_path / "file").write_text("")
        with pytest.raises(GroundplanError), conn.transaction():
            archive.archive_day(conn, url, DAY)
    assert len(raw(conn)) == 3


def test_days_older_than_the_hot_window_are_archived_automatically(
    conn: Conn, database: Database, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    settings = replace(load_settings({"GROUNDPLAN_ARCHIVE_URL": str(tmp_path / "facts")}), archive_days=7)
    pool: ConnectionPool[Any] = ConnectionPool(database.urls["control"], min_size=1, max_size=2, open=True)
    clock = ManualClock(datetime(2026, 6, 11, 1, tzinfo=UTC))
    services = Services(home, settings, None, False, None, pool, clock)  # type: ignore[arg-type]
    conn.execute(
        """INSERT INTO experiment (id, name, workload, type, candidate, judge, share, split, tolerance,
             guard_tolerance, level, budget_usd, until, reason, asked_by, state, began_at)
           VALUES (gen_random_uuid(), 'e', 'w', 'ab', 'c', '', 1, 'person', 0.1, 0.1, 0.95, 1, now(), '', 'a',
             'running', %s)""",
        (datetime.combine(DAY, time(9), UTC),),
    )
    try:
        assert costs.archive_facts(services) == 0, "an A/B test that runs is judged by its calls"
        conn.execute("UPDATE experiment SET state = 'ended', outcome = 'stopped'")
        assert costs.archive_facts(services) == 1
        clock.advance(86_400)
        assert costs.archive_facts(services) == 1
        assert costs.archive_facts(services) == 0
    finally:
        pool.close()
    assert [row["calls"] for row in archive_store.list_parts(conn)] == [24, 16]
    mark = (DAY + timedelta(days=1), str(tmp_path / "facts"))
    assert ask(str(tmp_path / "facts"), "SELECT count(*) FROM attempts", mark)[0][0] == 40
    row = conn.execute("SELECT count(*) FROM audit_entry WHERE action = 'facts.archive'").fetchone()
    assert row is not None and row[0] == 2


def test_a_folder_is_the_same_wherever_a_command_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = {text: load_settings({"GROUNDPLAN_ARCHIVE_URL": text}).archive_url for text in ("facts", "s3://b/f", "")}
    assert places == {"facts": str(tmp_path / "facts"), "s3://b/f": "s3://b/f", "": None}


def test_reasons_that_prevent_archival_are_in_the_inbox(conn: Conn, database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pool: ConnectionPool[Any] = ConnectionPool(database.urls["control"], min_size=1, max_size=2, open=True)
    clock = ManualClock(datetime(2026, 6, 11, 1, tzinfo=UTC))

    def keep(url: str) -> int:
        settings = replace(load_settings({"GROUNDPLAN_ARCHIVE_URL": url}), archive_days=7)
        services = Services(Home(tmp_path), settings, None, False, None, pool, clock)  # type: ignore[arg-type]
        return costs.archive_facts(services)

    def told() -> list[str]:
        return [f"{row['message']} {row['hint']}" for row in finding_store.list_findings(conn, kinds=["cost.archive"])]

    try:
        for _ in range(2):
            with pytest.raises(GroundplanError):
                keep(str(tmp_path / "file" / "facts"))
            (only,) = told()
            assert "older than 7 days stay in the database" in only and "Check the rights" in only
        assert keep(str(tmp_path / "facts")) == 1
        assert told() == []
    finally:
        pool.close()


def test_ids_of_days_archived_without_an_index_are_read_from_their_files(
    conn: Conn, database: Database, tmp_path: Path
) -> None:
    settings = replace(load_settings({}), archive_url=None)
    pool: ConnectionPool[Any] = ConnectionPool(database.urls["control"], min_size=1, max_size=2, open=True)
    services = Services(Home(tmp_path / "home"), settings, None, False, None, pool, ManualClock(AT))  # type: ignore[arg-type]
    facts = conn.execute("SELECT id FROM call ORDER BY 1").fetchall()
    epoch = conn.execute("SELECT a.epoch FROM attempt a JOIN charge c USING (call_id) WHERE c.cost_usd > 0").fetchall()
    conn.execute("INSERT INTO shipped (epoch, segment, position, gaps, done) VALUES (%s, 0, 0, 0, true)", epoch[0])
    try:
        for day in (DAY, DAY + timedelta(days=1)):
            with conn.transaction():
                archive.archive_day(conn, str(tmp_path), day)
        kept = "SELECT * FROM archived_charge ORDER BY 1"
        charged = conn.execute(kept.encode()).fetchall()
        assert len(charged) == 39 and epoch[0][0] not in [row[0] for row in charged], "a closed worker needs no more"
        conn.execute("TRUNCATE archived_fact, archived_charge")
        assert costs.archive_facts(services) == 0
    finally:
        pool.close()
    listed = conn.execute("SELECT unnest(calls) FROM archived_fact ORDER BY 1").fetchall()
    assert listed == facts == conn.execute("SELECT unnest(attempts) FROM archived_fact ORDER BY 1").fetchall()
    assert [row for row in conn.execute(kept.encode()).fetchall() if row[3]] == [row for row in charged if row[3]]


def test_an_archived_id_is_looked_up_in_few_parts(
    conn: Conn, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row for a day was more than a backup can write, and was read whole for each question."""
    monkeypatch.setattr(archive_store, "IDS_PER_ROW", 4)
    ids = [UUID(int=(int(AT.timestamp() * 1000) + n << 80) | (7 << 76) | (2 << 62)) for n in range(10)]
    archive_store.list_facts(conn, DAY, 0, ids[::-1], [(id, n) for id in ids for n in (1, 0)], [])
    archive_store.list_facts(conn, DAY + timedelta(days=1), 0, [], [], [])
    assert archive_store.oldest_unlisted(conn) is None
    rows = conn.execute("SELECT chunk, cardinality(calls), cardinality(attempts) FROM archived_fact ORDER BY 1, 2")
    assert rows.fetchall() == [*((n, 0, 4) for n in range(-5, 0)), (0, 0, 0), (0, 4, 0), (1, 4, 0), (2, 2, 0)]
    assert [archive_store.archived_day_of(conn, id) for id in (*ids, new_id())] == [DAY] * 10 + [None]
    now, here = AT + timedelta(days=9), (str(new_id()), AT)
    calls = [*((str(id), AT) for id in ids[3:5]), here]
    attempts = [(str(ids[7]), 1, AT), (str(ids[7]), 2, AT), (str(ids[9]), 0, AT)]
    with connect(database.urls["control"]) as control:
        archive_store.lock_day(control, DAY - timedelta(days=1))
        gone = archived_store.archived_facts(conn, calls, attempts, now)
        archive_store.lock_day(control, DAY)
        with conn.transaction(), pytest.raises(psycopg.errors.LockNotAvailable), conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '20ms'")
            archived_store.archived_facts(conn, calls, attempts, now)  # waits for its own day alone
    assert (gone.without_archived_calls(calls), gone.without_archived_attempts(attempts)) == ([here], [attempts[1]])


def test_a_batch_has_the_same_cost_after_its_calls_are_archived(conn: Conn, tmp_path: Path) -> None:
    batch, file = new_id(), new_id()
    conn.execute("INSERT INTO api_file VALUES (%s, 'workload-0', NULL, 'batch', 'a.jsonl', 1)", (file,))
    conn.execute(
        """INSERT INTO batch (id, workload, key_id, person, endpoint, input_file, completion_window, status, expires_at)
           VALUES (%s, 'workload-0', %s, '', '/v1/chat/completions', %s, '24h', 'completed', now())""",
        (batch, new_id(), file),
    )
    conn.execute(
        """INSERT INTO batch_line (batch_id, number, custom_id, place, length, held_usd, state, call_id)
           SELECT %s, n, n, 0, 1, 0, 'done', id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM call) c
           WHERE n BETWEEN 20 AND 30""",
        (batch,),
    )
    (before,) = batch_queries.list_batches(conn, "workload-0", 9)
    assert before["cost_usd"] == f"0.{sum(range(19, 30)):012d}"
    for day in (DAY, DAY + timedelta(days=1)):
        with conn.transaction():
            archive.archive_day(conn, str(tmp_path), day)
        assert batch_queries.list_batches(conn, "workload-0", 9) == [before]


def test_the_command_line_queries_archived_files(conn: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with conn.transaction():
        archive.archive_day(conn, str(tmp_path), DAY)
    days: list[dict[str, Any]] = []
    value: dict[str, Any] = {"days": days, "url": None, "hot_days": 40}
    monkeypatch.setattr(ControlClient, "connect", lambda _: SimpleNamespace(get=lambda _: value))

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["archive", *arguments, "--json"])
        return done.exception if done.exit_code else json.loads(done.output)

    assert "Set GROUNDPLAN_ARCHIVE_URL" in run("--sql", "SELECT 1").hint
    value["url"] = str(tmp_path)
    empty = run("--sql", "SELECT 1")
    assert (
        empty.code == "archive_empty"
        and empty.hint.startswith(f"Days are moved to {tmp_path}")
        and "40 days" in empty.hint
    )
    days.append({"day": str(DAY), "url": str(tmp_path), "calls": 24, "cost_usd": "0"})
    told = run("--sql", "SELECT count(*) AS n, sum(cost_usd) AS usd FROM attempts")
    assert told["columns"] == ["n", "usd"] and told["rows"][0][0] == 24
    wrong = run("--sql", "SELECT nothing FROM calls")
    assert (wrong.code, "nothing" in wrong.message) == ("archive_query", True)
    assert run("--sql", "SELECT day, sum(cost_usd) FROM attempts WHERE day >= '2026-01-01' GROUP BY day")["rows"]
    assert '"at"' in run("--sql", "SELECT at FROM calls").hint
    assert run()["days"] == days
