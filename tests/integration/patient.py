"""Official clients that ask again where a busy PostgreSQL did not say in time what is left of a budget or limit, as
`Stack.ask` does: that refusal asks for it, and clients of tests retry nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai

SECONDS = 30.0
UNTOLD = (b'"budget_unreachable"', b'"limit_unreachable"')


class OpenAIs(openai.DefaultAsyncHttpxClient):
    """For the `http_client` of OpenAI's client, which closes it."""

    async def send(self, request: Any, **options: Any) -> Any:
        return await _told(super().send, request, options)


class Anthropics(anthropic.DefaultAsyncHttpxClient):
    """The same for Anthropic's."""

    async def send(self, request: Any, **options: Any) -> Any:
        return await _told(super().send, request, options)


async def _told(send: Callable[..., Awaitable[Any]], request: Any, options: dict[str, Any]) -> Any:
    end = time.monotonic() + SECONDS
    while True:
        response = await send(request, **options)
        if response.status_code != 503:
            return response
        body = await response.aread()
        if time.monotonic() > end or not any(code in body for code in UNTOLD):
            return response
        await asyncio.sleep(0.05)
