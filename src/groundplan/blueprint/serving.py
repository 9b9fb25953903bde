"""How calls of a workload are attempted, routed, stored and cached."""

from __future__ import annotations

import msgspec

from groundplan.blueprint.guarding import Judge


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """A second attempt in parallel to a slow first one; the attempt that answers first is used."""

    percentile: int | None = None
    """Percentile (1 to 99) of this deployment's observed times to the first byte, after which the hedge is sent."""
    after_ms: int | None = None
    """A fixed delay instead."""
    at_most: float = 0.05
    """The largest share of calls that may be hedged."""


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """Retries and balancing of a call; attempts and deadline are fields of the workload."""

    same: int = 0
    """Retries at a deployment that failed, before the next one is tried."""
    backoff_ms: int = 200
    """Delay before the first retry; it doubles, with jitter."""
    max_backoff_ms: int = 5000
    hedge: Hedge | None = None
    balance: str = "ordered"
    """ordered | weighted | least-outstanding | latency | cheapest | prefix"""
    peers: int | None = None
    """Number of the workload's deployments, from the first, that share its calls; the others are fallbacks. None: all
    share."""
    on_broken_stream: str = "fail"
    """fail | resume"""
    priority: str = "normal"
    """critical | high | normal | low: which calls are refused first when a worker or a deployment is full"""


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """Which prompts and answers are stored, and for how long."""

    content: str
    """redacted | full"""
    seconds: int
    share: int = 10_000
    """Share of calls that are stored, of ten thousand."""


class RouteRule(msgspec.Struct, frozen=True, kw_only=True):
    """A call that meets all declared conditions goes to the deployment `use`."""

    name: str
    use: str
    words: list[str] = []
    longer: int | None = None
    """least characters of the question"""
    shorter: int | None = None
    messages: int | None = None
    """least messages of the conversation"""


class Cascade(msgspec.Struct, frozen=True, kw_only=True):
    """A cheaper deployment is tried first, and its answer is checked before the client gets any of it."""

    first: str
    schema: str | None = None
    """JSON text of the schema that the answer must match."""
    grounded: bool = False
    confidence: float | None = None
    """Least geometric mean of the token probabilities of an answer."""
    agreement: int | None = None
    """Number of answers that must agree."""
    judge: Judge | None = None
    give: bool = False
    """Whether an answer that failed the checks is given if no other deployment can answer; else the call is refused."""


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Which deployment takes a call for model `auto`: the first matching rule, else the learned router."""

    rules: list[RouteRule] = []
    router: str | None = None
    """name@version"""
    digest: str | None = None
    """SHA-256 of the router's bytes; None: not checked."""
    keep: float = 0.99
    """Share of the strongest model's quality to keep."""
    floor: float = 0.0
    """Least expected quality of one call for which a smaller model is chosen."""
    sticky: bool = True
    """Whether long conversations stay with their model."""
    priced: bool = False
    """Whether they stay only while the cache of their prompt is worth more than the saving by another model."""
    cascade: Cascade | None = None
    barred: dict[str, str] = {}
    """deployment -> hard rule by which it may not take calls: a floor of quality by dimension, or a class of risk"""
    quality: dict[str, dict[str, float]] = {}
    """deployment -> dimension of the workload's objectives -> declared score of its model"""
    within_ms: int | None = None
    """The longest recent time to the first token (95th percentile) of a deployment that may be chosen."""
    second: int = 0
    """picodollars that a second of waiting counts, on top of the price of a call"""


class Semantic(msgspec.Struct, frozen=True, kw_only=True):
    """Cached answers for requests with the same meaning."""

    bound: float = 0.01
    """Share of answers that may be wrong."""
    check: float = 0.05
    """Share of matches that a model answers nevertheless, for comparison."""
    evidence: int = 20
    """Matches of a region that checks must confirm before an answer is given from it; the bound may require more."""
    wrong_cost: int = 0
    """picodollars that a wrong answer costs"""
    hour: int = 50_000_000_000
    """picodollars of an hour of the processor that does the look-ups"""


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """Cached answers for identical requests."""

    seconds: int
    """How long an answer is cached."""
    max_bytes: int
    """The most bytes of all cached answers of the workload in one worker."""
    scope: str
    """person | group | workload: who shares cached answers"""
    semantic: Semantic | None = None
    """None: only identical requests get a cached answer."""
