"""The optimisation problem of placement and its solution, as frozen arrays for solver, verifier and explanations.

Every workload has one or more *parts* (its base load or slices of it, what bursts above it, its fallback); every part
takes exactly one *option*: a site with a serving configuration, at a price by term. Options use *rows*: a site's
capacity in one resource, a quota over many sites, a spread rule, or what ties the parts of one workload together.
A row may be widened by buying *tiers* (nodes, reserved terms, on-demand units). A site that anything uses is opened
and costs its opening price. All amounts are integers: money in picodollars a month (or any other unit, for published
instances), resources in whatever small unit their filler chooses.

    minimise    sum of chosen options' costs + bought units x price + opened sites' opening
    such that   every part takes one allowed option; for every row: uses <= capacity (0 if its site is closed) + bought

This module contains types and their checks only; it does not depend on the catalog or a solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from groundplan.core.errors import Invalid

Ints = NDArray[np.int64]
Indices = NDArray[np.int32]
Flags = NDArray[np.bool_]

PRIMARY, BURST, FALLBACK, POOL = 0, 1, 2, 3
"""Of `Parts.role`."""

TERMS = ("compute", "tokens", "egress", "storage", "people", "carbon", "idle", "penalty", "move")
"""Cost terms of an option. `penalty` is a weighted soft wish; `move` is a move's price over its payback time."""

RowKind = Literal["capacity", "quota", "spread", "apart", "burst", "budget", "availability", "pool"]

MAX_NUMBER = 2**61
"""No single number of a problem may be larger: picodollars up to 2.3 million USD a month for one option."""


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """The S sites."""

    names: tuple[str, ...]
    domain: Indices
    """[S] failure domain: a fallback is in another one than what it stands in for"""
    opening: Ints
    """[S] cost a month once anything runs there; 0 where the site is open anyway"""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The P parts; those of one workload are consecutive."""

    workload: Indices
    """[P] index into `Problem.workloads`, ascending"""
    role: NDArray[np.int8]
    """[P] PRIMARY (one, or one per slice), BURST or FALLBACK; POOL: how much is held for all, at no site"""
    current: Indices
    """[P] site where it runs today, -1 where it is new"""


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """The O options, in ascending order of their parts."""

    part: Indices
    """[O]"""
    site: Indices
    """[O] -1: nowhere, which only a burst part of level 0 may be, and a fallback where an `availability` row says what
    its workload needs; POOL parts are nowhere and give to rows of kind `pool`"""
    config: tuple[str, ...]
    """[O] or empty: the serving configuration, or the deployment, in the filler's words"""
    level: NDArray[np.int8]
    """[O] burst level: primary and burst part of a workload take the same one; 0 leaves nothing to burst"""
    terms: Ints
    """[O, len(Problem.terms)] the cost by term"""
    row_start: Ints
    """[O + 1] where the rows of an option begin in `row` and `use`"""
    row: Indices
    """[N] rows used, each once per option"""
    use: Ints
    """[N] how much of it"""
    rule_start: Ints
    """[O + 1] where the rules that exclude an option begin in `rule`"""
    rule: Indices
    """[M] index into `Problem.rules`; an option with any is not allowed"""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The R rows."""

    names: tuple[str, ...]
    kind: tuple[RowKind, ...]
    site: Indices
    """[R] the site whose capacity it is, whose options alone may use it; -1: across sites"""
    capacity: Ints
    """[R]"""


@dataclass(frozen=True, slots=True, eq=False)
class Tiers:
    """The T ways to widen a row by whole units: a commitment, an on-demand node, a reserved term."""

    names: tuple[str, ...]
    row: Indices
    size: Ints
    """[T] what one unit adds to the row, positive"""
    price: Ints
    """[T] of one unit"""
    max_units: Ints
    """[T] units that can be bought"""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One company's placement, ready to solve."""

    workloads: tuple[str, ...]
    sites: Sites
    parts: Parts
    options: Options
    rows: Rows
    tiers: Tiers
    rules: tuple[str, ...] = ()
    """Hard rules that exclude options, one per workload and rule: `finance: residency EU`"""
    terms: tuple[str, ...] = TERMS

    @property
    def cost(self) -> Ints:
        """[O] the total cost of each option."""
        total: Ints = self.options.terms.sum(axis=1, dtype=np.int64)
        return total

    @property
    def allowed(self) -> Flags:
        """[O] options that no rule excludes."""
        free: Flags = np.diff(self.options.rule_start) == 0
        return free

    @property
    def part_start(self) -> Ints:
        """[P + 1] where the options of each part begin."""
        return np.searchsorted(self.options.part, np.arange(len(self.parts.workload) + 1)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class WorkLimit:
    """When the solver stops. With a limit by clock results differ between runs; with `work` (its own units) not."""

    seconds: float | None = None
    work: int | None = None
    gap: float = 0.0
    """Stop at this proven gap, a fraction"""
    seed: int = 0
    threads: int = 1
    use_cpu_time: bool = False
    """`seconds` are CPU seconds of this process over all threads, so that other load does not matter"""


DEFAULT_WORK = 200


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """Dual multipliers from which the lower bound can be recomputed in exact arithmetic.

    With u = part / scale (free) and v = row / scale (not negative), for every site s

        site(s) = min(0, opening + sum over rows of s [ -v capacity + sum over tiers most min(0, price - v size) ]
                          + sum over parts min(0, min over allowed options at s of cost - u + v use))

    (allowed options that alone exceed what a row can hold even when widened are left out, they can never be taken)
    the bound is sum u - sum over rows across sites [v capacity - tiers] + sum site(s) + options that are nowhere, as
    a site without rows and opening. `method` "knapsack": at sites for whose rows nothing can be bought, what stands
    after the opening is replaced by the exact least of cost - u + v use (v of rows across sites only) over sets of
    options, at most one for each part, that the site's rows hold; wherever that can be found by a table or a short
    search, and is larger.
    "claimed": a branching solver says so; nothing can be recomputed but the multipliers' own, smaller bound.
    """

    method: Literal["linear", "knapsack"]
    scale: int
    part: Ints
    """[P]"""
    row: Ints
    """[R]"""
    value: int
    """The bound that the multipliers prove, rounded up to an integer"""
    claimed: int | None = None
    """A larger bound that only branching proves"""

    @property
    def bound(self) -> int:
        """The best lower bound, proven or claimed."""
        return self.value if self.claimed is None else max(self.value, self.claimed)

    @property
    def proof(self) -> str:
        """`dual multipliers`, or `solver-claimed`."""
        return "solver-claimed" if self.claimed is not None and self.claimed > self.value else "dual multipliers"


Stop = Literal["optimal", "gap", "work", "clock", "infeasible"]


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The solver's result. `choice` is empty where no placement was found."""

    choice: Indices
    """[P] the option taken by each part"""
    units: Ints
    """[T] units bought of each tier"""
    cost: int
    certificate: Certificate
    stop_reason: Stop
    """`clock`: another run may have another result; `infeasible`: there is no placement, see `conflict`"""
    work: int
    """units of work done, the same on every machine"""

    @property
    def bound(self) -> int:
        """A lower bound of the cost of any placement."""
        return self.certificate.bound

    @property
    def is_found(self) -> bool:
        """False where there is no placement, or none was found in time."""
        return len(self.choice) > 0

    @property
    def gap(self) -> Fraction | None:
        """(cost - bound) / bound, the most that a better placement could save relative to the bound; None: unknown."""
        if not self.is_found:
            return None
        if self.cost == self.bound:
            return Fraction(0)
        return Fraction(self.cost - self.bound, self.bound) if self.bound > 0 else None


def validate(problem: Problem) -> Problem:
    """The problem itself if it is well-formed; raises `Invalid` (`placement_problem`) that names the fault."""
    for wrong, what in _find_faults(problem):
        if wrong:
            raise Invalid(
                f"the placement problem is malformed: {what}",
                code="placement_problem",
                hint="Check the numbers of sites and workloads: no price, capacity or use may be negative or absurd.",
            )
    return problem


def _find_faults(problem: Problem) -> list[tuple[bool, str]]:
    options, parts, rows, tiers = problem.options, problem.parts, problem.rows, problem.tiers
    count, sites = len(options.part), len(problem.sites.names)
    return [
        (_is_out_of_range(options.part, 0, len(parts.workload)), "an option names a part that is not there"),
        (bool((np.diff(options.part) < 0).any()), "options are not in the order of parts"),
        (bool((np.diff(parts.workload) < 0).any()), "parts are not in the order of workloads"),
        (_is_out_of_range(options.site, -1, sites), "an option names a site that is not there"),
        (_is_out_of_range(options.row, 0, len(rows.names)), "an option uses a row that is not there"),
        (_is_out_of_range(options.rule, 0, len(problem.rules)), "an option names a rule that is not there"),
        (len(options.row_start) != count + 1 or len(options.rule_start) != count + 1, "row or rule starts are short"),
        (options.terms.shape != (count, len(problem.terms)), "costs have another number of terms"),
        (
            _is_too_large(problem.sites.opening, tiers.price) or _is_too_expensive(options.terms),
            "a cost is beyond 2.3 million USD a month",
        ),
        (_is_too_large(options.use, rows.capacity, tiers.size), "an amount is too large"),
        (bool((problem.sites.opening < 0).any() or (tiers.price < 0).any()), "an opening or tier price is negative"),
        (bool((tiers.size <= 0).any() or (tiers.max_units < 0).any()), "a tier adds nothing"),
        (_uses_foreign_capacity(problem), "an option uses the capacity of another site"),
        (_has_negative_capacity(problem), "a site has a negative capacity, or an option a negative use of it"),
    ]


def _is_out_of_range(values: Indices, low: int, high: int) -> bool:
    return bool(len(values) and (values.min() < low or values.max() >= high))


def _is_too_large(*arrays: Ints) -> bool:
    return any(len(array) and max(int(array.max()), -int(array.min())) > MAX_NUMBER for array in arrays)


def _is_too_expensive(terms: Ints) -> bool:
    return bool(len(terms) and np.abs(terms.astype(np.float64)).sum(axis=1).max() > MAX_NUMBER)


def _sites_of_uses(problem: Problem) -> tuple[Indices, Indices]:
    """(site of the option, site of the row) for every use of a row."""
    options = problem.options
    option = np.repeat(np.arange(len(options.part)), np.diff(options.row_start))
    return options.site[option], problem.rows.site[options.row]


def _uses_foreign_capacity(problem: Problem) -> bool:
    option_site, row_site = _sites_of_uses(problem)
    return bool(((row_site >= 0) & (option_site != row_site)).any())


def _has_negative_capacity(problem: Problem) -> bool:
    _, row_site = _sites_of_uses(problem)
    rows = problem.rows
    return bool(((rows.site >= 0) & (rows.capacity < 0)).any() or ((row_site >= 0) & (problem.options.use < 0)).any())
