"""Keeps a list of processes running for one HOME: starts them in order, restarts what dies, stops them in reverse.

It knows no process by name: the composition root (`cli/up.py`) says what to run. Call it from the main thread, since
the kernel ties children to the thread that started them. Large logs are rotated.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from groundplan.core.endpoints import home_identity, start_ticks
from groundplan.core.errors import Conflict, GroundplanError, Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.core.settings import child_environment
from groundplan.runtime.child import Account, kill_session, spawn, stop, tail, trim
from groundplan.runtime.locks import own_home

POLL_SECONDS: Final = 0.1
"""How often the children are checked."""

LOGS_SECONDS: Final = 10.0
"""How often log sizes are checked: a process may run for years, and what fails fails often."""

STEADY_SECONDS: Final = 10.0
"""A process that lived this long is restarted at once; one that keeps dying sooner is restarted ever later."""

LONGEST_PAUSE: Final = 15.0


@dataclass(frozen=True, slots=True)
class Process:
    """What to run. `argv` may be a function, called before each start (it may raise `GroundplanError`).

    `env` is added to ours; `fds` are inherited under the same numbers (a listening socket); `ready` is polled until it
    returns true, for at most `ready_seconds`; `stop_signal` is sent first, SIGKILL follows after `grace` seconds.
    """

    name: str
    argv: Sequence[str] | Callable[[], Sequence[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()
    restart: bool = True
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    account: Account | None = None
    cwd: Path | None = None
    whole_env: Mapping[str, str] | None = None
    """The complete environment instead of ours plus `env`."""
    fit: Callable[[int], bool] | None = None
    """Whether the process with this pid has taken up its work; polled when it is to replace another."""
    leave_signal: signal.Signals | None = None
    """Asks a process whose successor has taken over to end by itself; None: `stop_signal` is sent."""
    leave_grace: float = 0.0
    """Seconds that it may take for that; asked to stop meanwhile, it has its `grace`."""
    leave_after: float = 0.0
    """Seconds before it is asked to: clients that know its address call it until they look it up again."""
    front: bool = False
    """Stopped before all that are not, and together with the other front processes: what they depend on outlives
    them."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The state of one process: its `pid` (None: not running now), starts so far, and the last exit code."""

    name: str
    pid: int | None
    starts: int
    last_exit: int | None


@dataclass(slots=True)
class _LeavingProcess:
    """A process whose successor has taken over: it is asked to leave at `leave_at` (None: it was asked), is killed
    after `kill_at`, and has `grace` once it is asked to stop."""

    popen: subprocess.Popen[bytes]
    kill_at: float
    grace: float
    leave_signal: signal.Signals = signal.SIGTERM
    leave_at: float | None = None

    def has_ended(self, now: float) -> bool:
        """Whether it has ended; sends the signal when it is due, and kills it past `kill_at`."""
        if self.popen.poll() is not None:
            return True
        if self.leave_at is not None and now >= self.leave_at:
            self.leave_at = None
            self.popen.send_signal(self.leave_signal)
        if now > self.kill_at:
            kill_session(self.popen.pid)
        return False


class _Child:
    """One process of the list, with its popen and restart state."""

    __slots__ = (
        "last_exit",
        "next_start",
        "popen",
        "process",
        "restart_pause",
        "restart_requested",
        "started",
        "starts",
    )

    def __init__(self, process: Process) -> None:
        self.process = process
        self.popen: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.starts = 0
        self.last_exit: int | None = None
        self.next_start: float | None = None
        self.restart_pause = 0.0
        self.restart_requested = False
        """Whether it was asked to stop in order to be started again."""

    def check_exit(self, now: float) -> bool:
        """Notice an exit once, and plan the next start."""
        if self.popen is None or (code := self.popen.poll()) is None:
            return False
        self.last_exit = code
        self.popen = None
        self.restart_pause = (
            0.0 if now - self.started >= STEADY_SECONDS else min(LONGEST_PAUSE, self.restart_pause * 2 or 0.25)
        )
        self.next_start = now + self.restart_pause if self.process.restart else None
        return True


def _reload_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask for a reload."""
    return (signal.SIGUSR1,) if sys.stdin and sys.stdin.isatty() else (signal.SIGUSR1, signal.SIGHUP)


@contextmanager
def _ignore_stop_signals() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM inside; only the main thread receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Supervisor:
    """The processes of one `up`. A context manager: holds HOME/lock inside, and stops everything at the end.

    `notice` is called with a text when something happens to a process (for the terminal or a log). Entering raises
    `Conflict` (`up_running`, `restore_incomplete`) as `own_home` does.
    """

    def __init__(self, home: Home, *, notice: Callable[[str], None] | None = None) -> None:
        self.home = home
        self._notice = notice or (lambda _: None)
        self._children: dict[str, _Child] = {}
        self._successors: dict[str, _Child] = {}
        self._leaving: list[_LeavingProcess] = []
        self._reload = threading.Event()
        self._lock: int | None = None
        self._stopping = threading.Event()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        self._lock = own_home(self.home)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, process: Process) -> int:
        """Start a process, wait until it is ready, and keep it running from now on; returns its pid.

        Raises `Unavailable` (`process_failed`) with the end of its log where it dies first or is not ready in time.
        """
        if process.name in self._children:
            raise Conflict(f"{process.name} runs already", code="process_running", hint="Stop it first.")
        child = _Child(process)
        self._children[process.name] = child
        try:
            self._spawn(child)
            self._await_ready(child)
        except BaseException:
            self.stop(process.name)
            raise
        assert child.popen is not None
        return child.popen.pid

    def stop(self, name: str) -> None:
        """Stop one process for good: with its signal, then by force. Does nothing where it is not there."""
        child = self._children.pop(name, None)
        if child is not None and child.popen is not None:
            stop(child.popen, first=child.process.stop_signal, grace=child.process.grace)

    def states(self) -> tuple[ProcessState, ...]:
        """Return the states of all processes, in the order they were started."""
        return tuple(
            ProcessState(
                name,
                one.popen.pid if one.popen is not None and one.popen.poll() is None else None,
                one.starts,
                one.last_exit,
            )
            for name, one in self._children.items()
        )

    def announce(
        self, gateway: str, control: str, public: str | None = None, tls: Mapping[str, str | None] | None = None
    ) -> None:
        """Write HOME/run/up.json, through which the commands find this `up`. `public`: the gateway's address for
        clients elsewhere, where that is another one; `tls`: the files of its certificate."""
        pid = os.getpid()
        own = {"pid": pid, "began": start_ticks(pid), "home": home_identity(self.home)}
        # `upgrades`: a reload of it upgrades the schema, which older programs left to the command that asked for one
        body = {**own, "gateway": gateway, "control": control, "public": public or gateway, "upgrades": True}
        body |= {"tls": dict(tls)} if tls is not None else {}
        write_atomically(self.home.run / "up.json", json.dumps(body).encode())

    def check(self) -> None:
        """Check once: restart what died and is due. `run` does this all the time."""
        now = time.monotonic()
        for child in list(self._children.values()):
            if child.check_exit(now):
                self._notice(self._exit_notice(child))
            if child.next_start is not None and now >= child.next_start:
                self._restart(child)
        for name, successor in list(self._successors.items()):
            self._promote_successor(name, successor, now)
        self._leaving = [each for each in self._leaving if not each.has_ended(now)]

    def replace(self, process: Process) -> None:
        """Start a successor beside the process of the same name. Once it is fit, it takes the place of the other, which
        is asked to stop within its grace; a successor that dies or never gets fit changes nothing.

        `replacing` tells when it is over; `check` carries it on. Raises what starting a process may raise.
        """
        if process.name in self._successors or process.name not in self._children:
            raise Conflict(f"{process.name} cannot be replaced now", code="process_running", hint="Try again later.")
        successor = _Child(process)
        self._spawn(successor)
        self._successors[process.name] = successor

    @property
    def replacing(self) -> frozenset[str]:
        """Names of the processes whose successors are not fit yet."""
        return frozenset(self._successors)

    def _promote_successor(self, name: str, successor: _Child, now: float) -> None:
        process, popen = successor.process, successor.popen
        if successor.check_exit(now) or popen is None:
            del self._successors[name]
            self._notice(f"the successor of {name} ended before it was ready; see {self.log_path(name)}")
        elif process.fit is None or process.fit(popen.pid):
            del self._successors[name]
            before = self._children[name]
            self._children[name] = successor
            if before.popen is not None and before.popen.poll() is None:
                left = before.process
                number = left.stop_signal if left.leave_signal is None else left.leave_signal
                due = now + left.leave_after
                until = due + (left.grace if left.leave_signal is None else left.leave_grace)
                leaving = _LeavingProcess(before.popen, until, left.grace, number, due)
                if not leaving.has_ended(now):
                    self._leaving.append(leaving)
        elif now > successor.started + process.ready_seconds:
            del self._successors[name]
            self._notice(f"the successor of {name} was not ready within {process.ready_seconds:.0f} s; it is stopped")
            stop(popen, first=process.stop_signal, grace=1.0)

    def restart(self, name: str) -> None:
        """Ask a process to stop, so that `check` starts it again; clients wait on its listening socket meanwhile."""
        child = self._children.get(name)
        if child is not None and child.popen is not None and child.popen.poll() is None:
            child.started = min(child.started, time.monotonic() - STEADY_SECONDS)
            child.restart_requested = True
            child.popen.send_signal(child.process.stop_signal)

    def is_fit(self, name: str) -> bool:
        """Whether a process of the list runs, and has taken up its work where it can tell."""
        child = self._children.get(name)
        popen = None if child is None else child.popen
        if child is None or popen is None or popen.poll() is not None:
            return False
        return child.process.fit is None or child.process.fit(popen.pid)

    def run(self, tick: Callable[[], None] | None = None) -> None:
        """Watch until `request_stop`, SIGINT or SIGTERM; `tick` is called every 0.1 s."""
        due = 0.0
        with self.signals():
            while not self._stopping.is_set():
                self.check()
                if (now := time.monotonic()) >= due:
                    due = now + LOGS_SECONDS
                    self.trim_logs()
                if tick is not None:
                    tick()
                self._stopping.wait(POLL_SECONDS)

    def request_stop(self) -> None:
        """Make `run` return; for any thread and for signal handlers."""
        self._stopping.set()

    def handle_reload_signals(self) -> None:
        """Let SIGUSR1 ask for a reload from now on, and SIGHUP where there is no terminal to hang up: a command that
        asks for one may find us long before `run`, which carries it out. From the main thread."""
        for number in _reload_signals():
            signal.signal(number, lambda *_: self.request_reload())

    def request_reload(self) -> None:
        """Make `take_reload_request` return true once; for any thread and for signal handlers."""
        self._reload.set()

    def take_reload_request(self) -> bool:
        """Whether a reload was requested since the last call."""
        wanted = self._reload.is_set()
        self._reload.clear()
        return wanted

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Inside, SIGINT and SIGTERM ask for a stop, the signals of `handle_reload_signals` for a reload; a second one
        changes nothing. May be nested."""

        def handle(number: int, _frame: FrameType | None) -> None:
            if number in (signal.SIGHUP, signal.SIGUSR1):
                self.request_reload()
            else:
                self.request_stop()

        numbers = (signal.SIGINT, signal.SIGTERM, *_reload_signals())
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Stop everything in reverse order and release HOME. Signals are ignored meanwhile: each process has its time
        to end, and what it depends on outlives it."""
        with _ignore_stop_signals():
            self._close()

    def _close(self) -> None:
        with suppress(OSError):  # processes end in their order also on a disk that takes no more writes
            (self.home.run / "up.json").unlink(missing_ok=True)
        now = time.monotonic()
        for successor in self._successors.values():
            if successor.popen is not None:
                self._leaving.append(_LeavingProcess(successor.popen, now + 1.0, 1.0))
        self._successors.clear()
        fronts = [name for name, child in self._children.items() if child.process.front]
        asked = [each.popen for each in self._leaving]
        asked += [popen for name in fronts if (popen := self._children[name].popen) is not None]
        for popen in asked:
            if popen.poll() is None:
                popen.send_signal(signal.SIGTERM)
        for name in (*fronts, *reversed([name for name in self._children if name not in fronts])):
            self.stop(name)
        for each in self._leaving:
            stop(each.popen, grace=max(0.0, min(each.kill_at, now + each.grace) - time.monotonic()))
        self._leaving.clear()
        self._cleanup.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def on_closed(self, release: Callable[[], object]) -> None:
        """Call `release` once everything has been stopped."""
        self._cleanup.callback(release)

    def log_path(self, name: str) -> Path:
        """Return the path of the log of a process."""
        return self.home.logs / f"{name}.log"

    def trim_logs(self) -> None:
        """Rotate the large ones of all logs of HOME."""
        for log in self.home.logs.glob("*.log"):
            trim(log)

    def _spawn(self, child: _Child) -> None:
        process = child.process
        argv = process.argv() if callable(process.argv) else process.argv
        env = dict(process.whole_env) if process.whole_env is not None else child_environment(process.env)
        child.popen = spawn(
            argv,
            env=env,
            log=self.log_path(process.name),
            fds=process.fds,
            account=process.account,
            cwd=process.cwd,
            death_signal=process.stop_signal,
        )
        child.started = time.monotonic()
        child.starts += 1
        child.next_start = None

    def _await_ready(self, child: _Child) -> None:
        process = child.process
        if process.ready is None:
            return
        deadline = time.monotonic() + process.ready_seconds
        while not process.ready():
            if child.popen is None or child.popen.poll() is not None:
                raise self._process_failed(process.name, "ended before it was ready")
            if time.monotonic() > deadline:
                raise self._process_failed(process.name, f"was not ready within {process.ready_seconds:.0f} s")
            if self._stopping.wait(0.02):
                raise Unavailable("stopped while starting", code="stopped", hint="Start again.")
            self._check_others(child)

    def _check_others(self, starting: _Child) -> None:
        # What is already up stays up while a later process takes its time.
        now = time.monotonic()
        for other in self._children.values():
            if other is not starting:
                if other.check_exit(now):
                    self._notice(self._exit_notice(other))
                if other.next_start is not None and now >= other.next_start:
                    self._restart(other)

    def _restart(self, child: _Child) -> None:
        try:
            self._spawn(child)
        except (GroundplanError, OSError) as error:
            child.restart_pause = min(LONGEST_PAUSE, child.restart_pause * 2 or 0.25)
            child.next_start = time.monotonic() + child.restart_pause
            self._notice(f"{child.process.name} cannot be restarted, again in {child.restart_pause:.1f} s: {error}")

    def _exit_notice(self, child: _Child) -> str:
        name, code, asked = child.process.name, child.last_exit or 0, child.restart_requested
        child.restart_requested = False
        if asked and code in (0, -child.process.stop_signal):
            return f"{name} is started anew"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        then = f"restarted in {child.restart_pause:.1f} s" if child.process.restart else "not restarted"
        return f"{name} {how}, {then}; see {self.log_path(name)}"

    def _process_failed(self, name: str, what: str) -> Unavailable:
        return Unavailable(
            f"{name} {what}: {tail(self.log_path(name)) or 'it said nothing'}",
            code="process_failed",
            hint=f"See {self.log_path(name)}.",
        )
