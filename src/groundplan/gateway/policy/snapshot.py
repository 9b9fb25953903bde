"""What a worker knows of live policy, as immutable values that are replaced as a whole. Pure: no clock, no I/O.

A request keeps the values that it started with; code that must see a change reads `live` again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from groundplan.blueprint.model import Budget
from groundplan.economics.experiment.model import Experiment
from groundplan.gateway.policy.client_address import Network
from groundplan.governance.model import GrantedApproval

PEOPLE_DAYS = 90
"""A person who made a call within so many days is one of the people of an experiment or a pilot."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """An API key that exists, or ended lately. `expires`, or when it was revoked if that was earlier: seconds since the
    epoch."""

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
    """Id of the first key of a line of rotated keys, which share budget and limits. Empty: its own."""
    line: frozenset[str] = frozenset()
    """Ids of all keys that ever were in that line, if there are several: what is declared for one of them holds for
    all. There may be thousands: to look up a few, iterate over those instead."""
    networks: tuple[Network, ...] = ()
    """Networks from which it may be used; empty: from everywhere."""
    models: frozenset[str] = frozenset()
    """Models or deployments that it may use; empty: all of its workload."""
    purpose: str = ""
    """`replay`: made by the control process for replaying kept calls; empty: an ordinary key."""


@dataclass(frozen=True, slots=True)
class RuleException:
    """One rule does not apply to a workload, or to one person in it (e-mail address; empty: all), until then."""

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
    """company | provider/N | model/N | workload/N | deployment/N | source/N | tool/N | key/ID | site/N. With a key all
    keys of its line."""
    cleared: dict[str, int] = field(default_factory=dict)
    """How often the cached answers of each workload were cleared."""
    groups: dict[str, str] = field(default_factory=dict)
    """For each active person's id, a digest of all groups they are in; only if answers are shared by group."""
    members: dict[str, frozenset[str]] = field(default_factory=dict)
    """For each group or team, the ids of its active people; only for those that grants or rules name."""
    exceptions: tuple[RuleException, ...] = ()
    """Exceptions from company rules, approved and not over when this was read."""
    experiments: dict[str, Experiment] | None = None
    """The experiment that runs on calls, by workload; None: there are none."""
    parts: dict[str, GrantedApproval] = field(default_factory=dict)
    """Approvals of models, prompts and sources for a purpose, by the digest of what was declared."""
    severed: frozenset[str] = frozenset()
    """Those of the kills that also end running answers."""

    @property
    def tools_stopped(self) -> bool:
        """Whether a kill switch stops a tool."""
        return bool(self.kills) and any(scope.startswith("tool/") for scope in self.kills)


LEASE_SECONDS = 1.0
"""How long live policy may be used without being confirmed."""
EMPTY_POLICY = Policy(number=-1, keys={}, people={}, active=frozenset(), kills=frozenset())
