"""The parts of one gateway worker that every step may use, put together once by `app`. Does nothing by itself."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from groundplan.blueprint.model import Budget
from groundplan.core.clock import Clock
from groundplan.gateway.budgets.leases import Key, Quota, Slices
from groundplan.gateway.budgets.windows import WindowClock
from groundplan.gateway.caching.answer_cache import AnswerCache
from groundplan.gateway.caching.idempotency import IdempotentAnswers
from groundplan.gateway.call.attempts.hedge import Hedges
from groundplan.gateway.call.step_batching import StepBatching
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.policy.catalog import Catalog
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.routing.routes import Routes
from groundplan.gateway.stalls import StallMonitor, stall_monitor_of
from groundplan.gateway.telemetry.call_counters import CallCounters
from groundplan.gateway.upstream.answer_memory import AnswerMemory
from groundplan.gateway.upstream.choose import LoadBalancer
from groundplan.gateway.upstream.health import Health
from groundplan.gateway.upstream.latency import LatencyEstimates
from groundplan.gateway.upstream.pressure import DeploymentLoads, Pressure
from groundplan.gateway.upstream.targets import Targets
from groundplan.ledger.model import Charge

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.call.files_by_id import FilesById
    from groundplan.gateway.call.grounding.citation_store import Citations
    from groundplan.gateway.call.model_versions import ModelVersions
    from groundplan.gateway.call.repeats import Repeats
    from groundplan.gateway.call.signals import Signals
    from groundplan.gateway.guard.counts import GuardCounts
    from groundplan.gateway.guard.kills import RunningStream
    from groundplan.gateway.guard.reviews import Reviews
    from groundplan.gateway.http.server import Server
    from groundplan.gateway.surfaces.chat.sealed_store import SealedCompletions
    from groundplan.gateway.surfaces.responses.sealed_store import SealedResponses, StoredResponse
    from groundplan.gateway.telemetry.content_link import ContentSender
    from groundplan.gateway.telemetry.scrape import MetricsScraper
    from groundplan.ledger.stored_owner import Owner

Result = TypeVar("Result")


class Lender(Protocol):
    """Leases more of a budget for this worker."""

    @property
    def connected(self) -> bool:
        """Whether more can be had at the moment."""
        ...

    def was_refused_lately(self, name: str, period: str) -> bool:
        """Whether PostgreSQL said lately that nothing is left of it; where it did not, it could not be asked."""
        ...

    async def acquire(
        self,
        token: tuple[bytes, int],
        charges: Sequence[Charge],
        declared: Sequence[Budget | Quota],
        blueprint: int = 0,
    ) -> Charge | None:
        """Reserve all charges, waiting at most 250 ms; returns None, or the charge that is short. `declared`: the
        budget or quota of each charge, by the blueprint of that number."""
        ...

    def remaining(self, key: Key, limit: int) -> int:
        """What is left of a limit in a period, as far as this worker knows. `limit`: its declared amount."""
        ...

    def unspent(self, name: str, period: str) -> int:
        """What would be left of a budget or limit if no open call cost anything, as far as this worker knows."""
        ...


class Live(Protocol):
    """The newest blueprint and policy of this worker."""

    @property
    def policy(self) -> Policy: ...

    @property
    def catalog(self) -> Catalog | None: ...

    def age(self, now: float | None = None) -> float:
        """Seconds since live policy was last confirmed. `now`: seconds since the epoch; None: read the clock."""
        ...

    @property
    def is_following(self) -> bool:
        """Whether PostgreSQL answered when it was last asked."""
        ...

    def remaining(self, budget: Budget, period: str) -> int:
        """Picodollars of a budget that nobody has spent, as far as this worker knows."""
        ...

    def people(self, workload: str) -> Set[str]:
        """Ids of the people who used a workload with a limit of people, as last seen."""
        ...

    def record_person(self, workload: str, person: str) -> None:
        """Count one more admitted call of a person."""
        ...

    def stop(self, workload: str, call: UUID) -> None:
        """Admit no more calls of a workload here, since `call` used more than its bound."""
        ...


class BackgroundResponses(Protocol):
    """Responses that are made in the background (`background: true`)."""

    async def accept(self, exchange: Exchange) -> None:
        """Store the request and answer that it is queued. Raises `Invalid`, `Exhausted`, `Unavailable`."""
        ...

    async def find(self, id: str, owner: Owner) -> StoredResponse | None:
        """The current state of this owner's unfinished response; None where there is none. Raises `Unavailable`."""
        ...

    async def events(self, id: str, owner: Owner, after: int) -> tuple[AsyncIterator[bytes], bytes] | None:
        """(its events after sequence number `after`, header lines); None where this owner has no such response. Raises
        `Unavailable`."""
        ...

    async def cancel(self, id: str, owner: Owner) -> bool:
        """Cancel a response; whether this owner had one that could be cancelled. Raises `Unavailable`."""
        ...

    async def delete(self, id: str, owner: Owner) -> bool:
        """Delete a response; whether this owner had it. Raises `Unavailable`."""
        ...


class ShadowTrials(Protocol):
    """Repeats answered calls at another deployment, to compare them."""

    def after(self, shown: Exchange) -> None:
        """Start the trial of a call that was answered and settled."""
        ...


@dataclass(slots=True)
class Gateway:
    """One gateway worker: its journal, budgets, live policy, upstreams and caches."""

    epoch: UUID
    loop: asyncio.AbstractEventLoop
    clock: Clock
    journal: Journal
    slices: Slices
    leases: Lender
    live: Live
    targets: Targets
    idempotent_answers: IdempotentAnswers
    limit_slices: Slices = field(default_factory=Slices)
    """Slices of limits."""
    windows: WindowClock = field(default_factory=WindowClock)
    """The time by which the windows of limits begin and end."""
    health: Health = field(default_factory=Health)
    flex_health: Health = field(default_factory=Health)
    """Health as calls at the service tier flex see it: a provider often has no room for them, which says nothing of
    other calls."""
    call_counters: CallCounters = field(default_factory=CallCounters)
    scrapes: MetricsScraper | None = None
    """Collects the metrics of all workers; None where there is only one."""
    answer_cache: AnswerCache = field(default_factory=AnswerCache)
    """Cached answers, for workloads that declare a cache."""
    content_sender: ContentSender | None = None
    """For workloads that keep prompts and answers."""
    routes: Routes = field(default_factory=Routes)
    """For workloads that route model `auto`."""
    stored_responses: SealedResponses | None = None
    """For workloads that keep content in full."""
    stored_completions: SealedCompletions | None = None
    """The same for chat completions."""
    background_responses: BackgroundResponses | None = None
    """For responses that are made in the background."""
    files: FilesById | None = None
    """For calls that name files by their ids."""
    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    """The folder for files of large forms while they arrive."""
    answer_memory: AnswerMemory = field(default_factory=AnswerMemory)
    """The memory for large answers."""
    server: Server | None = None
    """The HTTP server, which accounts for the memory of request bodies."""
    running_calls: int = 0
    """Number of calls that are being served."""
    step_batching: StepBatching = field(default_factory=StepBatching)
    """Awaited between steps, so that calls which came together take the earlier step first."""
    ready: bool = False
    conversations_until: float = 0.0
    """By the loop's clock: until then conversations continue though this worker is not ready, as another took over."""
    balance: LoadBalancer = field(default_factory=LoadBalancer)
    hedges: Hedges = field(default_factory=Hedges)
    latencies: LatencyEstimates = field(default_factory=LatencyEstimates)
    loads: DeploymentLoads = field(init=False)
    stalls: StallMonitor = field(init=False)
    pressure: Pressure = field(init=False)
    streams: set[RunningStream] = field(default_factory=set)
    """Attempts whose answers are being streamed, so that a kill can end them."""
    run_call: Callable[..., Awaitable[None]] | None = None
    """Runs a call of the gateway's own, by the given steps where they are not the usual ones; set by the pipeline."""
    shadow_trials: ShadowTrials | None = None
    """For workloads whose calls are repeated at another deployment."""
    reviews: Reviews | None = None
    """For workloads whose answers wait for a person."""
    citations: Citations | None = None
    """Findings of citation checks, on their way to PostgreSQL."""
    signals: Signals | None = None
    """Questions without passages and people's feedback on answers, on their way to PostgreSQL."""
    repeats: Repeats | None = None
    """Requests that several workloads make alike, on their way to PostgreSQL."""
    guard_counts: GuardCounts | None = None
    """Counts of guardrail findings, on their way to PostgreSQL."""
    model_versions: ModelVersions | None = None
    """Model versions that upstreams report."""
    background: set[asyncio.Task[Any]] = field(default_factory=set)
    """Tasks that may outlive the call that started them."""

    def __post_init__(self) -> None:
        self.loads = DeploymentLoads(self.loop)
        self.stalls = stall_monitor_of(self.loop)
        self.pressure = Pressure(self.loop)
        self.journal.on_failure = self.targets.cancel_unsent

    def run_in_background(self, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Start a task that may outlive its call, and keep a reference to it until it ends."""
        task = self.loop.create_task(coroutine)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    async def run_shielded(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Await `coroutine` so that it continues when the caller is cancelled: whether an interrupted commit took
        effect would be unknown."""
        task = self.run_in_background(coroutine)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_retrieve_exception)
            raise


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Retrieve the task's exception, so that asyncio does not report it as never retrieved."""
    if not task.cancelled():
        task.exception()
