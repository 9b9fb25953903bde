"""What one worker has: the parts that every step may use, put together once by `app`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from groundplan.blueprint.model import Budget
from groundplan.core.clock import Clock
from groundplan.gateway.budgets.leases import Key, Quota, Slices
from groundplan.gateway.budgets.windows import WindowClock
from groundplan.gateway.caching.answer_cache import AnswerCache
from groundplan.gateway.caching.idempotency import Answers
from groundplan.gateway.call.attempts.hedge import Hedges
from groundplan.gateway.call.step_batching import StepBatching
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.policy.catalog import Catalog
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.routing.routes import Routes
from groundplan.gateway.stalls import StallMonitor, stall_monitor_of
from groundplan.gateway.telemetry.meters import Meters
from groundplan.gateway.upstream.answer_memory import Room
from groundplan.gateway.upstream.choose import Balance
from groundplan.gateway.upstream.health import Health
from groundplan.gateway.upstream.latency import Times
from groundplan.gateway.upstream.pressure import Loads, Pressure
from groundplan.gateway.upstream.targets import Targets
from groundplan.ledger.model import Charge

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.call.files_by_id import FilesById
    from groundplan.gateway.call.grounding.citation_store import Citations
    from groundplan.gateway.call.model_versions import ModelVersions
    from groundplan.gateway.call.repeats import Repeats
    from groundplan.gateway.call.signals import Signals
    from groundplan.gateway.guard.counts import Counts
    from groundplan.gateway.guard.kills import Running
    from groundplan.gateway.guard.reviews import Reviews
    from groundplan.gateway.http.server import Server
    from groundplan.gateway.surfaces.chat.sealed_store import SealedCompletions
    from groundplan.gateway.surfaces.responses.sealed_store import SealedResponses, StoredResponse
    from groundplan.gateway.telemetry.content_link import ContentSender
    from groundplan.gateway.telemetry.scrape import Scrapes

Done = TypeVar("Done")


class Lender(Protocol):
    """Gets more of a budget for this worker."""

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
        """Reserve, waiting at most 250 ms; None, or the one that is short. `blueprint` declares each."""
        ...

    def remaining(self, key: Key, limit: int) -> int:
        """What is left of a limit in a period, as far as this worker knows. `limit`: as it is declared."""
        ...

    def unspent(self, name: str, period: str) -> int:
        """What is left of a budget or limit once every open call has cost nothing, as far as this worker knows."""
        ...


class Live(Protocol):
    """The newest blueprint and policy of this worker."""

    @property
    def policy(self) -> Policy: ...

    @property
    def catalog(self) -> Catalog | None: ...

    def age(self, now: float | None = None) -> float:
        """Seconds since live policy was last confirmed. `now`: seconds since the epoch, where they were read."""
        ...

    @property
    def follows(self) -> bool:
        """Whether PostgreSQL was heard when it was last asked."""
        ...

    def remaining(self, budget: Budget, period: str) -> int:
        """Picodollars of a budget that nobody has spent, as far as this worker knows."""
        ...

    def people(self, workload: str) -> Set[str]:
        """Ids of the people of a workload that is for so many, as last seen."""
        ...

    def count(self, workload: str, person: str) -> None:
        """One more admitted call of somebody."""
        ...

    def stop(self, workload: str, call: UUID) -> None:
        """Admit no more calls of a workload here: this one used more than its bound."""
        ...


class Unattended(Protocol):
    """Makes what nobody waits for."""

    async def accept(self, exchange: Exchange) -> None:
        """Write it down, and answer that it will be made. Raises `Invalid`, `Exhausted`, `Unavailable`."""
        ...

    async def found(self, id: str, key: KeyEntry) -> StoredResponse | None:
        """One of this key's that has not come to a stored response, as it is now. Raises `Unavailable`."""
        ...

    async def events(self, id: str, key: KeyEntry, after: int) -> tuple[AsyncIterator[bytes], bytes] | None:
        """Its stream behind the number `after`, and header lines of that; None where there is none of this key's.
        Raises `Unavailable`."""
        ...

    async def cancel(self, id: str, key: KeyEntry) -> bool:
        """Whether there was one of this key's that could be, and was cancelled. Raises `Unavailable`."""
        ...

    async def delete(self, id: str, key: KeyEntry) -> bool:
        """Whether there was one of this key's. Raises `Unavailable`."""
        ...


class Trying(Protocol):
    """What tries another deployment beside answered calls."""

    def after(self, shown: Exchange) -> None:
        """A call was answered and settled."""
        ...


@dataclass(slots=True)
class Gateway:
    """One worker."""

    epoch: UUID
    loop: asyncio.AbstractEventLoop
    clock: Clock
    journal: Journal
    slices: Slices
    leases: Lender
    live: Live
    targets: Targets
    answers: Answers
    counters: Slices = field(default_factory=Slices)
    """Slices of limits."""
    windows: WindowClock = field(default_factory=WindowClock)
    """By which time those are of."""
    health: Health = field(default_factory=Health)
    flex: Health = field(default_factory=Health)
    """Of calls at the service tier flex alone, for which a provider often has no room: that says nothing of others."""
    meters: Meters = field(default_factory=Meters)
    scrapes: Scrapes | None = None
    """Of a worker that has siblings."""
    cached: AnswerCache = field(default_factory=AnswerCache)
    """For workloads whose answers are given again."""
    content: ContentSender | None = None
    """For workloads that keep prompts and answers."""
    routes: Routes = field(default_factory=Routes)
    """For workloads that route model `auto`."""
    responses: SealedResponses | None = None
    """For workloads that keep content in full."""
    completions: SealedCompletions | None = None
    """The same, for chat completions."""
    unattended: Unattended | None = None
    """For responses that nobody waits for."""
    files: FilesById | None = None
    """For calls that name files by their ids."""
    room: Room = field(default_factory=Room)
    """For large answers."""
    server: Server | None = None
    """Whose bodies of requests have a room of their own."""
    running: int = 0
    """Calls that were admitted and are not finished."""
    step_batching: StepBatching = field(default_factory=StepBatching)
    """Awaited where calls that came together are to take the step before first."""
    ready: bool = False
    talks_until: float = 0.0
    """Of the loop's clock: until then conversations go on though this is not ready, since another worker took over."""
    balance: Balance = field(default_factory=Balance)
    hedges: Hedges = field(default_factory=Hedges)
    times: Times = field(default_factory=Times)
    loads: Loads = field(init=False)
    stalls: StallMonitor = field(init=False)
    pressure: Pressure = field(init=False)
    streams: set[Running] = field(default_factory=set)
    """Answers that are being streamed, so that a kill can end them."""
    conduct: Callable[..., Awaitable[None]] | None = None
    """Makes a call of the gateway's own, where given by other steps; set by the pipeline."""
    shadows: Trying | None = None
    """For workloads on whose calls another deployment is tried."""
    reviews: Reviews | None = None
    """For workloads whose answers wait for a person."""
    citations: Citations | None = None
    """What the look at citations found, on its way to PostgreSQL."""
    signals: Signals | None = None
    """What was asked and not found, and what people say of what was, on its way to PostgreSQL."""
    repeats: Repeats | None = None
    """Which requests several workloads make alike, on their way to PostgreSQL."""
    guard_counts: Counts | None = None
    """What guardrails found, on its way to PostgreSQL."""
    model_versions: ModelVersions | None = None
    """Which versions upstreams say that they are."""
    background: set[asyncio.Task[Any]] = field(default_factory=set)
    """What goes on after the call that it belongs to was answered."""

    def __post_init__(self) -> None:
        self.loads = Loads(self.loop)
        self.stalls = stall_monitor_of(self.loop)
        self.pressure = Pressure(self.loop)
        self.journal.on_failure = self.targets.withhold

    def keep(self, work: Coroutine[Any, Any, Done]) -> asyncio.Task[Done]:
        """Run something to its end beside the calls."""
        task = self.loop.create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    async def to_its_end(self, work: Coroutine[Any, Any, Done]) -> Done:
        """What `work` comes to. It goes on where whoever waits for it is cancelled: of a commit that was broken off
        nobody knows whether it was one."""
        task = self.keep(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_heard)
            raise


def _heard(task: asyncio.Task[Any]) -> None:
    """What it raises is for nobody any more."""
    if not task.cancelled():
        task.exception()
