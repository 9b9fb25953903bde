"""Whether a call that was admitted a while ago may still be sent: nothing goes out on a lease of policy that ran out.

A call that was sent is ended by kills, as they are heard of; here is only what is about to be.
"""

from __future__ import annotations

import asyncio

from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.policy.snapshot import Plan

RENEWAL_SECONDS = 0.25
_LOOK_SECONDS = 0.01


async def renewed(gateway: Gateway, plan: Plan) -> None:
    """Once live policy is confirmed, as it is at once where a worker only stood still. Raises `Unavailable`
    (`policy_lease_expired`) where its lease and the workload's grace are over, and it is not within 250 ms."""
    end = gateway.loop.time() + RENEWAL_SECONDS
    while not admit.is_confirmed(plan, gateway.live.age()) and gateway.loop.time() < end:  # noqa: ASYNC110 -- it has an end
        await asyncio.sleep(_LOOK_SECONDS)
    admit.check_policy_age(plan, gateway.live.age())
