"""The beginning of an attempt: its reservation in the journal. Sends nothing."""

from __future__ import annotations

import time

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.economics.prices.time_of_day import rates_at
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.ledger.model import Reservation


def begin_attempt(
    gateway: Gateway, exchange: Exchange, deployment: Deployment, *, inherits: bool, may_defer_write: bool = False
) -> int:
    """Journal an attempt for which `exchange.reservation` holds a reservation; returns its sequence. Raises
    `Unavailable`.

    `inherits`: the reservation was taken over from an attempt that was certainly not billed. `may_defer_write`: it may
    be written at the end of this turn of the loop, which is when a request over HTTP/1.1 is sent at the earliest.
    """
    at = int(gateway.clock.seconds() * 1000)
    if deployment.rates.windows:
        deployment = msgspec.structs.replace(deployment, rates=rates_at(deployment.rates, at))
    exchange.deployment = deployment
    key, workload, token = exchange.key, exchange.workload, exchange.reservation
    if key is None or workload is None or exchange.catalog is None or token is None:
        raise AssertionError("not admitted")
    number, ask = exchange.attempt_count, exchange.ask
    sequence = gateway.journal.reserve(
        # positional, in the order of the fields, as more than 15 keyword arguments take six times as long
        Reservation(
            exchange.id_bytes,
            number,
            at,
            workload.name,
            exchange.person,
            key.id,
            exchange.endpoint,
            deployment.name,
            deployment.site,
            deployment.model,
            exchange.catalog.number,
            exchange.bounds[deployment.name],
            exchange.charge_list(0) if inherits else gateway.slices.reserved_charges(token),
            exchange.catalog.blueprint.demo,
            exchange.purpose,
            ask is not None and ask.stream,
        ),
        soon=may_defer_write,
    )
    exchange.attempt_number = number
    exchange.attempt_count = number + 1
    exchange.attempt_started = time.perf_counter_ns()
    if number:  # reset what the previous attempt left
        exchange.attempt_sent = False
        exchange.attempt_connected = exchange.attempt_answered = exchange.attempt_first_us = 0
        exchange.output_bytes = 0
    return sequence
