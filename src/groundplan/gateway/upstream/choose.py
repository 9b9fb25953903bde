"""In which order healthy deployments are asked: the balancing of a workload. Pure but for the dice, which are an
argument.

Which deployments there are, and that unhealthy ones come last, was decided before. `ordered` never comes here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundplan.blueprint.model import Deployment

MODES = ("ordered", "weighted", "least-outstanding", "latency", "cheapest", "prefix")
PREFIX_BYTES = 2048
"""Of the conversation's beginning: what providers' caches have in common."""
BOUNDED = 1.25
"""Times its share of the calls: a deployment above it is passed over, so that one popular prompt does not sink its
home."""


_READ = ("instructions", "system", "messages", "input", "prompt")


def beginning(fields: Mapping[str, Any]) -> bytes:
    """Of what a model is to read, by the fields of a body, in whichever API it was asked."""
    return b"".join(bytes(fields[name])[:PREFIX_BYTES] for name in _READ if name in fields)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a call is balanced."""

    workload: str
    running: Callable[[str], int]
    """Calls at a deployment now."""
    peak: Callable[[str], float]
    """Microseconds that it takes, sensitive to peaks; 0 where nothing is known."""
    bounds: Mapping[str, int]
    """The most that this call can cost there."""
    prefix: bytes
    dice: Callable[[], float]


class Balance:
    """Turns by workload: the only thing that balancing remembers."""

    __slots__ = ("_gone_over", "_turns")

    def __init__(self) -> None:
        self._turns: dict[str, dict[str, int]] = {}
        self._gone_over: dict[str, int] = {}

    def goes_over(self, workload: str, share: int) -> bool:
        """Whether this call is one of the `share` of a hundred that go to a new place, which are evenly spread."""
        turn = self._gone_over.get(workload, 0) + share
        self._gone_over[workload] = turn % 100
        return turn >= 100

    def arrange(self, mode: str, deployments: Sequence[Deployment], facts: Facts) -> list[Deployment]:
        """The deployments with the one to ask first in front; the others are where it goes when that one fails. A
        weight of 0 is asked only then, in every mode."""
        shared = [d for d in deployments if d.weight > 0]
        if 0 < len(shared) < len(deployments):
            return [*self.arrange(mode, shared, facts), *(d for d in deployments if d.weight <= 0)]
        if len(deployments) < 2:
            return list(deployments)
        if mode == "weighted":
            return self._weighted(deployments, facts)
        if mode == "least-outstanding":
            return sorted(deployments, key=lambda d: ((facts.running(d.name) + 1) / max(1, d.weight), facts.dice()))
        if mode == "latency":
            return _quick(deployments, facts)
        if mode == "cheapest":
            return sorted(deployments, key=lambda d: facts.bounds.get(d.name, 0))
        if mode == "prefix":
            return _affine(deployments, facts)
        return list(deployments)

    def _weighted(self, deployments: Sequence[Deployment], facts: Facts) -> list[Deployment]:
        """Smooth turns: by their weights, and evenly spread, also where some calls may go to a part of them only."""
        turns = self._turns.setdefault(facts.workload, {})
        total = 0
        for deployment in deployments:
            turns[deployment.name] = turns.get(deployment.name, 0) + deployment.weight
            total += deployment.weight
        order = sorted(deployments, key=lambda d: turns[d.name], reverse=True)
        turns[order[0].name] -= total
        return order


def _quick(deployments: Sequence[Deployment], facts: Facts) -> list[Deployment]:
    """Of two by chance the one that answers sooner by what it has to do: the best one is never overrun by all. Of one
    that has never answered the first call finds out, and to the others it is as slow as the slowest."""
    one = min(int(facts.dice() * len(deployments)), len(deployments) - 1)
    two = min(int(facts.dice() * (len(deployments) - 1)), len(deployments) - 2)
    two += two >= one

    slowest = max(facts.peak(each.name) for each in deployments)

    def cost(deployment: Deployment) -> float:
        running = facts.running(deployment.name)
        return (facts.peak(deployment.name) or (slowest if running else 0.0)) * (running + 1)

    first = min(deployments[one], deployments[two], key=cost)
    return [first, *sorted((d for d in deployments if d is not first), key=cost)]


def _affine(deployments: Sequence[Deployment], facts: Facts) -> list[Deployment]:
    """The home of the conversation's beginning, and its next ones, by rendezvous hashing with weights; those with more
    than their share of calls come last."""
    scored = sorted(deployments, key=lambda d: _score(facts.prefix, d), reverse=True)
    total, weights = sum(facts.running(d.name) for d in deployments) + 1, sum(d.weight for d in deployments) or 1

    def is_full(deployment: Deployment) -> bool:
        return facts.running(deployment.name) >= math.ceil(BOUNDED * total * deployment.weight / weights)

    return sorted(scored, key=is_full)


def _score(prefix: bytes, deployment: Deployment) -> float:
    digest = hashlib.blake2b(prefix, digest_size=8, key=deployment.name.encode()[:64]).digest()
    chance = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return max(deployment.weight, 0) / -math.log(chance)
