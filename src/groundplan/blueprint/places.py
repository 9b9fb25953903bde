"""Sites, and the deployments of models that are served there. Durations are milliseconds (int)."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from groundplan.blueprint.prices import Rates

FIRST_TOKEN_MS = 30_000
"""How long an upstream is waited for where nobody says how long."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment's upstream is verified, and who we are to it. Files are references (`file:/path`)."""

    ca: str | None = None
    """Only certificates that chain to this file's are trusted; None: those that the system trusts."""
    cert: str | None = None
    """Our certificate, for an upstream that asks for one."""
    key: str | None = None
    """Its private key; None: in the same file as `cert`."""
    server_name: str | None = None
    """The name that the upstream's certificate must bear; None: the host of the url."""


class ProviderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider of a deployment does with what it is sent."""

    training: bool
    retention_days: int
    subprocessors: list[str] = []


class ProviderKey(msgspec.Struct, frozen=True, kw_only=True):
    """One of several keys at a deployment's provider."""

    key: str
    """Secret reference."""
    requests: list[tuple[int, str]] = []
    """(most, period) of requests with it; periods are minute, hour, day and month"""
    tokens: list[tuple[int, str]] = []

    @property
    def mark(self) -> str:
        """By which its use is counted, wherever it stands among others; where its secret is stays untold."""
        return sha256(self.key.encode()).hexdigest()[:12]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A model served at a site."""

    name: str
    site: str
    model: str
    """Canonical model name, such as `openai/gpt-4.1-mini`."""
    upstream_model: str
    """What the upstream calls it; spliced into the request."""
    url: str
    """Base URL that ends before `/chat/completions`; `local:NAME` is a service of this `up` (see runtime endpoints)."""
    key: str | None = None
    """Secret reference (`env:NAME`, `file:PATH`), never the secret."""
    keys: list[ProviderKey] = []
    """Instead of one key: the least used one is taken."""
    rates: Rates
    kind: str = "chat"
    """chat | embeddings | images | speech | transcription | rerank | moderation | realtime"""
    api: str = "openai"
    """What its upstream speaks: `openai` for anything OpenAI-shaped, or the provider (`anthropic`, `gemini`, ...)."""
    serves: list[str] = []
    """Further endpoints that an OpenAI-shaped upstream has itself: `responses`, `completions`, `batches`,
    `input_tokens`; an upstream with Anthropic's API: `batches`."""
    context_tokens: int = 8192
    max_output_tokens: int = 4096
    input_overhead_tokens: int = 16
    """Tokens per message that the chat template may add, for the input bound (bytes + overhead)."""
    tokens_per_byte: float = 1.0
    """The most tokens that its tokenizer makes of one byte; at most 6 decimals."""
    accepts: list[str] = []
    """What may be sent in besides text: `image`, `audio`, `file`."""
    image_tokens: int = 0
    """The most tokens that one image counts."""
    audio_tokens: int = 0
    """The most tokens that one KiB of audio counts."""
    audio_seconds: int = 0
    """The most audio that one request may have, where it is priced by its length; 0: not declared."""
    cap_field: str = "max_tokens"
    """Field that caps output at this upstream: `max_tokens` or `max_completion_tokens`."""
    connect_ms: int = 2000
    first_token_ms: int = FIRST_TOKEN_MS
    first_token_declared: bool = False
    """Somebody says so, also where that is as long as it is unless said."""
    idle_ms: int = 15000
    tls: Tls | None = None
    http: int = 1
    """1 | 2"""
    proxy: str | None = None
    """`http://host:port` or `https://host:port`; the upstream is reached through its CONNECT."""
    proxy_key: str | None = None
    """Secret reference to `user:password` for the proxy."""
    weight: int = 1
    """Share of calls beside its siblings, where a workload balances by weight or by calls that are outstanding."""
    concurrent: int | None = None
    """Most calls that one worker has running there; None: as many as it takes without signs of overload."""
    terms: ProviderTerms | None = None
    """None: not declared, which policies take for the worst."""
    purposes: list[str] = []
    """For what its model may be used; empty: anything."""
    billing_on_cancel: str = "full"
    """What its provider bills for an attempt that we cancel: `generated` (what came so far), `full` (as if it had gone
    on, so the bound), or `drain` (we read on to the end to learn it)."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: str
    jurisdiction: str
    title: str = ""
    holds: str | None = None
    """Most sensitive data that may be processed there; None: confidential in a cloud, restricted elsewhere."""
    purposes: list[str] = []
    """For what it may be used; empty: anything."""
