"""HTTP clients for the official SDKs that retry a call while a busy PostgreSQL does not answer in time what is left of
a budget or limit, as `Stack.ask` does: that refusal asks for it, and the tests' clients retry nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai

RETRY_SECONDS = 30.0
UNREACHABLE_CODES = (b'"budget_unreachable"', b'"limit_unreachable"')


class RetryingOpenAIHttpClient(openai.DefaultAsyncHttpxClient):
    """For the `http_client` of OpenAI's SDK, which closes it."""

    async def send(self, request: Any, **options: Any) -> Any:
        return await _send_with_retries(super().send, request, options)


class RetryingAnthropicHttpClient(anthropic.DefaultAsyncHttpxClient):
    """The same for Anthropic's SDK."""

    async def send(self, request: Any, **options: Any) -> Any:
        return await _send_with_retries(super().send, request, options)


async def _send_with_retries(send: Callable[..., Awaitable[Any]], request: Any, options: dict[str, Any]) -> Any:
    end = time.monotonic() + RETRY_SECONDS
    while True:
        response = await send(request, **options)
        if response.status_code != 503:
            return response
        body = await response.aread()
        if time.monotonic() > end or not any(code in body for code in UNREACHABLE_CODES):
            return response
        await asyncio.sleep(0.05)
