"""Step 5: attempts at the allowed deployments, each journalled before it is sent, until one has answered the client.

After a failure before the client's first byte the next deployment is tried; after the first byte, the stream is
continued elsewhere or broken off, as the workload says. An attempt that was certainly not billed passes its reservation
on; any other keeps it, and the next attempt needs a new one. Decisions are pure functions of `health`, `retry`,
`choose`, `hedge`, `pressure` and `resume`; which deployments are allowed was decided when the blueprint was made.
"""

from __future__ import annotations

from groundplan.core.errors import GroundplanError
from groundplan.gateway.call.attempts import probe_turn
from groundplan.gateway.call.attempts.failure import AttemptFailed
from groundplan.gateway.call.attempts.race import race
from groundplan.gateway.call.attempts.sequence import AttemptSequence
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange


async def serve(gateway: Gateway, exchange: Exchange, attempts: AttemptSequence | None = None) -> None:
    """Answer the client from the first deployment that can. Raises a `GroundplanError` when none could.

    `attempts`: the sequence to go on with, where the caller has made an attempt of this call already.
    """
    workload = exchange.workload
    if workload is None:
        raise AssertionError("not admitted")
    attempts = AttemptSequence(gateway, exchange, workload) if attempts is None else attempts
    try:
        while (deployment := attempts.take_first() or await attempts.take_next()) is not None:
            try:
                attempt = attempts.begin_attempt(deployment)
                hedge = workload.reliability.hedge
                if hedge is None or not attempts.has_attempts_left or attempts.is_flex:
                    await attempt.open()
                else:
                    attempt = await race(gateway, attempt, attempts.candidates, hedge, attempts.count_hedge)
                attempts.record_latency(attempt)
                await attempt.deliver()
            except AttemptFailed as failed:
                if not attempts.handle_failure(failed):
                    await attempts.break_stream(attempts.reason)
                    return
                await attempts.pause()
            else:
                attempts.record_success(attempt)
                return
        attempts.raise_failure()
    except GroundplanError as error:
        probe_turn.give_up_turn(gateway, exchange)
        if attempts.broken_relay is None:
            raise
        reason = error.message if attempts.reason in error.message else f"{attempts.reason}; {error.message}"
        await attempts.break_stream(reason)
