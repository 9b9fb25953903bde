"""Entries recorded in PostgreSQL become leaves of the log, whatever dies in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.api.audit import lost_revocations, unwritten_log
from groundplan.core.audit import OPERATOR, SYSTEM, Entry, record, record_many, store
from groundplan.core.audit import rotate as rotate_module
from groundplan.core.audit.keys import create_keys, load_private, load_public
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.proof import inclusion_proof
from groundplan.core.audit.rotate import Rotation
from groundplan.core.audit.sequencer import LATE_S, QueueCursor, Sequencer, heal, sequence_batch
from groundplan.core.audit.verify import verify
from groundplan.core.database import Role, connect
from groundplan.core.errors import Conflict, Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.ledger import finding_store
from groundplan.testing.database import Database

Conn = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    return home


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"], autocommit=True) as conn:
        yield conn


def open_log(home: Home) -> AuditLog:
    return AuditLog(home.audit, load_private(home, "checkpoint"))


def note(conn: Conn, number: int) -> UUID:
    return record(conn, action="test", actor=SYSTEM, subject=f"number/{number}", detail={"n": number})


def sequence(conn: Conn, home: Home) -> int:
    with open_log(home) as log:
        healed = heal(conn, log)
        while sequence_batch(conn, log, healed.orphans, 100):
            pass
    return healed.repaired


def check(conn: Conn, home: Home, count: int) -> None:
    """Files verify, and each entry of the database stands in them at its index, once."""
    verdict = verify(home.audit, load_public(home, "checkpoint").public_bytes_raw())
    assert verdict.ok and verdict.entries == count
    assert [index for index, _ in store.sequenced_from(conn, 0, count + 1)] == list(range(count))
    for index, body in store.sequenced_from(conn, 0, count):
        assert inclusion_proof(home.audit, index).entry == body


def test_an_entry_is_part_of_the_callers_transaction(conn: Conn, home: Home) -> None:
    with pytest.raises(ZeroDivisionError), conn.transaction():
        note(conn, 0)
        raise ZeroDivisionError
    id = note(conn, 1)
    found = store.entry_by_id(conn, id)
    assert found is not None and found.leaf_index is None and found.entry.detail == {"n": 1}
    assert store.entry_by_id(conn, new_id()) is None
    assert len(store.unsequenced(conn, 9)) == 1
    assert sequence(conn, home) == 0
    after = store.entry_by_id(conn, id)
    assert after is not None and after.leaf_index == 0 and not store.unsequenced(conn, 1)
    check(conn, home, 1)


def test_entries_are_listed_newest_first_and_by_subject(conn: Conn) -> None:
    ids = [note(conn, number) for number in range(5)]
    listed = store.list_entries(conn, limit=3)
    assert [found.entry.id for found in listed] == ids[:1:-1]
    assert [found.entry.id for found in store.list_entries(conn, before=ids[2])] == [ids[1], ids[0]]
    assert [found.entry.id for found in store.list_entries(conn, subject="number/3")] == [ids[3]]


def test_entries_about_a_workload_exclude_its_calls(conn: Conn) -> None:
    ids = [note(conn, number) for number in (1, 2, 1)]
    call = record(conn, action="call", actor=SYSTEM, subject="number/1", detail={})
    about = [found.entry.id for found in store.entries_about(conn, ["number/1", "number/9"], None)]
    assert about == [ids[2], ids[0]]
    assert [found.entry.id for found in store.entries_about(conn, ["number/2"], call)] == [call, ids[1]]
    assert [found.entry.id for found in store.entries_about(conn, ["number/2"], ids[1], limit=1)] == [ids[1]]


def test_entries_with_given_ids_are_appended_once(conn: Conn) -> None:
    entry = Entry(new_id(), datetime.now(UTC), "call.settled", OPERATOR, "call/1", {})
    assert record_many(conn, [entry, entry]) == 1
    assert record_many(conn, [entry]) == 0
    assert record_many(conn, []) == 0


def test_new_entries_have_the_same_bytes_by_either_way_and_are_refused_where_one_is_there(conn: Conn) -> None:
    detail = {"text": 'tab\tline\n"quoted" back\\slash \\x41 \x01 \xe9 \U0001f600', "list": [1, None, True]}
    made = [Entry(new_id(), datetime.now(UTC), "call", OPERATOR, f"a\tb\\c\n{number}", detail) for number in range(3)]
    store.copy_entries(conn, made[:2])
    record_many(conn, made[2:])
    found = [store.entry_by_id(conn, entry.id) for entry in made]
    assert [each.entry if each else None for each in found] == made
    bodies = conn.execute("SELECT body FROM audit_entry ORDER BY queued").fetchall()
    assert [bytes(body) for (body,) in bodies] == [entry.encode() for entry in made]
    other = Entry(new_id(), datetime.now(UTC), "call", OPERATOR, "x", {})
    with pytest.raises(psycopg.errors.UniqueViolation), conn.transaction():
        store.copy_entries(conn, [other, made[0]])
    assert store.entry_by_id(conn, other.id) is None
    store.copy_entries(conn, [])


def test_only_the_owner_role_can_change_or_delete_an_entry(conn: Conn, database: Database) -> None:
    note(conn, 1)
    roles: tuple[Role, ...] = ("control", "shipper", "gateway", "search")
    for role in roles:
        with connect(database.urls[role], autocommit=True) as other:
            for statement in ("UPDATE audit_entry SET body = ''", "DELETE FROM audit_entry"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    other.execute(statement)
    with connect(database.urls["shipper"], autocommit=True) as shipper:
        record(shipper, action="test", actor=SYSTEM, subject="shipper", detail={})
    with pytest.raises(Invalid):
        record(conn, action="test", actor="somebody", subject="x", detail={})


def test_entries_are_sequenced_in_commit_order(conn: Conn, database: Database, home: Home) -> None:
    with connect(database.urls["control"]) as slow:
        late = note(slow, 1)
        early = note(conn, 2)
        sequence(conn, home)
        slow.commit()
    sequence(conn, home)
    indexes = {found.entry.id: found.leaf_index for found in store.list_entries(conn)}
    assert indexes == {early: 0, late: 1}
    check(conn, home, 2)


def test_a_crash_before_the_database_knows_the_index_repeats_nothing(conn: Conn, home: Home) -> None:
    for number in range(300):
        note(conn, number)
    with open_log(home) as log:
        log.append([entry.body for entry in store.unsequenced(conn, 280)])
    assert sequence(conn, home) == 280
    check(conn, home, 300)


def test_neither_start_nor_polling_reads_the_whole_log(conn: Conn, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year of calls are billions of entries: counting them took hours, in which nothing entered the log."""
    for number in range(3):
        note(conn, number)
    sequence(conn, home)
    assert store.contiguous_until(conn) == 0, "what came since the start is counted at the next one"
    note(conn, 4)
    sequence(conn, home)
    assert store.contiguous_until(conn) == 3 and store.count_sequenced(conn, 3) == 1
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    behind = QueueCursor()
    for seen, after in ((7, -1), (9, 7), (12, 9), (12, 12), (12, 12), (12, -1), (12, 12)):
        behind.note_seen([store.QueuedEntry(new_id(), b"", seen)])
        now[0] += LATE_S
        assert behind.lower_bound() == after, "what commits late is looked for, and now and then anything"
    assert [entry.queued for entry in store.unsequenced(conn, 9, 0)] == []
    note(conn, 5)
    (waiting,) = store.unsequenced(conn, 9)
    assert store.unsequenced(conn, 9, waiting.queued) == []


def test_a_new_home_continues_the_numbers_of_a_lost_one(
    conn: Conn, database: Database, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever commits meanwhile: a second entry under a number that was signed would be a fork, and end the log of the
    first home for good."""
    other = Home(tmp_path / "other")
    shutil.copytree(home.root, other.root)
    with connect(database.urls["control"]) as slow:
        note(slow, 1)  # which commits late, and has the lower place in the queue
        note(conn, 2)
        with open_log(home) as log, monkeypatch.context() as dying:
            dying.setattr(*_dies(store, "assign_indexes"))
            dying.setattr(*_dies(log, "append"))
            with pytest.raises(_Died):
                sequence_batch(conn, log, {})
        slow.commit()
    assert sequence(conn, other) <= 1
    check(conn, other, 2)
    assert sequence(conn, home) == 2
    check(conn, home, 2)
    assert verify(home.audit).root == verify(other.audit).root


class _Died(Exception):
    pass


def _dies(of: Any, name: str) -> tuple[Any, str, Callable[..., object]]:
    """A step after which its process is gone."""
    work = getattr(of, name)

    def done(*given: Any) -> None:
        work(*given)
        raise _Died

    return of, name, done


def test_files_restored_from_an_older_backup_are_completed(conn: Conn, home: Home, tmp_path: Path) -> None:
    for number in range(300):
        note(conn, number)
    sequence(conn, home)
    newest = verify(home.audit).root
    home.audit.rename(tmp_path / "lost")
    home.audit.mkdir()
    assert sequence(conn, home) == 300
    assert verify(home.audit).root == newest
    check(conn, home, 300)


def test_entries_that_the_database_lost_are_restored_from_the_log(
    conn: Conn, database: Database, home: Home, tmp_path: Path
) -> None:
    """It was restored to an earlier moment, or a replica took over that lacked what was committed last; another HOME
    goes on from it."""
    entries = [Entry(new_id(), datetime.now(UTC), "call", SYSTEM, f"call/{n}", {}) for n in range(9)]
    entries.append(Entry(new_id(), datetime.now(UTC), "key.revoked", SYSTEM, "key/7", {"policy": 3}))
    record_many(conn, entries)
    other = Home(tmp_path / "other")
    shutil.copytree(home.root, other.root)
    sequence(conn, home)
    with connect(database.urls["owner"], autocommit=True) as owner:
        owner.execute("DELETE FROM audit_entry WHERE leaf_index >= 4")
    record_many(conn, [Entry(new_id(), datetime.now(UTC), "call", SYSTEM, "call/new", {})])
    with open_log(home) as log:
        assert heal(conn, log, lost_revocations.report_lost_decisions).orphans == {}
    (told,) = finding_store.list_findings(conn)
    assert told["severity"] == "critical" and told["message"].endswith("not in force: key.revoked key/7.")
    assert sequence(conn, home) == 0
    assert record_many(conn, entries) == 0, "which a journal may tell again"
    check(conn, home, 11)
    sequence(conn, other)
    check(conn, other, 11)
    with connect(database.urls["owner"], autocommit=True) as owner:
        owner.execute("DELETE FROM audit_entry WHERE leaf_index = 5")
        note(conn, 1)
        owner.execute("UPDATE audit_entry SET leaf_index = 5 WHERE leaf_index IS NULL")
    with open_log(home) as log, pytest.raises(Conflict, match="another in the database"):
        heal(conn, log)


def test_a_new_database_under_an_old_log_gets_none_of_its_entries(conn: Conn, database: Database, home: Home) -> None:
    entries = [Entry(new_id(), datetime.now(UTC), "call", SYSTEM, f"call/{n}", {}) for n in range(10)]
    record_many(conn, entries)
    sequence(conn, home)
    with connect(database.urls["owner"], autocommit=True) as owner:
        owner.execute("DELETE FROM audit_entry")
    record_many(conn, [Entry(new_id(), datetime.now(UTC), "call", SYSTEM, "call/new", {})])
    sequence(conn, home)
    with open_log(home) as log:
        healed = heal(conn, log)
        assert sorted(healed.orphans.values()) == list(range(10))
        assert record_many(conn, entries) == 10
        sequence_batch(conn, log, healed.orphans)
    check(conn, home, 11)


def test_files_and_database_of_different_homes_are_not_mixed(conn: Conn, home: Home, tmp_path: Path) -> None:
    note(conn, 1)
    sequence(conn, home)
    home.audit.rename(tmp_path / "own")
    with open_log(home) as log:
        log.append([Entry(new_id(), datetime.now(UTC), "other", SYSTEM, "x", {}).encode()])
        with pytest.raises(Conflict) as caught:
            heal(conn, log)
    assert caught.value.code == "audit_diverged"


def test_an_unwritten_log_is_reported_until_it_is_written(conn: Conn) -> None:
    problem: list[str | None] = [None]
    now = [0.0]
    looking = unwritten_log.UnwrittenLogWatch(lambda: nullcontext(conn), lambda: problem[0], lambda: now[0])
    seen = []
    for seconds, why in ((0, "x"), (30, "x"), (31, "other\nwords"), (1, None), (59, None), (2, None)):
        now[0] += seconds
        problem[0] = why
        looking.update_finding()
        seen.append([each["message"] for each in finding_store.list_findings(conn, kinds=(unwritten_log.KIND,))])
    told = ["The audit log is not written: other"]
    assert seen == [[], [], told, told, told, []]


def eventually(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_the_sequencer_takes_entries_while_they_come_and_another_waits(
    conn: Conn, database: Database, home: Home
) -> None:
    key = load_private(home, "checkpoint")
    first = Sequencer(database.urls["control"], home.audit, key, interval=0.05)
    second = Sequencer(database.urls["control"], home.audit, key, interval=0.05)
    first.start()

    def write(start: int) -> None:
        with connect(database.urls["control"], autocommit=True) as own:
            for number in range(start, start + 200):
                note(own, number)

    writers = [threading.Thread(target=write, args=(start,)) for start in (0, 1000, 2000)]
    for writer in writers:
        writer.start()
    second.start()
    for writer in writers:
        writer.join()
    eventually(lambda: not store.unsequenced(conn, 1))
    first.stop()
    note(conn, 5000)
    eventually(lambda: not store.unsequenced(conn, 1))
    assert second.problem is None
    second.stop()
    check(conn, home, 601)


def test_the_sequencer_survives_a_lost_connection_and_a_lack_of_threads(
    conn: Conn, database: Database, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequencer = Sequencer(database.urls["control"], home.audit, load_private(home, "checkpoint"), interval=0.05)
    submit, refused = ThreadPoolExecutor.submit, list[object]()

    def no_thread(pool: ThreadPoolExecutor, *work: Any) -> Any:
        if not refused:
            refused.append(pool)
            raise RuntimeError("can't start new thread")
        return submit(pool, *work)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", no_thread)
    sequencer.start()
    note(conn, 1)
    eventually(lambda: not store.unsequenced(conn, 1))
    with connect(database.superuser, autocommit=True) as admin:
        admin.execute(
            """SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
               WHERE l.locktype = 'advisory' AND d.datname = %s""",
            (database.name,),
        )
    note(conn, 2)
    eventually(lambda: not store.unsequenced(conn, 1))
    sequencer.stop()
    check(conn, home, 2)


CHILD = """
import sys, time
from pathlib import Path
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.sequencer import Sequencer
from groundplan.core.home import Home
home = Home(Path(sys.argv[1]))
sequencer = Sequencer(sys.argv[2], home.audit, load_private(home, "checkpoint"), interval=0.001)
sequencer.start()
print("ready", flush=True)
time.sleep(60)
"""


def test_killing_the_sequencer_at_any_moment_loses_and_repeats_nothing(
    conn: Conn, database: Database, home: Home
) -> None:
    command = [sys.executable, "-c", CHILD, str(home.root), database.urls["control"]]
    count = 0
    for round in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            for _ in range(60 + round * 37):
                note(conn, count)
                count += 1
            os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: store.try_lock_sequencer(conn))
    sequence(conn, home)
    check(conn, home, count)


def test_concurrent_key_rotations_are_both_answered(conn: Conn, database: Database, home: Home) -> None:
    note(conn, 1)
    sequencer = Sequencer(database.urls["control"], home.audit, load_private(home, "checkpoint"), 0.05, home=home)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(sequencer.rotate, 60.0) for _ in range(2)]
        while not sequencer._asked.is_set():
            time.sleep(0.01)
        time.sleep(0.2)  # both wait
        sequencer.start()
        try:
            done = [each.result() for each in asked]
        finally:
            sequencer.stop()
    assert all(isinstance(each, Rotation) for each in done) and done[0] != done[1]


def test_a_rotation_interrupted_by_a_full_disk_is_reported_and_completed(
    conn: Conn, database: Database, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind its signature nothing was written any more until somebody ended it by hand."""
    note(conn, 1)
    real, falls = rotate_module._install_key, [OSError(28, "No space left on device")]

    def put(*arguments: Any) -> None:
        if falls:
            raise falls.pop()
        real(*arguments)

    monkeypatch.setattr(rotate_module, "_install_key", put)
    before = load_private(home, "checkpoint").private_bytes_raw()
    sequencer = Sequencer(database.urls["control"], home.audit, load_private(home, "checkpoint"), 0.05, home=home)
    sequencer.start()
    try:
        with pytest.raises(Unavailable, match="No space left") as told:
            sequencer.rotate(60.0)
        assert told.value.code == "audit_write" and told.value.hint
        note(conn, 2)
        eventually(lambda: not store.unsequenced(conn, 1))
        assert sequencer.problem is None
    finally:
        sequencer.stop()
    assert load_private(home, "checkpoint").private_bytes_raw() != before
    check(conn, home, 2)
