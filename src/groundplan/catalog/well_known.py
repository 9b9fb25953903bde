"""Recognises a model server by its address: its provider, its API, and how the price list names its models.

Knows addresses of providers with a single one, and hosts that name a region or an account. An unknown address is taken
for an OpenAI-compatible server. Makes no requests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from groundplan.catalog.imports.providers import PROVIDERS, cut_path, host_of, jurisdiction_of

_ENDPOINT = re.compile(
    r"(?<!/)/(?:chat/completions|completions|responses|embeddings|messages|models|models/[^/]*:\w+)$"
)
_VERSION = re.compile(r"/v\d+[a-z0-9]*$")
_EXTRA_HOSTS = {"api.cohere.com": "cohere", "dashscope.aliyuncs.com": "dashscope"}
"""Further hosts of providers."""
_OPENAI_SHAPED = ("/openai", "/compatibility", "/compatible-mode")
"""Beginnings or ends of paths at which providers with an API of their own also offer OpenAI's."""
_AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
_BEDROCK = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com")
_VERTEX = re.compile(r"(?:([a-z0-9-]+)-)?aiplatform\.googleapis\.com")
_JURISDICTIONS = {"mistral": "EU", "deepseek": "CN"}
"""Provider -> jurisdiction in which it processes requests, where the provider states one other than the United
States."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A recognised model server, in the terms of a deployment document."""

    url: str
    api: str = "openai"
    prices: str | None = None
    """The provider's name in the price list."""
    key: str | None = None
    """Environment variable in which its clients expect the key."""
    jurisdiction: str | None = None
    ambient: bool = False
    """Whether the credentials of the machine are used where no key is declared."""

    def own_name(self, model: str) -> str:
        """The server's name of a model, without a prefix of the provider's name."""
        prefix = f"{self.prices}/" if self.prices else ""
        return model.removeprefix(prefix) if self.prices != "openrouter" else model

    def listed_name(self, model: str) -> str:
        """The price list's name of a model of this server."""
        return f"{self.prices}/{self.own_name(model)}" if self.prices else model


def recognize_upstream(url: str) -> Upstream:
    """Recognise a model server by its address, which is completed, or freed of an endpoint's path, where that is
    clear."""
    url, host = _ENDPOINT.sub("", url.strip().rstrip("/")), host_of(url)
    path = url.partition("://")[2].partition("/")[2]
    if host == "api.anthropic.com" or path.split("/")[-1] == "anthropic" or path.endswith("anthropic/v1"):
        official = host == "api.anthropic.com"
        key = "ANTHROPIC_API_KEY" if official else "AZURE_API_KEY" if host.endswith(_AZURE) else None
        return Upstream(messages_base_url(url), "anthropic", "anthropic" if key else None, key)
    if host.endswith(_AZURE):
        return Upstream(f"{cut_path(url, '/openai', '/models')}/openai/v1", prices="azure", key="AZURE_API_KEY")
    shaped = any(part in f"/{path}" for part in _OPENAI_SHAPED)
    if (bedrock := _BEDROCK.fullmatch(host)) is not None:
        law = jurisdiction_of(bedrock[1])
        if shaped:
            return Upstream(url, prices="aws", key="AWS_BEARER_TOKEN_BEDROCK", jurisdiction=law)
        return Upstream(f"https://{host}", "bedrock", "aws", jurisdiction=law, ambient=True)
    if (vertex := _VERTEX.fullmatch(host)) is not None and not path.endswith("openapi"):
        return Upstream(url, "vertexai", "google", jurisdiction=jurisdiction_of(vertex[1] or ""), ambient=True)
    return _by_host(url, host, path)


def messages_base_url(url: str) -> str:
    """Base URL of an upstream with Anthropic's Messages API, which ends in a version: Anthropic's clients take it
    without `/v1`."""
    url = url.rstrip("/").removesuffix("/messages")
    return url if _VERSION.search(url) else f"{url}/v1"


def _by_host(url: str, host: str, path: str) -> Upstream:
    """The upstream of a provider with a single address and OpenAI's API; unknown hosts are OpenAI-compatible."""
    names = {host_of(each.url): name for name, each in PROVIDERS.items() if each.url and not each.own_host}
    name = {**names, **_EXTRA_HOSTS}.get(host)
    known = PROVIDERS[name] if name is not None else None
    if known is None or known.url is None:
        return Upstream(url)
    own = known.url.partition("://")[2].partition("/")[2]
    fits = path and (path == own or any(part in f"/{path}" for part in _OPENAI_SHAPED) or own in path)
    address = url if fits else known.url
    return Upstream(address, prices=known.prices, key=known.key, jurisdiction=_JURISDICTIONS.get(name or ""))
