"""One process that computes for us: what Python works at for long keeps all others in its process waiting.

    python -m groundplan.program groundplan.runtime.compute_process FD MODULE...

It is started by the first question, answers one at a time and ends when nobody has asked for a while. A question is a
function of a module, by its name, with its arguments; both ways they are pickled. That is safe here alone: the socket
has no name and two ends, the other of which only the process holds that we started from our own code. Nothing that
anybody sent is unpickled, only what we made of it.

The process has no secrets in its environment and no database. It makes way for others (niceness), is what the kernel
ends first where memory is short, and takes at most half of it. It dies with us: the kernel ties it to the thread that
starts it, which lasts. Where newer code than ours has been installed it is not used, until a reload: the two would not
mean the same.
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
"""After which the process is ended, whatever it is at: whoever asked may have left long ago."""
WAIT_SECONDS = 120.0
"""That a question waits for others at most"""
MOST = 8
"""Questions that wait"""
NICENESS = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    message: bytes
    asked: float = field(default_factory=time.monotonic)
    answer: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class _Child:
    popen: subprocess.Popen[bytes]
    socket: socket.socket
    file: BinaryIO


class _OtherCodeError(Exception):
    """What is installed is not what runs here."""


class ComputeProcess:
    """The process, and who waits for it. Give every module whose functions are asked, so that it loads them at once."""

    def __init__(self, log: Path, modules: Sequence[str]) -> None:
        self._log, self._modules, self._code = log, tuple(modules), code()
        self._jobs: queue.Queue[_Job] = queue.Queue()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = self._other = False
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        child = self._child
        return None if child is None or child.popen.poll() is not None else child.popen.pid

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns or raises. Raises `Unavailable` where too many wait, and where the process ends or
        takes too long."""
        job = _Job(pickle.dumps((function, arguments)))
        with self._lock:
            if self._closed:
                raise self._ended()
            if self._jobs.qsize() >= MOST:
                raise _busy()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="aside", daemon=True)
                self._thread.start()
            self._jobs.put(job)
        try:
            return job.answer.result()
        except _OtherCodeError:
            return function(*arguments)

    def close(self) -> None:
        """End the process; whoever waits is told."""
        with self._lock:
            self._closed = True
            self._jobs.put(_Job(b""))
            child = self._child
        if child is not None:
            child.popen.kill()
        if self._thread is not None:
            self._thread.join(10.0)

    def _work(self) -> None:
        while not self._closed:
            try:
                job = self._jobs.get(timeout=None if self._child is None else IDLE_SECONDS)
            except queue.Empty:
                self._end()
                continue
            try:
                job.answer.set_result(self._answer(job))
            except Exception as error:  # noqa: BLE001 -- whatever went wrong is told to whoever asked
                job.answer.set_exception(error)
        self._end()
        while not self._jobs.empty():
            self._jobs.get_nowait().answer.set_exception(self._ended())

    def _answer(self, job: _Job) -> Any:
        if self._closed:
            raise self._ended()
        if self._other:
            raise _OtherCodeError
        if time.monotonic() - job.asked > WAIT_SECONDS:
            raise _busy()
        try:
            child = self._running()
            child.socket.settimeout(ANSWER_SECONDS)
            child.socket.sendall(job.message)
            kind, told = pickle.load(child.file)
        except TimeoutError:
            self._end()
            raise Unavailable(
                f"planning took longer than {ANSWER_SECONDS:g} s and was ended",
                code="planning_long",
                hint="Ask for less at once: fewer months, futures or changes.",
            ) from None
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self._end()
            raise self._ended() from error
        if kind == "refused":
            made, message, rest = told
            raise made(message, **rest)
        if kind == "failed":
            raise RuntimeError(f"{told}; {self._log} has more")
        return told

    def _running(self) -> _Child:
        """The process, started where there is none any more. It is read and written by this thread alone."""
        if self._child is not None and self._child.popen.poll() is None:
            return self._child
        self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            command = (sys.executable, "-m", "groundplan.program", __name__, str(theirs.fileno()), *self._modules)
            with self._lock:
                if self._closed:
                    ours.close()
                    raise self._ended()
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
            self._end()
            self._other = True
            _log.warning("newer code is installed: plans are made in this process until `groundplan reload`")
            raise _OtherCodeError
        return child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.popen.kill()
            child.file.close()
            child.socket.close()
            child.popen.wait()

    def _ended(self) -> Unavailable:
        return Unavailable(
            "the process that plans has ended: it was stopped, or memory was short",
            code="planning_ended",
            hint=f"Ask again, which starts another one. HOME/logs/{self._log.name} tells what it said.",
            retry_after=1.0,
        )


def _busy() -> Unavailable:
    return Unavailable(
        "too many plans are asked for at once",
        code="planning_busy",
        hint="They are made one after another. Ask again in a minute.",
        retry_after=60.0,
    )


def code() -> str:
    """What tells our code, as it lies there now, from any other: names, sizes and times of its files."""
    root = Path(groundplan.__file__).parent
    found = ((str(path.relative_to(root)), path.stat()) for path in sorted(root.rglob("*.py")))
    return sha256(repr([(name, each.st_size, each.st_mtime_ns) for name, each in found]).encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer until the other end is closed."""
    number, *modules = sys.argv[1:] if arguments is None else arguments
    logs.configure("planning")
    _make_way()
    for name in modules:
        importlib.import_module(name)
    with socket.socket(fileno=int(number)) as ours, ours.makefile("rb") as file:
        ours.sendall(pickle.dumps(code()))
        while True:
            try:
                function, asked = pickle.load(file)
            except EOFError:
                return 0
            ours.sendall(pickle.dumps(_answered(function, asked)))
            del asked


_TOLD: Final = ("hint", "code", "where", "problems", "retry_after", "details")


def _answered(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, Any]:
    try:
        return "done", function(*arguments)
    except GroundplanError as error:
        return "refused", (type(error), error.message, {name: getattr(error, name) for name in _TOLD})
    except MemoryError:
        raise  # what is left of this process is of no use
    except Exception as error:  # noqa: BLE001 -- whoever asked is told, and the next question is answered
        _log.exception("an answer failed")
        return "failed", f"{error.__class__.__name__}: {error}"


def _make_way() -> None:
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
