"""The blueprint: the frozen, numbered, signed artifact that every runtime reads. Execution makes no choices beyond it.

Types only; compiling is `release`, signing and reading are `blueprint.artifact`. Amounts are picodollars (int), rates
are picodollars per million tokens (int), durations are milliseconds (int). Every list is sorted, so the same input
gives the same bytes.
"""

from __future__ import annotations

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of all blueprint types; unknown fields of a newer minor version are ignored."""


class RateDetails(Struct, frozen=True, kw_only=True):
    """Prices of classes that few models have, picodollars per million tokens; None: as the class around them."""

    cache_write_1h: int | None = None
    cache_read_audio: int | None = None
    cache_read_image: int | None = None
    input_image: int | None = None
    input_video: int | None = None
    output_image: int | None = None
    output_video: int | None = None
    citations: int | None = None
    search: int = 0
    """picodollars for each search of the web that the provider makes"""


class Rates(Struct, frozen=True, kw_only=True):
    """Price of one deployment in picodollars per million tokens of each class; `request` is picodollars a call.

    `None` of a class means that it is priced as its parent (cache read/write and audio as input, reasoning as output).
    """

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None
    request: int = 0
    image: int = 0
    """picodollars for each image that is sent in, on top of its tokens"""
    images: dict[str, int] = {}
    """picodollars for each image that is made: by `1024x1024/high`, else `1024x1024`, else `any`"""
    characters: int = 0
    """picodollars per million characters that are spoken"""
    minute: int = 0
    """picodollars for each minute of audio that is listened to"""
    long_above: int = 0
    long: Rates | None = None
    """What the whole call costs when its prompt has more than `long_above` tokens; may itself have a longer tier."""
    batch: Rates | None = None
    """In a batch; None: as any call."""
    priority: Rates | None = None
    """With service_tier priority; None: that is refused."""
    details: RateDetails | None = None
    """None: no finer class has a price of its own."""
    source: str = "declared"
    """Where the price is from: `genai-prices 0.2.3 openai/gpt-4.1-mini`, `declared FILE:LINE`, or `declared free`."""
    effective: str = ""
    """ISO date from which it holds."""


class Tls(Struct, frozen=True, kw_only=True):
    """How a deployment's upstream is verified, and who we are to it. Files are references (`file:/path`)."""

    ca: str | None = None
    """Only certificates that chain to this file's are trusted; None: those that the system trusts."""
    cert: str | None = None
    """Our certificate, for an upstream that asks for one."""
    key: str | None = None
    """Its private key; None: in the same file as `cert`."""
    server_name: str | None = None
    """The name that the upstream's certificate must bear; None: the host of the url."""


class ProviderTerms(Struct, frozen=True, kw_only=True):
    """What the provider of a deployment does with what it is sent."""

    training: bool
    retention_days: int
    subprocessors: list[str] = []


class ProviderKey(Struct, frozen=True, kw_only=True):
    """One of several keys at a deployment's provider."""

    key: str
    """Secret reference."""
    requests: list[tuple[int, str]] = []
    """(most, period) of requests with it; periods are minute, hour, day and month"""
    tokens: list[tuple[int, str]] = []


class Deployment(Struct, frozen=True, kw_only=True):
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
    """Further endpoints that an OpenAI-shaped upstream has itself: `responses`, `completions`."""
    context_tokens: int = 8192
    max_output_tokens: int = 4096
    input_overhead_tokens: int = 16
    """Tokens per message that the chat template may add, for the input bound (bytes + overhead)."""
    accepts: list[str] = []
    """What may be sent in besides text: `image`, `audio`."""
    image_tokens: int = 0
    """The most tokens that one image counts."""
    audio_tokens: int = 0
    """The most tokens that one KiB of audio counts."""
    audio_seconds: int = 0
    """The most audio that one request may have, where it is priced by its length; 0: not declared."""
    cap_field: str = "max_tokens"
    """Field that caps output at this upstream: `max_tokens` or `max_completion_tokens`."""
    connect_ms: int = 2000
    first_token_ms: int = 30000
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
    billing_on_cancel: str = "full"
    """What its provider bills for an attempt that we cancel: `generated` (what came so far), `full` (as if it had gone
    on, so the bound), or `drain` (we read on to the end to learn it)."""


class Site(Struct, frozen=True, kw_only=True):
    name: str
    type: str
    jurisdiction: str
    title: str = ""
    holds: str | None = None
    """Most sensitive data that may be processed there; None: confidential in a cloud, restricted elsewhere."""


class Budget(Struct, frozen=True, kw_only=True):
    name: str
    covers: str
    """company | team/NAME | workload/NAME | key/ID"""
    limit: int
    """picodollars per period"""
    period: str
    """minute | hour | day | week | month | quarter | year | total"""
    starts: str = ""
    """First day of a period where that is not the calendar's: weekday of a week, day of a month, MM-DD of a quarter or
    year."""
    timezone: str = "UTC"
    hard: bool = True
    """False: it warns when it is crossed and refuses nothing."""


class Limit(Struct, frozen=True, kw_only=True):
    """One number of a declared limit."""

    name: str
    covers: str
    """company | team/NAME | workload/NAME | key/ID | user/EMAIL | model/NAME | deployment/NAME; `user`, `key`: each"""
    type: str
    """requests | tokens | concurrent | cost"""
    amount: int
    """a count; picodollars for cost"""
    period: str
    """minute | hour | day | month (UTC); now for concurrent"""


class Grant(Struct, frozen=True, kw_only=True):
    """People to whom something is allowed."""

    name: str
    to: list[str]
    """Groups and teams by name, people by e-mail address; `everyone`."""
    until: str | None = None
    """ISO date of the last day (UTC)."""


class Governed(Struct, frozen=True, kw_only=True):
    """What holds for the documents of a source, unless one is stricter. Times are days."""

    steward: str | None = None
    state: str = "approved"
    purposes: list[str] = []
    workloads: list[str] = []
    residency: list[str] = []
    licence: str | None = None
    retain_days: int | None = None
    legal_hold: bool = False
    erase_days: int = 30


class Connector(Struct, frozen=True, kw_only=True):
    """Where a source is read from; `settings` are those of its type in the catalog, secrets by reference only."""

    type: str
    settings: dict[str, str | int | float] = {}


class Needs(Struct, frozen=True, kw_only=True):
    """What a workload asks of the content that it is given. `quality` is 0 to 1."""

    purposes: list[str] = []
    quality: float = 0.0
    scanned: bool = False


class Term(Struct, frozen=True, kw_only=True):
    """A word of the company's glossary."""

    name: str
    title: str
    meaning: str
    synonyms: list[str] = []
    forbidden: list[str] = []
    owner: str | None = None


class Source(Struct, frozen=True, kw_only=True):
    name: str
    path: str
    sensitivity: str
    owner: str
    readers: list[str]
    read: list[Grant] = []
    """Who reads it besides `readers`."""
    governed: Governed = Governed()
    connector: Connector | None = None
    """None: the folder `path` of the workspace."""
    checks: list[dict[str, str | int | float | bool | list[str]]] = []
    """Checks of columns of its tables, as declared."""


class Grounding(Struct, frozen=True, kw_only=True):
    sources: list[str]
    passages: int = 4
    max_bytes: int = 6000
    """Most that grounding may add to a prompt; reserved at admission."""
    floor: float = 0.0
    """Below that confidence (0 to 1) no passage is given."""
    required: bool = True
    """True: cut off from the live permissions, a call is refused. A call for which no passage is found is answered."""


class Hedge(Struct, frozen=True, kw_only=True):
    """A second attempt beside a slow first one; whichever answers first is the answer."""

    percentile: int | None = None
    """Of the times until the first byte that were seen of this deployment (1 to 99)."""
    after_ms: int | None = None
    """A fixed time instead."""
    at_most: float = 0.05
    """Share of calls that may be hedged."""


class Reliability(Struct, frozen=True, kw_only=True):
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


class Keep(Struct, frozen=True, kw_only=True):
    """Which prompts and answers are kept, and for how long."""

    content: str
    """redacted | full"""
    seconds: int
    share: int = 10_000
    """Of ten thousand calls."""


class RouteRule(Struct, frozen=True, kw_only=True):
    """A call that meets everything that is named goes to `use`."""

    name: str
    use: str
    words: list[str] = []
    longer: int | None = None
    """characters of the question at least"""
    shorter: int | None = None
    messages: int | None = None
    """messages of the conversation at least"""


class Routing(Struct, frozen=True, kw_only=True):
    """Which deployment takes a call for model `auto`: the first rule that fits, else the learned router."""

    rules: list[RouteRule] = []
    router: str | None = None
    """name@version"""
    keep: float = 0.99
    """Share of the strongest model's quality."""
    floor: float = 0.0
    """Least expected quality of one call that a smaller model takes."""
    sticky: bool = True
    """Long conversations stay with their model."""


class Semantic(Struct, frozen=True, kw_only=True):
    """Answers given to requests that mean the same."""

    bound: float = 0.01
    """Share that may be wrong."""
    check: float = 0.05
    """Share of matches that a model answers all the same, to compare."""
    evidence: int = 20
    """Matches of a region that are checked before one is given."""


class Cache(Struct, frozen=True, kw_only=True):
    """Answers that are given again to the same request."""

    seconds: int
    """How long after it was made."""
    max_bytes: int
    """Of all answers of the workload in one worker."""
    scope: str
    """person | group | workload: who gets the same answer"""
    semantic: Semantic | None = None
    """None: only the same request gets it."""


class CompanyEntity(Struct, frozen=True, kw_only=True):
    """A shape of the company's own that counts as personal data or as a secret."""

    name: str
    pattern: str
    secret: bool = False


class Judge(Struct, frozen=True, kw_only=True):
    """A model that answers yes or no about a whole answer."""

    deployment: str
    question: str
    refuse_on: str = "yes"


class Guardrails(Struct, frozen=True, kw_only=True):
    """Checks of what goes in and comes out. What is found is `flag`ged, `mask`ed or `block`ed, by where it stands."""

    input: dict[str, str] = {}
    """check (personal_data, secrets, injection) -> what is done"""
    passages: dict[str, str] = {}
    """the same; `drop` leaves a passage out"""
    output: dict[str, str] = {}
    deny_input: list[str] = []
    deny_output: list[str] = []
    max_input_bytes: int | None = None
    max_output_bytes: int | None = None
    input_languages: list[str] = []
    output_languages: list[str] = []
    links: list[str] | None = None
    schema: str | None = None
    """JSON text"""
    grounded: bool = False
    judge: Judge | None = None
    tools: list[str] | None = None
    entities: list[CompanyEntity] = []
    shadow: bool = False
    budget_ms: int = 50
    fail_open: bool = False
    hold_bytes: int = 256


class Review(Struct, frozen=True, kw_only=True):
    """Answers that wait for a person."""

    by: list[str] = []
    """e-mail addresses; empty: whoever holds the product or business duty"""
    within_ms: int = 300_000
    release_after: bool = False
    """What happens when nobody looked in time."""
    share: int = 10_000
    """Of ten thousand answers."""


class Workload(Struct, frozen=True, kw_only=True):
    name: str
    purpose: str
    stage: str
    sensitivity: str
    audience: str
    residency: list[str]
    team: str | None = None
    deployments: list[str]
    """Allowed deployments in order: the primary first, then the fallbacks."""
    embeddings: list[str] = []
    also: list[str] = []
    """Deployments of further types (images, speech, transcription, rerank, moderation, realtime) that it may use."""
    budgets: list[str]
    """Names of budgets that cover every call of this workload (company, team, workload), each charged in full."""
    grounding: Grounding | None = None
    needs: Needs = Needs()
    system_prompt: str | None = None
    prompt: str | None = None
    """name@version of that prompt"""
    max_output_tokens: int = 1024
    """Cap where the caller gives none, and the most a caller may ask for."""
    calls_per_day: int | None = None
    people: int | None = None
    max_cost_per_call: int | None = None
    """picodollars; a call whose bound is above it is refused"""
    expires: str | None = None
    """ISO date after which an experiment or pilot is refused."""
    expires_declared: bool = False
    """False where `expires` is the default, counted from the day on which the workload was first served."""
    grace_ms: int = 60000
    attempts: int = 3
    deadline_ms: int = 60000
    reliability: Reliability = Reliability()
    keep: Keep | None = None
    """None: no prompt and no answer is kept."""
    cache: Cache | None = None
    """None: every call asks a model."""
    routing: Routing | None = None
    """None: calls for model `auto` follow the order of deployments."""
    batch_concurrent: int = 4
    """Calls of one of its batches that one worker makes at the same time."""
    use: list[Grant] = []
    """For whom calls may be made. Empty: for whomever a key is made, or for nobody; grants that have ended are none."""
    act_for_others: list[Grant] = []
    """Whose keys may act for others. Empty: every key that was made so; grants that have ended are none."""
    guardrails: Guardrails | None = None
    """None: nothing is checked."""
    review: Review | None = None
    """None: answers are sent at once."""
    owners: dict[str, list[str]] = {}
    """duty -> e-mail addresses (nominations; live duties are in PostgreSQL)"""

    @property
    def places(self) -> list[str]:
        """Every deployment that it may use, of whatever type."""
        return [*self.deployments, *self.embeddings, *self.also]


class Caps(Struct, frozen=True, kw_only=True):
    """Up to here an experiment or a pilot needs no approval. None: no cap."""

    people: int | None = 25
    calls_per_day: int | None = 1000
    days: int | None = 90
    sensitivity: str = "internal"


class Alternative(Struct, frozen=True, kw_only=True):
    """One deployment that could serve a workload, with what it would cost or why it may not."""

    deployment: str
    site: str
    allowed: bool
    reasons: list[str]
    """Why not: `outside EU`, `1.9 s > 800 ms`, ... empty where allowed."""
    monthly: int | None
    """picodollars per month at the declared traffic, None without a price"""


class ToBuild(Struct, frozen=True, kw_only=True):
    """What a plan would rather run than anything that is declared."""

    site: str
    model: str
    config: str
    """Such as `acme/defect-detector-2 on 1 jetson-orin`."""
    monthly: int
    """picodollars a month, people and hardware included"""


class Placement(Struct, frozen=True, kw_only=True):
    workload: str
    primary: str | None
    fallbacks: list[str]
    alternatives: list[Alternative]
    binding: str
    """The constraint that decided, in words."""
    gap: float = 0.0
    """Proven relative gap to the optimum (0 where all alternatives were enumerated)."""
    burst: str | None = None
    """The deployment that takes the peaks: the primary is asked first, and its limit of concurrent calls passes on."""
    to_build: list[ToBuild] = []
    expects: dict[str, float] = {}
    """What the plan takes for granted of a day: usd_day, calls_day, unit_usd, first_token_ms, availability."""


class PolicyRules(Struct, frozen=True, kw_only=True):
    """One policy document: Cedar text that governs calls."""

    name: str
    text: str
    owner: str
    hint: str = ""
    enforced: bool = False
    """False: it refuses nothing, and is only tried against recorded calls."""
    closed: bool = False
    """While it is enforced, what no permit allows is refused."""


class ToolServer(Struct, frozen=True, kw_only=True):
    """An MCP server that workloads use through the gateway."""

    name: str
    url: str
    key: str | None = None
    """Secret reference."""
    owner: str
    workloads: list[str]
    tools: list[str] = []
    """Those of its tools that are offered; empty: all. A star at the end stands for any rest."""
    dangerous: list[str] = []
    """Each use of these waits for the approval of a person."""
    timeout_ms: int = 30000


class Described(Struct, frozen=True, kw_only=True):
    """What a workload is said to be; policies may look at it. Ends no approval when it changes."""

    pattern: str = "other"
    effect: str = "informs"
    regimes: list[str] = []
    risk: str = ""
    """Digest of the declared risk; empty: none is declared."""


class Framework(Struct, frozen=True, kw_only=True):
    """A control framework that the company holds itself to."""

    name: str
    owner: str
    profile: str | None = None
    workloads: list[str] = []
    """Empty: all that are served."""
    excluded: dict[str, str] = {}
    """control -> reason"""
    controls: list[str] = []
    """Own ones, by identifier."""


class Allocation(Struct, frozen=True, kw_only=True):
    """A cost beside the calls, and the rule by which workloads carry it."""

    name: str
    term: str
    amount: int | None = None
    """picodollars a period"""
    period: str = "month"
    rate: int | None = None
    """picodollars for each unit, instead of an amount"""
    per: str = ""
    by: str = "cost"
    """cost | calls | tokens | equal | shares"""
    shares: dict[str, int] = {}
    covers: str = "company"
    capacity: int | None = None
    """Tokens a day that a deployment can make."""
    basis: str = "allocated"
    source: str = ""
    since: str = ""
    until: str = ""
    """ISO dates of the first and the last day; empty: open."""


class Blueprint(Struct, frozen=True, kw_only=True):
    format: int = 1
    number: int
    company: str
    separation: str
    """solo | enforced"""
    sites: list[Site]
    deployments: list[Deployment]
    sources: list[Source]
    workloads: list[Workload]
    budgets: list[Budget]
    placements: list[Placement]
    rollback_of: int | None = None
    demo: bool = False
    caps: Caps = Caps()
    limits: list[Limit] = []
    terms: list[Term] = []
    review_days: dict[str, int] = {}
    """Source -> days after which a document of it is to be looked at again; ends no approval when it changes."""
    trusted_proxies: list[str] = []
    """Networks (CIDR) of proxies in front of the gateways, whose X-Forwarded-For is believed."""
    owners: dict[str, list[str]] = {}
    """duty -> e-mail addresses for the company as a whole; they stand in where a workload names nobody"""
    allocations: list[Allocation] = []
    """Costs beside the calls, by name."""
    policies: list[PolicyRules] = []
    described: dict[str, Described] = {}
    """Of workloads, where it is not the ordinary."""
    frameworks: list[Framework] = []
    tools: list[ToolServer] = []
