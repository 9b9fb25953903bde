"""Whether a batch can be begun: each line of its input is read, and the most that it can cost is summed up.

Reads a few lines at a time, so that calls do not wait for it. Reserves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Budget, Deployment
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.ids import new_id
from groundplan.core.money import short_usd
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.batches.batch_store import Batch, Line
from groundplan.gateway.batches.shelf import Shelf
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange

MOST_LINES = 50_000
LINE_BYTES = 4 << 20
MOST_ERRORS = 50
_ORDER_BYTES = 190 << 20
"""Of one file at a provider, which takes 200 MB."""
_TURN_BYTES = 16 << 10


class LineBody(msgspec.Struct, frozen=True):
    """One line of an input file."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


_line = msgspec.json.Decoder(LineBody).decode


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
    charges: list[tuple[Budget, str]] = field(default_factory=list)
    blueprint: int = 0
    orders: list[Ordering] = field(default_factory=list)
    """What providers are to make at their own batch endpoints."""


async def check(gateway: Gateway, calls: BatchCalls, shelf: Shelf, batch: Batch) -> Checked:
    """Read all of the input. Raises `Unavailable` where that cannot be done now."""
    checked, names, turn = Checked(), set[str](), 0
    number = 0
    async for place, data in _lines(shelf, batch):
        if not data.strip():
            continue
        number += 1
        if number > MOST_LINES:
            checked.errors.append(_error("batch_lines", f"there are more than {MOST_LINES} lines", number))
        else:
            _judge(gateway, calls, batch, checked, names, (number, place, data))
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
        f"the batch may cost up to {short_usd(checked.total)}, and its budgets have {short_usd(max(0, left))} left: "
        f"the first {fits} of its {len(checked.lines)} lines would fit"
    )
    return [_error("budget_exhausted", message, None)]


def _judge(
    gateway: Gateway, calls: BatchCalls, batch: Batch, checked: Checked, names: set[str], found: tuple[int, int, bytes]
) -> None:
    number, place, data = found
    try:
        line = read_line(data, batch.endpoint)
        if line.custom_id in names:
            raise Invalid("this custom_id is there twice", code="custom_id_twice", hint="Use each once.")
        names.add(line.custom_id)
        exchange = calls.exchange(batch, new_id(), bytes(line.body))
        bound = calls.assess(exchange, batch)
        if not checked.charges and exchange.plan is not None:
            checked.charges = admit.covering(exchange, exchange.plan, gateway.clock.now().timestamp())
            checked.blueprint = exchange.catalog.number if exchange.catalog is not None else 0
    except GroundplanError as error:
        if error.status == 503:
            raise
        checked.errors.append(_error(error.code, f"{error.message}. {error.hint}", number))
        return
    order = _order(calls, checked, exchange, len(data))
    if order is not None:
        bound = exchange.bounds[order.deployment.name]
        order.lines, order.held = order.lines + 1, order.held + bound
    checked.lines.append(Line(number, line.custom_id, place, len(data), bound, None if order is None else order.id))
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


def read_line(data: bytes, endpoint: str) -> LineBody:
    """Raises `Invalid`."""
    try:
        line = _line(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = 'Write {"custom_id": ..., "method": "POST", "url": ..., "body": {...}} on one line.'
        raise Invalid(f"the line is not a request: {error}", code="invalid_json_line", hint=hint) from error
    if not 1 <= len(line.custom_id) <= 256 or "\0" in line.custom_id:
        raise Invalid("custom_id is empty or too long", code="custom_id_length", hint="Use 1 to 256 characters.")
    if line.method != "POST" or line.url != endpoint:
        raise Invalid(
            f"the line is not POST {endpoint}", code="mismatched_url", hint="All lines call the batch's endpoint."
        )
    return line


async def _lines(shelf: Shelf, batch: Batch) -> AsyncIterator[tuple[int, bytes]]:
    """(place, bytes) of each line."""
    rest, place = b"", 0
    async for chunk in shelf.read(batch.input_file):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield place, line
            place += len(line) + 1
        if len(rest) > LINE_BYTES:
            yield place, rest[:100]
            return
    if rest:
        yield place, rest


def _error(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}
