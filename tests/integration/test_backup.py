"""Backup and restore on real databases and logs: everything comes back, and what is damaged is refused untouched."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import json
import os
import shutil
import tarfile
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.integration.test_migrations import bare_database
from tests.knowledge_intake import Intake

from groundplan.cli.audit import rotate_key
from groundplan.cli.doctor import _check_home
from groundplan.core.audit.keys import create_keys, load_private
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.rotate import rotate
from groundplan.core.audit.store import assign_indexes, record, unsequenced
from groundplan.core.audit.verify import verify
from groundplan.core.database import connect, database_url
from groundplan.core.errors import Conflict, GroundplanError, Invalid, Unavailable
from groundplan.core.home import Home, sync_folder, write_atomically
from groundplan.core.ids import new_id
from groundplan.core.settings import Settings, load_settings
from groundplan.knowledge.governance.share import LinkActor, create_link, withdraw_link
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.runtime import backup as backup_module
from groundplan.runtime import table_dump
from groundplan.runtime.archive import MANIFEST, unpack, write_archive
from groundplan.runtime.backup import _add, backup, delete_killed_backups, restore
from groundplan.runtime.locks import INCOMPLETE, own_home
from groundplan.runtime.migrate import LAST_UNRELEASED, head, revision
from groundplan.runtime.postgres import EmbeddedPostgres
from groundplan.runtime.supervisor import Supervisor
from groundplan.runtime.table_dump import dump_tables, load_tables
from groundplan.testing.database import Cluster, Database

EMBEDDED: Settings = dataclasses.replace(load_settings({}), database_url=None)
ROWS = "SELECT (SELECT count(*) FROM person), (SELECT count(*) FROM document), (SELECT count(*) FROM audit_entry)"


def ignore_progress(_: str) -> None:
    return None


def entries(url: str, number: int) -> None:
    with connect(url) as control:
        for index in range(number):
            record(control, action="test.made", actor="operator", subject=f"thing/{index}", detail={"n": index})


def sequence(home: Home, url: str) -> int:
    """Give all waiting entries a place, as the sequencer does; the size of the log."""
    with connect(url) as control, AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        first = log.checkpoint.size
        waiting = unsequenced(control, 10_000)
        log.append([one.body for one in waiting])
        assign_indexes(control, [one.id for one in waiting], first)
        return log.checkpoint.size


@pytest.fixture
def home(tmp_path: Path, database: Database) -> Home:
    """An installation on an external database with people, a protected document, audit entries and a journal."""
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    home.operator_token.write_text("operator-secret")
    control_url = database.urls["control"]
    with connect(control_url) as control:
        for number in range(3):
            control.execute(
                "INSERT INTO person (id, email, name) VALUES (%s, %s, %s)",
                (new_id(), f"p{number}@example.com", "tab\there, line\nthere, \\N, ünïcode"),
            )
        control.execute("INSERT INTO source (name, sensitivity, owner, path) VALUES ('hr', 'confidential', 'x', 'hr')")
        control.execute(
            "INSERT INTO document (id, source, path, title, digest) VALUES (%s, 'hr', 'a.md', 'A', 'x')", (new_id(),)
        )
        control.execute("SELECT next_policy_number('key', 'key/1', true), nextval('chunk_change')")
    entries(control_url, 300)
    assert sequence(home, control_url) == 300
    segment = home.journal / "epoch" / "00000000.seg"
    segment.parent.mkdir()
    segment.write_bytes(os.urandom(1000) + bytes(1 << 20))
    return home


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Home]:
    restored = Home(tmp_path / "restored")
    yield restored
    if restored.postgres.exists():
        EmbeddedPostgres(restored).remove()


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def test_a_backup_is_logged_where_the_log_is_writable(home: Home, database: Database, tmp_path: Path) -> None:
    settings, told = database.settings(home.root), list[str]()

    def kept() -> list[str]:
        with connect(database.urls["owner"]) as owner:
            rows = owner.execute(
                "SELECT body FROM audit_entry WHERE action = 'backup' AND actor = 'operator'"
            ).fetchall()
        return [json.loads(bytes(row[0]))["detail"]["archive"] for row in rows]

    backup(home, settings, tmp_path / "monday.tar", told.append)
    assert kept() == ["monday.tar"] and not any("not in it" in line for line in told)
    with connect(database.superuser, autocommit=True) as admin:
        name = sql.Identifier(database.name)
        admin.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    backup(home, settings, tmp_path / "tuesday.tar", told.append)
    assert kept() == ["monday.tar"] and (tmp_path / "tuesday.tar").exists()
    assert any("this backup is not in it" in line for line in told)


def test_a_backup_of_an_external_database_restores_into_an_embedded_one_and_back(
    home: Home, target: Home, database: Database, tmp_path: Path
) -> None:
    archive = tmp_path / "a.backup"
    backup(home, database.settings(home.root), archive, ignore_progress)
    assert archive.stat().st_mode & 0o777 == 0o600
    restore(archive, target, EMBEDDED)
    for folder in ("keys", "audit", "journal"):
        assert files(target.root / folder) == files(home.root / folder)
    assert target.operator_token.read_text() == "operator-secret"
    assert verify(target.audit).ok and verify(target.audit).entries == 300
    with EmbeddedPostgres(target) as server:
        server.start()
        url = database_url(target, EMBEDDED, "owner")
        assert revision(url) == head()
        with connect(database_url(target, EMBEDDED, "control")) as control:
            assert control.execute(ROWS).fetchone() == (3, 1, 301)
            assert control.execute("SELECT number FROM policy_epoch").fetchone() == (1,)
            assert control.execute("SELECT nextval('chunk_change')").fetchone() == (2,)
            assert control.execute("SELECT DISTINCT name FROM person").fetchall() == [
                ("tab\there, line\nthere, \\N, ünïcode",)
            ]
            record(control, action="test.after", actor="system", subject="x", detail={})
        with connect(url) as owner:
            assert owner.execute("SELECT count(*) FROM document").fetchone() == (0,), "row-level security is forced"
        backup(target, EMBEDDED, tmp_path / "b.backup", ignore_progress)
    steps: list[str] = []
    backup(target, EMBEDDED, tmp_path / "c.backup", steps.append)
    assert "copying the database" in steps
    assert not list(target.run.glob("backup-*"))


def test_entries_numbered_after_the_log_was_copied_are_appended_again(
    home: Home, target: Home, database: Database, tmp_path: Path
) -> None:
    early = {path: path.read_bytes() for path in home.audit.rglob("*") if path.is_file()}
    entries(database.urls["control"], 50)
    assert sequence(home, database.urls["control"]) == 350
    expected = verify(home.audit).root
    for path in home.audit.rglob("*"):
        if path.is_file():
            path.unlink()
    for path, data in early.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    backup(home, database.settings(home.root), tmp_path / "a.backup", ignore_progress)
    restore(tmp_path / "a.backup", target, EMBEDDED)
    verdict = verify(target.audit)
    assert (verdict.ok, verdict.entries, verdict.root) == (True, 350, expected)


def test_a_backup_of_a_busy_installation_is_consistent(
    home: Home, target: Home, database: Database, tmp_path: Path
) -> None:
    done = threading.Event()
    url = database.urls["control"]

    def work() -> None:
        while not done.is_set():
            entries(url, 20)
            sequence(home, url)

    busy = threading.Thread(target=work)
    busy.start()
    try:
        backup(home, database.settings(home.root), tmp_path / "a.backup", ignore_progress)
    finally:
        done.set()
        busy.join()
    restore(tmp_path / "a.backup", target, EMBEDDED)
    verdict = verify(target.audit)
    assert verdict.ok and verdict.entries >= 300


def test_a_log_that_grows_during_the_backup_is_included(
    home: Home, target: Home, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of millions of entries always does, where calls arrive."""
    link = backup_module._link

    def linked(source: Path, kept: Path) -> None:
        if source.is_relative_to(home.audit):
            entries(database.urls["control"], 150)
            sequence(home, database.urls["control"])
        link(source, kept)

    monkeypatch.setattr(backup_module, "_link", linked)
    steps: list[str] = []
    backup(home, database.settings(home.root), tmp_path / "a.backup", steps.append)
    monkeypatch.undo()
    assert not [step for step in steps if "does not hold" in step]
    restore(tmp_path / "a.backup", target, EMBEDDED)
    verdict = verify(target.audit)
    assert verdict.ok and verdict.entries >= 450


def test_a_backup_that_may_lack_part_of_a_journal_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no more files may be open for a moment: what was taken over meanwhile was deleted, and not kept."""
    keep, failed = backup_module._link_new_files, threading.Event()

    def failing(source: Path, target: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            failed.set()
            raise OSError(errno.EMFILE, "Too many open files")
        keep(source, target)

    monkeypatch.setattr(backup_module, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(backup_module, "_link_new_files", failing)
    with (
        pytest.raises(OSError, match="Too many open files"),
        backup_module._following_journals(home, home.run / "staging"),
    ):
        assert failed.wait(10)


def test_growing_journals_on_another_disk_are_included(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where HOME/journal is a volume; what such a disk has of its own, nobody but root may read."""
    link, listed = os.link, os.scandir

    def across(source: Path, target: Path) -> None:
        if home.journal in source.parents and home.journal not in target.parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    def denied(path: Any = ".") -> Any:
        if str(path).endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    for folder in (home.journal, home.root / "files"):
        (folder / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(os, "link", across)
    monkeypatch.setattr(os, "scandir", denied)
    segment, before = home.journal / "epoch" / "00000000.seg", files(home.journal)
    with backup_module._staging(home) as staging:
        with backup_module._following_journals(home, backup_module._journal_staging(home, staging)):
            with segment.open("r+b") as growing:
                growing.seek(1000)
                growing.write(b"what came while the rows were copied")
            whole = segment.read_bytes()
            segment.unlink()  # taken over
        kept = dict(backup_module._files(backup_module._journal_staging(home, staging)))
        assert kept.keys() == before.keys() and kept["epoch/00000000.seg"].read_bytes() == whole
        with backup_module._following_journals(home, home.run / "second"):
            pass
        assert not list(backup_module._files(home.run / "second")), "what another one keeps is no journal"
    assert list(home.journal.glob(".*")) == [] and dict(backup_module._home_files(home)).keys() == {"operator.token"}


def test_a_backup_with_an_unreadable_folder_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def failing(path: Any = ".") -> Any:
        if os.fspath(path) == os.fspath(home.root / "files"):
            raise OSError(errno.EIO, "Input/output error", os.fspath(path))
        return listed(path)

    (home.root / "files").mkdir()
    (home.root / "files" / "one").write_bytes(b"1")
    kept = {name for name, _ in backup_module._home_files(home)}
    assert "files/one" in kept
    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OSError, match="Input/output error"):
        list(backup_module._home_files(home))


def decompressed(data: bytes) -> bytes | None:
    """What gzip makes of it; None where it finds damage."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None


def test_a_truncated_or_altered_archive_is_refused_untouched(home: Home, database: Database, tmp_path: Path) -> None:
    archive = tmp_path / "a.backup"
    backup(home, database.settings(home.root), archive, ignore_progress)
    data = archive.read_bytes()
    damaged = tmp_path / "damaged"
    cuts = [0, 1, 10, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 1]
    flips = [0, 2, len(data) // 4, len(data) // 2, len(data) - 20, len(data) - 5]
    spoiled = [data[:cut] for cut in cuts] + [data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :] for at in flips]
    for number, body in enumerate(spoiled):
        if decompressed(body) == decompressed(data):
            continue  # a changed distance can point to an equal copy: nothing in the archive is altered
        damaged.write_bytes(body)
        with pytest.raises(Invalid, match="archive_damaged"):
            restore(damaged, Home(tmp_path / f"home-{number}"), EMBEDDED)
        assert not (tmp_path / f"home-{number}").exists()


def test_a_member_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    inside = tmp_path / "x"
    inside.write_text("x")
    for name in ("../escape", "/tmp/escape", "a/../../escape"):
        with tarfile.open(evil, "w:gz") as tar:
            tar.add(inside, name)
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(Invalid, match="archive_damaged"):
            unpack(evil, tmp_path / "out")
    assert not (tmp_path / "escape").exists()


def test_conflicting_names_in_an_archive_are_refused(tmp_path: Path) -> None:
    inside = tmp_path / "x"
    inside.write_text("x")
    for number, names in enumerate((("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a" * 300,))):
        with tarfile.open(tmp_path / f"evil{number}", "w:gz") as tar:
            for name in names:
                tar.add(inside, name)
        (tmp_path / f"out{number}").mkdir()
        with pytest.raises(Invalid, match="archive_damaged"):
            unpack(tmp_path / f"evil{number}", tmp_path / f"out{number}")


def test_links_and_newer_formats_are_refused(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    with tarfile.open(evil, "w:gz") as tar:
        info = tarfile.TarInfo("keys")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(info)
    with pytest.raises(Invalid, match="archive_damaged"):
        unpack(evil, tmp_path)
    with write_archive(tmp_path / "newer", {"format": 99}):
        pass
    (tmp_path / "out").mkdir()
    with pytest.raises(Invalid, match="archive_format"):
        unpack(tmp_path / "newer", tmp_path / "out")


def test_only_an_empty_home_and_an_unused_database_are_restored_into(
    home: Home, database: Database, postgres_cluster: Cluster, tmp_path: Path
) -> None:
    archive = tmp_path / "a.backup"
    settings = database.settings(home.root)
    backup(home, settings, archive, ignore_progress)
    with pytest.raises(Conflict, match="archive_exists"):
        backup(home, settings, archive, ignore_progress)
    with pytest.raises(Conflict, match="home_not_empty") as refused:
        restore(archive, home, settings)
    assert "Keep its folder journal" in refused.value.hint
    other = Home(tmp_path / "other")
    with pytest.raises(Conflict, match="restore_not_empty"):
        restore(archive, other, settings)
    assert not other.root.exists()
    (other.root / "lost+found").mkdir(parents=True)  # of a disk that is mounted there
    beside, seen = set(tmp_path.iterdir()), set[Path]()
    with postgres_cluster.database() as fresh:
        restore(archive, other, fresh.settings(other.root), lambda _: seen.update(tmp_path.iterdir()))
        assert seen == beside, "nothing of it is on another disk meanwhile"
        assert (other.root / "lost+found").is_dir()
        with connect(fresh.urls["control"]) as control:
            assert control.execute(ROWS).fetchone() == (3, 1, 301)


@pytest.mark.parametrize("lacks", [True, False])
def test_a_dump_with_other_tables_is_refused(database: Database, tmp_path: Path, lacks: bool) -> None:
    facts = dump_tables(database.urls["control"], tmp_path)
    if lacks:
        del facts["tables"]["person"]
    else:
        facts["tables"]["unheard_of"] = ["id"]
    with pytest.raises(Invalid, match="other tables") as refused:
        load_tables(database.urls["owner"], tmp_path, facts)
    assert refused.value.code == "restore_mismatch"


def with_schema(archive: Path, schema: str) -> Path:
    """The same backup as one that was made at another schema."""
    folder, changed = archive.parent / "out", archive.with_suffix(f".{schema}")
    folder.mkdir(exist_ok=True)
    facts = unpack(archive, folder)
    with write_archive(changed, {**facts, "schema": schema}) as writer:
        for name in facts["files"]:
            writer.add(name, folder / name)
    return changed


@pytest.mark.parametrize(
    ("schema", "code"),
    [("9999_future", "schema_newer"), ("0417_uses_of_tools_are_no_calls", "schema_unreleased")],
)
def test_a_backup_of_another_schema_is_refused_and_undone(
    home: Home, database: Database, tmp_path: Path, schema: str, code: str
) -> None:
    backup(home, database.settings(home.root), tmp_path / "a.backup", ignore_progress)
    other = Home(tmp_path / "other")
    with pytest.raises(Conflict, match=code):
        restore(with_schema(tmp_path / "a.backup", schema), other, EMBEDDED)
    assert not other.root.exists()


def test_a_backup_of_the_last_unreleased_schema_is_restored(
    home: Home, database: Database, postgres_cluster: Cluster, tmp_path: Path
) -> None:
    with connect(database.urls["owner"]) as owner:  # a table that it had, and a later step dropped
        owner.execute("CREATE TABLE worker_day (day date, workload text, epoch uuid, calls bigint)")
        owner.execute("INSERT INTO worker_day VALUES ('2026-11-30', 'w', gen_random_uuid(), 3)")
        control = sql.Identifier(f"{database.name}_control")
        owner.execute(sql.SQL("GRANT SELECT ON worker_day TO {}").format(control))
        owner.execute("ALTER TABLE batch DROP COLUMN grounded")  # which it did not have
    backup(home, database.settings(home.root), tmp_path / "a.backup", ignore_progress)
    other = Home(tmp_path / "other")
    with bare_database(postgres_cluster, "bare_restored") as url:
        settings = dataclasses.replace(load_settings({}), home=other.root, database_url=url)
        restore(with_schema(tmp_path / "a.backup", LAST_UNRELEASED), other, settings)
        assert revision(url) == head()
        with connect(url) as owner:
            assert owner.execute(ROWS).fetchone() == (3, 1, 301)


def test_a_tampered_log_is_backed_up_with_a_warning(home: Home, database: Database, tmp_path: Path) -> None:
    bundle = next(path for path in (home.audit / "tile" / "entries").rglob("*") if path.is_file())
    bundle.write_bytes(bundle.read_bytes().replace(b"thing/7", b"thing/8", 1))
    said: list[str] = []
    backup(home, database.settings(home.root), tmp_path / "a.backup", said.append)
    assert any("does not hold" in line for line in said)
    (tmp_path / "out").mkdir()
    assert unpack(tmp_path / "a.backup", tmp_path / "out")["audit_ok"] is False


def test_an_interrupted_restore_cannot_be_started(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    lock = own_home(home)
    (home.root / INCOMPLETE).touch()
    for code, state in (("up_running", "warn"), ("restore_incomplete", "bad")):
        with pytest.raises(Conflict, match=code), Supervisor(home):
            pass
        with pytest.raises(Conflict, match=code):
            backup(home, load_settings({}), tmp_path / "a.backup", ignore_progress)
        with pytest.raises(Conflict, match=code):
            restore(tmp_path / "b.backup", home)
        with pytest.raises(Conflict, match=code):
            rotate_key(home.root)
        (told,) = _check_home(home, load_settings({}))
        assert told.state == state and "a restore into" in told.message
        if code == "up_running":  # the restore is killed
            os.close(lock)


def test_a_failing_disk_is_named_when_an_archive_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with write_archive(tmp_path / "a", {}) as archive:
        _add(archive, "x", Path(__file__))
    (staging := tmp_path / "home" / "staging").mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(Unavailable, match="archive_read") as told:
        unpack(tmp_path / "a", staging)
    assert str(staging.parent) in told.value.hint


def broken(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_unreadable_and_unwritable_files_are_named(
    home: Home, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = database.settings(home.root)
    with pytest.raises(Invalid, match="archive_missing"):
        restore(tmp_path / "none", Home(tmp_path / "x"), EMBEDDED)
    with pytest.raises(Unavailable, match="archive_write"):
        backup(home, settings, tmp_path / "no" / "folder" / "a", ignore_progress)
    with pytest.raises(GroundplanError, match="home_unknown"):
        backup(Home(tmp_path / "nothing"), settings, tmp_path / "a", ignore_progress)
    alone = Home(tmp_path / "alone")  # as of a program that is started without `up`
    alone.create()
    create_keys(alone)
    with pytest.raises(Invalid, match="database_unnamed"):
        backup(alone, EMBEDDED, tmp_path / "a", ignore_progress)
    assert not list(alone.postgres.glob("*")), "no database is made to back it up"
    monkeypatch.setattr("groundplan.runtime.backup.dump_tables", full)
    with pytest.raises(Unavailable, match="archive_write") as told:
        backup(home, settings, tmp_path / "a", ignore_progress)
    assert str(home.run) in told.value.hint
    assert [path.name for path in home.run.iterdir()] == ["backup.lock"]


def test_an_empty_database_is_not_backed_up(home: Home, postgres_cluster: Cluster, tmp_path: Path) -> None:
    with postgres_cluster.database() as empty, connect(empty.dsn, autocommit=True) as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public")
        with pytest.raises(Invalid, match="database_unnamed") as told:
            backup(home, empty.settings(home.root), tmp_path / "a", ignore_progress)
    assert "GROUNDPLAN_DATABASE_URL" in told.value.hint and not (tmp_path / "a").exists()


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_manifest_lists_every_file_with_its_digest(home: Home, database: Database, tmp_path: Path) -> None:
    archive = tmp_path / "a.backup"
    (home.run / "backup-killed" / "tables").mkdir(parents=True)
    (home.journal / ".backup-killed" / "epoch").mkdir(parents=True)
    (half := tmp_path / ".yesterday.backup.77.tmp").write_bytes(b"half an archive")
    (home.run / "backup-killed" / "archive").symlink_to(half)

    def beside(_: str) -> None:
        """An `up`, or a second backup, starts."""
        delete_killed_backups(home)
        (own,) = home.run.glob("backup-*")
        assert own.name != "backup-killed", "what one that was killed has left goes first"
        assert not (home.journal / ".backup-killed").exists()

    backup(home, database.settings(home.root), archive, beside)
    assert not list(home.run.glob("backup-*"))
    assert not half.exists()
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        source = tar.extractfile(MANIFEST)
        assert source is not None
        manifest = json.loads(source.read())
    assert names[-1] == MANIFEST
    assert sorted(manifest["files"]) == sorted(names[:-1])
    assert manifest["schema"] == head()
    assert {"keys/checkpoint.key", "operator.token", "audit/checkpoint", "tables/person.copy"} <= set(names)


def test_uploaded_files_are_restored_and_may_be_deleted_during_a_backup(
    home: Home, database: Database, tmp_path: Path
) -> None:
    """Half-made uploads and marks of batches are left out; a file that is deleted just then is no failure."""
    for folder in ("files", "batches"):
        (home.root / folder).mkdir(mode=0o700)
        (home.root / folder / "one").write_bytes(b"kept")
    (home.root / "files" / ".two.new").write_bytes(b"half")
    (home.root / "files" / "zzz").write_bytes(b"soon gone")

    def progress(step: str) -> None:
        if step == "writing the archive":
            threading.Thread(target=gone.unlink).start()

    gone = home.root / "files" / "zzz"
    settings = dataclasses.replace(load_settings({}), database_url=database.dsn)
    backup(home, settings, tmp_path / "a.tar.gz", progress)
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        names = {name for name in archive.getnames() if name.startswith(("files/", "batches/"))}
    assert names - {"files/zzz"} == {"files/one"}
    with write_archive(tmp_path / "b.tar.gz", {}) as writer:
        _add(writer, "files/zzz", tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError):
            _add(writer, "keys/blueprint.key", tmp_path / "nowhere")


@pytest.mark.parametrize("last", ["document_link", "document_reader"])
def test_derived_columns_are_restored_unchanged(
    database: Database, postgres_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Shared by link, a document has a set of readers of its own; in whatever order the tables are read."""
    order = table_dump._dependency_order

    def ordered(*of: Any) -> list[str]:
        return sorted(order(*of), key=lambda name: name == last)

    monkeypatch.setattr(table_dump, "_dependency_order", ordered)
    source, folders = tmp_path / "s", (tmp_path / "one", tmp_path / "two")
    for each in (source, *folders):
        each.mkdir()
    for name, readers in (("open", "everyone"), ("few", "hr"), ("shared", "hr"), ("once", "hr")):
        (source / f"{name}.md").write_text(f"---\nreaders: [{readers}]\n---\n# {name}\n\nAbout {name}.\n")
    intake = Intake(database)
    intake.add_group("hr")
    intake.ingest(FolderConnector(source))
    by = LinkActor("system", None, datetime.now(UTC))
    made = {
        name: create_link(intake.conn, intake.document_columns(f"{name}.md", "id"), by.at.date(), "asked", by)
        for name in ("shared", "once")
    }
    withdraw_link(intake.conn, intake.document_columns("once.md", "id"), made["once"].name, by)
    intake.close()
    facts = dump_tables(database.urls["control"], folders[0])
    with postgres_cluster.database() as other:
        load_tables(other.urls["owner"], folders[0], facts)
        assert dump_tables(other.urls["control"], folders[1]) == facts
        for name in facts["tables"]:
            before, after = (sorted((folder / f"{name}.copy").read_bytes().splitlines()) for folder in folders)
            assert before == after, name
        with connect(other.urls["control"], autocommit=True) as conn:
            conn.execute("DELETE FROM document_link")  # and from then on it is kept as before
            assert conn.execute("SELECT count(*) FROM acl").fetchone() == (2,)


@pytest.mark.parametrize("lacks", [(), ("acl_id_seq", "pushed_change", "search_edition_id_seq")])
def test_sequences_continue_after_a_restore(
    database: Database, postgres_cluster: Cluster, tmp_path: Path, lacks: tuple[str, ...]
) -> None:
    """From what it gave out before: another set of readers, and what is pushed, meets none that is there; also from a
    backup that lacks some, as they did."""
    folder, source = tmp_path / "tables", tmp_path / "s"
    folder.mkdir()
    source.mkdir()
    (source / "open.md").write_text("---\nreaders: [everyone]\n---\n# Open\n\nAbout it.\n")
    intake = Intake(database)
    intake.add_group("hr")
    intake.ingest(FolderConnector(source))
    pushed = [intake.conn.execute("SELECT nextval('pushed_change')").fetchone() for _ in range(3)][-1]
    assert pushed is not None
    intake.close()
    facts = dump_tables(database.urls["control"], folder)
    with connect(database.superuser) as conn:
        every = conn.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
        )
        assert {name for (name,) in every.fetchall()} == set(facts["sequences"]), "control may read each of them"
    told = {name: value for name, value in facts["sequences"].items() if name not in lacks}
    with postgres_cluster.database() as other:
        load_tables(other.urls["owner"], folder, {**facts, "sequences": told})
        again = Intake(other)
        (source / "few.md").write_text("---\nreaders: [hr]\n---\n# Few\n\nFor a few.\n")
        again.ingest(FolderConnector(source))
        assert again.document_columns("few.md", "id") is not None
        number = again.conn.execute("SELECT nextval('pushed_change')").fetchone()
        assert number is not None and number[0] > pushed[0]
        assert again.conn.execute("SELECT count(DISTINCT acl) FROM document").fetchone() == (2,)
        again.close()


@pytest.mark.parametrize("cut", ["_move", "_sync_folders", "load_tables", "unpack"])
def test_a_restore_interrupted_by_a_full_disk_can_be_repeated(
    home: Home, database: Database, postgres_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """Nothing of it is left, in HOME and in somebody else's database, so that the next one finds both empty."""
    archive, other = tmp_path / "a.backup", Home(tmp_path / "other")
    backup(home, database.settings(home.root), archive, ignore_progress)
    with postgres_cluster.database() as fresh:
        settings, said = fresh.settings(other.root), list[str]()
        with monkeypatch.context() as patched:
            patched.setattr(backup_module, cut, full)
            with pytest.raises(OSError, match="No space left"):
                restore(archive, other, settings, said.append)
        assert not other.root.exists()
        left = "make it anew" in " ".join(said)
        with connect(fresh.urls["owner"]) as owner:
            assert (owner.execute("SELECT count(*) FROM audit_entry").fetchone() == (301,)) == left
        assert left == (cut == "_sync_folders"), "by then all is there, and the rows are told of"
        if not left:
            restore(archive, other, settings)
            with connect(fresh.urls["control"]) as control:
                assert control.execute(ROWS).fetchone() == (3, 1, 301)


def test_a_full_database_disk_is_not_reported_as_a_damaged_backup(
    home: Home, database: Database, postgres_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, other = tmp_path / "a.backup", Home(tmp_path / "other")
    backup(home, database.settings(home.root), archive, ignore_progress)
    full_there = psycopg.errors.DiskFull("could not extend file: No space left on device")
    monkeypatch.setattr(table_dump, "_load", lambda *_: (_ for _ in ()).throw(full_there))
    with postgres_cluster.database() as fresh, pytest.raises(Unavailable, match="No space left") as refused:
        restore(archive, other, fresh.settings(other.root))
    assert refused.value.code == "database_unavailable" and refused.value.hint
    assert not other.root.exists()


def test_a_restore_is_durable_before_it_can_be_started(
    home: Home, database: Database, postgres_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power may take the names of files that are not synced: of a journal, of keys, and of the mark that a
    restore is under way."""
    archive, other, synced = tmp_path / "a.backup", Home(tmp_path / "other"), list[Path]()
    backup(home, database.settings(home.root), archive, ignore_progress)

    def sync(folder: Path) -> None:
        synced.append(folder)
        assert (other.root / INCOMPLETE).exists() == (len(synced) <= len(there()))
        sync_folder(folder)

    def there() -> list[Path]:
        return [other.root, *(path for path in other.root.rglob("*") if path.is_dir())]

    def mark(path: Path, data: bytes) -> None:
        assert path.name == INCOMPLETE and not any(each.is_file() for each in other.keys.iterdir())
        write_atomically(path, data)

    monkeypatch.setattr(backup_module, "sync_folder", sync)
    monkeypatch.setattr(backup_module, "write_atomically", mark)
    with postgres_cluster.database() as fresh:
        restore(archive, other, fresh.settings(other.root))
    assert set(synced) == set(there()) and synced[-1] == other.root


def test_a_key_rotated_during_a_backup_matches_its_log(
    home: Home, database: Database, postgres_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log was kept as the old key had signed it, and the keys as they were in the end: nobody could restore it."""
    archive, kept = tmp_path / "a.backup", backup_module._read_if_exists
    rotated: list[str] = []

    def rotate_once(when: str) -> None:
        if when not in rotated:
            rotated.append(when)
            rotate(home)

    def at_the_checkpoint(path: Path) -> bytes | None:
        if path.name == "checkpoint":
            rotate_once("as the checkpoint is read")
        return kept(path)

    def at_the_rows(url: str, folder: Path) -> dict[str, Any]:
        rotate_once("as the rows are read")
        return dump_tables(url, folder)

    monkeypatch.setattr(backup_module, "_read_if_exists", at_the_checkpoint)
    monkeypatch.setattr(backup_module, "dump_tables", at_the_rows)
    backup(home, database.settings(home.root), archive, ignore_progress)
    assert len(rotated) == 2
    other = Home(tmp_path / "other")
    with postgres_cluster.database() as fresh:
        restore(archive, other, fresh.settings(other.root))
    with AuditLog(other.audit, load_private(other, "checkpoint")) as log:
        assert log.checkpoint.size == 300
    assert verify(other.audit).ok


def test_a_home_whose_folders_could_not_be_created_is_restored_into_later(
    home: Home, database: Database, postgres_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, other = tmp_path / "a.backup", Home(tmp_path / "other")
    backup(home, database.settings(home.root), archive, ignore_progress)
    with postgres_cluster.database() as fresh:
        with monkeypatch.context() as patched:
            patched.setattr("groundplan.runtime.locks._own", full)
            with pytest.raises(Unavailable, match="home_unusable"):
                restore(archive, other, fresh.settings(other.root))
        assert not other.root.exists()
        restore(archive, other, fresh.settings(other.root))
    assert verify(other.audit).ok


def test_an_empty_home_with_mounted_folders_is_restored_into(
    home: Home, database: Database, postgres_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders and a lock are what a restore leaves that was killed as it began."""
    archive, other, rename = tmp_path / "a.backup", Home(tmp_path / "other"), os.rename
    backup(home, database.settings(home.root), archive, ignore_progress)
    os.close(own_home(other))
    (other.root / f".{INCOMPLETE}.77.tmp").touch()
    (other.journal / "lost+found").mkdir()

    def across(source: Any, target: Any, **more: Any) -> None:
        if (other.journal in Path(source).parents) != (other.journal in Path(target).parents):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target, **more)

    monkeypatch.setattr(os, "rename", across)
    with postgres_cluster.database() as fresh:
        with monkeypatch.context() as patched:
            patched.setattr(backup_module, "_check_log", full)
            with pytest.raises(OSError, match="No space left"):
                restore(archive, other, fresh.settings(other.root))
        assert [path.name for path in other.root.rglob("*")] == ["journal", "lost+found"], "all else is undone"
    with postgres_cluster.database() as fresh:
        restore(archive, other, fresh.settings(other.root))
    segment = other.journal / "epoch" / "00000000.seg"
    assert segment.stat().st_mode & 0o777 == 0o600
    assert files(other.journal) == files(home.journal) and verify(other.audit).ok
    (other.root / "mine").mkdir()
    shutil.rmtree(other.root / "keys")
    with pytest.raises(Conflict, match="home_not_empty"):
        restore(archive, other, database.settings(other.root))


def test_an_archive_that_could_not_be_synced_is_deleted(
    home: Home, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, archive = database.settings(home.root), tmp_path / "a.backup"
    with monkeypatch.context() as patched:
        patched.setattr("groundplan.runtime.archive.sync_folder", full)
        with pytest.raises(Unavailable, match="archive_write"):
            backup(home, settings, archive, ignore_progress)
    assert [path for path in tmp_path.iterdir() if "backup" in path.name] == []
    backup(home, settings, archive, ignore_progress)
