"""Responses in the background: sealed in PostgreSQL, found by the key that asked for them. What becomes of them is the
runner's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import psycopg

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Conflict, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.background.events import Failed
from groundplan.gateway.journal.thread_connections import ThreadConnections
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces.responses.sealed_store import StoredResponse, owner_of
from groundplan.ledger import background_store, response_store
from groundplan.ledger.background_store import Row

MOST, MOST_BYTES = 1000, 256 << 20
"""Of one workload that are not made yet, and bytes of what these ask."""
_DURABLE = """SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')"""
"""Whatever the server's own setting: of what PostgreSQL forgot when it was killed, something would be made twice."""
_Done = TypeVar("_Done")
_encode = msgspec.json.Encoder().encode


class Asked(msgspec.Struct, frozen=True):
    """What was asked: the `body` of the call that makes it, and the `response` and `input` as they are told before."""

    body: str
    response: dict[str, Any]
    input: list[dict[str, Any]]


class Events(msgspec.Struct, frozen=True):
    """A part of its events."""

    events: list[tuple[int, str]]


_asked = msgspec.json.Decoder(Asked).decode
_events = msgspec.json.Decoder(Events).decode
_failed = msgspec.json.Decoder(Failed).decode
INTERRUPTED = Failed(
    "server_error",
    "the worker that made this response ended before it could keep it; it is not made again",
    "background_interrupted",
    "Ask again; the call may have been billed.",
)


class Found(msgspec.Struct, frozen=True):
    """One as it is now."""

    row: Row
    asked: Asked
    failed: Failed | None

    def response(self) -> dict[str, Any]:
        """As it is told."""
        told = self.failed.told() if self.failed is not None else {}
        if self.row.waits is not None and self.row.status == background_store.QUEUED:
            told = {"groundplan": {"waits": self.row.waits}}
        return {**self.asked.response, "status": self.row.status, "store": True, **told}


def _whom(row: Row) -> UUID:
    return UUID(row.person) if row.person else row.key_id


class SealedStore:
    """Of one worker; its methods wait in threads, and raise `Unavailable`."""

    def __init__(self, home: Home, url: str, epoch: UUID) -> None:
        self._home = home
        self._epoch = epoch
        self._database = ThreadConnections(url, "background", 3, _unreachable)

    async def close(self) -> None:
        await self._database.close()

    async def run(self, work: Callable[[Any], _Done]) -> _Done:
        return await self._database.run(work)

    async def add(self, row: Row, asked: Asked, *, begins: bool) -> bool:
        """Seal and write down; whether there is room for it. `begins`: here, at once. Raises also `Conflict`
        (`background_unknown`) where PostgreSQL did not say whether it is written down."""

        def work(conn: Any) -> bool:
            sealed = self._seal(conn, row, _encode(asked).decode())
            epoch = self._epoch if begins else None
            added = False
            try:
                with _durable(conn):  # who counts what is there counts what another one adds just now
                    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 414))", (row.workload,))
                    added = background_store.add(conn, replace(row, sealed=sealed), epoch, MOST, MOST_BYTES)
            except psycopg.Error as error:
                if added:  # the answer to COMMIT did not come
                    raise _unknown(row.id) from error
                raise
            return added

        return await self._database.run(work)

    async def look(self, most: int, known: Sequence[str], soon: float) -> tuple[list[Row], list[str], bool]:
        """What else this worker is to make, `most` at the most; which of `known` it is not to make any more; and
        whether others are to be made within `soon` seconds."""

        def work(conn: Any) -> tuple[list[Row], list[str], bool]:
            with _durable(conn):
                background_store.recover(conn)
                if most > 0:
                    background_store.claim(conn, self._epoch, [new_id() for _ in range(most)])
            over = background_store.over(conn, self._epoch, known) if known else []
            return background_store.running(conn, self._epoch, known), over, background_store.waiting(conn, soon)

        return await self._database.run(work)

    async def asked(self, row: Row) -> Asked | None:
        """What it asks; None where whom it is about was erased."""
        text = await self._database.run(lambda conn: SubjectKeys.of(self._home).unseal(conn, row.sealed))
        return None if text is None else _asked(text)

    async def find(self, id: str, key: KeyEntry) -> Found | None:
        """One of this key's."""

        def work(conn: Any) -> Found | None:
            row = background_store.find(conn, id, owner_of(key), key.workload)
            text = None if row is None else SubjectKeys.of(self._home).unseal(conn, row.sealed)
            if row is None or text is None:
                return None
            failed: Failed | None = None
            if row.status == background_store.FAILED:
                said = None if row.failed is None else SubjectKeys.of(self._home).unseal(conn, row.failed)
                failed = INTERRUPTED if said is None else _failed(said)
            return Found(row, _asked(text), failed)

        return await self._database.run(work)

    async def after(self, id: str, number: int, *, tells: bool) -> tuple[bool, list[tuple[int, bytes]]]:
        """Whether it is open, and what is kept of its events behind that one. `tells` whoever makes it that somebody
        follows it here."""

        def work(conn: Any) -> tuple[bool, list[tuple[int, bytes]]]:
            keys, is_open = SubjectKeys.of(self._home), background_store.status(conn, id) in background_store.OPEN
            if tells and is_open:
                background_store.follow(conn, id)
            parts = [keys.unseal(conn, sealed) for sealed in background_store.events(conn, id, number)]
            found = [each for part in parts if part is not None for each in _events(part).events]
            return is_open, [(at, event.encode()) for at, event in found if at > number]

        return await self._database.run(work)

    async def keep_events(self, row: Row, events: Sequence[tuple[int, bytes]]) -> None:
        """A part of its events."""
        text = _encode(Events([(number, event.decode("utf-8", "replace")) for number, event in events])).decode()

        def work(conn: Any) -> None:
            sealed = self._seal(conn, row, text)
            with conn.transaction():  # whoever loses the last of them has lost the rest of the answer, too
                conn.execute("SET LOCAL synchronous_commit = off")
                background_store.add_events(conn, row.id, events[0][0], events[-1][0], sealed)

        await self._database.run(work)

    async def end(
        self, row: Row, number: int, kept: StoredResponse | None, deployment: str, failed: Failed | None
    ) -> None:
        """What it came to, unless it was cancelled: a stored response, or what went wrong. `number`: of its last
        event."""

        def work(conn: Any) -> None:
            status, said = background_store.FAILED, None
            if kept is not None:
                status = str(kept.response["status"])
            elif failed is not None:
                said = self._seal(conn, row, _encode(failed).decode())
            with _durable(conn):
                if background_store.end(conn, row.id, self._epoch, status, said, number) and kept is not None:
                    sealed = self._seal(conn, row, f"{row.id}\n{_encode(kept).decode()}")
                    made = response_store.Row(row.id, row.workload, row.owner, deployment, row.expires_at, sealed)
                    response_store.add(conn, made)

        await self._database.run(work)

    async def wait(self, row: Row, waits: dict[str, str], seconds: float) -> None:
        """It could not be made yet, for what `waits` says, and is not to be tried again for so many seconds."""

        def work(conn: Any) -> None:
            with _durable(conn):
                background_store.wait(conn, row.id, self._epoch, waits, seconds)

        await self._database.run(work)

    async def cancel(self, id: str, key: KeyEntry) -> bool:
        """Whether it was still open."""

        def work(conn: Any) -> bool:
            with _durable(conn):
                return background_store.cancel(conn, id, owner_of(key), key.workload)

        return await self._database.run(work)

    async def delete(self, id: str, key: KeyEntry) -> bool:
        """Whether there was one."""

        def work(conn: Any) -> bool:
            with _durable(conn):
                return background_store.delete(conn, id, owner_of(key), key.workload)

        return await self._database.run(work)

    def _seal(self, conn: Any, row: Row, text: str) -> str:
        return SubjectKeys.of(self._home).seal(conn, _whom(row), text)


@contextmanager
def _durable(conn: Any) -> Iterator[None]:
    """A transaction that is on the disk once it is over."""
    with conn.transaction():
        conn.execute(_DURABLE)
        yield


def _unknown(id: str) -> Conflict:
    return Conflict(
        f"PostgreSQL went away as {id} was written down, which may be made all the same",
        code="background_unknown",
        hint="Retrieve it by this id before you ask again, once PostgreSQL is back: 404 says that it is not made.",
        details={"response_id": id},
    )


def _unreachable() -> Unavailable:
    return Unavailable(
        "what is made in the background cannot be reached now",
        code="database_unavailable",
        hint="Try again, or wait for the answer: leave background out.",
        retry_after=2.0,
    )
