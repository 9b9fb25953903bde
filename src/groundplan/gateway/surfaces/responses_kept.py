"""Responses that are stored: sealed and put into PostgreSQL before their last byte, found by the key that made them.

Only workloads that keep content in full store any. A worker waits for the database here, and only for calls that store
or go on with a stored response.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home
from groundplan.gateway.http.halves import value_of
from groundplan.gateway.http.strict_json import UNREADABLE
from groundplan.gateway.journal.threads import InThreads
from groundplan.gateway.surfaces.responses_shape import new_name
from groundplan.gateway.surfaces.responses_to_chat import is_here
from groundplan.ledger import response_store
from groundplan.ledger.response_store import Row

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.policy.snapshot import KeyEntry

_encode = msgspec.json.Encoder().encode


class Kept(msgspec.Struct, frozen=True):
    """What is stored of one: `items` are those of the whole conversation, `input` those of its request."""

    response: dict[str, Any]
    input: list[dict[str, Any]]
    items: list[dict[str, Any]]
    deployment: str = ""


_kept = msgspec.json.Decoder(Kept).decode


class ResponseShelf:
    """Of one worker. It connects at the first use; its methods wait in threads."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._database = InThreads(url, "responses", 4, _unreachable)

    async def close(self) -> None:
        await self._database.close()

    async def put(self, row: Row, person: UUID, kept: Kept) -> bool:
        """Seal and store; whether it is. Raises `Unavailable`."""
        text = _encode(kept).decode()

        def work(conn: Any) -> bool:
            sealed = SubjectKeys.of(self._home).seal(conn, person, f"{row.id}\n{text}")
            return response_store.add(conn, replace(row, sealed=sealed))

        return await self._database.run(work)

    async def find(self, id: str, key: KeyEntry) -> Kept | None:
        """One of this key's; None where there is none, or whom it is about was erased. Raises `Unavailable`."""

        def work(conn: Any) -> Kept | None:
            row = response_store.find(conn, id, owner_of(key), key.workload)
            text = None if row is None else SubjectKeys.of(self._home).unseal(conn, row.sealed)
            if row is None or text is None:
                return None
            kept = _kept(text.partition("\n")[2])
            return Kept(kept.response, kept.input, kept.items, row.deployment)

        return await self._database.run(work)

    async def delete(self, id: str, key: KeyEntry) -> bool:
        """Whether there was one of this key's. Raises `Unavailable`."""
        return await self._database.run(lambda conn: response_store.delete(conn, id, owner_of(key), key.workload))


def _unreachable() -> Unavailable:
    return Unavailable(
        "stored responses cannot be reached now",
        code="database_unavailable",
        hint="Try again, or send the earlier items in input.",
        retry_after=2.0,
    )


def owner_of(key: KeyEntry) -> UUID:
    """The first of a line of rotated keys."""
    return UUID(key.family or key.id)


def may_keep(exchange: Exchange) -> bool:
    """Whether its workload keeps content in full."""
    keep = exchange.workload.keep if exchange.workload is not None else None
    return keep is not None and keep.content == "full"


async def keep(gateway: Gateway, exchange: Exchange, given: object, answer: bytes) -> bool:
    """Store a response that was asked with the input `given`; whether it is stored."""
    shelf, workload, key, deployment = gateway.responses, exchange.workload, exchange.key, exchange.deployment
    if shelf is None or workload is None or workload.keep is None or key is None or deployment is None:
        return False
    try:
        response = value_of(answer)
    except UNREADABLE:
        return False  # it has a number beyond all bounds
    asked = [item(each) for each in listed(given)]
    sent = [each for each in response.get("output") or () if is_here(each)]
    kept = Kept(response, asked, [*listed(given), *sent])
    until = gateway.clock.now() + timedelta(seconds=workload.keep.seconds)
    row = Row(str(response["id"]), workload.name, owner_of(key), deployment.name, until, "")
    try:
        return await shelf.put(row, UUID(exchange.person or key.id), kept)
    except GroundplanError:
        return False


def unnamed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items of a conversation for an upstream that keeps none: by an id it would look for the item, and for the
    reasoning before it, and refuse the request."""
    return [{name: value for name, value in each.items() if name != "id"} for each in items if is_here(each)]


def unsealed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for one that cannot read what was sealed elsewhere: reasoning that is in the clear stays."""
    return unnamed(
        [
            {name: value for name, value in each.items() if name != "encrypted_content"}
            if each.get("type") == "reasoning"
            else each
            for each in items
        ]
    )


def listed(given: object) -> list[dict[str, Any]]:
    """A request's input as items."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def item(given: dict[str, Any]) -> dict[str, Any]:
    """An item as it is told back: with an id, and its content in parts."""
    made = {"id": new_name("item"), "status": "completed", **given, "type": given.get("type", "message")}
    if made["type"] == "message" and isinstance(made.get("content"), str):
        part: dict[str, Any] = {"type": "input_text", "text": made["content"]}
        if made.get("role") == "assistant":
            part = {"type": "output_text", "text": made["content"], "annotations": [], "logprobs": []}
        made["content"] = [part]
    return made
