"""Checks whether a batch can be begun: reads each line of its input and sums up the most that they can cost.

Reads a few lines at a time, so that calls do not wait for it. Reserves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from groundplan.blueprint.model import Budget, Deployment
from groundplan.core.errors import GroundplanError, Invalid, Unavailable
from groundplan.core.ids import new_id
from groundplan.core.money import distinct_usd, short_usd
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.batches.batch_lines import MAX_LINE_BYTES, RequestLine, max_lines, read_line
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT, Batch, BatchLine
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.files.blobs import DAMAGED, ELSEWHERE, Blobs
from groundplan.gateway.surfaces.images import IMAGES

MAX_ERRORS = 50
MAX_IMAGES = 1_000
"""The most images that one batch may make: each may have megabytes, and all are kept until its last line is done."""
_MAX_ORDER_BYTES = 190 << 20
"""Size of an order's input file; providers take 200 MB."""
_YIELD_BYTES = 16 << 10


@dataclass(slots=True)
class OrderDraft:
    """An order to be created: `held` picodollars for `lines` lines; `size` is an upper bound of its file's bytes."""

    id: UUID
    deployment: Deployment
    lines: int = 0
    held: int = 0
    size: int = 0


@dataclass(slots=True)
class CheckResult:
    """The result of a check: `errors` in OpenAI's format; without any, `lines` can be begun for at most `total`
    picodollars."""

    lines: list[BatchLine] = field(default_factory=list)
    total: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    charges: Sequence[tuple[Budget, str]] = ()
    blueprint: int = 0
    orders: list[OrderDraft] = field(default_factory=list)
    """The orders at providers' own batch endpoints that some of the lines belong to."""
    images: int = 0

    def add_images(self, count: int) -> None:
        """Count images that a line makes. Raises `Invalid` where the batch makes too many."""
        self.images += count
        if self.images > MAX_IMAGES:
            message, hint = f"the batch makes more than {MAX_IMAGES} images", "Order several batches."
            raise Invalid(message, code="batch_images", hint=hint)

    def refuse_all(self, code: str, message: str) -> None:
        """Give every line this error, unless it has one of its own, so that none is made."""
        error = (code, message)
        self.lines = [line if line.error else replace(line, bound=0, order=None, error=error) for line in self.lines]
        self.total, self.orders = 0, []


async def check(
    gateway: Gateway, calls: BatchCalls, blobs: Blobs, batch: Batch, size: int | None = None
) -> CheckResult:
    """Check all lines of a batch's input, which was written with `size` bytes. Raises `Unavailable` where that cannot
    be done now."""
    checked = CheckResult()
    try:
        return await _check_lines(gateway, calls, blobs, (batch, size), checked)
    except Unavailable as error:
        if error.code not in (DAMAGED, ELSEWHERE):
            raise
        # trying again would not help: it is checked where its input was stored, or adopted after its expiry
        checked.errors.append(_error(error.code, f"the batch's input cannot be read: {error.message}", None))
        return checked


async def _check_lines(
    gateway: Gateway, calls: BatchCalls, blobs: Blobs, source: tuple[Batch, int | None], checked: CheckResult
) -> CheckResult:
    batch, size = source
    names, unyielded = set[str](), 0
    number, most = 0, max_lines(batch.endpoint)
    async for offset, data in _read_lines(blobs, batch, size):
        if not data.strip():
            continue
        number += 1
        if number > most:
            checked.errors.append(_error("batch_lines", f"there are more than {most} lines", number))
        else:
            await _check_line(gateway, calls, batch, checked, names, (number, offset, data))
        if len(checked.errors) >= MAX_ERRORS:
            return checked
        unyielded += len(data) + 512
        if unyielded > _YIELD_BYTES:
            unyielded = 0
            await asyncio.sleep(0)
    if not number:
        checked.errors.append(_error("batch_empty", "the input has no line", None))
    return checked


def budget_refusal(checked: CheckResult, left: int) -> list[dict[str, Any]]:
    """The error of a batch that needs more than its budgets have left (picodollars), with how many lines would fit."""
    fits, total = 0, 0
    for line in checked.lines:
        total += line.bound
        if total > left:
            break
        fits += 1
    message = (
        f"the batch may cost up to {distinct_usd(checked.total, left)}, and its budgets have {short_usd(max(0, left))} "
        f"left: the first {fits} of its {len(checked.lines)} lines would fit"
    )
    return [_error("budget_exhausted", message, None)]


async def _check_line(
    gateway: Gateway,
    calls: BatchCalls,
    batch: Batch,
    checked: CheckResult,
    names: set[str],
    numbered: tuple[int, int, bytes],
) -> None:
    """Check one line, (number, offset, bytes), and add it, or its error, to `checked`. Raises only what may pass."""
    number, offset, data = numbered
    line: RequestLine | None = None
    try:
        line = read_line(data, batch.endpoint)
        if line.custom_id in names:
            raise Invalid("this custom_id is there twice", code="custom_id_twice", hint="Use each once.")
        names.add(line.custom_id)
        exchange = calls.exchange(batch, new_id(), bytes(line.body))
        bound = await calls.assess_off_loop(exchange, batch)
        if exchange.interface is IMAGES:
            checked.add_images(1 if exchange.ask is None else exchange.ask.copies)
        if not checked.charges and exchange.plan is not None:
            checked.charges = admit.covering_budgets(exchange, exchange.plan, gateway.clock.now().timestamp())
            checked.blueprint = exchange.catalog.number if exchange.catalog is not None else 0
    except GroundplanError as error:
        if error.status == 503:
            raise
        message = f"{error.message}. {error.hint}"
        if line is not None and batch.endpoint == MESSAGES_ENDPOINT:  # a message batch goes on without this line
            refused = BatchLine(number, line.custom_id, offset, len(data), 0)
            checked.lines.append(replace(refused, error=(error.code, message), error_status=error.status))
        else:
            checked.errors.append(_error(error.code, message, number))
        return
    order = _order_for(calls, checked, exchange, len(data))
    checked_line = BatchLine(number, line.custom_id, offset, len(data), bound)
    if order is not None:
        bound, most = exchange.bounds[order.deployment.name], admit.max_usage(exchange, order.deployment)
        order.lines, order.held = order.lines + 1, order.held + bound
        checked_line = replace(checked_line, bound=bound, order=order.id, max_tokens=(most.input, most.output))
    checked.lines.append(checked_line)
    checked.total += bound


def _order_for(calls: BatchCalls, checked: CheckResult, exchange: Exchange, length: int) -> OrderDraft | None:
    """The order that a line goes to: the newest one at its deployment that has room, or a new one; None: the line is
    made as a call."""
    deployment = calls.provider_deployment(exchange)
    if deployment is None:
        return None
    size = length + admit.added_bytes(exchange, exchange.workload) + 512 if exchange.workload is not None else length
    order = next((each for each in reversed(checked.orders) if each.deployment.name == deployment.name), None)
    if order is None or order.size + size > _MAX_ORDER_BYTES:
        checked.orders.append(order := OrderDraft(new_id(), deployment))
    order.size += size
    return order


async def _read_lines(blobs: Blobs, batch: Batch, size: int | None) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the (offset, bytes) of each line; the last one may be cut where it is too long."""
    rest, offset = b"", 0
    async for chunk in blobs.read(batch.input_file, size):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield offset, line
            offset += len(line) + 1
        if len(rest) > MAX_LINE_BYTES:
            yield offset, rest  # lines behind it are not read
            return
    if rest:
        yield offset, rest


def _error(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}
