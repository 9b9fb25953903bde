"""Waiting before servers: Erlang's C formula, and how many servers keep it short. Pure.

A. K. Erlang, "Solution of some Problems in the Theory of Probabilities of Significance in Automatic Telephone
Exchanges" (1917): the share that waits with c servers and a load of a is B / (1 - rho (1 - B)), where B is the loss
formula, computed by its recursion. Arrivals are taken as Poisson, service times as exponential, which errs upwards.
"""

from __future__ import annotations

from math import inf

MAX_SERVERS = 100_000


def wait_probability(servers: int, load: float) -> float:
    """The share of arrivals that wait; `load`: arrivals a second times seconds of service. 1 where it is too high."""
    if servers <= load:
        return 1.0
    lost = 1.0
    for number in range(1, servers + 1):
        lost = load * lost / (number + load * lost)
    return lost / (1 - load / servers * (1 - lost))


def wait_seconds(servers: int, arrivals: float, service: float) -> float:
    """The mean wait in seconds; infinite where the load is too high."""
    load = arrivals * service
    if servers <= load:
        return inf
    return wait_probability(servers, load) * service / (servers - load)


def servers_for(arrivals: float, service: float, longest: float) -> int:
    """The fewest servers with a mean wait of at most `longest` seconds."""
    load = arrivals * service
    low = int(load) + 1
    if wait_seconds(low, arrivals, service) <= longest:
        return low
    high = low
    while high < MAX_SERVERS and wait_seconds(high, arrivals, service) > longest:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wait_seconds(middle, arrivals, service) <= longest else (middle, high)
    return high
