"""The order of a run: prices of capacity, the relaxation, a plan mended from it, columns, dives, neighbourhoods.

Large problems are relaxed over the options that matter at those prices; the bound is taken over all options. What the
relaxation proves impossible is impossible; what the mending does not find is asked of CP-SAT, if it is small enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Certificate, Flags, Ints
from groundplan.placement.solve import certify, core, fixing, subgradient
from groundplan.placement.solve.arrays import Arrays, Floats, subset
from groundplan.placement.solve.columns import Master, Point, Rest, dive, generate
from groundplan.placement.solve.knapsacks import Knapsacks, knapsacks
from groundplan.placement.solve.labels import MOST_LABELS
from groundplan.placement.solve.local_search import Shift
from groundplan.placement.solve.neighbourhoods import Bounds, Pace, Plan, above_least, improve, plan_of, promising
from groundplan.placement.solve.relax import Relaxation, relax
from groundplan.placement.solve.submodel import Effort, cost_of, search
from groundplan.placement.solve.work_limit import Budget

_WHOLE_RELAXED, _MOST_PARTS = 150_000, 2_500
"""options and parts up to which the whole is relaxed at once; beyond, the relaxation begins with the nearest options"""
_NEAR, _NEARER = 12, (3, 12)
_ROUGH, _FINER = 30, 150
_TINY = 700
"""options with which CP-SAT is asked for the whole at once"""
_WHOLE_BELOW = 6_000
"""options with which CP-SAT is asked for the whole"""
_SMALL, _SINGLE = (14.0, 0.5), (34.0, 1.5)
"""parts of a neighbourhood at first, and its deterministic time; the second where every site is a single knapsack"""
_LEAVE = 35
"""parts that a dive leaves to CP-SAT"""
_BATCH = 24
_FIRST_ROUNDS = 6
_DIVES, _DIVES_FIRST = 5, 3
_MOST_EACH, _MOST_SINGLE = 14, 50
"""parts for each site: with more, the relaxation bounds nearly as well; the second where each site is one knapsack"""
_FEW_SITES = 14
"""parts for each site: with more, the core comes before dives"""
_NARROW = 0.001
"""of the bound: with a plan so near there may be one at the bound itself; and how far above it CP-SAT looks"""
_HALVINGS = 6
_GENERATIONS = 400
_SHORT, _QUICK = 2.0, 500
"""with fewer seconds left, no columns are generated, and sites are priced with so many labels"""
_FOR_COLUMNS, _SHARE, _BRANCHING, _SEARCHING = 0.4, 0.2, 0.5, 0.35
"""of the clock that is left: for the columns, for each dive, for HiGHS and for CP-SAT at each core"""


@dataclass(slots=True)
class Run:
    """What is known so far."""

    data: Arrays
    budget: Budget
    certificate: Certificate
    linear: int
    reach: Floats
    """[O] no plan that takes the option costs less, by the multipliers of `linear` and, where `tight`, of knapsacks"""
    pace: Pace
    plan: Plan | None = None
    tight: bool = False
    """few options reach no further than a target a little above the bound"""
    impossible: bool = False

    def take(self, plan: Plan | None) -> None:
        """Keep the better plan."""
        if plan is not None and (self.plan is None or plan.cost < self.plan.cost):
            self.plan = plan

    def prove(self, certificate: Certificate) -> None:
        """Keep the better bound."""
        if certificate.bound > self.certificate.bound:
            self.certificate = certificate

    def price(self, certificate: Certificate, part: Floats, row: Floats) -> None:
        """Keep the better linear multipliers, which options are ruled out by."""
        if certificate.value > self.linear:
            self.linear = certificate.value
            self.reach = self.linear + above_least(self.data, self.data.reduced(part, row))
        self.prove(certificate)

    @property
    def done(self) -> bool:
        """Nothing more can or may be found, or it is near enough."""
        if self.impossible or self.budget.over():
            return True
        if self.plan is None:
            return False
        bound = self.certificate.bound
        return self.plan.cost - bound <= self.budget.limit.gap * max(0, bound)


def place(data: Arrays, budget: Budget, start: Ints | None = None) -> tuple[Plan | None, Certificate, bool]:
    """The best plan found, its bound, and whether it is proven that there is none. `start`: a choice to begin from."""
    nothing = certify.nothing(data.problem)
    pace = Pace(budget.limit.seed, *_SMALL)
    run = Run(data, budget, nothing, nothing.value, above_least(data, data.price), pace)
    if start is not None:
        run.take(plan_of(data, start))
    relaxation = _relaxed(run, _prices(run))
    if relaxation is not None and not run.done:
        run.take(mended(data, relaxation, budget))
    if run.plan is None and not run.impossible:
        run.take(_rough(run))
    if run.plan is None and not run.impossible:
        run.impossible = _whole(run, 20.0) and run.plan is None
    sets = None if run.done else knapsacks(data)
    single = sets is not None and all(sets.plain(site) for site in range(data.sites))
    tiny = len(data.index) <= _TINY
    if single:
        run.pace = Pace(budget.limit.seed, *_SINGLE)
    elif not tiny:
        _search(run, _FIRST_ROUNDS)
    diver = None if sets is None or relaxation is None or run.done else _columns(run, sets, relaxation)
    if tiny and run.plan is not None and not run.done and _whole(run, 1.0):
        return run.plan, run.certificate, False
    few = data.parts > _FEW_SITES * data.sites
    _rounds(run, diver, _DIVES_FIRST if single and not few else 0)
    return run.plan, run.certificate, run.impossible and run.plan is None


def _rounds(run: Run, diver: tuple[Master, Point, np.random.Generator] | None, first: int) -> None:
    """Neighbourhoods until the limit; dives at first or where they stall, and attempts at the whole that grow."""
    work, dives, cores = 6.0, 0, 0
    while not run.done and run.plan is not None:
        stalled = run.pace.idle > _BATCH
        if diver is not None and dives < first + _DIVES and (dives < first or stalled):
            dives += 1
            run.take(_dived(run, *diver))
            run.pace.idle = 0
        elif run.tight and (stalled or not cores):
            _core(run, work)
            work, cores, run.pace.idle = work * 2, cores + 1, 0
        elif stalled:
            if _whole(run, work):
                return
            work, run.pace.idle = work * 2, 0
        else:
            _search(run, _BATCH // 4)


def _core(run: Run, work: float) -> None:
    """A plan at a near bound by HiGHS, then by CP-SAT those at most half of the way to it, while that helps."""
    if run.done or run.plan is None:
        return
    target = run.certificate.bound
    if run.plan.cost - target <= _NARROW * target:
        keep = promising(run.reach, target)
        _weigh(run, core.branched(run.data, keep, target, _effort(run, work, _BRANCHING)), target)
    for _ in range(_HALVINGS):
        if run.done:
            return
        bound, cost = run.certificate.bound, run.plan.cost
        target = bound + min((cost - 1 - bound) // 2, max(1, int(_NARROW * bound)))
        keep = promising(run.reach, target)
        found = core.searched(run.data, keep, run.plan.choice, cost - 1, _effort(run, work, _SEARCHING))
        _weigh(run, found, target)
        if (bound, cost) == (run.certificate.bound, run.plan.cost):
            return


def _effort(run: Run, work: float, share: float = 1.0) -> Effort:
    """As much work as the limit leaves, within a share of the clock."""
    budget = run.budget
    left = work if budget.work is None else min(work, float(budget.work - budget.done))
    seconds = None if budget.clock_left is None else budget.clock_left * share
    return Effort(left, seconds, run.pace.next_seed(), budget.limit.threads)


def _weigh(run: Run, found: core.Found | None, target: int) -> None:
    """Take the plan of a core, and the bound where none is within the target."""
    if found is None:
        return
    run.budget.spend(max(1, round(found.work)))
    run.take(None if found.choice is None else plan_of(run.data, found.choice))
    if found.above and run.plan is not None:
        run.prove(claimed(run.certificate, min(target + 1, run.plan.cost)))


def _prices(run: Run) -> Floats | None:
    """Rough prices of rows that already prove something; None where the whole can be relaxed at once."""
    data, budget = run.data, run.budget
    if len(data.index) <= _WHOLE_RELAXED and data.parts <= _MOST_PARTS:
        return None
    rough = subgradient.row_prices(data, _ROUGH, budget.share(0.15))
    near = subgradient.nearest(data, rough, _NEAR)
    finer = subgradient.row_prices(subset(data, near), _FINER, budget.share(0.2), rough, 0.02)
    best, value = rough, -np.inf
    for prices in (rough, finer):
        part = np.minimum.reduceat(data.reduced(np.zeros(data.parts), prices), data.first[:-1])
        certificate = certify.linear(data, part, prices)
        run.price(certificate, part, prices)
        if certificate.value > value:
            best, value = prices, float(certificate.value)
    return best


def _relaxed(run: Run, prices: Floats | None) -> Relaxation | None:
    """The relaxation; where it was over few options, its multipliers are lowered to hold for all."""
    data, budget = run.data, run.budget
    wider: tuple[Ints | None, ...] = (None,)
    if prices is not None:
        wider = (*(subgradient.nearest(data, prices, each) for each in _NEARER), None)
    for kept in wider:
        # a relaxation that its own clock ended is told from an impossible one by ours, which must be the same clock
        left = None if budget.limit.use_cpu_time else budget.seconds_left
        found = relax(data, kept, seconds=None if left is None else max(0.2, left * 0.7))
        if found is not None:
            part = found.part if kept is None else _lowered(data, found, kept)
            run.price(certify.linear(data, part, found.row), part, found.row)
            return found
        if budget.over(0.3 * (budget.limit.seconds or 0.0)):
            return None
    run.impossible = True
    return None


def _lowered(data: Arrays, relaxation: Relaxation, kept: Ints) -> Floats:
    """Part multipliers at which no option that was left out would be worth taking."""
    outside: Flags = np.ones(len(data.index), dtype=np.bool_)
    outside[kept] = False
    part = relaxation.part.copy()
    priced = data.reduced(np.zeros(data.parts), relaxation.row)
    np.minimum.at(part, data.part[outside], priced[outside])
    return part


def mended(data: Arrays, relaxation: Relaxation, budget: Budget) -> Plan | None:
    """Every part where most of it is in the relaxation, moved until every row holds."""
    reduced = data.reduced(relaxation.part, relaxation.row)
    spread = float(np.abs(data.price).max(initial=1.0)) + 1.0
    start = data.cheapest(-relaxation.share + 1e-9 * (reduced - reduced.min(initial=0.0)) / spread)
    shift = Shift(data, start, reduced)
    if not shift.mend(400 + 4 * data.parts):
        return None
    plan = plan_of(data, shift.choice)
    shift.value = data.price
    shift.polish(10)
    polished = plan_of(data, shift.choice)
    budget.spend()
    return polished if plan is None or (polished is not None and polished.cost < plan.cost) else plan


def _rough(run: Run) -> Plan | None:
    """Without a relaxation: every part where it is cheapest at the best prices known, mended."""
    data = run.data
    shift = Shift(data, data.cheapest(run.reach), run.reach)
    if not shift.mend(2000 + 4 * data.parts):
        return None
    run.budget.spend()
    return plan_of(data, shift.choice)


def _columns(run: Run, sets: Knapsacks, relaxation: Relaxation) -> tuple[Master, Point, np.random.Generator] | None:
    """Generate columns for a bound; returns what dives begin with, or None where columns are of no use."""
    data, budget = run.data, run.budget
    single = all(sets.plain(site) for site in range(data.sites))
    if data.parts > (_MOST_SINGLE if single else _MOST_EACH) * data.sites:
        return None
    left = budget.seconds_left
    widest = _QUICK if left is not None and left < _SHORT else MOST_LABELS
    run.prove(certify.columns(sets, relaxation.part, relaxation.row, widest))
    if run.done or (left is not None and left < _SHORT):
        return None
    master = Master(sets)
    start = Point(-np.inf, relaxation.part, relaxation.row, np.zeros(0))
    everything = Rest(np.arange(data.sites), np.arange(len(data.index)))
    point = generate(master, everything, start, budget.share(_FOR_COLUMNS), _GENERATIONS)
    run.prove(certify.columns(sets, point.part, point.row, MOST_LABELS))
    if single:
        found = fixing.reach(sets, point)
        if found is not None:
            run.reach, run.tight = np.maximum(run.reach, found), True
    return master, point, np.random.Generator(np.random.PCG64(budget.limit.seed))


def _dived(run: Run, master: Master, point: Point, draw: np.random.Generator) -> Plan | None:
    """One dive; what it leaves is placed by CP-SAT, the fixed parts stay."""
    data, budget = run.data, run.budget
    placed, _ = dive(master, point, budget.share(_SHARE), draw, _LEAVE)
    budget.spend()
    fixed = placed >= 0
    free = np.flatnonzero(~fixed)
    if len(free) > 3 * _LEAVE:
        return None
    choice = np.where(fixed, placed, data.first[:-1])
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    limit = None
    if run.plan is not None:
        limit = run.plan.cost - 1 - (plain_cost(data, choice) - cost_of(data, free, choice))
    answer = search(data, free, keep, choice, Effort(2.0, budget.clock_left, budget.limit.seed), limit)
    return None if answer.choice is None else plan_of(data, answer.choice)


def plain_cost(data: Arrays, choice: Ints) -> int:
    """Options and openings, without units bought."""
    return cost_of(data, np.arange(data.parts), choice)


def _search(run: Run, rounds: int) -> None:
    """Neighbourhoods of the present plan."""
    if run.plan is not None and not run.done:
        bounds = Bounds(run.certificate.bound, run.reach)
        run.take(improve(run.data, run.plan, bounds, run.budget, run.pace, rounds))


def _whole(run: Run, work: float) -> bool:
    """CP-SAT over all options that may still matter. True where it was searched through."""
    data, plan, budget = run.data, run.plan, run.budget
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    if plan is not None:
        keep = promising(run.reach, plan.cost)
        keep[plan.choice] = True
    if int(keep.sum()) > _WHOLE_BELOW:
        return False
    answer = search(data, np.arange(data.parts), keep, None if plan is None else plan.choice, _effort(run, work))
    budget.spend(max(1, round(answer.work)))
    run.take(None if answer.choice is None else plan_of(data, answer.choice))
    if answer.bound is not None and run.plan is not None:
        above = answer.bound if plan is None else min(answer.bound, plan.cost)
        run.prove(claimed(run.certificate, min(above, run.plan.cost)))
    return answer.complete


def claimed(certificate: Certificate, bound: int) -> Certificate:
    """The same multipliers beside a larger bound that only branching proves."""
    return Certificate(
        certificate.method, certificate.scale, certificate.part, certificate.row, certificate.value, bound
    )
