"""A child process for long computations, which would keep all other threads of this process waiting.

    python -m groundplan.program groundplan.runtime.compute_process FD MODULE...

It is started by the first job, runs one job at a time and ends after a while without jobs. A job is a function, by
module and name, with its arguments; both directions are pickled. That is safe only here: the socket has no name, and
its other end is held by a process that was started from our own code. No data from outside is unpickled, only objects
that this program made of it.

The process has no secrets in its environment and no database. It has a low priority, is the first that the kernel kills
when memory is short, and takes at most half of it. It dies with its parent: the kernel ties it to the thread that
starts it, which lasts. Once newer code is installed the process is not used until a reload, since its functions and
types may differ.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import queue
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final

import groundplan
from groundplan.core import logs
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.settings import minimal_environment
from groundplan.runtime.child import spawn

IDLE_SECONDS = 300.0
READY_SECONDS = 60.0
ANSWER_SECONDS = 600.0
"""Time limit of a job, after which the process is killed."""
WAIT_SECONDS = 120.0
"""How long a job may wait for others."""
MAX_WAITING = 8
"""How many jobs may wait."""
NICENESS = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    message: bytes
    asked_at: float = field(default_factory=time.monotonic)
    answer: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class _Child:
    popen: subprocess.Popen[bytes]
    socket: socket.socket
    file: BinaryIO


class _OtherCodeError(Exception):
    """The installed code differs from the code that this process runs."""


class ComputeProcess:
    """The child process and its queue of jobs. `modules` are those whose functions are called; the child imports them
    when it starts."""

    def __init__(self, log: Path, modules: Sequence[str]) -> None:
        self._log, self._modules, self._code = log, tuple(modules), code_digest()
        self._jobs: queue.Queue[_Job] = queue.Queue()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = self._other_code_installed = False
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the child process; None where none runs."""
        child = self._child
        return None if child is None or child.popen.poll() is not None else child.popen.pid

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in the child process and return or raise its result. Raises `Unavailable` where too many jobs
        wait, and where the process ends or takes too long."""
        job = _Job(pickle.dumps((function, arguments)))
        with self._lock:
            if self._closed:
                raise self._ended_error()
            if self._jobs.qsize() >= MAX_WAITING:
                raise _busy_error()
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve_jobs, name="aside", daemon=True)
                self._thread.start()
            self._jobs.put(job)
        try:
            return job.answer.result()
        except _OtherCodeError:
            return function(*arguments)

    def close(self) -> None:
        """Kill the process; waiting callers get an error."""
        with self._lock:
            self._closed = True
            self._jobs.put(_Job(b""))
            child = self._child
        if child is not None:
            child.popen.kill()
        if self._thread is not None:
            self._thread.join(10.0)

    def _serve_jobs(self) -> None:
        while not self._closed:
            try:
                job = self._jobs.get(timeout=None if self._child is None else IDLE_SECONDS)
            except queue.Empty:
                self._stop_child()
                continue
            try:
                job.answer.set_result(self._answer(job))
            except Exception as error:  # noqa: BLE001 -- every error is passed on to the caller
                job.answer.set_exception(error)
        self._stop_child()
        while not self._jobs.empty():
            self._jobs.get_nowait().answer.set_exception(self._ended_error())

    def _answer(self, job: _Job) -> Any:
        if self._closed:
            raise self._ended_error()
        if self._other_code_installed:
            raise _OtherCodeError
        if time.monotonic() - job.asked_at > WAIT_SECONDS:
            raise _busy_error()
        try:
            child = self._running_child()
            child.socket.settimeout(ANSWER_SECONDS)
            child.socket.sendall(job.message)
            kind, told = pickle.load(child.file)
        except TimeoutError:
            self._stop_child()
            raise Unavailable(
                f"planning took longer than {ANSWER_SECONDS:g} s and was ended",
                code="planning_long",
                hint="Ask for less at once: fewer months, futures or changes.",
            ) from None
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self._stop_child()
            raise self._ended_error() from error
        if kind == "refused":
            made, message, rest = told
            raise made(message, **rest)
        if kind == "failed":
            raise RuntimeError(f"{told}; {self._log} has more")
        return told

    def _running_child(self) -> _Child:
        """The child process, started if none runs. Only the worker thread uses it."""
        if self._child is not None and self._child.popen.poll() is None:
            return self._child
        self._stop_child()
        ours, theirs = socket.socketpair()
        with theirs:
            command = (sys.executable, "-m", "groundplan.program", __name__, str(theirs.fileno()), *self._modules)
            with self._lock:
                if self._closed:
                    ours.close()
                    raise self._ended_error()
                popen = spawn(
                    command,
                    env=minimal_environment(),
                    log=self._log,
                    fds=(theirs.fileno(),),
                    death_signal=signal.SIGKILL,
                )
                self._child = child = _Child(popen, ours, ours.makefile("rb"))
        ours.settimeout(READY_SECONDS)
        try:
            told = pickle.load(child.file)
        except TimeoutError:
            raise ConnectionError from None
        if told != self._code:
            self._stop_child()
            self._other_code_installed = True
            _log.warning("newer code is installed: plans are made in this process until `groundplan reload`")
            raise _OtherCodeError
        return child

    def _stop_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.popen.kill()
            child.file.close()
            child.socket.close()
            child.popen.wait()

    def _ended_error(self) -> Unavailable:
        return Unavailable(
            "the process that plans has ended: it was stopped, or memory was short",
            code="planning_ended",
            hint=f"Ask again, which starts another one. HOME/logs/{self._log.name} tells what it said.",
            retry_after=1.0,
        )


def _busy_error() -> Unavailable:
    return Unavailable(
        "too many plans are asked for at once",
        code="planning_busy",
        hint="They are made one after another. Ask again in a minute.",
        retry_after=60.0,
    )


def code_digest() -> str:
    """A digest of the installed code: names, sizes and modification times of its files."""
    root = Path(groundplan.__file__).parent
    found = ((str(path.relative_to(root)), path.stat()) for path in sorted(root.rglob("*.py")))
    return sha256(repr([(name, each.st_size, each.st_mtime_ns) for name, each in found]).encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run jobs until the other end of the socket is closed."""
    number, *modules = sys.argv[1:] if arguments is None else arguments
    logs.configure("planning")
    _lower_priority()
    for name in modules:
        importlib.import_module(name)
    with socket.socket(fileno=int(number)) as ours, ours.makefile("rb") as file:
        ours.sendall(pickle.dumps(code_digest()))
        while True:
            try:
                function, call_arguments = pickle.load(file)
            except EOFError:
                return 0
            ours.sendall(pickle.dumps(_run_function(function, call_arguments)))
            del call_arguments


_ERROR_FIELDS: Final = ("hint", "code", "where", "problems", "retry_after", "details")


def _run_function(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, Any]:
    try:
        return "done", function(*arguments)
    except GroundplanError as error:
        return "refused", (type(error), error.message, {name: getattr(error, name) for name in _ERROR_FIELDS})
    except MemoryError:
        raise  # the process is unusable after this
    except Exception as error:  # noqa: BLE001 -- reported to the caller; the next job can run
        _log.exception("an answer failed")
        return "failed", f"{error.__class__.__name__}: {error}"


def _lower_priority() -> None:
    os.nice(NICENESS)
    if sys.platform != "linux":
        return
    with suppress(OSError):  # a container may forbid it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    given = [each for each in resource.getrlimit(resource.RLIMIT_DATA) if each != resource.RLIM_INFINITY]
    least = min([half, *given])
    resource.setrlimit(resource.RLIMIT_DATA, (least, least))


if __name__ == "__main__":
    sys.exit(main())
