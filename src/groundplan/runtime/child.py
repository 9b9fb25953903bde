"""Starts a child process that cannot outlive this one, with a log of limited size.

Restarts and order are the supervisor's job. The kernel ties a child to the *thread* that started it, so start it from a
thread that lasts, best the main one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from groundplan.core.errors import Unavailable

LOG_LIMIT = 8 * 2**20
"""Bytes after which a log is set aside (as NAME.log.1, replacing the one before): at the next start of its process, and
while it runs."""

_DISK_ERRORS = frozenset({errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT})
"""What a disk says that takes nothing more."""
_STARTING_MESSAGE = "FATAL:  the database system is starting up"
"""What PostgreSQL says whenever we ask whether it answers, as it starts: it says nothing of why it ended."""

_LEASH = Path(__file__).with_name("leash.py")


@dataclass(frozen=True, slots=True)
class Account:
    """The numbers of an operating system user."""

    name: str
    uid: int
    gid: int


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    fds: Sequence[int] = (),
    account: Account | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own (a Ctrl-C at the terminal reaches only us), appending its output to `log`.

    `env` is its whole environment; `fds` stay open under the same numbers; `account` is whom it becomes (needs root),
    in the folder `cwd` even if that user cannot reach it. When this process dies, however it does, the child gets
    `death_signal`. Raises `Unavailable` where the program is missing.
    """
    program = shutil.which(argv[0], path=env.get("PATH"))
    if program is None:
        raise Unavailable(
            f"the program {argv[0]} cannot be found", code="program_missing", hint="Install the package again."
        )
    become = ("-1", "-1") if account is None else (str(account.uid), str(account.gid))
    leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(int(death_signal)), *become]
    with open_log(log) as output:
        return subprocess.Popen(
            [*leash, program, *argv[1:]],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(fds),
            start_new_session=True,
            cwd=cwd,
        )


def open_log(log: Path) -> BinaryIO:
    """Open where a process writes its output: `log`, or our own error output where the disk takes nothing more. A
    gateway worker is started there, too: it tells callers why it serves nobody."""
    try:
        rotate(log)
        return log.open("ab")
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
    with suppress(OSError):
        return os.fdopen(os.dup(2), "wb")
    return Path(os.devnull).open("wb")


def rotate(log: Path, limit: int = LOG_LIMIT) -> None:
    """Make sure that `log` exists, is private, and is not larger than `limit` bytes."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.touch(mode=0o600)
    if log.stat().st_size > limit:
        log.replace(log.with_name(f"{log.name}.1"))
        log.touch(mode=0o600)


def trim(log: Path, limit: int = LOG_LIMIT) -> None:
    """As `rotate`, of a log that processes append to, which go on doing so: its last lines are copied, and it begins
    anew. A line that comes in between is lost. Where there is no room for the copy there is none either way."""
    with suppress(OSError):
        size = log.stat().st_size
        if size <= limit:
            return
        aside = log.with_name(f"{log.name}.1")
        with suppress(OSError), log.open("rb") as file:
            aside.unlink(missing_ok=True)
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as copy:
                file.seek(size - limit - 1)
                file.readline()  # whoever reads logs expects whole lines
                shutil.copyfileobj(file, copy)
        os.truncate(log, 0)


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log on one line, for an error message; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    said = [line for line in text.splitlines() if _STARTING_MESSAGE not in line]
    return " | ".join(_summarize_line(line.strip()) for line in said[-lines:] if line.strip())


def _summarize_line(line: str) -> str:
    """What a line of a log says: the event, and the last line of an exception, where it is one of ours."""
    try:
        body = json.loads(line)
        exception = str(body.get("exception") or "").strip().rpartition("\n")[2]
        return f"{body['event']} {exception}".strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return line


def stop(process: subprocess.Popen[bytes], *, first: signal.Signals = signal.SIGTERM, grace: float = 10.0) -> int:
    """Ask with `first`, and after `grace` seconds kill the child's whole session; its return code."""
    if process.poll() is None:
        process.send_signal(first)
        try:
            return process.wait(grace)
        except subprocess.TimeoutExpired:
            kill_session(process.pid)
    return process.wait()


def kill_session(pid: int) -> None:
    """SIGKILL to the process group that `spawn` made; nothing where it is gone."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
