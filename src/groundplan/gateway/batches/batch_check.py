"""Whether a batch can be begun: each line of its input is read, and the most that it can cost is summed up.

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
from groundplan.gateway.batches.batch_lines import LINE_BYTES, LineBody, most_lines, read_line
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT, Batch, Line
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.files.blobs import DAMAGED, Blobs
from groundplan.gateway.surfaces.images import IMAGES

MOST_ERRORS = 50
MOST_IMAGES = 1_000
"""That one batch makes: each may have megabytes, and all are kept until its last line is done."""
_ORDER_BYTES = 190 << 20
"""Of one file at a provider, which takes 200 MB."""
_TURN_BYTES = 16 << 10


@dataclass(slots=True)
class Ordering:
    """An order that is being put together. `held` are picodollars, `size` the bytes that its file may have."""

    id: UUID
    deployment: Deployment
    lines: int = 0
    held: int = 0
    size: int = 0


@dataclass(slots=True)
class Checked:
    """`errors` are OpenAI's; without any, `lines` can be begun for `total` picodollars at most."""

    lines: list[Line] = field(default_factory=list)
    total: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    charges: Sequence[tuple[Budget, str]] = ()
    blueprint: int = 0
    orders: list[Ordering] = field(default_factory=list)
    """What providers are to make at their own batch endpoints."""
    images: int = 0

    def add_images(self, count: int) -> None:
        """Raises `Invalid` where it would make too many."""
        self.images += count
        if self.images > MOST_IMAGES:
            told, hint = f"the batch makes more than {MOST_IMAGES} images", "Order several batches."
            raise Invalid(told, code="batch_images", hint=hint)

    def refuse_all(self, code: str, message: str) -> None:
        """No line is made: each has this error, where it has none of its own."""
        why = (code, message)
        self.lines = [line if line.error else replace(line, bound=0, order=None, error=why) for line in self.lines]
        self.total, self.orders = 0, []


async def check(gateway: Gateway, calls: BatchCalls, blobs: Blobs, batch: Batch, size: int | None = None) -> Checked:
    """Read all of the input, which was written with `size` bytes. Raises `Unavailable` where that cannot be done
    now."""
    checked = Checked()
    try:
        return await _checked(gateway, calls, blobs, (batch, size), checked)
    except Unavailable as error:
        if error.code != DAMAGED:
            raise
        checked.errors.append(_error(DAMAGED, error.message, None))  # it will not be whole later, either
        return checked


async def _checked(
    gateway: Gateway, calls: BatchCalls, blobs: Blobs, asked: tuple[Batch, int | None], checked: Checked
) -> Checked:
    batch, size = asked
    names, turn = set[str](), 0
    number, most = 0, most_lines(batch.endpoint)
    async for place, data in _lines(blobs, batch, size):
        if not data.strip():
            continue
        number += 1
        if number > most:
            checked.errors.append(_error("batch_lines", f"there are more than {most} lines", number))
        else:
            await _judge(gateway, calls, batch, checked, names, (number, place, data))
        if len(checked.errors) >= MOST_ERRORS:
            return checked
        turn += len(data) + 512
        if turn > _TURN_BYTES:
            turn = 0
            await asyncio.sleep(0)
    if not number:
        checked.errors.append(_error("batch_empty", "the input has no line", None))
    return checked


def too_dear(checked: Checked, left: int) -> list[dict[str, Any]]:
    """The refusal of a batch of which the budgets have no room for all, with how many of its lines they have."""
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


async def _judge(
    gateway: Gateway, calls: BatchCalls, batch: Batch, checked: Checked, names: set[str], found: tuple[int, int, bytes]
) -> None:
    number, place, data = found
    line: LineBody | None = None
    try:
        line = read_line(data, batch.endpoint)
        if line.custom_id in names:
            raise Invalid("this custom_id is there twice", code="custom_id_twice", hint="Use each once.")
        names.add(line.custom_id)
        exchange = calls.exchange(batch, new_id(), bytes(line.body))
        bound = await calls.assess_beside(exchange, batch)
        if exchange.interface is IMAGES:
            checked.add_images(1 if exchange.ask is None else exchange.ask.copies)
        if not checked.charges and exchange.plan is not None:
            checked.charges = admit.covering(exchange, exchange.plan, gateway.clock.now().timestamp())
            checked.blueprint = exchange.catalog.number if exchange.catalog is not None else 0
    except GroundplanError as error:
        if error.status == 503:
            raise
        told = f"{error.message}. {error.hint}"
        if line is not None and batch.endpoint == MESSAGES_ENDPOINT:  # Anthropic's go on without it
            checked.lines.append(Line(number, line.custom_id, place, len(data), 0, error=(error.code, told)))
        else:
            checked.errors.append(_error(error.code, told, number))
        return
    order = _order(calls, checked, exchange, len(data))
    judged = Line(number, line.custom_id, place, len(data), bound)
    if order is not None:
        bound, most = exchange.bounds[order.deployment.name], admit.most_tokens(exchange, order.deployment)
        order.lines, order.held = order.lines + 1, order.held + bound
        judged = replace(judged, bound=bound, order=order.id, most=(most.input, most.output))
    checked.lines.append(judged)
    checked.total += bound


def _order(calls: BatchCalls, checked: Checked, exchange: Exchange, length: int) -> Ordering | None:
    """The order that a line belongs to: the newest one at its deployment that has room; None: it is made as a call."""
    place = calls.place(exchange)
    if place is None:
        return None
    size = length + admit.added_bytes(exchange, exchange.workload) + 512 if exchange.workload is not None else length
    order = next((each for each in reversed(checked.orders) if each.deployment.name == place.name), None)
    if order is None or order.size + size > _ORDER_BYTES:
        checked.orders.append(order := Ordering(new_id(), place))
    order.size += size
    return order


async def _lines(blobs: Blobs, batch: Batch, size: int | None) -> AsyncIterator[tuple[int, bytes]]:
    """(place, bytes) of each line."""
    rest, place = b"", 0
    async for chunk in blobs.read(batch.input_file, size):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield place, line
            place += len(line) + 1
        if len(rest) > LINE_BYTES:
            yield place, rest  # nothing behind it is looked at
            return
    if rest:
        yield place, rest


def _error(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}
