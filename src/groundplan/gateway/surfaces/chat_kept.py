"""Chat completions that are stored: sealed and put into PostgreSQL before their last byte, found by the key that made
them.

Only workloads that keep content in full store any, and only where the caller says `store: true`; upstreams are told to
store nothing. A worker waits for the database here, and only for calls that store. Whatever is not stored is told so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import GroundplanError, Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.gateway.caching.recast import CHAT_RECAST
from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.http.halves import value_of
from groundplan.gateway.http.splicing import spliced
from groundplan.gateway.http.strict_json import UNREADABLE
from groundplan.gateway.journal.threads import InThreads
from groundplan.gateway.surfaces.chat import (
    ChatCompletions,
    ChatRelay,
    CopiesRelay,
    OpenAIChat,
    ServiceChat,
    is_strict,
)
from groundplan.gateway.surfaces.interface import Relay
from groundplan.gateway.surfaces.responses_kept import may_keep, owner_of
from groundplan.gateway.surfaces.wrapped import Wrapped
from groundplan.ledger import completion_store
from groundplan.ledger.completion_store import Owner, Row

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.policy.snapshot import KeyEntry

MOST_BYTES = 4 << 20
"""Of a longer stream nothing is stored."""
MOST_SEARCHED = 5000
"""Stored ones that one list by metadata looks at."""
MOST_LISTED_BYTES = 4 << 20
"""Of the stored ones in one list: behind so many it goes on with the next page."""
_STEP, _STEP_BYTES = 200, 1 << 20
"""Stored ones that are read at once."""
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}", re.ASCII)
"""Of a completion that can be asked for by its path."""
_FIELDS = ("store", "metadata")
"""Of a request, that are about what is stored and not about the answer."""
_MOST_PAIRS, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512

_encode = msgspec.json.Encoder().encode


class Kept(msgspec.Struct, frozen=True):
    """What is stored of one: the completion without our facts, the messages of its request as they came."""

    completion: dict[str, Any]
    messages: list[dict[str, Any]]
    metadata: dict[str, str] = {}

    def told(self) -> dict[str, Any]:
        """As OpenAI tells a stored completion."""
        return {**self.completion, "metadata": self.metadata}


class _Request(msgspec.Struct, frozen=True):
    messages: list[dict[str, Any]]


_kept = msgspec.json.Decoder(Kept).decode
_request = msgspec.json.Decoder(_Request).decode


def checked_metadata(value: object) -> dict[str, str]:
    """Raises `Invalid` where it is not what OpenAI allows."""
    pairs = {} if value is None else value
    good = isinstance(pairs, dict) and len(pairs) <= _MOST_PAIRS
    if good and isinstance(pairs, dict):
        good = all(
            len(name) <= _LONGEST_NAME and isinstance(text, str) and len(text) <= _LONGEST_VALUE
            for name, text in pairs.items()
        )
    if not good or not isinstance(pairs, dict):
        raise Invalid(
            "metadata is wrong",
            code="metadata_invalid",
            hint=f"Send at most {_MOST_PAIRS} names of {_LONGEST_NAME} characters, with texts of {_LONGEST_VALUE}.",
        )
    return pairs


# while it is made ----------------------------------------------------------------------------------------------------


class Storing:
    """In the request of a completion that is to be stored: its metadata, and whether it is."""

    __slots__ = ("metadata", "stored")

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self.stored = False


class KeptRelay(CopiesRelay):
    """A stream of chat that remembers what came."""

    __slots__ = ("_came", "_room")

    def __init__(self, include_usage: bool, copies: int) -> None:
        super().__init__(include_usage, copies)
        self._came: list[bytes] = []
        self._room = MOST_BYTES

    def take(self, data: bytes) -> bytes:
        self._room -= len(data) + 64
        if self._room >= 0:
            self._came.append(data)
        else:
            self._came = []
        return super().take(data)

    def whole(self) -> bytes | None:
        """All of it as one completion; None where it is too long, or something would be lost."""
        return CHAT_RECAST.whole(self._came) if self._room >= 0 else None


class _StoredOpenAIChat(OpenAIChat):
    def forward(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """Nothing is stored at the upstream, which is told so."""
        made = super().forward(ask, deployment, cap, system)
        known = "store" in ask.fields or is_strict(deployment)
        return made if known else made.rstrip()[:-1] + b',"store":false}'

    def relay(self, ask: Ask) -> ChatRelay:
        return KeptRelay(ask.include_usage, ask.copies)


class _StoredServiceChat(ServiceChat):
    def relay(self, ask: Ask) -> ChatRelay:
        return KeptRelay(ask.include_usage, ask.copies)


class StoredChat(ChatCompletions):
    """`POST /v1/chat/completions` with `store: true`, of a workload that keeps content in full."""

    keeps = True
    noted = True
    _openai = _StoredOpenAIChat()
    _service = _StoredServiceChat()

    def stores(self, exchange: Exchange) -> bool:
        return exchange.ask is not None and isinstance(exchange.ask.typed, Storing)

    def notes(self, ask: Ask, deployment: Deployment) -> dict[str, object]:  # noqa: ARG002 -- the contract's signature
        return {"store": ask.typed.stored} if isinstance(ask.typed, Storing) else {}

    async def keep(self, gateway: Gateway, exchange: Exchange, answer: bytes | Relay) -> None:
        """Store the answer, where there is one that is whole: the rest of a stream that broke elsewhere is none."""
        ask = exchange.ask
        if ask is None or not isinstance(ask.typed, Storing) or "resumed" in exchange.attempt_flags:
            return
        if not isinstance(answer, bytes):
            relay = answer.innermost if isinstance(answer, Wrapped) else answer
            made = relay.whole() if isinstance(relay, KeptRelay) else None
            if made is None:
                return
            answer = made
        ask.typed.stored = await _store(gateway, exchange, answer, ask.typed.metadata)


STORED_CHAT = StoredChat()


def begin(exchange: Exchange, ask: Ask) -> Ask:
    """From here on a call that is to be stored is one of `StoredChat`, and what is about storing leaves its request,
    which is returned. Raises `Invalid`."""
    if bytes(ask.fields.get("store", b"")) != b"true" or not may_keep(exchange):
        return ask
    raw = ask.fields.get("metadata")
    metadata = checked_metadata(None if raw is None else msgspec.json.decode(raw))
    body = spliced(ask.body, ask.fields, {name: None for name in _FIELDS if name in ask.fields})
    fields = {name: value for name, value in ask.fields.items() if name not in _FIELDS}
    exchange.ask = made = msgspec.structs.replace(ask, fields=fields, body=body, typed=Storing(metadata))
    exchange.interface = STORED_CHAT
    return made


async def _store(gateway: Gateway, exchange: Exchange, answer: bytes, metadata: dict[str, str]) -> bool:
    shelf, workload, key, deployment = gateway.completions, exchange.workload, exchange.key, exchange.deployment
    if shelf is None or workload is None or workload.keep is None or key is None or deployment is None:
        return False
    try:
        completion = value_of(answer)
    except UNREADABLE:
        return False  # it has a number beyond all bounds
    id = completion.get("id")
    if not isinstance(id, str) or _ID.fullmatch(id) is None:
        return False
    kept = Kept(completion, _request(exchange.request.body).messages, metadata)
    until = gateway.clock.now() + timedelta(seconds=workload.keep.seconds)
    model = str(completion.get("model") or "")[:200]
    row = Row(exchange.call, id, workload.name, owner_of(key), deployment.name, model, until, "")
    try:
        return await shelf.put(row, UUID(exchange.person or key.id), kept)
    except GroundplanError:
        return False


# once it is stored ---------------------------------------------------------------------------------------------------


class CompletionShelf:
    """Of one worker. It connects at the first use; its methods wait in threads. Raises `Unavailable` while PostgreSQL
    is away."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._database = InThreads(url, "completions", 4, _unreachable)

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
