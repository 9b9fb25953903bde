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
    """What callers may say as `model` instead of its name."""
    also: list[str] = []
    """Deployments of further types (images, speech, transcription, rerank, moderation, realtime) that it may use."""
    budgets: list[str]
    """Names of budgets that cover every call of this workload (company, team, workload), each charged in full."""
    grounding: Grounding | None = None
    needs: Needs = Needs()
    system_prompt: str | None = None
    prompt: str | None = None
    """name@version of that prompt"""
    max_output_tokens: int = 1024
    """Cap where the caller gives none, and the most a caller may ask for."""
    calls_per_day: int | None = None
    people: int | None = None
    max_cost_per_call: int | None = None
    """picodollars; a call whose bound is above it is refused"""
    expires: str | None = None
    """ISO date after which an experiment or pilot is refused."""
    expires_declared: bool = False
    """False where `expires` is the default, counted from the day on which the workload was first served."""
    grace_ms: int = 60000
    attempts: int = 3
    deadline_ms: int = 60000
    reliability: Reliability = Reliability()
    keep: Keep | None = None
    """None: no prompt and no answer is kept."""
    cache: Cache | None = None
    """None: every call asks a model."""
    routing: Routing | None = None
    """None: calls for model `auto` follow the order of deployments."""
    experiment: DeclaredExperiment | None = None
    """What is to be tried on its calls; what runs is live policy."""
    replay: Replay | None = None
    batch_concurrent: int = 4
    """Calls of one of its batches that one worker makes at the same time."""
    file_bytes: int | None = None
    """Of all its files together. None: half of what the disk has for files."""
    use: list[Grant] = []
    """For whom calls may be made. Empty: for whomever a key is made, or for nobody; grants that have ended are none."""
    act_for_others: list[Grant] = []
    """Whose keys may act for others. Empty: every key that was made so; grants that have ended are none."""
    guardrails: Guardrails | None = None
    """None: nothing is checked."""
    review: Review | None = None
    """None: answers are sent at once."""
    owners: dict[str, list[str]] = {}
    """duty -> e-mail addresses (nominations; live duties are in PostgreSQL)"""

    def chooses(self, model: str) -> bool:
        """Whether a call for `model` leaves it to us which deployment answers."""
        return model == "auto" or model == self.name or model in self.aliases

    @property
    def places(self) -> list[str]:
        """Every deployment that it may use, of whatever type."""
        return [*self.deployments, *self.embeddings, *self.also]
