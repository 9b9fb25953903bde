"""`backup` writes one archive of an installation, running or not; `restore` puts it into an empty HOME.

In the archive: all rows of one moment, the audit log's files up to a checkpoint that is not later, the journals (so
that no metered call is lost), keys, token. Not in it: logs, the search index (it is rebuilt), downloaded models, the
workspace. Calls answered while the backup runs may or may not be in it. Journals may go on beyond the rows: after a
restore the shipper ships them, and books grants that only they prove (`gateway.journal.ledger_store`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from groundplan.core.audit.checkpoint import parse_checkpoint, parse_note
from groundplan.core.audit.entry import OPERATOR
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.rotate import NEXT as ROTATING
from groundplan.core.audit.rotate import end_rotation
from groundplan.core.audit.sequencer import complete_files
from groundplan.core.audit.store import next_leaf, record
from groundplan.core.audit.tiles import last_tile, levels_of, tile_path
from groundplan.core.audit.verify import verify
from groundplan.core.audit.witness import FOLDER as WITNESSES
from groundplan.core.database import connect, database_url, first_line
from groundplan.core.errors import Conflict, Invalid, Unavailable
from groundplan.core.home import Home, sync_folder, temporary_path, write_atomically
from groundplan.core.settings import Settings, load_settings
from groundplan.runtime.archive import Writer, unpack, write_archive
from groundplan.runtime.database import running_database
from groundplan.runtime.locks import INCOMPLETE, check_restored, own_home
from groundplan.runtime.migrate import migrate, revision
from groundplan.runtime.postgres import EmbeddedPostgres
from groundplan.runtime.table_dump import dump_tables, load_tables

Progress = Callable[[str], None]

_LOST_AND_FOUND: Final = "lost+found"
"""A file system's own folder, where one is mounted."""
_NOT_COPIED: Final = {
    "postgres", "run", "logs", "search", "mirrors", "lock", "audit", "keys", "journal", "batches", INCOMPLETE,
    _LOST_AND_FOUND,
}  # fmt: skip
"""Not copied as they are: recreated at start, or copied separately."""

_UPLOADS: Final = "files/"
_JOURNALS: Final = "journal/"
_KEPT_PREFIX: Final = ".backup-"
"""Prefix of the folders beside the journals in which a backup keeps them."""
_LOOK_SECONDS: Final = 0.1
_ARCHIVE: Final = "archive"
"""Link to the archive's temporary file, which may be on any disk."""


def backup(home: Home, settings: Settings, target: Path, progress: Progress) -> None:
    """Write `target`. Raises `Conflict` (`archive_exists`, `restore_incomplete`, `up_running` while a restore into HOME
    is under way), `Invalid` (`home_unknown`, `database_unnamed`), `Unavailable`."""
    if not home.keys.is_dir():
        raise Invalid(f"{home.root} is not the HOME of an installation", code="home_unknown", hint="Check --home.")
    check_restored(home)
    if target.exists():
        raise Conflict(f"{target} exists already", code="archive_exists", hint="Choose another name, or move it away.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise Unavailable(
            f"{target.parent} is not a folder that this user may write to",
            code="archive_write",
            hint="Name an archive in a folder that is there and writable.",
        )
    if settings.database_url is None and not (home.postgres / "data").exists():  # it would be created, empty
        raise _nothing_to_back_up(f"{home.root} has no database of its own")
    with _staging(home) as staging, _reporting_full_disk(home):
        journals = _journal_staging(home, staging)
        with _reporting_lost_database(), running_database(home, settings, progress):
            if (schema := revision(database_url(home, settings, "owner"))) is None:
                raise _nothing_to_back_up("there is nothing in this database")
            _record_backup(database_url(home, settings, "control"), target, progress)
            progress("keeping the audit log")
            audit_ok = _copy_log(home, staging / "audit", progress)
            progress("copying the database")
            with _following_journals(home, journals):
                (staging / "tables").mkdir(mode=0o700)
                facts = dump_tables(database_url(home, settings, "control"), staging / "tables")
        facts |= {"schema": schema, "made_at": datetime.now(UTC).isoformat(), "audit_ok": audit_ok}
        progress("writing the archive")
        (staging / _ARCHIVE).symlink_to(temporary_path(target.absolute()))
        with write_archive(target, facts) as archive:
            kept = [(f"{_JOURNALS}{name}", path) for name, path in _files(journals)]
            for name, path in (*_files(staging), *kept, *_home_files(home)):
                _add(archive, name, path)


def _nothing_to_back_up(why: str) -> Invalid:
    return Invalid(
        f"nothing can be backed up: {why}",
        code="database_unnamed",
        hint="Name the one that it is served from in GROUNDPLAN_DATABASE_URL, as for `up`, or check --home.",
    )


@contextmanager
def _staging(home: Home) -> Iterator[Path]:
    """A folder for files to be archived; holds `run/backup.lock`, shared with other backups."""
    delete_killed_backups(home)
    with (home.run / "backup.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        folder = Path(tempfile.mkdtemp(prefix="backup-", dir=home.run))
        try:
            yield folder
        finally:
            shutil.rmtree(_journal_staging(home, folder), ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)


def _journal_staging(home: Home, staging: Path) -> Path:
    """Return the folder where journals are kept: on their own disk, which may be another one, since only a link goes on
    growing with what is written meanwhile."""
    return home.journal / f".{staging.name}"


def delete_killed_backups(home: Home) -> None:
    """Delete what killed backups have left: all rows, links that keep journals on the disk, and half an archive,
    wherever it is. Does nothing while a backup is under way."""
    home.run.mkdir(mode=0o700, exist_ok=True)
    with (home.run / "backup.lock").open("wb") as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in home.run.glob("backup-*"):
            with suppress(OSError):
                (path / _ARCHIVE).readlink().unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        for path in home.journal.glob(f"{_KEPT_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _reporting_full_disk(home: Home) -> Iterator[None]:
    """Report a full disk, with what takes room on it; the writer of the archive reports that of its own disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unavailable(
            f"the backup cannot be made: {error.strerror}",
            code="archive_write",
            hint=f"Until it is written, all rows of the database lie in {home.run}, too: free space there.",
        ) from error


def _record_backup(control: str, target: Path, progress: Progress) -> None:
    """Record in the audit log that everything is about to leave as a file, before the rows are read, if possible."""
    try:
        with connect(control) as connection:
            record(connection, action="backup", actor=OPERATOR, subject="company", detail={"archive": target.name})
    except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as error:
        progress(f"the audit log cannot be written now, so this backup is not in it: {first_line(error)}")


def restore(archive: Path, home: Home, settings: Settings | None = None, progress: Progress = lambda _: None) -> None:
    """Make `home`, which must be empty, what it was at the backup; the database is the one that `settings` names.

    A damaged archive is refused before anything is written. A later failure is undone. Raises `Conflict`
    (`home_not_empty`, `restore_incomplete`, `restore_not_empty`, `schema_newer`, `schema_unreleased`, `up_running`),
    `Invalid` (`archive_*`, `restore_mismatch`), `Unavailable`.
    """
    where = settings or load_settings()
    if home.root.exists() and not _is_empty(home):
        check_restored(home)
        kept = " Keep its folder journal: it may tell of calls that came after the backup (docs/cli.md, Backups)."
        raise Conflict(
            f"{home.root} is not empty",
            code="home_not_empty",
            hint=f"Choose another --home, or move this one away.{kept if home.journal.is_dir() else ''}",
        )
    made = not home.root.exists()
    lock = _lock_empty_home(home, made)
    try:
        write_atomically(home.root / INCOMPLETE, b"")  # first, so that it is there also after a loss of power
        staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=home.root))  # HOME may be a disk of its own
        progress("checking the archive")
        _restore(home, where, staging, unpack(archive, staging), progress)
        (home.root / INCOMPLETE).unlink()
        sync_folder(home.root)
    except BaseException:
        _undo(home, where, made)
        raise
    finally:
        os.close(lock)


def _is_empty(home: Home) -> bool:
    """Whether HOME is empty, except for folders of a restore that was killed as it began, or mounted volumes."""
    folders = {home.keys, home.journal, home.audit, home.search, home.run, home.logs, home.postgres}
    for path in home.root.iterdir():
        if path.name == _LOST_AND_FOUND or path == home.lock or path.name.startswith(f".{INCOMPLETE}."):
            continue
        if path not in folders or any(each.name != _LOST_AND_FOUND for each in path.iterdir()):
            return False
    return True


def _lock_empty_home(home: Home, made: bool) -> int:
    """As `own_home`; where the disk refuses one of its folders, the others are removed, so that it can be retried."""
    try:
        return own_home(home)
    except Unavailable:
        with suppress(OSError):
            for path in home.root.iterdir():
                if path.name != _LOST_AND_FOUND:
                    path.rmdir()
            if made:
                home.root.rmdir()
        raise


@contextmanager
def _reporting_lost_database() -> Iterator[None]:
    """Translate the error of a database that goes away in the middle."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise Unavailable(
            f"the database went away, or can take no more: {first_line(error)}",
            code="database_unavailable",
            hint="Nothing was kept; `groundplan doctor` looks for the cause. Then start again.",
        ) from error


def _restore(home: Home, settings: Settings, staging: Path, facts: dict[str, Any], progress: Progress) -> None:
    with _reporting_lost_database(), running_database(home, settings, progress):
        owner = database_url(home, settings, "owner")
        migrate(owner, str(facts["schema"]))
        for path in staging.iterdir():
            if path.name != "tables":
                _move(path, home.root / path.name)
        progress("restoring the database")
        load_tables(owner, staging / "tables", facts)
        with _reporting_restored_rows(settings, progress):
            shutil.rmtree(staging)
            migrate(owner)
            with connect(owner) as connection:  # none of the workers known to the backup uses this database
                connection.execute("UPDATE gateway SET heartbeat_at = least(heartbeat_at, now() - interval '1 hour')")
            progress("checking the audit log")
            _complete_log(home, database_url(home, settings, "control"))
            _check_log(home, facts)
            _sync_folders(home)


@contextmanager
def _reporting_restored_rows(settings: Settings, progress: Progress) -> Iterator[None]:
    """Tell where an external database has the rows already, which is not undone."""
    try:
        yield
    except BaseException:
        if settings.database_url is not None:
            progress("the database has the rows of the backup already: make it anew before you restore once more")
        raise


def _check_log(home: Home, facts: dict[str, Any]) -> None:
    """Raise `Invalid` (`archive_damaged`) where a log that was sound at the backup is not any more."""
    if facts["audit_ok"] and (home.audit / "checkpoint").exists():
        verdict = verify(home.audit)
        if not verdict.ok:
            raise Invalid(
                f"the restored audit log does not verify: {verdict.problems[0]}",
                code="archive_damaged",
                hint="Use another backup.",
            )


def _complete_log(home: Home, control_url: str) -> None:
    """Append entries that the database had numbered before the log's files were copied: the same bytes again."""
    if not (home.keys / "checkpoint.key").exists():
        return
    end_rotation(home)
    with connect(control_url) as connection, AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        try:
            complete_files(connection, log, next_leaf(connection))
        except Conflict as error:
            raise Invalid(
                f"the backup lacks entry {log.checkpoint.size} of the audit log",
                code="archive_damaged",
                hint="Use another backup.",
            ) from error


def _sync_folders(home: Home) -> None:
    """Make the names of all restored files durable; the files are. PostgreSQL syncs its own."""
    for base, names, _ in os.walk(home.root, onerror=_raise_unless_missing):
        names[:] = [name for name in names if name != _LOST_AND_FOUND and Path(base, name) != home.postgres]
        sync_folder(Path(base))


def _undo(home: Home, settings: Settings, made: bool) -> None:
    if settings.database_url is None and home.postgres.exists():
        EmbeddedPostgres(home).remove()
    _delete_contents(home.root)
    if made:
        home.root.rmdir()


def _delete_contents(folder: Path) -> None:
    """Delete what is in a folder, except the file system's own folder and mounted disks."""
    for path in folder.iterdir():
        if path.name != _LOST_AND_FOUND:
            if path.is_dir():
                _delete_contents(path)
                with suppress(OSError):
                    path.rmdir()
            else:
                path.unlink()


def _copy_log(home: Home, staging: Path, progress: Progress) -> bool:
    """Keep the log's files as of one checkpoint, while it may grow. Returns whether they verify.

    The checkpoint is taken first, with the keys: what it needs was durable before it and never changes, however long it
    takes to copy millions of files. Witnesses' signatures are copied before it, since they sign no checkpoint that does
    not exist yet.
    """
    _link_new_files(home.audit / WITNESSES, staging / WITNESSES)
    now = _copy_keys(home, staging.with_name("keys"))
    if now is None:
        return True
    (staging / "checkpoint").write_bytes(now)
    _link_new_files(home.audit, staging)
    _link_last_tiles(home.audit, staging, now)
    verdict = verify(staging)
    if not verdict.ok:
        progress(f"the audit log does not hold, and is kept as it is: {verdict.problems[0]}")
    return verdict.ok


def _copy_keys(home: Home, staging: Path) -> bytes | None:
    """Keep the keys, and return the newest checkpoint, which belongs to them: retried while a rotation is under way."""
    while True:
        shutil.rmtree(staging, ignore_errors=True)
        _link_new_files(home.keys, staging)
        now = _read_if_exists(home.audit / "checkpoint")
        if all(
            _read_if_exists(home.keys / name) == _read_if_exists(staging / name)
            for name in ("checkpoint.key", ROTATING)
        ):
            return now


def _link_last_tiles(audit: Path, staging: Path, checkpoint: bytes) -> None:
    """Keep the last tiles of a checkpoint: partial ones are deleted once full, and the full ones serve instead."""
    with suppress(Invalid):  # the verification of the whole log reports it
        size = parse_checkpoint(parse_note(checkpoint).text).size
        for level in ("entries", *range(levels_of(size))):
            index, _ = last_tile(size, level)
            full = tile_path(level, index)
            if (audit / full).exists() and not (staging / full).exists():
                (staging / full).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _link(audit / full, staging / full)


@contextmanager
def _following_journals(home: Home, staging: Path) -> Iterator[None]:
    """Keep every journal segment that exists at some time inside, in full, though shipped ones are deleted meanwhile.

    A hard link grows with its segment and outlives its name. Raises OSError where a segment may have been missed.
    """
    done, failed = threading.Event(), list[OSError]()

    def look() -> None:
        try:
            while not done.wait(_LOOK_SECONDS):
                _link_new_files(home.journal, staging)
        except OSError as error:
            failed.append(error)

    _link_new_files(home.journal, staging)
    watcher = threading.Thread(target=look, name="keep-journals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    if failed:
        raise failed[0]
    _link_new_files(home.journal, staging)


def _link_new_files(source: Path, target: Path) -> None:
    """Link (or copy, on another disk) files that `target` does not have yet; files that vanish are skipped."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        kept = target / entry.name
        if entry.name.startswith(_KEPT_PREFIX) or entry.name == _LOST_AND_FOUND:
            continue
        if entry.is_dir(follow_symlinks=False):
            _link_new_files(Path(entry.path), kept)
        elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(".tmp") and not kept.exists():
            _link(Path(entry.path), kept)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of the files below a folder, the newest segment of a journal first: records of an older one
    were written before it. Raises OSError where a folder cannot be listed."""
    found = list[Path]()
    for base, folders, names in os.walk(folder, onerror=_raise_unless_missing):
        folders[:] = [name for name in folders if name != _LOST_AND_FOUND]
        found += [Path(base, name) for name in names]
    for path in sorted(found, reverse=True):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _add(archive: Writer, name: str, path: Path) -> None:
    """Add a file. An application may delete its uploads at any time; all else must exist. Journals still grow."""
    try:
        if name.startswith(_JOURNALS):
            archive.add_growing(name, path)
        else:
            archive.add(name, path)
    except FileNotFoundError:
        if not name.startswith(_UPLOADS):
            raise


def _home_files(home: Home) -> Iterator[tuple[str, Path]]:
    for path in sorted(home.root.iterdir()):
        if path.name in _NOT_COPIED or path.is_symlink():
            continue
        if path.is_dir():
            for name, file in _files(path):
                if not (path.name == "files" and file.name.startswith(".")):  # an upload under way
                    yield f"{path.name}/{name}", file
        elif path.is_file():
            yield path.name, path


def _move(source: Path, target: Path) -> None:
    """Move a staged file, or the files of a folder into the folder that is there already."""
    if source.is_dir():
        target.mkdir(mode=0o700, exist_ok=True)
        for path in source.iterdir():
            _move(path, target / path.name)
    else:
        try:
            source.rename(target)
        except OSError as error:  # a folder of HOME may be a mounted disk
            if error.errno != errno.EXDEV:
                raise
            with source.open("rb") as read, open(target, "xb", opener=_open_private) as write:
                shutil.copyfileobj(read, write)
                write.flush()
                os.fsync(write.fileno())


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read_if_exists(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
