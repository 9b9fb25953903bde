"""What a workspace declares: one pydantic model per kind. Fields hold plain numbers (milliseconds, picodollars, bytes,
fractions); the text with units is parsed on the way in. The sentence below a field describes it in the JSON Schema.

Reading files is `loader`, rules between documents are `check`; nothing here knows prices or where anything runs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from groundplan.catalog.base import Strict as Strict
from groundplan.catalog.batches import BatchRule as BatchRule
from groundplan.catalog.cache import CacheRule as CacheRule
from groundplan.catalog.fields import (
    LIST,
    Count,
    Date,
    Duration,
    Email,
    Frequency,
    Jurisdiction,
    Jurisdictions,
    Line,
    Lines,
    ModelName,
    Name,
    Names,
    Networks,
    Path,
    People,
    Percent,
    PersonRef,
    Secret,
    Size,
    Unlimited,
    Url,
    Usd,
    UseRates,
    list_schema,
)
from groundplan.catalog.keep import KeepRule as KeepRule
from groundplan.catalog.money import BudgetDoc as BudgetDoc
from groundplan.catalog.money import ClassPrice as ClassPrice
from groundplan.catalog.money import LimitDoc as LimitDoc
from groundplan.catalog.money import Price as Price
from groundplan.catalog.money import Prices
from groundplan.catalog.money import price_on as price_on
from groundplan.catalog.reliability import BillingOnCancel, DeploymentLimits, ReliabilityRule, Weight
from groundplan.catalog.wire import HttpVersion, ProxyUrl, TlsDoc

SENSITIVITIES = ("public", "internal", "confidential", "restricted")
"""From least to most; compare with `sensitivity_rank`."""
STAGES = ("proposed", "experiment", "pilot", "production", "retired")
SERVED_STAGES = ("experiment", "pilot", "production")
EVERYONE = "everyone"
"""The group that every active person is in without being listed."""

Sensitivity = Literal["public", "internal", "confidential", "restricted"]
Stage = Literal["proposed", "experiment", "pilot", "production", "retired"]


def sensitivity_rank(sensitivity: str) -> int:
    """0 for public to 3 for restricted."""
    return SENSITIVITIES.index(sensitivity)


class Owners(Strict):
    """Who answers for something, by duty. One person may hold several duties; a duty may have several people."""

    business: People = ()
    """Answers for purpose and value. Nothing runs without one."""
    product: People = ()
    """Decides what it does."""
    architecture: People = ()
    """Decides how it is built and where it may run."""
    engineering: People = ()
    """Builds it."""
    operations: People = ()
    """Keeps it running."""
    security: People = ()
    """Answers for access and abuse."""
    finance: People = ()
    """Answers for the budget."""
    data: People = ()
    """Answers for the sources it uses."""
    compliance: People = ()
    """Answers for law and regimes."""

    def by_duty(self) -> dict[str, tuple[str, ...]]:
        """Duty -> people as written (e-mail or person name); only duties that have somebody, as in `DUTIES`."""
        return {duty: people for duty in DUTIES if (people := getattr(self, duty))}


DUTIES = tuple(Owners.model_fields)


class Caps(Strict):
    """Up to here an experiment or a pilot needs no approval; raising these later needs one."""

    people: Unlimited = 25
    """Most people who may use one experiment or pilot."""
    calls_per_day: Unlimited = 1000
    """Most calls a day of one experiment or pilot."""
    days: Unlimited = 90
    """Most days that an experiment or pilot runs."""
    sensitivity: Sensitivity = "internal"
    """Most sensitive data of an experiment or pilot."""


class CompanyDoc(Strict):
    """The company: once in each workspace."""

    kind: Literal["company"] = "company"
    name: Name
    title: Line | None = None
    format: Literal[1] = 1
    """Version of this file format."""
    separation: Literal["solo", "enforced"] = "enforced"
    """solo: one person holds every duty, approvals are marked so; enforced: nobody approves their own change."""
    caps: Caps = Caps()
    owners: Owners = Owners()
    """Who holds a duty for the company as a whole."""
    trusted_proxies: Networks = ()
    """Networks of the proxies in front of the gateways, whose X-Forwarded-For says where a call comes from."""
    proxy: ProxyUrl | None = None
    """Proxy to every deployment that is not local and names none itself."""
    proxy_key: Secret | None = None
    """`user:password` for that proxy: `env:NAME` or `file:/path`."""


class PersonDoc(Strict):
    """Somebody. People named by e-mail alone need no document."""

    kind: Literal["person"] = "person"
    name: Name
    """Short name, as in `--as ben`."""
    email: Email
    full_name: Line | None = None
    job: Line | None = None


class GroupDoc(Strict):
    """A set of people that may read something. The group `everyone` exists without being declared."""

    kind: Literal["group"] = "group"
    name: Name
    title: Line | None = None
    members: People = ()
    includes: Names = ()
    """Groups or teams whose members are members too."""


class TeamDoc(Strict):
    """A set of people that does something; budgets and workloads can belong to it."""

    kind: Literal["team"] = "team"
    name: Name
    title: Line | None = None
    members: People = ()
    includes: Names = ()
    """Groups or teams whose members are members too."""
    lead: PersonRef | None = None
    cost_center: Line | None = None


class SiteDoc(Strict):
    """A place where models run."""

    kind: Literal["site"] = "site"
    name: Name
    title: Line | None = None
    type: Literal["cloud", "private", "edge"]
    jurisdiction: Jurisdiction
    """Whose law holds there: EU, US, CH, an ISO country such as NO."""
    holds: Sensitivity | None = None
    """Most sensitive data that may be processed there. Default: confidential in a cloud, restricted elsewhere."""
    owner: PersonRef | None = None

    @property
    def max_sensitivity(self) -> Sensitivity:
        return self.holds or ("confidential" if self.type == "cloud" else "restricted")


class Timeouts(Strict):
    """How long to wait for an upstream."""

    connect: Duration = 2_000
    first_token: Duration = 30_000
    idle: Duration = 15_000


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
    """Known models bring their price: `openai/gpt-4.1-mini`."""
    url: Url
    """Ends before /chat/completions. `local:embedded` is the model that comes with Groundplan."""
    key: Secret | None = None
    """`env:NAME` or `file:/path`; never the secret."""
    keys: Annotated[tuple[ProviderKeyDoc, ...], LIST] = ()
    """Instead of one key, several: the least used one is taken, and one that is refused rests."""
    upstream_model: ModelName | None = None
    """What the upstream calls the model, where that differs."""
    type: Literal["chat", "embeddings", "images", "speech", "transcription", "rerank", "moderation", "realtime"] = (
        "chat"
    )
    api: Literal[
        "openai", "anthropic", "azure", "bedrock", "cohere", "gemini", "groq", "mistral", "ollama", "vertexai"
    ] = "openai"
    """What the upstream speaks. `openai`: anything OpenAI-shaped, such as vLLM, llama.cpp, Azure's /v1."""
    serves: Annotated[
        tuple[Literal["responses", "completions"], ...], LIST, list_schema({"enum": ["responses", "completions"]})
    ] = ()
    """Further endpoints that an OpenAI-shaped upstream has itself; others are served by way of chat."""
    price: Prices = ()
    """Overrides the known price: `free`, one price, or a list of prices with `from`."""
    context: Count = 8192
    """Most tokens of prompt and answer together."""
    max_output: Count = 4096
    """Most tokens of an answer."""
    accepts: Annotated[tuple[Literal["image", "audio"], ...], LIST, list_schema({"enum": ["image", "audio"]})] = ()
    """What may be sent in besides text. image needs image_tokens, audio needs audio_tokens."""
    image_tokens: Annotated[Count, Field(ge=1)] | None = None
    """The most tokens that one image counts."""
    audio_tokens: Annotated[Count, Field(ge=1)] | None = None
    """The most tokens that one KiB of audio counts."""
    audio: Duration | None = None
    """The longest audio that one request may have, such as 30m. Needed where its minutes have a price."""
    cap_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Field that caps the answer at this upstream."""
    timeouts: Timeouts = Timeouts()
    weight: Weight = 1
    """Share of calls beside the other deployments of a workload that balances; 0: only when the others fail."""
    limits: DeploymentLimits = DeploymentLimits()
    billing_on_cancel: BillingOnCancel = "full"
    """What the provider bills when we cancel a call. generated: what it wrote so far; full: as if it went on, so we
    count the most that it may cost; drain: we read on to the end to learn it."""
    tls: TlsDoc | None = None
    http: HttpVersion = 1
    """2: one connection for many calls. Needs the extra `groundplan[http2]`."""
    proxy: ProxyUrl | None = None
    """The upstream is reached through its CONNECT; `direct` ignores the company's. Default: the company's."""
    proxy_key: Secret | None = None
    """`user:password` for the proxy: `env:NAME` or `file:/path`."""

    @property
    def name_upstream(self) -> str:
        """`upstream_model`, or the last part of the model's name."""
        return self.upstream_model or self.model.rpartition("/")[2]


class ModelDoc(Strict):
    """A model that is not in the price list, or more about one that is."""

    kind: Literal["model"] = "model"
    name: ModelName
    title: Line | None = None
    provider: Line | None = None
    licence: Line | None = None
    price: Prices = ()
    context: Count | None = None
    max_output: Count | None = None


class SourceDoc(Strict):
    """Governed data that answers may be drawn from."""

    kind: Literal["source"] = "source"
    name: Name
    title: Line | None = None
    path: Path
    """Folder of documents inside the workspace."""
    sensitivity: Sensitivity
    owner: PersonRef
    readers: Lines
    """Groups, teams or people who may read every document, unless one says otherwise. `everyone` is everybody."""
    review_every: Duration | None = None
    """How old a document may become before its owner is asked to look at it."""


class PromptDoc(Strict):
    """A versioned system prompt."""

    kind: Literal["prompt"] = "prompt"
    name: Name
    version: Annotated[int, Field(ge=1)] = 1
    text: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
    owner: PersonRef | None = None


class IntegrationDoc(Strict):
    """A system that calls a workload, or that a workload acts on."""

    kind: Literal["integration"] = "integration"
    name: Name
    title: Line | None = None
    direction: Literal["caller", "downstream"]
    system: Line | None = None
    owner: PersonRef | None = None
    contact: Line | None = None


class Baseline(Strict):
    """How it was before AI, so that a difference can be shown."""

    minutes_per_case: Annotated[float, Field(ge=0, strict=False)] | None = None
    cost_per_case: Usd | None = None
    cases: Frequency | None = None
    measured: Date | None = None


class WorkflowDoc(Strict):
    """The business process that one or more workloads serve."""

    kind: Literal["workflow"] = "workflow"
    name: Name
    title: Line | None = None
    purpose: Line | None = None
    owner: PersonRef | None = None
    outcome: Line | None = None
    """What counts as one good result, such as `ticket resolved without handover`."""
    baseline: Baseline | None = None


class Objectives(Strict):
    """How good it has to be."""

    first_token: Duration | None = None
    complete: Duration | None = None
    """Until the last token."""
    availability: Percent | None = None
    quality: dict[Name, Percent] = Field(default_factory=dict)
    """By dimension: accuracy, tone, traceability, timeliness ..."""
    cost_per_outcome: Usd | None = None


class Traffic(Strict):
    """What is expected; prices alternatives and plans capacity."""

    calls: Frequency
    prompt_tokens: Count = 800
    completion_tokens: Count = 200
    peak: Annotated[float, Field(ge=1, strict=False)] = 3.0
    """Busiest hour as a multiple of the average one."""
    growth_per_month: Percent = 0.0


class GroundingRule(Strict):
    """How passages of the sources are added to a prompt."""

    passages: Annotated[int, Field(ge=1, le=20)] = 4
    max_size: Size = 6000
    """Most that passages may add to a prompt."""
    required: bool = True
    """Refuse the call while permissions cannot be read."""


class Limits(Strict):
    """What one workload may use at most. Experiments and pilots are bounded by the company's caps as well."""

    max_output: Count = 1024
    """Most tokens of an answer."""
    calls_per_day: Unlimited = None
    people: Unlimited = None
    expires: Date | None = None
    """Day after which an experiment or pilot is refused."""
    max_cost_per_call: Annotated[Usd, Field(gt=0)] | None = None
    """A call that may cost more is refused, whatever is left of its budgets."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    deadline: Duration = 60_000


class ReviewRule(Strict):
    """Which answers a person looks at. Declared and shown; answers are not held for it yet."""

    share: Percent = 0.0
    """Part of the answers."""
    before_sending: bool = False
    """Whether they wait for it; not yet: they are sent at once."""
    by: People = ()


class Support(Strict):
    """Who helps when it does not work."""

    contact: Line
    hours: Line | None = None
    runbook: Line | None = None


class WorkloadDoc(Strict):
    """What is asked of AI: purpose, value and needs; never a place."""

    kind: Literal["workload"] = "workload"
    name: Name
    title: Line | None = None
    purpose: Line
    workflow: Name | None = None
    value: Line | None = None
    """What is measured to know that it is worth it."""
    pattern: Literal["knowledge-assistant", "customer-support", "edge-inference", "analytics", "other"] = "other"
    audience: Literal["employees", "customers", "public"] = "employees"
    regimes: Lines = ()
    """Laws and norms that hold for it: GDPR, HIPAA ..."""
    effect: Literal["informs", "recommends", "decides"] = "informs"
    """What its answers do to people."""
    stage: Stage
    sensitivity: Sensitivity = "internal"
    """Most sensitive data that it handles."""
    residency: Jurisdictions = ()
    """Where data may be processed; empty: anywhere."""
    team: Name | None = None
    sources: Names = ()
    deployments: Names = ()
    """Deployments that may serve it, the preferred first; left out: all that the rules allow, the cheapest first."""
    fallbacks: Names = ()
    """Deployments that take over, in this order."""
    embeddings: Names = ()
    """Deployments of embeddings that it may use."""
    also: Names = ()
    """Deployments of images, speech, transcription, rerank, moderation or realtime that it may use."""
    prompt: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}(@[1-9][0-9]*)?$")] | None = None
    """Name of a prompt document, or name@version."""
    integrations: Names = ()
    objectives: Objectives = Objectives()
    traffic: Traffic | None = None
    grounding: GroundingRule = GroundingRule()
    limits: Limits = Limits()
    reliability: ReliabilityRule = ReliabilityRule()
    keep: KeepRule = KeepRule()
    cache: CacheRule = CacheRule()
    batches: BatchRule = BatchRule()
    grace: Duration | None = None
    """How long a gateway that is cut off may go on serving. Default 60s; restricted data: none."""
    review: ReviewRule = ReviewRule()
    support: Support | None = None
    owners: Owners = Owners()

    @property
    def grace_ms(self) -> int:
        if self.sensitivity == "restricted":
            return 0
        return 60_000 if self.grace is None else self.grace


class GrantDoc(Strict):
    """Who may do what. `use`: once a workload has such a grant, a call must be made for one of these people; a call for
    nobody is refused. `read`: also these people read a source, besides its `readers`. `act-for-others`: once a workload
    has such a grant, only keys of these people act for others there. Groups are as live as everywhere."""

    kind: Literal["grant"] = "grant"
    name: Name
    to: Lines
    """Groups, teams or people."""
    on: Annotated[str, StringConstraints(pattern=r"^(company|(workload|source)/[a-z0-9][a-z0-9-]{0,62})$")]
    """`workload/NAME`, or `company` for all workloads; for `read` `source/NAME`."""
    allows: Annotated[
        tuple[Literal["use", "read", "act-for-others"], ...],
        LIST,
        list_schema({"enum": ["use", "read", "act-for-others"]}),
    ]
    until: Date | None = None
    """Last day (UTC). Then it ends by itself: nobody has it any more, and what it guards stays closed to others."""
    reason: Line | None = None


KINDS: dict[str, type[Strict]] = {
    "company": CompanyDoc,
    "person": PersonDoc,
    "group": GroupDoc,
    "team": TeamDoc,
    "site": SiteDoc,
    "deployment": DeploymentDoc,
    "model": ModelDoc,
    "source": SourceDoc,
    "prompt": PromptDoc,
    "integration": IntegrationDoc,
    "workflow": WorkflowDoc,
    "workload": WorkloadDoc,
    "budget": BudgetDoc,
    "limit": LimitDoc,
    "grant": GrantDoc,
}
