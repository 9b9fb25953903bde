"""Each workload's share of the cost of hardware that is shared over the week: the price of the held units, divided by
what each workload would need at its own peak. Pure. A workload that peaks when others do not lowers the cost for all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from groundplan.core.money import PICO
from groundplan.placement.company import (
    FramedProblem,
    OptionMeaning,
    hardware_charge,
    pool_of,
    price_role,
    without_hardware_charge,
)
from groundplan.placement.pools import MILLI, Pool, own_pool
from groundplan.placement.problem import Indices, Solution
from groundplan.placement.terms.facts import WorkloadFacts
from groundplan.placement.verify.company import SharedUnits


def initial_choice(framed: FramedProblem, choice: Indices) -> Indices:
    """Extend a choice for workloads by the smallest amounts that their busiest hour needs of each own pool and of units
    rented beyond it; nothing is committed to."""
    problem, options = framed.problem, framed.problem.options
    used = np.zeros(len(problem.rows.names), dtype=np.int64)
    for option in choice:
        low, high = options.row_start[option], options.row_start[option + 1]
        np.add.at(used, options.row[low:high], options.use[low:high])
    need = dict(zip(problem.rows.names, used.tolist(), strict=True))
    left = {p.name: _initial_amount(framed, p, max(need[row] for row in p.rows)) for p in framed.pools.values()}
    found = [*choice.tolist(), *problem.part_start[len(choice) : -1].tolist()]
    parts = [part for part in range(len(choice), len(found)) if problem.allowed[problem.part_start[part + 1] - 1]]
    amounts = {part: framed.options[int(problem.part_start[part + 1]) - 1] for part in parts}
    for part in sorted(parts, key=lambda part: -amounts[part].amount):
        each = amounts.pop(part)
        smaller = sum(other.amount for other in amounts.values() if other.pool == each.pool)
        if framed.pools[each.pool].own_amounts_before:
            found[part] += bisect_left((0, *framed.pools[each.pool].amounts), left[each.pool])
        elif left[each.pool] > smaller:
            found[part] += 1
            left[each.pool] -= each.amount
    return np.array(found, dtype=np.int32)


def _initial_amount(framed: FramedProblem, pool: Pool, need: int) -> int:
    """Thousandths of units that the busiest hour needs of a pool: own ones first, the rest rented beyond them."""
    if pool.is_own:
        return min(need, pool.capacity)
    own = own_pool(framed.pools, pool.site, pool.type)
    return max(0, need - own.capacity) if pool.own_amounts_before and own is not None else 0


def rented_beyond_own(framed: FramedProblem, amounts: Mapping[str, int]) -> dict[str, int]:
    """`SITE TYPE how` -> units rented beyond own ones without a term."""
    pools = framed.pools.values()
    return {
        p.name: amounts[p.name] // MILLI for p in pools if p.own_amounts_before and not p.months and amounts.get(p.name)
    }


def shared_units(framed: FramedProblem, amounts: Mapping[str, int]) -> dict[str, SharedUnits]:
    """Pool -> its held or committed units, where there are any; `amounts` are thousandths of units by pool."""
    shared = {}
    for name, pool in framed.pools.items():
        units = amounts.get(name, 0) / MILLI
        if units and (pool.is_own or pool.months):
            shared[name] = SharedUnits(pool.site, pool.type, units, units * pool.price, pool.months, pool.rows)
    return shared


def share_factors(
    framed: FramedProblem,
    amounts: Mapping[str, int],
    parts: Mapping[str, Mapping[int, OptionMeaning]],
    solution: Solution,
) -> dict[str, float]:
    """Pool -> factor: its cost, with units rented on top, over what its users would pay for their own peaks."""
    shared = shared_units(framed, amounts)
    unshared: dict[str, float] = {}
    for name, roles in parts.items():
        for taken in roles.values():
            pool = None if taken.candidate is None else pool_of(framed.pools, taken.candidate)
            if pool is not None:
                unshared[pool.name] = unshared.get(pool.name, 0.0) + _unshared_cost(
                    framed, framed.candidates.company.workloads[name], taken
                )
    tiers, rows = framed.problem.tiers, framed.problem.rows
    found = {}
    for name, each in shared.items():
        more = sum(
            amounts.get(p.name, 0) / MILLI * p.price
            for p in framed.pools.values()
            if p.own_amounts_before and (p.site, p.type) == (each.site, each.type)
        )
        bought = sum(
            int(units) * int(price) / PICO
            for row, units, price in zip(tiers.row, solution.units, tiers.price, strict=True)
            if rows.names[int(row)] in each.rows
        )
        if unshared.get(name):
            found[name] = (each.usd + bought + more) / unshared[name]
    return found


def _unshared_cost(framed: FramedProblem, w: WorkloadFacts, taken: OptionMeaning) -> float:
    assert taken.candidate is not None
    terms, units = price_role(w, taken.candidate, taken.role, taken.level)
    return hardware_charge(framed.candidates, framed.pools, taken.candidate, terms, units)


def shared_terms(
    framed: FramedProblem, w: WorkloadFacts, taken: OptionMeaning, shares: Mapping[str, float]
) -> dict[str, float]:
    """Term -> USD a month of one part of a workload, with its share of shared hardware."""
    assert taken.candidate is not None
    terms, _ = price_role(w, taken.candidate, taken.role, taken.level)
    pool = pool_of(framed.pools, taken.candidate)
    factor = shares.get(pool.name) if pool is not None else None
    if factor is None:
        return terms
    alone, paid = _unshared_cost(framed, w, taken), terms.get("compute", 0.0) + terms.get("idle", 0.0)
    rest = without_hardware_charge(terms, alone)
    found = {term: rest[term] + factor * (usd - rest[term]) for term, usd in terms.items()}
    # all units of a burst are held for the few hours that it needs: what exceeds its use is idle
    return found | {"idle": found.get("idle", 0.0) + factor * max(0.0, alone - paid)}
