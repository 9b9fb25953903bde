"""Makes providers' own clients follow no redirect: whoever answers with one would send prompts, and the key with them,
to an address that nobody declared. Loaded by the translating service only; AWS's follows none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HERE: dict[str, dict[str, Any]] = {"azure": {"permit_redirects": False}, "ollama": {"follow_redirects": False}}
"""Those that are told as they are made."""


def stay(api: str, made: Any) -> None:
    """Tell the clients of a provider of the library. Raises `AttributeError` where they are built in another way than
    those that are known: what may go elsewhere asks nobody."""
    for client in clients(api, made):
        if client.follow_redirects:
            client.follow_redirects = False
        if (told := of_each_loop(client)) is not None:
            told["follow_redirects"] = False
    if api in ("gemini", "vertexai"):
        known = made.client._api_client
        if known._use_aiohttp():
            known._async_client_session_request_args["allow_redirects"] = False


def of_each_loop(client: Any) -> dict[str, Any] | None:
    """With what an HTTP client of Google's makes the one that is asked in its place, where it does: that knows nothing
    of what the first is told later."""
    found: dict[str, Any] | None = getattr(client, "_client_kwargs", None)
    return found


def clients(api: str, made: Any) -> Iterator[Any]:
    """Their HTTP clients, but for those on aiohttp."""
    if api in ("anthropic", "groq", "ollama"):
        yield made.client._client
    elif api == "cohere":
        yield made.client._client_wrapper.httpx_client.httpx_client
    elif api == "mistral":
        yield made.client.sdk_configuration.async_client
    elif api in ("gemini", "vertexai") and (client := made.client._api_client._async_httpx_client) is not None:
        yield client
    if api == "vertexai":
        yield made._mistral_client._client
        yield made._get_partner_provider().client._client
