"""Orders at providers' own batch endpoints, from the first byte sent to the last result kept; each is sent once.

Whoever has the order's lock in PostgreSQL works at it, one step at a time; killed at any point, the next one goes on
from what is written down, and asks the provider by our id before anything is sent again. Whether a line may be ordered
is `batch_calls`'s, what its result means `order_results`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid5

import msgspec

from groundplan.core.database import first_line
from groundplan.core.errors import GroundplanError
from groundplan.gateway.batches import batch_calls, batch_lines, batch_store
from groundplan.gateway.batches.batch_calls import INTERFACES, BatchCalls
from groundplan.gateway.batches.batch_store import Batch
from groundplan.gateway.batches.orders import order_results, order_store
from groundplan.gateway.batches.orders.order_journal import OrderJournal
from groundplan.gateway.batches.orders.order_results import ASK, WHY, Given, Made, Results, Terms, Why
from groundplan.gateway.batches.orders.order_store import NEW, SENDING, Connection, Order, OrderLine
from groundplan.gateway.batches.providers.message_batches import MessageBatches
from groundplan.gateway.batches.providers.openai_batches import OpenAIBatches
from groundplan.gateway.batches.providers.provider import (
    Away,
    Found,
    Input,
    Provider,
    ProviderBatch,
    Refused,
    Sought,
    UploadingProvider,
)
from groundplan.gateway.budgets.grant_connection import DATABASE_ERRORS
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.database import connect
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.surfaces import answers
from groundplan.gateway.surfaces.responses import surface as responses
from groundplan.gateway.surfaces.responses.surface import RESPONSES, Told
from groundplan.gateway.telemetry import content
from groundplan.gateway.telemetry.content_link import chosen
from groundplan.ledger.model import OVER_BOUND

AT_ONCE = 16
"""Orders that one worker works at: each has a connection to PostgreSQL meanwhile, also while its provider is silent."""
_LONGEST_PAUSE_S = 60.0
_SOON_S = 0.5
_DAY = timedelta(days=1)
_MISSED_S = 20.0
"""How long a provider may not know what it told of itself before that is lost."""
_TURN = 64 << 10
_MOST_RESULT_BYTES = 1 << 40
"""Its disk bounds it: what a provider was paid for is taken, however much it is."""
INPUT = "input"
"""Of the files of an order the one with its calls."""
_log = logging.getLogger(__name__)


class Orders:
    """Those of one worker. `look` at each batch again and again; `close` ends what is under way."""

    def __init__(self, gateway: Gateway, calls: BatchCalls, blobs: Blobs, url: str) -> None:
        self._gateway = gateway
        self._calls = calls
        self._blobs = blobs
        self._url = url
        self._working: dict[UUID, asyncio.Task[None]] = {}
        self._missed: dict[tuple[UUID, str], float] = {}
        """When a provider said first that it does not know something of an order, in the loop's time."""
        self.on_ended: Callable[[], None] = lambda: None

    async def look(self, connection: Connection, batch: Batch, ending: str) -> None:
        """Take up what is to be done for a batch. `ending`: why it is to end (`CANCELLED`, `EXPIRED`), or nothing."""
        waiting = await order_store.waiting(connection, batch.id)
        if hurried := [order.id for order in waiting if ending or self._stopped(batch, order)]:
            await order_store.hurry(connection, hurried)
        for id in await order_store.due(connection, batch.id):
            if id not in self._working and len(self._working) < AT_ONCE:
                self._begin(id, self._work(batch, id, ending))

    def _begin(self, id: UUID, work: Coroutine[None, None, None]) -> None:
        task = self._working[id] = self._gateway.loop.create_task(work)
        task.add_done_callback(lambda _: self._working.pop(id, None))

    async def close(self) -> None:
        """Leave everything as it is: whoever comes next goes on."""
        tasks = list(self._working.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, batch: Batch, id: UUID, ending: str) -> None:
        """One step of one order, whatever happens."""
        try:
            async with await connect(self._url) as connection:
                await connection.execute("SET synchronous_commit = on")
                order = await order_store.find(connection, id) if await order_store.lock(connection, id) else None
                if order is not None and order.state != order_store.ENDED:
                    why = (ending, WHY[ending]) if ending else self._stopped(batch, order)
                    await self._step(connection, batch, order, why)
        except (*DATABASE_ERRORS, OSError, GroundplanError) as error:
            _log.warning("order %s waits: %s: %s", id, error.__class__.__name__, first_line(error))
            await asyncio.sleep(_SOON_S)
        except Exception:  # noqa: BLE001 -- the boundary of this task: an order must not end the worker
            _log.exception("order %s cannot go on", id)
            await asyncio.sleep(_SOON_S)

    async def _step(self, connection: Connection, batch: Batch, order: Order, ending: Why | None) -> None:
        provider = self._provider(order)
        try:
            if order.state == NEW:
                if ending is not None:
                    await self._close(connection, batch, order, ending)
                else:
                    await self._send(connection, batch, order, provider)
            elif order.state == SENDING:
                await self._find_again(connection, order, provider)
            else:
                await self._follow(connection, batch, order, provider, ending)
        except Away as away:
            await order_store.wait(connection, order.id, _pause(order.tries), str(away))
        except Refused as refused:
            if order.state != NEW:  # of one that the provider has, nothing is given up
                await order_store.wait(connection, order.id, _pause(order.tries), str(refused))
                return
            told = f"the provider refused the order: {refused}"
            now = await order_store.find(connection, order.id) or order  # its input may be there by now
            await self._close(connection, batch, now, ("batch_order_refused", told))
        except (GroundplanError, OSError) as error:  # of ours, such as a disk that is full
            told = error.message if isinstance(error, GroundplanError) else str(error)
            await order_store.wait(connection, order.id, _pause(order.tries), told)

    def _provider(self, order: Order) -> Provider:
        """How the order's deployment is spoken to."""
        deployment, catalog = order.deployment, self._gateway.live.catalog
        kind = MessageBatches if deployment.api == "anthropic" else OpenAIBatches
        places = () if catalog is None else catalog.blueprint.deployments
        now = next((each for each in places if each.name == deployment.name), None)
        instead = None
        if now is not None and (now.url, now.api) == (deployment.url, deployment.api):
            instead = msgspec.structs.replace(deployment, key=now.key, keys=now.keys)
        return kind(self._gateway, deployment, instead if instead != deployment else None)

    def _stopped(self, batch: Batch, order: Order) -> Why | None:
        """Why what the order needs may not be used any more: its key, workload or deployment; None: it may."""
        if self._calls.known(batch) is None:
            return None  # as long as this worker has not heard of a new key
        try:
            self._calls.check(batch, order)
        except GroundplanError as error:
            return (
                None if error.status == 503 else (error.code, f"{error.message}; the provider had not made this call")
            )
        return None

    # sending ---------------------------------------------------------------------------------------------------------

    async def _send(self, connection: Connection, batch: Batch, order: Order, provider: Provider) -> None:
        """Give the order, unless the provider has it: a database that was restored may not know. Raises `Away`,
        `Refused`."""
        if (await self._adopt(connection, order, provider)).batches:
            return
        file = await self._given(connection, batch, order, provider)
        if file is None:
            await self._close(connection, batch, order, ("batch_line_refused", "no call of it may be made"))
            return
        path, headers = self._blobs.path(_file(order, INPUT)), batch_calls.header_lines(batch)
        await order_store.sending(connection, order.id)
        try:
            made = await provider.create(Input(order.id, batch.endpoint, path, file, headers))
        except Away as away:
            if not away.acted:
                await order_store.not_sent(connection, order.id)
            raise
        await order_store.sent(connection, order.id, [made])

    async def _given(self, connection: Connection, batch: Batch, order: Order, provider: Provider) -> str | None:
        """The name of the order's input at the provider, or nothing where it is a part of the order; None: there is no
        call in it. Raises `Away`, `Refused`."""
        if order.provider_file is not None:
            return order.provider_file
        name = f"groundplan-{order.id}.jsonl"
        uploading = provider if isinstance(provider, UploadingProvider) else None
        file = await uploading.uploaded(name) if uploading is not None and order.uploading else None
        if file is None:
            if not await self._write_input(connection, batch, order, provider):
                return None
            if uploading is None:
                return ""
            await order_store.uploading(connection, order.id)
            file = await uploading.upload(self._blobs.path(_file(order, INPUT)), name)
        await order_store.uploaded(connection, order.id, file)
        return file

    async def _sought(self, connection: Connection, order: Order) -> Sought:
        """What is asked of the provider about an order that it may have."""
        sent = None if order.sending_at is None else order.sending_at.timestamp()
        since = (order.created_at - _DAY).timestamp()
        lines = await order_store.open_lines(connection, order.id)
        return Sought(
            order.id, lines, since, sent, await order_store.known(connection, order.id, order.created_at - _DAY)
        )

    async def _adopt(self, connection: Connection, order: Order, provider: Provider) -> Found:
        """Take the order as sent where the provider has it already."""
        found = await provider.find(await self._sought(connection, order))
        if found.batches:
            await order_store.sent(connection, order.id, found.batches)
        return found

    async def _find_again(self, connection: Connection, order: Order, provider: Provider) -> None:
        """Whoever was sending it did not write down how that ended. What the provider does not have once that request
        can no longer be under way, it never got. Raises `Away`."""
        found = await self._adopt(connection, order, provider)
        if found.batches:
            return
        if found.open:
            told = f"whether the provider has this order is known when its batch {found.open} has ended"
            await order_store.wait(connection, order.id, _pause(order.tries), told)
            return
        longest = provider.longest(self._blobs.path(_file(order, INPUT)))
        since = await order_store.sending_for(connection, order.id)
        if since > longest:
            await order_store.not_sent(connection, order.id)
        else:
            await order_store.wait(connection, order.id, min(longest - since + 0.1, longest))

    async def _write_input(self, connection: Connection, batch: Batch, order: Order, provider: Provider) -> bool:
        """The file of its calls, as the provider is to get them; whether there is one. Calls that may not be made any
        more are ended."""
        size = 0

        async def written() -> AsyncGenerator[bytes, None]:
            nonlocal size
            async with connection.transaction(), aclosing(order_store.lines(connection, order.id)) as found:
                async for lines in found:
                    refused = []
                    for line in lines:
                        data, error = await self._forwarded(batch, order, provider, line)
                        if error is not None:
                            refused.append((line, False, msgspec.json.encode(error)))
                            continue
                        yield provider.joint + data if size else data
                        size += 1
                    await order_store.end_lines(connection, order, refused)

        await self._blobs.keep(_file(order, INPUT), written(), most=_MOST_RESULT_BYTES)
        return size > 0

    async def _forwarded(
        self, batch: Batch, order: Order, provider: Provider, line: OrderLine
    ) -> tuple[bytes, dict[str, object] | None]:
        """A call as the provider is to get it, or the error that ends it. Raises `Unavailable`."""
        data = await self._blobs.part(batch.input_file, line.place, line.length)
        try:
            body = bytes(batch_lines.read_line(data, batch.endpoint).body)
            forwarded = self._calls.forwarded(batch, order.deployment, line.call, body, line.held)
        except GroundplanError as error:
            if error.status == 503:
                raise
            told = f"{error.message}. {error.hint}"
            return b"", batch_store.error_line(line.call, line.custom_id, error.code, told)
        return provider.line(order.id, line.call, batch.endpoint, forwarded), None

    # its end ---------------------------------------------------------------------------------------------------------

    async def _follow(
        self, connection: Connection, batch: Batch, order: Order, provider: Provider, ending: Why | None
    ) -> None:
        """See how far the provider is. Raises `Away`, `Refused`."""
        states = [(name, await self._state(order, provider, name)) for name in order.provider_batches]
        counts = [state.request_counts for _, state in states if state is not None and state.request_counts is not None]
        await order_store.progress(
            connection, order.id, sum(each.completed for each in counts), sum(each.failed for each in counts)
        )
        going = [name for name, state in states if state is not None and not state.over]
        if going and ending is not None and order.cancelled_at is None:
            for name in going:
                await provider.cancel(name)
            await order_store.cancelled(connection, order.id)
            await order_store.wait(connection, order.id, _SOON_S)
        elif going:
            await order_store.wait(connection, order.id, _pause(order.tries))
        elif not await self._found_more(connection, order, provider):
            await self._collect(connection, batch, order, (provider, [state for _, state in states], ending))

    async def _found_more(self, connection: Connection, order: Order, provider: Provider) -> bool:
        """Whether the provider took the order once more, against all precautions: what it did for that is ended, waited
        for and paid like the rest, and flagged."""
        every = await provider.find(await self._sought(connection, order))
        more = [name for name in every.batches if name not in order.provider_batches]
        if not more:
            return False
        _log.error("the provider took order %s %d times", order.id, len(more) + 1)
        for name in more:
            await provider.cancel(name)
        await order_store.sent(connection, order.id, [*order.provider_batches, *more])
        return True

    async def _collect(
        self,
        connection: Connection,
        batch: Batch,
        order: Order,
        how: tuple[Provider, list[ProviderBatch | None], Why | None],
    ) -> None:
        """Everything that the provider gave back: files here first, then its costs, then its results. Raises `Away`."""
        provider, states, ending = how
        given = [await self._fetch(order, provider, number, state) for number, state in enumerate(states)]
        await self._tell(connection, batch, order, given, order_results.not_made(states, ending))
        await self._clean(order, provider, states)

    async def _state(self, order: Order, provider: Provider, name: str) -> ProviderBatch | None:
        """None where the provider knows nothing of it. Raises `Away`, `Refused`."""
        try:
            return await provider.retrieve(name)
        except Refused as refused:
            self._check_lost(order, name, refused)
            return None

    def _check_lost(self, order: Order, name: str, refused: Refused) -> None:
        """Of what the provider has had: it is lost where it is not known any more. What it made a moment ago it may not
        find everywhere yet, so `Away` is raised for a while; and `Refused` where it says something else."""
        if refused.status != 404:
            raise refused
        now = self._gateway.loop.time()
        if now - self._missed.setdefault((order.id, name), now) < _MISSED_S:
            raise Away(f"the provider does not know {name[:100]}", acted=False) from refused

    async def _fetch(self, order: Order, provider: Provider, number: int, state: ProviderBatch | None) -> Given:
        paths, lost = [], False
        for kind, name in (
            ("output", state.output_file_id if state else None),
            ("errors", state.error_file_id if state else None),
        ):
            if name is not None:
                id = _file(order, f"{number} {kind}")
                try:
                    await self._blobs.keep(id, provider.content(name), most=_MOST_RESULT_BYTES)
                except Refused as refused:
                    self._check_lost(order, name, refused)
                    lost = True  # calls without a result are counted at their bounds then, also of one that was ended
                    continue
                paths.append(self._blobs.path(id))
        results, turn = Results(paths), 0
        for read in results.scan():
            if read - turn > _TURN:
                turn = read
                await asyncio.sleep(0)
        return Given(None if lost else state, results)

    async def _close(self, connection: Connection, batch: Batch, order: Order, why: Why) -> None:
        """Nothing of it was made: all that is held for it goes back."""
        await self._tell(connection, batch, order, [], why)
        await self._clean(order, self._provider(order), [])

    async def _tell(
        self, connection: Connection, batch: Batch, order: Order, given: list[Given], not_made: Why
    ) -> None:
        """Costs into a journal of the order's own and results into its lines; once, since the journal has the order's
        name and its lines' ids, and tells the same each time."""
        catalog = self._gateway.live.catalog
        at = int(self._gateway.clock.seconds() * 1000)
        demo = catalog.blueprint.demo if catalog is not None else False
        terms = Terms(batch, order, INTERFACES[batch.endpoint], at, not_made, demo)
        every: list[tuple[OrderLine, Made]] = []
        journal = OrderJournal(self._blobs.home, order.id)
        try:
            async with connection.transaction(), aclosing(order_store.lines(connection, order.id)) as found:
                async for lines in found:
                    done, size = [], 0
                    for line in lines:
                        made = order_results.made(terms, line, given, await self._asked(terms, line))
                        finish = order_results.finish(terms, line, made)
                        for number, (reservation, settlement) in enumerate(made.attempts, 1):
                            journal.add(reservation, settlement, finish if number == len(made.attempts) else None)
                        told = await self._told(terms, line, made)
                        done.append((line, made.ok, told))
                        size += len(told)
                        if size > batch_store.TURN_BYTES:
                            await order_store.end_lines(connection, order, done)
                            done, size = [], 0
                        every.append((line, Made(made.ok, made.status, b"", made.error, made.attempts)))
                        await asyncio.sleep(0)
                    await order_store.end_lines(connection, order, done)
                await journal.sync()
                journal.publish()
                await order_store.end(connection, order.id)
        except BaseException:
            journal.drop()
            raise
        self._missed = {what: since for what, since in self._missed.items() if what[0] != order.id}
        for line, made in every:
            self._count(terms, made)
            if any(OVER_BOUND in settlement.flags for _, settlement in made.attempts):
                self._gateway.live.stop(terms.batch.workload, line.call)
        self.on_ended()

    async def _asked(self, terms: Terms, line: OrderLine) -> Ask:
        """What reading an answer takes of its request: a response tells its caller's own instructions back, if only
        these are still there, and never ours in front of them."""
        if terms.interface is not RESPONSES:
            return ASK
        said = Told(b"", None, store=False)
        said.asked["instructions"] = b"null"
        if self._blobs.path(terms.batch.input_file).exists():
            raw = await self._blobs.part(terms.batch.input_file, line.place, line.length)
            fields = responses.read(bytes(batch_lines.read_line(raw, terms.batch.endpoint).body)).fields
            said.asked["instructions"] = bytes(fields.get("instructions", b"null"))
        return msgspec.structs.replace(ASK, typed=said)

    async def _told(self, terms: Terms, line: OrderLine, made: Made) -> bytes:
        """The line of a result file, with the facts of its call; prompt and answer are kept where that is declared."""
        exchange = self._calls.exchange(terms.batch, line.call, b"")
        catalog = self._gateway.live.catalog
        plan = catalog.plans.get(terms.batch.workload) if catalog is not None else None
        if not made.ok or catalog is None or plan is None:
            return order_results.told(line, made, made.data)
        exchange.catalog, exchange.workload = replace(catalog, number=terms.order.blueprint), plan.workload
        exchange.plan, exchange.deployment, exchange.person = plan, terms.order.deployment, terms.batch.person
        exchange.key = self._calls.known(terms.batch)
        exchange.cost, exchange.estimated = made.cost, made.estimated
        data = terms.interface.with_facts(made.data, answers.facts(exchange, None))
        keep = plan.workload.keep
        if keep is not None and chosen(keep, line.call.bytes) and self._blobs.path(terms.batch.input_file).exists():
            raw = await self._blobs.part(terms.batch.input_file, line.place, line.length)
            exchange.request.body = bytes(batch_lines.read_line(raw, terms.batch.endpoint).body)
            exchange.kept = [data]
            content.offer(self._gateway, exchange)
        return order_results.told(line, made, data)

    def _count(self, terms: Terms, made: Made) -> None:
        """What /metrics say of a call that was made elsewhere, whose times are not known."""
        meters, batch, place = self._gateway.meters, terms.batch, terms.order.deployment.name
        for _, settlement in made.attempts:
            labels = (batch.workload, place, settlement.outcome)
            meters.attempt_elsewhere(labels, settlement.usage, settlement.cost, settlement.estimated)
        if made.attempts:
            outcome, status = ("ok", 200) if made.ok else ("failed", made.status or 502)
            meters.call_elsewhere((terms.interface.name, batch.workload, place, outcome, status))

    async def _clean(self, order: Order, provider: Provider, states: list[ProviderBatch | None]) -> None:
        """Leave nothing at the provider, nor here. What fails is told, and tried again by `sweep`: for that the order's
        input is the last to go."""
        for kind in [f"{n} {kind}" for n in range(8) for kind in ("output", "errors")]:
            self._blobs.path(_file(order, kind)).unlink(missing_ok=True)
        files = [file for state in states if state is not None for file in (state.output_file_id, state.error_file_id)]
        left = False
        for name in filter(None, (order.provider_file, *files)):
            try:
                await provider.delete(name)
            except (Away, Refused) as problem:
                left |= isinstance(problem, Away)
                if isinstance(problem, Away) or problem.status != 404:
                    _log.warning("a file of order %s stays at the provider: %s", order.id, problem)
        if not left:
            self._blobs.path(_file(order, INPUT)).unlink(missing_ok=True)

    async def sweep(self, connection: Connection) -> None:
        """Clean up after orders that have ended while whoever did so was killed, or their provider was away."""
        for id in await order_store.ended_lately(connection):
            if id not in self._working and len(self._working) < AT_ONCE and self._blobs.path(uuid5(id, INPUT)).exists():
                self._begin(id, self._tidy(id))

    async def _tidy(self, id: UUID) -> None:
        try:
            async with await connect(self._url) as connection:
                order = await order_store.find(connection, id) if await order_store.lock(connection, id) else None
                if order is not None:
                    provider = self._provider(order)
                    states = [await self._state(order, provider, name) for name in order.provider_batches]
                    await self._clean(order, provider, states)
        except (*DATABASE_ERRORS, OSError, Away, Refused) as problem:
            _log.warning("files of order %s stay: %s: %s", id, problem.__class__.__name__, first_line(problem))


def _pause(tries: int) -> float:
    """Seconds until an order is looked at again: longer each time."""
    return float(min(_LONGEST_PAUSE_S, 0.5 * 1.5 ** min(tries, 16)))


def _file(order: Order, kind: str) -> UUID:
    """Of a file that belongs to an order, on the blobs while it is needed."""
    return uuid5(order.id, kind)
