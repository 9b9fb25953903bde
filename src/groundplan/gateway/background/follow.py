"""Streams a background response to a client, from any event on: from the run in this worker, or from stored events.

The stream ends with the event of the outcome, once that is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from groundplan.core.errors import Unavailable
from groundplan.gateway.background.events import FIRST
from groundplan.gateway.background.progress import BackgroundRun
from groundplan.gateway.background.sealed_store import BackgroundResponse, SealedStore
from groundplan.gateway.http.sse import format_named_event
from groundplan.gateway.surfaces.responses.sealed_store import SealedResponses
from groundplan.ledger.stored_owner import Owner

_POLL_S = 0.25
"""How often the events of a run in another worker are queried."""
_BUSY_POLL_S = 0.1
"""The same while an event came in the last second."""
_NOTICE_S = 1.0
"""How often the worker that makes a response is notified that it is followed elsewhere."""
_SILENCE_S = 15.0
"""After so much silence a comment is sent, which keeps the connection open."""
_COMMENT = b": it goes on\n\n"
_NOT_IN_EVENTS = frozenset({"groundplan", "store"})
"""Fields of a stored response that are left out of an event's response; ours stands beside it, as in any stream."""
_FIRST = ("response.created", "response.queued")
_ENDS = {"completed": "response.completed", "incomplete": "response.incomplete"}
_encode = msgspec.json.Encoder().encode


def _event(kind: str, number: int, response: dict[str, Any]) -> bytes:
    whole = {name: value for name, value in response.items() if name not in _NOT_IN_EVENTS}
    facts = {"groundplan": response["groundplan"]} if "groundplan" in response else {}
    return format_named_event(kind, _encode({"type": kind, "sequence_number": number, "response": whole, **facts}))


async def events(
    store: SealedStore,
    responses: SealedResponses | None,
    runs: Mapping[str, BackgroundRun],
    found: BackgroundResponse,
    owner: Owner,
    after: int,
) -> AsyncIterator[bytes]:
    """Yield the events of `found`, a response of this owner, behind the number `after`."""
    id = found.row.id
    for number, kind in enumerate(_FIRST):
        if number > after:
            yield _event(kind, number, found.asked.response)
    after = max(after, FIRST - 1)
    seen = after
    async for each in _live_events(store, runs, id, after):
        seen, data = each
        yield data
    last = await _final_event(store, responses, id, owner, seen)
    if last:
        yield last


async def _live_events(
    store: SealedStore, runs: Mapping[str, BackgroundRun], id: str, after: int
) -> AsyncIterator[tuple[int, bytes]]:
    """Yield (number of the last event, its bytes and those before it) until the response has ended; comments keep the
    number."""
    loop = asyncio.get_running_loop()
    last_event_at, notified_at, is_open = loop.time(), -_NOTICE_S, True
    new: Sequence[tuple[int, bytes]]
    while is_open:
        run, now = runs.get(id), loop.time()
        if run is not None and run.log.first > after + 1:
            run = None  # the next events are stored by now
        if run is not None:
            changed = run.changed
            new = [each for each in run.log.events if each[0] > after]
        else:
            notifies_maker = now - notified_at >= _NOTICE_S
            notified_at = now if notifies_maker else notified_at
            is_open, new = await _stored_events(store, id, after, notifies_maker=notifies_maker)
        if new:
            after, last_event_at = new[-1][0], now
            yield after, b"".join(event for _, event in new)
        elif now - last_event_at >= _SILENCE_S:
            last_event_at = now
            yield after, _COMMENT
        if run is None:
            await asyncio.sleep(0 if not is_open else _BUSY_POLL_S if now - last_event_at < 1 else _POLL_S)
        elif not new and not run.is_over:
            await _wait_for_change(changed)


async def _stored_events(
    store: SealedStore, id: str, after: int, *, notifies_maker: bool
) -> tuple[bool, Sequence[tuple[int, bytes]]]:
    """(whether the response is open, its stored events behind `after`); none while PostgreSQL is unavailable. With
    `notifies_maker` the worker that makes it is notified that it is followed here."""
    try:
        return await store.events_after(id, after, notifies_maker=notifies_maker)
    except Unavailable:
        return True, ()


async def _wait_for_change(changed: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_POLL_S):
            await changed.wait()


async def _final_event(
    store: SealedStore, responses: SealedResponses | None, id: str, owner: Owner, after: int
) -> bytes:
    """The event of the outcome, read once PostgreSQL is available; empty if it was sent before, or if the response was
    deleted."""
    while True:
        try:
            return await _read_final_event(store, responses, id, owner, after)
        except Unavailable:
            await asyncio.sleep(_POLL_S)


async def _read_final_event(
    store: SealedStore, responses: SealedResponses | None, id: str, owner: Owner, after: int
) -> bytes:
    """As `_final_event`. Raises `Unavailable`."""
    found = await store.find(id, owner)
    if found is None:
        return b""
    ended = FIRST - 1 if found.row.ended is None else found.row.ended
    kind = _ENDS.get(found.row.status)
    if kind is None:  # the event of a failure has no number yet
        return _event("response.failed", max(after, ended) + 1, found.response())
    kept = None if responses is None or ended <= after else await responses.find(id, owner)
    return b"" if kept is None else _event(kind, ended, kept.response)
