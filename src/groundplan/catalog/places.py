"""Where models run and who serves them: sites, deployments, models.

One pydantic model per kind; text with units is parsed on the way in. The sentence below a field describes it in
the JSON Schema. Rules between documents are `check`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import (
    LIST,
    Count,
    Jurisdiction,
    Line,
    ModelName,
    Name,
    Names,
    PersonRef,
    Secret,
    Tokens,
    TokensPerByte,
    UpstreamName,
    Url,
    UseRates,
    Wait,
    list_schema,
)
from groundplan.catalog.hosting import HostingRule
from groundplan.catalog.levels import Sensitivity
from groundplan.catalog.model_specs import HostedRule, Needs, Quality, WeightsRule
from groundplan.catalog.money import Prices
from groundplan.catalog.policies import ProviderTerms
from groundplan.catalog.reliability import BillingOnCancel, DeploymentLimits, Weight
from groundplan.catalog.risk import Level
from groundplan.catalog.transport import HttpVersion, ProxyUrl, TlsDoc


class SiteDoc(Strict):
    """A place where models run."""

    kind: Literal["site"] = "site"
    name: Name
    title: Line | None = None
    type: Literal["cloud", "private", "edge"]
    jurisdiction: Jurisdiction
    """Jurisdiction of the place: EU, US, CH, or an ISO country such as NO."""
    holds: Sensitivity | None = None
    """The most sensitive data that may be processed there. Default: confidential in a cloud, restricted elsewhere."""
    owner: PersonRef | None = None
    purposes: Names = ()
    """Purposes for which it may be used; empty: any. All of a workload's `needs: {purposes: …}` must be among them."""
    hosting: HostingRule = HostingRule()

    @property
    def max_sensitivity(self) -> Sensitivity:
        return self.holds or ("confidential" if self.type == "cloud" else "restricted")


class Timeouts(Strict):
    """How long to wait for an upstream."""

    connect: Wait = 2_000
    """Timeout of connecting."""
    first_token: Wait = 30_000
    """Timeout until the first token; an answer that is not streamed has `idle` more until it begins. Not declared, and
    without another deployment: the call's deadline."""
    idle: Wait = 15_000
    """Timeout between two pieces of an answer."""


class ProviderKeyDoc(Strict):
    """One of several keys at a provider, with what it may do at most."""

    key: Secret
    requests: UseRates = ()
    """600/minute; or a list: [600/minute, 10k/day]"""
    tokens: UseRates = ()
    """Prompt and answer together: 200k/minute"""


class DeploymentDoc(Strict):
    """A model served at a site by a provider through an OpenAI-compatible API."""

    kind: Literal["deployment"] = "deployment"
    name: Name
    title: Line | None = None
    site: Name
    model: ModelName
    """Models in the price list have a price: `openai/gpt-4.1-mini`."""
    url: Url
    """Base URL, without /chat/completions. `local:embedded` is the model that comes with Groundplan."""
    key: Secret | None = None
    """`env:NAME` or `file:/path`; never the secret."""
    keys: Annotated[tuple[ProviderKeyDoc, ...], LIST] = ()
    """Several keys instead of one: each call takes the least used one, and a key that the provider refuses is
    paused."""
    upstream_model: UpstreamName | None = None
    """The upstream's name of the model, if it differs: also a path, such as `/models/llama`, as vLLM names them."""
    type: Literal["chat", "embeddings", "images", "speech", "transcription", "rerank", "moderation", "realtime"] = (
        "chat"
    )
    api: Literal[
        "openai", "anthropic", "azure", "bedrock", "cohere", "gemini", "groq", "mistral", "ollama", "vertexai"
    ] = "openai"
    """API of the upstream. `openai`: any OpenAI-compatible one, such as vLLM, llama.cpp, Azure's /v1."""
    serves: Annotated[
        tuple[Literal["responses", "completions", "batches", "input_tokens"], ...],
        LIST,
        list_schema({"enum": ["responses", "completions", "batches", "input_tokens"]}),
    ] = ()
    """Further endpoints that an OpenAI-shaped upstream has; others are served by way of chat, batches call by call,
    input_tokens (/responses/input_tokens) by an estimate. With `api: anthropic`: `batches`."""
    price: Prices = ()
    """Overrides the known price: `free`, one price, or a list of prices with `from`."""
    context: Tokens | None = None
    """Maximum number of tokens of prompt and answer together. Left out: the model's, else the price list's."""
    max_output: Tokens | None = None
    """Maximum number of tokens of an answer. Left out: the model's, else 4096."""
    accepts: Annotated[
        tuple[Literal["image", "audio", "file"], ...], LIST, list_schema({"enum": ["image", "audio", "file"]})
    ] = ()
    """What may be sent in besides text. image needs image_tokens, audio needs audio_tokens; for a call with a file,
    such as a PDF, the whole `context` is reserved."""
    image_tokens: Tokens | None = None
    """Maximum number of tokens that one image counts as."""
    audio_tokens: Tokens | None = None
    """Maximum number of tokens that one KiB of audio counts as."""
    audio: Wait | None = None
    """The longest audio in one request, such as 30m. Required if a minute has a price."""
    tokens_per_byte: TokensPerByte = 1.0
    """The most tokens that the tokenizer makes of one byte of text. 1 is right for every byte-level one; others may
    make more, and then a prompt costs more than its bytes say."""
    input_overhead_tokens: Annotated[Count, Field(ge=1, le=100_000)] = 16
    """Maximum number of tokens that the chat template adds for each message, and twice for the whole prompt."""
    cap_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    """Field that caps the answer at this upstream. Left out it is max_tokens, and max_completion_tokens of OpenAI's
    models that take no other (o1, gpt-5 and later ones)."""
    timeouts: Timeouts = Timeouts()
    weight: Weight = 1
    """Share of calls relative to the other deployments of a workload with load balancing; 0: only when the others
    fail."""
    limits: DeploymentLimits = DeploymentLimits()
    billing_on_cancel: BillingOnCancel = "full"
    """What the provider bills when we cancel a call. generated: what it wrote so far; full: as if it went on, so we
    count the most that it may cost; drain: we read on to the end to learn it."""
    tls: TlsDoc | None = None
    http: HttpVersion = 1
    """2: one connection for many calls. Requires the extra `groundplan[http2]`."""
    proxy: ProxyUrl | None = None
    """Proxy to the upstream, used by CONNECT; `direct`: none. Default: the company's."""
    proxy_key: Secret | None = None
    """`user:password` for the proxy: `env:NAME` or `file:/path`."""
    provider_terms: ProviderTerms | None = None
    """What the provider does with the data. Left out: unknown, for which policies assume the worst."""
    hosted: HostedRule = HostedRule()

    @property
    def name_upstream(self) -> str:
        """`upstream_model`, or the last part of the model's name."""
        return self.upstream_model or self.model.rpartition("/")[2]


class ModelDoc(Strict):
    """A model that is not in the price list, or additions to one that is."""

    kind: Literal["model"] = "model"
    name: ModelName
    title: Line | None = None
    provider: Line | None = None
    licence: Line | None = None
    price: Prices = ()
    context: Tokens | None = None
    """Default for its deployments, as is `max_output`."""
    max_output: Tokens | None = None
    weights: WeightsRule = WeightsRule()
    quality: Annotated[tuple[Quality, ...], LIST] = ()
    """Measured quality by task, such as accuracy; compared with a workload's `objectives.quality`."""
    able: Needs = ()
    """Its capabilities besides text."""
    risk: Level | None = None
    """Risk of the model as assessed for the company; a workload's `routing.risk` is the maximum."""
    purposes: Names = ()
    """Purposes for which it may be used; empty: any. All of a workload's `needs: {purposes: …}` must be among them."""
