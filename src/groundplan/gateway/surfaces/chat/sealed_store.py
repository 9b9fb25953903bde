"""Stored completions: sealed in PostgreSQL, found by the key that made them, acting for the same person. Which are
stored is decided in `storing`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.gateway.database import database_unavailable
from groundplan.gateway.thread_connections import ThreadConnections
from groundplan.ledger import completion_store
from groundplan.ledger.completion_store import Row
from groundplan.ledger.stored_owner import Owner

MAX_SEARCHED = 5000
"""How many stored completions one list by metadata searches."""
MAX_LISTED_BYTES = 4 << 20
"""Sealed bytes in one page of a list; what follows is on the next page."""
_BATCH_ROWS, _BATCH_BYTES = 200, 1 << 20
"""Rows and bytes that one query reads."""

_encode = msgspec.json.Encoder().encode
_unavailable = partial(database_unavailable, "stored completions cannot be reached now", "Try again.")


class StoredCompletion(msgspec.Struct, frozen=True):
    """What is stored: the completion without the `groundplan` object, and the messages of its request as they came."""

    completion: dict[str, Any]
    messages: list[dict[str, Any]]
    metadata: dict[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """The completion in OpenAI's shape of a stored one."""
        return {**self.completion, "metadata": self.metadata}


_kept = msgspec.json.Decoder(StoredCompletion).decode


class SealedCompletions:
    """The store of one worker. Connects at the first use; its methods wait in threads. They raise `Unavailable` while
    PostgreSQL is away."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._database = ThreadConnections(url, "completions", 4, _unavailable)

    async def close(self) -> None:
        await self._database.close()

    async def put(self, row: Row, person: UUID, stored: StoredCompletion) -> bool:
        """Seal and store a completion; False where this key has one with the same id."""

        def query(conn: Any) -> bool:
            return completion_store.add(conn, replace(row, sealed=self._seal(conn, row.id, person, stored)))

        return await self._database.run(query)

    async def find(self, id: str, owner: Owner) -> StoredCompletion | None:
        """A completion of this owner; None where there is none, or the person whose key sealed it was erased."""

        def query(conn: Any) -> StoredCompletion | None:
            row = completion_store.find(conn, id, owner)
            return None if row is None else _unseal(conn, SubjectKeys.of(self._home), row)

        return await self._database.run(query)

    async def change(self, id: str, owner: Owner, metadata: dict[str, str]) -> StoredCompletion | None:
        """Replace the metadata of a completion; returns the completion, None as `find`."""

        def query(conn: Any) -> StoredCompletion | None:
            with conn.transaction():
                row = completion_store.find(conn, id, owner, lock=True)
                stored = None if row is None else _unseal(conn, SubjectKeys.of(self._home), row)
                if row is None or stored is None:
                    return None
                stored = msgspec.structs.replace(stored, metadata=metadata)
                completion_store.change(conn, row.call, self._seal(conn, id, _person_of(row), stored))
                return stored

        return await self._database.run(query)

    async def delete(self, id: str, owner: Owner) -> bool:
        """Delete a completion of this owner; whether there was one."""
        return await self._database.run(lambda conn: completion_store.delete(conn, id, owner))

    async def list_page(
        self,
        owner: Owner,
        limit: int,
        *,
        after: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        newest_first: bool = False,
    ) -> tuple[list[StoredCompletion], bool] | None:
        """(a page of this owner's completions, whether there are more): at most `limit` and `MAX_LISTED_BYTES`, behind
        the one with the id `after`; None where there is no such one. Raises `Invalid` where none of `MAX_SEARCHED` has
        the `metadata`."""

        def query(conn: Any) -> tuple[list[StoredCompletion], bool] | None:
            keys = SubjectKeys.of(self._home)
            after_call: UUID | None = None
            if after is not None:
                last = completion_store.find(conn, after, owner)
                if last is None:
                    return None
                after_call = last.call
            found, rows_seen, size = list[StoredCompletion](), 0, 0
            while rows := completion_store.page(
                conn, owner, model, after_call, _BATCH_ROWS, _BATCH_BYTES, newest_first=newest_first
            ):
                for row in rows:
                    stored = _unseal(conn, keys, row)
                    if stored is None or not (metadata or {}).items() <= stored.metadata.items():
                        continue
                    if len(found) == limit or (found and size + len(row.sealed) > MAX_LISTED_BYTES):
                        return found, True
                    found.append(stored)
                    size += len(row.sealed)
                rows_seen, after_call = rows_seen + len(rows), rows[-1].call
                if rows_seen >= MAX_SEARCHED:
                    if found:
                        return found, True
                    raise _search_too_long()
            return found, False

        return await self._database.run(query)

    def _seal(self, conn: Any, id: str, person: UUID, stored: StoredCompletion) -> str:
        return SubjectKeys.of(self._home).seal(conn, person, f"{id}\n{_encode(stored).decode()}")


def _unseal(conn: Any, keys: SubjectKeys, row: Row) -> StoredCompletion | None:
    """The unsealed completion; None where the person whose key sealed it was erased."""
    text = keys.unseal(conn, row.sealed)
    return None if text is None else _kept(text.partition("\n")[2])


def _person_of(row: Row) -> UUID:
    """The person whose key sealed the row."""
    return UUID(row.sealed.split(":")[1])


def _search_too_long() -> Invalid:
    return Invalid(
        f"none of {MAX_SEARCHED} stored completions has this metadata",
        code="search_range",
        hint="Name a model, or go on behind a later one with after.",
    )
