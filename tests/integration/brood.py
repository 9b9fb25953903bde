"""Forks the processes that `up` starts from one that has their modules loaded. They still are children of `up`, each
in a session of its own, on its leash, with the command line, environment, log and descriptors that it would have.

Starting Python and importing is most of what an installation computes until it is ready, and again for each process
that a test kills. Only the supervisor's way of starting the project's modules is replaced. `test_cli_up` and
`test_promise_01_one_command` test that all of it starts without forking.
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
_MAX_REQUEST_BYTES, _MAX_DESCRIPTORS, _FIRST_HIGH_DESCRIPTOR = 1 << 18, 32, 512
"""Maximum size of a request, maximum number of descriptors with it, and a number above all those of a process."""


class ForkedChild(subprocess.Popen[bytes]):
    """A child process that this object did not start."""

    def __init__(self, pid: int, arguments: Sequence[str]) -> None:
        self.args, self.pid, self.returncode = list(arguments), pid, None
        self.stdin = self.stdout = self.stderr = None
        self._waitpid_lock = threading.Lock()
        self._child_created = True


def fork_children(programs: Container[str]) -> Callable[[], None]:
    """Make the supervisor of this process fork these programs from now on; to be called before `up` begins. Returns a
    function to call at its end; a killed process needs no cleanup."""
    supervisor: Any = importlib.import_module("groundplan.runtime.supervisor")
    child = importlib.import_module("groundplan.runtime.child")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST_BYTES)
    owner = os.getpid()
    forker = os.fork()
    if forker == 0:
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
            return ForkedChild(_request_child(ours, argv, log.fileno(), **terms), argv)

    def end() -> None:
        ours.close()
        os.waitpid(forker, 0)

    supervisor.spawn = spawn
    return end


def _request_child(
    control: socket.socket,
    argv: Sequence[str],
    output: int,
    *,
    env: Mapping[str, str],
    fds: Sequence[int] = (),
    death_signal: signal.Signals = signal.SIGTERM,
    **_: Any,
) -> int:
    """Fork a child of this process; returns its pid. Raises OSError if none was forked."""
    request = {"argv": list(argv), "env": dict(env), "fds": list(fds), "signal": int(death_signal)}
    _prctl(_SUBREAPER, 1)  # so that this process adopts the child when the intermediate process ends
    try:
        socket.send_fds(control, [json.dumps(request).encode("utf-8", "surrogateescape")], [output, *fds])
        pid = control.recv(32)
    finally:
        _prctl(_SUBREAPER, 0)
    if not pid:
        raise ChildProcessError("nothing was forked")
    return int(pid)


def _serve(control: socket.socket, owner: int) -> NoReturn:
    """Fork the requested programs until the client is gone."""
    _set_command_line(["brood"])  # so that a search for a process by its name does not find this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, _MAX_DESCRIPTORS)
        if not request:
            os._exit(0)
        reading, writing = os.pipe()
        intermediate = os.fork()
        if intermediate == 0:
            try:
                pid = os.fork()
                if pid == 0:
                    _run_child(json.loads(request), descriptors, owner)
                os.write(writing, str(pid).encode())
            finally:
                os._exit(0)
        for descriptor in (writing, *descriptors):
            os.close(descriptor)
        pid_text = os.read(reading, 32)
        os.close(reading)
        os.waitpid(intermediate, 0)
        control.send(pid_text)


def _run_child(request: dict[str, Any], descriptors: list[int], owner: int) -> NoReturn:
    """Run the requested program in this process, set up as `runtime.child` and `leash` would."""
    code = 1
    try:
        os.setsid()
        end = time.monotonic() + 10
        while os.getppid() != owner and time.monotonic() < end:
            time.sleep(0.0005)
        _prctl(_DEATH_SIGNAL, request["signal"])
        if os.getppid() != owner:
            os._exit(70)
        _take_descriptors(descriptors, request["fds"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _set_command_line(request["argv"])
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        _, _, _, name, *arguments = request["argv"]
        sys.argv[:] = [name, *arguments]
        importlib.import_module("tests.unprepared").disable_preparation(name)
        module = importlib.import_module(name)
        gc.freeze()
        code = module.main() or 0
    except SystemExit as exit_request:
        code = exit_code(exit_request)
    except BaseException:  # noqa: BLE001 -- as Python ends a program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def exit_code(exit_request: SystemExit) -> int:
    """The exit code of a program that raises this; prints its message as Python would."""
    if exit_request.code is None or isinstance(exit_request.code, int):
        return exit_request.code or 0
    print(exit_request.code, file=sys.stderr)
    return 1


def _take_descriptors(received: list[int], wanted: list[int]) -> None:
    """Use the log as output, no input, and the others under their numbers; close all other descriptors."""
    log, *others = [fcntl.fcntl(each, fcntl.F_DUPFD, _FIRST_HIGH_DESCRIPTOR) for each in received]
    os.closerange(3, _FIRST_HIGH_DESCRIPTOR)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, number in ((nothing, 0), (log, 1), (log, 2), *zip(others, wanted, strict=True)):
        os.dup2(source, number)
    for used in {nothing, log, *others} - {0, 1, 2, *wanted}:
        os.close(used)


def _set_command_line(argv: Sequence[str]) -> None:
    """Set the command line that Linux shows for this process, cut to the space of its original arguments."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    first, end = int(fields[45]), int(fields[46])
    shown = b"\0".join(part.encode() for part in argv)[: end - first - 1]
    ctypes.memset(first, 0, end - first)
    ctypes.memmove(first, shown, len(shown))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, *(ctypes.c_ulong(each) for each in (value, 0, 0, 0)))
