"""A workload as gateways serve it."""

from __future__ import annotations

import msgspec

from groundplan.blueprint.content import Grounding, Needs
from groundplan.blueprint.experiment import DeclaredExperiment, Replay
from groundplan.blueprint.guarding import Guardrails, Review
from groundplan.blueprint.limits import Grant
from groundplan.blueprint.serving import Cache, Keep, Reliability, Routing


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    purpose: str
    stage: str
    sensitivity: str
    audience: str
    residency: list[str]
    team: str | None = None
    deployments: list[str]
    """Allowed deployments in order: the primary first, then the fallbacks."""
    embeddings: list[str] = []
    aliases: list[str] = []
    """Further names that callers may send as `model` instead of the workload's name."""
    also: list[str] = []
    """Deployments of other types (images, speech, transcription, rerank, moderation, realtime) that it may use."""
    budgets: list[str]
    """Names of budgets that cover every call of this workload (company, team, workload), each charged in full."""
    grounding: Grounding | None = None
    needs: Needs = Needs()
    system_prompt: str | None = None
    prompt: str | None = None
    """name@version of the prompt"""
    max_output_tokens: int = 1024
    """Output cap where the caller sends none, and the most that a caller may request."""
    calls_per_day: int | None = None
    people: int | None = None
    max_cost_per_call: int | None = None
    """picodollars; a call whose bound is above it is refused"""
    expires: str | None = None
    """ISO date after which calls of an experiment or pilot are refused."""
    expires_declared: bool = False
    """False where `expires` is the default, counted from the day on which the workload was first served."""
    grace_ms: int = 60000
    attempts: int = 3
    deadline_ms: int = 60000
    reliability: Reliability = Reliability()
    keep: Keep | None = None
    """None: no prompt and no answer is stored."""
    cache: Cache | None = None
    """None: every call goes to a model."""
    routing: Routing | None = None
    """None: calls for model `auto` follow the order of deployments."""
    experiment: DeclaredExperiment | None = None
    """The declared experiment; whether it runs is live policy."""
    replay: Replay | None = None
    batch_concurrent: int = 4
    """Number of calls of one of its batches that one worker makes at the same time."""
    file_bytes: int | None = None
    """The most bytes of all its files together. None: half of the disk space for files."""
    use: list[Grant] = []
    """Grants to make calls. Empty: to anybody for whom a key is made, and to keys that are made for nobody; grants that
    have ended do not count."""
    act_for_others: list[Grant] = []
    """Grants to have keys that act for others. Empty: every key that was made so may; grants that have ended do not
    count."""
    guardrails: Guardrails | None = None
    """None: nothing is checked."""
    review: Review | None = None
    """None: answers are sent at once."""
    owners: dict[str, list[str]] = {}
    """duty -> e-mail addresses (nominations; live duties are in PostgreSQL)"""

    def is_routed(self, model: str) -> bool:
        """Whether a call for `model` leaves the choice of the deployment to the gateway."""
        return model == "auto" or model == self.name or model in self.aliases

    @property
    def all_deployments(self) -> list[str]:
        """Every deployment that the workload may use, of any type."""
        return [*self.deployments, *self.embeddings, *self.also]
