"""People, groups and teams, duties, keys, kills and sessions, as frozen values. Nothing here reads or writes.

Membership is live: these values are what the database said at one moment. `everyone` is no row: every active person is
in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

EVERYONE = "everyone"
PUBLIC = "public"
"""The name of the reader entry for everybody, including calls without a person."""
COMPANY = "company"
"""The subject of duties and kills for the whole company."""
DUTIES = (
    "business",
    "product",
    "architecture",
    "engineering",
    "operations",
    "security",
    "finance",
    "data",
    "compliance",
)
SUCCESSION = timedelta(days=30)
"""How long a duty may stay with somebody who has left. After that its finding is critical, and its workload can only be
changed together with a new owner. Nothing stops serving."""
KILL_SCOPES = ("provider", "model", "workload", "deployment", "source", "tool", "key", "site")
GroupType = Literal["group", "team"]


def canonical_scope(scope: str) -> str:
    """The scope of a kill as it is stored and compared: a key's id in the form of every list, whatever form it was
    written in (capital letters, no hyphens). Other scopes unchanged."""
    kind, _, name = scope.partition("/")
    if kind != "key":
        return scope
    try:
        return f"key/{UUID(name)}"
    except ValueError:
        return scope


@dataclass(frozen=True, slots=True)
class Person:
    """A person who may own, call or approve. `email` is lower case."""

    id: UUID
    email: str
    name: str
    active: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A group or team with its direct members: emails (`people`) and names of other groups (`groups`)."""

    id: UUID
    name: str
    type: GroupType
    people: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Duty:
    """A person holds a duty for the company or for a subject such as `workload/staff-assistant`."""

    subject: str
    duty: str
    person: Person


@dataclass(frozen=True, slots=True)
class GenesisPerson:
    """A person of the first blueprint."""

    email: str
    name: str


@dataclass(frozen=True, slots=True)
class GenesisGroup:
    """A group or team of the first blueprint: members are emails (`people`) and names of other groups (`groups`)."""

    name: str
    type: GroupType = "group"
    people: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nomination:
    """A person (by email) who is to hold a duty for a subject."""

    subject: str
    duty: str
    email: str


@dataclass(frozen=True, slots=True)
class GenesisPeople:
    """Everybody that the first blueprint declares. From then on people are changed by command only."""

    people: tuple[GenesisPerson, ...]
    groups: tuple[GenesisGroup, ...] = ()
    duties: tuple[Nomination, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """Restrictions and rights of a key besides its workload; a rotated key keeps them."""

    acts_for_others: bool = False
    tags: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    """Networks (CIDR) from which it may be used; empty: all."""
    models: tuple[str, ...] = ()
    """Models or deployments that it may use; empty: all of its workload."""
    budget: int | None = None
    """picodollars per `budget_period`"""
    budget_period: str | None = None
    """day | week | month | quarter | year | total"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `prefix` is the start of the secret, to tell keys apart."""

    id: UUID
    prefix: str
    workload: str
    person_id: UUID | None
    acts_for_others: bool
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    family: UUID
    """Id of the first key of a line of rotated keys, maybe its own."""
    replaced_by: UUID | None
    terms: KeyTerms


@dataclass(frozen=True, slots=True)
class GatewayState:
    """A gateway worker and the policy and blueprint that it follows. `until`: when its policy lease and grace run out
    unless it renews."""

    epoch: UUID
    host: str
    pid: int
    policy_ack: int
    blueprint: int
    heartbeat_at: datetime
    connected: bool
    until: datetime


@dataclass(frozen=True, slots=True)
class Propagation:
    """How far a change of policy, or a blueprint, has reached the gateways; `number` is its number.

    `acknowledged` gateways follow it; `waiting` ones do not yet and may still serve by the old rules: connected ones
    for about a second, those cut off until their `until`; `lapsed` ones never acknowledged it but may not serve any
    more.
    """

    number: int
    acknowledged: tuple[GatewayState, ...]
    waiting: tuple[GatewayState, ...]
    lapsed: tuple[GatewayState, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is admitted by the old rules any more."""
        return not self.waiting


Proof = Literal["link", "recovery", "unconfirmed", "passkey", "oidc"]
"""How somebody signed in: the local operator by a link; a person by a link that the operator made, by a passkey that
nobody has confirmed yet, by a confirmed passkey, or at the company's own sign-in."""
PROVEN: frozenset[Proof] = frozenset({"passkey", "oidc"})
"""Proofs that the person was present, which nobody can give with the operator's token."""


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. `person_id` None is the local operator; `acting_as` is set in the demo only."""

    person_id: UUID | None
    acting_as: UUID | None
    csrf: str
    expires_at: datetime
    proof: Proof = "recovery"
    id: UUID | None = None

    @property
    def is_proven(self) -> bool:
        """Whether the person was present, and not only somebody with the operator's token."""
        return self.proof in PROVEN

    @property
    def person(self) -> UUID | None:
        """The person whose view the console shows: the one acted as, else the one signed in."""
        return self.acting_as or self.person_id


@dataclass(frozen=True, slots=True)
class TerminalRequest:
    """A decision that somebody at a command line wants to make; `person` and `proof` once somebody confirmed it."""

    id: UUID
    code: str
    """Shown in the terminal and in the browser, so that a person recognises their own request."""
    change: UUID
    digest: str
    decision: str
    """approve | refuse"""
    comment: str
    asked_by: str
    created_at: datetime
    expires_at: datetime
    person: UUID | None = None
    proof: Proof | None = None
    confirmed_at: datetime | None = None
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session as its owner sees it in a list, without any secret."""

    id: UUID
    person_id: UUID | None
    proof: Proof
    agent: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Passkey:
    """A registered passkey. `material` is public: credential id and public key as the device showed them."""

    id: bytes
    person_id: UUID
    material: bytes
    sign_count: int
    label: str
    created_at: datetime
    created_by: str
    used_at: datetime | None
    confirmed_at: datetime | None
    confirmed_by: str | None
    waits_until: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Whether it proves its person's identity: somebody confirmed it, or its waiting time passed without
        objection."""
        return self.confirmed_at is not None or (self.waits_until is not None and self.waits_until <= now)


Role = Literal["auditor", "on-call", "emergency"]
"""Temporary rights: to read everything; to stop and roll back alone; the same for an hour, taken by oneself."""
SCOPES = frozenset({"read", "plan", "release", "rollback", "stop", "keys", "revoke", "clear", "work", "scim"})
"""Scopes of service tokens. A token never approves, lifts a stop, or changes rights by hand."""


@dataclass(frozen=True, slots=True)
class Appointment:
    """A temporary right of a person; it ends by itself."""

    id: UUID
    person_id: UUID
    role: Role
    reason: str
    begins: datetime
    ends: datetime
    made_by: str
    ended_at: datetime | None = None
    ended_by: str | None = None
    reviewed_at: datetime | None = None
    reviewed_by: str | None = None
    review: str | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether its time has passed or somebody ended it."""
        return self.ends <= now or (self.ended_at is not None and self.ended_at <= now)


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A program's token without its secret."""

    id: UUID
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None = None
    used_at: datetime | None = None
