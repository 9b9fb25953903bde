"""What each part of governance costs: the same call with one more real part at a time.

The first step is our server and our client without anything between them. The next ones are the gateway itself, with
parts of its journal disabled by this benchmark and with limits and budgets by configuration. Run by `gateway_suite`; as
a program it serves one step.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop
from benchmarks.gateway_bed import (
    HERE,
    Installation,
    build_blueprint,
    free_port,
    measure_closed_loop,
    process_and_children,
    wait_for_shipper,
    wait_http,
)
from msgspec import structs

from groundplan.blueprint.model import Blueprint
from groundplan.core.home import Home
from groundplan.core.settings import child_environment, mimalloc_environment
from groundplan.gateway import app
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.listeners import ListenSockets
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.journal import journal
from groundplan.gateway.journal.syncing import OnDone
from groundplan.gateway.upstream.connection import UpstreamConnection
from groundplan.gateway.upstream.http1_pool import Http1Pool

STEPS = ("bare", "key", "budgets", "limits", "journal", "fdatasync", "shipping")
"""bare: server and client. key: identification, policy, reading, metering and one budget. budgets: of company and team
too. limits: of requests, tokens and concurrent calls. journal: it is written. fdatasync: awaited before the answer.
shipping: ledger and audit log are written too."""


def skip_write(descriptor: int, data: bytes, offset: int) -> int:  # noqa: ARG001 -- as os.pwrite
    return len(data)


class InstantSync:
    """The journal's sync on a disk that needs no time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def sync_on_loop(self, descriptors: Sequence[int]) -> bool:  # noqa: ARG002 -- as the others
        return True

    def start_writeback(self, descriptor: int, end: int) -> None:
        """Nothing to write back."""

    def start(self, descriptors: Sequence[int], done: OnDone) -> None:  # noqa: ARG002 -- as the others
        self._loop.call_soon(done, None)

    async def close(self) -> None:
        """Nothing to close."""


def patch_journal(step: str) -> None:
    """Disable the journal of this process: its syncs before step `fdatasync`, its writes before step `journal`."""
    if STEPS.index(step) >= STEPS.index("fdatasync"):
        return

    class PatchedOs:
        """The module `os` as the journal sees it."""

        def __getattr__(self, name: str) -> Any:
            replacements: dict[str, Callable[..., Any]] = {}
            if STEPS.index(step) < STEPS.index("journal"):
                replacements["pwrite"] = skip_write
            return replacements.get(name) or getattr(os, name)

    vars(journal)["os"] = PatchedOs()
    vars(journal)["create_sync"] = InstantSync


def step_blueprint(step: str, upstream_port: int, number: int) -> Blueprint:
    """The blueprint of a step, for the upstream on that port."""
    blueprint = structs.replace(build_blueprint(upstream_port), number=number)
    if STEPS.index(step) < STEPS.index("limits"):
        blueprint = structs.replace(blueprint, limits=[])
    if step != "key":
        return blueprint
    (workload,) = blueprint.workloads
    workload_budgets = [budget for budget in blueprint.budgets if budget.name == "assistant"]
    return structs.replace(
        blueprint, budgets=workload_budgets, workloads=[structs.replace(workload, budgets=["assistant"])]
    )


def measure_steps(installation: Installation, seconds: float, number: int) -> dict[str, Any]:
    """Figures of the gateway at each step. `number` is the first free blueprint number."""
    figures: dict[str, Any] = {}
    home = str(installation.home.root)
    for index, step in enumerate(STEPS):
        port = free_port()
        if step != "bare":
            installation.apply_blueprint(step_blueprint(step, installation.upstream_port, number + index))
        options = ["--step", step, "--home", home, "--port", str(port), "--upstream", str(installation.upstream_port)]
        process = installation.spawn(
            f"step-{step}", sys.executable, "-m", "benchmarks.gateway_steps", *options, cwd=HERE.parent,
            env=child_environment(mimalloc_environment()),
        )  # fmt: skip
        shipper = None
        if step == "shipping":
            shipper = installation.spawn(
                "step-shipper", sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", home
            )
        try:
            wait_http(port, "/readyz", 20)
            time.sleep(1)
            measure_closed_loop(port, {}, 0.5, 1)
            pids = {
                "worker": [process.pid],
                "upstream": installation.pids["upstream"],
                "postgres": process_and_children(installation.postmaster),
            }
            if shipper is not None:
                pids["shipper"] = [shipper.pid]
            figures[step] = measure_closed_loop(port, pids, seconds, 1)
            if shipper is not None:
                wait_for_shipper([shipper.pid])
        finally:
            for each in (process, shipper):
                if each is not None:
                    each.terminate()
                    each.wait(30)
    return figures


async def _relay_stream(connection: UpstreamConnection, response: Response, status: int) -> None:
    """Relay a stream's bytes as they arrive."""

    def write_chunk(data: bytes) -> bool:
        response.write(data)
        return True

    head = response.start(status, EVENT_STREAM)
    while (data := await connection.read_chunk(5.0)) is not None:
        response.write(data, head)
        head = b""
        connection.pump(write_chunk, 5.0)
    response.end()


async def _serve_bare(port: int, upstream: int) -> None:
    loop = asyncio.get_running_loop()
    pool = Http1Pool(f"http://127.0.0.1:{upstream}/v1", loop)

    async def handle(request: Request, response: Response) -> None:
        if request.method != b"POST":
            response.send(200, b"{}")
            return
        connection = pool.take_idle() or await pool.connect(1.0)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b"
        connection.send(head % (len(request.body), request.body))
        status = await connection.read_head(5.0)
        if connection.headers[b"content-type"] == b"text/event-stream":
            await _relay_stream(connection, response, status)
        else:
            response.send(status, await connection.read_body(5.0))
        connection.release()

    server = Server(handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", port, backlog=1024)
    await listener.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", choices=STEPS, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.step == "bare":
        uvloop.run(_serve_bare(arguments.port, arguments.upstream))
        return 0
    patch_journal(arguments.step)
    listening = socket.create_server(("127.0.0.1", arguments.port), backlog=1024)
    return uvloop.run(app.serve(Home(arguments.home), ListenSockets(listening, None, None), 0, 2.0))


if __name__ == "__main__":
    sys.exit(main())
