"""Load balancing: in which order the healthy deployments of a workload are attempted. Pure but for the random numbers,
which are an argument.

Which deployments there are, and that unhealthy ones come last, was decided before. Mode `ordered` never comes here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundplan.blueprint.model import Deployment

PREFIX_BYTES = 2048
"""Bytes at the beginning of the conversation: what providers' prompt caches have in common."""
MAX_LOAD_FACTOR = 1.25
"""A deployment with more than this times its share of the running calls is passed over, so that one popular prompt does
not overload its home."""


_PROMPT_FIELDS = ("instructions", "system", "messages", "input", "prompt")


def prompt_prefix(fields: Mapping[str, Any]) -> bytes:
    """The first bytes that the model reads, from the fields of a body in any of the APIs."""
    return b"".join(bytes(fields[name])[:PREFIX_BYTES] for name in _PROMPT_FIELDS if name in fields)


@dataclass(frozen=True, slots=True)
class BalancingInputs:
    """What a call's deployments are ordered by."""

    workload: str
    running: Callable[[str], int]
    """Number of calls that are running at a deployment."""
    peak_latency: Callable[[str], float]
    """Expected microseconds until the first byte at a deployment, sensitive to peaks; 0 if unknown."""
    max_costs: Mapping[str, int]
    """The most that this call can cost at each deployment."""
    prefix: bytes
    random: Callable[[], float]


class LoadBalancer:
    """Turns by workload: the only state of load balancing."""

    __slots__ = ("_ramp_turns", "_turns")

    def __init__(self) -> None:
        self._turns: dict[str, dict[str, int]] = {}
        self._ramp_turns: dict[str, int] = {}

    def takes_ramp(self, workload: str, share: int) -> bool:
        """Whether this call is one of the `share` percent that go to the new place of a ramp; these are evenly
        spread."""
        turn = self._ramp_turns.get(workload, 0) + share
        self._ramp_turns[workload] = turn % 100
        return turn >= 100

    def order(self, mode: str, deployments: Sequence[Deployment], inputs: BalancingInputs) -> list[Deployment]:
        """The deployments, the one to attempt first in front; the others are the fallbacks. A deployment of weight 0 is
        only a fallback, in every mode."""
        shared = [d for d in deployments if d.weight > 0]
        if 0 < len(shared) < len(deployments):
            return [*self.order(mode, shared, inputs), *(d for d in deployments if d.weight <= 0)]
        if len(deployments) < 2:
            return list(deployments)
        if mode == "weighted":
            return self._weighted(deployments, inputs)
        if mode == "least-outstanding":
            return sorted(deployments, key=lambda d: ((inputs.running(d.name) + 1) / max(1, d.weight), inputs.random()))
        if mode == "latency":
            return _by_latency(deployments, inputs)
        if mode == "cheapest":
            return sorted(deployments, key=lambda d: inputs.max_costs.get(d.name, 0))
        if mode == "prefix":
            return _by_prefix(deployments, inputs)
        return list(deployments)

    def _weighted(self, deployments: Sequence[Deployment], inputs: BalancingInputs) -> list[Deployment]:
        """Smooth weighted round robin: by their weights and evenly spread, also if some calls may use only some of the
        deployments."""
        turns = self._turns.setdefault(inputs.workload, {})
        total = 0
        for deployment in deployments:
            turns[deployment.name] = turns.get(deployment.name, 0) + deployment.weight
            total += deployment.weight
        order = sorted(deployments, key=lambda d: turns[d.name], reverse=True)
        turns[order[0].name] -= total
        return order


def _by_latency(deployments: Sequence[Deployment], inputs: BalancingInputs) -> list[Deployment]:
    """Of two random deployments the one with the shorter expected wait, so that the best one is never overrun by all. A
    deployment without measurements is tried by one call first, and meanwhile counts as being as slow as the slowest."""
    one = min(int(inputs.random() * len(deployments)), len(deployments) - 1)
    two = min(int(inputs.random() * (len(deployments) - 1)), len(deployments) - 2)
    two += two >= one

    slowest = max(inputs.peak_latency(each.name) for each in deployments)

    def cost(deployment: Deployment) -> float:
        running = inputs.running(deployment.name)
        return (inputs.peak_latency(deployment.name) or (slowest if running else 0.0)) * (running + 1)

    first = min(deployments[one], deployments[two], key=cost)
    return [first, *sorted((d for d in deployments if d is not first), key=cost)]


def _by_prefix(deployments: Sequence[Deployment], inputs: BalancingInputs) -> list[Deployment]:
    """The home of the conversation's prefix, then its next ones, by weighted rendezvous hashing; those with more than
    their share of calls come last."""
    scored = sorted(deployments, key=lambda d: _rendezvous_score(inputs.prefix, d), reverse=True)
    total, weights = sum(inputs.running(d.name) for d in deployments) + 1, sum(d.weight for d in deployments) or 1

    def is_full(deployment: Deployment) -> bool:
        return inputs.running(deployment.name) >= math.ceil(MAX_LOAD_FACTOR * total * deployment.weight / weights)

    return sorted(scored, key=is_full)


def _rendezvous_score(prefix: bytes, deployment: Deployment) -> float:
    digest = hashlib.blake2b(prefix, digest_size=8, key=deployment.name.encode()[:64]).digest()
    chance = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return max(deployment.weight, 0) / -math.log(chance)
