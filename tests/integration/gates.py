"""Waiting in tests for what is the case, instead of for a while: what a test's own scripted model was asked, and what
workers know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.integration.gateway_stack import Stack

from groundplan.gateway.http.server import Request
from groundplan.testing.scripted import ScriptedModel


def gated(model: ScriptedModel) -> asyncio.Semaphore:
    """From now on the model counts what it is asked and answers nothing; each `release` lets one answer go."""
    gate, counted = asyncio.Semaphore(0), model._count_attempt

    async def wait(request: Request) -> None:
        await counted(request)
        await gate.acquire()

    model._count_attempt = wait  # type: ignore[method-assign]
    return gate


async def until(true: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)


async def acknowledged(stack: Stack) -> None:
    """Until every worker has all live policy there is."""
    behind = "SELECT 1 FROM gateway WHERE state = 'live' AND policy_ack < (SELECT number FROM policy_epoch)"
    await until(lambda: not stack.sql(behind))
