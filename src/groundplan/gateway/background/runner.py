"""Makes background responses in each worker, beside interactive calls.

A background response is stored before it is acknowledged. Its call is like any other: the same checks, limits, budgets,
attempts and records, for the key that requested it. A refusal that passes by itself, such as a limit that is used up
for a minute, postpones it. What may have been billed is never sent again: after a worker has ended, its journal says
whether it was. `follow` streams the events to clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from groundplan.core.database import first_line
from groundplan.core.errors import Conflict, Exhausted, GroundplanError, Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.gateway.background import follow
from groundplan.gateway.background.events import FIRST, EventLog, Failure
from groundplan.gateway.background.progress import BackgroundRun
from groundplan.gateway.background.sealed_store import INTERRUPTED, BackgroundRequest, BackgroundResponse, SealedStore
from groundplan.gateway.budgets.grant_connection import DATABASE_ERRORS
from groundplan.gateway.caching.idempotency import IDEMPOTENCY_KEY
from groundplan.gateway.call import settle, transient_refusals
from groundplan.gateway.call.admit import MAX_COST_HEADER
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.feature import valid_headers
from groundplan.gateway.call.identify import check_grants
from groundplan.gateway.call.key_by_id import KeysById
from groundplan.gateway.call.steps import run_steps
from groundplan.gateway.call.stored_answers import stores
from groundplan.gateway.call.trace import trace_of
from groundplan.gateway.database import connect
from groundplan.gateway.http import errors
from groundplan.gateway.http.request import Request
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.policy.catalog import Catalog
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.surfaces import answers
from groundplan.gateway.surfaces.body import SHAPE_ERRORS, malformed_field, unreadable_body
from groundplan.gateway.surfaces.responses import shapes
from groundplan.gateway.surfaces.responses.items import input_items, stored_item
from groundplan.gateway.surfaces.responses.sealed_store import StoredResponse, owner_of
from groundplan.gateway.surfaces.responses.storing import full_input, stored_response
from groundplan.gateway.surfaces.responses.surface import BACKGROUND_RESPONSES, request_state
from groundplan.gateway.surfaces.responses.to_chat import API
from groundplan.ledger.background_store import CHANNEL, FOLLOWED, Row
from groundplan.ledger.stored_owner import Owner

MAX_RUNS = 64
"""Responses that one worker makes at a time; others wait until this worker or another one is free."""
POLL_S = 3.0
"""How often a worker looks for responses to make, if any workload keeps content in full."""
BUSY_POLL_S = 0.5
"""The same while it makes some, or some wait."""
_STORE_INTERVAL_S = 0.5
"""How often the events of a running response are stored."""
_FOLLOWED_INTERVAL_S = 0.1
"""The same while another worker streams it to a client, which that worker announces each second."""
_FOLLOW_NOTICE_S = 2.0
_RETRY_S = 0.5
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


MAX_WAIT_S = 3600.0
"""How long after its request a response may be refused and postponed."""
_MAX_RETRY_DELAY_S = 30.0


class Postponement(msgspec.Struct, frozen=True):
    """Why a response is postponed, as it is shown to clients, and for how many seconds."""

    reason: dict[str, str]
    seconds: float


class _BackgroundExchange(Exchange):
    """The call of a background response, whose request carries no key. `waits`: why it is postponed."""

    __slots__ = ("keys", "row", "waits")
    keys: KeysById
    row: Row
    waits: Postponement | None

    def identify_caller(self, policy: Policy, now: float) -> None:
        """Set key, person and policy in place of `identify`, from the stored request. Raises as `identify` does."""
        row, catalog = self.row, self.catalog
        self.policy, self.person = policy, row.person
        self.key = self.keys.known(policy, row.key_id)
        self.key = key = self.keys.living(policy, row.key_id, row.person, now)
        if catalog is not None and catalog.granted_workloads:
            check_grants(catalog, policy, key, row.person, datetime.fromtimestamp(now, UTC).date())


def _set_owner(exchange: Exchange, policy: Policy, now: float) -> None:
    if exchange.identify_caller is None:
        raise AssertionError("not a background response")
    exchange.identify_caller(policy, now)


async def _run_call(gateway: Gateway, exchange: Exchange) -> None:
    """Run the steps of a response's call. A transient refusal before any attempt postpones the response and leaves no
    call behind. Raises as `run_steps`."""
    try:
        await run_steps(gateway, exchange, _set_owner)
    except GroundplanError as error:
        if not isinstance(exchange, _BackgroundExchange) or not transient_refusals.may_be_made_later(
            gateway, exchange, error, 0
        ):
            raise
        exchange.waits = postponement(exchange.row, error, gateway.clock.now())
        if exchange.waits is None or exchange.attempt_count:
            raise
        transient_refusals.give_back(gateway, exchange)
        settle.release_reservation(gateway, exchange)
        exchange.sent_chunks = exchange.trial = None  # there is no answer yet


def postponement(row: Row, refusal: GroundplanError, now: datetime) -> Postponement | None:
    """How long a refusal postpones a response: as the refusal says, and longer the longer the response has waited.
    None: too long, so the refusal stands."""
    delay, waited = refusal.retry_after or 1.0, (now - row.at).total_seconds()
    left = min(MAX_WAIT_S - waited, (row.expires_at - now).total_seconds())
    if delay >= left:
        return None
    reason = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
    return Postponement(reason, min(max(delay, waited / 8), _MAX_RETRY_DELAY_S))


class BackgroundRunner:
    """Makes background responses in one worker: `run` it as a task; `stop` starts no more, `close` ends all of them."""

    def __init__(self, gateway: Gateway, home: Home, url: str) -> None:
        self._gateway = gateway
        self._url = url
        self._responses = SealedStore(home, url, gateway.epoch)
        self._keys = KeysById()
        self._runs: dict[str, BackgroundRun] = {}
        self._begun: set[str] = set()
        """Started here, while a query may still return them as this worker's: none is started twice."""
        self._ended: set[str] = set()
        """Those of `_begun` that have ended, which a query in progress may not show yet."""
        self._postponed: set[str] = set()
        """Those of `_begun` that are postponed, for any worker, which a query in progress may not show yet."""
        self._changed = asyncio.Event()
        self._stopping = False
        self._listening: asyncio.Task[None] | None = None
        self._logged_problem = ""
        self._enabled_for: tuple[Catalog | None, bool] = (None, False)

    # requests ---------------------------------------------------------------------------------------------------------

    async def accept(self, exchange: Exchange) -> None:
        """Store the request for a background response and acknowledge it, or stream it. Raises `Invalid`, `Exhausted`,
        `Unavailable`, `Conflict`."""
        gateway, key, workload = self._gateway, exchange.key, exchange.workload
        _check_supported(exchange)
        if key is None or workload is None or workload.keep is None:
            raise AssertionError("not checked")
        now = gateway.clock.now()
        id = f"resp_{exchange.call.hex}"
        stored_request, stream = _stored_request(id, now, exchange)
        owner = owner_of(key, exchange.person)
        row = Row(
            id=id, call_id=exchange.call, workload=workload.name, owner=owner.key, key_id=UUID(key.id),
            person=exchange.person, said=_call_headers(exchange.request), at=now,
            expires_at=now + timedelta(seconds=workload.keep.seconds), sealed="",
        )  # fmt: skip
        exchange.finished = True  # it is recorded by the call that makes the response, which has its id
        try:
            has_room = await gateway.run_shielded(self._add(row, stored_request))
        except GroundplanError as error:
            exchange.finished = isinstance(error, Conflict)  # the response may be made, by a call with this id
            raise
        if not has_room:
            exchange.finished = False
            raise Exhausted(
                f"{workload.name} has as many responses in the background as may wait",
                code="background_full",
                hint="Try again once some are made, or cancel some.",
                retry_after=10.0,
            )
        lines, response = answers.headers(exchange, cost=False), exchange.response
        if not stream:
            response.send(200, _encode(stored_request.response), lines)
            return
        if gateway.files is not None:
            gateway.files.release(exchange)
        # the body is not needed any more, however long the client follows
        response.resize_reservation(exchange.request, 0)
        exchange.request.body, exchange.ask = b"", None
        try:
            pieces = self._follow(BackgroundResponse(row, stored_request, None), owner, -1)
            await response.send_stream(200, pieces, EVENT_STREAM + lines)
        except GroundplanError as error:  # the response continues; this call is not recorded separately
            if not response.started:
                response.send(*errors.error_response(error, str(exchange.call)))

    async def _add(self, row: Row, stored_request: BackgroundRequest) -> bool:
        """Store the request, and start it here if this worker has room; False: its workload has too many pending."""
        begins = self._free_runs() > 0
        if not await self._responses.add(row, stored_request, begins=begins):
            return False
        if begins:
            self._start(row, stored_request)
        return True

    async def find(self, id: str, owner: Owner) -> StoredResponse | None:
        """A background response of this owner that is not complete, as it is now; None: there is none. Raises
        `Unavailable`."""
        found = await self._responses.find(id, owner)
        return None if found is None else StoredResponse(found.response(), found.asked.input, [])

    async def events(self, id: str, owner: Owner, after: int) -> tuple[AsyncIterator[bytes], bytes] | None:
        """(events behind the number `after`, header lines) of a response of this owner; None: there is none. Raises
        `Unavailable`."""
        found = await self._responses.find(id, owner)
        return None if found is None else (self._follow(found, owner, after), EVENT_STREAM)

    def _follow(self, found: BackgroundResponse, owner: Owner, after: int) -> AsyncIterator[bytes]:
        return follow.events(self._responses, self._gateway.stored_responses, self._runs, found, owner, after)

    async def cancel(self, id: str, owner: Owner) -> bool:
        """Cancel an open response of this owner; False: there is none. Raises `Unavailable`."""
        if not await self._gateway.run_shielded(self._responses.cancel(id, owner)):
            return False
        self._cancel_run(id)
        return True

    async def delete(self, id: str, owner: Owner) -> bool:
        """Delete a response of this owner; False: there is none. Raises `Unavailable`."""
        if not await self._gateway.run_shielded(self._responses.delete(id, owner)):
            return False
        self._cancel_run(id)
        return True

    def _cancel_run(self, id: str) -> None:
        """Cancel the response if it runs here."""
        if (run := self._runs.get(id)) is not None and run.task is not None:
            run.task.cancel()

    # runs -------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look for responses to make, until cancelled."""
        while True:
            self._changed.clear()
            soon = bool(self._runs)
            try:
                if self._runs or (self._gateway.ready and not self._stopping and self._is_enabled()):
                    soon = await self._claim_and_start() or bool(self._runs)
                self._logged_problem = ""
            except (*DATABASE_ERRORS, GroundplanError) as error:
                self._log_problem(error)
            except Exception:  # noqa: BLE001 -- the boundary of this task: it must not end the worker
                _log.exception("what is made in the background cannot go on")
            with suppress(TimeoutError):
                async with asyncio.timeout(BUSY_POLL_S if soon else POLL_S):
                    await self._changed.wait()

    def _is_enabled(self) -> bool:
        """Whether any workload may have background responses; if none, PostgreSQL is not queried."""
        catalog = self._gateway.live.catalog
        if self._enabled_for[0] is not catalog:
            workloads = () if catalog is None else catalog.blueprint.workloads
            self._enabled_for = (catalog, any(w.keep is not None and w.keep.content == "full" for w in workloads))
        return self._enabled_for[1]

    def _free_runs(self) -> int:
        if self._stopping or not self._gateway.ready or self._gateway.pressure.is_crowded(self._gateway.running_calls):
            return 0
        return max(0, MAX_RUNS - len(self._runs))

    async def _claim_and_start(self) -> bool:
        """Claim and start waiting responses, cancel those that were cancelled elsewhere; whether others wait."""
        known, ended, postponed = list(self._runs), frozenset(self._ended), frozenset(self._postponed)
        new, cancelled, waiting = await self._responses.claim(self._free_runs(), known, POLL_S)
        for id in cancelled:
            self._cancel_run(id)
        self._begun -= postponed
        for row in new:
            if row.id in ended:  # its run ended here without storing an outcome
                await self._responses.end(row, FIRST, None, "", INTERRUPTED)
            elif row.id not in self._begun and not self._stopping:
                self._start(row, await self._responses.read_request(row))
        self._begun -= ended
        self._ended -= ended
        self._postponed -= postponed
        return waiting

    def _start(self, row: Row, stored_request: BackgroundRequest | None) -> None:
        if row.id in self._begun or row.call_id is None:
            return
        self._begun.add(row.id)
        run = self._runs[row.id] = BackgroundRun(row)
        run.task = self._gateway.loop.create_task(self._make(run, row.call_id, stored_request))
        run.task.add_done_callback(lambda _: self._on_done(run))
        if self._listening is None:
            self._listening = self._gateway.loop.create_task(self._listen())

    def _on_done(self, run: BackgroundRun) -> None:
        run.is_over = True
        run.notify_followers()
        self._runs.pop(run.row.id, None)
        (self._postponed if run.waits else self._ended).add(run.row.id)
        self._changed.set()

    async def _make(self, run: BackgroundRun, call: UUID, stored_request: BackgroundRequest | None) -> None:
        gateway, row, log = self._gateway, run.row, run.log
        request = Request(
            0.0, b"POST", b"/v1/responses",
            {name.encode("latin-1"): value.encode("latin-1") for name, value in row.said.items()},
            b"" if stored_request is None else stored_request.body.encode(),
        )  # fmt: skip
        exchange = _BackgroundExchange(call.bytes, request, log, BACKGROUND_RESPONSES)
        exchange.row, exchange.keys, exchange.waits = row, self._keys, None
        storing = gateway.loop.create_task(self._store_events_regularly(run))
        gateway.running_calls += 1
        try:
            if stored_request is not None and gateway.run_call is not None:
                await gateway.run_call(exchange, _run_call)
            storing.cancel()
            await asyncio.wait([storing])
            await self._store_outcome(run, exchange)
        finally:
            storing.cancel()
            gateway.running_calls -= 1

    async def _store_events_regularly(self, run: BackgroundRun) -> None:
        """Store the events of a run at intervals, for clients that retrieve them later or from another worker."""
        while True:
            await asyncio.sleep(
                _FOLLOWED_INTERVAL_S if self._gateway.loop.time() < run.followed_until else _STORE_INTERVAL_S
            )
            with suppress(GroundplanError):
                await self._store_events(run)

    async def _store_events(self, run: BackgroundRun) -> None:
        """Store the buffered events. Raises `Unavailable`; the same events are then stored again, unchanged, since the
        first try may have succeeded."""
        events = run.log.events
        if events:
            run.storing = run.storing or len(events)
            await self._responses.keep_events(run.row, events[: run.storing])
            del events[: run.storing]
            run.storing = 0

    async def _store_outcome(self, run: BackgroundRun, exchange: _BackgroundExchange) -> None:
        """Store the outcome, before any client sees it; retried for as long as PostgreSQL is unavailable."""
        log, waits = run.log, exchange.waits
        kept, failed = (None, None) if waits is not None else _outcome(log, exchange)
        place = "" if exchange.deployment is None else exchange.deployment.name
        while True:
            try:
                if waits is None:
                    while log.events:
                        await self._store_events(run)
                    await self._responses.end(run.row, log.last, kept, place, failed)
                else:
                    await self._responses.postpone(run.row, waits.reason, waits.seconds)
                    run.waits = True
            except Unavailable as error:
                self._log_problem(error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _listen(self) -> None:
        """Listen for responses that other workers cancel or follow. A missed notice is made up for by the next
        query."""
        while True:
            try:
                async with await connect(self._url) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    async for notification in connection.notifies():
                        self._handle_notification(notification.payload)
            except DATABASE_ERRORS as error:
                self._log_problem(error)
            await asyncio.sleep(_RETRY_S)

    def _handle_notification(self, payload: str) -> None:
        if not payload.startswith(FOLLOWED):
            self._cancel_run(payload)
        elif (run := self._runs.get(payload.removeprefix(FOLLOWED))) is not None:
            run.followed_until = self._gateway.loop.time() + _FOLLOW_NOTICE_S

    def _log_problem(self, error: Exception) -> None:
        problem = f"{error.__class__.__name__}: {first_line(error)}"
        if problem != self._logged_problem:
            _log.warning("what is made in the background waits: %s", problem)
        self._logged_problem = problem

    @property
    def busy(self) -> bool:
        """Whether responses are running."""
        return bool(self._runs)

    def stop(self) -> None:
        """Start no more responses."""
        self._stopping = True

    async def close(self) -> None:
        """Cancel all runs: each is settled, and another worker stores that it was interrupted."""
        self._stopping = True
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if self._listening is not None:
            tasks.append(self._listening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._responses.close()


def _check_supported(exchange: Exchange) -> None:
    """Raise `Invalid` for a request whose response cannot be stored."""
    ask = exchange.ask
    hint = ""
    if ask is None or not request_state(ask).store:
        hint = "Leave store out: what is made in the background is found where it is stored."
    elif not exchange.keeps_content:
        hint = "Leave it out, and stream the answer; or have the workload keep content in full (keep)."
    elif exchange.guard is not None:
        hint = "Leave it out: answers that guardrails, a review or rules about tools look at are not stored."
    elif IDEMPOTENCY_KEY in exchange.request.headers:
        hint = "Leave Idempotency-Key or background out."
    if hint:
        named = {"field": "background"}
        raise Invalid("background is not supported here", code="field_unsupported", hint=hint, details=named)


def _call_headers(request: Request) -> dict[str, str]:
    """The headers of the request that its call has, too, so that it is part of its caller's trace."""
    traced, max_cost = trace_of(request.headers), request.headers.get(MAX_COST_HEADER)
    return (
        valid_headers(request.headers)
        | ({} if traced is None else traced.onwards())
        | ({} if max_cost is None else {MAX_COST_HEADER.decode(): max_cost.decode("latin-1")})
    )


def _stored_request(id: str, now: datetime, exchange: Exchange) -> tuple[BackgroundRequest, bool]:
    """(request to be stored, whether its client streams it). Raises `Invalid`."""
    body, ask = exchange.request.body, exchange.ask
    fields = shapes.fields_of(body)
    try:
        given: dict[str, Any] = decode_json(body)
    except DECODE_ERRORS as error:
        raise unreadable_body(error) from error
    try:
        response = shapes.new_response(given, id, "" if ask is None else ask.model)
    except SHAPE_ERRORS as error:
        name = "tools" if isinstance(given.get("text") or {}, dict) else "text"
        raise malformed_field(name, error, API) from error
    ours = {"created_at": int(now.timestamp()), "status": "queued", "background": True}
    stored_request = BackgroundRequest(
        replace_fields(body, fields, {"background": None, "stream": b"true"}).decode("utf-8", "replace"),
        response | ours,
        [stored_item(each) for each in input_items(given.get("input"))],
    )
    return stored_request, given.get("stream") is True


def _outcome(log: EventLog, exchange: Exchange) -> tuple[StoredResponse | None, Failure | None]:
    """The response to be stored, or what went wrong."""
    ask = exchange.ask
    if log.failed is not None or ask is None:
        return None, log.failed or Failure("server_error", "whom it is about was erased", "erased", "")
    if not stores(exchange):
        hint = "Ask again, without background."
        return None, Failure("server_error", "the workload keeps no content any more", "background_unavailable", hint)
    try:
        return stored_response(full_input(ask), decode_json(log.whole)), None
    except DECODE_ERRORS:
        return None, Failure("server_error", "the answer has no end that can be read", "stream_broken", "Ask again.")
