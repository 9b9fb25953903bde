"""What is asked of AI, and for which business process: workloads and workflows.

One pydantic model per kind; text with units is parsed on the way in. The sentence below a field describes it in
the JSON Schema. Rules between documents are `check`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from groundplan.catalog.base import Strict
from groundplan.catalog.batches import BatchRule, FileRule
from groundplan.catalog.cache import CacheRule
from groundplan.catalog.calendar import Launches
from groundplan.catalog.demand import PlacementRule
from groundplan.catalog.experiment import ExperimentRule, ReplayRule
from groundplan.catalog.fields import (
    Aliases,
    Count,
    Date,
    Duration,
    Frequency,
    Jurisdictions,
    Line,
    Lines,
    Name,
    Names,
    People,
    Percent,
    PersonRef,
    Share,
    Size,
    Tokens,
    Unlimited,
    Usd,
    Wait,
)
from groundplan.catalog.governed import NeedsRule
from groundplan.catalog.guardrails import GuardrailRule
from groundplan.catalog.index import RerankRule
from groundplan.catalog.levels import Sensitivity, Stage
from groundplan.catalog.people import Owners
from groundplan.catalog.reliability import ReliabilityRule
from groundplan.catalog.retention import KeepRule
from groundplan.catalog.risk import RiskRule
from groundplan.catalog.routing import RoutingRule


class Baseline(Strict):
    """The process before AI, to show the difference."""

    minutes_per_case: Annotated[float, Field(ge=0, strict=False)] | None = None
    cost_per_case: Usd | None = None
    cases: Frequency | None = None
    """Number of cases, as documented for the process."""
    measured: Date | None = None


class WorkflowDoc(Strict):
    """The business process that one or more workloads serve."""

    kind: Literal["workflow"] = "workflow"
    name: Name
    title: Line | None = None
    purpose: Line | None = None
    owner: PersonRef | None = None
    outcome: Line | None = None
    """Definition of one good result, such as `ticket resolved without handover`."""
    baseline: Baseline | None = None


class Objectives(Strict):
    """Objectives of latency, availability, quality and cost."""

    first_token: Duration | None = None
    complete: Duration | None = None
    """Time until the last token."""
    availability: Percent | None = None
    quality: dict[Name, Percent] = Field(default_factory=dict)
    """By dimension: accuracy, tone, traceability, timeliness ..."""
    cost_per_outcome: Usd | None = None
    """Target cost of an accepted outcome, shown beside the actual cost."""


class Traffic(Strict):
    """Expected traffic, to price alternatives and plan capacity."""

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
    """Maximum size that passages may add to a prompt."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How near the best passage must be to the question (0 to 1); below that none is given, and the answer, without a
    model, is that nothing was found. `groundplan knowledge evaluate` shows what a floor does to your questions."""
    required: bool = True
    """Refuse the call while permissions cannot be read; else its model is told that nothing could be searched."""
    synonyms: bool = False
    """Whether to search also for the glossary's synonyms of words in a question."""
    rerank: RerankRule | Literal[False] | None = None
    """Reranking of the best passages; false: none; left out: that of the company's index."""


class Limits(Strict):
    """Maximum use of one workload. The company's caps apply to experiments and pilots, too."""

    max_output: Tokens = 1024
    """Maximum number of tokens of an answer."""
    calls_per_day: Unlimited = None
    """Requests of its callers per day (UTC). Left out: the company's `caps`; in production any number."""
    people: Unlimited = None
    """Number of people who may use it. Left out: as above."""
    expires: Date | None = None
    """Last day of an experiment or pilot; later calls are refused."""
    max_cost_per_call: Annotated[Usd, Field(gt=0)] | None = None
    """Deployments where a call could cost more are left out; where all could, it is refused, whatever its budgets."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Total number of attempts, over all deployments."""
    deadline: Wait = 60_000
    """Time until the end of the answer, for a stream until its first token."""


class ReviewRule(Strict):
    """Which answers wait for a person's review."""

    share: Annotated[Share, Field(gt=0)] = 1.0
    """Share of the answers that wait, with `before_sending`."""
    before_sending: bool = False
    """The client gets nothing before a person has released the answer. Such a call is never answered from the cache."""
    by: People = ()
    """Who may release; left out: holders of the workload's product or business duty."""
    within: Wait = 300_000
    """How long an answer waits; clients must wait as long."""
    after: Literal["refuse", "release"] = "refuse"
    """What happens to an answer that nobody reviewed in time."""


class Support(Strict):
    """Support for its users."""

    contact: Line
    hours: Line | None = None
    runbook: Line | None = None


class WorkloadDoc(Strict):
    """A use of AI: its purpose, value and needs, but never a place."""

    kind: Literal["workload"] = "workload"
    name: Name
    title: Line | None = None
    aliases: Aliases = ()
    """What callers may say as `model` instead of its name, such as the names by which another gateway knew it. They
    leave the choice to it, also where a deployment or model is called so."""
    purpose: Line
    workflow: Name | None = None
    value: Line | None = None
    """What is measured to show its value."""
    pattern: Literal["knowledge-assistant", "customer-support", "edge-inference", "analytics", "other"] = "other"
    audience: Literal["employees", "customers", "public"] = "employees"
    regimes: Lines = ()
    """Laws and norms that apply to it: GDPR, HIPAA ..."""
    effect: Literal["informs", "recommends", "decides"] = "informs"
    """The effect of its answers on people."""
    stage: Stage
    sensitivity: Sensitivity = "internal"
    """The most sensitive data that it handles."""
    residency: Jurisdictions = ()
    """Jurisdictions where its data may be processed; empty: anywhere."""
    team: Name | None = None
    sources: Names = ()
    deployments: Names = ()
    """Deployments that may serve it, preferred ones first; left out: all that the rules allow, the cheapest first."""
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
    launches: Launches = ()
    """From when on it will have more or less to do: forecasts and the ends of budgets know it, and past ones explain a
    jump."""
    placement: PlacementRule = PlacementRule()
    grounding: GroundingRule = GroundingRule()
    needs: NeedsRule = NeedsRule()
    limits: Limits = Limits()
    reliability: ReliabilityRule = ReliabilityRule()
    keep: KeepRule = KeepRule()
    cache: CacheRule = CacheRule()
    routing: RoutingRule = RoutingRule()
    experiment: ExperimentRule | None = None
    replay: ReplayRule | None = None
    batches: BatchRule = BatchRule()
    files: FileRule = FileRule()
    grace: Duration | None = None
    """How long a gateway without contact to PostgreSQL may go on serving. Default 60s; restricted data: none."""
    review: ReviewRule = ReviewRule()
    guardrails: GuardrailRule | None = None
    support: Support | None = None
    risk: RiskRule | None = None
    owners: Owners = Owners()

    @property
    def chats(self) -> bool:
        """False: it names deployments of other types alone, so it can do without a chat model."""
        asked = self.deployments or self.fallbacks or self.sources or self.prompt
        return bool(asked) or not (self.embeddings or self.also)

    @property
    def grace_ms(self) -> int:
        if self.sensitivity == "restricted":
            return 0
        return 60_000 if self.grace is None else self.grace
