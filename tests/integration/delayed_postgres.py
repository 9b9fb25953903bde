"""A network before PostgreSQL that keeps back what is said on it for a while, cuts connections, and delivers what a
client said last after that client saw its connection end. A thread of its own, so that whoever tests blocks none of it.
"""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Terms:
    """Parts of all that clients say, and of connections; seconds."""

    late: float = 0.08
    answered_late: float = 0.04
    longest: float = 0.5
    very_late: float = 0.02
    very_long: float = 1.5
    cut: float = 0.004
    """Before it is delivered, which it never is."""
    cut_first: float = 0.02
    """Before it is delivered, which it is later."""
    refused: float = 0.02


class DelayedPostgres:
    """A context manager; `hurting` says whether it does what `terms` say, or passes everything on."""

    def __init__(self, port: int, seed: int, terms: Terms | None = None) -> None:
        self.hurting = False
        self.port = 0
        self._behind = port
        self._random, self._terms = random.Random(seed), terms or Terms()
        self._ready, self._over = threading.Event(), asyncio.Event()
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
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def url(self, url: str) -> str:
        """The same database, by way of this."""
        return url.replace(f":{self._behind}/", f":{self.port}/")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._happens(self._terms.refused):
            writer.transport.abort()
            return
        try:
            answers, behind = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.transport.abort()
            return
        saying = asyncio.create_task(self._say(reader, behind, writer))
        answering = asyncio.create_task(self._answer(answers, writer))
        try:
            await asyncio.wait((saying, answering), return_when=asyncio.FIRST_COMPLETED)
            writer.close()
            await asyncio.wait((saying,), timeout=5)
            await asyncio.sleep(0.3)  # it is read before its connection ends
        finally:
            for task in (saying, answering):
                task.cancel()
            for each in (writer, behind):
                each.transport.abort()

    async def _say(
        self, reader: asyncio.StreamReader, behind: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        try:
            while said := await reader.read(1 << 16):
                await self._pause(self._terms.late)
                if self._happens(self._terms.cut):
                    return
                over = self._happens(self._terms.cut_first)
                if over:
                    client.transport.abort()
                    await asyncio.sleep(self._random.choice((0.0, 0.0, 0.05, 0.4, 1.0, 2.0)))
                behind.write(said)
                await behind.drain()
                if over:
                    return
        except OSError:
            return

    async def _answer(self, answers: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            while said := await answers.read(1 << 16):
                await self._pause(self._terms.answered_late)
                client.write(said)
                await client.drain()
        except OSError:
            return

    async def _pause(self, part: float) -> None:
        if self._happens(part):
            very = self._random.random() * part < self._terms.very_late
            await asyncio.sleep(self._random.uniform(0, self._terms.very_long if very else self._terms.longest))

    def _happens(self, part: float) -> bool:
        return self.hurting and self._random.random() < part
