"""Processes of ours that are forked from one which has their modules loaded: real processes, without the seconds of
computing that starting Python and importing costs each of them.

`fork_worker` and `fork_program` are used as `subprocess.Popen` would be, `run_command` as `subprocess.run`; threads may
share them. A nursery is started when the first of its programs is asked for; everything below it ends with the process
of the tests that asked for it. The workers of a run have them together (`shared`): what one loads takes up to four
seconds of computing. What `up` starts is forked, too (`brood`); how it and other commands start from nothing is tested
where they are.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

_NURSERIES = {
    "groundplan.gateway.app": "groundplan.gateway.app",
    "groundplan.gateway.journal.shipper": "groundplan.gateway.app",
    "groundplan.gateway.translate_app": "groundplan.gateway.translate_app",
    "groundplan.gateway.search_app": "groundplan.console.app",
    "groundplan.console.app": "groundplan.console.app",
    "groundplan.api.app": "groundplan.console.app",
    "groundplan.cli.main": "groundplan.console.app",
    "groundplan.testing.scripted": "groundplan.console.app",
    "groundplan.knowledge.parsing.worker": "groundplan.knowledge.parsing.worker",
    "-c": "groundplan.console.app",
}
"""Which loaded module each program is forked beside; what else it needs, it loads itself."""
_COMMANDS, _GIVEN = "groundplan.cli.main", "-c"
_BY_COMMAND_LINE = (_COMMANDS, "groundplan.knowledge.parsing.worker")
"""Those that look for their arguments themselves."""
_STARTED_BY_UP = (
    "groundplan.console.app", "groundplan.gateway.app", "groundplan.gateway.journal.shipper",
    "groundplan.gateway.search_app", "groundplan.testing.scripted", "groundplan.testing.traffic",
)  # fmt: skip
"""What `up` starts of ours and is quick to load; a service that loads a library of its own starts from nothing."""
_BESIDE = {
    "groundplan.gateway.translate_app": (
        "any_llm", *(f"any_llm.providers.{name}" for name in ("bedrock", "gemini", "mistral", "ollama"))
    ),
    "groundplan.console.app": (_COMMANDS, *_STARTED_BY_UP),
}  # fmt: skip
"""What a module loads as soon as it starts, or is asked: clients of providers take seconds of computing. Beside the
console all of an installation, most of which that has loaded anyway."""
_ROOM = 600
"""Bytes of a command line that a process may have which is forked from one."""
_ASKING = threading.Lock()
_ASKED: list[socket.socket] = []
"""Ways to the nurseries that this process asks."""
_SHARED = "TESTS_NURSERIES"
"""Name of the environment variable that has the folder of those which processes of a run share."""
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
            raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout or 0.0)
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
    return fork_program("groundplan.gateway.app", arguments, log, environment, listening)


def fork_program(
    module: str,
    arguments: Sequence[str],
    log: int,
    environment: Mapping[str, str],
    listening: int | None = None,
    out: int | None = None,
    read: int | None = None,
) -> Worker:
    """`python -m MODULE ARGUMENTS [--fd LISTENING]`, its errors to `log`, and its output there too or to `out`, in that
    environment; what it is to read comes from `read`."""
    ours, theirs = os.pipe()
    asked = {
        "module": module, "arguments": list(arguments), "environment": dict(environment), "reads": read is not None,
    }  # fmt: skip
    told = json.dumps(asked).encode("utf-8", "surrogateescape")
    shown = log if out is None else out
    with _ASKING:
        control = _nursery(os.getpid(), _NURSERIES[module])
        more = [each for each in (read, listening) if each is not None]
        socket.send_fds(control, [told], [log, shown, theirs, *more])
        pid = int(control.recv(32))
    os.close(theirs)
    return Worker(pid, ours)


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """`groundplan ARGUMENTS` to its end, with what it printed. Raises `TimeoutExpired` as `subprocess.run` does."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        command = fork_program(_COMMANDS, arguments, log.fileno(), environment, out=out.fileno())
        try:
            code = command.wait(timeout)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            raise
        shown, told = (_written(file) for file in (out, log))
    return subprocess.CompletedProcess(["groundplan", *arguments], code, shown, told)


def run_code(code: str, *arguments: str, timeout: float = 120) -> int:
    """How `python -c CODE ARGUMENTS` ends."""
    child = fork_program(_GIVEN, [code, *arguments], 2, os.environ)
    try:
        return child.wait(timeout)
    finally:
        child.kill()


def computed() -> float:
    """Seconds of computing by all that this process had forked, and that has ended."""
    total = 0.0
    with _ASKING:
        for control in _ASKED:
            with contextlib.suppress(OSError, ValueError):
                control.send(b"{}")
                total += float(control.recv(32))
    return total


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Meanwhile each nursery is there once for this process and those that it starts from here on; each loads when the
    first of them asks for it."""
    with contextlib.ExitStack() as stack:
        for loaded in set(_NURSERIES.values()):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            listening.bind(str(_place(folder, loaded)))
            listening.listen(64)
            ours, theirs = socket.socketpair()
            stack.callback(_end, _start(loaded, listening, theirs), ours)
            theirs.close()
        before = os.environ.get(_SHARED)
        os.environ[_SHARED] = str(folder)
        yield
        os.environ.update({} if before is None else {_SHARED: before})
        if before is None:
            del os.environ[_SHARED]


def _place(folder: Path, loaded: str) -> Path:
    """Briefly: a socket's address has a hundred bytes."""
    return folder / f"n{sorted(_NURSERIES.values()).index(loaded)}"


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@functools.cache
def _nursery(owner: int, loaded: str) -> socket.socket:
    """The way to a nursery that has the module `loaded`: that of the run, or one of this process."""
    place = _place(Path(os.environ.get(_SHARED, "")), loaded)
    if _SHARED in os.environ and place.exists():
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.connect(str(place))
        atexit.register(ours.close)
    else:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        atexit.register(_end, _start(loaded, theirs), ours)
        theirs.close()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
    _ASKED.append(ours)
    return ours


def _start(loaded: str, *given: socket.socket) -> subprocess.Popen[bytes]:
    """`given`: who asks; or where whoever wants to ask is heard, and what ends with the run."""
    fds = [each.fileno() for each in given]
    command = [sys.executable, str(Path(__file__)), loaded, *map(str, fds), " " * _ROOM]
    return subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.wait()


# in the nursery --------------------------------------------------------------------------------------------------


def _serve(loaded: str, given: list[socket.socket]) -> None:
    """Fork what is asked for, and tell each one's end, until nobody can ask any more."""
    listening, asking = (given, []) if len(given) > 1 else ([], given)
    if listening and listening[1] in select.select(given, [], [])[0]:
        return
    gc.disable()
    _load(loaded)
    gc.freeze()
    gc.enable()
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake.fileno())
    families = {control: _Family(control) for control in asking}
    while (families or listening) and (ready := select.select([woken, *listening, *families], [], [])[0]):
        if woken in ready:
            woken.recv(4096)
            for family in families.values():
                family.tell_ends()
        for control in families.keys() & set(ready):
            inherited = [*listening, woken, wake, *families]
            if not families[control].heed(inherited, [end for each in families.values() for end in each.ends.values()]):
                families.pop(control).end()
        if listening and listening[1] in ready:
            break
        if listening and listening[0] in ready:
            control = listening[0].accept()[0]
            families[control] = _Family(control)
    for family in families.values():
        family.end()


class _Family:
    """What one process had forked. `ends` has for each that runs where its end is told."""

    def __init__(self, control: socket.socket) -> None:
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
        self._control = control
        self._computed = 0.0
        self.ends: dict[int, int] = {}

    def heed(self, inherited: list[socket.socket], ends: list[int]) -> bool:
        """What is asked next; False: nothing more. `inherited`, `ends`: what no child of the nursery is to have."""
        try:
            told, fds, _, _ = socket.recv_fds(self._control, _MOST, 5)
        except ConnectionError:
            return False
        if not told:
            return False
        asked = json.loads(told)
        if not asked:
            self._control.send(str(self._computed).encode())
            return True
        log, out, ended, *more = fds
        reading, listening = (more[:1], more[1:]) if asked["reads"] else ([], more)
        pid = os.fork()
        if pid == 0:
            for each in inherited:
                each.close()
            for descriptor in (ended, *ends):
                os.close(descriptor)
            arguments = [*asked["arguments"], *(part for fd in listening for part in ("--fd", str(fd)))]
            _be(asked["module"], arguments, asked["environment"], [(log, 2), (out, 1), *((fd, 0) for fd in reading)])
        for descriptor in (*more, log, out):
            os.close(descriptor)
        self.ends[pid] = ended
        with contextlib.suppress(BrokenPipeError):
            self._control.send(str(pid).encode())
        return True

    def tell_ends(self) -> None:
        for pid in list(self.ends):
            found, status, used = os.wait4(pid, os.WNOHANG)
            if found:
                self._computed += used.ru_utime + used.ru_stime
                descriptor = self.ends.pop(pid)
                try:
                    os.write(descriptor, _CODE.pack(os.waitstatus_to_exitcode(status)))
                except BrokenPipeError:
                    pass  # nobody asks
                os.close(descriptor)

    def end(self) -> None:
        """Whoever asked is gone."""
        for pid, descriptor in self.ends.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(descriptor)
        self._control.close()


def _load(module: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    importlib.import_module("tests.late_grammar").put_off()
    importlib.import_module("tests.small_pages")
    importlib.import_module("tests.unprepared")
    importlib.import_module("tests.integration.brood")
    del sys.path[0]
    importlib.import_module("groundplan.core.settings").disable_pydantic_plugins()
    importlib.import_module(module)
    for name in _BESIDE.get(module, ()):
        loaded = importlib.import_module(name)
        for entry in loaded.COMMANDS.values() if name == _COMMANDS else ():
            importlib.import_module(f"groundplan.cli.{entry[0]}")


def _be(module: str, arguments: list[str], environment: dict[str, str], streams: list[tuple[int, int]]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for given, stream in streams:
        os.dup2(given, stream)
        os.close(given)
    pages = importlib.import_module("tests.small_pages")
    if pages.ALLOWED in environment:
        pages.allow()
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv[:] = [module, *arguments]
    importlib.import_module("tests.unprepared").heed(module)
    brood = importlib.import_module("tests.integration.brood")
    code, ends = 1, contextlib.ExitStack()
    try:
        if module == _COMMANDS and arguments[:1] == ["up"]:
            ends.callback(brood.take_over(_STARTED_BY_UP))
        code = _run(module, arguments)
    except SystemExit as left:
        code = brood.told(left)
    except Exception:  # noqa: BLE001 -- what a program of its own would end with
        traceback.print_exc()
    finally:
        ends.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(module: str, arguments: list[str]) -> int:
    if module == _GIVEN:
        given, *sys.argv[1:] = arguments
        exec(compile(given, "<string>", "exec"), {"__name__": "__main__"})
        return 0
    loaded = importlib.import_module(module)
    code: int = (loaded.main() or 0) if module in _BY_COMMAND_LINE else loaded.main(arguments)
    return code


if __name__ == "__main__":
    _serve(sys.argv[1], [socket.socket(fileno=int(fd)) for fd in sys.argv[2:-1]])
