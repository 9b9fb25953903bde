"""Sites, and the deployments of models served there. Durations are milliseconds (int)."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from groundplan.blueprint.prices import Rates

FIRST_TOKEN_MS = 30_000
"""Default wait for the first token of an upstream."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment's upstream is verified, and our certificate for it. Files are references (`file:/path`)."""

    ca: str | None = None
    """File of the certificates that are trusted, alone; None: those that the system trusts."""
    cert: str | None = None
    """Our certificate, for an upstream that requests one."""
    key: str | None = None
    """The private key of `cert`; None: it is in the same file."""
    server_name: str | None = None
    """The name that the upstream's certificate must have; None: the host of the url."""


class ProviderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider of a deployment does with the data that it gets."""

    training: bool
    retention_days: int
    subprocessors: list[str] = []


class ProviderKey(msgspec.Struct, frozen=True, kw_only=True):
    """One of several keys at a deployment's provider."""

    key: str
    """Secret reference."""
    requests: list[tuple[int, str]] = []
    """(most, period) of requests with this key; periods are minute, hour, day and month"""
    tokens: list[tuple[int, str]] = []

    @property
    def fingerprint(self) -> str:
        """Name under which the key's use is counted, independent of its position among the keys; it does not reveal the
        reference."""
        return sha256(self.key.encode()).hexdigest()[:12]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A model served at a site."""

    name: str
    site: str
    model: str
    """Canonical model name, such as `openai/gpt-4.1-mini`."""
    upstream_model: str
    """The upstream's name of the model; spliced into the request."""
    url: str
    """Base URL that ends before `/chat/completions`; `local:NAME` is a service of this `up` (see runtime endpoints)."""
    key: str | None = None
    """Secret reference (`env:NAME`, `file:PATH`), never the secret."""
    keys: list[ProviderKey] = []
    """Several keys instead of one; each call takes the least used one."""
    rates: Rates
    kind: str = "chat"
    """chat | embeddings | images | speech | transcription | rerank | moderation | realtime"""
    api: str = "openai"
    """API of the upstream: `openai` for anything OpenAI-shaped, or the provider (`anthropic`, `gemini`, ...)."""
    serves: list[str] = []
    """Further endpoints that the upstream serves itself. OpenAI-shaped: `responses`, `completions`, `batches`,
    `input_tokens`; with Anthropic's API: `batches`."""
    context_tokens: int = 8192
    max_output_tokens: int = 4096
    input_overhead_tokens: int = 16
    """Tokens per message that the chat template may add, for the input bound (bytes + overhead)."""
    tokens_per_byte: float = 1.0
    """The most tokens into which the tokenizer splits one byte; at most 6 decimals."""
    accepts: list[str] = []
    """Inputs that are accepted besides text: `image`, `audio`, `file`."""
    image_tokens: int = 0
    """The most tokens that one image counts as."""
    audio_tokens: int = 0
    """The most tokens that one KiB of audio counts as."""
    audio_seconds: int = 0
    """The longest audio of one request, where it is priced by its length; 0: not declared."""
    cap_field: str = "max_tokens"
    """Field that caps output at this upstream: `max_tokens` or `max_completion_tokens`."""
    connect_ms: int = 2000
    first_token_ms: int = FIRST_TOKEN_MS
    first_token_declared: bool = False
    """Whether `first_token_ms` is declared, even if it equals the default."""
    idle_ms: int = 15000
    tls: Tls | None = None
    http: int = 1
    """1 | 2"""
    proxy: str | None = None
    """`http://host:port` or `https://host:port`; the upstream is reached through its CONNECT."""
    proxy_key: str | None = None
    """Secret reference to `user:password` for the proxy."""
    weight: int = 1
    """Share of calls in relation to its siblings, where a workload balances by weight or by outstanding calls."""
    concurrent: int | None = None
    """The most calls that one worker has running there; None: as many as it takes without signs of overload."""
    terms: ProviderTerms | None = None
    """None: not declared; policies then assume the worst."""
    purposes: list[str] = []
    """Purposes for which its model may be used; empty: any."""
    billing_on_cancel: str = "full"
    """What the provider bills for an attempt that we cancel: `generated` (the tokens so far), `full` (as if it had gone
    on, so the bound), or `drain` (unknown: we read the answer to its end to learn it)."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: str
    jurisdiction: str
    title: str = ""
    holds: str | None = None
    """The most sensitive data that may be processed there; None: confidential in a cloud, restricted elsewhere."""
    purposes: list[str] = []
    """Purposes for which the site may be used; empty: any."""
