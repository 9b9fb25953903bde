"""Gateway workers under a supervisor and constant traffic, for tests of reloads and failures.

All parts are real processes except the supervisor, which runs in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.gateway_stack import (
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    unchunk,
    workload,
)

from groundplan.cli import processes
from groundplan.cli.listeners import Listeners
from groundplan.cli.reload import Reloading, _read_state
from groundplan.gateway.http.listeners import is_serving
from groundplan.gateway.http.tls import ServerFiles
from groundplan.runtime.locks import open_listener
from groundplan.runtime.supervisor import Process, Supervisor
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script


def is_budget_unreachable(status: int, body: bytes) -> bool:
    """Whether to retry a call because a busy PostgreSQL did not answer in time what is left of its budget."""
    return status == 503 and b'"budget_unreachable"' in body


@dataclass
class Traffic:
    """Clients that call without pause on connections that they keep, and clients that stream."""

    port: int
    key: str
    tls: ssl.SSLContext | None = None
    done: int = 0
    streams: int = 0
    failed: list[str] = field(default_factory=list)
    serials: set[str] = field(default_factory=set)
    stop: bool = False

    async def calls(self) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.stop:
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
                    self._note(connection[1])
                status, body, goes_on = await self.ask(*connection, stream=False)
                if is_budget_unreachable(status, body):
                    pass
                elif status != 200 or "choices" not in msgspec.json.decode(body):
                    self.failed.append(f"{status} {body[:300]!r}")
                else:
                    self.done += 1
                if not goes_on:
                    connection[1].close()
                    connection = None
            except (OSError, EOFError, ValueError) as error:
                self.failed.append(repr(error))
                if connection is not None:
                    connection[1].close()
                connection = None
            await asyncio.sleep(0.01)
        if connection is not None:
            connection[1].close()

    async def streaming(self) -> None:
        while not self.stop:
            writer = None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
                status, body, _ = await self.ask(reader, writer, stream=True)
                if is_budget_unreachable(status, body):
                    pass
                elif status != 200 or parse_events(body)[-1] != "[DONE]" or b'"error"' in body:
                    self.failed.append(f"stream {status} {body[-300:]!r}")
                else:
                    self.streams += 1
            except (OSError, EOFError, ValueError) as error:
                self.failed.append(f"stream {error!r}")
            finally:
                if writer is not None:
                    writer.close()

    def _note(self, writer: asyncio.StreamWriter) -> None:
        if self.tls is not None:
            self.serials.add(str(writer.get_extra_info("peercert")["serialNumber"]))

    async def ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stream: bool, most: int = 20
    ) -> tuple[int, bytes, bool]:
        body = msgspec.json.encode(
            {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "max_tokens": most, "stream": stream}
        )
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
        )
        writer.write(head % (self.key.encode(), len(body)) + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in answer:
            data = unchunk(await reader.readuntil(b"\r\n0\r\n\r\n"))
        else:
            length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            data = await reader.readexactly(length)
        return int(answer[9:12]), data, b"connection: close" not in answer


@dataclass
class RunningWorkers:
    stack: Stack
    supervisor: Supervisor
    listeners: Listeners
    model: Any
    notices: list[str]
    supervising: asyncio.Task[None]

    def pids(self) -> dict[str, int | None]:
        return {state.name: state.pid for state in self.supervisor.states() if state.name.startswith("gateway-")}

    @asynccontextmanager
    async def traffic(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Traffic]:
        port: int = self.listeners.public.getsockname()[1]
        clients = Traffic(port, self.stack.key(), tls)
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(clients.calls())
            for _ in range(2):
                group.create_task(clients.streaming())
            try:
                await wait_until(lambda: (clients.done and clients.streams) or clients.failed)
                yield clients
            finally:
                clients.stop = True


async def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def run_workers(
    database: Database,
    folder: Path,
    files: ServerFiles | None = None,
    *,
    drain: float = 20.0,
    leave: float = 600.0,
    count: int = 2,
) -> AsyncIterator[RunningWorkers]:
    """Workers on `database`, and the shipper. `drain`, `leave`: seconds that they allow for running answers when
    they are stopped or replaced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDPLAN_DATABASE_URL", database.dsn)
        async with _run_workers(database, folder, files, (drain, leave), count) as running_workers:
            yield running_workers


@asynccontextmanager
async def _run_workers(
    database: Database, folder: Path, files: ServerFiles | None, seconds: tuple[float, float], count: int
) -> AsyncIterator[RunningWorkers]:
    notices: list[str] = []
    async with installation(database, folder) as stack, scripted_upstream("one") as (model, port):
        model.script = Script(chunk_ms=60, tokens=15)
        stack.apply(blueprint(1, [deployment("one", port, idle_ms=5000)], [workload("assistant", ["one"])]))
        local = open_listener("127.0.0.1", 0) if files is not None else None
        control = open_listener("127.0.0.1", 0)
        listeners = Listeners(stack.listening, control, "127.0.0.1", files, local)

        def workers() -> list[Process]:
            return [processes.gateway(stack.home, listeners, slot, *seconds) for slot in range(count)]

        with Supervisor(stack.home, notice=notices.append) as supervisor, supervisor.signals():
            for process in (processes.shipper(stack.home), *workers()):
                supervisor.start(process)
            reloading = Reloading(stack.home, supervisor, lambda: [workers()])

            async def supervise() -> None:
                while True:
                    supervisor.check()
                    reloading.tick()
                    await asyncio.sleep(0.05)

            supervising = asyncio.create_task(supervise())
            running_workers = RunningWorkers(stack, supervisor, listeners, model, notices, supervising)
            await wait_until(
                lambda: all(pid and is_serving(stack.home, pid) for pid in running_workers.pids().values())
            )
            yield running_workers
            supervising.cancel()
            await asyncio.to_thread(supervisor.close)
        listeners.close()


async def reload_workers(running: RunningWorkers) -> dict[str, Any]:
    before = _read_state(running.stack.home).get("number", 0)
    os.kill(os.getpid(), signal.SIGUSR1)
    await wait_until(lambda: _read_state(running.stack.home).get("number", 0) > before)
    await wait_until(lambda: _read_state(running.stack.home)["state"] != "running", 60)
    return _read_state(running.stack.home)


def is_alive(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


async def open_stream(
    running: RunningWorkers, most: int = 20, **script: Any
) -> tuple[Traffic, asyncio.Task[tuple[int, bytes, bool]]]:
    """Start a stream and wait until it has reached the model."""
    running.model.script = Script(**script)
    traffic = Traffic(running.listeners.public.getsockname()[1], running.stack.key())
    before = running.model.counted
    reader, writer = await asyncio.open_connection("127.0.0.1", traffic.port)
    asking = asyncio.create_task(traffic.ask(reader, writer, stream=True, most=most))
    asking.add_done_callback(lambda _: writer.close())
    await wait_until(lambda: running.model.counted > before)
    return traffic, asking
