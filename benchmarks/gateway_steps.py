"""What each part of governance costs: the same call with one part more at a time, all of them the real ones.

The first step is our server and our client without anything between them. The next ones are the gateway itself, with
parts of its journal left out here (and nowhere else) and with limits and budgets by configuration. Run by
`gateway_suite`; as a program it serves one step.
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
from benchmarks.gateway_bed import HERE, Installation, blueprint, caught_up, children, closed, free_port, wait_http
from msgspec import structs

from groundplan.blueprint.model import Blueprint
from groundplan.core.home import Home
from groundplan.core.settings import child_environment, mimalloc_environment
from groundplan.gateway import app
from groundplan.gateway.call.delivery.stream import EVENT_STREAM
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.listeners import ListenSockets
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.journal import journal
from groundplan.gateway.journal.syncing import OnDone
from groundplan.gateway.upstream.connection import UpstreamConnection
from groundplan.gateway.upstream.http1_pool import Http1Pool

STEPS = ("bare", "key", "budgets", "limits", "journal", "fdatasync", "shipping")
"""bare: server and client. key: identification, policy, reading, metering and one budget. budgets: of company and team
too. limits: of requests, tokens and concurrent calls. journal: written. fdatasync: before the answer. shipping: ledger
and audit log are written beside."""


def nothing_is_written(descriptor: int, data: bytes, offset: int) -> int:  # noqa: ARG001 -- as os.pwrite
    return len(data)


class NothingIsSynced:
    """As a disk that needs no time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def sync_on_loop(self, descriptors: Sequence[int]) -> bool:  # noqa: ARG002 -- as the others
        return True

    def start_writeback(self, descriptor: int, end: int) -> None:
        """It is there already."""

    def start(self, descriptors: Sequence[int], done: OnDone) -> None:  # noqa: ARG002 -- as the others
        self._loop.call_soon(done, None)

    async def close(self) -> None:
        """Nothing is there to end."""


def leave_out(step: str) -> None:
    """Of the journal of this process: the disk, or the disk and the write."""
    if STEPS.index(step) >= STEPS.index("fdatasync"):
        return

    class Without:
        """The functions of `os` that the journal uses, but for those."""

        def __getattr__(self, name: str) -> Any:
            left: dict[str, Callable[..., Any]] = {}
            if STEPS.index(step) < STEPS.index("journal"):
                left["pwrite"] = nothing_is_written
            return left.get(name) or getattr(os, name)

    vars(journal)["os"] = Without()
    vars(journal)["create_sync"] = NothingIsSynced


def declared(step: str, upstream: int, number: int) -> Blueprint:
    """The blueprint of a step."""
    made = structs.replace(blueprint(upstream), number=number)
    if STEPS.index(step) < STEPS.index("limits"):
        made = structs.replace(made, limits=[])
    if step != "key":
        return made
    (workload,) = made.workloads
    one = [budget for budget in made.budgets if budget.name == "assistant"]
    return structs.replace(made, budgets=one, workloads=[structs.replace(workload, budgets=["assistant"])])


def measure_steps(made: Installation, seconds: float, number: int) -> dict[str, Any]:
    """CPU of the gateway for each call, step by step. `number` is the first free one of a blueprint."""
    figures: dict[str, Any] = {}
    home = str(made.home.root)
    for at, step in enumerate(STEPS):
        port = free_port()
        if step != "bare":
            made.apply(declared(step, made.upstream, number + at))
        options = ["--step", step, "--home", home, "--port", str(port), "--upstream", str(made.upstream)]
        process = made.spawn(
            f"step-{step}", sys.executable, "-m", "benchmarks.gateway_steps", *options, cwd=HERE.parent,
            env=child_environment(mimalloc_environment()),
        )  # fmt: skip
        shipper = None
        if step == "shipping":
            shipper = made.spawn(
                "step-shipper", sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", home
            )
        try:
            wait_http(port, "/readyz", 20)
            time.sleep(1)
            closed(port, {}, 0.5, 1)
            pids = {"worker": [process.pid], "upstream": made.pids["upstream"], "postgres": children(made.postmaster)}
            if shipper is not None:
                pids["shipper"] = [shipper.pid]
            figures[step] = closed(port, pids, seconds, 1)
            if shipper is not None:
                caught_up([shipper.pid])
        finally:
            for each in (process, shipper):
                if each is not None:
                    each.terminate()
                    each.wait(30)
    return figures


async def _passed_on(connection: UpstreamConnection, response: Response, status: int) -> None:
    """A stream, as its bytes come."""

    def pour(data: bytes) -> bool:
        response.write(data)
        return True

    head = response.start(status, EVENT_STREAM)
    while (data := await connection.read_chunk(5.0)) is not None:
        response.write(data, head)
        head = b""
        connection.pump(pour, 5.0)
    response.end()


async def _bare(port: int, upstream: int) -> None:
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
            await _passed_on(connection, response, status)
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
        uvloop.run(_bare(arguments.port, arguments.upstream))
        return 0
    leave_out(arguments.step)
    listening = socket.create_server(("127.0.0.1", arguments.port), backlog=1024)
    return uvloop.run(app.serve(Home(arguments.home), ListenSockets(listening, None, None), 0, 2.0))


if __name__ == "__main__":
    sys.exit(main())
