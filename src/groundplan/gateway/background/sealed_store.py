"""Stores background responses, encrypted, in PostgreSQL; found by the key that requested them, acting for the same
person. `runner` decides what happens to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import psycopg

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Conflict
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.background.events import Failure
from groundplan.gateway.database import database_unavailable
from groundplan.gateway.surfaces.responses.sealed_store import StoredResponse
from groundplan.gateway.thread_connections import ThreadConnections
from groundplan.ledger import background_store, response_store
from groundplan.ledger.background_store import Row
from groundplan.ledger.stored_owner import Owner

MAX_PENDING, MAX_EVENT_BYTES = 1000, 256 << 20
"""Responses of one workload that are not complete, and the bytes of their requests."""
_DURABLE = """SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')"""
"""Whatever the server's own setting: a response whose state PostgreSQL lost when killed would be made twice."""
_Done = TypeVar("_Done")
_encode = msgspec.json.Encoder().encode
_unavailable = partial(
    database_unavailable,
    "what is made in the background cannot be reached now",
    "Try again, or wait for the answer: leave background out.",
)


class BackgroundRequest(msgspec.Struct, frozen=True):
    """A stored request: the `body` of its call, and the `response` and `input` as they are shown until it is made."""

    body: str
    response: dict[str, Any]
    input: list[dict[str, Any]]


class Events(msgspec.Struct, frozen=True):
    """Consecutive (number, SSE text) events, stored together."""

    events: list[tuple[int, str]]


_asked = msgspec.json.Decoder(BackgroundRequest).decode
_events = msgspec.json.Decoder(Events).decode
_failed = msgspec.json.Decoder(Failure).decode
INTERRUPTED = Failure(
    "server_error",
    "the worker that made this response ended before it could keep it; it is not made again",
    "background_interrupted",
    "Ask again; the call may have been billed.",
)


class BackgroundResponse(msgspec.Struct, frozen=True):
    """A background response as it is now."""

    row: Row
    asked: BackgroundRequest
    failed: Failure | None

    def response(self) -> dict[str, Any]:
        """The response object as clients see it."""
        extra_fields = self.failed.response_fields() if self.failed is not None else {}
        if self.row.waits is not None and self.row.status == background_store.QUEUED:
            extra_fields = {"groundplan": {"waits": self.row.waits}}
        return {**self.asked.response, "status": self.row.status, "store": True, **extra_fields}


def _subject_of(row: Row) -> UUID:
    return UUID(row.person) if row.person else row.key_id


class SealedStore:
    """The store of background responses in one worker. Methods run in threads and raise `Unavailable`."""

    def __init__(self, home: Home, url: str, epoch: UUID) -> None:
        self._home = home
        self._epoch = epoch
        self._database = ThreadConnections(url, "background", 3, _unavailable)

    async def close(self) -> None:
        await self._database.close()

    async def run(self, work: Callable[[Any], _Done]) -> _Done:
        return await self._database.run(work)

    async def add(self, row: Row, asked: BackgroundRequest, *, begins: bool) -> bool:
        """Store a request; False: its workload has too many pending. `begins`: this worker starts it at once. Raises
        also `Conflict` (`background_unknown`) if PostgreSQL did not say whether it is stored."""

        def work(conn: Any) -> bool:
            sealed = self._seal(conn, row, _encode(asked).decode())
            epoch = self._epoch if begins else None
            added = False
            try:
                with _durable(conn):  # the lock: counting must see what another worker adds now
                    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 414))", (row.workload,))
                    added = background_store.add(conn, replace(row, sealed=sealed), epoch, MAX_PENDING, MAX_EVENT_BYTES)
            except psycopg.Error as error:
                if added:  # the answer to COMMIT did not come
                    raise _unknown_outcome(row.id) from error
                raise
            return added

        return await self._database.run(work)

    async def claim(self, most: int, known: Sequence[str], soon: float) -> tuple[list[Row], list[str], bool]:
        """(at most `most` further responses that this worker is to make, those of `known` that it must stop, whether
        others are due within `soon` seconds)."""

        def work(conn: Any) -> tuple[list[Row], list[str], bool]:
            with _durable(conn):
                background_store.recover_orphaned(conn)
                if most > 0:
                    background_store.claim(conn, self._epoch, [new_id() for _ in range(most)])
            over = background_store.no_longer_owned(conn, self._epoch, known) if known else []
            return background_store.running_rows(conn, self._epoch, known), over, background_store.has_due(conn, soon)

        return await self._database.run(work)

    async def read_request(self, row: Row) -> BackgroundRequest | None:
        """The stored request; None: its person was erased."""
        text = await self._database.run(lambda conn: SubjectKeys.of(self._home).unseal(conn, row.sealed))
        return None if text is None else _asked(text)

    async def find(self, id: str, owner: Owner) -> BackgroundResponse | None:
        """The background response of this owner with this id."""

        def work(conn: Any) -> BackgroundResponse | None:
            row = background_store.find(conn, id, owner)
            text = None if row is None else SubjectKeys.of(self._home).unseal(conn, row.sealed)
            if row is None or text is None:
                return None
            failed: Failure | None = None
            if row.status == background_store.FAILED:
                failure_text = None if row.failed is None else SubjectKeys.of(self._home).unseal(conn, row.failed)
                failed = INTERRUPTED if failure_text is None else _failed(failure_text)
            return BackgroundResponse(row, _asked(text), failed)

        return await self._database.run(work)

    async def events_after(self, id: str, number: int, *, notifies_maker: bool) -> tuple[bool, list[tuple[int, bytes]]]:
        """(whether the response is open, its stored events behind `number`). `notifies_maker`: tell the worker
        that makes it that it is followed here."""

        def work(conn: Any) -> tuple[bool, list[tuple[int, bytes]]]:
            keys, is_open = SubjectKeys.of(self._home), background_store.status(conn, id) in background_store.OPEN
            if notifies_maker and is_open:
                background_store.notify_followed(conn, id)
            parts = [keys.unseal(conn, sealed) for sealed in background_store.events_after(conn, id, number)]
            found = [each for part in parts if part is not None for each in _events(part).events]
            return is_open, [(at, event.encode()) for at, event in found if at > number]

        return await self._database.run(work)

    async def keep_events(self, row: Row, events: Sequence[tuple[int, bytes]]) -> None:
        """Store consecutive events."""
        text = _encode(Events([(number, event.decode("utf-8", "replace")) for number, event in events])).decode()

        def work(conn: Any) -> None:
            sealed = self._seal(conn, row, text)
            with conn.transaction():  # not durable: if these are lost, so is the rest of the answer
                conn.execute("SET LOCAL synchronous_commit = off")
                background_store.add_events(conn, row.id, events[0][0], events[-1][0], sealed)

        await self._database.run(work)

    async def end(
        self, row: Row, number: int, kept: StoredResponse | None, deployment: str, failed: Failure | None
    ) -> None:
        """Store the outcome, unless it was cancelled: a complete response, or a failure. `number`: of its last
        event."""

        def work(conn: Any) -> None:
            status, sealed_failure = background_store.FAILED, None
            if kept is not None:
                status = str(kept.response["status"])
            elif failed is not None:
                sealed_failure = self._seal(conn, row, _encode(failed).decode())
            with _durable(conn):
                if (
                    background_store.finish(conn, row.id, self._epoch, status, sealed_failure, number)
                    and kept is not None
                ):
                    sealed = self._seal(conn, row, f"{row.id}\n{_encode(kept).decode()}")
                    made = response_store.Row(row.id, row.workload, row.owner, deployment, row.expires_at, sealed)
                    response_store.add(conn, made)

        await self._database.run(work)

    async def postpone(self, row: Row, waits: dict[str, str], seconds: float) -> None:
        """Release the response to any worker, not to be tried again for so many seconds; `waits` says why."""

        def work(conn: Any) -> None:
            with _durable(conn):
                background_store.requeue(conn, row.id, self._epoch, waits, seconds)

        await self._database.run(work)

    async def cancel(self, id: str, owner: Owner) -> bool:
        """Cancel the response of this owner; False: it was not open."""

        def work(conn: Any) -> bool:
            with _durable(conn):
                return background_store.cancel(conn, id, owner)

        return await self._database.run(work)

    async def delete(self, id: str, owner: Owner) -> bool:
        """Delete the response of this owner; False: there was none."""

        def work(conn: Any) -> bool:
            with _durable(conn):
                return background_store.delete(conn, id, owner)

        return await self._database.run(work)

    def _seal(self, conn: Any, row: Row, text: str) -> str:
        return SubjectKeys.of(self._home).seal(conn, _subject_of(row), text)


@contextmanager
def _durable(conn: Any) -> Iterator[None]:
    """A transaction whose commit is durable."""
    with conn.transaction():
        conn.execute(_DURABLE)
        yield


def _unknown_outcome(id: str) -> Conflict:
    return Conflict(
        f"PostgreSQL went away as {id} was written down, which may be made all the same",
        code="background_unknown",
        hint="Retrieve it by this id before you ask again, once PostgreSQL is back: 404 says that it is not made.",
        details={"response_id": id},
    )
