"""Gateway workers that are forked from a process which has their modules loaded: real processes, without the seconds of
computing that starting Python and importing costs each of them.

`fork_worker` is used as `subprocess.Popen` would be. The nursery is started once for each process of the tests and
ends, with everything below it, when that one does. `up` starts workers from nothing; that is tested where `up` is.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_CODE = struct.Struct("<i")
_MOST = 1 << 18
"""Bytes of arguments and environment."""


class Worker:
    """A forked worker; the part of `subprocess.Popen` that tests need."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        return self._ask(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ask(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("groundplan.gateway.app", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ask(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            data = os.read(self._ended, _CODE.size)
            self.returncode = _CODE.unpack(data)[0] if data else -signal.SIGKILL
            os.close(self._ended)
        return self.returncode


def fork_worker(arguments: Sequence[str], listening: int, log: int, environment: Mapping[str, str]) -> Worker:
    """`python -m groundplan.gateway.app ARGUMENTS --fd LISTENING`, its output to `log`, in that environment."""
    ours, theirs = os.pipe()
    control = _nursery(os.getpid())
    told = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode(
        "utf-8", "surrogateescape"
    )
    socket.send_fds(control, [told], [listening, log, theirs])
    os.close(theirs)
    return Worker(int(control.recv(32)), ours)


@functools.cache
def _nursery(owner: int) -> socket.socket:
    """The way to the nursery of this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
    command = [sys.executable, str(Path(__file__)), str(theirs.fileno())]
    process = subprocess.Popen(
        command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )  # fmt: skip
    theirs.close()
    atexit.register(_end, process, ours)
    return ours


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.wait()


# in the nursery --------------------------------------------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    """Fork what is asked for, and tell each one's end, until whoever asks is gone."""
    from groundplan.gateway import app  # noqa: PLC0415 -- only the nursery loads it

    ends: dict[int, int] = {}
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake.fileno())
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _tell_ends(ends)
        if control not in ready:
            continue
        told, fds, _, _ = socket.recv_fds(control, _MOST, 3)
        if not told:
            break
        asked = json.loads(told)
        listening, log, ended = fds
        pid = os.fork()
        if pid == 0:
            for each in (control, woken, wake):
                each.close()
            for descriptor in (ended, *ends.values()):
                os.close(descriptor)
            _be_worker(app.main, asked["arguments"], asked["environment"], listening, log)
        os.close(listening)
        os.close(log)
        ends[pid] = ended
        control.send(str(pid).encode())
    for pid in ends:
        os.kill(pid, signal.SIGKILL)


def _tell_ends(ends: dict[int, int]) -> None:
    for pid in list(ends):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            descriptor = ends.pop(pid)
            try:
                os.write(descriptor, _CODE.pack(os.waitstatus_to_exitcode(status)))
            except BrokenPipeError:
                pass  # nobody asks
            os.close(descriptor)


def _be_worker(
    main: Callable[[list[str]], int], arguments: list[str], environment: dict[str, str], listening: int, log: int
) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for output in (1, 2):
        os.dup2(log, output)
    os.close(log)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    code = 1
    try:
        code = main([*arguments, "--fd", str(listening)])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except Exception:  # noqa: BLE001 -- what a program of its own would end with
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
