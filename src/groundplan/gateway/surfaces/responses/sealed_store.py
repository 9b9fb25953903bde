"""Stored responses: sealed in PostgreSQL, found by the key that made them, acting for the same person. Which are stored
is decided in `storing`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.home import Home
from groundplan.gateway.database import database_unavailable
from groundplan.gateway.thread_connections import ThreadConnections
from groundplan.ledger import response_store
from groundplan.ledger.response_store import Row
from groundplan.ledger.stored_owner import Owner

if TYPE_CHECKING:
    from groundplan.gateway.policy.snapshot import KeyEntry

_encode = msgspec.json.Encoder().encode
_unavailable = partial(
    database_unavailable, "stored responses cannot be reached now", "Try again, or send the earlier items in input."
)


class StoredResponse(msgspec.Struct, frozen=True):
    """What is stored of a response: `items` are those of the whole conversation, `input` those of its request."""

    response: dict[str, Any]
    input: list[dict[str, Any]]
    items: list[dict[str, Any]]
    deployment: str = ""


_decode_stored = msgspec.json.Decoder(StoredResponse).decode


class SealedResponses:
    """The store of one worker. Connects at the first use; its methods wait in threads."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._database = ThreadConnections(url, "responses", 4, _unavailable)

    async def close(self) -> None:
        await self._database.close()

    async def put(self, row: Row, person: UUID, stored: StoredResponse) -> bool:
        """Seal and store a response; whether it was stored. Raises `Unavailable`."""
        text = _encode(stored).decode()

        def query(conn: Any) -> bool:
            sealed = SubjectKeys.of(self._home).seal(conn, person, f"{row.id}\n{text}")
            return response_store.add(conn, replace(row, sealed=sealed))

        return await self._database.run(query)

    async def find(self, id: str, owner: Owner) -> StoredResponse | None:
        """A response of this owner; None where there is none, or the person whose key sealed it was erased. Raises
        `Unavailable`."""

        def query(conn: Any) -> StoredResponse | None:
            row = response_store.find(conn, id, owner)
            text = None if row is None else SubjectKeys.of(self._home).unseal(conn, row.sealed)
            if row is None or text is None:
                return None
            stored = _decode_stored(text.partition("\n")[2])
            return StoredResponse(stored.response, stored.input, stored.items, row.deployment)

        return await self._database.run(query)

    async def delete(self, id: str, owner: Owner) -> bool:
        """Delete a response of this owner; whether there was one. Raises `Unavailable`."""
        return await self._database.run(lambda conn: response_store.delete(conn, id, owner))


def owner_of(key: KeyEntry, person: str) -> Owner:
    """The owner of what a key stores that acts for `person` (empty: for nobody)."""
    return Owner(UUID(key.family or key.id), key.workload, person)
