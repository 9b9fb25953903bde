"""What of OpenAI's requests each other provider can be told, so that nothing is dropped on the way to it, and how the
gateway names a deployment to the local translating service. Pure; calls nobody.

The lists are what `any-llm` passes on for a provider: a field that it would leave out silently is not in them.
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
"""Local name of the service."""
HEADER = b"groundplan-target"
VERTEX_URL = re.compile(r"(https?://[^/]+)(?:/v1(?:beta1)?)?/projects/([^/]+)/locations/([^/]+)/?")
"""The address of a deployment of Vertex AI: host, project and location."""
VERTEX_MISTRAL, VERTEX_OPENAI = "vertexai/mistral", "vertexai/openai"
"""In whose words the library asks for models of other makers at Vertex AI."""
PARALLEL = "parallel_tool_calls"
_MISTRALS = ("mistral", "codestral")
_MISTRALS_OWN = re.compile(r"https://[^/]*\.mistral\.ai(?:[:/]|\Z)")
OF_CACHES = ("prompt_cache_key", "prompt_cache_retention")
"""Fields that say where a provider looks for what it read of a prompt before, and for how long: they are about a price,
not about the answer."""
_REFUSED = (
    (_MISTRALS_OWN, frozenset({"store", "user", "prompt_cache_retention"})),
    (re.compile(r"https://generativelanguage\.googleapis\.com(?:[:/]|\Z)"), frozenset({"store", *OF_CACHES})),
    (re.compile(r"https://[^/]*\.groq\.com(?:[:/]|\Z)"), frozenset(OF_CACHES)),
)
"""OpenAI-shaped addresses that answer 400 or 422 to a field that they do not know, and fields on which nothing of an
answer depends that they do not."""
_ADDRESSES = 256
"""Of which it is remembered what they refuse."""
_OPENAI_SHAPED = (
    "qwen", "openai/gpt-oss-", "deepseek-ai", "llama", "meta/llama", "minimaxai/", "moonshotai/", "zai-org/",
)  # fmt: skip
_CHAT = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "n",
        "response_format", "tools",
    }
)  # fmt: skip
_PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})
_USUAL = _CHAT | {"top_p", "stop", "tool_choice"}
_FIELDS: dict[str, frozenset[str]] = {
    "anthropic": _USUAL | {PARALLEL},
    "azure": _USUAL | _PENALTIES | {"seed"},
    "bedrock": _USUAL - {"response_format"},
    "cohere": (_CHAT - {"response_format"}) | _PENALTIES | {"seed"},
    "gemini": _USUAL | _PENALTIES | {"seed"},
    "groq": _USUAL | _PENALTIES | {"seed", "user", PARALLEL},
    "mistral": _USUAL | _PENALTIES | {PARALLEL},
    "ollama": _CHAT | _PENALTIES | {"top_p", "stop", "seed"},
    "vertexai": _USUAL | _PENALTIES | {"seed"},
    VERTEX_MISTRAL: _USUAL | _PENALTIES,
    VERTEX_OPENAI: _USUAL | _PENALTIES | {"seed"},
}
_EMBEDDINGS = frozenset({"model", "input", "encoding_format", "dimensions"})
EMBEDS = frozenset({"azure", "bedrock", "cohere", "gemini", "mistral", "ollama", "vertexai"})
EMPTY: tuple[object, ...] = (None, [], {})
"""Values of fields that ask for nothing, whatever these are."""
_NOTHING = (b"null", b"[]", b"{}")
_ZERO = frozenset({b"0", b"0.0"})
_UNASKED: dict[str, frozenset[bytes]] = {
    "presence_penalty": _ZERO,
    "frequency_penalty": _ZERO,
    "top_p": frozenset({b"1", b"1.0"}),
    "logprobs": frozenset({b"false"}),
    "modalities": frozenset({b'["text"]'}),
    PARALLEL: frozenset({b"true", b"false"}),
    "service_tier": frozenset({b'"auto"', b'"default"'}),
    "store": frozenset({b"false", b"true"}),
    "tool_choice": frozenset({b'"auto"'}),
}
"""Values that ask for what is done unasked, as many clients send them with every request; what is stored is stored
here, and an answer that is to call one tool at most is cut to its first call."""
_encode = msgspec.json.Encoder().encode


class Place(msgspec.Struct, frozen=True):
    """Where the service is to ask. `key` and `proxy_key` are secret references, never the secrets. Only of an address
    of Anthropic is there a way with `tls` or a `proxy`; others with one are refused before they are released."""

    name: str
    api: str
    url: str
    key: str | None = None
    tls: Tls | None = None
    proxy: str | None = None
    proxy_key: str | None = None


place = msgspec.json.Decoder(Place).decode
"""The value of the header. Raises `DecodeError`."""


def target_line(deployment: Deployment, index: int = 0) -> bytes:
    """The header line that names a deployment to the service, and which of its keys to use."""
    key = deployment.keys[index].key if deployment.keys else deployment.key
    way = (deployment.tls, deployment.proxy, deployment.proxy_key)
    data = _encode(Place(deployment.name, deployment.api, deployment.url, key, *way))
    if not data.isascii():
        data = json.dumps(msgspec.json.decode(data)).encode("ascii")  # a file may be called anything
    return b"%b: %b\r\n" % (HEADER, data)


def dialect(api: str, model: str) -> str:
    """In whose words a model is asked, which at Vertex AI depends on who made it."""
    if api != "vertexai":
        return api
    if model.startswith(_MISTRALS):
        return VERTEX_MISTRAL
    return VERTEX_OPENAI if model.lower().startswith(_OPENAI_SHAPED) else api


def is_strict(deployment: Deployment) -> bool:
    """Whether it is Mistral's OpenAI-shaped address, which tells usage unasked and refuses `stream_options`."""
    return ".mistral.ai" in deployment.url and _MISTRALS_OWN.match(deployment.url) is not None


@lru_cache(_ADDRESSES)
def refused_at(url: str) -> frozenset[str]:
    """Fields on which nothing of an answer depends that an OpenAI-shaped address refuses."""
    return next((names for at, names in _REFUSED if at.match(url) is not None), frozenset())


def knows(api: str, *, embeddings: bool = False) -> frozenset[str]:
    """Fields for which a provider has a word."""
    if embeddings:
        return _EMBEDDINGS | {"input_type"} if api == "cohere" else _EMBEDDINGS
    return _FIELDS.get(api, frozenset())


def calls_one(api: str, fields: Mapping[str, object]) -> bool:
    """Whether an answer may call one tool at most, which this provider cannot be told."""
    return fields.get(PARALLEL) is False and PARALLEL not in knows(api)


def unknown_field(api: str, fields: Mapping[str, msgspec.Raw], *, embeddings: bool = False) -> str | None:
    """The first field that this provider cannot be told; None where it can be told all of them."""
    known = knows(api, embeddings=embeddings)
    for name, raw in fields.items():
        if name not in known and (said := bytes(raw)) not in _NOTHING and said not in _UNASKED.get(name, ()):
            if name == "metadata" and bytes(fields.get("store", b"")) == b"true":
                continue  # it is of what would be stored there, and nothing is
            return name
    if embeddings:
        return None
    if bytes(fields.get("n", msgspec.Raw(b"null"))) not in (b"null", b"1"):
        return "n"
    return provider_support.unknown(api, fields)


def cannot(name: str, api: str = "a deployment that may serve this", *, unless: str = "takes it") -> Invalid:
    """The refusal of a field that a provider, or chat in the place of another API, has no word for. `unless`: what a
    deployment does that is told of it."""
    return Invalid(
        f"{name} cannot be said in the API of {api}",
        code="field_untranslatable",
        hint=f"Leave it out, or name a model whose deployment {unless}.",
        details={"field": name},
    )


def left_out(fields: Collection[str], deployment: Deployment, spare: Iterable[str]) -> list[str]:
    """Of the fields that are `spare`, since nothing of an answer depends on them, those that a deployment has no word
    for."""
    if deployment.api == "openai":
        refused = refused_at(deployment.url)
        return [name for name in spare if name in fields and name in refused] if refused else []
    known = knows(dialect(deployment.api, deployment.upstream_model))
    return [name for name in spare if name in fields and name not in known]


def able(
    fields: Mapping[str, msgspec.Raw],
    deployments: Iterable[Deployment],
    *,
    embeddings: bool = False,
    spare: Iterable[str] = (),
) -> tuple[Deployment, ...]:
    """Those that can be told all of it, but for what is `spare`. Raises `Invalid` (`field_untranslatable`) where none
    can."""
    if spare:
        fields = {name: raw for name, raw in fields.items() if name not in spare}
    kept: list[Deployment] = []
    why: Invalid | None = None
    for deployment in deployments:
        if deployment.api == "openai":
            kept.append(deployment)
        elif embeddings and deployment.api not in EMBEDS:
            why = cannot("embeddings", deployment.api)
        elif (name := _unknown_of(deployment, fields, embeddings=embeddings)) is not None:
            why = cannot(name, deployment.api)
        else:
            kept.append(deployment)
    if why is not None and not kept:
        raise why
    return tuple(kept)


def _unknown_of(deployment: Deployment, fields: Mapping[str, msgspec.Raw], *, embeddings: bool) -> str | None:
    api = dialect(deployment.api, deployment.upstream_model)
    return unknown_field(api, fields, embeddings=embeddings)
