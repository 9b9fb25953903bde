"""Processes of the project that are forked from one that has their modules loaded: real processes, without the seconds
of computing that starting Python and importing cost each of them.

`fork_worker` and `fork_program` are used as `subprocess.Popen` would be, `run_command` as `subprocess.run`; threads may
share them. A nursery is started when its first program is requested; everything below it ends with the test process
that requested it. The workers of a run share them (`shared`), since loading one takes up to four seconds of computing.
What `up` starts is forked, too (`brood`); how it and other commands start without a nursery has tests of its own.
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

_LOADED_MODULES = {
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
"""Program -> the module that its nursery has loaded; the program loads what else it needs."""
_CLI, _CODE_OPTION = "groundplan.cli.main", "-c"
_BY_COMMAND_LINE = (_CLI, "groundplan.knowledge.parsing.worker")
"""Programs that read their arguments from `sys.argv`."""
_STARTED_BY_UP = (
    "groundplan.console.app", "groundplan.gateway.app", "groundplan.gateway.journal.shipper",
    "groundplan.gateway.search_app", "groundplan.testing.scripted", "groundplan.testing.traffic",
)  # fmt: skip
"""Programs that `up` starts and that load quickly; a service that loads a library of its own is not forked."""
_ALSO_LOADED = {
    "groundplan.gateway.translate_app": (
        "any_llm", *(f"any_llm.providers.{name}" for name in ("bedrock", "gemini", "mistral", "ollama"))
    ),
    "groundplan.console.app": (_CLI, *_STARTED_BY_UP),
}  # fmt: skip
"""What a nursery loads in addition, because the program loads it at its start or first request: clients of providers
take seconds of computing. With the console, all programs of an installation, which it has mostly loaded anyway."""
_COMMAND_LINE_BYTES = 600
"""Bytes that the command line of a forked process may have."""
_NURSERIES_LOCK = threading.Lock()
_NURSERY_SOCKETS: list[socket.socket] = []
"""Sockets of the nurseries that this process uses."""
_SHARED_VARIABLE = "TESTS_NURSERIES"
"""Environment variable with the folder of the nurseries that the processes of a run share."""
_EXIT_CODE = struct.Struct("<i")
_MAX_REQUEST_BYTES = 1 << 18
"""Maximum size of the arguments and environment of a request."""


class Worker:
    """A forked process, with the part of the interface of `subprocess.Popen` that tests need."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._exit_pipe = ended

    def poll(self) -> int | None:
        return self._wait_for_exit(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._wait_for_exit(timeout)
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

    def _wait_for_exit(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._exit_pipe], [], [], timeout)[0]:
            data = os.read(self._exit_pipe, _EXIT_CODE.size)
            self.returncode = _EXIT_CODE.unpack(data)[0] if data else -signal.SIGKILL
            os.close(self._exit_pipe)
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
    """`python -m MODULE ARGUMENTS [--fd LISTENING]` in that environment, its errors to `log`, its output to `out` or
    else to `log`, and its input from `read`."""
    our_pipe, their_pipe = os.pipe()
    request = {
        "module": module, "arguments": list(arguments), "environment": dict(environment), "reads": read is not None,
    }  # fmt: skip
    message = json.dumps(request).encode("utf-8", "surrogateescape")
    shown = log if out is None else out
    with _NURSERIES_LOCK:
        control = _connect(os.getpid(), _LOADED_MODULES[module])
        inputs = [each for each in (read, listening) if each is not None]
        socket.send_fds(control, [message], [log, shown, their_pipe, *inputs])
        pid = int(control.recv(32))
    os.close(their_pipe)
    return Worker(pid, our_pipe)


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `groundplan ARGUMENTS` to its end; returns its output. Raises `TimeoutExpired` as `subprocess.run` does."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        command = fork_program(_CLI, arguments, log.fileno(), environment, out=out.fileno())
        try:
            code = command.wait(timeout)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            raise
        output, errors = (_read_text(file) for file in (out, log))
    return subprocess.CompletedProcess(["groundplan", *arguments], code, output, errors)


def run_code(code: str, *arguments: str, timeout: float = 120) -> int:
    """Run `python -c CODE ARGUMENTS`; returns its exit code."""
    child = fork_program(_CODE_OPTION, [code, *arguments], 2, os.environ)
    try:
        return child.wait(timeout)
    finally:
        child.kill()


def cpu_seconds() -> float:
    """CPU seconds of all ended processes that this process had forked."""
    total = 0.0
    with _NURSERIES_LOCK:
        for control in _NURSERY_SOCKETS:
            with contextlib.suppress(OSError, ValueError):
                control.send(b"{}")
                total += float(control.recv(32))
    return total


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """In this context, this process and those that it starts share one nursery for each module; a nursery loads its
    module at the first request."""
    with contextlib.ExitStack() as stack:
        for loaded in set(_LOADED_MODULES.values()):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            listening.bind(str(_socket_path(folder, loaded)))
            listening.listen(64)
            ours, theirs = socket.socketpair()
            stack.callback(_stop_nursery, _start_nursery(loaded, listening, theirs), ours)
            theirs.close()
        before = os.environ.get(_SHARED_VARIABLE)
        os.environ[_SHARED_VARIABLE] = str(folder)
        yield
        os.environ.update({} if before is None else {_SHARED_VARIABLE: before})
        if before is None:
            del os.environ[_SHARED_VARIABLE]


def _socket_path(folder: Path, loaded: str) -> Path:
    """A short path, since the address of a Unix socket has about a hundred bytes."""
    return folder / f"n{sorted(_LOADED_MODULES.values()).index(loaded)}"


def _read_text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@functools.cache
def _connect(owner: int, loaded: str) -> socket.socket:
    """The socket of a nursery that has the module `loaded`: the shared one of the run, or one of this process."""
    place = _socket_path(Path(os.environ.get(_SHARED_VARIABLE, "")), loaded)
    if _SHARED_VARIABLE in os.environ and place.exists():
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.connect(str(place))
        atexit.register(ours.close)
    else:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        atexit.register(_stop_nursery, _start_nursery(loaded, theirs), ours)
        theirs.close()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST_BYTES)
    _NURSERY_SOCKETS.append(ours)
    return ours


def _start_nursery(loaded: str, *descriptors: socket.socket) -> subprocess.Popen[bytes]:
    """`descriptors`: the socket of its only client; or a listening socket, and one that is closed with the run."""
    fds = [each.fileno() for each in descriptors]
    command = [sys.executable, str(Path(__file__)), loaded, *map(str, fds), " " * _COMMAND_LINE_BYTES]
    return subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _stop_nursery(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.wait()


# in the nursery --------------------------------------------------------------------------------------------------


def _serve_requests(loaded: str, descriptors: list[socket.socket]) -> None:
    """Fork the requested programs and report how they end, until no client is left."""
    listening, asking = (descriptors, []) if len(descriptors) > 1 else ([], descriptors)
    if listening and listening[1] in select.select(descriptors, [], [])[0]:
        return
    gc.disable()
    _preload(loaded)
    gc.freeze()
    gc.enable()
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake.fileno())
    clients = {control: _Client(control) for control in asking}
    while (clients or listening) and (ready := select.select([woken, *listening, *clients], [], [])[0]):
        if woken in ready:
            woken.recv(4096)
            for client in clients.values():
                client.report_exits()
        for control in clients.keys() & set(ready):
            inherited = [*listening, woken, wake, *clients]
            if not clients[control].answer_request(
                inherited, [end for each in clients.values() for end in each.exit_pipes.values()]
            ):
                clients.pop(control).end()
        if listening and listening[1] in ready:
            break
        if listening and listening[0] in ready:
            control = listening[0].accept()[0]
            clients[control] = _Client(control)
    for client in clients.values():
        client.end()


class _Client:
    """A client of the nursery and its children. `exit_pipes`: pid of each running child -> where to report its end."""

    def __init__(self, control: socket.socket) -> None:
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST_BYTES)
        self._control = control
        self._cpu_seconds = 0.0
        self.exit_pipes: dict[int, int] = {}

    def answer_request(self, inherited: list[socket.socket], exit_pipes: list[int]) -> bool:
        """Answer a request; False if the client is gone. `inherited`, `exit_pipes`: what a child has to close."""
        try:
            message, fds, _, _ = socket.recv_fds(self._control, _MAX_REQUEST_BYTES, 5)
        except ConnectionError:
            return False
        if not message:
            return False
        request = json.loads(message)
        if not request:
            self._control.send(str(self._cpu_seconds).encode())
            return True
        log, out, exit_pipe, *inputs = fds
        reading, listening = (inputs[:1], inputs[1:]) if request["reads"] else ([], inputs)
        pid = os.fork()
        if pid == 0:
            for each in inherited:
                each.close()
            for descriptor in (exit_pipe, *exit_pipes):
                os.close(descriptor)
            arguments = [*request["arguments"], *(part for fd in listening for part in ("--fd", str(fd)))]
            _run_child(
                request["module"], arguments, request["environment"], [(log, 2), (out, 1), *((fd, 0) for fd in reading)]
            )
        for descriptor in (*inputs, log, out):
            os.close(descriptor)
        self.exit_pipes[pid] = exit_pipe
        with contextlib.suppress(BrokenPipeError):
            self._control.send(str(pid).encode())
        return True

    def report_exits(self) -> None:
        for pid in list(self.exit_pipes):
            exited, status, usage = os.wait4(pid, os.WNOHANG)
            if exited:
                self._cpu_seconds += usage.ru_utime + usage.ru_stime
                descriptor = self.exit_pipes.pop(pid)
                try:
                    os.write(descriptor, _EXIT_CODE.pack(os.waitstatus_to_exitcode(status)))
                except BrokenPipeError:
                    pass  # the client is gone
                os.close(descriptor)

    def end(self) -> None:
        """The client is gone: kill its children."""
        for pid, descriptor in self.exit_pipes.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(descriptor)
        self._control.close()


def _preload(module: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    importlib.import_module("tests.late_grammar").defer_loading()
    importlib.import_module("tests.small_pages")
    importlib.import_module("tests.unprepared")
    importlib.import_module("tests.integration.brood")
    del sys.path[0]
    importlib.import_module("groundplan.core.settings").disable_pydantic_plugins()
    importlib.import_module(module)
    for name in _ALSO_LOADED.get(module, ()):
        loaded = importlib.import_module(name)
        for entry in loaded.COMMANDS.values() if name == _CLI else ():
            importlib.import_module(f"groundplan.cli.{entry[0]}")


def _run_child(module: str, arguments: list[str], environment: dict[str, str], streams: list[tuple[int, int]]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for source, stream in streams:
        os.dup2(source, stream)
        os.close(source)
    pages = importlib.import_module("tests.small_pages")
    if pages.ALLOWED in environment:
        pages.allow()
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv[:] = [module, *arguments]
    importlib.import_module("tests.unprepared").disable_preparation(module)
    brood = importlib.import_module("tests.integration.brood")
    code, cleanup = 1, contextlib.ExitStack()
    try:
        if module == _CLI and arguments[:1] == ["up"]:
            cleanup.callback(brood.fork_children(_STARTED_BY_UP))
        code = _run_program(module, arguments)
    except SystemExit as exit_request:
        code = brood.exit_code(exit_request)
    except Exception:  # noqa: BLE001 -- as Python ends a program
        traceback.print_exc()
    finally:
        cleanup.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run_program(module: str, arguments: list[str]) -> int:
    if module == _CODE_OPTION:
        code_text, *sys.argv[1:] = arguments
        exec(compile(code_text, "<string>", "exec"), {"__name__": "__main__"})
        return 0
    loaded = importlib.import_module(module)
    code: int = (loaded.main() or 0) if module in _BY_COMMAND_LINE else loaded.main(arguments)
    return code


if __name__ == "__main__":
    _serve_requests(sys.argv[1], [socket.socket(fileno=int(fd)) for fd in sys.argv[2:-1]])
