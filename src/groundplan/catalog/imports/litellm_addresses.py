"""Addresses of the entries of LiteLLM's list: URL of the provider's API, regions and hosts in model names. Pure.

`litellm_entry_address` reads them from an entry, with findings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from groundplan.catalog.fields import has_host
from groundplan.catalog.imports.providers import PROVIDERS, UNLISTED, Provider, cut_path, host_of
from groundplan.catalog.rules.kinds import ENDPOINT_SUFFIX

_URL = re.compile(r"https?://[A-Za-z0-9.\-_~\[\]:%]{1,300}(?:/[A-Za-z0-9.\-_~/%:+]*)?", re.ASCII)
_VERSION = re.compile(r"\?api-version=[A-Za-z0-9.-]{1,40}$", re.ASCII)
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]")
_OLLAMA = re.compile(r"/api/(?:chat|generate|embed|embeddings)$")
_OWN_HOSTS = {
    "google": ("generativelanguage.googleapis.com",), "cohere": ("api.cohere.ai", "api.cohere.com"),
}  # fmt: skip
"""Hosts where LiteLLM uses the provider's own API, while we use its OpenAI-compatible API at another path."""
_SINGLE_MODEL_HOSTS = (".models.ai.azure.com", ".inference.ai.azure.com")
"""Hosts of one model each: learn.microsoft.com/azure/foundry-classic/how-to/deploy-models-serverless"""
_AZURE_MESSAGES = Provider(None, "AZURE_AI_API_KEY", "azure", own_host=True, suffix="/anthropic/v1", api="anthropic")
"""learn.microsoft.com/azure/foundry/foundry-models/how-to/use-foundry-models-claude"""


@dataclass(frozen=True, slots=True)
class Place:
    provider: Provider
    name: str
    region: str | None


@dataclass(frozen=True, slots=True)
class AddressPart:
    """A part that an address needs besides its provider."""

    keys: tuple[str, ...]
    """Keys of `litellm_params` that may hold it."""
    variables: tuple[str, ...]
    """Environment variables that may hold it otherwise."""
    sample: str


REGION = AddressPart(("aws_region_name", "region_name"), ("AWS_REGION_NAME", "AWS_REGION"), "REGION")
PROJECT = AddressPart(("vertex_project", "vertex_ai_project"), ("VERTEXAI_PROJECT",), "PROJECT")
LOCATION = AddressPart(
    ("vertex_location", "vertex_ai_location", "region_name"), ("VERTEXAI_LOCATION", "VERTEX_LOCATION"), "LOCATION"
)
NO_PART = AddressPart((), (), "")
REGIONS = {"bedrock": REGION, "vertexai": LOCATION}
PARTS = {"bedrock": (REGION,), "vertexai": (PROJECT, LOCATION)}
"""docs.litellm.ai/docs/providers/bedrock, docs.litellm.ai/docs/providers/vertex"""


def is_url(text: str) -> bool:
    """Whether a text is an address that a deployment can have."""
    return _URL.fullmatch(text) is not None and has_host(text)


def has_credentials(text: str) -> bool:
    """Whether an address has a user, or a user and a password, before its host."""
    return "@" in text.partition("://")[2].partition("/")[0]


def provider_of(name: str, upstream: str) -> Provider:
    """The provider of a model; Azure serves Claude by Anthropic's API."""
    if name == "azure_ai" and upstream.lower().startswith("claude"):
        return _AZURE_MESSAGES
    return PROVIDERS.get(name, UNLISTED)


def provider_by_url(url: str) -> str | None:
    """The provider whose public address this is; None if it is none's."""
    known = ((name, each.url) for name, each in PROVIDERS.items() if each.url and not each.own_host)
    return next((name for name, own in known if host_of(own) == host_of(url)), None)


def address_variables(name: str) -> tuple[str, ...]:
    """Environment variables that hold a provider's address if an entry has none."""
    name = name.removeprefix("text-completion-").removesuffix("_chat").removesuffix("_text").replace("-", "_").upper()
    more = {"OPENAI": ("OPENAI_BASE_URL",), "FIREWORKS_AI": ("FIREWORKS_API_BASE",)}
    return (*more.get(name, ()), f"{name}_API_BASE", *(("ANTHROPIC_BASE_URL",) if name == "ANTHROPIC" else ()))


def uses_own_api(provider: Provider, kind: str) -> bool:
    """Whether LiteLLM calls an entry with an address by its provider's own API, which is not supported here."""
    return provider.api is None and provider.prices in _OWN_HOSTS and kind != "rerank"


def is_own_host(provider: Provider, url: str) -> bool:
    """Whether this is the public host of a provider with an API of its own."""
    return host_of(url) in _OWN_HOSTS.get(provider.prices or "", ())


def without_version(url: str) -> str:
    """An address of Azure without its `?api-version=...`, which its v1 API does not take."""
    return _VERSION.sub("", url)


def with_api_path(url: str, provider: Provider) -> str:
    """The address with the path of the OpenAI-compatible API below it."""
    url, suffix = ENDPOINT_SUFFIX.sub("", url), provider.suffix
    if provider.api == "anthropic":
        url = url.removesuffix("/messages")
    if provider.url == PROVIDERS["ollama"].url:
        url = _OLLAMA.sub("", url)
    if provider == PROVIDERS["hosted_vllm"] and urlsplit(url).path:  # LiteLLM adds nothing to it
        return url
    if provider.prices == "azure":
        if host_of(url).endswith(_SINGLE_MODEL_HOSTS):
            return url.removesuffix("/v1") + "/v1"
        return cut_path(url, "/openai", "/anthropic", "/models") + suffix
    return url if not suffix or url.endswith(suffix) else url + suffix


def split_region(api: str | None, name: str) -> tuple[str | None, str]:
    """(region, rest) of a model's name at Bedrock, such as `eu-central-1/anthropic.claude-v2:1` or an ARN."""
    if api != "bedrock":
        return None, name
    first, separator, rest = name.partition("/")
    if separator and _REGION.fullmatch(first):
        return first, rest
    parts = name.split(":")
    return (parts[3] if parts[0] == "arn" and len(parts) > 4 and _REGION.fullmatch(parts[3]) else None), name


def requested_name(name: str, upstream: str, url: str | None, kind: str) -> str:
    """A model's name as the upstream expects it: Hugging Face's router has `org/model:host`, LiteLLM `host/org/model`;
    Fireworks has its own models below an account, which LiteLLM adds."""
    if name == "fireworks_ai" and kind == "chat" and not upstream.startswith("accounts/"):
        return f"accounts/fireworks/models/{upstream}"
    host, _, model = upstream.partition("/")
    there = name == "huggingface" and url == PROVIDERS[name].url and "/" in model
    return f"{model}:{host}" if there else upstream


def region_url(place: Place) -> str | None:
    """The regional address of Bedrock or Vertex AI; None if there is none.

    docs.aws.amazon.com/general/latest/gr/bedrock.html, cloud.google.com/vertex-ai/docs/reference/rest
    """
    region, api = place.region, place.provider.api
    if region is None or not re.fullmatch(r"[a-z0-9-]{2,40}", region):
        return None
    if api == "bedrock":
        return f"https://bedrock-runtime.{region}.amazonaws.com"
    host = "aiplatform" if region == "global" else f"{region}-aiplatform"
    return f"https://{host}.googleapis.com" if api == "vertexai" else None
