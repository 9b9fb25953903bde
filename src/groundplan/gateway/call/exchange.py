"""The state of one call on its way through the six steps: a single mutable object, made for the request and dropped
with it.

Holds values only; each step module fills in its part. Times are `perf_counter_ns`, amounts picodollars.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from uuid import UUID

from groundplan.blueprint.model import Budget, Deployment, Workload
from groundplan.core.ids import id_text
from groundplan.gateway.call.ask import NO_NAMES
from groundplan.gateway.policy.catalog import Catalog, Plan
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.ledger.model import Charge, Usage

if TYPE_CHECKING:
    from groundplan.economics.routing.model import Floats as Vector
    from groundplan.gateway.caching.entry import Flight
    from groundplan.gateway.caching.semantic_match import Match, Question
    from groundplan.gateway.call.ask import Ask, Passage
    from groundplan.gateway.call.attempts.resume import Continuation
    from groundplan.gateway.call.grounding.notes import GroundingNotes
    from groundplan.gateway.call.limit_use import LimitUse
    from groundplan.gateway.call.trace import Trace
    from groundplan.gateway.experiments.trial import Trial
    from groundplan.gateway.guard.relay import GuardedRelay
    from groundplan.gateway.http.server import Request, Response
    from groundplan.gateway.routing.route import Route
    from groundplan.gateway.surfaces.codec import Relay, UpstreamAnswer
    from groundplan.gateway.surfaces.interface import Interface
    from groundplan.gateway.upstream.health import Probe
    from groundplan.governance.guardrails.guard import Guard
    from groundplan.governance.guardrails.masks import Masks


_NO_USAGE = Usage()


class CallGuard(Protocol):
    """The guardrails of one call, as its steps use them; implemented by `guard.run`."""

    guard: Guard
    masks: Masks
    skips_review: bool
    """Whether its answer needs no review by a person."""
    records_findings: bool
    """Whether its findings are added to the worker's counts."""

    async def check_personal_input(self, exchange: Exchange) -> None:
        """Look for personal data in the request, where that is declared. Raises `Denied`."""
        ...

    def check_earlier_items(self, exchange: Exchange, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Items of an earlier response that the request names, as the model may see them. Raises `Denied`."""
        ...

    def check_passages(self, found: list[Passage]) -> list[Passage]:
        """The passages, or parts of them, that a model may see."""
        ...

    def check_reused_answer(self, text: str) -> str:
        """The answer of another call, as a model may see it; empty where it may not."""
        ...

    def guarded_relay(self, inner: Relay, exchange: Exchange) -> GuardedRelay | None:
        """Wrap the relay of one attempt's stream in the checks; None where no guardrail applies to it."""
        ...

    def adopt(self, relay: GuardedRelay) -> None:
        """Take over the findings of `relay`: the caller gets the stream of this attempt."""
        ...

    async def finish_stream(self, exchange: Exchange, relay: GuardedRelay) -> None:
        """Check the rest of an ended stream, and the whole answer where a check needs it. Raises `DeniedAnswer`."""
        ...

    async def check_answer(self, exchange: Exchange, answered: UpstreamAnswer) -> UpstreamAnswer:
        """An unstreamed answer as the caller may see it. Raises `Denied`, `Unavailable`."""
        ...

    def report(self) -> list[dict[str, Any]]:
        """The findings for the `groundplan` object of the answer."""
        ...

    def record_findings(self, exchange: Exchange) -> None:
        """Add the findings since the last time to the worker's counts."""
        ...


@dataclass(slots=True, eq=False, init=False)
class Exchange:
    """See the module. `id_bytes`: the 16 bytes of the call's id, a UUIDv7."""

    id_bytes: bytes
    request: Request
    response: Response
    interface: Interface
    identify_caller: ClassVar[Callable[[Exchange, Policy, float], None] | None] = None
    """Replaces `identify` for calls whose request carries no key, such as lines of a batch: (exchange, policy, now)."""
    id: bytes
    """The call's id as text."""
    endpoint: str
    started: int
    trace: Trace | None
    """The trace context that the caller sent."""
    first_byte: int
    attempt_ended: int
    """When the newest attempt ended; 0 before."""
    steps: list[tuple[str, int]]
    """(step, microseconds from the begin of the call to its end) of each step so far."""
    catalog: Catalog | None
    policy: Policy | None
    key: KeyEntry | None
    person: str
    workload: Workload | None
    plan: Plan | None
    ask: Ask | None
    deployments: list[Deployment]
    output_cap: int
    bounds: dict[str, int]
    """Deployment -> the most that one attempt there can cost."""
    most_tokens: int
    """The most tokens of one attempt at any of the deployments; 0: not known with the bounds."""
    charges: Sequence[tuple[Budget, str]]
    """The budgets that cover the call, with the periods of its admission."""
    reserved_amount: int
    remaining_budget: int | None
    """The least that was left in any of its hard budgets when last read."""
    crossed_budgets: tuple[str, ...]
    """Soft budgets beyond their limit."""
    reservation: tuple[bytes, int] | None
    """Token of the reservation that is open in the slices: (id of the call, number of the attempt)."""
    attempt_number: int
    """Number of the newest attempt in the journal; -1 before the first."""
    attempt_count: int
    """Attempts made so far, hedges included."""
    attempt_flags: tuple[str, ...]
    """Flags for the settlement that say why the attempt was made: `hedge`, `resumed`, `cascade`."""
    continuation: Continuation | None
    """What was sent of a stream that may be continued elsewhere."""
    attempt_started: int
    """0: no attempt is open."""
    attempt_sent: bool
    attempt_connected: int
    """When a new connection was established; 0: none was made."""
    attempt_answered: int
    """When the head of the upstream's answer arrived; 0: not yet."""
    attempt_first_us: int
    """Of a stream: microseconds from the begin of the attempt until there was something for the client; otherwise 0."""
    limit_use: LimitUse | None
    """What the call holds of limits, where the blueprint declares any."""
    output_bytes: int
    deployment: Deployment | None
    probe_turn: Probe | None
    """The turn to probe an unhealthy deployment that the next or open attempt has."""
    waited_seconds: float
    """Seconds of its deadline that were spent waiting before a deployment was asked."""
    passages: Sequence[Passage]
    grounding_notes: GroundingNotes | None
    """What the answer reports about its passages, where its workload has sources and any was found."""
    documents_state: str
    """State of the documents in which passages were found, where the answer may be cached."""
    cache_result: str
    route: Route | None
    """Which deployment was chosen and why, where its workload routes."""
    question_vector: Vector | None
    """Embedding of its question, where its workload's router uses it."""
    trial: Trial | None
    """The experiment that the call takes part in."""
    parent_call: str
    """Id of the call for which the gateway itself makes this one; otherwise empty."""
    purpose: str
    """Why the gateway makes it, as in `Reservation.purpose`."""
    is_judge_call: bool
    """Whether it asks a judge about an answer, without the prompt of its workload."""
    saved_cost: int
    """Picodollars that its cached answer cost when a model gave it."""
    guard: CallGuard | None
    """Its guardrails, where any applies."""
    compared_question: Question | None
    """Its question as the semantic cache compares it, where its workload has one."""
    file_bytes_held: int
    """Bytes of files that were put into its request, while they count against the worker's memory."""
    semantic_match: Match | None
    """The semantically matching cached answer with which its own is compared."""
    body_digest: bytes
    """Digest of the meaning of its body, by which repeats are recognised; empty: not computed."""
    flight: Flight | None
    """Shares its answer with concurrent calls that ask the same."""
    usage: Usage
    cost: int
    """Picodollars of all attempts so far."""
    last_attempt_cost: int
    """Picodollars of the attempt that was settled last."""
    draining_bound: int
    """Bounds of cancelled attempts that are drained in the background to learn their cost."""
    estimated: bool
    status: str
    http_status: int
    error_code: str
    finished: bool
    idempotency: bytes | None
    """Digest of API key and Idempotency-Key, while this request is the first with that key."""
    sent_chunks: list[bytes] | None
    """What was sent to the client, where it is recorded: for a replay, kept content or a shadow comparison."""
    content_type_line: bytes
    """Header line of the Content-Type of its answer, where it was not streamed."""

    def __init__(self, id_bytes: bytes, request: Request, response: Response, interface: Interface) -> None:
        """Set every field to its initial value. Written by hand for speed: a generated `__init__` would pass each
        default as an argument first."""
        self.id_bytes = id_bytes
        self.request = request
        self.response = response
        self.interface = interface
        self.id = id_text(id_bytes).encode("ascii")
        self.endpoint = interface.name
        self.started = time.perf_counter_ns()
        self.trace = self.catalog = self.policy = self.key = self.workload = self.plan = self.ask = None
        self.remaining_budget = self.reservation = self.continuation = self.limit_use = self.deployment = (
            self.probe_turn
        ) = self.grounding_notes = None
        self.route = self.question_vector = self.trial = self.guard = self.compared_question = self.semantic_match = (
            self.flight
        ) = None
        self.idempotency = self.sent_chunks = None
        self.first_byte = self.attempt_ended = self.output_cap = self.most_tokens = self.reserved_amount = (
            self.attempt_count
        ) = 0
        self.attempt_started = self.attempt_connected = self.attempt_answered = self.attempt_first_us = 0
        self.output_bytes = self.saved_cost = self.file_bytes_held = self.cost = self.last_attempt_cost = (
            self.draining_bound
        ) = self.http_status = 0
        self.steps = []
        self.deployments = []
        self.person = self.documents_state = self.parent_call = self.purpose = self.error_code = ""
        self.bounds = {}
        self.charges = self.crossed_budgets = self.attempt_flags = self.passages = ()
        self.attempt_number = -1
        self.attempt_sent = self.is_judge_call = self.estimated = self.finished = False
        self.waited_seconds = 0.0
        self.cache_result = "none"
        self.body_digest = self.content_type_line = b""
        self.usage = _NO_USAGE
        self.status = "failed"

    @property
    def call(self) -> UUID:
        """The call's id."""
        return UUID(bytes=self.id_bytes)

    @property
    def context_sources(self) -> list[str]:
        """Names of the sources of what the model was shown: its passages, and those that contradict one."""
        found = [passage.source for passage in self.passages]
        if self.grounding_notes is not None:
            found += [one.other_source for one in self.grounding_notes.conflicts]
        return found

    @property
    def sent_left_out(self) -> frozenset[str]:
        """Names of what is left out of the parts of a broken stream that were sent; see `Ask.left_out`."""
        return NO_NAMES if self.continuation is None else self.continuation.left_out

    @property
    def keeps_content(self) -> bool:
        """Whether the workload keeps content in full."""
        keep = self.workload.keep if self.workload is not None else None
        return keep is not None and keep.content == "full"

    def charge_list(self, amount: int) -> list[Charge]:
        """One charge of `amount` for each covering budget."""
        return [Charge(budget.name, period, amount) for budget, period in self.charges]

    def fork(self) -> Exchange:
        """A copy for one more attempt of the same call beside the open one, with attempt fields, bounds and costs of
        its own: the rest of a broken stream has other bounds than an attempt at the whole, which may still run."""
        other = copy.copy(self)
        other.bounds = self.bounds.copy()
        other.cost, other.draining_bound, other.estimated = 0, 0, False
        return other

    def new_call(self, id_bytes: bytes) -> Exchange:
        """A new call, beginning now, with the admission of this one."""
        other = copy.copy(self)
        other.id_bytes, other.id = id_bytes, id_text(id_bytes).encode("ascii")
        other.started, other.steps, other.limit_use = time.perf_counter_ns(), [], None
        return other

    def swap_attempts(self, other: Exchange) -> None:
        """Exchange the attempt fields of both."""
        for name in _ATTEMPT_FIELDS:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, theirs)
            setattr(other, name, mine)

    def add_cost(self, other: Exchange) -> None:
        """Move the cost of the other's attempts to this call."""
        self.cost += other.cost
        self.draining_bound += other.draining_bound
        self.estimated |= other.estimated
        other.cost = other.draining_bound = 0


_ATTEMPT_FIELDS = (
    "ask", "attempt_answered", "attempt_connected", "attempt_first_us", "attempt_flags", "attempt_number",
    "attempt_sent", "attempt_started", "deployment", "output_bytes", "probe_turn", "reservation", "reserved_amount",
)  # fmt: skip
