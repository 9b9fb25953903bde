"""Makes providers' own clients follow no redirect: a redirect would send prompts, and the key with them, to an address
that nobody declared. Loaded by the translation service only; AWS's client follows none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NO_REDIRECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "azure": {"permit_redirects": False},
    "ollama": {"follow_redirects": False},
}
"""For clients that take this when they are created."""


def disable_redirects(api: str, provider: Any) -> None:
    """Configure the HTTP clients of the library's provider. Raises `AttributeError` if they are built in an unknown
    way: a client that may follow redirects is not used."""
    for client in http_clients(api, provider):
        if client.follow_redirects:
            client.follow_redirects = False
        if (arguments := loop_client_arguments(client)) is not None:
            arguments["follow_redirects"] = False
    if api in ("gemini", "vertexai"):
        known = provider.client._api_client
        if known._use_aiohttp():
            known._async_client_session_request_args["allow_redirects"] = False


def loop_client_arguments(client: Any) -> dict[str, Any] | None:
    """The arguments with which Google's HTTP client creates the client that is actually used, if it does: that one
    knows nothing of later changes to the first."""
    found: dict[str, Any] | None = getattr(client, "_client_kwargs", None)
    return found


def http_clients(api: str, provider: Any) -> Iterator[Any]:
    """The provider's HTTP clients, except those on aiohttp."""
    if api in ("anthropic", "groq", "ollama"):
        yield provider.client._client
    elif api == "cohere":
        yield provider.client._client_wrapper.httpx_client.httpx_client
    elif api == "mistral":
        yield provider.client.sdk_configuration.async_client
    elif api in ("gemini", "vertexai") and (client := provider.client._api_client._async_httpx_client) is not None:
        yield client
    if api == "vertexai":
        yield provider._mistral_client._client
        yield provider._get_partner_provider().client._client
