"""Waiting for conditions instead of fixed times: for requests that reach a scripted model, and for workers to know the
live policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.integration.gateway_stack import Stack

from groundplan.gateway.http.server import Request
from groundplan.testing.scripted import ScriptedModel


def hold_answers(model: ScriptedModel) -> asyncio.Semaphore:
    """From now on the model counts requests without answering; each `release` of the semaphore lets one answer go."""
    gate, counted = asyncio.Semaphore(0), model._count_attempt

    async def wait(request: Request) -> None:
        await counted(request)
        await gate.acquire()

    model._count_attempt = wait  # type: ignore[method-assign]
    return gate


async def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)


async def wait_until_acknowledged(stack: Stack) -> None:
    """Wait until every worker has acknowledged the newest live policy."""
    behind = "SELECT 1 FROM gateway WHERE state = 'live' AND policy_ack < (SELECT number FROM policy_epoch)"
    await wait_until(lambda: not stack.sql(behind))
