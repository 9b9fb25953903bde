"""Stored completions: sealed in PostgreSQL, and found by the key that made them. Which are stored is decided in
`storing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.gateway.journal.thread_connections import ThreadConnections
from groundplan.gateway.surfaces.responses.sealed_store import owner_of
from groundplan.ledger import completion_store
from groundplan.ledger.completion_store import Owner, Row

if TYPE_CHECKING:
    from groundplan.gateway.policy.snapshot import KeyEntry

MOST_SEARCHED = 5000
"""Stored ones that one list by metadata looks at."""
MOST_LISTED_BYTES = 4 << 20
"""Of the stored ones in one list: behind so many it goes on with the next page."""
_STEP, _STEP_BYTES = 200, 1 << 20
"""Stored ones that are read at once."""

_encode = msgspec.json.Encoder().encode


class Kept(msgspec.Struct, frozen=True):
    """What is stored of one: the completion without our facts, the messages of its request as they came."""

    completion: dict[str, Any]
    messages: list[dict[str, Any]]
    metadata: dict[str, str] = {}

    def told(self) -> dict[str, Any]:
        """As OpenAI tells a stored completion."""
        return {**self.completion, "metadata": self.metadata}


_kept = msgspec.json.Decoder(Kept).decode


class SealedCompletions:
    """Of one worker. It connects at the first use; its methods wait in threads. Raises `Unavailable` while PostgreSQL
    is away."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._database = ThreadConnections(url, "completions", 4, _unreachable)

    async def close(self) -> None:
        await self._database.close()

    async def put(self, row: Row, person: UUID, kept: Kept) -> bool:
        """Seal and store; False where this key has one with the same id."""

        def work(conn: Any) -> bool:
            return completion_store.add(conn, replace(row, sealed=self._sealed(conn, row.id, person, kept)))

        return await self._database.run(work)

    async def find(self, id: str, key: KeyEntry) -> Kept | None:
        """One of this key's; None where there is none, or whom it is about was erased."""

        def work(conn: Any) -> Kept | None:
            row = completion_store.find(conn, id, _owner(key))
            return None if row is None else _opened(conn, SubjectKeys.of(self._home), row)

        return await self._database.run(work)

    async def change(self, id: str, key: KeyEntry, metadata: dict[str, str]) -> Kept | None:
        """The same with other metadata; None as `find`."""

        def work(conn: Any) -> Kept | None:
            with conn.transaction():
                row = completion_store.find(conn, id, _owner(key), lock=True)
                kept = None if row is None else _opened(conn, SubjectKeys.of(self._home), row)
                if row is None or kept is None:
                    return None
                kept = msgspec.structs.replace(kept, metadata=metadata)
                completion_store.change(conn, row.call, self._sealed(conn, id, _person(row), kept))
                return kept

        return await self._database.run(work)

    async def delete(self, id: str, key: KeyEntry) -> bool:
        """Whether there was one of this key's."""
        return await self._database.run(lambda conn: completion_store.delete(conn, id, _owner(key)))

    async def listed(
        self,
        key: KeyEntry,
        most: int,
        *,
        after: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        newest_first: bool = False,
    ) -> tuple[list[Kept], bool] | None:
        """At most so many of this key's, and `MOST_LISTED_BYTES` of them, behind the one with the id `after`, and
        whether there are more; None where there is no such one. Raises `Invalid` where none of `MOST_SEARCHED` has that
        `metadata`."""

        def work(conn: Any) -> tuple[list[Kept], bool] | None:
            owner, keys = _owner(key), SubjectKeys.of(self._home)
            behind: UUID | None = None
            if after is not None:
                last = completion_store.find(conn, after, owner)
                if last is None:
                    return None
                behind = last.call
            found, seen, size = list[Kept](), 0, 0
            while rows := completion_store.page(
                conn, owner, model, behind, _STEP, _STEP_BYTES, newest_first=newest_first
            ):
                for row in rows:
                    kept = _opened(conn, keys, row)
                    if kept is None or not (metadata or {}).items() <= kept.metadata.items():
                        continue
                    if len(found) == most or (found and size + len(row.sealed) > MOST_LISTED_BYTES):
                        return found, True
                    found.append(kept)
                    size += len(row.sealed)
                seen, behind = seen + len(rows), rows[-1].call
                if seen >= MOST_SEARCHED:
                    if found:
                        return found, True
                    raise _too_many()
            return found, False

        return await self._database.run(work)

    def _sealed(self, conn: Any, id: str, person: UUID, kept: Kept) -> str:
        return SubjectKeys.of(self._home).seal(conn, person, f"{id}\n{_encode(kept).decode()}")


def _opened(conn: Any, keys: SubjectKeys, row: Row) -> Kept | None:
    """None where whom it is about was erased."""
    text = keys.unseal(conn, row.sealed)
    return None if text is None else _kept(text.partition("\n")[2])


def _owner(key: KeyEntry) -> Owner:
    return Owner(owner_of(key), key.workload)


def _person(row: Row) -> UUID:
    """Under whose key it is sealed."""
    return UUID(row.sealed.split(":")[1])


def _too_many() -> Invalid:
    return Invalid(
        f"none of {MOST_SEARCHED} stored completions has this metadata",
        code="search_range",
        hint="Name a model, or go on behind a later one with after.",
    )


def _unreachable() -> Unavailable:
    return Unavailable(
        "stored completions cannot be reached now",
        code="database_unavailable",
        hint="Try again.",
        retry_after=2.0,
    )
