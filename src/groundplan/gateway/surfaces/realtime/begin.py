"""What a response of a conversation needs before it may begin: every check, money, room in limits, and a durable
record.

When to begin, and what ends a conversation, is decided in `conversation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import GroundplanError
from groundplan.core.ids import new_id_bytes
from groundplan.economics.prices.time_of_day import rates_at
from groundplan.gateway.budgets.periods import is_over
from groundplan.gateway.call import limits, settle
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.attempts.begin import begin_attempt
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.identify import identify
from groundplan.gateway.call.steps import admit_call, shed_load
from groundplan.gateway.call.trace import Trace
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.policy import dated_prices
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.messages import errors as messages_errors
from groundplan.gateway.surfaces.realtime.close import BROKEN, POLICY, ConversationEnded


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a conversation, for whom each of its calls is admitted."""

    gateway: Gateway
    request: Request
    response: Response
    trace: Trace | None

    async def admit(
        self, interface: Interface, model: str, check: Callable[[Exchange], None], *, first: bool = False
    ) -> Exchange:
        """Run every check, and reserve the money for one call. `check` runs last; `first`: a crowded worker refuses it.
        Raises as admission does."""
        gateway, now = self.gateway, self.gateway.clock.seconds()
        catalog = dated_prices.current_catalog(gateway.live.catalog, now)
        exchange = Exchange(new_id_bytes(), self.request, self.response, interface)
        exchange.catalog, exchange.trace = catalog, self.trace
        exchange.ask = Ask(
            fields={}, model=model, messages=1, query="", stream=interface.deployment_kind == "realtime",
            include_usage=False, cap=None, copies=1, size=0,
        )  # fmt: skip
        try:
            identify(exchange, gateway.live.policy, now)
            if first and gateway.pressure.is_crowded(gateway.running_calls):
                shed_load(gateway, exchange, catalog)  # a conversation that was admitted is not ended for it
            await admit_call(gateway, exchange, catalog, now)
            check(exchange)
        except GroundplanError as error:
            (settle.count_unidentified if exchange.key is None else settle.finish_with_error)(gateway, exchange, error)
            self.set_call_headers(exchange)
            raise
        except asyncio.CancelledError:  # the client left while money or a limit was awaited
            settle.finish(gateway, exchange, "cancelled", settle.CLIENT_GONE, "client_gone")
            raise
        return exchange

    def set_call_headers(self, exchange: Exchange) -> None:
        """Put the call id and the remaining limits into the headers of the refusal of a conversation."""
        if not self.response.started:
            left = b"" if exchange.limit_use is None else exchange.limit_use.header_lines
            messages_errors.set_request_id(self.request, self.response, str(exchange.call), left)


def is_outdated(gateway: Gateway, exchange: Exchange) -> bool:
    """Whether the prices or budget periods of a reservation are over: a client may be listened to for hours before
    there is a response."""
    now = gateway.clock.seconds()
    if dated_prices.current_catalog(gateway.live.catalog, now) is not exchange.catalog:
        return True
    if any(is_over(period, now) for _, period in exchange.charges):
        return True
    place = exchange.deployment
    declared = next((d for d in exchange.deployments if place is not None and d.name == place.name), None)
    return declared is not None and place is not None and rates_at(declared.rates, int(now * 1000)) != place.rates


async def begin_attempt_durably(gateway: Gateway, exchange: Exchange, deployment: Deployment, key: str) -> None:
    """Count the call in the limits of the deployment, its model and its `key`, and make its reservation durable. Raises
    `ConversationEnded`; the call is refused then, unless its attempt has begun."""
    try:
        if not await limits.admit_attempt(gateway, exchange, deployment, exchange.attempt_count, key=key):
            limits.raise_if_limited(gateway, exchange)
    except GroundplanError as error:
        settle.finish_with_error(gateway, exchange, error)
        raise ConversationEnded(POLICY, error) from error
    try:
        sequence = begin_attempt(gateway, exchange, deployment, inherits=False)
        if (pending := gateway.journal.durable(sequence)) is not None:
            await pending
    except GroundplanError as error:
        if not exchange.attempt_started:
            settle.finish_with_error(gateway, exchange, error)
        raise ConversationEnded(BROKEN, error) from error
    exchange.attempt_sent = True
