"""Which fields of OpenAI's requests each other provider supports, so that nothing is dropped on the way to it, and how
the gateway names a deployment to the local translation service. Pure; calls nobody.

The lists are what `any-llm` passes on for a provider: a field that it would drop silently is not in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import msgspec

from groundplan.blueprint.model import Deployment, Tls
from groundplan.core.errors import Invalid
from groundplan.gateway.upstream.translation import provider_support

SERVICE = "translate"
"""Local name of the translation service."""
TARGET_HEADER = b"groundplan-target"
EMBEDDED_URL = "local:embedded"
"""URL of a deployment of the model that comes with Groundplan."""
_TOOL_FIELDS = ("tools", "functions")
VERTEX_URL = re.compile(r"(https?://[^/]+)(?:/v1(?:beta1)?)?/projects/([^/]+)/locations/([^/]+)/?")
"""The URL of a deployment of Vertex AI: host, project and location."""
VERTEX_MISTRAL, VERTEX_OPENAI = "vertexai/mistral", "vertexai/openai"
"""The APIs in which the library calls models of other makers at Vertex AI."""
PARALLEL_TOOL_CALLS = "parallel_tool_calls"
_MISTRAL_MODELS = ("mistral", "codestral")
_MISTRAL_URL = re.compile(r"https://[^/]*\.mistral\.ai(?:[:/]|\Z)")
CACHE_FIELDS = ("prompt_cache_key", "prompt_cache_retention")
"""Fields that tell a provider where to look for a cached prompt, and how long to keep it: they affect the price, not
the answer."""
_REFUSED_FIELDS = (
    (_MISTRAL_URL, frozenset({"store", "user", "prompt_cache_retention"})),
    (re.compile(r"https://generativelanguage\.googleapis\.com(?:[:/]|\Z)"), frozenset({"store", *CACHE_FIELDS})),
    (re.compile(r"https://[^/]*\.groq\.com(?:[:/]|\Z)"), frozenset(CACHE_FIELDS)),
)
"""OpenAI-shaped addresses that answer 400 or 422 to unknown fields, with the fields that they reject and that do not
affect the answer."""
_CACHED_ADDRESSES = 256
"""Size of the cache of `refused_fields`."""
_VERTEX_OPENAI_MODELS = (
    "qwen", "openai/gpt-oss-", "deepseek-ai", "llama", "meta/llama", "minimaxai/", "moonshotai/", "zai-org/",
)  # fmt: skip
_CHAT = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "n",
        "response_format", "tools",
    }
)  # fmt: skip
_PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})
_COMMON_FIELDS = _CHAT | {"top_p", "stop", "tool_choice"}
_EFFORT = "reasoning_effort"
_FIELDS: dict[str, frozenset[str]] = {
    "anthropic": _COMMON_FIELDS | {PARALLEL_TOOL_CALLS, _EFFORT},
    "azure": _COMMON_FIELDS | _PENALTIES | {"seed", _EFFORT},
    "bedrock": _COMMON_FIELDS - {"response_format"},
    "cohere": (_CHAT - {"response_format"}) | _PENALTIES | {"seed"},
    "gemini": _COMMON_FIELDS | _PENALTIES | {"seed", _EFFORT},
    "groq": _COMMON_FIELDS | _PENALTIES | {"seed", "user", PARALLEL_TOOL_CALLS, _EFFORT},
    "mistral": _COMMON_FIELDS | _PENALTIES | {PARALLEL_TOOL_CALLS, _EFFORT},
    "ollama": _CHAT | _PENALTIES | {"top_p", "stop", "seed", _EFFORT},
    "vertexai": _COMMON_FIELDS | _PENALTIES | {"seed", _EFFORT},
    VERTEX_MISTRAL: _COMMON_FIELDS | _PENALTIES | {_EFFORT},
    VERTEX_OPENAI: _COMMON_FIELDS | _PENALTIES | {"seed", _EFFORT},
}
_EMBEDDINGS = frozenset({"model", "input", "encoding_format", "dimensions"})
EMBEDDING_APIS = frozenset({"azure", "bedrock", "cohere", "gemini", "mistral", "ollama", "vertexai"})
EMPTY_VALUES: tuple[object, ...] = (None, [], {})
"""Values with which a field asks for nothing."""
_EMPTY_JSON = (b"null", b"[]", b"{}")
_ZERO = frozenset({b"0", b"0.0"})
_DEFAULT_VALUES: dict[str, frozenset[bytes]] = {
    "presence_penalty": _ZERO,
    "frequency_penalty": _ZERO,
    "top_p": frozenset({b"1", b"1.0"}),
    "logprobs": frozenset({b"false"}),
    "modalities": frozenset({b'["text"]'}),
    PARALLEL_TOOL_CALLS: frozenset({b"true", b"false"}),
    "service_tier": frozenset({b'"auto"', b'"default"'}),
    "store": frozenset({b"false", b"true"}),
    "tool_choice": frozenset({b'"auto"'}),
}
"""Values that ask for the default behaviour, as many clients send them with every request. Storing is done by the
gateway, and an answer that may call only one tool is cut to its first call."""
_encode = msgspec.json.Encoder().encode


class ProviderTarget(msgspec.Struct, frozen=True):
    """What the service is to call. `key` and `proxy_key` are secret references, never the secrets. Only Anthropic's API
    supports `tls` and `proxy`; other deployments with one are refused before a release."""

    name: str
    api: str
    url: str
    key: str | None = None
    tls: Tls | None = None
    proxy: str | None = None
    proxy_key: str | None = None


decode_target = msgspec.json.Decoder(ProviderTarget).decode
"""Decodes the header's value. Raises `DecodeError`."""


def target_header(deployment: Deployment, key_index: int = 0) -> bytes:
    """The header line that names a deployment to the service, and which of its keys to use."""
    key = deployment.keys[key_index].key if deployment.keys else deployment.key
    way = (deployment.tls, deployment.proxy, deployment.proxy_key)
    data = _encode(ProviderTarget(deployment.name, deployment.api, deployment.url, key, *way))
    if not data.isascii():
        data = json.dumps(msgspec.json.decode(data)).encode("ascii")  # a file name may contain any characters
    return b"%b: %b\r\n" % (TARGET_HEADER, data)


def dialect(api: str, model: str) -> str:
    """The API in which the library calls a model; at Vertex AI it depends on the model's maker."""
    if api != "vertexai":
        return api
    if model.startswith(_MISTRAL_MODELS):
        return VERTEX_MISTRAL
    return VERTEX_OPENAI if model.lower().startswith(_VERTEX_OPENAI_MODELS) else api


def is_mistral_api(deployment: Deployment) -> bool:
    """Whether it is Mistral's OpenAI-shaped address, which reports usage by default and rejects `stream_options`."""
    return ".mistral.ai" in deployment.url and _MISTRAL_URL.match(deployment.url) is not None


def takes_effort(deployment: Deployment) -> bool:
    """Whether a deployment's model is known to take `reasoning_effort`: one of OpenAI's that reason, of which those for
    ChatGPT have none to choose."""
    if deployment.cap_field != "max_completion_tokens" or "-chat" in deployment.model:
        return False
    return deployment.api == "openai" or _EFFORT in supported_fields(deployment.api)


@lru_cache(_CACHED_ADDRESSES)
def refused_fields(url: str) -> frozenset[str]:
    """Fields that do not affect the answer and that an OpenAI-shaped address rejects."""
    return next((names for at, names in _REFUSED_FIELDS if at.match(url) is not None), frozenset())


def supported_fields(api: str, *, embeddings: bool = False) -> frozenset[str]:
    """The fields that a provider supports."""
    if embeddings:
        return _EMBEDDINGS | {"input_type"} if api == "cohere" else _EMBEDDINGS
    return _FIELDS.get(api, frozenset())


def limits_to_one_call(api: str, fields: Mapping[str, object]) -> bool:
    """Whether an answer may call only one tool, and the provider has no field to say so."""
    return fields.get(PARALLEL_TOOL_CALLS) is False and PARALLEL_TOOL_CALLS not in supported_fields(api)


def first_unsupported_field(
    api: str, fields: Mapping[str, msgspec.Raw], *, model: str = "", embeddings: bool = False
) -> str | None:
    """The first field, or part of one, that the provider does not support; None if it supports all of them. `model`:
    the provider's own name of the one that is called."""
    known = supported_fields(api, embeddings=embeddings)
    for name, raw in fields.items():
        if (
            name not in known
            and (value := bytes(raw)) not in _EMPTY_JSON
            and value not in _DEFAULT_VALUES.get(name, ())
        ):
            if name == "metadata" and bytes(fields.get("store", b"")) == b"true":
                continue  # metadata belongs to what the provider would store, and it stores nothing
            return name
    if embeddings:
        return None
    if bytes(fields.get("n", msgspec.Raw(b"null"))) not in (b"null", b"1"):
        return "n"
    return provider_support.first_unsupported(api, fields, model)


def unsupported_field_error(
    name: str, api: str = "a deployment that may serve this", *, requirement: str = "takes it"
) -> Invalid:
    """The error for a field that a provider, or chat in place of another API, does not support. `requirement`: what a
    deployment that supports it does."""
    return Invalid(
        f"{name} cannot be said in the API of {api}",
        code="field_untranslatable",
        hint=f"Leave it out, or name a model whose deployment {requirement}.",
        details={"field": name},
    )


def offered_tools(fields: Mapping[str, msgspec.Raw]) -> str:
    """Name of the field with tools that the model may call; empty: it may call none."""
    if bytes(fields.get("tool_choice", b"")) == b'"none"':
        return ""
    return next((name for name in _TOOL_FIELDS if bytes(fields.get(name, b"null")) not in _EMPTY_JSON), "")


def _no_tools_error(name: str) -> Invalid:
    """The error for tools that are offered to the embedded model: llama.cpp would leave them out of its prompt, and
    answer as if there were none."""
    return Invalid(
        f"the embedded model calls no tools, so {name} would be ignored",
        code="field_untranslatable",
        hint='Leave them out, send tool_choice: "none", or name a model that calls tools.',
        details={"field": name},
    )


def fields_to_drop(fields: Collection[str], deployment: Deployment, droppable: Iterable[str]) -> list[str]:
    """Those of the fields in `droppable`, which do not affect the answer, that a deployment does not support."""
    if deployment.api == "openai":
        refused = refused_fields(deployment.url)
        return [name for name in droppable if name in fields and name in refused] if refused else []
    known = supported_fields(dialect(deployment.api, deployment.upstream_model))
    return [name for name in droppable if name in fields and name not in known]


def left_out_of_request(deployment: Deployment, fields: Mapping[str, msgspec.Raw]) -> set[str]:
    """Names of what of a supported request is not sent to a deployment with another API than OpenAI's."""
    return provider_support.left_out_of_request(dialect(deployment.api, deployment.upstream_model), fields)


def capable_deployments(
    fields: Mapping[str, msgspec.Raw],
    deployments: Iterable[Deployment],
    *,
    embeddings: bool = False,
    droppable: Iterable[str] = (),
) -> tuple[Deployment, ...]:
    """The deployments that support all fields except those in `droppable`. Raises `Invalid` (`field_untranslatable`) if
    there is none."""
    if droppable:
        fields = {name: raw for name, raw in fields.items() if name not in droppable}
    capable: list[Deployment] = []
    error: Invalid | None = None
    for deployment in deployments:
        if deployment.api == "openai":
            if deployment.url == EMBEDDED_URL and (offered := offered_tools(fields)):
                error = _no_tools_error(offered)
            else:
                capable.append(deployment)
        elif embeddings and deployment.api not in EMBEDDING_APIS:
            error = unsupported_field_error("embeddings", deployment.api)
        elif (name := _unsupported_field(deployment, fields, embeddings=embeddings)) is not None:
            error = unsupported_field_error(name, deployment.api)
        else:
            capable.append(deployment)
    if error is not None and not capable:
        raise error
    return tuple(capable)


def _unsupported_field(deployment: Deployment, fields: Mapping[str, msgspec.Raw], *, embeddings: bool) -> str | None:
    api = dialect(deployment.api, deployment.upstream_model)
    return first_unsupported_field(api, fields, model=deployment.upstream_model, embeddings=embeddings)
