"""Step 5: attempts at the allowed deployments, in order, each journalled before it is sent.

A failure before the client's first byte goes on to the next deployment. One that was certainly not billed passes its
reservation on; any other keeps it, and the next attempt needs a new one. Reservation and settlement of money are exact;
which deployment is allowed was decided when the blueprint was made.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Unavailable
from groundplan.gateway import settle
from groundplan.gateway.admit import exhausted, not_killed, out_of_reach, output_cap
from groundplan.gateway.answers import facts, headers
from groundplan.gateway.context import Gateway
from groundplan.gateway.exchange import Exchange
from groundplan.gateway.ground import system_messages
from groundplan.gateway.interface import Codec, Malformed
from groundplan.gateway.stream import StreamBroken, stream
from groundplan.gateway.targets import Target
from groundplan.gateway.upstream import UpstreamConnection, UpstreamFailure
from groundplan.ledger.model import Reservation

_NOT_BILLED = frozenset({408, 429, 500, 501, 503, 529})
"""Complete error answers without usage that say that the request was not worked on. 502 and 504 come from something in
between, and do not know."""


class AttemptFailed(Exception):
    """One attempt failed before the client got anything. `billed` False: certainly not billed."""

    def __init__(self, reason: str, *, billed: bool, status: int = 0, stale: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.billed = billed
        self.status = status
        self.stale = stale
        """A kept-alive connection was closed as it was used; the deployment itself may be well."""


async def reserve(gateway: Gateway, exchange: Exchange, attempt: int, amount: int) -> None:
    """Take `amount` from every covering budget, getting more of it where needed. Raises `Exhausted` within about 250
    ms."""
    token = (exchange.call.bytes, attempt)
    charges = exchange.charge_list(amount)
    if gateway.slices.reserve(token, charges) is not None:
        budgets = {budget.name: budget for budget, _ in exchange.charges}
        short = await gateway.leases.acquire(token, charges, budgets)
        if short is not None and not gateway.leases.connected:
            raise out_of_reach(budgets[short])
        if short is not None:
            raise exhausted(budgets[short], amount, gateway.clock.now().date())
    exchange.token, exchange.reserved = token, amount


async def serve(gateway: Gateway, exchange: Exchange) -> None:
    """Answer the client from the first deployment that can. Raises a `GroundplanError` when none could."""
    workload, plan = exchange.workload, exchange.plan
    if workload is None or plan is None:
        raise AssertionError("not admitted")
    deadline = gateway.loop.time() + workload.deadline_ms / 1000
    waiting = deque(gateway.health.order(exchange.deployments, gateway.loop.time()))
    failure: AttemptFailed | None = None
    tries = 0
    while waiting and tries < workload.attempts and gateway.loop.time() < deadline:
        deployment = waiting.popleft()
        if not not_killed(gateway.live.policy, [deployment]):
            continue
        tries += 1
        sequence = await _begin(gateway, exchange, deployment, waiting)
        try:
            await _attempt(gateway, exchange, deployment, sequence, deadline)
        except AttemptFailed as failed:
            failure = failed
            if failed.stale:
                # nothing is known against the deployment itself, so this costs none of the workload's attempts
                tries -= 1
                waiting.appendleft(deployment)
                gateway.targets.stale(deployment.name)
            else:
                gateway.health.failed(deployment.name, gateway.loop.time())
                gateway.targets.forget(deployment.name)
            _settle_failed(gateway, exchange, failed, more=bool(waiting) and tries < workload.attempts)
        else:
            return
    reason = failure.reason if failure else "no deployment may be used now"
    raise Unavailable(
        f"no deployment of {workload.name} could answer: {reason}",
        code="upstream_failed",
        hint="Try again; `groundplan status` shows the health of each deployment.",
        retry_after=1.0,
    )


async def _begin(gateway: Gateway, exchange: Exchange, deployment: Deployment, waiting: Iterable[Deployment]) -> int:
    """Journal the next attempt; returns the sequence of its reservation. Raises `Exhausted`, `Unavailable`.

    A new reservation covers whichever of the deployments that still wait is dearest: the next one may inherit it.
    """
    number = exchange.attempt + 1
    inherits = number > 0 and exchange.token is not None
    if exchange.token is None:
        dearest = max(exchange.bounds[other.name] for other in (deployment, *waiting))
        await reserve(gateway, exchange, number, dearest)
    elif inherits:
        token = (exchange.call.bytes, number)
        gateway.slices.pass_on(exchange.token, token)
        exchange.token = token
    exchange.deployment = deployment
    key, workload = exchange.key, exchange.workload
    if key is None or workload is None or exchange.catalog is None:
        raise AssertionError("not admitted")
    sequence = gateway.journal.reserve(
        Reservation(
            call=exchange.call.bytes,
            attempt=number,
            at=settle.wall_ms(gateway),
            workload=workload.name,
            person=exchange.person,
            key=key.id,
            endpoint=exchange.endpoint,
            deployment=deployment.name,
            site=deployment.site,
            model=deployment.model,
            blueprint=exchange.catalog.number,
            bound=exchange.bounds[deployment.name],
            charges=exchange.charge_list(0 if inherits else exchange.reserved),
            demo=exchange.catalog.blueprint.demo,
        )
    )
    exchange.attempt = number
    exchange.attempt_started = time.perf_counter_ns()
    exchange.attempt_sent = False
    exchange.attempt_connected = exchange.attempt_answered = 0
    exchange.output_bytes = 0
    return sequence


def _settle_failed(gateway: Gateway, exchange: Exchange, failed: AttemptFailed, *, more: bool) -> None:
    outcome = "failed" if failed.billed else "not_billed"
    settle.attempt(gateway, exchange, outcome, failed.status, None, keep_reservation=more and not failed.billed)


async def _attempt(
    gateway: Gateway, exchange: Exchange, deployment: Deployment, sequence: int, deadline: float
) -> None:
    """One attempt, to the last byte for the client. Raises `AttemptFailed` while the client has got nothing."""
    connection: UpstreamConnection | None = None
    pooled = False
    try:
        codec = exchange.interface.codec(deployment)
        target = gateway.targets.of(deployment)
        connection = target.pool.idle()
        pooled = connection is not None
        if connection is None:
            connection = await target.pool.connect(_within(gateway, deadline, deployment.connect_ms))
            exchange.attempt_connected = time.perf_counter_ns()
        _send(exchange, deployment, codec, target, connection)
        if exchange.ask is not None and exchange.ask.stream:
            await _streamed(gateway, exchange, deployment, connection, sequence, deadline)
        else:
            await _whole(gateway, exchange, deployment, connection, deadline)
    except UpstreamFailure as failure:
        stale = pooled and failure.kind == "cut" and connection is not None and connection.status == 0
        raise AttemptFailed(str(failure), billed=failure.sent and exchange.attempt_sent, stale=stale) from failure
    except asyncio.CancelledError:
        if exchange.attempt_started:
            outcome = "cancelled" if exchange.attempt_sent else "not_billed"
            settle.attempt(gateway, exchange, outcome, 0, None)
        raise
    finally:
        if connection is not None:
            connection.release()
    gateway.health.succeeded(deployment.name)


def _within(gateway: Gateway, deadline: float, milliseconds: int) -> float:
    return max(0.001, min(milliseconds / 1000, deadline - gateway.loop.time()))


def _send(
    exchange: Exchange, deployment: Deployment, codec: Codec, target: Target, connection: UpstreamConnection
) -> None:
    ask, workload = exchange.ask, exchange.workload
    if ask is None or workload is None:
        raise AssertionError("not admitted")
    system = system_messages(workload, exchange.passages) if exchange.interface.grounded else []
    data = codec.forward(ask, deployment, output_cap(exchange, deployment), system)
    name = b"%b-%d" % (str(exchange.call).encode("ascii"), exchange.attempt)
    accept = b"text/event-stream" if ask.stream else b"application/json"
    lines = b"" if exchange.trace is None else exchange.trace.upstream(exchange.call, exchange.attempt)
    head_and_body = target.request(codec.path(deployment), data, name, accept, lines)
    exchange.attempt_sent = True
    connection.send(head_and_body)


async def _whole(
    gateway: Gateway, exchange: Exchange, deployment: Deployment, connection: UpstreamConnection, deadline: float
) -> None:
    """A JSON answer: read, priced, settled and durable before the client gets any of it."""
    status = await connection.head(_within(gateway, deadline, deployment.first_token_ms + deployment.idle_ms))
    exchange.attempt_answered = time.perf_counter_ns()
    data = await connection.body(_within(gateway, deadline, deployment.idle_ms))
    if status != 200:
        await refused_upstream(gateway, exchange, status, data)
        return
    ask, interface = exchange.ask, exchange.interface
    if ask is None:
        raise AssertionError("not admitted")
    try:
        answered = interface.codec(deployment).answer(data, ask)
    except Malformed as error:
        raise AttemptFailed(str(error), billed=True, status=status) from error
    settle.attempt(gateway, exchange, "ok", status, answered.usage)
    data = interface.with_facts(answered.data, facts(exchange, settle.remaining(gateway, exchange)))
    await _deliver(gateway, exchange, "ok", 200, data, "")


async def refused_upstream(gateway: Gateway, exchange: Exchange, status: int, data: bytes) -> None:
    """An error answer: the caller's own fault is passed on as it is, anything else goes to the next deployment."""
    if status < 400 or status in (408, 429) or status >= 500:
        raise AttemptFailed(f"the upstream answered {status}", billed=status not in _NOT_BILLED, status=status)
    settle.attempt(gateway, exchange, "not_billed", status, None)
    data = exchange.interface.of_upstream_refusal(data)
    await _deliver(gateway, exchange, "failed", status, data, "upstream_refused")


async def _deliver(gateway: Gateway, exchange: Exchange, outcome: str, status: int, data: bytes, code: str) -> None:
    exchange.first_byte = time.perf_counter_ns()
    sequence = settle.finish(gateway, exchange, outcome, status, code)
    lines = headers(exchange, cost=True)
    if sequence is not None and (pending := gateway.journal.durable(sequence)) is not None:
        await pending
    if exchange.kept is not None:
        exchange.kept.append(data)
    exchange.response.send(status, data, lines)


async def _streamed(
    gateway: Gateway,
    exchange: Exchange,
    deployment: Deployment,
    connection: UpstreamConnection,
    sequence: int,
    deadline: float,
) -> None:
    status = await connection.head(_within(gateway, deadline, deployment.first_token_ms))
    exchange.attempt_answered = time.perf_counter_ns()
    if status != 200:
        await refused_upstream(gateway, exchange, status, await connection.body(deployment.idle_ms / 1000))
        return
    if not connection.headers.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
        raise AttemptFailed("the upstream did not stream", billed=True, status=status)
    if exchange.ask is None:
        raise AssertionError("not admitted")
    relay = exchange.interface.codec(deployment).relay(exchange.ask)
    gateway.meters.streams += 1
    try:
        await stream(gateway, exchange, deployment, connection, sequence, relay)
    except StreamBroken as broken:
        raise AttemptFailed(str(broken), billed=True, status=status) from broken
    finally:
        gateway.meters.streams -= 1
