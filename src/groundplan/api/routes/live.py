"""GET /api/calls/live: a stream of server-sent events with calls as they finish, within a second."""

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
"""After this time without a call, a comment is sent to keep the connection open."""
REFRESH_SECONDS = 5.0
"""Age from which the caller's authentication is checked again before the next call is sent."""
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
    """A stream of calls as they finish. `data:` is a call as in GET /api/calls, `id:` its id.

    A client that reconnects with Last-Event-ID misses no call; if the API was restarted in the meantime, calls of the
    two seconds before that id are sent again. `event: skipped` means that more calls arrived than could be shown.
    Callers without a duty get only their own calls. The stream ends when the caller is signed out.
    """
    named = {"workload": workload, "status": status, "deployment": deployment}
    filters = {name: value for name, value in named.items() if value is not None}
    if workload is not None or deployment is not None:
        await run_in_threadpool(_check, services, workload, deployment)
    calls: LiveCalls = request.app.state.live
    calls.require_room()
    return StreamingResponse(
        _events(request, services, calls, filters, caller),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


def _check(services: Services, workload: str | None, deployment: str | None) -> None:
    """Raise `NotFound` for filters by names that are not served: no call would ever match them."""
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
    require_served(blueprint, workload, deployment)


async def _events(
    request: Request, services: Services, calls: LiveCalls, filters: dict[str, str], caller: Caller
) -> AsyncIterator[str]:
    """Yield the events of one stream, until the client disconnects, loses access or the process stops."""
    with calls.watch():
        number, skipped, quiet = calls.number, calls.skipped, 0.0
        watcher = _Watcher(request, services, filters, caller)
        yield "retry: 1000\n\n"
        missed = await run_in_threadpool(_missed, services, calls, request.headers.get("last-event-id"))
        backlog = _SKIPPED * missed.skipped + "".join(_event(row, watcher.call_filter) for row in missed.rows)
        if backlog:
            yield backlog
        while not calls.stopping and not await request.is_disconnected():
            await asyncio.sleep(POLL_SECONDS)
            quiet += POLL_SECONDS
            newer = calls.newer_than(number)
            if newer and not await watcher.may_see():
                return
            if newer and newer[0][0] > number + 1:  # the client read too slowly, and calls were dropped
                yield _SKIPPED
            for number, row in newer:  # noqa: B007 -- the number goes on from here
                if row["id"] not in missed.ids and (text := _event(row, watcher.call_filter)):
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

    def __init__(self, request: Request, services: Services, filters: dict[str, str], caller: Caller) -> None:
        self._request, self._services, self._filters = request, services, filters
        self.call_filter = self._filter_for(caller)

    def _filter_for(self, caller: Caller) -> dict[str, str]:
        self._checked_at = time.monotonic()
        return self._filters if can_read_all(caller) else {**self._filters, "person_id": str(caller.person)}

    async def may_see(self) -> bool:
        """Whether the caller may still watch, checked every `REFRESH_SECONDS`. Without a database the stream ends; the
        client reconnects and misses nothing."""
        if time.monotonic() - self._checked_at < REFRESH_SECONDS:
            return True
        try:
            caller = await run_in_threadpool(refreshed_caller, self._request, self._services)
            self.call_filter = self._filter_for(caller)
        except (Unauthenticated, Denied, psycopg.Error):
            return False
        return True


def _event(row: dict[str, Any], call_filter: dict[str, str]) -> str:
    """One server-sent event; empty for a call that does not match the filter."""
    if any(row[name] != value for name, value in call_filter.items()):
        return ""
    return f"id: {row['id']}\ndata: {json.dumps(row)}\n\n"


def _missed(services: Services, calls: LiveCalls, last: str | None) -> MissedCalls:
    """The calls that a reconnecting client missed after `last` (its Last-Event-ID); none without a valid id."""
    try:
        call = UUID(last or "")
    except ValueError:
        return _NOTHING_MISSED
    with services.transaction() as conn:
        return calls.missed_since(conn, call)
