"""The lower bound that dual multipliers prove, recomputed in exact integer arithmetic.

For any multipliers whatever the result is a true bound (Lagrangian duality), so nothing of how they were found needs
to be trusted. The formula stands at `problem.Certificate`. Does not judge bounds that a branching solver claims.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Certificate, Ints, Problem
from groundplan.placement.verify.exact import SAFE, Numbers, largest, total, totals, wide

LARGEST_TABLE = 60_000
"""Sites with a larger capacity than this are bounded by their multiplier instead of an exact knapsack."""


def proven_bound(problem: Problem, certificate: Certificate) -> int | None:
    """The bound, rounded up since every price is an integer; None where the multipliers are malformed."""
    if not _well_formed(problem, certificate):
        return None
    tables = _tables(problem) if certificate.method == "knapsack" else frozenset()
    sites = len(problem.sites.names)
    allowed = np.flatnonzero((np.diff(problem.options.rule_start) == 0) & ~_never(problem))
    reduced = _reduced(problem, certificate, tables)[allowed]
    own = problem.options.site[allowed]
    exact = np.isin(own, np.array(sorted(tables), dtype=np.int64))
    gains = _linear_gains(problem.options.part[allowed], own, reduced, sites)
    scale = certificate.scale
    value = total(certificate.part) + gains[0]
    for row in np.flatnonzero(problem.rows.site < 0):
        value += _row_value(problem, certificate, int(row))
    for site in range(sites):
        if site in tables:
            mine = exact & (own == site)
            inner = _knapsack(problem, site, allowed[mine], reduced[mine])
        else:
            rows = np.flatnonzero(problem.rows.site == site)
            inner = gains[site + 1] + sum(_row_value(problem, certificate, int(row)) for row in rows)
        value += min(0, scale * int(problem.sites.opening[site]) + inner)
    return -(-value // scale)


def _well_formed(problem: Problem, certificate: Certificate) -> bool:
    right = certificate.part.shape == (len(problem.parts.workload),) and certificate.row.shape == (
        len(problem.rows.names),
    )
    integers = certificate.part.dtype == np.int64 and certificate.row.dtype == np.int64
    return bool(
        right
        and integers
        and isinstance(certificate.scale, int)
        and certificate.scale > 0
        and certificate.method in ("linear", "knapsack")
        and (certificate.row >= 0).all()
    )


def _never(problem: Problem) -> NDArray[np.bool_]:
    """[O] options that alone use more of a row than it can ever hold; not where other options may give to the row."""
    options = problem.options
    widest = [int(capacity) for capacity in problem.rows.capacity]
    for row, size, most in zip(problem.tiers.row, problem.tiers.size, problem.tiers.most, strict=True):
        widest[row] += int(size) * int(most)
    for row in np.unique(options.row[options.use < 0]):
        widest[row] = SAFE
    limit = np.array([min(each, SAFE) for each in widest], dtype=np.int64)
    found = np.zeros(len(options.part), dtype=np.bool_)
    option = np.repeat(np.arange(len(options.part)), np.diff(options.row_start))
    found[option[options.use > limit[options.row]]] = True
    return found


def _tables(problem: Problem) -> frozenset[int]:
    """Sites with exactly one row of their own, nothing to buy for it, and a capacity that a table can hold."""
    rows = problem.rows.site
    counts = np.bincount(rows[rows >= 0], minlength=len(problem.sites.names))
    small = (problem.rows.capacity <= LARGEST_TABLE) & (rows >= 0)
    small[problem.tiers.row] = False
    return frozenset(int(site) for site in rows[small] if counts[site] == 1)


def _reduced(problem: Problem, certificate: Certificate, tables: frozenset[int]) -> Numbers:
    """[O] scale x cost - u + sum of v x use, leaving out the row of a site that gets a table."""
    options = problem.options
    multiplier = certificate.row.copy()
    for site in tables:
        multiplier[problem.rows.site == site] = 0
    most = int(np.diff(options.row_start).max(initial=0))
    cost = problem.options.terms.sum(axis=1, dtype=np.int64)
    size = (
        certificate.scale * largest(cost)
        + largest(certificate.part)
        + most * largest(multiplier) * largest(options.use)
    )
    use, weight, part = options.use, multiplier[options.row], certificate.part
    if size >= SAFE:
        cost, use, weight, part = wide(cost), wide(use), wide(weight), wide(part)
    reduced: Numbers = cost * certificate.scale - part[options.part]
    option = np.repeat(np.arange(len(options.part)), np.diff(options.row_start))
    np.add.at(reduced, option, use * weight)
    return reduced


def _linear_gains(part: Numbers, site: Numbers, reduced: Numbers, sites: int) -> list[int]:
    """[S + 1] for nowhere and each site: the sum over parts of min(0, cheapest option there)."""
    key = part.astype(np.int64) * (sites + 1) + site + 1
    order = np.argsort(key, kind="stable")
    begins = np.flatnonzero(np.diff(key[order], prepend=-1))
    cheapest = np.minimum.reduceat(reduced[order], begins) if len(order) else reduced[:0]
    gain = np.minimum(cheapest, 0)
    return totals(gain, key[order][begins] % (sites + 1), sites + 1)


def _row_value(problem: Problem, certificate: Certificate, row: int) -> int:
    """What the multiplier of a row gives back: its capacity, and what could be bought for less than it says."""
    multiplier = int(certificate.row[row])
    value = -multiplier * int(problem.rows.capacity[row])
    tiers = problem.tiers
    for tier in np.flatnonzero(tiers.row == row):
        each = certificate.scale * int(tiers.price[tier]) - multiplier * int(tiers.size[tier])
        value += int(tiers.most[tier]) * min(0, each)
    return value


def _knapsack(problem: Problem, site: int, options: Ints, reduced: Numbers) -> int:
    """The least that parts can pay at a site whose one row holds them: at most one option each, by a full table."""
    row = int(np.flatnonzero(problem.rows.site == site)[0])
    capacity = int(problem.rows.capacity[row])
    best = np.zeros(capacity + 1, dtype=reduced.dtype)
    if reduced.dtype != object and len(reduced) * largest(reduced) >= SAFE:
        best, reduced = wide(best), wide(reduced)
    use = _uses(problem, options, row)
    part = problem.options.part[options]
    useful = (reduced < 0) & (use <= capacity)
    groups: dict[int, list[tuple[int, int]]] = {}
    for each, amount, value in zip(part[useful], use[useful], reduced[useful], strict=True):
        groups.setdefault(int(each), []).append((int(amount), int(value)))
    for choices in groups.values():
        before = best.copy()
        for amount, value in choices:
            np.minimum(best[amount:], before[: capacity + 1 - amount] + value, out=best[amount:])
    return int(best[capacity])


def _uses(problem: Problem, options: Ints, row: int) -> Ints:
    """What each option uses of one row, 0 where it uses none."""
    starts = problem.options.row_start
    found = np.zeros(len(options), dtype=np.int64)
    for index, option in enumerate(options):
        begin, end = int(starts[option]), int(starts[option + 1])
        for at in range(begin, end):
            if problem.options.row[at] == row:
                found[index] = problem.options.use[at]
    return found
