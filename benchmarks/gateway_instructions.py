"""Python instructions of one call in a worker, by function: what hour and neighbours of a machine do not change.

    python -m benchmarks.gateway_instructions [--step limits] [--calls 400] [--conc 32] [--stream] [--top 40] [--json]

Counted by `sys.monitoring`, so under Python 3.12 or newer. A worker is some fifty times slower meanwhile: what it does
by the clock (ticks, syncs, renewals) is told apart by its module, and no time is told at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import CodeType

import uvloop
from benchmarks.gateway_bed import HERE, Installation, free_port, load, wait_http
from benchmarks.gateway_steps import STEPS, declared, leave_out

from groundplan.core.home import Home
from groundplan.gateway import app
from groundplan.gateway.http.listeners import ListenSockets

_TOOL = 3
_BEGIN, _END = signal.SIGRTMIN, signal.SIGRTMIN + 1


def counting(file: Path) -> None:
    """Count between the two signals, and write what was found to `file`."""
    found: Counter[CodeType] = Counter()
    events = sys.monitoring.events.INSTRUCTION

    def count(code: CodeType, offset: int) -> None:  # noqa: ARG001 -- as it is called
        found[code] += 1

    def begin() -> None:
        sys.monitoring.use_tool_id(_TOOL, "instructions")
        sys.monitoring.register_callback(_TOOL, events, count)
        sys.monitoring.set_events(_TOOL, events)

    def end() -> None:
        sys.monitoring.set_events(_TOOL, 0)
        told = [(f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}", n) for code, n in found.most_common()]
        file.write_text(json.dumps(told))

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(_BEGIN, begin)
    loop.add_signal_handler(_END, end)


async def _serve(home: Path, port: int, file: Path) -> int:
    counting(file)
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    return await app.serve(Home(home), ListenSockets(listening, None, None), 0, 2.0)


def measure(arguments: argparse.Namespace) -> list[tuple[str, float]]:
    """Instructions of a call by function, most first."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-instructions-")))
        made = Installation(stack, folder)
        made.database()
        made.apply(declared(arguments.step, made.upstream, 2))
        made.spawn("upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(made.upstream))
        port, file = free_port(), folder / "counted.json"
        options = ["--home", str(made.home.root), "--port", str(port), "--file", str(file), "--step", arguments.step]
        command = (sys.executable, "-m", "benchmarks.gateway_instructions", "--serve", *options)
        process = made.spawn("worker", *command, cwd=HERE.parent)
        wait_http(port, "/readyz", 20)
        run = ["--conc", str(arguments.conc), "--secs", "600", *(["--stream"] if arguments.stream else [])]
        load(port, *run, "--most", "300")
        process.send_signal(_BEGIN)
        time.sleep(0.2)
        done = load(port, *run, "--most", str(arguments.calls))["ok"]
        process.send_signal(_END)
        while not file.exists() or not file.read_text().endswith("]"):
            time.sleep(0.1)
        return [(name, count / done) for name, count in json.loads(file.read_text())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", choices=STEPS[1:], default="shipping", help="as of gateway_steps; the dearest first")
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--conc", type=int, default=32)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    for name, kind in (("--home", Path), ("--port", int), ("--file", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        leave_out(arguments.step)
        return uvloop.run(_serve(arguments.home, arguments.port, arguments.file))
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found))
        return 0
    print(f"{sum(count for _, count in found):9.1f} instructions a call")
    for name, count in found[: arguments.top]:
        print(f"{count:9.1f} {name.rpartition('/groundplan/')[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
