"""What a provider gave back for an order, call by call: found in its files, priced, and worded for the caller.

A call that the provider made has an attempt for each time that it made it; one that it did not make has none. What it
does not tell of a call that it may have made is counted at the call's bound. Reads files; sends and stores nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from groundplan.core.money import MAX_AMOUNT
from groundplan.economics import price
from groundplan.economics.price import BATCH
from groundplan.gateway.batches.batch_store import Batch, error_line
from groundplan.gateway.batches.orders.order_store import Order, OrderLine
from groundplan.gateway.batches.providers.provider import ProviderBatch
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.feature import FEATURE, TICKET
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.codec import Malformed, UpstreamAnswer
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.upstream_json import decode_upstream, parse_answer
from groundplan.ledger.model import OVER_BOUND, OVER_INPUT, Charge, Finish, Reservation, Settlement, Usage

ORDERED, TWICE, UNTOLD = "provider_batch", "sent_twice", "no_usage"
"""Flags of an attempt that a provider made for a batch: always; where it made it once more; where it does not say what
it used."""
Why = tuple[str, str]
"""(code, message) of calls that are not made any more."""
CANCELLED, EXPIRED = "batch_cancelled", "batch_expired"
WHY = {
    CANCELLED: "the batch was cancelled before the provider made this call",
    EXPIRED: "the batch expired before the provider made this call",
}
NOT_MADE = frozenset({EXPIRED, CANCELLED})
"""What a provider says of a call that it did not make."""
_FEATURE, _TICKET = FEATURE.decode(), TICKET.decode()
_encode = msgspec.json.Encoder().encode


class _Response(msgspec.Struct, frozen=True):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class Result(msgspec.Struct, frozen=True):
    """One line of a provider's file."""

    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


_result = msgspec.json.Decoder(Result).decode
ASK = Ask(
    fields={}, model="", messages=0, query="", stream=False, include_usage=False, cap=None, copies=1, size=0,
    needs=frozenset({BATCH}), service=BATCH,
)  # fmt: skip
"""Whatever an answer's reader has to know of a request that is not here any more."""


class Results:
    """The files of one of a provider's batches: where in them the result of each call is."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._places: dict[str, tuple[int, int, int]] = {}

    def scan(self) -> Iterator[int]:
        """Find every result; gives the bytes that were read so far, so that others can have a turn."""
        read = 0
        for number, path in enumerate(self._paths):
            place = 0
            with path.open("rb") as file:
                for line in file:
                    try:
                        self._places.setdefault(decode_upstream(_result, line).custom_id, (number, place, len(line)))
                    except Malformed:
                        pass  # a line that nobody can read tells of no call; that call then has no result
                    place += len(line)
                    read += len(line)
                    yield read

    def find(self, call: UUID) -> Result | None:
        """Of one call. Raises OSError."""
        found = self._places.get(call.hex)
        if found is None:
            return None
        number, place, length = found
        with self._paths[number].open("rb") as file:
            file.seek(place)
            return decode_upstream(_result, file.read(length))


@dataclass(frozen=True, slots=True)
class Given:
    """One batch at the provider that is over. `state` None: the provider does not know it any more."""

    state: ProviderBatch | None
    results: Results


@dataclass(slots=True)
class Made:
    """What became of a call: its records, and its line of a result file."""

    ok: bool = False
    status: int = 0
    data: bytes = b""
    """The answer as the provider gave it; empty where there is none."""
    error: tuple[str, str] = ("", "")
    """(code, message) where there is no answer"""
    attempts: list[tuple[Reservation, Settlement]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        return sum(settlement.cost for _, settlement in self.attempts)

    @property
    def estimated(self) -> bool:
        return any(settlement.estimated for _, settlement in self.attempts)


@dataclass(frozen=True, slots=True)
class Terms:
    """What all calls of an order have in common."""

    batch: Batch
    order: Order
    interface: Interface
    at: int
    """Now, in milliseconds."""
    not_made: tuple[str, str]
    """(code, message) of a call that the provider did not make."""
    demo: bool = False


def made(terms: Terms, line: OrderLine, given: Sequence[Given], ask: Ask = ASK) -> Made:
    """One call, from every batch in which the provider may have made it. `ask`: what is still known of its request."""
    found = Made(error=terms.not_made)
    for each in given:
        _add(found, terms, line, (each.results.find(line.call), each.state), ask)
    return found


def _add(
    found: Made, terms: Terms, line: OrderLine, told: tuple[Result | None, ProviderBatch | None], ask: Ask
) -> None:
    result, state = told
    if result is None:
        if state is None or state.status == "completed":
            message = "the provider told nothing of this call; it may have made it, and it is counted at its bound"
            _attempt(found, terms, line, ("failed", 0, None))
            found.error = ("batch_line_lost", message)
        return
    if result.response is None:
        error = result.error or _Error()
        if error.code not in NOT_MADE:
            found.error = (error.code or "batch_line_failed", error.message or "the provider did not make this call")
        return
    status, answered = result.response.status_code, None
    if status == 200:
        try:
            answered = parse_answer(terms.interface.codec(terms.order.deployment), bytes(result.response.body), ask)
        except Malformed as problem:
            found.error = ("batch_line_malformed", str(problem))
        _attempt(
            found, terms, line, ("failed" if answered is None else "ok", status, _usage(answered, terms.interface))
        )
    else:
        _attempt(found, terms, line, ("not_billed", status, Usage()))
    if found.data and (found.ok or answered is None):
        return
    if answered is not None:
        found.ok, found.status, found.data = True, status, answered.data
    elif status != 200:
        found.status, found.data = status, bytes(result.response.body)


def _usage(answered: UpstreamAnswer | None, interface: Interface) -> Usage | None:
    """What is reported; an answer to a prompt of no token is none."""
    usage = None if answered is None else answered.usage
    return None if usage is None or (interface.caps_output and usage.output and not usage.input) else usage


def _attempt(found: Made, terms: Terms, line: OrderLine, how: tuple[str, int, Usage | None]) -> None:
    outcome, status, usage = how
    order, batch, number = terms.order, terms.batch, len(found.attempts)
    flags = [ORDERED, TWICE] if number else [ORDERED]
    cost = 0
    if usage is None:
        cost = line.held
        flags.append(UNTOLD)
    elif outcome == "ok":
        cost = min(MAX_AMOUNT, price.cost(order.deployment.rates, usage, BATCH))
        flags += _above(line, usage, cost)
    place = order.deployment
    reservation = Reservation(
        call=line.call.bytes, attempt=number, at=terms.at, workload=batch.workload, person=batch.person,
        key=str(batch.key), endpoint=terms.interface.name, deployment=place.name, site=place.site, model=place.model,
        blueprint=order.blueprint, bound=line.held,
        charges=[Charge(budget, period, line.held) for budget, period in batch.charges], demo=terms.demo,
    )  # fmt: skip
    settlement = Settlement(
        call=line.call.bytes, attempt=number, at=terms.at, cost=cost, outcome=outcome, http_status=status,
        usage=usage or Usage(), estimated=usage is None, flags=flags, duration_us=0,
    )  # fmt: skip
    found.attempts.append((reservation, settlement))


def _above(line: OrderLine, usage: Usage, cost: int) -> list[str]:
    """What is told of a call that used more than was set aside for it."""
    read = 0 < line.most_input < usage.input
    if not (read or cost > line.held or 0 < line.most_output < usage.output):
        return []
    return [OVER_BOUND, OVER_INPUT] if read else [OVER_BOUND]


def not_made(states: list[ProviderBatch | None], ending: Why | None) -> Why:
    """What is told of calls that the provider did not make."""
    if ending is not None:
        return ending
    first = next((state for state in states if state is not None), None)
    if first is not None and first.status == "failed":
        return "batch_order_failed", f"the provider did not begin the batch: {first.problem or 'it does not say why'}"
    code = CANCELLED if first is not None and first.status == "cancelled" else EXPIRED
    return code, WHY[code]


def finish(terms: Terms, line: OrderLine, found: Made) -> Finish:
    """The end of a call that the provider made."""
    order, batch = terms.order, terms.batch
    code = "" if found.ok else "upstream_refused" if found.data else found.error[0]
    return Finish(
        call=line.call.bytes, at=terms.at, workload=batch.workload, person=batch.person, key=str(batch.key),
        endpoint=terms.interface.name, status="ok" if found.ok else "failed",
        http_status=found.status or 502, error_code=code, deployment=order.deployment.name, cache="none",
        blueprint=order.blueprint, duration_us=0, first_byte_us=0, steps=[], sources=[], demo=terms.demo,
        feature=batch.said.get(_FEATURE, ""), ticket=batch.said.get(_TICKET, ""),
    )  # fmt: skip


def told(line: OrderLine, found: Made, data: bytes) -> bytes:
    """The line of the output or error file; `data` is the answer with the facts of the call."""
    if not found.data:
        return _encode(error_line(line.call, line.custom_id, *found.error))
    try:
        body: Any = msgspec.Raw(data)
        msgspec.json.decode(data)
    except DECODE_ERRORS:
        body = None
    return _encode(
        {
            "id": f"batch_req_{line.call.hex}",
            "custom_id": line.custom_id,
            "response": {"status_code": found.status, "request_id": str(line.call), "body": body},
            "error": None,
        }
    )
