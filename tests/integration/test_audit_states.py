"""Any order of recording, sequencing, crashing and restoring: at the end each entry stands in the log once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundplan.core.audit import SYSTEM, record, store
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.sequencer import heal, sequence_batch
from groundplan.core.audit.tiles import Tiles
from groundplan.core.audit.verify import verify
from groundplan.core.database import connect
from groundplan.testing.database import Database

Conn = psycopg.Connection[tuple[Any, ...]]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EVENT = st.one_of(
    st.tuples(st.just("record"), st.integers(1, 150)),
    st.tuples(st.just("sequence"), st.integers(1, 150)),
    st.tuples(st.just("crash between files and database"), st.integers(1, 150)),
    st.tuples(st.just("crash between database and files"), st.integers(1, 150)),
    st.tuples(st.just("crash between tiles and checkpoint"), st.integers(1, 150)),
    st.tuples(st.just("back up the files"), st.just(0)),
    st.tuples(st.just("restore the files"), st.just(0)),
    st.tuples(st.just("lose the newest in the database"), st.integers(1, 150)),
)


class Installation:
    """The files of a log beside a database, with everything that may happen to them."""

    def __init__(self, conn: Conn, root: Path) -> None:
        self.conn = conn
        self.files = root / "audit"
        self.backup = root / "backup"
        self.recorded: list[UUID] = []

    def happen(self, event: str, count: int) -> None:
        if event == "record":
            self.recorded += [
                record(self.conn, action="test", actor=SYSTEM, subject="x", detail={}) for _ in range(count)
            ]
        elif event == "sequence":
            self.sequence(count)
        elif event == "crash between files and database":
            self.append(count)
        elif event == "crash between database and files":
            self.number(count)
        elif event == "crash between tiles and checkpoint":
            self.append_without_checkpoint(count)
        elif event == "back up the files" and self.files.exists():
            shutil.rmtree(self.backup, ignore_errors=True)
            shutil.copytree(self.files, self.backup)
        elif event == "restore the files":
            shutil.rmtree(self.files, ignore_errors=True)
            if self.backup.exists():
                shutil.copytree(self.backup, self.files)

        elif event == "lose the newest in the database" and self.files.exists():
            self.lose(count)

    def lose(self, count: int) -> None:
        with AuditLog(self.files, KEY) as log:
            heal(self.conn, log)
            size = log.checkpoint.size
            self.conn.execute("DELETE FROM audit_entry WHERE leaf_index >= %s", (max(1, size - count),))
            heal(self.conn, log)

    def sequence(self, count: int) -> None:
        with AuditLog(self.files, KEY) as log:
            sequence_batch(self.conn, log, heal(self.conn, log).orphans, count)

    def append(self, count: int) -> None:
        with AuditLog(self.files, KEY) as log:
            heal(self.conn, log)
            log.append([entry.body for entry in store.unsequenced(self.conn, count)])

    def number(self, count: int) -> None:
        with AuditLog(self.files, KEY) as log:
            heal(self.conn, log)
            store.assign_indexes(
                self.conn, [entry.id for entry in store.unsequenced(self.conn, count)], log.checkpoint.size
            )

    def append_without_checkpoint(self, count: int) -> None:
        self.sequence(1)
        checkpoint = self.files / "checkpoint"
        before = checkpoint.read_bytes() if checkpoint.exists() else None
        kept = {path: path.read_bytes() for path in self.files.rglob("*") if path.is_file()}
        with AuditLog(self.files, KEY) as log:
            log.append([b"never signed"] * count)
        for path, data in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if before is None:
            checkpoint.unlink()

    def check(self) -> None:
        while store.unsequenced(self.conn, 1):
            self.sequence(1000)
        self.sequence(1)
        size = len(self.recorded)
        assert store.next_leaf(self.conn) == size == store.count_sequenced(self.conn)
        if size:
            verdict = verify(self.files)
            assert verdict.ok and verdict.entries == size
        tiles = Tiles(self.files)
        for index, body in store.sequenced_from(self.conn, 0, size):
            assert tiles.entry(index, size) == body


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["owner"], autocommit=True) as conn:  # who may delete
        yield conn


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(EVENT, max_size=12))
def test_each_entry_is_in_the_log_once_after_any_failures(conn: Conn, events: list[tuple[str, int]]) -> None:
    with conn.transaction(force_rollback=True), tempfile.TemporaryDirectory() as root:
        installation = Installation(conn, Path(root))
        for event, count in events:
            installation.happen(event, count)
        installation.check()
