"""`groundplan doctor`: checks this machine and HOME, and reports problems with what to do. Changes nothing."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import typer

from groundplan.api.journal_lag import foreign_journal_problems
from groundplan.cli.client import ControlClient, find_running, read_token
from groundplan.cli.listeners import tls_files
from groundplan.cli.options import HomeOption, JsonOption, home_for, settings_for
from groundplan.cli.output import emit
from groundplan.core.certificate import SOON_DAYS, crl_expires_at, expires_at
from groundplan.core.database import connect, database_url, first_line
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.home import Home, is_readable_by_others
from groundplan.core.settings import DEFAULT_CONTROL_PORT, DEFAULT_PORT, Settings, resolve_secret
from groundplan.core.words import quantity
from groundplan.runtime.database_rights import check_writable
from groundplan.runtime.locks import INCOMPLETE
from groundplan.runtime.migrate import look

LOW_DISK_BYTES = 1 << 30
LOW_DISK_FILES = 1000
"""A file system that has room for fewer files is reported: the audit log and a replaced worker need new ones."""
STATUS_TIMEOUT_SECONDS = 10.0
MAX_NAMED_FILES = 5
"""The most damaged files that are named."""
MAX_CLOCK_OFFSET_S = 5.0
"""Larger offsets between the clocks are reported; the query itself takes less."""
CONFINE_PROBE = "from groundplan.knowledge.parsing.confine import confine; raise SystemExit(0 if confine() else 3)"
"""A program that confines itself like a parser process, and exits with 3 where the kernel does not enforce it."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check: `state` is ok, warn or bad."""

    name: str
    state: str
    message: str
    hint: str = ""


def doctor(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check HOME, disk, ports, models, PostgreSQL, journal and a running `up`. Exits with 1 if something is wrong."""
    settings = settings_for(home)
    paths = home_for(home)
    checkers: tuple[Callable[[Home, Settings], Iterator[Check]], ...] = (
        _check_home,
        _check_disk,
        _check_ports,
        _check_models,
        _check_parser,
        _check_postgres,
        _check_running,
        _check_journals,
        _check_files,
        _check_telemetry,
        _check_certificate,
    )
    checks = [check for checker in checkers for check in checker(paths, settings)]
    bad = any(check.state == "bad" for check in checks)
    lines = [f"{check.state:4}  {check.name}: {check.message}" + _indented(check.hint) for check in checks]
    emit({"ok": not bad, "checks": [asdict(check) for check in checks]}, as_json, "\n".join(lines))
    if bad:
        raise typer.Exit(1)


def _check_certificate(home: Home, settings: Settings) -> Iterator[Check]:
    """Check the gateway's certificate, from these settings or those of the running `up`: usable, and for how long."""
    try:
        files = tls_files(_with_running_tls(home, settings))
    except GroundplanError as error:
        yield Check("certificate", "bad", error.message, error.hint)
        return
    if files is None:
        return
    expiry = expires_at(files.cert)
    days = (expiry - datetime.now(UTC)).days
    state = "ok" if days >= SOON_DAYS else "warn" if days >= 0 else "bad"
    message = f"{files.cert} holds until {expiry:%Y-%m-%d}"
    yield Check("certificate", state, message, "" if state == "ok" else "Replace the files; no restart is needed.")
    if files.client_ca is not None and (crl_expiry := crl_expires_at(files.client_ca)) is not None:
        yield _revocation_check(files.client_ca, crl_expiry)


def _revocation_check(file: Path, expiry: datetime) -> Check:
    """Check the revocation lists of client certificates, which are valid until `end`."""
    name, until = "revoked certificates", f"{expiry:%Y-%m-%d %H:%M} UTC"
    if expiry > datetime.now(UTC):
        return Check(name, "ok", f"the lists in {file} are in force until {until}")
    message = f"a list in {file} was to be replaced by {until}: callers of its authority are let in no more"
    return Check(name, "bad", message, "Put the authority's newest list into the file; no restart is needed.")


def _with_running_tls(home: Home, settings: Settings) -> Settings:
    """The settings with the TLS files of the running `up`, which may come from its command line."""
    running_files = (find_running(home) or {}).get("tls")
    if not running_files:
        return settings
    cert, key, ca = (
        None if (path := running_files.get(name)) is None else Path(path) for name in ("cert", "key", "client_ca")
    )
    return replace(settings, tls_cert=cert, tls_key=key, tls_client_ca=ca)


def _check_telemetry(_: Home, settings: Settings) -> Iterator[Check]:
    """Check that configured traces can be exported, and that secrets for traces and metrics can be read."""
    if settings.otlp_url is not None and not _installed("opentelemetry.exporter.otlp.proto.http"):
        yield Check("traces", "bad", "OpenTelemetry is not installed", "pip install 'groundplan[otel]'")
    references = (("traces", settings.otlp_headers), ("metrics", settings.metrics_token))
    for name, reference in references:
        if reference is not None:
            try:
                resolve_secret(reference)
            except Invalid as error:
                yield Check(name, "bad", error.message, error.hint)
            else:
                yield Check(name, "ok", f"{reference} can be read")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def _indented(hint: str) -> str:
    return f"\n      {hint}" if hint else ""


def _check_home(home: Home, _: Settings) -> Iterator[Check]:
    if home.root.exists() and not home.root.is_dir():
        yield Check("home", "bad", f"{home.root} is not a folder", "Name another one with --home.")
        return
    if not home.root.is_dir():
        yield Check("home", "warn", f"{home.root} does not exist yet", "`groundplan up` makes it.")
        return
    if not os.access(home.root, os.W_OK):
        yield Check(
            "home", "bad", f"{home.root} cannot be written", "Mount it for writing, or name another one with --home."
        )
        return
    if (home.root / INCOMPLETE).exists():
        if _is_locked(home.lock):
            yield Check("home", "warn", f"a restore into {home.root} is under way", "Wait until it has ended.")
        else:
            hint = "Delete that folder and restore again."
            yield Check("home", "bad", f"a restore into {home.root} was interrupted", hint)
        return
    secrets = [home.operator_token, *home.keys.glob("*.key"), home.postgres / "roles.json"]
    readable = [path for path in secrets if path.exists() and is_readable_by_others(path.stat())]
    if stat.S_IMODE(home.root.stat().st_mode) & 0o077:
        readable.append(home.root)
    for path in readable:
        yield Check("home", "bad", f"{path} can be read by other users", f"chmod go-rwx {path}")
    if not readable:
        yield Check("home", "ok", f"{home.root} and its secrets are private")


def _check_disk(home: Home, _: Settings) -> Iterator[Check]:
    """Check each file system that HOME or one of its folders is on: whether it has room, and takes a new file."""
    for folder in _file_systems(home):
        disk = os.statvfs(folder)
        free, place = disk.f_bavail * disk.f_frsize >> 20, "" if folder == home.root else f" in {folder}"
        if free < LOW_DISK_BYTES >> 20:
            yield Check("disk", "bad", f"{free} MiB are free{place}", "New calls are refused on a full disk.")
        elif disk.f_files and disk.f_favail < LOW_DISK_FILES:
            message = f"{free} MiB are free{place}, but in no more than {quantity(disk.f_favail, 'file', 'files')}"
            yield Check("disk", "bad", message, "Delete files there, or make a file system with more inodes.")
        elif home.root.is_dir() and (problem := _write_problem(folder)):
            yield Check("disk", "bad", f"{folder} takes no new file: {problem}", "Repair it: `dmesg` tells more.")
        else:
            yield Check("disk", "ok", f"{free} MiB are free{place}")


def _file_systems(home: Home) -> list[Path]:
    """HOME, or the folder in which it would be made, and those folders of HOME that are on another file system."""
    root = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    found = {root.stat().st_dev: root}
    if home.root.is_dir() and os.access(home.root, os.R_OK | os.X_OK):
        for folder in sorted(path for path in home.root.iterdir() if path.is_dir()):
            found.setdefault(folder.stat().st_dev, folder)
    return list(found.values())


def _write_problem(folder: Path) -> str:
    """Why no file can be written to a folder; empty if one can. The file has no name, and ends with its descriptor."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(4096))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _check_running(home: Home, _: Settings) -> Iterator[Check]:
    """Check what a running `up` itself reports, as `groundplan status` shows it."""
    if (running := find_running(home)) is None:
        return
    try:
        client = ControlClient(str(running["control"]), read_token(home), STATUS_TIMEOUT_SECONDS)
        problems = client.get("/api/status")["problems"]
    except GroundplanError as error:
        if error.code != "database_unavailable":  # reported by the check of PostgreSQL
            yield Check("running", "bad", error.message, error.hint)
        return
    for problem in problems:
        yield Check("running", "bad", problem)
    if not problems:
        yield Check("running", "ok", "`groundplan up` reports no problem")


def _check_ports(home: Home, _: Settings) -> Iterator[Check]:
    if find_running(home) is not None:
        yield Check("ports", "ok", "`groundplan up` is running")
        return
    for port, flag in ((DEFAULT_PORT, "--port"), (DEFAULT_CONTROL_PORT, "--control-port")):
        with socket.socket() as probe:
            busy = probe.connect_ex(("127.0.0.1", port)) == 0
        if busy:
            yield Check("ports", "warn", f"port {port} is in use", f"Start with another one: groundplan up {flag} N")
        else:
            yield Check("ports", "ok", f"port {port} is free")


def _check_models(_: Home, settings: Settings) -> Iterator[Check]:
    entries = settings.models.iterdir() if settings.models.is_dir() else ()
    names = sorted(path.name for path in entries if not path.name.startswith("."))
    names_text = ", ".join(names) or "none yet; `groundplan up` fetches what a workspace needs"
    yield Check("models", "ok", f"{settings.models}: {names_text}")


def _check_parser(_: Home, __: Settings) -> Iterator[Check]:
    """Check that the kernel confines the process that parses documents to reading and computing."""
    probe = subprocess.run([sys.executable, "-I", "-c", CONFINE_PROBE], capture_output=True, timeout=60, check=False)
    if probe.returncode == 0:
        yield Check("parser", "ok", "the kernel confines the process that parses documents")
        return
    yield Check(
        "parser", "warn", "the kernel does not confine the process that parses documents",
        "Run on Linux (x86-64 or ARM64) with seccomp; else keep only files that you know. Such documents say so.",
    )  # fmt: skip


def _check_postgres(home: Home, settings: Settings) -> Iterator[Check]:
    kind = "external" if settings.database_url else "embedded"
    if kind == "embedded" and find_running(home) is None:
        yield Check("postgres", "ok", "embedded; it runs only while `up` runs")
        return
    log_hint = "See HOME/logs/postgres.log." if kind == "embedded" else "See the log of PostgreSQL."
    try:
        if kind == "external" and look(database_url(home, settings, "owner")) is None:
            if home.database.exists():
                yield Check(
                    "postgres", "bad", "the database is empty, and this HOME was served from one that was not",
                    "Name that one in GROUNDPLAN_DATABASE_URL, or `groundplan restore` a backup into a new HOME.",
                )  # fmt: skip
                return
            yield Check("postgres", "ok", "external PostgreSQL answers; `groundplan up` makes its schema")
            return
        with connect(database_url(home, settings, "control"), timeout=5) as connection:
            check_writable(connection)
            version = connection.info.server_version // 10000
            name, privilege_query = connection.info.dbname, "SELECT has_schema_privilege('public', 'CREATE')"
            # our roles are never granted this privilege: they have it only if PUBLIC has it
            open_to_all = connection.execute(privilege_query.encode()).fetchone() == (True,)
            offset = _clock_offset(connection)
        yield Check("postgres", "ok" if version >= 16 else "bad", f"{kind} PostgreSQL {version} answers")
        if open_to_all:
            yield Check(
                "postgres", "warn", "every PostgreSQL login may create functions in the schema that this program uses",
                f"As an administrator, in {name}: GRANT CREATE ON SCHEMA public TO pg_database_owner; "
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
            )  # fmt: skip
        if abs(offset) > MAX_CLOCK_OFFSET_S:
            direction = "behind" if offset > 0 else "ahead of"
            yield Check(
                "clock", "warn", f"the clock of this machine is {abs(offset):,.0f} s {direction} that of PostgreSQL",
                "Set both by a time service, such as chrony: budgets, keys and prices begin and end by each.",
            )  # fmt: skip
    except GroundplanError as error:
        yield Check("postgres", "bad", error.message, log_hint if error.code == "database_unavailable" else error.hint)
    except psycopg.Error as error:
        yield Check("postgres", "bad", first_line(error), log_hint)


def _check_files(home: Home, settings: Settings) -> Iterator[Check]:
    """Check the sizes of files of calls and batches, which a damaged disk may have truncated."""
    folder = home.root / "files"
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()} if folder.is_dir() else {}
    if not sizes or (settings.database_url is None and find_running(home) is None):
        return
    try:
        with connect(database_url(home, settings, "control"), timeout=5) as connection:
            rows = connection.execute("SELECT id::text, bytes FROM api_file WHERE deleted_at IS NULL").fetchall()
    except (GroundplanError, psycopg.Error):
        return  # reported by the check of PostgreSQL
    damaged = sorted(id for id, size in rows if sizes.get(id, size) != size)
    if damaged:
        yield Check(
            "files", "bad",
            f"{quantity(len(damaged), 'file', 'files')} in {folder} of another length than when written: "
            + ", ".join(damaged[:MAX_NAMED_FILES]),
            "Put them back from a backup, or have them sent again; until then they are refused (file_damaged).",
        )  # fmt: skip
    else:
        yield Check("files", "ok", f"{quantity(len(sizes), 'file', 'files')} as long as when written")


def _clock_offset(connection: psycopg.Connection[Any]) -> float:
    """The least number of seconds by which PostgreSQL's clock is ahead of ours; negative: behind."""
    before = time.time()
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    after = time.time()
    server_time = after if row is None else float(row[0])
    return max(0.0, server_time - after) + min(0.0, server_time - before)


def _check_journals(home: Home, _: Settings) -> Iterator[Check]:
    folders = sorted(path for path in home.journal.iterdir() if path.is_dir()) if home.journal.is_dir() else []
    quarantined = sorted(home.journal.glob("*.quarantined"))
    for path in quarantined:
        yield Check(
            "journal", "bad", f"{path} is damaged and set aside", "Its budget slices are written off; keep the file."
        )
    foreign = [] if find_running(home) else foreign_journal_problems(home)  # else `up` reports them
    yield from (Check("journal", "bad", problem) for problem in foreign)
    orphaned = [folder for folder in folders if any(folder.glob("*.seg")) and not _is_locked(folder / "lock")]
    if orphaned and find_running(home) is None:
        yield Check(
            "journal",
            "warn",
            f"{quantity(len(orphaned), 'journal waits', 'journals wait')} to be taken over",
            "`groundplan up` does it.",
        )
    elif not quarantined and not foreign:
        yield Check("journal", "ok", quantity(len(folders), "journal"))


def _is_locked(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
