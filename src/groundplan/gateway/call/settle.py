"""Step 6: journals what the call cost, before the client gets the last byte. Also settles attempts that failed.

All writing is synchronous, so a cancelled request still settles; only waiting for the disk is awaited, by the caller.
"""

from __future__ import annotations

import time

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Exhausted, GroundplanError, Unavailable
from groundplan.core.money import MAX_AMOUNT
from groundplan.economics import price
from groundplan.gateway.call import admit, limits, pricing
from groundplan.gateway.call.attempts import probe_turn
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.feature import FEATURE, TICKET, client_feature_of, feature_of, ticket_of
from groundplan.gateway.call.ground import system_messages
from groundplan.gateway.experiments.assign import receipt_json
from groundplan.gateway.upstream import provider_refusals
from groundplan.ledger.model import OVER_BOUND, OVER_INPUT, Finish, Settlement, Usage

CLIENT_GONE = 499
"""HTTP status in the ledger of a call that was cancelled, mostly as its client disconnected; never sent."""
WORKER_STOPPED = "worker_stopped"
"""Error code in the ledger of a batch's call that was cancelled as its worker stopped."""
FLAGGED = "flagged"
"""Flag of an attempt that was refused for its content, for which the provider charges a fee."""
LONGEST_TOKEN = 128
"""Bytes: an answer has more tokens than its bytes divided by this; an upstream that reports fewer is flagged."""


def _feature(exchange: Exchange, header: bytes) -> str:
    own = exchange.trial is not None and exchange.trial.beside
    return feature_of(header) if own else client_feature_of(header)


def attempt(
    gateway: Gateway,
    exchange: Exchange,
    outcome: str,
    status: int,
    usage: Usage | None,
    *,
    keep_reservation: bool = False,
    fee: int = 0,
    flag: str = "",
) -> int:
    """Settle the open attempt and return the journal's sequence. `usage` None: not reported, so it is estimated.

    `keep_reservation`: the attempt was certainly not billed, and a retry takes its reservation over. `fee`: picodollars
    that it costs whatever was used. `flag`: a flag beside those that follow from its usage.
    """
    at = gateway.clock.seconds()
    name, record, sequence = _write_attempt(gateway, exchange, at, outcome, status, usage, fee, flag)
    if exchange.limit_use is not None:
        limits.end_attempt(gateway, exchange.limit_use, record.attempt, record.usage, record.cost)
    _count_attempt(gateway, exchange, name, record, keep_reservation=keep_reservation)
    return sequence


def refused_attempt(
    gateway: Gateway, exchange: Exchange, status: int, refusal: bytes, *, keep_reservation: bool = False
) -> None:
    """Settle the open attempt, whose upstream refused the request. It is not billed, except for the fee of a request
    that is refused for its content, and for parts that were answered before the refusal."""
    probe_turn.give_up_turn(gateway, exchange)
    place = exchange.deployment
    fee = 0 if place is None else place.rates.flagged
    if fee and provider_refusals.is_content_refused(status, refusal):
        attempt(gateway, exchange, "failed", status, Usage(), fee=fee)
    elif place is not None and (before := provider_refusals.tokens_billed_before(place.api, refusal)) is not None:
        attempt(gateway, exchange, "failed", status, Usage(input=before) if before else None)
    else:
        attempt(gateway, exchange, "not_billed", status, None, keep_reservation=keep_reservation)


def attempt_and_call(
    gateway: Gateway, exchange: Exchange, outcome: str, status: int, usage: Usage | None, *, awaited: bool = True
) -> int | None:
    """Settle the open attempt and finish the call with success, as `attempt` and `finish` do; metrics are counted while
    the disk works. The caller waits until the returned sequence is durable. `awaited`: see `Journal.finish`."""
    at = gateway.clock.seconds()
    name, settled, _ = _write_attempt(gateway, exchange, at, outcome, status, usage, ends=True)
    record, sequence = _write_finish(gateway, exchange, at, "ok", 200, "", "", awaited=awaited)
    if exchange.limit_use is not None:
        written = sequence is not None
        limits.end_attempt_and_call(
            gateway, exchange.limit_use, settled.attempt, settled.usage, settled.cost, written=written
        )
    _count_attempt(gateway, exchange, name, settled)
    _count_finish(gateway, exchange, record)
    return sequence


def _write_attempt(
    gateway: Gateway,
    exchange: Exchange,
    at: float,
    outcome: str,
    status: int,
    usage: Usage | None,
    fee: int = 0,
    flag: str = "",
    *,
    ends: bool = False,
) -> tuple[str, Settlement, int]:
    """Journal the settlement of the open attempt; returns (name of its deployment, settlement, sequence). `at`: seconds
    since the epoch; `ends`: see `Journal.settle`."""
    deployment = exchange.deployment
    if deployment is None or exchange.reservation is None or not exchange.attempt_started:
        raise AssertionError("no attempt is open")
    usage = _plausible_usage(exchange, usage)
    estimated = usage is None and outcome != "not_billed"
    usage, cost, flags = (Usage(), fee, [FLAGGED]) if fee else _bill(exchange, deployment, outcome, usage)
    if flag:
        flags.append(flag)
    now, began = time.perf_counter_ns(), exchange.attempt_started
    record = Settlement(
        call=exchange.id_bytes,
        attempt=exchange.attempt_number,
        at=int(at * 1000),
        cost=cost,
        outcome=outcome,
        http_status=status,
        usage=usage,
        estimated=estimated,
        flags=flags,
        duration_us=(now - began) // 1000,
        started_us=(began - exchange.started) // 1000,
        connect_us=(exchange.attempt_connected - began) // 1000 if exchange.attempt_connected else 0,
        first_byte_us=(exchange.attempt_answered - began) // 1000 if exchange.attempt_answered else 0,
        saved=_cache_savings(exchange, deployment, usage) if usage.cache_read else 0,
        first_chunk_us=exchange.attempt_first_us,
    )
    sequence = gateway.journal.settle(record, ends=ends)
    exchange.attempt_started = 0
    exchange.attempt_ended = now
    exchange.last_attempt_cost = cost
    exchange.cost, exchange.usage = exchange.cost + cost, usage
    exchange.estimated |= estimated
    return deployment.name, record, sequence


def _count_attempt(
    gateway: Gateway, exchange: Exchange, deployment: str, record: Settlement, *, keep_reservation: bool = False
) -> None:
    workload, cost = exchange.workload, record.cost
    if OVER_BOUND in record.flags and workload is not None:
        gateway.live.stop(workload.name, exchange.call)
    gateway.call_counters.count_attempt(
        (workload.name if workload is not None else "", deployment, record.outcome), record
    )
    if not keep_reservation and exchange.reservation is not None:
        gateway.slices.settle(exchange.reservation, cost)
        exchange.reservation = None


def _plausible_usage(exchange: Exchange, usage: Usage | None) -> Usage | None:
    """The reported usage; None where it cannot be true: no token for a prompt, or none for an answer that came.

    A report of no token at all is believed: it is how upstreams say that nothing is billed.
    """
    if usage is None or (usage.input and usage.output):
        return usage
    if not exchange.interface.caps_output or not (usage.input or usage.output):
        return usage
    return usage if usage.input and not exchange.output_bytes else None


def _bill(
    exchange: Exchange, deployment: Deployment, outcome: str, usage: Usage | None
) -> tuple[Usage, int, list[str]]:
    """(usage, its cost in picodollars, flags of the settlement). The cost is at most what the ledger can store."""
    flags = list(exchange.attempt_flags)
    if outcome == "not_billed":
        return Usage(), 0, flags
    if usage is None:
        usage, cost = estimate_usage(exchange)
        flags.append("no_usage")
        return usage, cost, flags
    ask = exchange.ask
    if exchange.interface.has_custom_cost and ask is not None:
        cost = exchange.interface.cost(ask, deployment, usage)
    elif ask is None or (not ask.needs and usage.service_tier in pricing.ORDINARY_TIERS):
        cost = price.cost(deployment.rates, usage)
    else:
        usage = msgspec.structs.replace(usage, images=ask.images) if ask.images else usage
        cost, known = pricing.answer_cost(ask, deployment, usage)
        if not known:
            flags.append("unknown_tier")
    above = _exceeded_class(exchange, deployment, usage)
    if above or cost > exchange.bounds[deployment.name]:
        flags.append(OVER_BOUND)
    if above == "input":
        flags.append(OVER_INPUT)
    nothing = not (usage.output or usage.input) and exchange.interface.caps_output
    if nothing or usage.output * LONGEST_TOKEN < exchange.output_bytes:
        flags.append("under_count")
    return usage, min(cost, MAX_AMOUNT), flags


def _exceeded_class(exchange: Exchange, deployment: Deployment, usage: Usage) -> str:
    """The class of tokens (`input`, `output`; empty: none) of which more were used than was reserved for. The cost may
    hide that: a prompt is bounded by its bytes, and a class of tokens, or all of them, may be free."""
    ask, interface, rates = exchange.ask, exchange.interface, deployment.rates
    if ask is None:
        return ""
    if interface.caps_output:
        if usage.output > min(exchange.output_cap, deployment.max_output_tokens) * ask.copies:
            return "output"
        if usage.input <= ask.size and deployment.tokens_per_byte >= 1.0:
            return ""  # true of nearly every call
    elif interface.has_custom_cost and not (rates.input or rates.output):
        return ""  # its price does not depend on tokens, and none were bounded
    most = admit.max_usage(exchange, deployment)
    if usage.input > most.input:
        return "input"
    return "output" if usage.output > most.output and (most.output or rates.output) else ""


def _cache_savings(exchange: Exchange, deployment: Deployment, usage: Usage) -> int:
    """Picodollars that the provider's prompt cache saved."""
    service = pricing.service_class(exchange.ask, deployment, usage.service_tier) if exchange.ask is not None else ""
    return min(MAX_AMOUNT, price.cache_savings(deployment.rates, usage, service or price.STANDARD))


def cancelled_attempt(gateway: Gateway, exchange: Exchange, usage: Usage | None) -> None:
    """Settle the open attempt, which we cancelled, by its deployment's `billing_on_cancel`. `usage`: what the upstream
    reported, if anything."""
    deployment = exchange.deployment
    if deployment is None:
        raise AssertionError("no attempt is open")
    if not exchange.attempt_sent:
        probe_turn.give_up_turn(gateway, exchange)
        attempt(gateway, exchange, "not_billed", 0, None)
        return
    usage = _plausible_usage(exchange, usage)
    if usage is None and deployment.billing_on_cancel != "generated":
        exchange.output_bytes = 0  # the upstream may generate on without us, so what came so far bounds nothing
    attempt(gateway, exchange, "cancelled", 0, usage)


def estimate_usage(exchange: Exchange) -> tuple[Usage, int]:
    """(usage, cost) of the open attempt where the upstream reported none: what was streamed is counted, otherwise the
    bound is taken. Never too little."""
    deployment, ask = exchange.deployment, exchange.ask
    if deployment is None or ask is None:
        raise AssertionError("no attempt is open")
    bound = exchange.bounds[deployment.name]
    cap = min(exchange.output_cap, deployment.max_output_tokens)
    usage, cost = exchange.interface.estimate(ask, deployment, _added_bytes(exchange), exchange.output_bytes, cap)
    return usage, min(bound, cost)


def _added_bytes(exchange: Exchange) -> int:
    """Bytes that were put before the caller's messages: the workload's prompt, and passages with their notes."""
    workload = exchange.workload
    if workload is None or not exchange.interface.grounded:
        return 0
    return sum(len(text.encode()) for text in system_messages(workload, exchange.passages, exchange.grounding_notes))


def _finish_record(exchange: Exchange, at: float, refusal: str) -> Finish:
    """The record of the end of the call. `at`: seconds since the epoch. The step `serve` ended with the newest attempt,
    and `settle` ends here."""
    began = exchange.started
    duration_us = (time.perf_counter_ns() - began) // 1000
    if exchange.status != "refused":
        if exchange.attempt_ended:
            exchange.steps.append(("serve", (exchange.attempt_ended - began) // 1000))
        exchange.steps.append(("settle", duration_us))
    key, workload, deployment, catalog = exchange.key, exchange.workload, exchange.deployment, exchange.catalog
    passages, grounded, first, headers = (
        exchange.passages, exchange.grounding_notes, exchange.first_byte, exchange.request.headers
    )  # fmt: skip
    # positional, in the order of the fields: more than 15 keyword arguments go through a dict, which takes six times as
    # long
    return Finish(
        exchange.id_bytes,
        int(at * 1000),
        workload.name if workload is not None else key.workload if key is not None else "",
        exchange.person,
        key.id if key is not None else "",
        exchange.endpoint,
        exchange.status,
        exchange.http_status,
        exchange.error_code,
        deployment.name if deployment is not None else "",
        exchange.cache_result,
        catalog.number if catalog is not None else 0,
        duration_us,
        (first - began) // 1000 if first else 0,
        exchange.steps,
        [(p.document, p.path, p.start_line, p.end_line) for p in passages] if passages else [],
        catalog is not None and catalog.blueprint.demo,
        exchange.trace.parent if exchange.trace is not None else "",
        exchange.request.client_subject,
        exchange.saved_cost,
        receipt_json(exchange) if exchange.route is not None or exchange.trial is not None else "",
        _feature(exchange, headers[FEATURE]) if FEATURE in headers else "",
        [round(p.score, 4) for p in passages] if passages else [],
        exchange.parent_call,
        exchange.purpose,
        ticket_of(headers[TICKET]) if TICKET in headers else "",
        refusal,
        grounded.opposing_documents(passages) if grounded is not None and grounded.conflicts else [],
    )


def finish_with_error(gateway: Gateway, exchange: Exchange, error: GroundplanError, status: str = "refused") -> None:
    """Finish a call that ends with `error`."""
    told = error.message if isinstance(error, Exhausted) else ""
    finish(gateway, exchange, status, error.status, error.code, told)


def count_unidentified(gateway: Gateway, exchange: Exchange, error: GroundplanError) -> None:
    """Count a call without a known key, which belongs to no workload and gets no record."""
    gateway.call_counters.count_call((exchange.endpoint, "", "", "refused", error.status), "none", 0, 0)


def finish(
    gateway: Gateway,
    exchange: Exchange,
    status: str,
    http_status: int,
    code: str = "",
    refusal: str = "",
    *,
    awaited: bool = False,
) -> int | None:
    """Journal the end of the call once; returns its sequence, or None where that failed or was done before. `awaited`:
    see `Journal.finish`."""
    if exchange.finished:
        return None
    at = gateway.clock.seconds()
    record, sequence = _write_finish(gateway, exchange, at, status, http_status, code, refusal, awaited=awaited)
    if exchange.limit_use is not None:
        # where it is not written, the client gets no answer that was made without an attempt
        limits.end_call(gateway, exchange.limit_use, sent=sequence is not None and _counts_as_request(exchange))
    _count_finish(gateway, exchange, record)
    return sequence


def _write_finish(
    gateway: Gateway,
    exchange: Exchange,
    at: float,
    status: str,
    http_status: int,
    code: str,
    refusal: str,
    *,
    awaited: bool = False,
) -> tuple[Finish, int | None]:
    exchange.finished = True
    exchange.status, exchange.http_status, exchange.error_code = status, http_status, code
    record = _finish_record(exchange, at, refusal)
    urgent = exchange.attempt_number >= 0 or exchange.cache_result in ("exact", "semantic")
    try:
        return record, gateway.journal.finish(record, urgent=urgent, awaited=awaited)
    except Unavailable:
        return record, None


def _count_finish(gateway: Gateway, exchange: Exchange, record: Finish) -> None:
    status = exchange.status
    if exchange.reservation is not None:
        release_reservation(gateway, exchange)
    labels = (exchange.endpoint, record.workload, record.deployment, status, exchange.http_status)
    place = exchange.deployment
    streamed = place.model if place is not None and exchange.attempt_first_us > 0 else ""
    gateway.call_counters.count_call(
        labels, exchange.cache_result, record.duration_us, record.first_byte_us, streamed=streamed
    )
    if gateway.repeats is not None and status == "ok":
        gateway.repeats.record_call(exchange, record.at / 1000)
    if exchange.saved_cost:
        gateway.call_counters.add_savings(record.workload, exchange.saved_cost)


def _counts_as_request(exchange: Exchange) -> bool:
    """Whether a finished call counts as a request against limits."""
    if exchange.attempt_number >= 0 or exchange.cache_result in ("exact", "semantic"):
        return True
    return exchange.status == "ok" and _has_abstained(exchange)


def _has_abstained(exchange: Exchange) -> bool:
    """Whether no passage reached the floor, so that the call was answered without an attempt: it is a request all the
    same."""
    return exchange.grounding_notes is not None and exchange.grounding_notes.abstained


def finish_stopped(gateway: Gateway, exchange: Exchange) -> None:
    """Finish a call for which no client waits, as its worker stops. Without an attempt nothing was done that a record
    could tell of: the call gives back what it holds, and another worker makes it as a new one."""
    if exchange.finished or exchange.attempt_number >= 0:
        finish(gateway, exchange, "cancelled", CLIENT_GONE, WORKER_STOPPED)
        return
    exchange.finished = True
    release(gateway, exchange)


def release(gateway: Gateway, exchange: Exchange) -> None:
    """Give back what a call holds of budgets and limits, with which nothing was begun."""
    release_reservation(gateway, exchange)
    if exchange.limit_use is not None:
        limits.end_call(gateway, exchange.limit_use, sent=False)


def release_reservation(gateway: Gateway, exchange: Exchange) -> None:
    """Give back what a call has reserved of budgets for its next attempt."""
    if exchange.reservation is not None:
        gateway.slices.settle(exchange.reservation, 0)
        exchange.reservation = None


def finish_or_raise(gateway: Gateway, exchange: Exchange, status: str, http_status: int, code: str = "") -> int:
    """Finish a call whose answer must not be given unless its end is written. Raises `Unavailable`."""
    sequence = finish(gateway, exchange, status, http_status, code)
    if sequence is None:
        raise journal_unavailable()
    return sequence


def journal_unavailable() -> Unavailable:
    return Unavailable(
        "the call cannot be written down", code="journal_unavailable", hint="Check the disk of HOME.", retry_after=1.0
    )


def remaining_budget(gateway: Gateway, exchange: Exchange) -> int | None:
    """The least that is left in any hard budget that covers the call; None where none does.

    Also sets `remaining_budget` and `crossed_budgets` of the exchange.
    """
    least, crossed = gateway.slices.remaining_budget(exchange.charges)
    if crossed:
        exchange.crossed_budgets = tuple(dict.fromkeys((*exchange.crossed_budgets, *crossed)))
    exchange.remaining_budget = least = None if least is None else max(0, least)
    return least
