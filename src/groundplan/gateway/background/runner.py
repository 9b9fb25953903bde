"""Makes responses that nobody waits for, in each worker, beside the calls that somebody waits for.

Written down before it is acknowledged, such a response is a call like any other once it is made: the same checks,
limits, budgets, attempts and records, for whoever asked for it. What passes by itself, as a limit that is used up for a
minute, it outlasts. What may have been billed is never sent again: of a worker that ended the journal tells whether it
was. How a stream of it is followed is `follow`'s.
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
from groundplan.gateway.background.events import FIRST, EventLog, Failed
from groundplan.gateway.background.progress import Run
from groundplan.gateway.background.sealed_store import INTERRUPTED, Asked, Found, SealedStore
from groundplan.gateway.budgets.grant_connection import DATABASE_ERRORS
from groundplan.gateway.caching.idempotency import IDEMPOTENCY_KEY
from groundplan.gateway.call import transient_refusals
from groundplan.gateway.call.admit import MAX_COST_HEADER
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.stream import EVENT_STREAM
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.feature import said_of
from groundplan.gateway.call.identify import check_grants
from groundplan.gateway.call.key_by_id import KeysById
from groundplan.gateway.call.steps import run_steps
from groundplan.gateway.call.stored_answers import stores
from groundplan.gateway.database import connect
from groundplan.gateway.http import errors
from groundplan.gateway.http.request import Request
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.policy.catalog import Catalog
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.surfaces import answers
from groundplan.gateway.surfaces.responses import shapes
from groundplan.gateway.surfaces.responses.items import input_items, stored_item
from groundplan.gateway.surfaces.responses.sealed_store import StoredResponse, owner_of
from groundplan.gateway.surfaces.responses.storing import full_input, stored_response
from groundplan.gateway.surfaces.responses.surface import BACKGROUND_RESPONSES, request_state
from groundplan.ledger.background_store import CHANNEL, FOLLOWED, Row

MOST = 64
"""That one worker makes at a time; the others wait, for it or for another one."""
LOOK_S = 3.0
"""How often it looks for what others left, where a workload keeps content in full."""
SOON_S = 0.5
"""The same while it makes any, or some wait."""
_KEEP_S = 0.5
"""How often events are kept, of what is being made."""
_FOLLOWED_S = 0.1
"""The same while another worker follows it, which tells that each second."""
_FOLLOWS_S = 2.0
_RETRY_S = 0.5
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


WAITS_S = 3600.0
"""How long what refuses one may last, since it was asked for."""
_LONGEST_WAIT_S = 30.0


class Waits(msgspec.Struct, frozen=True):
    """What one waits for, as whoever asks for it is told, and after how many seconds it is tried again."""

    told: dict[str, str]
    seconds: float


class _Unattended(Exchange):
    """A call whose request has no key with it. `waits`: why it could not be made yet."""

    __slots__ = ("keys", "row", "waits")
    keys: KeysById
    row: Row
    waits: Waits | None

    def whose(self, policy: Policy, now: float) -> None:
        """Set key, person and policy. Raises as `identify`."""
        row, catalog = self.row, self.catalog
        self.policy, self.person = policy, row.person
        self.key = self.keys.known(policy, row.key_id)
        self.key = key = self.keys.living(policy, row.key_id, row.person, now)
        if catalog is not None and catalog.granted:
            check_grants(catalog, policy, key, row.person, datetime.fromtimestamp(now, UTC).date())


def _owner(exchange: Exchange, policy: Policy, now: float) -> None:
    if exchange.identify_caller is None:
        raise AssertionError("somebody waits for it")
    exchange.identify_caller(policy, now)


async def _made(gateway: Gateway, exchange: Exchange) -> None:
    """What it waits for is no call, unless somebody was asked. Raises as `run`."""
    try:
        await run_steps(gateway, exchange, _owner)
    except GroundplanError as error:
        if not isinstance(exchange, _Unattended) or not transient_refusals.may_be_made_later(
            gateway, exchange, error, 0
        ):
            raise
        exchange.waits = waits_for(exchange.row, error, gateway.clock.now())
        if exchange.waits is None or exchange.attempt_count:
            raise
        transient_refusals.give_back(gateway, exchange)
        if exchange.reservation is not None:
            gateway.slices.settle(exchange.reservation, 0)
            exchange.reservation = None
        exchange.sent_chunks = exchange.trial = None  # there is nothing of it


def waits_for(row: Row, refusal: GroundplanError, now: datetime) -> Waits | None:
    """How long to wait where a refusal passes: as it says, and longer the longer it lasts. None: too long."""
    asks, waited = refusal.retry_after or 1.0, (now - row.at).total_seconds()
    left = min(WAITS_S - waited, (row.expires_at - now).total_seconds())
    if asks >= left:
        return None
    told = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
    return Waits(told, min(max(asks, waited / 8), _LONGEST_WAIT_S))


class BackgroundRunner:
    """See the module. `run` it beside the worker; `stop` begins no more, `close` ends it."""

    def __init__(self, gateway: Gateway, home: Home, url: str) -> None:
        self._gateway = gateway
        self._url = url
        self._responses = SealedStore(home, url, gateway.epoch)
        self._keys = KeysById()
        self._runs: dict[str, Run] = {}
        self._begun: set[str] = set()
        """Begun here, as far as a look may still show them as this worker's: none is begun twice."""
        self._ended: set[str] = set()
        """Those of them that are over: a look that is under way may not know it yet."""
        self._again: set[str] = set()
        """Those of them that wait again, for whichever worker: a look that is under way may not know that, either."""
        self._changed = asyncio.Event()
        self._stopping = False
        self._listening: asyncio.Task[None] | None = None
        self._problem = ""
        self._asked: tuple[Catalog | None, bool] = (None, False)

    # what was asked for -----------------------------------------------------------------------------------------------

    async def accept(self, exchange: Exchange) -> None:
        """Write it down, and answer that it will be made. Raises `Invalid`, `Exhausted`, `Unavailable`, `Conflict`."""
        gateway, key, workload = self._gateway, exchange.key, exchange.workload
        _check(exchange)
        if key is None or workload is None or workload.keep is None:
            raise AssertionError("not checked")
        now = gateway.clock.now()
        id = f"resp_{exchange.call.hex}"
        asked, stream = _asked(id, now, exchange)
        row = Row(
            id=id, call_id=exchange.call, workload=workload.name, owner=owner_of(key), key_id=UUID(key.id),
            person=exchange.person, said=_said(exchange.request), at=now,
            expires_at=now + timedelta(seconds=workload.keep.seconds), sealed="",
        )  # fmt: skip
        exchange.finished = True  # its end is that of the call that makes it, which has its id
        try:
            there_is_room = await gateway.run_shielded(self._add(row, asked))
        except GroundplanError as error:
            exchange.finished = isinstance(error, Conflict)  # it may be made, by a call with its id
            raise
        if not there_is_room:
            exchange.finished = False
            raise Exhausted(
                f"{workload.name} has as many responses in the background as may wait",
                code="background_full",
                hint="Try again once some are made, or cancel some.",
                retry_after=10.0,
            )
        lines, response = answers.headers(exchange, cost=False), exchange.response
        if not stream:
            response.send(200, _encode(asked.response), lines)
            return
        if gateway.files is not None:
            gateway.files.release(exchange)
        response.resize_reservation(exchange.request, 0)  # nobody needs its body any more, however long it is followed
        exchange.request.body, exchange.ask = b"", None
        try:
            pieces = self._follow(Found(row, asked, None), key, -1)
            await response.send_stream(200, pieces, EVENT_STREAM + lines)
        except GroundplanError as error:  # it goes on: this call has no end of its own
            if not response.started:
                response.send(*errors.error_response(error, str(exchange.call)))

    async def _add(self, row: Row, asked: Asked) -> bool:
        """Whether there is room for it, and it is written down; it is begun then, if that can be here."""
        begins = self._room() > 0
        if not await self._responses.add(row, asked, begins=begins):
            return False
        if begins:
            self._begin(row, asked)
        return True

    async def found(self, id: str, key: KeyEntry) -> StoredResponse | None:
        """One of this key's that has not come to a stored response, as it is now. Raises `Unavailable`."""
        found = await self._responses.find(id, key)
        return None if found is None else StoredResponse(found.response(), found.asked.input, [])

    async def events(self, id: str, key: KeyEntry, after: int) -> tuple[AsyncIterator[bytes], bytes] | None:
        """Its stream behind the number `after`, and header lines of that; None where there is none of this key's.
        Raises `Unavailable`."""
        found = await self._responses.find(id, key)
        return None if found is None else (self._follow(found, key, after), EVENT_STREAM)

    def _follow(self, found: Found, key: KeyEntry, after: int) -> AsyncIterator[bytes]:
        return follow.events(self._responses, self._gateway.stored_responses, self._runs, found, key, after)

    async def cancel(self, id: str, key: KeyEntry) -> bool:
        """Whether there was one of this key's that could be, and was cancelled. Raises `Unavailable`."""
        if not await self._gateway.run_shielded(self._responses.cancel(id, key)):
            return False
        self._end(id)
        return True

    async def delete(self, id: str, key: KeyEntry) -> bool:
        """Whether there was one of this key's. Raises `Unavailable`."""
        if not await self._gateway.run_shielded(self._responses.delete(id, key)):
            return False
        self._end(id)
        return True

    def _end(self, id: str) -> None:
        """It is to be made no more."""
        if (made := self._runs.get(id)) is not None and made.task is not None:
            made.task.cancel()

    # what is made -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            soon = bool(self._runs)
            try:
                if self._runs or (self._gateway.ready and not self._stopping and self._wanted()):
                    soon = await self._look() or bool(self._runs)
                self._problem = ""
            except (*DATABASE_ERRORS, GroundplanError) as error:
                self._note(error)
            except Exception:  # noqa: BLE001 -- the boundary of this task: it must not end the worker
                _log.exception("what is made in the background cannot go on")
            with suppress(TimeoutError):
                async with asyncio.timeout(SOON_S if soon else LOOK_S):
                    await self._changed.wait()

    def _wanted(self) -> bool:
        """Whether any workload may have any: without one nobody asks PostgreSQL."""
        catalog = self._gateway.live.catalog
        if self._asked[0] is not catalog:
            workloads = () if catalog is None else catalog.blueprint.workloads
            self._asked = (catalog, any(w.keep is not None and w.keep.content == "full" for w in workloads))
        return self._asked[1]

    def _room(self) -> int:
        if self._stopping or not self._gateway.ready or self._gateway.pressure.is_crowded(self._gateway.running_calls):
            return 0
        return max(0, MOST - len(self._runs))

    async def _look(self) -> bool:
        """Begin what waits, end what is over; whether others wait."""
        known, ended, again = list(self._runs), frozenset(self._ended), frozenset(self._again)
        new, over, waiting = await self._responses.look(self._room(), known, LOOK_S)
        for id in over:
            self._end(id)
        self._begun -= again
        for row in new:
            if row.id in ended:  # it did not come to where it is written down
                await self._responses.end(row, FIRST, None, "", INTERRUPTED)
            elif row.id not in self._begun and not self._stopping:
                self._begin(row, await self._responses.asked(row))
        self._begun -= ended
        self._ended -= ended
        self._again -= again
        return waiting

    def _begin(self, row: Row, asked: Asked | None) -> None:
        if row.id in self._begun or row.call_id is None:
            return
        self._begun.add(row.id)
        made = self._runs[row.id] = Run(row)
        made.task = self._gateway.loop.create_task(self._make(made, row.call_id, asked))
        made.task.add_done_callback(lambda _: self._done(made))
        if self._listening is None:
            self._listening = self._gateway.loop.create_task(self._listen())

    def _done(self, made: Run) -> None:
        made.over = True
        made.tell()
        self._runs.pop(made.row.id, None)
        (self._again if made.waits else self._ended).add(made.row.id)
        self._changed.set()

    async def _make(self, made: Run, call: UUID, asked: Asked | None) -> None:
        gateway, row, taken = self._gateway, made.row, made.taken
        request = Request(
            0.0, b"POST", b"/v1/responses",
            {name.encode("latin-1"): value.encode("latin-1") for name, value in row.said.items()},
            b"" if asked is None else asked.body.encode(),
        )  # fmt: skip
        exchange = _Unattended(call.bytes, request, taken, BACKGROUND_RESPONSES)
        exchange.row, exchange.keys, exchange.waits = row, self._keys, None
        keeping = gateway.loop.create_task(self._keep_on(made))
        gateway.running_calls += 1
        try:
            if asked is not None and gateway.run_call is not None:
                await gateway.run_call(exchange, _made)
            keeping.cancel()
            await asyncio.wait([keeping])
            await self._write(made, exchange)
        finally:
            keeping.cancel()
            gateway.running_calls -= 1

    async def _keep_on(self, made: Run) -> None:
        """Keep its events for whoever comes later, or follows it elsewhere."""
        while True:
            await asyncio.sleep(_FOLLOWED_S if self._gateway.loop.time() < made.followed else _KEEP_S)
            with suppress(GroundplanError):
                await self._keep_events(made)

    async def _keep_events(self, made: Run) -> None:
        """A part of them. Raises `Unavailable`: that one is told again then, as it was, for it may have been kept."""
        events = made.taken.events
        if events:
            made.on_its_way = made.on_its_way or len(events)
            await self._responses.keep_events(made.row, events[: made.on_its_way])
            del events[: made.on_its_way]
            made.on_its_way = 0

    async def _write(self, made: Run, exchange: _Unattended) -> None:
        """What it came to is durable before anybody hears of it, however long PostgreSQL is away."""
        taken, waits = made.taken, exchange.waits
        kept, failed = (None, None) if waits is not None else _outcome(taken, exchange)
        place = "" if exchange.deployment is None else exchange.deployment.name
        while True:
            try:
                if waits is None:
                    while taken.events:
                        await self._keep_events(made)
                    await self._responses.end(made.row, taken.last, kept, place, failed)
                else:
                    await self._responses.wait(made.row, waits.told, waits.seconds)
                    made.waits = True
            except Unavailable as error:
                self._note(error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _listen(self) -> None:
        """For what another worker cancels, or follows; what is missed is found at the next look."""
        while True:
            try:
                async with await connect(self._url) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    async for told_of in connection.notifies():
                        self._heard(told_of.payload)
            except DATABASE_ERRORS as error:
                self._note(error)
            await asyncio.sleep(_RETRY_S)

    def _heard(self, told: str) -> None:
        if not told.startswith(FOLLOWED):
            self._end(told)
        elif (made := self._runs.get(told.removeprefix(FOLLOWED))) is not None:
            made.followed = self._gateway.loop.time() + _FOLLOWS_S

    def _note(self, error: Exception) -> None:
        problem = f"{error.__class__.__name__}: {first_line(error)}"
        if problem != self._problem:
            _log.warning("what is made in the background waits: %s", problem)
        self._problem = problem

    @property
    def busy(self) -> bool:
        """Some are being made."""
        return bool(self._runs)

    def stop(self) -> None:
        """Begin no more."""
        self._stopping = True

    async def close(self) -> None:
        """End what still runs: it is settled, and whoever comes next tells that it was interrupted."""
        self._stopping = True
        tasks = [made.task for made in self._runs.values() if made.task is not None]
        if self._listening is not None:
            tasks.append(self._listening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._responses.close()


def _check(exchange: Exchange) -> None:
    """Raise `Invalid` for what cannot be kept until somebody asks for it."""
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


def _said(request: Request) -> dict[str, str]:
    """Headers that the call which makes it is to have, too."""
    most = request.headers.get(MAX_COST_HEADER)
    return said_of(request.headers) | ({} if most is None else {MAX_COST_HEADER.decode(): most.decode("latin-1")})


def _asked(id: str, now: datetime, exchange: Exchange) -> tuple[Asked, bool]:
    """What is written down of it, and whether its caller follows it. Raises `Invalid`."""
    body, ask = exchange.request.body, exchange.ask
    fields = shapes.fields_of(body)
    try:
        given: dict[str, Any] = decode_json(body)
        response = shapes.new_response(given, id, "" if ask is None else ask.model)
    except (*DECODE_ERRORS, KeyError, TypeError, AttributeError) as error:
        hint = "See OpenAI's Responses API."
        raise Invalid(f"the body has a wrong field near {error}", code="body_invalid", hint=hint) from error
    ours = {"created_at": int(now.timestamp()), "status": "queued", "background": True}
    asked = Asked(
        replace_fields(body, fields, {"background": None, "stream": b"true"}).decode("utf-8", "replace"),
        response | ours,
        [stored_item(each) for each in input_items(given.get("input"))],
    )
    return asked, given.get("stream") is True


def _outcome(taken: EventLog, exchange: Exchange) -> tuple[StoredResponse | None, Failed | None]:
    """The response to be stored, or what went wrong."""
    ask = exchange.ask
    if taken.failed is not None or ask is None:
        return None, taken.failed or Failed("server_error", "whom it is about was erased", "erased", "")
    if not stores(exchange):
        hint = "Ask again, without background."
        return None, Failed("server_error", "the workload keeps no content any more", "background_unavailable", hint)
    try:
        return stored_response(full_input(ask), decode_json(taken.whole)), None
    except DECODE_ERRORS:
        return None, Failed("server_error", "the answer has no end that can be read", "stream_broken", "Ask again.")
