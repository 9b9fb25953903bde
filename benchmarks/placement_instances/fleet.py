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


def fleet_problem(machines: Mapping[str, Machine], rates: Sequence[Fraction], slices: int, most: int = 1000) -> Problem:
    """The problem for [b] requests a second of each bucket, cut into `slices` equal slices, each served by one type."""
    loads = {
        name: [rate / slices / each if each else None for rate, each in zip(rates, machine.throughput, strict=True)]
        for name, machine in machines.items()
    }
    whole = lcm(*(load.denominator for each in loads.values() for load in each if load is not None))
    places = [
        Place(name, name, {"load": 0}, 0, (UnitOffer("machine", "load", whole, machine.price, most),))
        for name, machine in machines.items()
    ]
    jobs = [
        Job(f"bucket-{bucket}-{number}", (Piece(_choices(loads, bucket, whole)),))
        for bucket in range(len(rates))
        for number in range(slices)
    ]
    return assemble(places, jobs)


def _choices(loads: Mapping[str, Sequence[Fraction | None]], bucket: int, whole: int) -> tuple[Choice, ...]:
    found = ((name, each[bucket]) for name, each in loads.items())
    return tuple(Choice(name, {}, {"load": int(load * whole)}) for name, load in found if load is not None)
