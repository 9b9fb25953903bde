"""The results of an order, call by call: found in the provider's files, priced, and formatted for the client.

A call has one attempt for each time that the provider made it, so none if the provider did not make it. Where the
provider may have made a call and reports no usage, it is counted at the call's bound. Reads files; sends and stores
nothing.
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
from groundplan.gateway.batches.batch_store import Batch
from groundplan.gateway.batches.orders.order_store import Order, OrderLine
from groundplan.gateway.batches.providers.provider import MAX_RESULT_LINE, ProviderBatch
from groundplan.gateway.batches.result_store import error_line
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.feature import FEATURE, TICKET
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.codec import Malformed, UpstreamAnswer
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.upstream_json import decode_upstream, parse_answer
from groundplan.ledger.model import OVER_BOUND, OVER_INPUT, Charge, Finish, Reservation, Settlement, Usage

PROVIDER_BATCH, SENT_TWICE, NO_USAGE = "provider_batch", "sent_twice", "no_usage"
"""Flags of an attempt that a provider made for a batch: on every one; on any but the first of a call; on one without
reported usage."""
Reason = tuple[str, str]
"""(code, message) of calls that are not made."""
CANCELLED, EXPIRED = "batch_cancelled", "batch_expired"
UNMADE_MESSAGES = {
    CANCELLED: "the batch was cancelled before the provider made this call",
    EXPIRED: "the batch expired before the provider made this call",
}
UNMADE_CODES = frozenset({EXPIRED, CANCELLED})
"""Error codes by which a provider says that it did not make a call."""
_FEATURE, _TICKET = FEATURE.decode(), TICKET.decode()
_encode = msgspec.json.Encoder().encode


class _Response(msgspec.Struct, frozen=True):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")
    request_id: Any = None


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None
    status_code: int | None = None
    """See `error_line`; providers have no such field."""


class ResultLine(msgspec.Struct, frozen=True):
    """One line of a provider's result file, or of ours."""

    custom_id: str
    id: Any = None
    response: _Response | None = None
    error: _Error | None = None


_result = msgspec.json.Decoder(ResultLine).decode
UNKNOWN_ASK = Ask(
    fields={}, model="", messages=0, query="", stream=False, include_usage=False, cap=None, copies=1, size=0,
    needs=frozenset({BATCH}), service=BATCH,
)  # fmt: skip
"""Stands for a request that is no longer at hand where its answer is read."""


class ResultFiles:
    """The result files of one of the provider's batches, with an index of the calls in them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._positions: dict[str, tuple[int, int, int]] = {}

    def scan(self) -> Iterator[int]:
        """Build the index; yields the number of bytes read so far, so that the caller can let other tasks run."""
        read = 0
        for number, path in enumerate(self._paths):
            offset, too_long = 0, False
            with path.open("rb") as file:
                while line := file.readline(MAX_RESULT_LINE + 1):
                    is_end = line.endswith(b"\n") or len(line) <= MAX_RESULT_LINE
                    if is_end and not too_long:
                        try:
                            self._positions.setdefault(
                                decode_upstream(_result, line).custom_id, (number, offset, len(line))
                            )
                        except Malformed:
                            pass  # the call of an unreadable line has no result
                    too_long = not is_end  # what follows is the rest of the same line, whose call has no result
                    offset += len(line)
                    read += len(line)
                    yield read

    def find(self, call: UUID) -> ResultLine | None:
        """The result of one call; None: the files have none. Raises OSError."""
        position = self._positions.get(call.hex)
        if position is None:
            return None
        number, offset, length = position
        with self._paths[number].open("rb") as file:
            file.seek(offset)
            return decode_upstream(_result, file.read(length))


@dataclass(frozen=True, slots=True)
class ProviderResults:
    """One batch at the provider that has ended. `state` None: the provider has lost the batch or its files."""

    state: ProviderBatch | None
    results: ResultFiles


@dataclass(slots=True)
class CallResult:
    """The outcome of a call: its ledger records, and what its line of a result file says."""

    ok: bool = False
    status: int = 0
    data: bytes = b""
    """The body of the answer; empty where there is none."""
    error: tuple[str, str] = ("", "")
    """(code, message) where there is no answer."""
    attempts: list[tuple[Reservation, Settlement]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        return sum(settlement.cost for _, settlement in self.attempts)

    @property
    def estimated(self) -> bool:
        return any(settlement.estimated for _, settlement in self.attempts)


@dataclass(frozen=True, slots=True)
class OrderContext:
    """The values that all calls of an order share."""

    batch: Batch
    order: Order
    interface: Interface
    at: int
    """Now, in milliseconds."""
    unmade: tuple[str, str]
    """(code, message) of calls that the provider did not make."""
    demo: bool = False


def call_result(
    context: OrderContext, line: OrderLine, fetched: Sequence[ProviderResults], ask: Ask = UNKNOWN_ASK
) -> CallResult:
    """The outcome of one call, from all of the order's batches. `ask`: what is still known of its request."""
    outcome = CallResult(error=context.unmade)
    for batch in fetched:
        _add_batch_result(outcome, context, line, (batch.results.find(line.call), batch.state), ask)
    return outcome


def _add_batch_result(
    outcome: CallResult,
    context: OrderContext,
    line: OrderLine,
    reported: tuple[ResultLine | None, ProviderBatch | None],
    ask: Ask,
) -> None:
    """Add what one of the provider's batches reports of a call: its result there, and the state of that batch."""
    result, state = reported
    if result is None:
        if state is None or state.status == "completed":
            message = "the provider told nothing of this call; it may have made it, and it is counted at its bound"
            _add_attempt(outcome, context, line, ("failed", 0, None))
            outcome.error = ("batch_line_lost", message)
        return
    if result.response is None:
        error = result.error or _Error()
        if error.code not in UNMADE_CODES:
            outcome.error = (error.code or "batch_line_failed", error.message or "the provider did not make this call")
        return
    status, answered = result.response.status_code, None
    if status == 200:
        try:
            answered = parse_answer(context.interface.codec(context.order.deployment), bytes(result.response.body), ask)
        except Malformed as problem:
            outcome.error = ("batch_line_malformed", str(problem))
        _add_attempt(
            outcome,
            context,
            line,
            ("failed" if answered is None else "ok", status, _reported_usage(answered, context.interface)),
        )
    else:
        _add_attempt(outcome, context, line, ("not_billed", status, Usage()))
    if outcome.data and (outcome.ok or answered is None):
        return
    if answered is not None:
        outcome.ok, outcome.status, outcome.data = True, status, answered.data
    elif status != 200:
        outcome.status, outcome.data = status, bytes(result.response.body)


def _reported_usage(answered: UpstreamAnswer | None, interface: Interface) -> Usage | None:
    """The usage that the provider reports; one of output without input is none."""
    usage = None if answered is None else answered.usage
    return None if usage is None or (interface.caps_output and usage.output and not usage.input) else usage


def _add_attempt(
    result: CallResult, context: OrderContext, line: OrderLine, reported: tuple[str, int, Usage | None]
) -> None:
    """Add an attempt with the `reported` (outcome, HTTP status, usage); without usage it costs the line's bound."""
    outcome, status, usage = reported
    order, batch, number = context.order, context.batch, len(result.attempts)
    flags = [PROVIDER_BATCH, SENT_TWICE] if number else [PROVIDER_BATCH]
    cost = 0
    if usage is None:
        cost = line.held
        flags.append(NO_USAGE)
    elif outcome == "ok":
        cost = min(MAX_AMOUNT, price.cost(order.deployment.rates, usage, BATCH))
        flags += _over_bound_flags(line, usage, cost)
    deployment = order.deployment
    reservation = Reservation(
        call=line.call.bytes, attempt=number, at=context.at, workload=batch.workload, person=batch.person,
        key=str(batch.key), endpoint=context.interface.name, deployment=deployment.name, site=deployment.site,
        model=deployment.model, blueprint=order.blueprint, bound=line.held,
        charges=[Charge(budget, period, line.held) for budget, period in batch.charges], demo=context.demo,
    )  # fmt: skip
    settlement = Settlement(
        call=line.call.bytes, attempt=number, at=context.at, cost=cost, outcome=outcome, http_status=status,
        usage=usage or Usage(), estimated=usage is None, flags=flags, duration_us=0,
    )  # fmt: skip
    result.attempts.append((reservation, settlement))


def _over_bound_flags(line: OrderLine, usage: Usage, cost: int) -> list[str]:
    """Flags of a call that used more than was held for it."""
    over_input = 0 < line.most_input < usage.input
    if not (over_input or cost > line.held or 0 < line.most_output < usage.output):
        return []
    return [OVER_BOUND, OVER_INPUT] if over_input else [OVER_BOUND]


def unmade_reason(states: list[ProviderBatch | None], ending: Reason | None) -> Reason:
    """The error of calls that the provider did not make."""
    if ending is not None:
        return ending
    first = next((state for state in states if state is not None), None)
    if first is not None and first.status == "failed":
        return "batch_order_failed", f"the provider did not begin the batch: {first.problem or 'it does not say why'}"
    code = CANCELLED if first is not None and first.status == "cancelled" else EXPIRED
    return code, UNMADE_MESSAGES[code]


def finish_record(context: OrderContext, line: OrderLine, result: CallResult) -> Finish:
    """The ledger's `Finish` record of a call that the provider made."""
    order, batch = context.order, context.batch
    code = "" if result.ok else "upstream_refused" if result.data else result.error[0]
    return Finish(
        call=line.call.bytes, at=context.at, workload=batch.workload, person=batch.person, key=str(batch.key),
        endpoint=context.interface.name, status="ok" if result.ok else "failed",
        http_status=result.status or 502, error_code=code, deployment=order.deployment.name, cache="none",
        blueprint=order.blueprint, duration_us=0, first_byte_us=0, steps=[], sources=[], demo=context.demo,
        feature=batch.said.get(_FEATURE, ""), ticket=batch.said.get(_TICKET, ""),
    )  # fmt: skip


def result_line(line: OrderLine, result: CallResult, data: bytes) -> bytes:
    """The call's line of the output or error file; `data` is the answer with the facts of the call."""
    if not result.data:
        return _encode(error_line(line.call, line.custom_id, *result.error))
    try:
        body: Any = msgspec.Raw(data)
        msgspec.json.decode(data)
    except DECODE_ERRORS:
        body = None
    return _encode(
        {
            "id": f"batch_req_{line.call.hex}",
            "custom_id": line.custom_id,
            "response": {"status_code": result.status, "request_id": str(line.call), "body": body},
            "error": None,
        }
    )
