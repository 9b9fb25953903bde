"""A proxy in front of PostgreSQL that delays data, cuts connections, and delivers the last data of a client after that
client saw its connection end. It runs in a thread of its own, so that tests do not block it.
"""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Probabilities of each fault, per piece of data or per connection (`refused`), and delays in seconds."""

    delayed_request: float = 0.08
    delayed_answer: float = 0.04
    max_delay: float = 0.5
    long_delay: float = 0.02
    max_long_delay: float = 1.5
    cut: float = 0.004
    """The connection is cut and the data is never delivered."""
    cut_then_delivered: float = 0.02
    """The connection of the client is cut, and the data is delivered afterwards."""
    refused: float = 0.02


class DelayedPostgres:
    """A context manager that listens on `port`. While `is_faulty` is set it injects faults at `rates`, otherwise it
    forwards everything."""

    def __init__(self, port: int, seed: int, rates: FaultRates | None = None) -> None:
        self.is_faulty = False
        self.port = 0
        self._target_port = port
        self._random, self._rates = random.Random(seed), rates or FaultRates()
        self._ready, self._stopped = threading.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def url(self, url: str) -> str:
        """The same database URL by way of this proxy."""
        return url.replace(f":{self._target_port}/", f":{self.port}/")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._occurs(self._rates.refused):
            writer.transport.abort()
            return
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        requests = asyncio.create_task(self._forward_requests(reader, server, writer))
        answers_task = asyncio.create_task(self._forward_answers(answers, writer))
        try:
            await asyncio.wait((requests, answers_task), return_when=asyncio.FIRST_COMPLETED)
            writer.close()
            await asyncio.wait((requests,), timeout=5)
            await asyncio.sleep(0.3)  # so that the server reads it before the connection ends
        finally:
            for task in (requests, answers_task):
                task.cancel()
            for each in (writer, server):
                each.transport.abort()

    async def _forward_requests(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._delay(self._rates.delayed_request)
                if self._occurs(self._rates.cut):
                    return
                is_cut = self._occurs(self._rates.cut_then_delivered)
                if is_cut:
                    client.transport.abort()
                    await asyncio.sleep(self._random.choice((0.0, 0.0, 0.05, 0.4, 1.0, 2.0)))
                server.write(data)
                await server.drain()
                if is_cut:
                    return
        except OSError:
            return

    async def _forward_answers(self, answers: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            while data := await answers.read(1 << 16):
                await self._delay(self._rates.delayed_answer)
                client.write(data)
                await client.drain()
        except OSError:
            return

    async def _delay(self, probability: float) -> None:
        if self._occurs(probability):
            is_long = self._random.random() * probability < self._rates.long_delay
            await asyncio.sleep(
                self._random.uniform(0, self._rates.max_long_delay if is_long else self._rates.max_delay)
            )

    def _occurs(self, probability: float) -> bool:
        return self.is_faulty and self._random.random() < probability
