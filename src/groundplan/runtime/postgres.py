"""The embedded PostgreSQL of one HOME: created once, started, polled until it answers, stopped.

It listens on 127.0.0.1 at a port of its own choice and nowhere else, and every role needs its password. Nothing here
knows the schema (see migrate), and an external database needs nothing of this.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from groundplan.core.database import DATABASE, ROLES, connect, embedded_url, role_name, translate_database_errors
from groundplan.core.errors import Conflict, Unavailable
from groundplan.core.home import Home, sync_folder, write_atomically
from groundplan.core.settings import child_environment
from groundplan.runtime.child import spawn, stop, tail
from groundplan.runtime.locks import take_lock
from groundplan.runtime.postgres_place import Place, find_place, find_server_pids
from groundplan.runtime.supervisor import Process

SUPERUSER: Final = "groundplan_superuser"
"""Only for what the owner may not do: extensions, roles, backups past row-level security."""

START_SECONDS: Final = 300.0
"""How long a server that is alive may recover before it must answer."""

REMOVE_SECONDS: Final = 15.0
"""How long a server may take to end at once: it kills processes that do not end within five."""

NEW_DATABASE_BYTES: Final = 128 << 20
"""What a new database takes with our tables and the first of its log."""

CONNECT_SECONDS = 10
"""For each attempt at a server that has just been started."""

_LEAST_PORT, _MOST_PORT = 1024, 65535
"""An ordinary user, as whom the server may run, may use no lower port."""

CONNECTIONS, CONNECTIONS_EACH = 60, 20
"""Connections of all other processes, and for each gateway worker: a worker has four of its own and some more for
batches and stored answers, and so has the one that takes over from it at a reload."""

_TUNING: Final = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "synchronous_commit": "on",
    # a page is written whole into the write-ahead log at its first change after a checkpoint: with the usual 1 GB some
    # thousand calls a second make a checkpoint necessary every 15 seconds, and most of what is written are such pages
    "max_wal_size": "4GB",
    # a client that connects and then says nothing takes a place, and holds up what all backends must process
    "authentication_timeout": "15s",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_min_error_statement": "panic",
    "logging_collector": "off",
    "timezone": "UTC",
}


_SHARED = Path("/dev/shm")
_SHARED_BYTES: Final = 256 << 20
"""Queries over many calls take some megabytes for each parallel process; a container has 64 of them unless configured,
which a few such queries at once use up, and then all of these fail."""


_KEPT_VARIABLES = frozenset({"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "USER", "LOGNAME"})


class EmbeddedPostgres:
    """One server. `open` takes it for this process alone; then either `start` and `stop` it here, or give the
    supervisor `command`, `accepts_connections` and `prepare`. Use as a context manager so that it is closed.

    `tuning` overrides server settings (tests switch fsync off). Errors: `Conflict` (`database_locked`) where another
    process owns it, `Unavailable` (`postgres_*`) where it cannot be made or does not answer.
    """

    def __init__(
        self, home: Home, *, tuning: Mapping[str, str] | None = None, progress: Callable[[str], None] | None = None
    ) -> None:
        self.on_moved: Callable[[], None] = lambda: None
        """Called when it is to start at another port than before, which running processes do not know."""
        self.home = home
        self.place: Place = find_place(home)
        self._tuning = {**_TUNING, **(tuning or {})}
        self._report_progress = progress or (lambda _: None)
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _recorded_port(home)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def log(self) -> Path:
        return self.home.logs / "postgres.log"

    @property
    def pid(self) -> int | None:
        """Pid of the server that `start` started, while it is alive."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def open(self) -> None:
        """Take the server for this process and create its data folder if it is missing."""
        self._lock = take_lock(
            self.place.lock,
            lambda owner: Conflict(
                f"the database of this HOME is in use by process {owner}",
                code="database_locked",
                hint="Stop that process first, or choose another --home.",
            ),
        )
        self.stop_leftovers()
        if not self.place.data.exists():
            self._report_progress("preparing the database")
            self._initialise()
        self._check_owner()

    def _check_owner(self) -> None:
        """PostgreSQL reads only files of the user it runs as; a copy made by another user has other owners."""
        account, found = self.place.account, self.place.data.stat()
        uid, gid = (os.geteuid(), os.getegid()) if account is None else (account.uid, account.gid)
        if found.st_uid != uid:
            raise Unavailable(
                f"the database's files in {self.place.data} belong to the user {found.st_uid}, and it runs as {uid}",
                code="postgres_owner",
                hint=f"If they are a copy: chown -R {uid}:{gid} {self.place.data}; `cp -a` keeps the owners.",
            )

    def close(self) -> None:
        """Stop the server and release the lock."""
        self.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def command(self) -> tuple[str, ...]:
        """Return the program and arguments of a server that may start now: stops leftovers and chooses a free port.

        The port stays the same from start to start unless another program took it, so that clients can reconnect.
        """
        self.stop_leftovers()
        before, self._port = self._port, _free_port(self._port)
        if _recorded_port(self.home) != self._port:  # after a full disk ended a server, a restart must write nothing
            write_atomically(self.home.postgres / "port", f"{self._port}\n".encode())
        if self._port != before:
            self.on_moved()
        settings = {**_shared_memory(), **self._tuning, "port": str(self._port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return (str(self.place.programs / "postgres"), "-D", self.place.server_path(self.place.data), *options)

    def process(self) -> Process:
        """Return the process for the supervisor; after it has started, call `prepare`."""
        return Process(
            name="postgres",
            argv=self.command,
            whole_env=server_environment(),
            ready=self.accepts_connections,
            ready_seconds=START_SECONDS,
            stop_signal=signal.SIGINT,
            grace=60.0,
            account=self.place.account,
            cwd=self.place.data,
        )

    def accepts_connections(self) -> bool:
        """Whether a connection succeeds now."""
        if self._port == 0:
            return False
        try:
            with psycopg.connect(self.superuser_url("postgres"), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def is_running(self) -> bool:
        """Whether the server of this HOME answers, and a process owns it. For a HOME that was copied while it ran the
        other HOME's server answers, with the same port and passwords."""
        if not self.accepts_connections():
            return False
        try:
            os.close(take_lock(self.place.lock, lambda owner: Conflict(f"process {owner} owns it", hint="Ask it.")))
        except Conflict:
            return True
        return False

    def prepare(self) -> None:
        """Create the roles, the database and its extension in a server that answers; safe to repeat."""
        passwords = self._passwords()
        hint = f"See {self.log}, and the room on its disk; then start again."
        with translate_database_errors("the database cannot be prepared", code="postgres_init", hint=hint):
            with self._connect_patiently("postgres") as connection:
                for role in ROLES:
                    _ensure_role(connection, role_name(DATABASE, role), passwords[role])
                _grant_roles_to_owner(connection)
                _ensure_database(connection)
            with self._connect_patiently(DATABASE) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

    def _connect_patiently(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to a server that answered a moment ago, also where it stands still now: recovery, or a slow disk, may
        take longer than a client waits. Raises as `connect` does where the server refuses."""
        end = time.monotonic() + START_SECONDS
        while True:
            begun = time.monotonic()
            try:
                return connect(self.superuser_url(database), autocommit=True, timeout=CONNECT_SECONDS)
            except Unavailable:
                now = time.monotonic()
                if now - begun < 0.9 * CONNECT_SECONDS or now > end:
                    raise

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start, and wait until it answers and is prepared; recovery may take as long as the process is alive."""
        if self._lock is None:
            self.open()
        self._passwords()  # before the server is started: one that is told to stop while it starts may not hear it
        self._process = self._spawn()
        deadline = time.monotonic() + timeout
        while not self.accepts_connections():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self.stop()
                raise self._start_failed("ended" if code is not None else f"did not answer within {timeout:.0f} s")
            time.sleep(0.05)
        self.prepare()

    def stop(self, grace: float = 60.0) -> None:
        """Stop the server that `start` started, cleanly within `grace` seconds, else by force (it recovers at the next
        start).
        """
        self._stop_process(signal.SIGINT, grace)

    def superuser_url(self, database: str) -> str:
        """Return the superuser's URL. For the runtime only: this role bypasses row-level security."""
        return embedded_url(self._port, SUPERUSER, self._passwords()["superuser"], database)

    def stop_leftovers(self, patience: float = 30.0) -> None:
        """Stop servers on this data folder whose owner is gone, cleanly first; delete the pid file of one that has
        ended.

        Safe because we hold the lock, so none of them has an owner. A pid file that names another program is only
        stale.
        """
        data = self.place.data.resolve()
        for signal_ in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if not (pids := find_server_pids(data)):
                break
            self._report_progress("stopping the database that an earlier start left behind")
            postmaster = [pid for pid in pids if pid == _postmaster(data)]
            if signal_ is signal.SIGKILL or not postmaster:
                # Without their postmaster the others only wait to be told.
                _signal_all(pids, signal.SIGQUIT if signal_ is signal.SIGINT else signal_)
                _wait_until(lambda: not find_server_pids(data), 5.0)
            else:
                _signal_all(postmaster, signal_)
                _wait_until(lambda: not find_server_pids(data), patience)
        if find_server_pids(data):
            raise self._start_failed("of an earlier start cannot be stopped")
        (self.place.data / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the server's data for good and stop using it. Nothing is written out first, and connected clients are
        not waited for.
        """
        self._stop_process(signal.SIGQUIT, REMOVE_SECONDS)
        self.close()
        shutil.rmtree(self.place.folder, ignore_errors=True)

    def _stop_process(self, first: signal.Signals, grace: float) -> None:
        if self._process is not None:
            stop(self._process, first=first, grace=grace)
            self._process = None

    def _spawn(self) -> subprocess.Popen[bytes]:
        return spawn(
            self.command(),
            env=server_environment(),
            log=self.log,
            account=self.place.account,
            cwd=self.place.data,
            death_signal=signal.SIGINT,
        )

    def _initialise(self) -> None:
        passwords = self._ensure_passwords()
        folder = self.place.folder
        for leftover in folder.glob("data.new*"):
            shutil.rmtree(leftover)
        new = folder / "data.new"
        new.mkdir(mode=0o700)
        account = self.place.account
        with tempfile.TemporaryFile(dir=folder) as secret:
            secret.write(passwords["superuser"].encode())
            secret.seek(0)
            if account is not None:
                os.chown(new, account.uid, account.gid)
                os.fchown(secret.fileno(), account.uid, account.gid)
            self._initdb(new, secret.fileno())
        new.rename(self.place.data)
        sync_folder(folder)

    def _ensure_passwords(self) -> dict[str, str]:
        """Return the known passwords, whose data may only be out of sight, as on a disk that is not mounted; new ones
        where there are none."""
        try:
            known = self._passwords()
        except Unavailable:
            known = {}
        passwords = {name: known.get(name) or secrets.token_urlsafe(24) for name in ("superuser", *ROLES)}
        write_atomically(self.home.postgres / "roles.json", json.dumps(passwords, indent=1).encode())
        return passwords

    def _initdb(self, data: Path, secret: int) -> None:
        account = self.place.account
        ran = subprocess.run(
            [
                str(self.place.programs / "initdb"),
                f"--pgdata={self.place.server_path(data)}",
                f"--username={SUPERUSER}",
                f"--pwfile=/dev/fd/{secret}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
                *(f"--set={name}={value}" for name, value in _shared_memory().items()),
                *(["--no-sync"] if self._tuning.get("fsync") == "off" else []),
            ],
            env=server_environment(),
            cwd=data,
            pass_fds=(secret,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
        if ran.returncode != 0:
            free = shutil.disk_usage(data).free
            if free < NEW_DATABASE_BYTES:  # of which initdb may say no more than `Aborted`
                raise Unavailable(
                    f"there is no room for a database: the disk of {data.parent} has {free >> 20} MiB free",
                    code="postgres_init",
                    hint=f"It begins with some {NEW_DATABASE_BYTES >> 20} MiB: free them, choose another HOME, or set "
                    "GROUNDPLAN_DATABASE_URL.",
                )
            reason = " | ".join(ran.stderr.decode("utf-8", "replace").strip().splitlines()[-3:])
            raise Unavailable(
                f"the database cannot be prepared: {reason}",
                code="postgres_init",
                hint="Check free space and that this user has an entry in /etc/passwd, or set GROUNDPLAN_DATABASE_URL.",
            )

    def _passwords(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads((self.home.postgres / "roles.json").read_bytes())
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"the database passwords in {self.home.postgres}/roles.json cannot be read",
                code="postgres_passwords",
                hint="Restore that file, or restore a backup into an empty HOME.",
            ) from error
        return found

    def _start_failed(self, what: str) -> Unavailable:
        return Unavailable(
            f"PostgreSQL {what}: {tail(self.log) or 'it said nothing'}",
            code="postgres_start",
            hint=f"See {self.log}, or set GROUNDPLAN_DATABASE_URL.",
        )


def server_environment() -> dict[str, str]:
    """Return what PostgreSQL's programs need of our environment: nothing that would configure them, and no secrets,
    which other processes of their user could read."""
    kept = {name: value for name, value in child_environment().items() if name in _KEPT_VARIABLES}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def connection_settings(workers: int) -> dict[str, str]:
    """Return server settings with connections enough for so many gateway workers."""
    return {"max_connections": str(max(int(_TUNING["max_connections"]), CONNECTIONS + CONNECTIONS_EACH * workers))}


def _shared_memory() -> dict[str, str]:
    """Return where processes of PostgreSQL share memory: in files of its folder if the machine has little room."""
    try:
        disk = os.statvfs(_SHARED)
        room = disk.f_bavail * disk.f_frsize
    except OSError:
        room = 0
    return {"dynamic_shared_memory_type": "posix" if room >= _SHARED_BYTES else "mmap"}


def _recorded_port(home: Home) -> int:
    try:
        port = int((home.postgres / "port").read_text())
    except (OSError, ValueError):
        return 0
    return port if _LEAST_PORT <= port <= _MOST_PORT else 0  # a truncated number is a number, too


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("no port is free", code="postgres_port", hint="Close some connections and try again.")


def _postmaster(data: Path) -> int:
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _wait_until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


def _ensure_role(connection: psycopg.Connection[Any], name: str, password: str) -> None:
    # Only the SCRAM verifier is sent, so that no log can contain the password.
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
    connection.execute(
        sql.SQL("{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD {}").format(
            sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(name), sql.Literal(verifier)
        )
    )


def _grant_roles_to_owner(connection: psycopg.Connection[Any]) -> None:
    # As a DSN's user may do; the owner of all tables gains nothing by it.
    others = sql.SQL(", ").join(sql.Identifier(role_name(DATABASE, role)) for role in ROLES if role != "owner")
    owner = sql.Identifier(role_name(DATABASE, "owner"))
    connection.execute(sql.SQL("GRANT {} TO {} WITH INHERIT FALSE, SET TRUE").format(others, owner))


def _ensure_database(connection: psycopg.Connection[Any]) -> None:
    owner = sql.Identifier(role_name(DATABASE, "owner"))
    name = sql.Identifier(DATABASE)
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, owner))
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    roles = sql.SQL(", ").join(sql.Identifier(role_name(DATABASE, role)) for role in ROLES)
    connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, roles))
