"""One request on its way through the six steps: a single mutable object, made for it and dropped with it.

Holds values only; each step module fills in its part. Times are `perf_counter_ns`, amounts picodollars.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Budget, Deployment, Workload
from groundplan.core.ids import id_text
from groundplan.gateway.policy.snapshot import Catalog, KeyEntry, Plan, Policy
from groundplan.ledger.model import Charge, Usage

if TYPE_CHECKING:
    from groundplan.economics.routing.model import Floats as Vector
    from groundplan.gateway.caching.answer_cache import Flight
    from groundplan.gateway.caching.meaning import Asked, Match
    from groundplan.gateway.call.grounded import Grounded
    from groundplan.gateway.call.limits import Use
    from groundplan.gateway.call.resume import Continuation
    from groundplan.gateway.call.trace import Trace
    from groundplan.gateway.experiments.trial import Trial
    from groundplan.gateway.guard.run import Guarding
    from groundplan.gateway.http.server import Request, Response
    from groundplan.gateway.routing.route import Route
    from groundplan.gateway.surfaces.interface import Interface
    from groundplan.gateway.surfaces.upload import Upload


_NONE = Usage()


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """One retrieved passage that the caller may read."""

    document: str
    path: str
    title: str
    source: str
    start_line: int
    end_line: int
    text: str
    score: float = 0.0
    chunk: str = ""
    """Id of the chunk; a changed document has new ones."""
    version: int = 1
    start_char: int = 0
    end_char: int = 0
    """Characters of that version of the document."""
    head: str = ""
    """The head row of the table in which the text begins, where it stands before it: context, no part of the text."""

    @property
    def said(self) -> str:
        """The text below the head of its table, as a model is given it."""
        return f"{self.head}\n{self.text}" if self.head else self.text


class Ask(msgspec.Struct, frozen=True):
    """The caller's body, read once. `fields` are its top-level fields as raw JSON, in order; `size` its bytes."""

    fields: dict[str, msgspec.Raw]
    model: str
    messages: int
    query: str
    stream: bool
    include_usage: bool
    cap: int | None
    copies: int
    size: int
    needs: frozenset[str] = frozenset()
    """What it asks of a deployment that not every one takes: `image`, `file`, `priority`."""
    images: int = 0
    """Sent in; their bytes are not in `size`."""
    hidden: int = 0
    """Tokens beside those of its bytes: the most that its provider adds of its own accord, about tools; those that a
    prompt is given as."""
    audio_kib: int = 0
    """KiB of audio sent in, not in `size` either."""
    service: str = "standard"
    """Class of service: standard | auto | batch | priority."""
    line: bool = False
    """A line of a batch that is made as a call."""
    body: bytes = b""
    """What `fields` are of, where it may be spliced; empty where they were changed."""
    lines: bytes = b""
    """Header lines of the caller for an upstream that speaks this API itself."""
    upload: Upload | None = None
    """A form that is sent on while it arrives."""
    files: tuple[str, ...] = ()
    """Ids of files that it names, each once; they are put in before it is sent."""
    binary: bool = False
    """Its answer is bytes that are passed on as they come."""
    typed: object = None
    """What the surface itself made of the body."""


@dataclass(slots=True, eq=False)
class Exchange:
    """See the module. `raw` are the 16 bytes of the call's id, a UUIDv7."""

    raw: bytes
    request: Request
    response: Response
    interface: Interface
    id: bytes = b""
    """The call's id as text."""
    endpoint: str = ""
    started: int = 0
    trace: Trace | None = None
    """Of the caller, where it sent one."""
    first_byte: int = 0
    served: int = 0
    """When the newest attempt ended; 0 before."""
    steps: list[tuple[str, int]] = field(default_factory=list)
    catalog: Catalog | None = None
    policy: Policy | None = None
    key: KeyEntry | None = None
    person: str = ""
    workload: Workload | None = None
    plan: Plan | None = None
    ask: Ask | None = None
    deployments: list[Deployment] = field(default_factory=list)
    output_cap: int = 0
    bounds: dict[str, int] = field(default_factory=dict)
    charges: Sequence[tuple[Budget, str]] = ()
    """The budgets that cover it, with the periods of its admission."""
    reserved: int = 0
    remaining: int | None = None
    """Of the hard budgets, the least, when last looked at."""
    crossed: tuple[str, ...] = ()
    """Soft budgets beyond their limit."""
    token: tuple[bytes, int] | None = None
    """Of the reservation that is open in the slices."""
    attempt: int = -1
    """Number of the attempt whose record is open in the journal; -1 before the first."""
    attempts: int = 0
    """Attempts made so far, hedges included."""
    attempt_flags: tuple[str, ...] = ()
    """What its settlement says about how it came about: `hedge`, `resumed`."""
    continuation: Continuation | None = None
    """What of a stream was sent, where it may be continued elsewhere."""
    attempt_started: int = 0
    """0: no attempt is open."""
    attempt_sent: bool = False
    attempt_connected: int = 0
    """When a new connection stood; 0: none was made."""
    attempt_answered: int = 0
    """When the head of the upstream's answer was there; 0: not yet."""
    attempt_first_us: int = 0
    """Of a stream: until there was something for the client, since the attempt began; 0: not yet, or no stream."""
    use: Use | None = None
    """What it holds of limits, where the blueprint declares any."""
    output_bytes: int = 0
    deployment: Deployment | None = None
    waited: float = 0.0
    """Seconds of its deadline that went by before a deployment was asked."""
    passages: list[Passage] = field(default_factory=list)
    grounded: Grounded | None = None
    """What is told about its passages, where its workload has sources and any was found."""
    state: str = ""
    """Of the documents in which they were found, where their answer may be given again."""
    cache: str = "none"
    route: Route | None = None
    """Why it goes where it goes, where its workload routes."""
    vector: Vector | None = None
    """Of its question, where its workload's router looks at it."""
    trial: Trial | None = None
    """The experiment that it is in."""
    of: str = ""
    """The call that the gateway makes this one for, where it does so itself."""
    purpose: str = ""
    """Why: one of `ledger.model.PURPOSES`."""
    judges: bool = False
    """It is asked about an answer, without what its workload puts in front of questions."""
    saved: int = 0
    """Picodollars that the same answer cost when a model was asked for it."""
    guard: Guarding | None = None
    """Its guardrails, where there is something to guard."""
    asked: Asked | None = None
    """Its question as it is compared, where its workload matches by meaning."""
    held: int = 0
    """Bytes of files that were put into its request, while they are counted."""
    match: Match | None = None
    """The kept answer that its own is compared with."""
    said: bytes = b""
    """Digest of what its body says, by which it is compared with others; empty: not made."""
    flight: Flight | None = None
    """Where its answer goes for others that ask the same."""
    usage: Usage = _NONE
    cost: int = 0
    """Of all attempts so far."""
    draining: int = 0
    """Bounds of attempts that nobody waits for and that are read to their end, to learn what they cost."""
    estimated: bool = False
    status: str = "failed"
    http_status: int = 0
    error_code: str = ""
    finished: bool = False
    idempotency: bytes | None = None
    """Digest of key and Idempotency-Key, while this request is the first with it."""
    kept: list[bytes] | None = None
    """What was sent to the client, while it may have to be replayed."""
    kind: bytes = b""
    """Header line of its Content-Type, where it was sent whole."""

    def __post_init__(self) -> None:
        self.id = id_text(self.raw).encode("ascii")
        self.endpoint = self.interface.name
        self.started = time.perf_counter_ns()

    @property
    def call(self) -> UUID:
        """The call's id."""
        return UUID(bytes=self.raw)

    def charge_list(self, amount: int) -> list[Charge]:
        """What one record takes from each covering budget."""
        return [Charge(budget.name, period, amount) for budget, period in self.charges]

    def fork(self) -> Exchange:
        """The same call for one more attempt beside the open one: whatever an attempt has is its own."""
        other = copy.copy(self)
        other.cost, other.draining, other.estimated = 0, 0, False
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
    "attempt_started", "deployment", "output_bytes", "reserved", "token",
)  # fmt: skip
