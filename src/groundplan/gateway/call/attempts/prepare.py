"""What an attempt waits for before its request is sent: a new connection, and the encoding of a large body. After each
of these waits it is checked whether the request may still be sent.

Sends and reads nothing; `attempt` does.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from groundplan.core.errors import GroundplanError
from groundplan.gateway.call import settle
from groundplan.gateway.call.attempts.failure import AttemptFailed
from groundplan.gateway.call.attempts.refusal import RefusalHandling
from groundplan.gateway.call.attempts.send_permission import may_send, wait_for_policy
from groundplan.gateway.call.attempts.upstream_request import encode_request
from groundplan.gateway.offload import in_thread
from groundplan.gateway.policy.catalog import Catalog
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.surfaces.codec import Codec
from groundplan.gateway.upstream.connection import MIN_WAIT_SECONDS, UpstreamConnection
from groundplan.gateway.upstream.targets import Target


class RequestPreparation(RefusalHandling):
    """The part of an attempt that connects and encodes its request."""

    __slots__ = ("_codec", "_connection", "deadline", "started_at")

    _codec: Codec
    _connection: UpstreamConnection | None
    deadline: float
    """By the clock of the loop: when the call was promised an answer."""
    started_at: float

    async def _connect(self, target: Target) -> UpstreamConnection:
        """A new connection, over which the request may still be sent. Raises as `Attempt.open` does."""
        live = self.gateway.live
        timeout, policy, catalog = self._bounded_timeout(self.deployment.connect_ms), live.policy, live.catalog
        connection = self._connection = await target.pool.connect(timeout, self.deadline)
        if not connection.check_when_connected(partial(self._check_before_body, policy, catalog)):
            self.exchange.attempt_connected = time.perf_counter_ns()
            await self._check_connected(policy, catalog)
        return connection

    async def _check_connected(self, policy: Policy, catalog: Catalog | None) -> None:
        """As `_check_permission`, once a connection was made; also waits for live policy where the worker stalled."""
        gateway, plan = self.gateway, self.exchange.plan
        if plan is not None and gateway.stalls.stalled_seconds(self.started_at):
            await wait_for_policy(gateway, plan)
        self._check_permission(policy, catalog)

    async def _check_before_body(self, policy: Policy, catalog: Catalog | None) -> None:
        """As `_check_connected`, where the connection is made while the request is sent: nothing of its body is sent
        yet."""
        try:
            await self._check_connected(policy, catalog)
        except (AttemptFailed, GroundplanError):
            self.exchange.attempt_sent = False
            raise

    def _note_unsent(self) -> None:
        """Note where nothing was sent yet, as while a library connects: the attempt costs nothing then."""
        if self._connection is not None and not self._connection.is_sent:
            self.exchange.attempt_sent = False

    async def _encode_in_thread(self) -> bytes:
        """The body of a large request, which may still be sent once it is encoded. Raises as `Attempt.open` does."""
        policy, catalog = self.gateway.live.policy, self.gateway.live.catalog
        try:
            async with asyncio.timeout_at(self.deadline):
                data = await in_thread(partial(encode_request, self.exchange, self.deployment, self._codec))
        except TimeoutError as error:  # the threads are busy with other large bodies
            failed = AttemptFailed("its deadline was over before its request was encoded", billed=False)
            failed.is_withheld = True
            raise failed from error
        self._check_permission(policy, catalog)
        return data

    def _check_permission(self, policy: Policy, catalog: Catalog | None) -> None:
        """Raise if the request may not be sent any more, after a wait that began under this policy and blueprint."""
        live = self.gateway.live
        if not self.gateway.journal.healthy:  # its reservation may be what could not be written
            raise settle.journal_unavailable()
        is_same = live.policy is policy and live.catalog is catalog
        if not (is_same or may_send(self.gateway, self.exchange, self.deployment)):
            failed = AttemptFailed("it may not be asked any more", billed=False)
            failed.is_withheld = True
            raise failed

    def _bounded_timeout(self, milliseconds: int) -> float:
        return max(MIN_WAIT_SECONDS, min(milliseconds / 1000, self.deadline - self.gateway.loop.time()))
