"""What each workload bears of hardware that is shared over the week: the price of what is held, by what each takes at
its own peak. Pure; whoever peaks when others do not makes it cheaper for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from groundplan.core.money import PICO
from groundplan.placement.company import Framed, Taken, charged, pool_of, priced, without_units
from groundplan.placement.pools import MILLI
from groundplan.placement.problem import Indices, Solution
from groundplan.placement.terms.facts import WorkloadFacts
from groundplan.placement.verify.judged import Held


def started(framed: Framed, choice: Indices) -> Indices:
    """A choice for workloads alone, with the least held of each own pool that their fullest hour takes, and nothing
    committed to."""
    problem, options = framed.problem, framed.problem.options
    used = np.zeros(len(problem.rows.names), dtype=np.int64)
    for option in choice:
        low, high = options.row_start[option], options.row_start[option + 1]
        np.add.at(used, options.row[low:high], options.use[low:high])
    need = dict(zip(problem.rows.names, used.tolist(), strict=True))
    left = {p.name: max(need[row] for row in p.rows) if p.own else 0 for p in framed.pools.values()}
    found = [*choice.tolist(), *problem.first[len(choice) : -1].tolist()]
    parts = [part for part in range(len(choice), len(found)) if problem.allowed[problem.first[part + 1] - 1]]
    amounts = {part: framed.options[int(problem.first[part + 1]) - 1] for part in parts}
    for part in sorted(parts, key=lambda part: -amounts[part].held):
        each = amounts.pop(part)
        smaller = sum(other.held for other in amounts.values() if other.pool == each.pool)
        if left[each.pool] > smaller:
            found[part] += 1
            left[each.pool] -= each.held
    return np.array(found, dtype=np.int32)


def held(framed: Framed, amounts: Mapping[str, int]) -> dict[str, Held]:
    """By pool, where anything is held; `amounts` are thousandths of units."""
    found = {}
    for name, pool in framed.pools.items():
        units = amounts.get(name, 0) / MILLI
        if units:
            found[name] = Held(pool.site, pool.type, units, units * pool.price, pool.months, pool.rows)
    return found


def factors(
    framed: Framed, kept: Mapping[str, Held], parts: Mapping[str, Mapping[int, Taken]], solution: Solution
) -> dict[str, float]:
    """By pool: what it costs, with what is rented on top, over what its users would pay by their own peaks."""
    alone: dict[str, float] = {}
    for name, roles in parts.items():
        for taken in roles.values():
            pool = None if taken.candidate is None else pool_of(framed.pools, taken.candidate)
            if pool is not None:
                alone[pool.name] = alone.get(pool.name, 0.0) + _alone(
                    framed, framed.offered.company.workloads[name], taken
                )
    tiers, rows = framed.problem.tiers, framed.problem.rows
    found = {}
    for name, each in kept.items():
        bought = sum(
            int(units) * int(price) / PICO
            for row, units, price in zip(tiers.row, solution.units, tiers.price, strict=True)
            if rows.names[int(row)] in each.rows
        )
        if alone.get(name):
            found[name] = (each.usd + bought) / alone[name]
    return found


def _alone(framed: Framed, w: WorkloadFacts, taken: Taken) -> float:
    assert taken.candidate is not None
    terms, units = priced(w, taken.candidate, taken.role, taken.level)
    return charged(framed.offered, framed.pools, taken.candidate, terms, units)


def shared_terms(framed: Framed, w: WorkloadFacts, taken: Taken, shares: Mapping[str, float]) -> dict[str, float]:
    """USD a month by term of one part of a workload, what it shares by its share."""
    assert taken.candidate is not None
    terms, _ = priced(w, taken.candidate, taken.role, taken.level)
    pool = pool_of(framed.pools, taken.candidate)
    factor = shares.get(pool.name) if pool is not None else None
    if factor is None:
        return terms
    rest = without_units(terms, _alone(framed, w, taken))
    return {term: rest[term] + factor * (usd - rest[term]) for term, usd in terms.items()}
