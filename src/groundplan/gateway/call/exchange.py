"""One request on its way through the six steps: a single mutable object, made for it and dropped with it.

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
from groundplan.gateway.policy.catalog import Catalog, Plan
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.ledger.model import Charge, Usage

if TYPE_CHECKING:
    from groundplan.economics.routing.model import Floats as Vector
    from groundplan.gateway.caching.entry import Flight
    from groundplan.gateway.caching.semantic_match import Asked, Match
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
    from groundplan.gateway.upstream.health import Turn
    from groundplan.governance.guardrails.guard import Guard
    from groundplan.governance.guardrails.masks import Masks


_NONE = Usage()


class CallGuard(Protocol):
    """The guardrails of one call, as its steps ask them; `guard.run` has them."""

    guard: Guard
    masks: Masks
    reviewed: bool
    """No person is to look at its answer."""
    counts: bool
    """Whether what it finds is added to the worker's counts."""

    async def personal_in(self, exchange: Exchange) -> None:
        """Ask about personal data in what is sent in, where that is declared. Raises `Denied`."""
        ...

    def earlier(self, exchange: Exchange, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Items that a request only names, as the model may see them. Raises `Denied`."""
        ...

    def passages(self, found: list[Passage]) -> list[Passage]:
        """What of the passages a model may see."""
        ...

    def shown(self, text: str) -> str:
        """An answer that another call got, as a model may see it; empty where none may."""
        ...

    def relay_around(self, inner: Relay, exchange: Exchange) -> GuardedRelay | None:
        """The relay of one attempt's stream with the checks in it; None: nothing is looked at."""
        ...

    def adopt(self, relay: GuardedRelay) -> None:
        """Of the attempts of a stream this one is what the caller gets."""
        ...

    async def finish(self, exchange: Exchange, relay: GuardedRelay) -> None:
        """The upstream has streamed everything: judge what is left, and what needs the whole. Raises `DeniedAnswer`."""
        ...

    async def answer(self, exchange: Exchange, answered: UpstreamAnswer) -> UpstreamAnswer:
        """A whole answer as the caller may see it. Raises `Denied`, `Unavailable`."""
        ...

    def told(self) -> list[dict[str, Any]]:
        """For the `groundplan` object of the answer."""
        ...

    def count(self, exchange: Exchange) -> None:
        """Add what was found since to the worker's counts."""
        ...


@dataclass(slots=True, eq=False, init=False)
class Exchange:
    """See the module. `raw` are the 16 bytes of the call's id, a UUIDv7."""

    raw: bytes
    request: Request
    response: Response
    interface: Interface
    whose: ClassVar[Callable[[Exchange, Policy, float], None] | None] = None
    """Who finds out whose it is, where its request has no key with it."""
    id: bytes
    """The call's id as text."""
    endpoint: str
    started: int
    trace: Trace | None
    """Of the caller, where it sent one."""
    first_byte: int
    served: int
    """When the newest attempt ended; 0 before."""
    steps: list[tuple[str, int]]
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
    most_tokens: int
    """Of one attempt, at whichever deployment takes most, where that was found with its bounds; 0: it was not."""
    charges: Sequence[tuple[Budget, str]]
    """The budgets that cover it, with the periods of its admission."""
    reserved: int
    remaining: int | None
    """Of the hard budgets, the least, when last looked at."""
    crossed: tuple[str, ...]
    """Soft budgets beyond their limit."""
    token: tuple[bytes, int] | None
    """Of the reservation that is open in the slices."""
    attempt: int
    """Number of the attempt whose record is open in the journal; -1 before the first."""
    attempts: int
    """Attempts made so far, hedges included."""
    attempt_flags: tuple[str, ...]
    """What its settlement says about how it came about: `hedge`, `resumed`."""
    continuation: Continuation | None
    """What of a stream was sent, where it may be continued elsewhere."""
    attempt_started: int
    """0: no attempt is open."""
    attempt_sent: bool
    attempt_connected: int
    """When a new connection stood; 0: none was made."""
    attempt_answered: int
    """When the head of the upstream's answer was there; 0: not yet."""
    attempt_first_us: int
    """Of a stream: until there was something for the client, since the attempt began; 0: not yet, or no stream."""
    use: LimitUse | None
    """What it holds of limits, where the blueprint declares any."""
    output_bytes: int
    deployment: Deployment | None
    turn: Turn | None
    """To find out about a deployment that is not well, which the attempt that is made or open has."""
    waited: float
    """Seconds of its deadline that went by before a deployment was asked."""
    passages: Sequence[Passage]
    grounded: GroundingNotes | None
    """What is told about its passages, where its workload has sources and any was found."""
    state: str
    """Of the documents in which they were found, where their answer may be given again."""
    cache: str
    route: Route | None
    """Why it goes where it goes, where its workload routes."""
    vector: Vector | None
    """Of its question, where its workload's router looks at it."""
    trial: Trial | None
    """The experiment that it is in."""
    of: str
    """The call that the gateway makes this one for, where it does so itself."""
    purpose: str
    """Why: one of `ledger.model.PURPOSES`."""
    judges: bool
    """It is asked about an answer, without what its workload puts in front of questions."""
    saved: int
    """Picodollars that the same answer cost when a model was asked for it."""
    guard: CallGuard | None
    """Its guardrails, where there is something to guard."""
    asked: Asked | None
    """Its question as it is compared, where its workload matches by meaning."""
    held: int
    """Bytes of files that were put into its request, while they are counted."""
    match: Match | None
    """The kept answer that its own is compared with."""
    said: bytes
    """Digest of what its body says, by which it is compared with others; empty: not made."""
    flight: Flight | None
    """Where its answer goes for others that ask the same."""
    usage: Usage
    cost: int
    """Of all attempts so far."""
    paid: int
    """Of the attempt that was settled last."""
    draining: int
    """Bounds of attempts that nobody waits for and that are read to their end, to learn what they cost."""
    estimated: bool
    status: str
    http_status: int
    error_code: str
    finished: bool
    idempotency: bytes | None
    """Digest of key and Idempotency-Key, while this request is the first with it."""
    kept: list[bytes] | None
    """What was sent to the client, while it may have to be replayed."""
    kind: bytes
    """Header line of its Content-Type, where it was sent whole."""

    def __init__(self, raw: bytes, request: Request, response: Response, interface: Interface) -> None:
        """As every call begins. By hand, since there are many fields: what is made of defaults passes each of them as
        an argument first."""
        self.raw = raw
        self.request = request
        self.response = response
        self.interface = interface
        self.id = id_text(raw).encode("ascii")
        self.endpoint = interface.name
        self.started = time.perf_counter_ns()
        self.trace = self.catalog = self.policy = self.key = self.workload = self.plan = self.ask = None
        self.remaining = self.token = self.continuation = self.use = self.deployment = self.turn = self.grounded = None
        self.route = self.vector = self.trial = self.guard = self.asked = self.match = self.flight = None
        self.idempotency = self.kept = None
        self.first_byte = self.served = self.output_cap = self.most_tokens = self.reserved = self.attempts = 0
        self.attempt_started = self.attempt_connected = self.attempt_answered = self.attempt_first_us = 0
        self.output_bytes = self.saved = self.held = self.cost = self.paid = self.draining = self.http_status = 0
        self.steps = []
        self.deployments = []
        self.person = self.state = self.of = self.purpose = self.error_code = ""
        self.bounds = {}
        self.charges = self.crossed = self.attempt_flags = self.passages = ()
        self.attempt = -1
        self.attempt_sent = self.judges = self.estimated = self.finished = False
        self.waited = 0.0
        self.cache = "none"
        self.said = self.kind = b""
        self.usage = _NONE
        self.status = "failed"

    @property
    def call(self) -> UUID:
        """The call's id."""
        return UUID(bytes=self.raw)

    @property
    def sources(self) -> list[str]:
        """Of what was before the model: passages, and what contradicts one."""
        found = [passage.source for passage in self.passages]
        if self.grounded is not None:
            found += [one.other_source for one in self.grounded.conflicts]
        return found

    @property
    def keeps_content(self) -> bool:
        """Whether its workload keeps content in full."""
        keep = self.workload.keep if self.workload is not None else None
        return keep is not None and keep.content == "full"

    def charge_list(self, amount: int) -> list[Charge]:
        """What one record takes from each covering budget."""
        return [Charge(budget.name, period, amount) for budget, period in self.charges]

    def fork(self) -> Exchange:
        """The same call for one more attempt beside the open one: whatever an attempt has is its own."""
        other = copy.copy(self)
        other.cost, other.draining, other.estimated = 0, 0, False
        return other

    def another(self, raw: bytes) -> Exchange:
        """A call of its own for whoever was admitted with this one: it begins now, under that id."""
        other = copy.copy(self)
        other.raw, other.id = raw, id_text(raw).encode("ascii")
        other.started, other.steps, other.use = time.perf_counter_ns(), [], None
        return other

    def swap_attempts(self, other: Exchange) -> None:
        """The attempt that `other` has becomes this one's, and the other way round."""
        for name in _OF_AN_ATTEMPT:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, theirs)
            setattr(other, name, mine)

    def add_cost(self, other: Exchange) -> None:
        """What the other's attempt cost belongs to this call."""
        self.cost += other.cost
        self.draining += other.draining
        self.estimated |= other.estimated
        other.cost = other.draining = 0


_OF_AN_ATTEMPT = (
    "attempt", "attempt_answered", "attempt_connected", "attempt_first_us", "attempt_flags", "attempt_sent",
    "attempt_started", "deployment", "output_bytes", "reserved", "token", "turn",
)  # fmt: skip
