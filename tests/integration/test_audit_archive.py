"""Entries of calls that leave for the archive: the log verifies as before, each is found, and nothing is lost when it
breaks off."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import getrandbits
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool
from tests.integration.test_archive import add
from typer.testing import CliRunner

from groundplan.api.audit import call_archive
from groundplan.api.context import Services
from groundplan.api.routes import audit as routes
from groundplan.cli import archived_log
from groundplan.cli import audit as audit_cli
from groundplan.cli.client import ControlClient
from groundplan.core.audit import SYSTEM, Entry, archive, archive_store, record, record_many, store
from groundplan.core.audit.keys import create_keys, load_private, load_public
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.merkle import leaf_hash, root_of
from groundplan.core.audit.proof import inclusion_proof
from groundplan.core.audit.sequencer import heal, sequence_batch
from groundplan.core.audit.verify import verify
from groundplan.core.database import connect
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.ledger import archive_store as archive_facts
from groundplan.ledger import finding_store
from groundplan.ledger.archive import query_entries
from groundplan.maturity import store as maturity
from groundplan.runtime.backup import backup, restore
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Cluster, Database

Conn = psycopg.Connection[Any]
SPAN = 256
OLD = datetime.now(UTC) - timedelta(days=500)


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path, conn: Conn) -> Home:
    """An installation with 600 entries in its log, all but each hundredth of calls of long ago."""
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    entries(conn, home, 600)
    return home


@pytest.fixture
def keep(home: Home, database: Database, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """A round of what lets entries leave, for a folder that it is given."""
    pool: ConnectionPool[Any] = ConnectionPool(database.urls["control"], min_size=1, max_size=2, open=True)

    def keep(url: str | None = str(tmp_path / "facts"), **other: Any) -> int:
        settings = replace(load_settings({}), archive_url=url, **other)
        clock = ManualClock(datetime.now(UTC))
        return call_archive.archive_entries(Services(home, settings, None, False, None, pool, clock), SPAN)  # type: ignore[arg-type]

    yield keep
    pool.close()


def entries(conn: Conn, home: Home, count: int, at: datetime = OLD) -> list[UUID]:
    """Their ids are not made by `new_id`, which never goes back: all later ones would be of the latest time."""
    made = []
    for number in range(count):
        when = at + timedelta(seconds=number)
        id = UUID(int=int(when.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | getrandbits(62))
        action = "key.created" if number % 100 == 0 else "call"
        made.append(Entry(id, when, action, SYSTEM, f"workload/w{number % 3}", {"n": number, "status": "ok"}))
    record_many(conn, made)
    sequence(conn, home)
    return [entry.id for entry in made]


def sequence(conn: Conn, home: Home) -> None:
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        healed = heal(conn, log)
        while sequence_batch(conn, log, healed.orphans):
            pass
        heal(conn, log)  # which notes that all is there


def indexes(conn: Conn) -> list[int]:
    return [index for index, _ in store.sequenced_from(conn, 0, 10_000)]


def wrong(conn: Conn, home: Home) -> list[str]:
    key = load_public(home, "checkpoint").public_bytes_raw()
    verdict = verify(home.audit, key)
    found = archive.check_files(
        home.audit, archive_store.list_ranges(conn), public_key=key, missing=archive_store.missing_entries(conn)
    )
    return [*map(str, verdict.problems), *map(str, found)]


def test_entries_stay_provable_after_their_calls_are_archived(
    conn: Conn, home: Home, keep: Callable[..., int], tmp_path: Path
) -> None:
    bodies = dict(store.sequenced_from(conn, 0, 1000))
    root = verify(home.audit).root
    assert keep(None) == 0
    assert keep() == 2
    assert indexes(conn) == [0, 100, 200, 300, 400, 500, *range(512, 600)], "of calls alone, and not the last ones"
    assert keep() == 0
    assert wrong(conn, home) == [] and verify(home.audit).root == root
    assert store.next_leaf(conn) == 600 == maturity.log_size(conn) and maturity.has_complete_log(conn)
    first, second = archive_store.list_ranges(conn)
    lines = gzip.decompress((tmp_path / "facts" / first.file).read_bytes()).splitlines()
    assert lines == [bodies[index] for index in range(256)]
    assert [index for index, _ in enumerate(archive.read_bodies(second))][-1] == 255
    for index in (0, 1, 255, 256, 511, 599):  # each entry by its id, here or not, and its proof
        id = UUID(json.loads(bodies[index])["id"])
        services = SimpleNamespace(home=home)
        found = store.entry_by_id(conn, id) or routes._archived_entry(conn, services, id)  # type: ignore[arg-type]
        assert found is not None and found.leaf_index == index
        proof = inclusion_proof(home.audit, index)
        assert proof.entry == bodies[index]
        assert proof.holds(load_public(home, "checkpoint").public_bytes_raw())
    assert routes._archived_entry(conn, SimpleNamespace(home=home), new_id()) is None  # type: ignore[arg-type]
    (told,) = [e.entry for e in store.list_entries(conn, subject="entries/256")]
    assert (told.action, told.detail["sha256"], told.detail["gone"]) == ("audit.archive", second.sha256, 253)
    entries(conn, home, 300, OLD + timedelta(hours=1))
    assert indexes(conn)[-1] == 901 and wrong(conn, home) == [], "what comes goes on behind them"


def test_entries_that_must_stay_are_not_archived(conn: Conn, home: Home, keep: Callable[..., int]) -> None:
    """Entries whose calls have facts here, that a SIEM was not sent, that are young, and that evidence names."""
    id = next(e.entry.id for e in store.list_entries(conn, limit=500) if e.leaf_index == 300)
    entries(conn, home, 168, datetime.now(UTC) - timedelta(days=8))
    entries(conn, home, 300, datetime.now(UTC) + timedelta(days=365))  # a clock that is wrong holds up nobody
    add(conn, OLD, 7)
    conn.execute("UPDATE call SET id = %s", (id,))
    assert keep(siem_url="https://siem.example") == 0
    conn.execute("UPDATE siem_position SET leaf = 256")
    with conn.transaction():
        assert archive_facts.try_lock(conn)
        assert keep(siem_url="https://siem.example") == 0, "somebody else archives"
    assert keep(siem_url="https://siem.example") == 1
    assert keep() == 0, "its facts have not left"
    conn.execute("INSERT INTO archived_day VALUES ('2020-01-01', 'u', 0, 0, 0, 0, '')")
    assert not archive_facts.are_calls_archived(conn, 512, 768), "nor are the ids known of all that have"
    conn.execute("DELETE FROM archived_day")
    assert archive_facts.are_calls_archived(conn, 512, 768)
    conn.execute(
        """INSERT INTO evidence (id, what, subject, type, collector, at, valid_until, holds, says, detail, digest,
             audit_entry) VALUES (%s, 'a', 'b', 'query', 'c', now(), now() + interval '1 day', true, '', %s, '', %s)""",
        (new_id(), Jsonb({}), id),
    )
    conn.execute("DELETE FROM call")
    assert keep() == 1 and 300 in indexes(conn) and 301 not in indexes(conn)
    assert keep() == 0 and keep(archive_days=7) == 2
    assert wrong(conn, home) == [] and keep(archive_days=7) == 0


@pytest.mark.parametrize("moment", ["half a file", "file", "rows"])
def test_killing_the_archival_loses_no_entries(
    conn: Conn, home: Home, database: Database, keep: Callable[..., int], tmp_path: Path, moment: str
) -> None:
    before = indexes(conn)
    killed = f"""
import os, signal, sys
from pathlib import Path
from groundplan.core.audit import archive, archive_store
from groundplan.core.audit.keys import load_public
from groundplan.core.database import connect
from groundplan.core.home import Home
home, put = Home(Path(sys.argv[1])), archive.put_file
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def putting(url, name, file):
    put(url, name, file)
    if {moment!r} == "half a file":
        Path(url, name).write_bytes(file.read_bytes()[:40])
    if {moment!r} != "rows":
        die()
archive.put_file = putting
key = load_public(home, "checkpoint").public_bytes_raw()
with connect(sys.argv[3]) as conn:
    made = archive.write_range(conn, home.audit, key, sys.argv[2], 0, {SPAN})
    assert archive_store.move_out(conn, made) == 253
    die()
"""
    arguments = [str(home.root), str(tmp_path / "facts"), database.urls["control"]]
    done = subprocess.run([sys.executable, "-c", killed, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    assert indexes(conn) == before and archive_store.list_ranges(conn) == [] and wrong(conn, home) == []
    assert keep() == 2 and wrong(conn, home) == []
    assert len(list((tmp_path / "facts").rglob("*.gz"))) == 2, "the same file again"


def test_a_file_that_is_missing_or_changed_is_named(
    conn: Conn, home: Home, keep: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep()
    first, second = archive_store.list_ranges(conn)
    places = [tmp_path / "facts" / each.file for each in (first, second)]
    whole = [place.read_bytes() for place in places]

    def told() -> tuple[int, str]:
        ranges = [each.to_json() for each in archive_store.list_ranges(conn)]

        def answer(_: str, after: int = 0) -> dict[str, Any]:
            return {"ranges": [] if after else list(ranges), "lacking": None, "url": "x", "hot_days": 1}

        monkeypatch.setattr(archived_log, "find_running", lambda _: {})
        monkeypatch.setattr(ControlClient, "connect", lambda _: SimpleNamespace(get=answer))
        done = CliRunner().invoke(audit_cli.app, ["verify", "--home", str(home.root)])
        return done.exit_code, done.output

    assert told()[0] == 0 and "2 files of the archive hold the same entries" in told()[1]
    altered = bytearray(whole[1])
    altered[len(altered) // 2] ^= 1
    one = gzip.decompress(whole[1]).replace(b'"n":300', b'"n":301')
    for content, why in (
        (None, "is missing"),
        (bytes(altered), "was changed"),
        (whole[1][:-20], "was changed"),
        (whole[1] + b"x", "was changed"),
        (gzip.compress(b"x" * 200_000), "was changed"),
        (gzip.compress(b"\n" * 300), "was changed"),
        (gzip.compress(one), "was changed"),
        (whole[0], "was changed"),
    ):
        places[1].unlink()
        if content is not None:
            places[1].write_bytes(content)
        (only,) = wrong(conn, home)
        assert second.file in only and why in only
        code, output = told()
        assert code == 1 and second.file in output and first.file not in output
        places[1].write_bytes(whole[1])
    assert wrong(conn, home) == []
    # a superuser who writes what the file says: the signed tree says otherwise
    places[1].write_bytes(gzip.compress(one, mtime=0))
    forged = replace(second, root=root_of([leaf_hash(line) for line in one.splitlines()]))
    sha = hashlib.sha256(places[1].read_bytes()).hexdigest()
    conn.execute("UPDATE archived_range SET root = %s, sha256 = %s WHERE first = 256", (forged.root, sha))
    (only,) = wrong(conn, home)
    assert "the log has other entries than 256 to 511" in only
    conn.execute("DELETE FROM archived_range WHERE first = 256")
    assert "entries 256 to 299: neither the database nor a file" in wrong(conn, home)[0]
    conn.execute("DELETE FROM archived_range")
    with pytest.raises(GroundplanError):
        keep()
    assert wrong(conn, home) == []
    (found,) = finding_store.list_findings(conn, kinds=["audit.archive"])
    assert "stay in the database" in found["message"]


@pytest.mark.parametrize("url", ["{folder}/facts", "memory://{folder}/facts"])
def test_archive_files_can_be_queried_with_sql(
    conn: Conn, home: Home, keep: Callable[..., int], tmp_path: Path, url: str
) -> None:
    keep(url.format(folder=tmp_path))
    assert wrong(conn, home) == []
    ranges = archive_store.list_ranges(conn)
    names, rows = query_entries(
        ranges, "SELECT action, count(*), max(CAST(detail ->> 'n' AS INTEGER)) FROM entries GROUP BY 1 ORDER BY 1"
    )
    assert names[0] == "action" and rows == [("call", 506, 511), ("key.created", 6, 500)]
    with pytest.raises(Invalid, match="does not answer"):
        query_entries(ranges, "SELECT nothing FROM entries")


def test_another_home_is_completed_from_the_archive(
    conn: Conn, home: Home, keep: Callable[..., int], tmp_path: Path
) -> None:
    """Its files end before, in, or behind what has left; files that are not what left are not signed."""
    other = Home(tmp_path / "other")
    shutil.copytree(home.root, other.root)
    keep()
    (tmp_path / "none").mkdir()
    for size in (0, 300, 560):
        shutil.rmtree(other.audit)
        with AuditLog(other.audit, load_private(home, "checkpoint")) as log:
            log.append([inclusion_proof(home.audit, index).entry for index in range(size)])
        sequence(conn, other)
        assert verify(other.audit).ok
        shutil.rmtree(home.audit)
        shutil.copytree(other.audit, home.audit)
        sequence(conn, home)
        assert wrong(conn, home) == []
    for size in (300, 600):
        shutil.rmtree(other.audit)
        with AuditLog(other.audit, load_private(home, "checkpoint")) as log:
            log.append([b"{}"] * size)
        with pytest.raises(Conflict) as diverged:
            sequence(conn, other)
        assert diverged.value.code == "audit_diverged"
    place = tmp_path / "facts" / archive_store.list_ranges(conn)[1].file
    shutil.rmtree(other.audit)
    place.write_bytes(gzip.compress(b"{}\n" * 256))
    with pytest.raises(Invalid, match=place.name):
        sequence(conn, other)
    assert verify(other.audit).entries == 256
    place.unlink()
    with pytest.raises(NotFound, match=place.name):
        sequence(conn, other)


def test_a_database_restored_to_an_earlier_state_archives_the_same_again(
    conn: Conn, home: Home, keep: Callable[..., int], tmp_path: Path
) -> None:
    rows = conn.execute("SELECT id, at, action, actor, subject, body, leaf_index FROM audit_entry").fetchall()
    assert keep() == 2
    files = {path: path.read_bytes() for path in (tmp_path / "facts").rglob("*.gz")}
    conn.execute("DELETE FROM archived_range")
    conn.execute("DELETE FROM audit_entry")
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO audit_entry (id, at, action, actor, subject, body, leaf_index)
               VALUES (%s, %s, %s, %s, %s, %s, %s)""",
            rows[:590],
        )
    sequence(conn, home)
    assert keep() == 2 and wrong(conn, home) == []
    assert {path: path.read_bytes() for path in (tmp_path / "facts").rglob("*.gz")} == files


def test_a_restored_backup_verifies_with_its_archive(
    conn: Conn, home: Home, database: Database, keep: Callable[..., int], tmp_path: Path, postgres_cluster: Cluster
) -> None:
    keep()
    home.operator_token.write_text("operator-secret")
    backup(home, database.settings(home.root), tmp_path / "a.backup", lambda _: None)
    with postgres_cluster.database() as fresh:
        back = Home(tmp_path / "back")
        restore(tmp_path / "a.backup", back, fresh.settings(back.root))
        with connect(fresh.urls["owner"], autocommit=True) as there:
            assert wrong(there, back) == [] and len(archive_store.list_ranges(there)) == 2
            sequence(there, back)
            assert wrong(there, back) == [] and set(indexes(conn)) <= set(indexes(there))


STEP = "SELECT archive_range({}, {}, 'u', 'f', 's', '\\x{}')"


@pytest.mark.parametrize(
    ("first", "until", "root", "why"),
    [
        (0, 256, "00", "others than were written"),
        (256, 512, "00", "not the next range"),
        (0, 255, "00", "not the next range"),
        (0, 1024, "00", "not the next range"),
    ],
)
def test_only_a_written_range_is_deleted(
    conn: Conn, home: Home, database: Database, first: int, until: int, root: str, why: str
) -> None:
    statement = STEP.format(first, until, root)
    with connect(database.urls["control"], autocommit=True) as control:
        control.execute("CREATE TEMP TABLE archived_range (first bigint, until bigint)")  # is not asked
        control.execute("CREATE TEMP TABLE audit_whole AS SELECT 10000::bigint AS upto")
        with pytest.raises(psycopg.errors.SerializationFailure, match=why):
            control.execute(statement.encode())
        for forbidden in (
            "INSERT INTO public.archived_range (first, until) VALUES (0, 1)", "DELETE FROM public.archived_range",
            "UPDATE public.archived_range SET root = ''", "DELETE FROM audit_entry",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                control.execute(forbidden.encode())
    for role in ("gateway", "shipper", "search"):
        with connect(database.urls[role]) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(statement.encode())
    assert len(indexes(conn)) == 600


def test_young_or_altered_entries_are_not_archived(
    conn: Conn, home: Home, database: Database, keep: Callable[..., int]
) -> None:
    hashes = [leaf_hash(body) for _, body in store.sequenced_from(conn, 0, 256)]
    statement = STEP.format(0, 256, root_of(hashes).hex())
    for change, back, why in (
        ("at = now() - interval '5 days'", f"at = '{OLD.isoformat()}'", "do not leave yet"),
        ("leaf_index = 10000", "leaf_index = 7", "do not leave yet"),
        ("body = body || '\\x20'", "body = substr(body, 1, length(body) - 1)", "others than were written"),
    ):
        id = conn.execute("SELECT id FROM audit_entry WHERE leaf_index = 7").fetchall()[0][0]
        conn.execute(f"UPDATE audit_entry SET {change} WHERE id = %s".encode(), (id,))
        with (
            connect(database.urls["control"]) as control,
            pytest.raises(psycopg.errors.SerializationFailure, match=why),
        ):
            control.execute(statement.encode())
        if change.startswith("body"):
            with pytest.raises(Conflict, match="are others in the database than in the log"):
                keep()
        conn.execute(f"UPDATE audit_entry SET {back} WHERE id = %s".encode(), (id,))
    assert keep() == 2 and wrong(conn, home) == []
    assert finding_store.list_findings(conn, kinds=["audit.archive"]) == []
    record(conn, action="test", actor=SYSTEM, subject="x", detail={})
