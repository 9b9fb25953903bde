"""What a worker knows of live policy, as immutable values that are swapped whole. Pure: no clock, no I/O.

A request keeps the values that it started with; whoever must see a change looks at `live` again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from groundplan.blueprint.model import Budget
from groundplan.economics.experiment.model import Experiment
from groundplan.gateway.policy.client_address import Network
from groundplan.governance.model import GrantedApproval

PEOPLE_DAYS = 90
"""Who asked in so many days is one of the people of an experiment or a pilot."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """An API key that exists, or ended lately. `expires`, or when it was revoked before: seconds since the epoch."""

    id: str
    workload: str
    person: str
    """Id of its user, empty for an application's key."""
    acts_for_others: bool
    revoked: bool
    expires: float | None
    budget: Budget | None = None
    """Declared when it was made."""
    family: str = ""
    """Id of the first key of a line of rotated ones: their budget and limits are the same. Empty: its own."""
    line: frozenset[str] = frozenset()
    """Ids of all keys that ever were in that line, where there are several: what is declared for one of them holds for
    all. There may be thousands: whoever looks for few among them asks for these."""
    networks: tuple[Network, ...] = ()
    """From where it may be used; empty: from everywhere."""
    models: frozenset[str] = frozenset()
    """Models or deployments that it may use; empty: all of its workload."""
    purpose: str = ""
    """`replay`: made by the control process for replaying kept calls; empty: an ordinary key."""


@dataclass(frozen=True, slots=True)
class Excepted:
    """One rule does not hold for a workload, or for one person in it (e-mail address; empty: all), until then."""

    rule: str
    workload: str
    person: str
    until: float
    """seconds since the epoch"""


@dataclass(frozen=True, slots=True)
class Policy:
    """Live policy as of `number`."""

    number: int
    keys: dict[bytes, KeyEntry]
    """by SHA-256 of the key"""
    people: dict[str, str]
    """id of each active person by e-mail"""
    active: frozenset[str]
    """ids of active people"""
    kills: frozenset[str]
    """company | provider/N | model/N | workload/N | deployment/N | source/N | tool/N | key/ID | site/N"""
    cleared: dict[str, int] = field(default_factory=dict)
    """How often the cached answers of each workload were cleared."""
    groups: dict[str, str] = field(default_factory=dict)
    """By id of an active person a digest of all groups that they are in; only where answers are shared by them."""
    members: dict[str, frozenset[str]] = field(default_factory=dict)
    """By group or team the ids of the active people in it; only of those that grants or rules name."""
    exceptions: tuple[Excepted, ...] = ()
    """From company rules, approved and not yet over when this was read."""
    experiments: dict[str, Experiment] | None = None
    """What is tried on calls, by workload; None: nothing."""
    parts: dict[str, GrantedApproval] = field(default_factory=dict)
    """Approvals of models, prompts and sources for a purpose, by the digest of what was declared."""
    severed: frozenset[str] = frozenset()
    """Those of the kills that end answers under way."""

    @property
    def tools_stopped(self) -> bool:
        """Whether a kill switch stops a tool."""
        return bool(self.kills) and any(scope.startswith("tool/") for scope in self.kills)


LEASE_SECONDS = 1.0
"""How long live policy holds without being confirmed."""
NOTHING = Policy(number=-1, keys={}, people={}, active=frozenset(), kills=frozenset())
