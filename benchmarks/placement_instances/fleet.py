"""Buying machines for a mix of requests: slices of the mix are assigned to types of machine, whole machines are bought.

The formulation of Mélange (Griggs et al., 2024): one workload for each slice of a bucket of requests, one site for each
type, the load of a slice on a type is its rate over the type's throughput, and the bought machines hold the load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from groundplan.placement.assemble import Choice, Job, Piece, Place, UnitOffer, assemble
from groundplan.placement.problem import Problem


@dataclass(frozen=True, slots=True)
class Machine:
    """A type of machine: its price in any integer unit and its throughput (requests a second) for each bucket."""

    price: int
    throughput: tuple[Fraction, ...]
    """0: it cannot serve this bucket"""


def fleet_problem(
    machines: Mapping[str, Machine], rates: Sequence[Fraction], slices: int, max_machines: int = 1000
) -> Problem:
    """The problem for `rates` requests a second of each bucket, cut into `slices` equal slices, each served by one
    type; at most `max_machines` of a type can be bought."""
    loads = {
        name: [
            rate / slices / throughput if throughput else None
            for rate, throughput in zip(rates, machine.throughput, strict=True)
        ]
        for name, machine in machines.items()
    }
    denominator = lcm(*(load.denominator for throughput in loads.values() for load in throughput if load is not None))
    places = [
        Place(name, name, {"load": 0}, 0, (UnitOffer("machine", "load", denominator, machine.price, max_machines),))
        for name, machine in machines.items()
    ]
    jobs = [
        Job(f"bucket-{bucket}-{number}", (Piece(_choices(loads, bucket, denominator)),))
        for bucket in range(len(rates))
        for number in range(slices)
    ]
    return assemble(places, jobs)


def _choices(loads: Mapping[str, Sequence[Fraction | None]], bucket: int, denominator: int) -> tuple[Choice, ...]:
    loads_by_machine = ((name, bucket_loads[bucket]) for name, bucket_loads in loads.items())
    return tuple(
        Choice(name, {}, {"load": int(load * denominator)}) for name, load in loads_by_machine if load is not None
    )
