"""Makes the calls of batches, in each worker, beside interactive calls and with lower priority.

A line is claimed in PostgreSQL, with its money, before it is sent, and what may have been billed is never sent again:
after a crash the journal says whether it was. A worker looks for work only while HOME/batches has a mark, so without
batches it does nothing but look for abandoned ones now and then. If a worker is killed at any point, the others go on.
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

from groundplan.core.database import first_line
from groundplan.core.errors import GroundplanError
from groundplan.gateway.batches import batch_check, batch_lines, batch_store, result_store
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT, Batch, ClaimedLine
from groundplan.gateway.batches.orders import order_store
from groundplan.gateway.batches.orders.order_results import CANCELLED, EXPIRED, UNMADE_MESSAGES
from groundplan.gateway.batches.orders.order_runner import OrderRunner
from groundplan.gateway.budgets.grant_connection import DATABASE_ERRORS
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.pipeline import Pipeline
from groundplan.gateway.database import BRIEFLY, Connection, connect
from groundplan.gateway.files import creation_key_store, file_store, files_api
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import decodable_json
from groundplan.ledger.model import Charge

POLL_S = 0.5
SWEEP_S = 60.0
"""How often files are deleted that belong to nothing any more, or that orders have left."""
ADOPTION_S = 600.0
"""How often a worker looks for batches that the gateways of their HOME have not ended."""
_RETRY_S = 0.5
_MAX_RECALLS = 8
_RECALL_S = 0.25
UNSENT_MESSAGES = {
    CANCELLED: "the batch was cancelled before this call",
    EXPIRED: "the batch expired before this call",
}
INTERRUPTED = "the worker that made this call ended before it could keep the answer; the call is not made again"
_ON_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
"""Many upstreams indent their JSON; between values a line break means the same as a space."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _RunningLine:
    """A line whose call this worker makes now."""

    batch: UUID
    task: asyncio.Task[None]


class BatchRunner:
    """Makes the calls of batches in one worker: `run` it as a task; `stop` claims no more lines, `close` ends all
    calls."""

    def __init__(self, gateway: Gateway, leases: LeaseClient, pipeline: Pipeline, url: str, blobs: Blobs) -> None:
        self._gateway = gateway
        self._leases = leases
        self._pipeline = pipeline
        self._url = url
        self._blobs = blobs
        self._calls = BatchCalls(gateway)
        self._orders = OrderRunner(gateway, self._calls, blobs, url)
        self._running: dict[UUID, _RunningLine] = {}
        self._begun_calls: set[UUID] = set()
        """Calls that this worker has begun and whose line a read may still show as running."""
        self._done_calls: set[UUID] = set()
        """Those of `_begun_calls` whose line is done, which a read in progress may not show yet."""
        self._connections: dict[str, Connection] = {}
        self._result_lock = asyncio.Lock()
        self._wakeup = asyncio.Event()
        self._orders.on_order_ended = self._wakeup.set
        self._stopping = False
        self._marks_restored = False
        self._swept_at = self._adopted_at = float("-inf")
        self._logged_problems: dict[UUID | None, str] = {}
        """The last problem that was logged, by batch; None: one of all batches."""

    async def run(self) -> None:
        """Advance all marked batches, until cancelled."""
        while True:
            self._wakeup.clear()
            try:
                if not self._marks_restored and self._gateway.ready:
                    await self._restore_marks()
                if self._gateway.ready and self._gateway.loop.time() - self._adopted_at > ADOPTION_S:
                    self._adopted_at = self._gateway.loop.time()
                    await self._adopt_abandoned()
                for id in self._blobs.marked():
                    if self._gateway.ready and not self._stopping:
                        await self._advance_isolated(id)
                if self._gateway.ready and self._gateway.loop.time() - self._swept_at > SWEEP_S:
                    self._swept_at = self._gateway.loop.time()
                    await self._sweep()
                self._logged_problems.pop(None, None)
            except (*DATABASE_ERRORS, OSError, GroundplanError) as error:
                self._log_problem(error)
            except Exception:  # noqa: BLE001 -- the boundary of this task: batches must not end the worker
                _log.exception("batches cannot go on")
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wakeup.wait()

    async def _restore_marks(self) -> None:
        """Once after a start, mark all batches of this HOME that have not ended: a restore may lose marks."""
        if self._blobs.files.exists():
            for id, file in await batch_store.list_unfinished(await self._connect()):
                if self._blobs.path(file).exists():
                    self._blobs.mark(id)
        self._marks_restored = True

    async def _adopt_abandoned(self) -> None:
        """Mark expired batches whose HOME is gone or not served, so that this worker ends them: their reservations are
        returned, and calls that were made get their results."""
        async with await connect(self._url) as connection:
            abandoned = await batch_store.list_abandoned(connection)
        for id in abandoned:
            self._blobs.mark(id)

    async def _sweep(self) -> None:
        if self._blobs.files.exists():
            await files_api.remove_deleted(await self._connect(), self._blobs)
            await creation_key_store.forget(await self._connect())
            await self._orders.sweep(await self._connect())

    @property
    def busy(self) -> bool:
        """Whether calls of lines are running."""
        return bool(self._running)

    def stop(self) -> None:
        """Claim no more lines, and leave those that still wait to be sent to another worker."""
        self._stopping = self._calls.stopping = True
        for call in list(self._calls.waiting_calls):
            if (running := self._running.get(call)) is not None:
                running.task.cancel()

    async def close(self) -> None:
        """Cancel running calls: each is settled, and another worker stores that its line was interrupted."""
        self._stopping = True
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._orders.close()
        for connection in self._connections.values():
            await connection.close()

    def _log_problem(self, error: Exception, id: UUID | None = None) -> None:
        """Log what holds up a batch, or all of them, unless that was logged last."""
        problem = f"{error.__class__.__name__}: {first_line(error)}"
        if problem != self._logged_problems.get(id):
            _log.warning("%s: %s", "batches wait" if id is None else f"batch {id} waits", problem)
        self._logged_problems[id] = problem

    async def _connect(self, use: str = "poll") -> Connection:
        """The open connection for a use; each use has its own, so that no statement lands in another's transaction."""
        connection: Connection | None = self._connections.get(use)
        if connection is None or connection.closed:
            connection = await connect(self._url)
            await connection.execute("SET synchronous_commit = on")
            await connection.execute(BRIEFLY)
            self._connections[use] = connection
        return connection

    # steps of a batch -------------------------------------------------------------------------------------------------

    async def _advance_isolated(self, id: UUID) -> None:
        """As `_advance_batch`, but a problem of this batch holds up no other. Raises what holds up all batches."""
        try:
            await self._advance_batch(id)
            self._logged_problems.pop(id, None)
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001 -- the boundary of one batch: a newer release may have begun it
            self._log_problem(error, id)

    async def _advance_batch(self, id: UUID) -> None:
        """Take a batch a step further: check it, claim lines and run its orders, or end it."""
        connection = await self._connect()
        batch = await batch_store.find(connection, id)
        if batch is None:
            if self._blobs.marked_long_ago(id):
                self._blobs.unmark(id)
            return
        if batch.status in batch_store.ENDED:
            self._blobs.unmark(id)
            self._calls.end_reasons.pop(id, None)
            return
        # expiry is final, so it needs PostgreSQL's clock, too: ours may be fast for a moment
        late = self._gateway.clock.now() >= batch.expires_at and await batch_store.is_expired(connection, id)
        if _needs_check(batch, late=late):
            await self._check_batch(batch, late=late)
            return
        await batch_store.recover_lines(connection, id, INTERRUPTED)
        await batch_store.compact_counts(connection, id)
        ending = CANCELLED if batch.status == "cancelling" else EXPIRED if late else ""
        if ending:
            self._calls.end_reasons[id] = (ending, UNSENT_MESSAGES[ending])
        if not self._stopping:
            await self._orders.start_due(connection, batch, ending)
        if batch.status == "in_progress" and not late:
            await self._claim_lines(connection, batch)
        elif ending:
            await batch_store.end_pending(connection, id, ending, UNSENT_MESSAGES[ending])
        await self._start_claimed(connection, batch, ending)
        if not await batch_store.has_open_lines(connection, id):
            await self._end_batch(batch, late=late)

    async def _check_batch(self, batch: Batch, *, late: bool) -> None:
        """Check the batch, and begin or refuse it, over a connection of its own, since it may take seconds. The batch's
        row is not locked meanwhile, so that a client can cancel it without waiting."""
        async with await connect(self._url) as connection:
            if not await batch_store.try_lock_check(connection, batch.id):
                return
            current = await batch_store.find(connection, batch.id)
            if current is None or not _needs_check(current, late=late):
                return
            size = await file_store.size_of(connection, batch.input_file)
            checked = await batch_check.check(self._gateway, self._calls, self._blobs, batch, size)
            current = await batch_store.find(connection, batch.id)
            if current is not None and _needs_check(current, late=late):
                async with connection.transaction():
                    await self._begin_checked(connection, current, checked, late=late)
        self._wakeup.set()

    async def _begin_checked(
        self, connection: Connection, batch: Batch, checked: batch_check.CheckResult, *, late: bool
    ) -> None:
        """Begin a checked batch, or refuse it; inside a transaction."""
        ending = CANCELLED if batch.status == "cancelling" else EXPIRED if late else ""
        if checked.errors:
            await batch_store.mark_failed(connection, batch.id, checked.errors)
        elif ending:
            checked.refuse_all(ending, UNMADE_MESSAGES[ending])
            await self._write_batch(connection, batch, checked, held=False)
        elif (left := await self._write_batch(connection, batch, checked)) is not None:
            (error,) = batch_check.budget_refusal(checked, left)
            if batch.endpoint == MESSAGES_ENDPOINT:  # a message batch does not fail as a whole
                checked.refuse_all(error["code"], error["message"])
                await self._write_batch(connection, batch, checked, held=False)
            else:
                await batch_store.mark_failed(connection, batch.id, [error])

    async def _write_batch(
        self, connection: Connection, batch: Batch, checked: batch_check.CheckResult, *, held: bool = True
    ) -> int | None:
        """Store the lines, reserve the total (if `held`), and begin the batch. Returns None; or, with nothing written,
        the remaining amount of a budget that has too little. Lines are stored before the total is reserved, since that
        takes time, and a reservation locks the rows of its budgets for all workers."""
        left: int | None = None
        async with connection.transaction():
            for each in checked.orders:
                await order_store.add(connection, batch.id, each.id, each.deployment, checked.blueprint)
            await batch_store.add_lines(connection, batch.id, checked.lines)
            if held and (left := await self._hold_budgets(connection, batch, checked)) is not None:
                raise psycopg.Rollback
            for each in checked.orders:
                await order_store.hold_budget(connection, batch.id, each.id, each.held)
            if not await batch_store.mark_begun(
                connection, batch.id, len(checked.lines), checked.charges, checked.total
            ):
                raise psycopg.Rollback
        return left

    async def _hold_budgets(self, connection: Connection, batch: Batch, checked: batch_check.CheckResult) -> int | None:
        """Reserve the batch's total in every budget, in its current period, after recalling idle slices of workers.
        Returns None, or the remaining amount of a budget that has too little."""
        left: int | None = None
        budgets = [budget for budget, _ in checked.charges]
        for _ in range(_MAX_RECALLS):
            checked.charges = admit.with_periods(budgets, self._gateway.clock.seconds())
            async with connection.transaction():
                await connection.execute(batch_store.SHORT_TRANSACTION)
                left = await batch_store.hold_budgets(
                    connection, batch.id, checked.charges, checked.blueprint, checked.total
                )
                if left is None:
                    return None
                raise psycopg.Rollback  # workers that give money back need the locked rows
            await batch_store.recall_idle(await self._connect(), batch.id, checked.charges)
            await asyncio.sleep(_RECALL_S)
        return left

    # calls ------------------------------------------------------------------------------------------------------------

    async def _claim_lines(self, connection: Connection, batch: Batch) -> None:
        """Claim as many lines as this worker may run at once, with their money."""
        catalog = self._gateway.live.catalog
        plan = catalog.plans.get(batch.workload) if catalog is not None else None
        limit = 4 if plan is None else plan.workload.batch_concurrent
        running = sum(1 for line in self._running.values() if line.batch == batch.id)
        if self._gateway.pressure.is_crowded(self._gateway.running_calls) and running:
            return
        if limit > running:
            await batch_store.claim_lines(connection, batch, self._gateway.epoch, limit - running)

    async def _start_claimed(self, connection: Connection, batch: Batch, ending: str) -> None:
        """Start the calls of the lines that this worker has claimed. `ending`: the batch ends, so that they end with
        this code: the database may have been lost between their claim and their start."""
        self._begun_calls -= self._done_calls
        self._done_calls.clear()
        claimed = await batch_store.list_claimed(connection, batch.id, self._gateway.epoch)
        if self._stopping:
            return  # lines that are not begun yet are left to another worker
        new = [line for line in claimed if line.call not in self._begun_calls]
        for line in claimed:
            if line.call in self._begun_calls and line.call not in self._running:
                failed = result_store.error_line(line.call, line.custom_id, "batch_line_interrupted", INTERRUPTED)
                await self._store_result(batch, line, ok=False, result=msgspec.json.encode(failed))
        if not new:
            return
        await self._leases.book_unrequested([(name, period) for name, period in batch.charges])
        if ending:
            for line in new:
                unsent = result_store.error_line(line.call, line.custom_id, ending, UNSENT_MESSAGES[ending])
                await self._store_result(batch, line, ok=False, result=msgspec.json.encode(unsent))
            return
        for line in new:  # no other task runs before all their money is reserved
            self._start_line(batch, line)

    def _start_line(self, batch: Batch, line: ClaimedLine) -> None:
        """Reserve a claimed line's money and start its call."""
        gateway = self._gateway
        exchange = self._calls.exchange(batch, line.call, b"")
        exchange.charges = self._calls.budgets(batch, gateway.live.catalog)
        charges = [Charge(budget.name, period, line.held) for budget, period in exchange.charges]
        token = (line.call.bytes, 0)
        if line.held and charges and gateway.slices.reserve(token, charges) is None:
            exchange.reservation, exchange.reserved_amount = token, line.held
        self._begun_calls.add(line.call)
        task = gateway.loop.create_task(self._run_line(batch, line, exchange))
        self._running[line.call] = _RunningLine(batch.id, task)
        task.add_done_callback(lambda _: self._line_done(line.call))

    def _line_done(self, call: UUID) -> None:
        self._running.pop(call, None)
        self._wakeup.set()

    async def _run_line(self, batch: Batch, line: ClaimedLine, exchange: Exchange) -> None:
        """Make the call of a line and store its result."""
        gateway = self._gateway

        async def body() -> bytes:
            data = await self._blobs.part(batch.input_file, line.offset, line.length)
            return bytes(batch_lines.read_line(data, batch.endpoint).body)

        gateway.running_calls += 1
        try:
            await self._pipeline.run_call(exchange, self._calls.line_steps(batch, body))
            answer = exchange.response
            if not isinstance(answer, CollectedResponse):
                raise AssertionError("a line's answer is kept")
            result = _result_line(line, answer)
            if (reason := self._calls.unmade_reasons.get(line.call)) is not None:
                result = msgspec.json.encode(result_store.error_line(line.call, line.custom_id, *reason))
            await self._store_result(batch, line, ok=200 <= answer.status < 300, result=result)
        finally:
            gateway.running_calls -= 1
            self._calls.unmade_reasons.pop(line.call, None)

    async def _store_result(self, batch: Batch, line: ClaimedLine, *, ok: bool, result: bytes) -> None:
        """Store the result of a line, which makes it done; retried for as long as PostgreSQL is unavailable."""
        while True:
            try:
                async with self._result_lock:
                    connection = await self._connect("results")
                    await batch_store.end_line(connection, batch.id, line, ok=ok, result=result)
                self._done_calls.add(line.call)
                return
            except (*DATABASE_ERRORS, OSError) as error:
                self._log_problem(error)
                await asyncio.sleep(_RETRY_S)

    # end of a batch ---------------------------------------------------------------------------------------------------

    async def _end_batch(self, batch: Batch, *, late: bool) -> None:
        """Write the result files and end the batch, in one transaction. Repeated after a crash, it writes the same
        files."""
        async with await connect(self._url, autocommit=False) as connection, connection.transaction():
            locked = await batch_store.find(connection, batch.id, "FOR UPDATE SKIP LOCKED")
            if locked is None or locked.status in batch_store.ENDED:
                return
            if await batch_store.has_open_lines(connection, batch.id):
                return  # a worker that checked the batch has just begun it
            output = await self._write_result_file(connection, batch, ok=True)
            failures = await self._write_result_file(connection, batch, ok=False)
            expired = late and await result_store.has_lines_with_error(connection, batch.id, "batch_expired")
            status = "cancelled" if locked.status == "cancelling" else "expired" if expired else "completed"
            if locked.status == "validating":
                status = "expired"
            grounded = files_api.is_grounded(self._gateway, batch.workload)
            await batch_store.mark_ended(connection, batch.id, status, (output, failures), grounded=grounded)
        self._blobs.unmark(batch.id)
        self._calls.end_reasons.pop(batch.id, None)

    async def _write_result_file(self, connection: Connection, batch: Batch, *, ok: bool) -> UUID | None:
        """Write the result file of the lines that succeeded (`ok`), or of the others, and return its id; None: there
        are no such lines."""
        id = uuid5(batch.id, "output" if ok else "errors")
        size = await self._blobs.keep(id, _encoded_results(connection, batch.id, ok), most=1 << 40)
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


def _needs_check(batch: Batch, *, late: bool) -> bool:
    """Whether the lines of a batch are still to be checked. In a message batch each line gets a result, even when none
    is made, so they are checked although it was cancelled or has expired."""
    if batch.endpoint == MESSAGES_ENDPOINT:
        return batch.in_progress_at is None and batch.status in ("validating", "cancelling")
    return batch.status == "validating" and not late


async def _encoded_results(connection: Connection, batch: UUID, ok: bool) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a result file."""
    async with aclosing(result_store.iterate_results(connection, batch, ok=ok)) as found:
        async for results in found:
            yield b"".join(result.encode() + b"\n" for result in results)


def _result_line(line: ClaimedLine, answer: CollectedResponse) -> bytes:
    """The line of the output or error file for an answered call, in OpenAI's format."""
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
