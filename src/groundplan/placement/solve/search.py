"""The order of a run: row prices, the relaxation, a plan rounded from it, columns, dives, neighbourhoods.

Large problems are relaxed over the options that are cheap at the row prices; the bound is taken over all options. A
problem whose relaxation is infeasible is infeasible; where rounding finds no plan, CP-SAT searches for one if the
problem is small enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Certificate, Flags, Ints
from groundplan.placement.solve import certify, core, fixing, subgradient
from groundplan.placement.solve.arrays import Arrays, Floats, subset
from groundplan.placement.solve.columns import GenerationState, MasterProblem, Unfixed, dive, generate_columns
from groundplan.placement.solve.knapsacks import Knapsacks, build_knapsacks
from groundplan.placement.solve.labels import MAX_LABELS
from groundplan.placement.solve.local_search import LocalSearch
from groundplan.placement.solve.neighbourhoods import (
    NeighbourhoodTuner,
    Plan,
    ProvenBounds,
    bound_increase,
    build_plan,
    improve_plan,
    usable_options,
)
from groundplan.placement.solve.relax import Relaxation, relax
from groundplan.placement.solve.submodel import Effort, neighbourhood_cost, solve_submodel
from groundplan.placement.solve.work_limit import WorkBudget

_RELAX_ALL_OPTIONS, _RELAX_ALL_PARTS = 150_000, 2_500
"""options and parts up to which all options are relaxed at once; else the relaxation starts with the cheapest ones"""
_OPTIONS_PRICED, _OPTIONS_RELAXED = 12, (3, 12)
_ROUGH_STEPS, _FINE_STEPS = 30, 150
_TINY_PROBLEM = 700
"""options up to which CP-SAT searches all options before any neighbourhood"""
_MAX_CP_SAT_OPTIONS = 6_000
"""options up to which CP-SAT searches all options at all"""
_PACE, _PACE_SINGLE_ROW = (14.0, 0.5), (34.0, 1.5)
"""parts and deterministic time of the first neighbourhood; the second for single-row knapsacks"""
_DIVE_LEAVES = 35
"""parts that a dive leaves to CP-SAT"""
_PATIENCE = 24
_FIRST_ROUNDS = 6
_STALLED_DIVES, _FIRST_DIVES = 5, 3
_MAX_PARTS_PER_SITE, _MAX_PARTS_PER_SINGLE_ROW_SITE = 14, 50
"""parts per site up to which columns are generated: with more, the relaxation bounds nearly as well; the second where
every site is a single-row knapsack"""
_FEW_SITES = 14
"""parts per site: with more, the core comes before dives"""
_CORE_GAP = 0.001
"""a fraction of the bound: with a plan this close, HiGHS seeks one at the bound itself; CP-SAT looks this far above"""
_HALVINGS = 6
_GENERATION_ROUNDS = 400
_SHORT_SECONDS, _QUICK_LABELS = 2.0, 500
"""with fewer seconds left, no columns are generated, and sites are priced with this many labels"""
_CLOCK_FOR_COLUMNS, _CLOCK_PER_DIVE, _CLOCK_FOR_BRANCHING, _CLOCK_FOR_CP_SAT = 0.4, 0.2, 0.5, 0.35
"""fractions of the remaining time: for the columns, for each dive, for HiGHS and for CP-SAT at each core"""


@dataclass(slots=True)
class SearchState:
    """The best plan and the best bounds found so far."""

    data: Arrays
    budget: WorkBudget
    certificate: Certificate
    linear_bound: int
    option_bounds: Floats
    """[O] no plan that takes the option costs less, by the multipliers of `linear_bound` and, where
    `has_tight_bounds`, by those of the knapsacks"""
    tuner: NeighbourhoodTuner
    plan: Plan | None = None
    has_tight_bounds: bool = False
    """`option_bounds` are tight: only few are at most a target a little above the bound"""
    is_infeasible: bool = False

    def offer_plan(self, plan: Plan | None) -> None:
        """Keep this plan if it is cheaper than the best one."""
        if plan is not None and (self.plan is None or plan.cost < self.plan.cost):
            self.plan = plan

    def raise_bound(self, certificate: Certificate) -> None:
        """Keep this certificate if its bound is higher."""
        if certificate.bound > self.certificate.bound:
            self.certificate = certificate

    def apply_multipliers(self, certificate: Certificate, part: Floats, row: Floats) -> None:
        """Keep these linear multipliers if they bound better; options are ruled out by them."""
        if certificate.value > self.linear_bound:
            self.linear_bound = certificate.value
            self.option_bounds = self.linear_bound + bound_increase(self.data, self.data.reduced_costs(part, row))
        self.raise_bound(certificate)

    @property
    def is_done(self) -> bool:
        """Whether to stop: infeasible, out of work or time, or within the gap that the limit allows."""
        if self.is_infeasible or self.budget.is_exhausted():
            return True
        if self.plan is None:
            return False
        bound = self.certificate.bound
        return self.plan.cost - bound <= self.budget.limit.gap * max(0, bound)


def find_plan(data: Arrays, budget: WorkBudget, start: Ints | None = None) -> tuple[Plan | None, Certificate, bool]:
    """The best plan found, its certificate, and whether infeasibility is proven. `start`: a choice to begin from."""
    trivial = certify.trivial_certificate(data.problem)
    tuner = NeighbourhoodTuner(budget.limit.seed, *_PACE)
    state = SearchState(data, budget, trivial, trivial.value, bound_increase(data, data.price), tuner)
    if start is not None:
        state.offer_plan(build_plan(data, start))
    relaxation = _solve_relaxation(state, _initial_row_prices(state))
    if relaxation is not None and not state.is_done:
        state.offer_plan(round_relaxation(data, relaxation, budget))
    if state.plan is None and not state.is_infeasible:
        state.offer_plan(_greedy_plan(state))
    if state.plan is None and not state.is_infeasible:
        state.is_infeasible = _search_all_options(state, 20.0) and state.plan is None
    sets = None if state.is_done else build_knapsacks(data)
    has_single_rows = sets is not None and all(sets.can_use_table(site) for site in range(data.site_count))
    is_tiny = len(data.index) <= _TINY_PROBLEM
    if has_single_rows:
        state.tuner = NeighbourhoodTuner(budget.limit.seed, *_PACE_SINGLE_ROW)
    elif not is_tiny:
        _search_neighbourhoods(state, _FIRST_ROUNDS)
    dive_start = (
        None if sets is None or relaxation is None or state.is_done else _generate_columns(state, sets, relaxation)
    )
    if is_tiny and state.plan is not None and not state.is_done and _search_all_options(state, 1.0):
        return state.plan, state.certificate, False
    has_many_parts_per_site = data.part_count > _FEW_SITES * data.site_count
    _search_until_limit(state, dive_start, _FIRST_DIVES if has_single_rows and not has_many_parts_per_site else 0)
    return state.plan, state.certificate, state.is_infeasible and state.plan is None


def _search_until_limit(
    state: SearchState, dive_start: tuple[MasterProblem, GenerationState, np.random.Generator] | None, first: int
) -> None:
    """Search neighbourhoods until the limit. Dives come first and where they stall; then ever longer searches of the
    core or of all options."""
    work, dives, cores = 6.0, 0, 0
    while not state.is_done and state.plan is not None:
        stalled = state.tuner.rounds_without_gain > _PATIENCE
        if dive_start is not None and dives < first + _STALLED_DIVES and (dives < first or stalled):
            dives += 1
            state.offer_plan(_dive_for_plan(state, *dive_start))
            state.tuner.rounds_without_gain = 0
        elif state.has_tight_bounds and (stalled or not cores):
            _search_core(state, work)
            work, cores, state.tuner.rounds_without_gain = work * 2, cores + 1, 0
        elif stalled:
            if _search_all_options(state, work):
                return
            work, state.tuner.rounds_without_gain = work * 2, 0
        else:
            _search_neighbourhoods(state, _PATIENCE // 4)


def _search_core(state: SearchState, work: float) -> None:
    """Seek a plan at the bound by HiGHS if it is close, then by CP-SAT plans halfway to it, while that helps."""
    if state.is_done or state.plan is None:
        return
    target = state.certificate.bound
    if state.plan.cost - target <= _CORE_GAP * target:
        keep = usable_options(state.option_bounds, target)
        _record_core_result(
            state, core.branch_core(state.data, keep, target, _effort(state, work, _CLOCK_FOR_BRANCHING)), target
        )
    for _ in range(_HALVINGS):
        if state.is_done:
            return
        bound, cost = state.certificate.bound, state.plan.cost
        target = bound + min((cost - 1 - bound) // 2, max(1, int(_CORE_GAP * bound)))
        keep = usable_options(state.option_bounds, target)
        found = core.search_core(state.data, keep, state.plan.choice, cost - 1, _effort(state, work, _CLOCK_FOR_CP_SAT))
        _record_core_result(state, found, target)
        if (bound, cost) == (state.certificate.bound, state.plan.cost):
            return


def _effort(state: SearchState, work: float, share: float = 1.0) -> Effort:
    """At most `work`, within what the limit leaves and within a share of the remaining time."""
    budget = state.budget
    work_left = work if budget.max_work is None else min(work, float(budget.max_work - budget.work_done))
    seconds = None if budget.wall_seconds_left is None else budget.wall_seconds_left * share
    return Effort(work_left, seconds, state.tuner.next_seed(), budget.limit.threads)


def _record_core_result(state: SearchState, found: core.CoreResult | None, target: int) -> None:
    """Keep the plan found in a core; where no plan is within the target, the bound is above it."""
    if found is None:
        return
    state.budget.record_work(max(1, round(found.work)))
    state.offer_plan(None if found.choice is None else build_plan(state.data, found.choice))
    if found.is_target_unreachable and state.plan is not None:
        state.raise_bound(with_claimed_bound(state.certificate, min(target + 1, state.plan.cost)))


def _initial_row_prices(state: SearchState) -> Floats | None:
    """Approximate row prices, which already prove a bound; None where all options can be relaxed at once."""
    data, budget = state.data, state.budget
    if len(data.index) <= _RELAX_ALL_OPTIONS and data.part_count <= _RELAX_ALL_PARTS:
        return None
    rough = subgradient.row_prices(data, _ROUGH_STEPS, budget.step_budget(0.15))
    lowest_per_part = subgradient.cheapest_per_part(data, rough, _OPTIONS_PRICED)
    finer = subgradient.row_prices(subset(data, lowest_per_part), _FINE_STEPS, budget.step_budget(0.2), rough, 0.02)
    best, value = rough, -np.inf
    for prices in (rough, finer):
        part = np.minimum.reduceat(data.reduced_costs(np.zeros(data.part_count), prices), data.part_start[:-1])
        certificate = certify.linear_certificate(data, part, prices)
        state.apply_multipliers(certificate, part, prices)
        if certificate.value > value:
            best, value = prices, float(certificate.value)
    return best


def _solve_relaxation(state: SearchState, prices: Floats | None) -> Relaxation | None:
    """Solve the relaxation; if it was over few options, its part multipliers are lowered so that they hold for all."""
    data, budget = state.data, state.budget
    option_sets: tuple[Ints | None, ...] = (None,)
    if prices is not None:
        option_sets = (*(subgradient.cheapest_per_part(data, prices, each) for each in _OPTIONS_RELAXED), None)
    for option_set in option_sets:
        # a relaxation that ran out of time is told from an infeasible one by our clock, which must be the same clock
        seconds_left = None if budget.limit.use_cpu_time else budget.seconds_left
        found = relax(data, option_set, seconds=None if seconds_left is None else max(0.2, seconds_left * 0.7))
        if found is not None:
            part = found.part if option_set is None else _lower_part_multipliers(data, found, option_set)
            state.apply_multipliers(certify.linear_certificate(data, part, found.row), part, found.row)
            return found
        if budget.is_exhausted(0.3 * (budget.limit.seconds or 0.0)):
            return None
    state.is_infeasible = True
    return None


def _lower_part_multipliers(data: Arrays, relaxation: Relaxation, kept: Ints) -> Floats:
    """[P] multipliers at which no option that was left out has a negative reduced cost."""
    outside: Flags = np.ones(len(data.index), dtype=np.bool_)
    outside[kept] = False
    part = relaxation.part.copy()
    priced = data.reduced_costs(np.zeros(data.part_count), relaxation.row)
    np.minimum.at(part, data.part[outside], priced[outside])
    return part


def round_relaxation(data: Arrays, relaxation: Relaxation, budget: WorkBudget) -> Plan | None:
    """Place every part where the relaxation puts most of it, then move parts until every row holds."""
    reduced = data.reduced_costs(relaxation.part, relaxation.row)
    spread = float(np.abs(data.price).max(initial=1.0)) + 1.0
    start = data.cheapest_options(-relaxation.share + 1e-9 * (reduced - reduced.min(initial=0.0)) / spread)
    local_search = LocalSearch(data, start, reduced)
    if not local_search.repair(400 + 4 * data.part_count):
        return None
    plan = build_plan(data, local_search.choice)
    local_search.value = data.price
    local_search.polish(10)
    polished = build_plan(data, local_search.choice)
    budget.record_work()
    return polished if plan is None or (polished is not None and polished.cost < plan.cost) else plan


def _greedy_plan(state: SearchState) -> Plan | None:
    """Without a relaxation: place every part where its bound is lowest, then move parts until every row holds."""
    data = state.data
    local_search = LocalSearch(data, data.cheapest_options(state.option_bounds), state.option_bounds)
    if not local_search.repair(2000 + 4 * data.part_count):
        return None
    state.budget.record_work()
    return build_plan(data, local_search.choice)


def _generate_columns(
    state: SearchState, sets: Knapsacks, relaxation: Relaxation
) -> tuple[MasterProblem, GenerationState, np.random.Generator] | None:
    """Generate columns for a bound; returns what dives start from, or None where columns are of no use."""
    data, budget = state.data, state.budget
    has_single_rows = all(sets.can_use_table(site) for site in range(data.site_count))
    if data.part_count > (_MAX_PARTS_PER_SINGLE_ROW_SITE if has_single_rows else _MAX_PARTS_PER_SITE) * data.site_count:
        return None
    seconds_left = budget.seconds_left
    max_labels = _QUICK_LABELS if seconds_left is not None and seconds_left < _SHORT_SECONDS else MAX_LABELS
    state.raise_bound(certify.knapsack_certificate(sets, relaxation.part, relaxation.row, max_labels))
    if state.is_done or (seconds_left is not None and seconds_left < _SHORT_SECONDS):
        return None
    master = MasterProblem(sets)
    start = GenerationState(-np.inf, relaxation.part, relaxation.row, np.zeros(0))
    everything = Unfixed(np.arange(data.site_count), np.arange(len(data.index)))
    generation = generate_columns(master, everything, start, budget.step_budget(_CLOCK_FOR_COLUMNS), _GENERATION_ROUNDS)
    state.raise_bound(certify.knapsack_certificate(sets, generation.part, generation.row, MAX_LABELS))
    if has_single_rows:
        found = fixing.option_bounds(sets, generation)
        if found is not None:
            state.option_bounds, state.has_tight_bounds = np.maximum(state.option_bounds, found), True
    return master, generation, np.random.Generator(np.random.PCG64(budget.limit.seed))


def _dive_for_plan(
    state: SearchState, master: MasterProblem, generation: GenerationState, rng: np.random.Generator
) -> Plan | None:
    """One dive; CP-SAT places the parts that it leaves, the fixed parts stay."""
    data, budget = state.data, state.budget
    placed, _ = dive(master, generation, budget.step_budget(_CLOCK_PER_DIVE), rng, _DIVE_LEAVES)
    budget.record_work()
    fixed = placed >= 0
    free = np.flatnonzero(~fixed)
    if len(free) > 3 * _DIVE_LEAVES:
        return None
    choice = np.where(fixed, placed, data.part_start[:-1])
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    limit = None
    if state.plan is not None:
        limit = state.plan.cost - 1 - (cost_without_units(data, choice) - neighbourhood_cost(data, free, choice))
    answer = solve_submodel(data, free, keep, choice, Effort(2.0, budget.wall_seconds_left, budget.limit.seed), limit)
    return None if answer.choice is None else build_plan(data, answer.choice)


def cost_without_units(data: Arrays, choice: Ints) -> int:
    """The cost of options and openings, without units bought."""
    return neighbourhood_cost(data, np.arange(data.part_count), choice)


def _search_neighbourhoods(state: SearchState, rounds: int) -> None:
    """Search neighbourhoods of the best plan."""
    if state.plan is not None and not state.is_done:
        bounds = ProvenBounds(state.certificate.bound, state.option_bounds)
        state.offer_plan(improve_plan(state.data, state.plan, bounds, state.budget, state.tuner, rounds))


def _search_all_options(state: SearchState, work: float) -> bool:
    """Search all options that a better plan may use by CP-SAT. True where the search was complete."""
    data, plan, budget = state.data, state.plan, state.budget
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    if plan is not None:
        keep = usable_options(state.option_bounds, plan.cost)
        keep[plan.choice] = True
    if int(keep.sum()) > _MAX_CP_SAT_OPTIONS:
        return False
    answer = solve_submodel(
        data, np.arange(data.part_count), keep, None if plan is None else plan.choice, _effort(state, work)
    )
    budget.record_work(max(1, round(answer.work)))
    state.offer_plan(None if answer.choice is None else build_plan(data, answer.choice))
    if answer.bound is not None and state.plan is not None:
        above = answer.bound if plan is None else min(answer.bound, plan.cost)
        state.raise_bound(with_claimed_bound(state.certificate, min(above, state.plan.cost)))
    return answer.complete


def with_claimed_bound(certificate: Certificate, bound: int) -> Certificate:
    """The same multipliers with a larger bound that only branching proves."""
    return Certificate(
        certificate.method, certificate.scale, certificate.part, certificate.row, certificate.value, bound
    )
