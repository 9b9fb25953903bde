"""How calls of a workload are tried, routed, kept and answered again."""

from __future__ import annotations

import msgspec

from groundplan.blueprint.guarding import Judge


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """A second attempt beside a slow first one; whichever answers first is the answer."""

    percentile: int | None = None
    """Of the times until the first byte that were seen of this deployment (1 to 99)."""
    after_ms: int | None = None
    """A fixed time instead."""
    at_most: float = 0.05
    """Share of calls that may be hedged."""


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """How hard a call is tried; attempts and deadline are the workload's own."""

    same: int = 0
    """Further attempts at a deployment that failed, before the next one is asked."""
    backoff_ms: int = 200
    """Before the first of them; doubles, with jitter."""
    max_backoff_ms: int = 5000
    hedge: Hedge | None = None
    balance: str = "ordered"
    """ordered | weighted | least-outstanding | latency | cheapest | prefix"""
    peers: int | None = None
    """So many of the workload's deployments, from the first, share its calls; the others are fallbacks. None: all."""
    on_broken_stream: str = "fail"
    """fail | resume"""
    priority: str = "normal"
    """critical | high | normal | low: who is refused first when a worker or a deployment is full"""


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """Which prompts and answers are kept, and for how long."""

    content: str
    """redacted | full"""
    seconds: int
    share: int = 10_000
    """Of ten thousand calls."""


class RouteRule(msgspec.Struct, frozen=True, kw_only=True):
    """A call that meets everything that is named goes to `use`."""

    name: str
    use: str
    words: list[str] = []
    longer: int | None = None
    """characters of the question at least"""
    shorter: int | None = None
    messages: int | None = None
    """messages of the conversation at least"""


class Cascade(msgspec.Struct, frozen=True, kw_only=True):
    """A cheaper deployment is asked first, and its answer is checked before anybody gets any of it."""

    first: str
    schema: str | None = None
    """JSON text that the answer must fit."""
    grounded: bool = False
    confidence: float | None = None
    """Least geometric mean of the probabilities of its tokens."""
    agreement: int | None = None
    """So many answers must say the same."""
    judge: Judge | None = None
    give: bool = False
    """Whether an answer that did not pass is given where nobody else can answer; else the call is refused."""


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Which deployment takes a call for model `auto`: the first rule that fits, else the learned router."""

    rules: list[RouteRule] = []
    router: str | None = None
    """name@version"""
    digest: str | None = None
    """SHA-256 of the router's bytes; None: whatever is there under its name and version."""
    keep: float = 0.99
    """Share of the strongest model's quality."""
    floor: float = 0.0
    """Least expected quality of one call that a smaller model takes."""
    sticky: bool = True
    """Long conversations stay with their model."""
    priced: bool = False
    """As long as the cache of their prompt is worth more than what another model saves."""
    cascade: Cascade | None = None
    barred: dict[str, str] = {}
    """deployment -> which hard rule keeps it from taking a call: a floor of quality by dimension, a class of risk"""
    quality: dict[str, dict[str, float]] = {}
    """deployment -> dimension of the workload's objectives -> declared score of its model"""
    within_ms: int | None = None
    """Most time to the first token that a deployment took lately (95th percentile)."""
    second: int = 0
    """picodollars that a second of waiting costs, beside the price of a call"""


class Semantic(msgspec.Struct, frozen=True, kw_only=True):
    """Answers given to requests that mean the same."""

    bound: float = 0.01
    """Share that may be wrong."""
    check: float = 0.05
    """Share of matches that a model answers all the same, to compare."""
    evidence: int = 20
    """Matches of a region that checks must find right before one is given; the bound may take more."""
    wrong_cost: int = 0
    """picodollars that a wrong answer costs"""
    hour: int = 50_000_000_000
    """picodollars of an hour of the processor that looks up"""


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that are given again to the same request."""

    seconds: int
    """How long after it was made."""
    max_bytes: int
    """Of all answers of the workload in one worker."""
    scope: str
    """person | group | workload: who gets the same answer"""
    semantic: Semantic | None = None
    """None: only the same request gets it."""
