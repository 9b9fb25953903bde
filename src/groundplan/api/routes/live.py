"""GET /api/calls/live: calls as they finish, as server-sent events, within a second."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, SignedIn, can_read_all, refreshed_caller
from groundplan.api.calls.live import LiveCalls, MissedCalls
from groundplan.api.context import Services, ServicesDep
from groundplan.api.served_blueprint import current_blueprint, require_served
from groundplan.core.errors import Denied, Unauthenticated

router = protected_router("ledger")
POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 10.0
"""After this time without a call, a comment keeps the connection open."""
REFRESH_SECONDS = 5.0
"""After this time the caller is authenticated again before the next call is sent."""
Status = Literal["ok", "refused", "failed", "cancelled", "crashed"]
_SKIPPED: Final = "event: skipped\ndata: {}\n\n"
_NOTHING_MISSED: Final = MissedCalls((), frozenset(), skipped=False)


@router.get("/calls/live", response_class=StreamingResponse)
async def live(
    request: Request,
    services: ServicesDep,
    caller: SignedIn,
    workload: str | None = None,
    status: Status | None = None,
    deployment: str | None = None,
) -> StreamingResponse:
    """`data:` is a call as in GET /api/calls, `id:` its id: with it as Last-Event-ID nothing is missed over a break.
    Where the API was started again meanwhile, calls of the two seconds before that one are told once more.

    `event: skipped` tells that more arrived than could be shown. Who holds no duty sees their own calls. It ends for
    whoever was signed out.
    """
    named = {"workload": workload, "status": status, "deployment": deployment}
    asked = {name: value for name, value in named.items() if value is not None}
    if workload is not None or deployment is not None:
        await run_in_threadpool(_check, services, workload, deployment)
    calls: LiveCalls = request.app.state.live
    calls.require_room()
    return StreamingResponse(
        _events(request, services, calls, asked, caller),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


def _check(services: Services, workload: str | None, deployment: str | None) -> None:
    """Raise `NotFound` for filters by names that are not served, whose calls would never come."""
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
    require_served(blueprint, workload, deployment)


async def _events(
    request: Request, services: Services, calls: LiveCalls, asked: dict[str, str], caller: Caller
) -> AsyncIterator[str]:
    with calls.watch():
        number, skipped, quiet = calls.number, calls.skipped, 0.0
        watcher = _Watcher(request, services, asked, caller)
        yield "retry: 1000\n\n"
        missed = await run_in_threadpool(_missed, services, calls, request.headers.get("last-event-id"))
        told = _SKIPPED * missed.skipped + "".join(_event(row, watcher.wanted) for row in missed.rows)
        if told:
            yield told
        while not calls.stopping and not await request.is_disconnected():
            await asyncio.sleep(POLL_SECONDS)
            quiet += POLL_SECONDS
            found = calls.newer_than(number)
            if found and not await watcher.may_see():
                return
            if found and found[0][0] > number + 1:  # a reader that stood still, as one who pages through it
                yield _SKIPPED
            for number, row in found:  # noqa: B007 -- the number goes on from here
                if row["id"] not in missed.ids and (text := _event(row, watcher.wanted)):
                    quiet = 0.0
                    yield text
            if calls.skipped > skipped:
                skipped = calls.skipped
                yield _SKIPPED
            if quiet >= HEARTBEAT_SECONDS:
                quiet = 0.0
                yield ": quiet\n\n"


class _Watcher:
    """The caller of a stream, with the filter of calls that they may see."""

    def __init__(self, request: Request, services: Services, asked: dict[str, str], caller: Caller) -> None:
        self._request, self._services, self._asked = request, services, asked
        self.wanted = self._known(caller)

    def _known(self, caller: Caller) -> dict[str, str]:
        self._looked = time.monotonic()
        return self._asked if can_read_all(caller) else {**self._asked, "person_id": str(caller.person)}

    async def may_see(self) -> bool:
        """Whether the caller may still watch, checked every `REFRESH_SECONDS`. Without a database the stream ends; the
        client reconnects and misses nothing."""
        if time.monotonic() - self._looked < REFRESH_SECONDS:
            return True
        try:
            self.wanted = self._known(await run_in_threadpool(refreshed_caller, self._request, self._services))
        except (Unauthenticated, Denied, psycopg.Error):
            return False
        return True


def _event(row: dict[str, Any], wanted: dict[str, str]) -> str:
    """One server-sent event; empty for a call that does not match the filter."""
    if any(row[name] != value for name, value in wanted.items()):
        return ""
    return f"id: {row['id']}\ndata: {json.dumps(row)}\n\n"


def _missed(services: Services, calls: LiveCalls, last: str | None) -> MissedCalls:
    try:
        call = UUID(last or "")
    except ValueError:
        return _NOTHING_MISSED
    with services.transaction() as conn:
        return calls.missed_since(conn, call)
