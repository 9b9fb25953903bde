"""What `up` starts, forked from a process that has it loaded: its own children all the same, each in a session of its
own, on its leash, with the command line, environment, log and descriptors that it would have.

To start Python and import is most of what an installation computes until it is ready, and again for each process of it
that a test kills. What is replaced here is only how the supervisor starts one of our modules. That all of it starts
from nothing is shown where `up` itself does: `test_cli_up`, `test_promise_01_one_command`.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_DEATH_SIGNAL, _SUBREAPER = 1, 36
_MOST, _MOST_FDS, _HIGH = 1 << 18, 32, 512
"""Bytes of what is asked, descriptors that go with it, and the number below which those of a process are."""


class Forked(subprocess.Popen[bytes]):
    """A child that was not started by this object."""

    def __init__(self, pid: int, arguments: Sequence[str]) -> None:
        self.args, self.pid, self.returncode = list(arguments), pid, None
        self.stdin = self.stdout = self.stderr = None
        self._waitpid_lock = threading.Lock()
        self._child_created = True


def take_over(programs: Container[str]) -> Callable[[], None]:
    """Before `up` begins, in its process: what its supervisor starts of these from here on is forked, all else as
    ever. Returns what is to be called at its end; one that is killed needs nothing."""
    supervisor: Any = importlib.import_module("groundplan.runtime.supervisor")
    child = importlib.import_module("groundplan.runtime.child")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
    owner = os.getpid()
    forking = os.fork()
    if forking == 0:
        try:
            ours.close()
            _serve(theirs, owner)
        finally:
            os._exit(1)
    theirs.close()

    def spawn(argv: Sequence[str], **terms: Any) -> subprocess.Popen[bytes]:
        plain = [sys.executable, "-m", "groundplan.program"]
        changed = terms.get("account") is not None or terms.get("cwd") is not None
        if list(argv[:3]) != plain or argv[3] not in programs or changed:
            started: subprocess.Popen[bytes] = child.spawn(argv, **terms)
            return started
        with child.open_log(terms["log"]) as log:
            return Forked(_ask(ours, argv, log.fileno(), **terms), argv)

    def end() -> None:
        ours.close()
        os.waitpid(forking, 0)

    supervisor.spawn = spawn
    return end


def _ask(
    control: socket.socket,
    argv: Sequence[str],
    output: int,
    *,
    env: Mapping[str, str],
    fds: Sequence[int] = (),
    death_signal: signal.Signals = signal.SIGTERM,
    **_: Any,
) -> int:
    """The pid of a child of this process. Raises OSError where there is none."""
    asked = {"argv": list(argv), "env": dict(env), "fds": list(fds), "signal": int(death_signal)}
    _prctl(_SUBREAPER, 1)  # it is adopted when what forked it for us is gone
    try:
        socket.send_fds(control, [json.dumps(asked).encode("utf-8", "surrogateescape")], [output, *fds])
        pid = control.recv(32)
    finally:
        _prctl(_SUBREAPER, 0)
    if not pid:
        raise ChildProcessError("nothing was forked")
    return int(pid)


def _serve(control: socket.socket, owner: int) -> NoReturn:
    """Fork what is asked for, until whoever asks is gone."""
    _tell_command(["brood"])  # whoever looks for a process of ours by its name finds that, not this
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        told, given, _, _ = socket.recv_fds(control, _MOST, _MOST_FDS)
        if not told:
            os._exit(0)
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            try:
                pid = os.fork()
                if pid == 0:
                    _become(json.loads(told), given, owner)
                os.write(writing, str(pid).encode())
            finally:
                os._exit(0)
        for descriptor in (writing, *given):
            os.close(descriptor)
        pid_told = os.read(reading, 32)
        os.close(reading)
        os.waitpid(between, 0)
        control.send(pid_told)


def _become(asked: dict[str, Any], given: list[int], owner: int) -> NoReturn:
    """Be what was asked for, as `runtime.child` and `leash` would make it."""
    code = 1
    try:
        os.setsid()
        end = time.monotonic() + 10
        while os.getppid() != owner and time.monotonic() < end:
            time.sleep(0.0005)
        _prctl(_DEATH_SIGNAL, asked["signal"])
        if os.getppid() != owner:
            os._exit(70)
        _take_descriptors(given, asked["fds"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _tell_command(asked["argv"])
        os.environ.clear()
        os.environ.update(asked["env"])
        time.tzset()
        _, _, _, name, *arguments = asked["argv"]
        sys.argv[:] = [name, *arguments]
        importlib.import_module("tests.unprepared").heed(name)
        module = importlib.import_module(name)
        gc.freeze()
        code = module.main() or 0
    except SystemExit as left:
        code = told(left)
    except BaseException:  # noqa: BLE001 -- what a program of its own would end with
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def told(left: SystemExit) -> int:
    """The code of a program that ends so, which says the rest as Python would."""
    if left.code is None or isinstance(left.code, int):
        return left.code or 0
    print(left.code, file=sys.stderr)
    return 1


def _take_descriptors(given: list[int], wanted: list[int]) -> None:
    """The log as output, nothing as input, and the others under their numbers; nothing else stays open."""
    log, *others = [fcntl.fcntl(each, fcntl.F_DUPFD, _HIGH) for each in given]
    os.closerange(3, _HIGH)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, number in ((nothing, 0), (log, 1), (log, 2), *zip(others, wanted, strict=True)):
        os.dup2(source, number)
    for used in {nothing, log, *others} - {0, 1, 2, *wanted}:
        os.close(used)


def _tell_command(argv: Sequence[str]) -> None:
    """What Linux shows of this process: as much of it as there is room where the arguments of the first one lie."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    first, end = int(fields[45]), int(fields[46])
    shown = b"\0".join(part.encode() for part in argv)[: end - first - 1]
    ctypes.memset(first, 0, end - first)
    ctypes.memmove(first, shown, len(shown))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, *(ctypes.c_ulong(each) for each in (value, 0, 0, 0)))
