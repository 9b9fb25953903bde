"""Python instructions of one call in a worker, by function: a measure that other load on the machine does not change.

    python -m benchmarks.gateway_instructions [--step limits] [--calls 400] [--conc 32] [--stream] [--top 40] [--json]

Counted by `sys.monitoring`, so under Python 3.12 or newer. A worker is some fifty times slower meanwhile: its periodic
work (ticks, syncs, renewals) is recognised by its module, and no time is reported at all.
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
from benchmarks.gateway_bed import HERE, Installation, free_port, run_load, wait_http
from benchmarks.gateway_steps import STEPS, patch_journal, step_blueprint

from groundplan.core.home import Home
from groundplan.gateway import app
from groundplan.gateway.http.listeners import ListenSockets

_TOOL = 3
_BEGIN, _END = signal.SIGRTMIN, signal.SIGRTMIN + 1


def install_counter(file: Path) -> None:
    """Count instructions between the two signals, and write the counts to `file`."""
    counts: Counter[CodeType] = Counter()
    events = sys.monitoring.events.INSTRUCTION

    def on_instruction(code: CodeType, offset: int) -> None:  # noqa: ARG001 -- as it is called
        counts[code] += 1

    def start() -> None:
        sys.monitoring.use_tool_id(_TOOL, "instructions")
        sys.monitoring.register_callback(_TOOL, events, on_instruction)
        sys.monitoring.set_events(_TOOL, events)

    def stop() -> None:
        sys.monitoring.set_events(_TOOL, 0)
        rows = [(f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}", n) for code, n in counts.most_common()]
        file.write_text(json.dumps(rows))

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(_BEGIN, start)
    loop.add_signal_handler(_END, stop)


async def _serve(home: Path, port: int, file: Path) -> int:
    install_counter(file)
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    return await app.serve(Home(home), ListenSockets(listener, None, None), 0, 2.0)


def measure(arguments: argparse.Namespace) -> list[tuple[str, float]]:
    """Instructions of a call by function, in descending order."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-instructions-")))
        installation = Installation(stack, folder)
        installation.start_database()
        installation.apply_blueprint(step_blueprint(arguments.step, installation.upstream_port, 2))
        installation.spawn(
            "upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(installation.upstream_port)
        )
        port, counts_file = free_port(), folder / "counted.json"
        options = [
            "--home",
            str(installation.home.root),
            "--port",
            str(port),
            "--file",
            str(counts_file),
            "--step",
            arguments.step,
        ]
        command = (sys.executable, "-m", "benchmarks.gateway_instructions", "--serve", *options)
        process = installation.spawn("worker", *command, cwd=HERE.parent)
        wait_http(port, "/readyz", 20)
        load_options = ["--conc", str(arguments.conc), "--secs", "600", *(["--stream"] if arguments.stream else [])]
        run_load(port, *load_options, "--most", "300")
        process.send_signal(_BEGIN)
        time.sleep(0.2)
        answered = run_load(port, *load_options, "--most", str(arguments.calls))["ok"]
        process.send_signal(_END)
        while not counts_file.exists() or not counts_file.read_text().endswith("]"):
            time.sleep(0.1)
        return [(function, instructions / answered) for function, instructions in json.loads(counts_file.read_text())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", choices=STEPS[1:], default="shipping", help="as of gateway_steps; the dearest first")
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--conc", type=int, default=32)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    for name, value_type in (("--home", Path), ("--port", int), ("--file", Path)):
        parser.add_argument(name, type=value_type, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        patch_journal(arguments.step)
        return uvloop.run(_serve(arguments.home, arguments.port, arguments.file))
    functions = measure(arguments)
    if arguments.json:
        print(json.dumps(functions))
        return 0
    print(f"{sum(instructions for _, instructions in functions):9.1f} instructions a call")
    for name, instructions in functions[: arguments.top]:
        print(f"{instructions:9.1f} {name.rpartition('/groundplan/')[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
