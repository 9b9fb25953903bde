"""Answers that wait for a person before they are sent: put into the queue sealed, and let go when it was decided.

The answer itself stays in this worker; what is in PostgreSQL is for the reviewer to read. A worker that ends lets go of
nothing: its callers get an error, and what it held is no longer to be decided.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Denied, Unavailable
from groundplan.core.home import Home
from groundplan.gateway.failure_log import FailureLog
from groundplan.gateway.guard import held_store
from groundplan.gateway.guard.held_store import Waiting
from groundplan.gateway.journal.thread_connections import ThreadConnections

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange

LOOK_SECONDS = 0.25
LONGEST = 100_000
"""Characters of a text that a reviewer is shown."""
_log = logging.getLogger(__name__)


class Reviews:
    """Of one worker. It connects at the first use; its statements run in threads."""

    def __init__(self, home: Home, url: str, epoch: UUID) -> None:
        self._home = home
        self._epoch = epoch
        self._waiting: dict[UUID, asyncio.Future[tuple[str, str]]] = {}
        self._left: set[UUID] = set()
        """Whose callers went away, until the queue knows."""
        self._looking: asyncio.Task[None] | None = None
        self._problem = FailureLog(_log)
        self._database = ThreadConnections(url, "reviews", 2, _unreachable)
        self.in_thread = self._database.run
        """Raises `Unavailable` (`review_unavailable`)."""

    async def close(self) -> None:
        """What waits is decided by nobody any more."""
        if self._looking is not None:
            self._looking.cancel()
        with suppress(Unavailable):  # where one cannot be told, none can: a worker that ends waits for that once
            for id in [*self._waiting, *self._left]:
                await self.in_thread(lambda conn, id=id: held_store.close(conn, id, "gone"))  # type: ignore[misc]
        await self._database.close()

    async def hold(self, exchange: Exchange, text: str) -> None:
        """Wait until a person released the answer. Raises `Denied` (`review_refused`, `review_timeout`),
        `Unavailable`."""
        workload, key, ask = exchange.workload, exchange.key, exchange.ask
        if workload is None or workload.review is None or key is None:
            raise AssertionError("not admitted")
        rule, id = workload.review, exchange.call
        asked = exchange.guard.masks.restore(ask.query) if ask is not None and exchange.guard is not None else ""
        within = timedelta(milliseconds=rule.within_ms)
        person, subject = exchange.person, exchange.deployment.name if exchange.deployment else ""

        def put(conn: Any) -> None:
            keys, whose = SubjectKeys.of(self._home), UUID(person or key.id)
            sealed = [keys.seal(conn, whose, part[:LONGEST]) for part in (asked, text)]
            held_store.put(
                conn,
                Waiting(
                    id, "answer", workload.name, UUID(key.id), UUID(person) if person else None, self._epoch, subject,
                    sealed[0], sealed[1], within, rule.by, rule.release_after,
                ),
            )  # fmt: skip

        placing = asyncio.ensure_future(self.in_thread(put))
        try:
            await asyncio.shield(placing)
        except asyncio.CancelledError:  # its place may just be being made, and is given up once it is there
            placing.add_done_callback(lambda done: self._leave(id, done))
            raise
        state, reason = await self._decided(id, rule.within_ms / 1000)
        if state == "released" or (state == "lapsed" and rule.release_after):
            return
        if state == "lapsed":
            raise Denied(
                "nobody looked at the answer in time, so it is not sent",
                code="review_timeout",
                hint=f"Ask who reviews {workload.name}; its call is {id}.",
            )
        raise Denied(
            "a reviewer refused the answer" + (f": {reason}" if reason else ""),
            code="review_refused",
            hint=f"Ask otherwise, or ask who reviews {workload.name}; its call is {id}.",
        )

    async def _decided(self, id: UUID, seconds: float) -> tuple[str, str]:
        """(state, reason) within a time. A caller that goes away gives up its place."""
        future: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        self._go_on_looking()
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return await self.in_thread(lambda conn: held_store.close(conn, id, "lapsed"))
        except asyncio.CancelledError:
            self._leave(id)
            raise
        finally:
            self._waiting.pop(id, None)

    def _leave(self, id: UUID, placing: asyncio.Future[None] | None = None) -> None:
        """Its caller went away; `placing`: while its place was being made, which may be there though it failed."""
        if placing is not None and not placing.cancelled():
            placing.exception()  # nobody else asks how that ended
        self._left.add(id)
        self._go_on_looking()

    def _go_on_looking(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        """While something waits, ask what was decided; tell of callers that went away until that is known."""
        while self._waiting or self._left:
            try:
                for id in list(self._left):
                    await self.in_thread(lambda conn, id=id: held_store.close(conn, id, "gone"))  # type: ignore[misc]
                    self._left.discard(id)
                ids = list(self._waiting)
                for id, state, reason in await self.in_thread(lambda conn, ids=ids: held_store.decided(conn, ids)):  # type: ignore[misc]
                    future = self._waiting.get(id)
                    if future is not None and not future.done():
                        future.set_result((state, reason))
                self._problem.over()
            except Unavailable:
                self._problem.tell("decisions of reviewers cannot be read now")
            await asyncio.sleep(LOOK_SECONDS)


def _unreachable() -> Unavailable:
    return Unavailable(
        "the queue of reviews cannot be reached now",
        code="review_unavailable",
        hint="Nothing that waits for a person is sent without one; try again.",
        retry_after=2.0,
    )
