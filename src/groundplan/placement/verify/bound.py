"""The lower bound that dual multipliers prove, recomputed in exact integer arithmetic.

Any multipliers give a true bound (Lagrangian duality), so how they were found need not be trusted. The formula is that
of `problem.Certificate`. Bounds that a branching solver claims are not checked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Certificate, Problem
from groundplan.placement.verify.capacity import site_minimum
from groundplan.placement.verify.exact import SAFE, Numbers, as_python_ints, exact_group_sums, exact_sum, largest


def proven_bound(problem: Problem, certificate: Certificate) -> int | None:
    """The bound, rounded up since every price is an integer; None where the multipliers are malformed."""
    if not _is_well_formed(problem, certificate):
        return None
    exact = _exact_sites(problem) if certificate.method == "knapsack" else frozenset()
    sites, scale = len(problem.sites.names), certificate.scale
    allowed = np.flatnonzero((np.diff(problem.options.rule_start) == 0) & ~_oversized_options(problem))
    option_sites = problem.options.site[allowed]
    full, across = _reduced_costs(problem, certificate)
    gains = _linear_gains(problem.options.part[allowed], option_sites, full[allowed], sites)
    value = exact_sum(certificate.part) + gains[0]
    for row in np.flatnonzero(problem.rows.site < 0):
        value += _row_contribution(problem, certificate, int(row))
    for site in range(sites):
        rows = np.flatnonzero(problem.rows.site == site)
        inner = gains[site + 1] + sum(_row_contribution(problem, certificate, int(row)) for row in rows)
        if site in exact:
            site_options = allowed[option_sites == site]
            multipliers = [int(certificate.row[row]) for row in rows]
            inner = max(inner, site_minimum(problem, rows, site_options, across[site_options], multipliers))
        value += min(0, scale * int(problem.sites.opening[site]) + inner)
    return -(-value // scale)


def _is_well_formed(problem: Problem, certificate: Certificate) -> bool:
    has_right_shape = certificate.part.shape == (len(problem.parts.workload),) and certificate.row.shape == (
        len(problem.rows.names),
    )
    integers = certificate.part.dtype == np.int64 and certificate.row.dtype == np.int64
    return bool(
        has_right_shape
        and integers
        and isinstance(certificate.scale, int)
        and certificate.scale > 0
        and certificate.method in ("linear", "knapsack")
        and (certificate.row >= 0).all()
    )


def _oversized_options(problem: Problem) -> NDArray[np.bool_]:
    """[O] options that alone use more of a row than it can ever hold, except rows to which other options add."""
    options = problem.options
    widest = [int(capacity) for capacity in problem.rows.capacity]
    for row, size, most in zip(problem.tiers.row, problem.tiers.size, problem.tiers.max_units, strict=True):
        widest[row] += int(size) * int(most)
    for row in np.unique(options.row[options.use < 0]):
        widest[row] = SAFE
    limit = np.array([min(each, SAFE) for each in widest], dtype=np.int64)
    found = np.zeros(len(options.part), dtype=np.bool_)
    option = np.repeat(np.arange(len(options.part)), np.diff(options.row_start))
    found[option[options.use > limit[options.row]]] = True
    return found


def _exact_sites(problem: Problem) -> frozenset[int]:
    """Sites with rows of their own for which no units can be bought."""
    widened = set(problem.rows.site[problem.tiers.row].tolist())
    return frozenset(int(site) for site in problem.rows.site if site >= 0 and site not in widened)


def _reduced_costs(problem: Problem, certificate: Certificate) -> tuple[Numbers, Numbers]:
    """[O] scale x cost - u + sum of v x use: over all rows, and over rows across sites only."""
    options = problem.options
    most = int(np.diff(options.row_start).max(initial=0))
    cost = problem.options.terms.sum(axis=1, dtype=np.int64)
    size = (
        certificate.scale * largest(cost)
        + largest(certificate.part)
        + most * largest(certificate.row) * largest(options.use)
    )
    use, weight, part = options.use, certificate.row[options.row], certificate.part
    if size >= SAFE:
        cost, use, weight, part = (
            as_python_ints(cost),
            as_python_ints(use),
            as_python_ints(weight),
            as_python_ints(part),
        )
    full: Numbers = cost * certificate.scale - part[options.part]
    across = full.copy()
    option = np.repeat(np.arange(len(options.part)), np.diff(options.row_start))
    shared = problem.rows.site[options.row] < 0
    np.add.at(full, option, use * weight)
    np.add.at(across, option[shared], (use * weight)[shared])
    return full, across


def _linear_gains(part: Numbers, site: Numbers, reduced: Numbers, sites: int) -> list[int]:
    """[S + 1] for nowhere and each site: the sum over parts of min(0, cheapest option there)."""
    key = part.astype(np.int64) * (sites + 1) + site + 1
    order = np.argsort(key, kind="stable")
    begins = np.flatnonzero(np.diff(key[order], prepend=-1))
    cheapest = np.minimum.reduceat(reduced[order], begins) if len(order) else reduced[:0]
    gain = np.minimum(cheapest, 0)
    return exact_group_sums(gain, key[order][begins] % (sites + 1), sites + 1)


def _row_contribution(problem: Problem, certificate: Certificate, row: int) -> int:
    """The row's term of the bound: minus its multiplier times capacity, and its tiers that are worth buying."""
    multiplier = int(certificate.row[row])
    value = -multiplier * int(problem.rows.capacity[row])
    tiers = problem.tiers
    for tier in np.flatnonzero(tiers.row == row):
        each = certificate.scale * int(tiers.price[tier]) - multiplier * int(tiers.size[tier])
        value += int(tiers.max_units[tier]) * min(0, each)
    return value
