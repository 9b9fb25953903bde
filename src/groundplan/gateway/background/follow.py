"""A response that nobody waits for as a stream: from what is made here, or what is kept of it, behind any event.

It ends with the event that tells what it came to, once that is written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from groundplan.core.errors import Unavailable
from groundplan.gateway.background.events import FIRST
from groundplan.gateway.background.progress import Run
from groundplan.gateway.background.sealed_store import Found, SealedStore
from groundplan.gateway.http.sse import format_named_event
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces.responses.sealed_store import SealedResponses

_LOOK_S = 0.25
"""How often it is looked at what another worker makes."""
_SOON_S = 0.1
"""The same while something came in the last second."""
_TELL_S = 1.0
"""How often whoever makes it is told that it is followed elsewhere."""
_QUIET_S = 15.0
"""A comment keeps a connection open that would be silent for longer."""
_COMMENT = b": it goes on\n\n"
_BESIDE = frozenset({"groundplan", "store"})
"""Of a stored response, that an event does not have in it: ours stands beside it, as in any stream."""
_FIRST = ("response.created", "response.queued")
_ENDS = {"completed": "response.completed", "incomplete": "response.incomplete"}
_encode = msgspec.json.Encoder().encode


def _event(kind: str, number: int, response: dict[str, Any]) -> bytes:
    whole = {name: value for name, value in response.items() if name not in _BESIDE}
    facts = {"groundplan": response["groundplan"]} if "groundplan" in response else {}
    return format_named_event(kind, _encode({"type": kind, "sequence_number": number, "response": whole, **facts}))


async def events(
    store: SealedStore,
    responses: SealedResponses | None,
    runs: Mapping[str, Run],
    found: Found,
    key: KeyEntry,
    after: int,
) -> AsyncIterator[bytes]:
    """Events of `found`, which is this key's, behind the number `after`."""
    id = found.row.id
    for number, kind in enumerate(_FIRST):
        if number > after:
            yield _event(kind, number, found.asked.response)
    after = max(after, FIRST - 1)
    seen = after
    async for each in _made(store, runs, id, after):
        seen, told = each
        yield told
    last = await _last(store, responses, id, key, seen)
    if last:
        yield last


async def _made(store: SealedStore, runs: Mapping[str, Run], id: str, after: int) -> AsyncIterator[tuple[int, bytes]]:
    """What comes of it behind the number `after`, up to which it is then, until it is over."""
    loop = asyncio.get_running_loop()
    heard, told, is_open = loop.time(), -_TELL_S, True
    new: Sequence[tuple[int, bytes]]
    while is_open:
        made, now = runs.get(id), loop.time()
        if made is not None and made.taken.first > after + 1:
            made = None  # what comes next is kept by now
        if made is not None:
            changed = made.changed
            new = [each for each in made.taken.events if each[0] > after]
        else:
            tells = now - told >= _TELL_S
            told = now if tells else told
            is_open, new = await _kept(store, id, after, tells=tells)
        if new:
            after, heard = new[-1][0], now
            yield after, b"".join(event for _, event in new)
        elif now - heard >= _QUIET_S:
            heard = now
            yield after, _COMMENT
        if made is None:
            await asyncio.sleep(0 if not is_open else _SOON_S if now - heard < 1 else _LOOK_S)
        elif not new and not made.over:
            await _wait(changed)


async def _kept(store: SealedStore, id: str, after: int, *, tells: bool) -> tuple[bool, Sequence[tuple[int, bytes]]]:
    """Whether it is open, and what is kept of it behind `after`; while PostgreSQL is away nothing more. `tells` whoever
    makes it that it is followed elsewhere."""
    try:
        return await store.after(id, after, tells=tells)
    except Unavailable:
        return True, ()


async def _wait(changed: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_S):
            await changed.wait()


async def _last(store: SealedStore, responses: SealedResponses | None, id: str, key: KeyEntry, after: int) -> bytes:
    """The event that tells what it came to, once PostgreSQL is there; empty where it was told before, or is not there
    any more."""
    while True:
        try:
            return await _last_now(store, responses, id, key, after)
        except Unavailable:
            await asyncio.sleep(_LOOK_S)


async def _last_now(store: SealedStore, responses: SealedResponses | None, id: str, key: KeyEntry, after: int) -> bytes:
    """Raises `Unavailable`."""
    found = await store.find(id, key)
    if found is None:
        return b""
    ended = FIRST - 1 if found.row.ended is None else found.row.ended
    kind = _ENDS.get(found.row.status)
    if kind is None:  # nobody numbered it
        return _event("response.failed", max(after, ended) + 1, found.response())
    kept = None if responses is None or ended <= after else await responses.find(id, key)
    return b"" if kept is None else _event(kind, ended, kept.response)
