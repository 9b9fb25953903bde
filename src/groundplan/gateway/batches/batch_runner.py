"""Makes the calls of batches, in each worker, beside the calls that somebody waits for and behind them.

A line is claimed in PostgreSQL, with its money, before it is sent, and what may have been billed is never sent again:
after a crash the journal tells whether it was. A worker looks for work only while HOME/batches has a mark, so without
batches it does nothing. Killed at any point, whoever is left goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import msgspec
import psycopg
from psycopg import AsyncConnection

from groundplan.core.database import first_line
from groundplan.core.errors import GroundplanError
from groundplan.gateway.batches import batch_check, batch_lines, batch_store
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT, Batch, Claimed, Connection
from groundplan.gateway.batches.orders import order_store
from groundplan.gateway.batches.orders.order_results import CANCELLED, EXPIRED, WHY
from groundplan.gateway.batches.orders.order_runner import Orders
from groundplan.gateway.budgets.grant_connection import DATABASE_ERRORS
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.pipeline import Pipeline
from groundplan.gateway.database import BRIEFLY, connect
from groundplan.gateway.files import creation_key_store, file_store, files_api
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import decodable_json
from groundplan.ledger.model import Charge

LOOK_S = 0.5
SWEEP_S = 60.0
"""How often it is looked for files that were deleted elsewhere, or that orders have left."""
_RETRY_S = 0.5
_RECALLS = 8
_RECALL_S = 0.25
UNSENT = {
    CANCELLED: "the batch was cancelled before this call",
    EXPIRED: "the batch expired before this call",
}
INTERRUPTED = "the worker that made this call ended before it could keep the answer; the call is not made again"
_ON_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
"""Between the values of a JSON text, as many upstreams indent theirs, a line break means what a space does."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Made:
    """A line that is being made."""

    batch: UUID
    task: asyncio.Task[None]


class BatchRunner:
    """See the module. `run` it beside the worker; `stop` claims no more, `close` ends it."""

    def __init__(self, gateway: Gateway, leases: LeaseClient, pipeline: Pipeline, url: str, blobs: Blobs) -> None:
        self._gateway = gateway
        self._leases = leases
        self._pipeline = pipeline
        self._url = url
        self._blobs = blobs
        self._calls = BatchCalls(gateway)
        self._orders = Orders(gateway, self._calls, blobs, url)
        self._made: dict[UUID, _Made] = {}
        self._begun: set[UUID] = set()
        """Calls that this worker has begun, as far as a read may still show their line as running."""
        self._ended: set[UUID] = set()
        """Those of them whose line is done: a read that is under way may not know it yet."""
        self._connections: dict[str, Connection] = {}
        self._keeping = asyncio.Lock()
        self._changed = asyncio.Event()
        self._orders.on_ended = self._changed.set
        self._stopping = False
        self._marked = False
        self._swept = float("-inf")
        self._problems: dict[UUID | None, str] = {}
        """What was last said of each batch that waits, or of all of them."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            try:
                if not self._marked and self._gateway.ready:
                    await self._mark_again()
                for id in self._blobs.marked():
                    if self._gateway.ready and not self._stopping:
                        await self._look_alone(id)
                if self._gateway.ready and self._gateway.loop.time() - self._swept > SWEEP_S:
                    self._swept = self._gateway.loop.time()
                    await self._sweep()
                self._problems.pop(None, None)
            except (*DATABASE_ERRORS, OSError, GroundplanError) as error:
                self._note(error)
            except Exception:  # noqa: BLE001 -- the boundary of this task: batches must not end the worker
                _log.exception("batches cannot go on")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()

    async def _mark_again(self) -> None:
        """Once after a start: a mark may be lost, as by a restore, and somebody has to end what is over."""
        if self._blobs.files.exists():
            for id, file, late in await batch_store.unfinished(await self._connect()):
                if late or self._blobs.path(file).exists():
                    self._blobs.mark(id)
        self._marked = True

    async def _sweep(self) -> None:
        if self._blobs.files.exists():
            await files_api.sweep(await self._connect(), self._blobs)
            await creation_key_store.forget(await self._connect())
            await self._orders.sweep(await self._connect())

    @property
    def busy(self) -> bool:
        """Lines are being made."""
        return bool(self._made)

    def stop(self) -> None:
        """Claim no more, and leave those that still wait to be sent to whoever comes next."""
        self._stopping = self._calls.stopping = True
        for call in list(self._calls.waiting):
            if (made := self._made.get(call)) is not None:
                made.task.cancel()

    async def close(self) -> None:
        """End what still runs: it is settled, and whoever comes next tells that it was interrupted."""
        self._stopping = True
        tasks = [made.task for made in self._made.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._orders.close()
        for connection in self._connections.values():
            await connection.close()

    def _note(self, error: Exception, id: UUID | None = None) -> None:
        """What holds up a batch, or all of them; once."""
        problem = f"{error.__class__.__name__}: {first_line(error)}"
        if problem != self._problems.get(id):
            _log.warning("%s: %s", "batches wait" if id is None else f"batch {id} waits", problem)
        self._problems[id] = problem

    async def _connect(self, use: str = "look") -> Connection:
        """A connection for each use: what one has in a transaction must not take another's statements along."""
        connection: AsyncConnection[Any] | None = self._connections.get(use)
        if connection is None or connection.closed:
            connection = await connect(self._url)
            await connection.execute("SET synchronous_commit = on")
            await connection.execute(BRIEFLY)
            self._connections[use] = connection
        return connection

    # what a batch needs next -----------------------------------------------------------------------------------------

    async def _look_alone(self, id: UUID) -> None:
        """Take one batch a step further; what is wrong with it holds up no other. Raises what holds up all of them."""
        try:
            await self._look_at(id)
            self._problems.pop(id, None)
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001 -- the boundary of one batch: a newer release may have begun it
            self._note(error, id)

    async def _look_at(self, id: UUID) -> None:
        connection = await self._connect()
        batch = await batch_store.find(connection, id)
        if batch is None:
            if self._blobs.marked_long_ago(id):
                self._blobs.unmark(id)
            return
        if batch.status in batch_store.ENDED:
            self._blobs.unmark(id)
            self._calls.ending.pop(id, None)
            return
        # what is given up stays so: no clock alone that is fast for a moment says it
        late = self._gateway.clock.now() >= batch.expires_at and await batch_store.is_over(connection, id)
        if _unchecked(batch, late=late):
            await self._check(batch, late=late)
            return
        await batch_store.recover(connection, id, INTERRUPTED)
        await batch_store.sum_up(connection, id)
        ending = CANCELLED if batch.status == "cancelling" else EXPIRED if late else ""
        if ending:
            self._calls.ending[id] = (ending, UNSENT[ending])
        if not self._stopping:
            await self._orders.look(connection, batch, ending)
        if batch.status == "in_progress" and not late:
            await self._claim(connection, batch)
        elif ending:
            await batch_store.end_pending(connection, id, ending, UNSENT[ending])
        if not await batch_store.open_lines(connection, id):
            await self._end(batch, late=late)

    async def _check(self, batch: Batch, *, late: bool) -> None:
        """Begin the batch or refuse it, over a connection of its own: it may take seconds. Its row is not locked while
        its lines are read and written, so that whoever cancels it waits for nothing."""
        async with await connect(self._url) as connection:
            if not await batch_store.lock_check(connection, batch.id):
                return
            now = await batch_store.find(connection, batch.id)
            if now is None or not _unchecked(now, late=late):
                return
            size = await file_store.size_of(connection, batch.input_file)
            checked = await batch_check.check(self._gateway, self._calls, self._blobs, batch, size)
            now = await batch_store.find(connection, batch.id)
            if now is not None and _unchecked(now, late=late):
                async with connection.transaction():
                    await self._checked(connection, now, checked, late=late)
        self._changed.set()

    async def _checked(self, connection: Connection, batch: Batch, checked: batch_check.Checked, *, late: bool) -> None:
        """Begin a batch whose lines were read, or refuse it; inside a transaction."""
        ending = CANCELLED if batch.status == "cancelling" else EXPIRED if late else ""
        if checked.errors:
            await batch_store.refuse(connection, batch.id, checked.errors)
        elif ending:
            checked.refuse_all(ending, WHY[ending])
            await self._write(connection, batch, checked, held=False)
        elif (left := await self._write(connection, batch, checked)) is not None:
            (error,) = batch_check.too_dear(checked, left)
            if batch.endpoint == MESSAGES_ENDPOINT:  # Anthropic's do not fail as a whole
                checked.refuse_all(error["code"], error["message"])
                await self._write(connection, batch, checked, held=False)
            else:
                await batch_store.refuse(connection, batch.id, [error])

    async def _write(
        self, connection: Connection, batch: Batch, checked: batch_check.Checked, *, held: bool = True
    ) -> int | None:
        """Begin the batch; None, or what is left of a budget that has no room for it, with nothing written. Its lines
        come before its money: they take their time, and while the money is taken all who need more of a budget wait."""
        left: int | None = None
        async with connection.transaction():
            for each in checked.orders:
                await order_store.add(connection, batch.id, each.id, each.deployment, checked.blueprint)
            await batch_store.keep(connection, batch.id, checked.lines)
            if held and (left := await self._hold(connection, batch, checked)) is not None:
                raise psycopg.Rollback
            for each in checked.orders:
                await order_store.hold(connection, batch.id, each.id, each.held)
            if not await batch_store.begin(connection, batch.id, len(checked.lines), checked.charges, checked.total):
                raise psycopg.Rollback
        return left

    async def _hold(self, connection: Connection, batch: Batch, checked: batch_check.Checked) -> int | None:
        """The whole of it from every budget in its present period, calling back what workers hold idle; None, or what
        is left."""
        left: int | None = None
        budgets = [budget for budget, _ in checked.charges]
        for _ in range(_RECALLS):
            checked.charges = admit.dated(budgets, self._gateway.clock.seconds())
            async with connection.transaction():
                await connection.execute(batch_store.BRIEFLY_NOW)
                left = await batch_store.hold(connection, batch.id, checked.charges, checked.blueprint, checked.total)
                if left is None:
                    return None
                raise psycopg.Rollback  # workers that give something back need the rows that are locked
            await batch_store.recall(await self._connect(), batch.id, checked.charges)
            await asyncio.sleep(_RECALL_S)
        return left

    # calls -----------------------------------------------------------------------------------------------------------

    async def _claim(self, connection: Connection, batch: Batch) -> None:
        """Make as many lines running as there is room for, take their money over, and begin them."""
        catalog = self._gateway.live.catalog
        plan = catalog.plans.get(batch.workload) if catalog is not None else None
        most = 4 if plan is None else plan.workload.batch_concurrent
        mine = sum(1 for made in self._made.values() if made.batch == batch.id)
        if self._gateway.pressure.full(self._gateway.running) and mine:
            return
        if most > mine:
            await batch_store.claim(connection, batch, self._gateway.epoch, most - mine)
        self._begun -= self._ended
        self._ended.clear()
        claimed = await batch_store.claimed(connection, batch.id, self._gateway.epoch)
        if self._stopping:
            return  # what is not begun yet is for whoever comes next
        new = [line for line in claimed if line.call not in self._begun]
        for line in claimed:
            if line.call in self._begun and line.call not in self._made:
                failed = batch_store.error_line(line.call, line.custom_id, "batch_line_interrupted", INTERRUPTED)
                await self._keep(batch, line, ok=False, result=msgspec.json.encode(failed))
        if not new:
            return
        await self._leases.book_unrequested([(name, period) for name, period in batch.charges])
        for line in new:  # no other task runs before all of it is reserved
            self._begin(batch, line)

    def _begin(self, batch: Batch, line: Claimed) -> None:
        gateway = self._gateway
        exchange = self._calls.exchange(batch, line.call, b"")
        exchange.charges = self._calls.budgets(batch, gateway.live.catalog)
        charges = [Charge(budget.name, period, line.held) for budget, period in exchange.charges]
        token = (line.call.bytes, 0)
        if line.held and charges and gateway.slices.reserve(token, charges) is None:
            exchange.token, exchange.reserved = token, line.held
        self._begun.add(line.call)
        task = gateway.loop.create_task(self._make(batch, line, exchange))
        self._made[line.call] = _Made(batch.id, task)
        task.add_done_callback(lambda _: self._done(line.call))

    def _done(self, call: UUID) -> None:
        self._made.pop(call, None)
        self._changed.set()

    async def _make(self, batch: Batch, line: Claimed, exchange: Exchange) -> None:
        gateway = self._gateway

        async def body() -> bytes:
            data = await self._blobs.part(batch.input_file, line.place, line.length)
            return bytes(batch_lines.read_line(data, batch.endpoint).body)

        gateway.running += 1
        try:
            await self._pipeline.conduct(exchange, self._calls.steps(batch, body))
            answer = exchange.response
            if not isinstance(answer, CollectedResponse):
                raise AssertionError("a line's answer is kept")
            result = _result(line, answer)
            if (why := self._calls.unmade.get(line.call)) is not None:
                result = msgspec.json.encode(batch_store.error_line(line.call, line.custom_id, *why))
            await self._keep(batch, line, ok=200 <= answer.status < 300, result=result)
        finally:
            gateway.running -= 1
            self._calls.unmade.pop(line.call, None)

    async def _keep(self, batch: Batch, line: Claimed, *, ok: bool, result: bytes) -> None:
        """The answer is durable before the line counts as done, however long PostgreSQL is away."""
        while True:
            try:
                async with self._keeping:
                    connection = await self._connect("keep")
                    await batch_store.end_line(connection, batch.id, line, ok=ok, result=result)
                self._ended.add(line.call)
                return
            except (*DATABASE_ERRORS, OSError) as error:
                self._note(error)
                await asyncio.sleep(_RETRY_S)

    # the end ---------------------------------------------------------------------------------------------------------

    async def _end(self, batch: Batch, *, late: bool) -> None:
        """Results into files, in one transaction; repeated after a crash, it makes the same files."""
        async with await connect(self._url, autocommit=False) as connection, connection.transaction():
            locked = await batch_store.find(connection, batch.id, "FOR UPDATE SKIP LOCKED")
            if locked is None or locked.status in batch_store.ENDED:
                return
            output = await self._file(connection, batch, ok=True)
            failures = await self._file(connection, batch, ok=False)
            expired = late and await batch_store.unsent(connection, batch.id, "batch_expired")
            status = "cancelled" if locked.status == "cancelling" else "expired" if expired else "completed"
            if locked.status == "validating":
                status = "expired"
            await batch_store.end(connection, batch.id, status, output, failures)
        self._blobs.unmark(batch.id)
        self._calls.ending.pop(batch.id, None)

    async def _file(self, connection: Connection, batch: Batch, *, ok: bool) -> UUID | None:
        """The file of the lines that went well, or of the others; None where there are none."""
        id = uuid5(batch.id, "output" if ok else "errors")
        size = await self._blobs.keep(id, _results(connection, batch.id, ok), most=1 << 40)
        if not size:
            self._blobs.path(id).unlink(missing_ok=True)
            return None
        name = f"batch_{batch.id.hex}_{'output' if ok else 'error'}.jsonl"
        purpose = file_store.MESSAGES if batch.endpoint == MESSAGES_ENDPOINT else "batch_output"
        now, seconds = self._gateway.clock.now(), batch.output_seconds
        ends = None if seconds is None else now + timedelta(seconds=seconds)
        file = StoredFile(id, batch.workload, purpose, name, size, now, ends)
        await file_store.add(connection, file, batch.key)
        return id


def _unchecked(batch: Batch, *, late: bool) -> bool:
    """Whether its lines are to be read. Of a message batch each has to have a result, even when nothing is made."""
    if batch.endpoint == MESSAGES_ENDPOINT:
        return batch.in_progress_at is None and batch.status in ("validating", "cancelling")
    return batch.status == "validating" and not late


async def _results(connection: Connection, batch: UUID, ok: bool) -> AsyncGenerator[bytes, None]:
    async with aclosing(batch_store.results(connection, batch, ok=ok)) as found:
        async for results in found:
            yield b"".join(result.encode() + b"\n" for result in results)


def _result(line: Claimed, answer: CollectedResponse) -> bytes:
    """A line of the output or error file, as OpenAI writes it."""
    try:
        body: Any = msgspec.Raw(decodable_json(answer.body.translate(_ON_ONE_LINE)))
    except DECODE_ERRORS:
        body = None
    return msgspec.json.encode(
        {
            "id": f"batch_req_{line.call.hex}",
            "custom_id": line.custom_id,
            "response": {"status_code": answer.status, "request_id": str(line.call), "body": body},
            "error": None,
        }
    )
