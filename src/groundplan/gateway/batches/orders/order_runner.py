"""Runs orders at providers' own batch endpoints, from the first byte sent to the last result kept; each is sent once.

The worker that holds the order's lock in PostgreSQL advances it one step at a time. Killed at any point, another worker
goes on from the stored state, and looks the order up at the provider by our id before it sends anything again. Whether
a line may be ordered is decided in `batch_calls`; what its result means, in `order_results`; `order_recorder` writes
costs and results down.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import timedelta
from uuid import UUID, uuid5

import msgspec

from groundplan.core.database import first_line
from groundplan.core.errors import GroundplanError
from groundplan.gateway.batches import batch_calls, batch_lines, batch_store, result_store
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.batches.batch_store import Batch
from groundplan.gateway.batches.orders import order_results, order_store
from groundplan.gateway.batches.orders.order_recorder import OrderRecorder
from groundplan.gateway.batches.orders.order_results import (
    UNMADE_MESSAGES,
    ProviderResults,
    Reason,
    ResultFiles,
)
from groundplan.gateway.batches.orders.order_store import NEW, SENDING, Order, OrderLine
from groundplan.gateway.batches.providers.message_batches import MessageBatches
from groundplan.gateway.batches.providers.openai_batches import OpenAIBatches
from groundplan.gateway.batches.providers.provider import (
    FoundBatches,
    OrderInput,
    OrderQuery,
    Provider,
    ProviderBatch,
    ProviderRefused,
    ProviderUnavailable,
    UploadingProvider,
)
from groundplan.gateway.budgets.grant_connection import DATABASE_ERRORS
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.database import Connection, connect
from groundplan.gateway.files.blobs import Blobs

MAX_CONCURRENT_ORDERS = 16
"""Orders that one worker advances at once: each holds a connection to PostgreSQL, also while its provider is silent."""
_MAX_POLL_DELAY_S = 60.0
_SHORT_DELAY_S = 0.5
_DAY = timedelta(days=1)
_MISSING_GRACE_S = 20.0
"""How long a provider may answer 404 for a batch or file that it named itself before that counts as lost."""
_YIELD_BYTES = 64 << 10
_MAX_RESULT_BYTES = 1 << 40
"""Effectively none but the disk: results that the provider was paid for are fetched, whatever their size."""
INPUT = "input"
"""Kind of the order's file that has its calls."""
_log = logging.getLogger(__name__)


class OrderRunner:
    """The orders that one worker runs. Call `start_due` for each batch repeatedly; `close` cancels running steps."""

    def __init__(self, gateway: Gateway, calls: BatchCalls, blobs: Blobs, url: str) -> None:
        self._gateway = gateway
        self._calls = calls
        self._blobs = blobs
        self._url = url
        self._recorder = OrderRecorder(gateway, calls, blobs)
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._missing_since: dict[tuple[UUID, str], float] = {}
        """By (order, provider's name of a batch or file): the loop time at which the provider first answered 404."""
        self.on_order_ended: Callable[[], None] = lambda: None

    async def start_due(self, connection: Connection, batch: Batch, ending: str) -> None:
        """Start a step of each order of the batch that is due. `ending`: why the batch ends (`CANCELLED`, `EXPIRED`),
        or empty."""
        waiting = await order_store.list_waiting(connection, batch.id)
        if to_end := [order.id for order in waiting if ending or self._denial_reason(batch, order)]:
            await order_store.make_due(connection, to_end)
        for id in await order_store.list_due(connection, batch.id):
            if id not in self._tasks and len(self._tasks) < MAX_CONCURRENT_ORDERS:
                self._start_task(id, self._run_step(batch, id, ending))

    def _start_task(self, id: UUID, work: Coroutine[None, None, None]) -> None:
        task = self._tasks[id] = self._gateway.loop.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(id, None))

    async def close(self) -> None:
        """Cancel all running steps; another worker continues from the stored state."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_step(self, batch: Batch, id: UUID, ending: str) -> None:
        """Run one step of an order if this worker gets its lock. Never raises."""
        try:
            async with await connect(self._url) as connection:
                await connection.execute("SET synchronous_commit = on")
                order = await order_store.find(connection, id) if await order_store.try_lock(connection, id) else None
                if order is not None and order.state != order_store.ENDED:
                    reason = (ending, UNMADE_MESSAGES[ending]) if ending else self._denial_reason(batch, order)
                    await self._advance(connection, batch, order, reason)
        except (*DATABASE_ERRORS, OSError, GroundplanError) as error:
            _log.warning("order %s waits: %s: %s", id, error.__class__.__name__, first_line(error))
            await asyncio.sleep(_SHORT_DELAY_S)
        except Exception:  # noqa: BLE001 -- the boundary of this task: an order must not end the worker
            _log.exception("order %s cannot go on", id)
            await asyncio.sleep(_SHORT_DELAY_S)

    async def _advance(self, connection: Connection, batch: Batch, order: Order, ending: Reason | None) -> None:
        """Do what the order's state calls for; a failure postpones the next step. `ending`: why it is to end."""
        provider = self._provider_for(order)
        try:
            if order.state == NEW:
                if ending is not None:
                    await self._end_unmade(connection, batch, order, ending)
                else:
                    await self._send_order(connection, batch, order, provider)
            elif order.state == SENDING:
                await self._resolve_sending(connection, order, provider)
            else:
                await self._poll(connection, batch, order, provider, ending)
        except ProviderUnavailable as unavailable:
            await self._postpone_or_give_up(connection, batch, order, str(unavailable))
        except ProviderRefused as refused:
            if order.state != NEW:  # the provider has this order: its results are not given up at once
                await self._postpone_or_give_up(connection, batch, order, str(refused))
                return
            message = f"the provider refused the order: {refused}"
            current = await order_store.find(connection, order.id) or order  # its input may be uploaded by now
            await self._end_unmade(connection, batch, current, ("batch_order_refused", message))
        except (GroundplanError, OSError) as error:  # on our side, such as a full disk
            problem = error.message if isinstance(error, GroundplanError) else str(error)
            await order_store.postpone(connection, order.id, _retry_delay(order.tries), problem)

    async def _postpone_or_give_up(self, connection: Connection, batch: Batch, order: Order, problem: str) -> None:
        """Try again later; or end an order that may be at its provider, if that has not answered until long after the
        batch has expired: each of its calls then counts at its bound."""
        if order.state == NEW or not await order_store.is_given_up(connection, order.id):
            await order_store.postpone(connection, order.id, _retry_delay(order.tries), problem)
            return
        _log.error("order %s is given up, its calls count at their bounds: %s", order.id, problem)
        lost = [ProviderResults(None, ResultFiles(())) for _ in order.provider_batches or ("",)]
        await self._record_results(connection, batch, order, lost, order_results.unmade_reason([], None))
        await self._delete_files(order, self._provider_for(order), [])

    def _provider_for(self, order: Order) -> Provider:
        """The client of the batch API of the order's deployment, which falls back to the deployment's present key."""
        deployment, catalog = order.deployment, self._gateway.live.catalog
        provider = MessageBatches if deployment.api == "anthropic" else OpenAIBatches
        declared = () if catalog is None else catalog.blueprint.deployments
        current = next((each for each in declared if each.name == deployment.name), None)
        fallback = None
        if current is not None and (current.url, current.api) == (deployment.url, deployment.api):
            fallback = msgspec.structs.replace(deployment, key=current.key, keys=current.keys)
        return provider(self._gateway, deployment, fallback if fallback != deployment else None)

    def _denial_reason(self, batch: Batch, order: Order) -> Reason | None:
        """Why the order's key, workload or deployment may no longer be used; None: they may."""
        if self._calls.known_key(batch) is None:
            return None  # this worker has not heard of a new key yet
        try:
            self._calls.check(batch, order)
        except GroundplanError as error:
            return (
                None if error.status == 503 else (error.code, f"{error.message}; the provider had not made this call")
            )
        return None

    # sending ----------------------------------------------------------------------------------------------------------

    async def _send_order(self, connection: Connection, batch: Batch, order: Order, provider: Provider) -> None:
        """Send the order, unless the provider already has it, which a restored database may not know. Raises
        `ProviderUnavailable`, `ProviderRefused`."""
        if (await self._adopt_existing(connection, order, provider)).batches:
            return
        file = await self._ensure_uploaded(connection, batch, order, provider)
        if file is None:
            await self._end_unmade(connection, batch, order, ("batch_line_refused", "no call of it may be made"))
            return
        # again: writing and uploading the input may take an hour
        if (denied := self._denial_reason(batch, order)) is not None:
            current = await order_store.find(connection, order.id) or order
            await self._end_unmade(connection, batch, current, denied)
            return
        path, headers = self._blobs.path(_file_id(order, INPUT)), batch_calls.order_header_lines(batch)
        await order_store.mark_sending(connection, order.id)
        try:
            provider_batch = await provider.create(OrderInput(order.id, batch.endpoint, path, file, headers))
        except ProviderUnavailable as unavailable:
            if not unavailable.may_have_acted:
                await order_store.mark_not_sent(connection, order.id)
            raise
        await order_store.mark_sent(connection, order.id, [provider_batch])

    async def _ensure_uploaded(
        self, connection: Connection, batch: Batch, order: Order, provider: Provider
    ) -> str | None:
        """The provider's id of the order's input file, uploaded now if needed; empty where the request of the order
        holds the input itself; None: the input has no call. Raises `ProviderUnavailable`, `ProviderRefused`."""
        if order.provider_file is not None:
            return order.provider_file
        name = _upload_name(order)
        uploader = provider if isinstance(provider, UploadingProvider) else None
        found = await uploader.find_uploads(name) if uploader is not None and order.uploading else []
        file = found[0] if found else None
        if file is None:
            if not await self._write_input(connection, batch, order, provider):
                return None
            if uploader is None:
                return ""
            await order_store.mark_uploading(connection, order.id)
            file = await uploader.upload(self._blobs.path(_file_id(order, INPUT)), name)
        await order_store.mark_uploaded(connection, order.id, file)
        return file

    async def _order_query(self, connection: Connection, order: Order) -> OrderQuery:
        """The query by which the order is looked for at the provider."""
        sent = None if order.sending_at is None else order.sending_at.timestamp()
        since = order.created_at - _DAY
        lines = await order_store.count_open_lines(connection, order.id)
        others = await order_store.other_provider_batches(connection, order.id, since)
        return OrderQuery(order.id, lines, since.timestamp(), sent, others)

    async def _adopt_existing(self, connection: Connection, order: Order, provider: Provider) -> FoundBatches:
        """Look for the order at the provider, and mark it as sent where it is found."""
        found = await provider.find(await self._order_query(connection, order))
        if found.batches:
            await order_store.mark_sent(connection, order.id, found.batches)
        return found

    async def _resolve_sending(self, connection: Connection, order: Order, provider: Provider) -> None:
        """Find out whether an order whose sending was interrupted reached the provider. If the provider does not have
        it once that request can no longer be in flight, it never arrived. Raises `ProviderUnavailable`."""
        found = await self._adopt_existing(connection, order, provider)
        if found.batches:
            return
        if found.undecided:
            problem = f"whether the provider has this order is known when its batch {found.undecided} has ended"
            await order_store.postpone(connection, order.id, _retry_delay(order.tries), problem)
            return
        longest = provider.max_request_seconds(self._blobs.path(_file_id(order, INPUT)))
        elapsed = await order_store.seconds_since_sending(connection, order.id)
        if elapsed > longest:
            await order_store.mark_not_sent(connection, order.id)
        else:
            await order_store.postpone(connection, order.id, min(longest - elapsed + 0.1, longest))

    async def _write_input(self, connection: Connection, batch: Batch, order: Order, provider: Provider) -> bool:
        """Write the input file of the order's calls and return whether it has any. Calls that may no longer be made are
        ended."""
        count = 0

        async def input_lines() -> AsyncGenerator[bytes, None]:
            nonlocal count
            async with (
                connection.transaction(),
                aclosing(order_store.iterate_open_lines(connection, order.id)) as found,
            ):
                async for lines in found:
                    refused = []
                    for line in lines:
                        data, error = await self._provider_line(batch, order, provider, line)
                        if error is not None:
                            refused.append((line, False, msgspec.json.encode(error)))
                            continue
                        yield provider.separator + data if count else data
                        count += 1
                    await order_store.end_lines(connection, order, refused)

        await self._blobs.keep(_file_id(order, INPUT), input_lines(), most=_MAX_RESULT_BYTES)
        return count > 0

    async def _provider_line(
        self, batch: Batch, order: Order, provider: Provider, line: OrderLine
    ) -> tuple[bytes, dict[str, object] | None]:
        """(line of the input file, error): a call in the provider's format, or the error line that ends the call.
        Raises `Unavailable`."""
        data = await self._blobs.part(batch.input_file, line.offset, line.length)
        try:
            body = bytes(batch_lines.read_line(data, batch.endpoint).body)
            forwarded = self._calls.forwarded_body(batch, order.deployment, line.call, body, line.held)
        except GroundplanError as error:
            if error.status == 503:
                raise
            message = f"{error.message}. {error.hint}"
            status = error.status if batch.endpoint == batch_store.MESSAGES_ENDPOINT else None
            return b"", result_store.error_line(line.call, line.custom_id, error.code, message, status)
        return provider.line(order.id, line.call, batch.endpoint, forwarded), None

    # results ----------------------------------------------------------------------------------------------------------

    async def _poll(
        self, connection: Connection, batch: Batch, order: Order, provider: Provider, ending: Reason | None
    ) -> None:
        """Read the progress of a sent order; collect its results once the provider has ended it. Raises
        `ProviderUnavailable`, `ProviderRefused`."""
        states = [(name, await self._batch_state(order, provider, name)) for name in order.provider_batches]
        counts = [state.request_counts for _, state in states if state is not None and state.request_counts is not None]
        await order_store.set_progress(
            connection, order.id, sum(each.completed for each in counts), sum(each.failed for each in counts)
        )
        running = [name for name, state in states if state is not None and not state.has_ended]
        if running and ending is not None and order.cancelled_at is None:
            for name in running:
                await provider.cancel(name)
            await order_store.mark_cancelled(connection, order.id)
            await order_store.postpone(connection, order.id, _SHORT_DELAY_S)
        elif running:
            await order_store.postpone(connection, order.id, _retry_delay(order.tries))
        elif not await self._find_duplicates(connection, order, provider):
            await self._collect_results(connection, batch, order, (provider, [state for _, state in states], ending))

    async def _find_duplicates(self, connection: Connection, order: Order, provider: Provider) -> bool:
        """Whether the provider took the order more than once, against all precautions. The additional batches are
        cancelled; what they cost is awaited, paid like the rest, and flagged."""
        found = await provider.find(await self._order_query(connection, order))
        duplicates = [name for name in found.batches if name not in order.provider_batches]
        if not duplicates:
            return False
        _log.error("the provider took order %s %d times", order.id, len(duplicates) + 1)
        for name in duplicates:
            await provider.cancel(name)
        await order_store.mark_sent(connection, order.id, [*order.provider_batches, *duplicates])
        return True

    async def _collect_results(
        self,
        connection: Connection,
        batch: Batch,
        order: Order,
        outcome: tuple[Provider, list[ProviderBatch | None], Reason | None],
    ) -> None:
        """Fetch the result files of an ended order, record its costs and results, and delete the files. Raises
        `ProviderUnavailable`."""
        provider, states, ending = outcome
        fetched = [await self._fetch_results(order, provider, number, state) for number, state in enumerate(states)]
        await self._record_results(connection, batch, order, fetched, order_results.unmade_reason(states, ending))
        await self._delete_files(order, provider, states)

    async def _batch_state(self, order: Order, provider: Provider, name: str) -> ProviderBatch | None:
        """The state of a provider's batch; None: the provider has lost it. Raises `ProviderUnavailable`,
        `ProviderRefused`."""
        try:
            return await provider.retrieve(name)
        except ProviderRefused as refused:
            self._check_lost(order, name, refused)
            return None

    def _check_lost(self, order: Order, name: str, refused: ProviderRefused) -> None:
        """Return if a batch or file that the provider had is lost, that is, answered with 404 for a while: a provider
        may not find everywhere what it created a moment ago, so `ProviderUnavailable` is raised until then. Raises
        `ProviderRefused` for any other refusal."""
        if refused.status != 404:
            raise refused
        now = self._gateway.loop.time()
        if now - self._missing_since.setdefault((order.id, name), now) < _MISSING_GRACE_S:
            raise ProviderUnavailable(f"the provider does not know {name[:100]}", may_have_acted=False) from refused

    async def _fetch_results(
        self, order: Order, provider: Provider, number: int, state: ProviderBatch | None
    ) -> ProviderResults:
        """Download the result files of one of the order's batches, and index them."""
        paths, lost = [], False
        for kind, name in (
            ("output", state.output_file_id if state else None),
            ("errors", state.error_file_id if state else None),
        ):
            if name is not None:
                id = _file_id(order, f"{number} {kind}")
                try:
                    await self._blobs.keep(id, provider.content(name), most=_MAX_RESULT_BYTES)
                except ProviderRefused as refused:
                    self._check_lost(order, name, refused)
                    lost = True  # calls without a result then count at their bounds, also in a batch that was cancelled
                    continue
                paths.append(self._blobs.path(id))
        results, yielded_at = ResultFiles(paths), 0
        for read in results.scan():
            if read - yielded_at > _YIELD_BYTES:
                yielded_at = read
                await asyncio.sleep(0)
        return ProviderResults(None if lost else state, results)

    async def _end_unmade(self, connection: Connection, batch: Batch, order: Order, reason: Reason) -> None:
        """End an order of which the provider made no call: all that is held for it goes back."""
        await self._record_results(connection, batch, order, [], reason)
        await self._delete_files(order, self._provider_for(order), [])

    async def _record_results(
        self, connection: Connection, batch: Batch, order: Order, fetched: list[ProviderResults], unmade: Reason
    ) -> None:
        """Record an order's costs and results, which ends it. `unmade`: the error of calls that were not made."""
        await self._recorder.record_results(connection, batch, order, fetched, unmade)
        self._missing_since = {key: since for key, since in self._missing_since.items() if key[0] != order.id}
        self.on_order_ended()

    async def _delete_files(self, order: Order, provider: Provider, states: list[ProviderBatch | None]) -> None:
        """Delete the order's files, here and at the provider. A failure is logged, and `sweep` tries again: the input
        file here is deleted last, as the mark that something is left; it is empty by then."""
        self._drop_content(order.id)
        files = [file for state in states if state is not None for file in (state.output_file_id, state.error_file_id)]
        retry_later = False

        def note_problem(problem: ProviderUnavailable | ProviderRefused) -> None:
            nonlocal retry_later
            retry_later |= isinstance(problem, ProviderUnavailable)
            if isinstance(problem, ProviderUnavailable) or problem.status != 404:
                _log.warning("a file of order %s stays at the provider: %s", order.id, problem)

        inputs: list[str] = [] if order.provider_file is None else [order.provider_file]
        try:
            inputs += await self._other_uploads(order, provider)
        except (ProviderUnavailable, ProviderRefused) as problem:
            if isinstance(problem, ProviderUnavailable) or not inputs:  # else it lists no files, and one is known
                note_problem(problem)
        for name in filter(None, (*inputs, *files)):
            try:
                await provider.delete(name)
            except (ProviderUnavailable, ProviderRefused) as problem:
                note_problem(problem)
        if not retry_later:
            self._blobs.path(_file_id(order, INPUT)).unlink(missing_ok=True)

    async def _other_uploads(self, order: Order, provider: Provider) -> list[str]:
        """The uploads of the order's input whose id is not stored: the answer to an upload was lost, or its worker was
        killed before it stored the id; the next worker may have looked too early, and uploaded the input once more.
        Raises `ProviderUnavailable`, `ProviderRefused`."""
        if not order.uploading or not isinstance(provider, UploadingProvider):
            return []
        return [file for file in await provider.find_uploads(_upload_name(order)) if file != order.provider_file]

    def _drop_content(self, id: UUID) -> None:
        """Delete the prompts and answers of an ended order here, whether or not its provider can be reached."""
        for kind in [f"{n} {kind}" for n in range(8) for kind in ("output", "errors")]:
            self._blobs.path(uuid5(id, kind)).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.truncate(self._blobs.path(uuid5(id, INPUT)), 0)

    async def sweep(self, connection: Connection) -> None:
        """Delete files that ended orders have left because a worker was killed or their provider was unavailable. After
        a week those at the provider are given up."""
        for id, given_up in await order_store.list_recently_ended(connection):
            if id in self._tasks or not self._blobs.path(uuid5(id, INPUT)).exists():
                continue
            self._drop_content(id)
            if given_up:
                _log.error("order %s: its provider has not deleted its files for a week, and is not asked again", id)
                self._blobs.path(uuid5(id, INPUT)).unlink(missing_ok=True)
            elif len(self._tasks) < MAX_CONCURRENT_ORDERS:
                self._start_task(id, self._sweep_order(id))

    async def _sweep_order(self, id: UUID) -> None:
        try:
            async with await connect(self._url) as connection:
                order = await order_store.find(connection, id) if await order_store.try_lock(connection, id) else None
                if order is not None:
                    provider = self._provider_for(order)
                    states = [await self._batch_state(order, provider, name) for name in order.provider_batches]
                    await self._delete_files(order, provider, states)
        except (*DATABASE_ERRORS, OSError, ProviderUnavailable, ProviderRefused) as problem:
            _log.warning("files of order %s stay: %s: %s", id, problem.__class__.__name__, first_line(problem))


def _retry_delay(tries: int) -> float:
    """Seconds until the next step of an order: longer with each try."""
    return float(min(_MAX_POLL_DELAY_S, 0.5 * 1.5 ** min(tries, 16)))


def _upload_name(order: Order) -> str:
    """The name of the order's input file at the provider, by which it is found again."""
    return f"groundplan-{order.id}.jsonl"


def _file_id(order: Order, kind: str) -> UUID:
    """The id in the blob store of one of the order's files."""
    return uuid5(order.id, kind)
