"""Records what the calls of an ended order cost, and their results: in a journal of the order's own, and in its lines.

Fetching the results from the provider is `order_runner`'s; what a result means is decided in `order_results`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import msgspec

from groundplan.gateway.batches import batch_lines, result_store
from groundplan.gateway.batches.batch_calls import INTERFACES, BatchCalls
from groundplan.gateway.batches.batch_store import Batch
from groundplan.gateway.batches.orders import order_results, order_store
from groundplan.gateway.batches.orders.order_journal import OrderJournal
from groundplan.gateway.batches.orders.order_results import (
    UNKNOWN_ASK,
    CallResult,
    OrderContext,
    ProviderResults,
    Reason,
)
from groundplan.gateway.batches.orders.order_store import Order, OrderLine
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.database import Connection
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.surfaces import answers
from groundplan.gateway.surfaces.responses import surface as responses
from groundplan.gateway.surfaces.responses.surface import RESPONSES, RequestState
from groundplan.gateway.telemetry import content
from groundplan.gateway.telemetry.content_link import is_sampled
from groundplan.ledger.model import OVER_BOUND


class OrderRecorder:
    """Records the results of orders of one worker."""

    def __init__(self, gateway: Gateway, calls: BatchCalls, blobs: Blobs) -> None:
        self._gateway = gateway
        self._calls = calls
        self._blobs = blobs

    async def record_results(
        self, connection: Connection, batch: Batch, order: Order, fetched: list[ProviderResults], unmade: Reason
    ) -> None:
        """Write the costs to a journal of the order's own and the results to its lines, and end the order. Repeating it
        records nothing twice: the journal has the order's id and its calls' ids, and the same content each time.
        `unmade`: the error of calls that the provider did not make."""
        catalog = self._gateway.live.catalog
        at = int(self._gateway.clock.seconds() * 1000)
        demo = catalog.blueprint.demo if catalog is not None else False
        context = OrderContext(batch, order, INTERFACES[batch.endpoint], at, unmade, demo)
        recorded: list[tuple[OrderLine, CallResult]] = []
        journal = OrderJournal(self._blobs.home, order.id)
        try:
            async with (
                connection.transaction(),
                aclosing(order_store.iterate_open_lines(connection, order.id)) as found,
            ):
                async for lines in found:
                    done, size = [], 0
                    for line in lines:
                        result = order_results.call_result(
                            context, line, fetched, await self._original_ask(context, line)
                        )
                        finish = order_results.finish_record(context, line, result)
                        for number, (reservation, settlement) in enumerate(result.attempts, 1):
                            journal.add(reservation, settlement, finish if number == len(result.attempts) else None)
                        data = await self._result_line(context, line, result)
                        done.append((line, result.ok, data))
                        size += len(data)
                        if size > result_store.MAX_BUFFERED_BYTES:
                            await order_store.end_lines(connection, order, done)
                            done, size = [], 0
                        recorded.append(
                            (line, CallResult(result.ok, result.status, b"", result.error, result.attempts))
                        )
                        await asyncio.sleep(0)
                    await order_store.end_lines(connection, order, done)
                await journal.sync()
                journal.publish()
                await order_store.mark_ended(connection, order.id)
        except BaseException:
            journal.drop()
            raise
        for line, result in recorded:
            self._count_metrics(context, result)
            if any(OVER_BOUND in settlement.flags for _, settlement in result.attempts):
                self._gateway.live.stop(context.batch.workload, line.call)

    async def _original_ask(self, context: OrderContext, line: OrderLine) -> Ask:
        """The request as far as reading its answer needs it: a response repeats the client's own instructions, if these
        are still stored, and never ours in front of them."""
        if context.interface is not RESPONSES:
            return UNKNOWN_ASK
        request = RequestState(b"", None, store=False)
        request.original_fields["instructions"] = b"null"
        if self._blobs.path(context.batch.input_file).exists():
            raw = await self._blobs.part(context.batch.input_file, line.offset, line.length)
            fields = responses.read(bytes(batch_lines.read_line(raw, context.batch.endpoint).body)).fields
            request.original_fields["instructions"] = bytes(fields.get("instructions", b"null"))
        return msgspec.structs.replace(UNKNOWN_ASK, parsed=request)

    async def _result_line(self, context: OrderContext, line: OrderLine, result: CallResult) -> bytes:
        """The line of the result file, with the facts of its call. Stores prompt and answer where that is declared."""
        exchange = self._calls.exchange(context.batch, line.call, b"")
        catalog = self._gateway.live.catalog
        plan = catalog.plans.get(context.batch.workload) if catalog is not None else None
        if not result.ok or catalog is None or plan is None:
            return order_results.result_line(line, result, result.data)
        exchange.catalog, exchange.workload = replace(catalog, number=context.order.blueprint), plan.workload
        exchange.plan, exchange.deployment, exchange.person = plan, context.order.deployment, context.batch.person
        exchange.key = self._calls.known_key(context.batch)
        exchange.cost, exchange.estimated = result.cost, result.estimated
        data = context.interface.with_facts(result.data, answers.facts(exchange, None))
        keep = plan.workload.keep
        if (
            keep is not None
            and is_sampled(keep, line.call.bytes)
            and self._blobs.path(context.batch.input_file).exists()
        ):
            raw = await self._blobs.part(context.batch.input_file, line.offset, line.length)
            exchange.request.body = bytes(batch_lines.read_line(raw, context.batch.endpoint).body)
            exchange.sent_chunks = [data]
            content.send_content(self._gateway, exchange)
        return order_results.result_line(line, result, data)

    def _count_metrics(self, context: OrderContext, result: CallResult) -> None:
        """Count a call in /metrics, without its durations, which are not known."""
        meters, batch, deployment = self._gateway.call_counters, context.batch, context.order.deployment.name
        for _, settlement in result.attempts:
            labels = (batch.workload, deployment, settlement.outcome)
            meters.count_provider_attempt(labels, settlement.usage, settlement.cost, settlement.estimated)
        if result.attempts:
            outcome, status = ("ok", 200) if result.ok else ("failed", result.status or 502)
            meters.count_provider_call((context.interface.name, batch.workload, deployment, outcome, status))
