"""Answers that wait for a reviewer before they are sent: put into the queue sealed, and released once decided.

The answer itself stays in this worker; PostgreSQL has what the reviewer reads. A worker that ends releases nothing: its
callers get an error, and its held calls can no longer be decided.
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
from groundplan.gateway.guard.held_store import HeldCall
from groundplan.gateway.thread_connections import ThreadConnections

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange

POLL_SECONDS = 0.25
MAX_SHOWN = 100_000
"""Characters of a text that a reviewer is shown."""
_log = logging.getLogger(__name__)


class Reviews:
    """The reviews of one worker. It connects at the first use; its statements run in threads."""

    def __init__(self, home: Home, url: str, epoch: UUID) -> None:
        self._home = home
        self._epoch = epoch
        self._waiting: dict[UUID, asyncio.Future[tuple[str, str]]] = {}
        self._abandoned: set[UUID] = set()
        """Held calls whose callers went away, until the queue knows."""
        self._poller: asyncio.Task[None] | None = None
        self._failure_log = FailureLog(_log)
        self._database = ThreadConnections(url, "reviews", 2, _unavailable_error)
        self.in_thread = self._database.run
        """Raises `Unavailable` (`review_unavailable`)."""

    async def close(self) -> None:
        """Close the queue's entries of this worker: nobody decides them any more."""
        if self._poller is not None:
            self._poller.cancel()
        with suppress(Unavailable):  # if one statement fails, all will: a worker that ends waits for that only once
            for id in [*self._waiting, *self._abandoned]:
                await self.in_thread(lambda conn, id=id: held_store.close_held(conn, id, "gone"))  # type: ignore[misc]
        await self._database.close()

    async def hold(self, exchange: Exchange, text: str) -> None:
        """Wait until a reviewer released the answer. Raises `Denied` (`review_refused`, `review_timeout`),
        `Unavailable`."""
        workload, key, ask = exchange.workload, exchange.key, exchange.ask
        if workload is None or workload.review is None or key is None:
            raise AssertionError("not admitted")
        rule, id = workload.review, exchange.call
        question = exchange.guard.masks.restore(ask.query) if ask is not None and exchange.guard is not None else ""
        within = timedelta(milliseconds=rule.within_ms)
        person, subject = exchange.person, exchange.deployment.name if exchange.deployment else ""

        def put(conn: Any) -> None:
            keys, whose = SubjectKeys.of(self._home), UUID(person or key.id)
            sealed = [keys.seal(conn, whose, part[:MAX_SHOWN]) for part in (question, text)]
            held_store.add_held(
                conn,
                HeldCall(
                    id, "answer", workload.name, UUID(key.id), UUID(person) if person else None, self._epoch, subject,
                    sealed[0], sealed[1], within, rule.by, rule.release_after,
                ),
            )  # fmt: skip

        placing = asyncio.ensure_future(self.in_thread(put))
        try:
            await asyncio.shield(placing)
        except asyncio.CancelledError:  # the entry may just be being made, and is closed once it is there
            placing.add_done_callback(lambda done: self._abandon(id, done))
            raise
        state, reason = await self._wait_for_decision(id, rule.within_ms / 1000)
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

    async def _wait_for_decision(self, id: UUID, seconds: float) -> tuple[str, str]:
        """(state, reason) within a time. If the caller goes away, the entry is closed."""
        future: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        self._start_polling()
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return await self.in_thread(lambda conn: held_store.close_held(conn, id, "lapsed"))
        except asyncio.CancelledError:
            self._abandon(id)
            raise
        finally:
            self._waiting.pop(id, None)

    def _abandon(self, id: UUID, placing: asyncio.Future[None] | None = None) -> None:
        """Close the entry of a caller that went away; `placing`: it went away while the entry was being made, which may
        exist though that failed."""
        if placing is not None and not placing.cancelled():
            placing.exception()  # nobody else retrieves the exception
        self._abandoned.add(id)
        self._start_polling()

    def _start_polling(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        """While calls are held, poll for decisions, and close the entries of callers that went away until that has
        succeeded."""
        while self._waiting or self._abandoned:
            try:
                for id in list(self._abandoned):
                    await self.in_thread(lambda conn, id=id: held_store.close_held(conn, id, "gone"))  # type: ignore[misc]
                    self._abandoned.discard(id)
                ids = list(self._waiting)
                decisions = await self.in_thread(lambda conn, ids=ids: held_store.load_decisions(conn, ids))  # type: ignore[misc]
                for id, state, reason in decisions:
                    future = self._waiting.get(id)
                    if future is not None and not future.done():
                        future.set_result((state, reason))
                self._failure_log.record_success()
            except Unavailable:
                self._failure_log.record_failure("decisions of reviewers cannot be read now")
            await asyncio.sleep(POLL_SECONDS)


def _unavailable_error() -> Unavailable:
    return Unavailable(
        "the queue of reviews cannot be reached now",
        code="review_unavailable",
        hint="Nothing that waits for a person is sent without one; try again.",
        retry_after=2.0,
    )
