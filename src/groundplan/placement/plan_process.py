"""Run functions on the plan of a company: in this process for small companies, else in a separate planning process.

Plans are cached, so that the same facts are planned once. Functions return plain values, since these cross processes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, TypeVarTuple

from groundplan.placement.planner import CompanyPlan, plan_company
from groundplan.placement.terms.facts import Company
from groundplan.runtime.compute_process import ComputeProcess

_Answer = TypeVar("_Answer")
_Arguments = TypeVarTuple("_Arguments")

_MAX_PLANS, _MAX_CANDIDATES = 8, 200_000
"""Most cached plans, and most candidates in them besides the newest: each candidate takes a kilobyte of memory."""
_plans: OrderedDict[bytes, CompanyPlan] = OrderedDict()
_plan_lock = Lock()

INLINE_SIZE = 10_000
"""Largest problem size that is planned in this process: it takes a tenth of a second"""
_processes: list[tuple[ComputeProcess, ComputeProcess]] = []


@contextmanager
def planning_processes(logs: Path, modules: Sequence[str]) -> Iterator[tuple[ComputeProcess, ComputeProcess]]:
    """Within this context, large companies are planned in two separate processes: one for questions, one for urgent
    requests that must not wait for these. `modules`: modules of the functions that will be called."""
    names = ("planning.log", "planning-urgent.log")
    questions, urgent = (ComputeProcess(logs / name, (__name__, *modules)) for name in names)
    _processes.append((questions, urgent))
    try:
        yield questions, urgent
    finally:
        _processes.remove((questions, urgent))
        questions.close()
        urgent.close()


def ask_plan(
    function: Callable[[CompanyPlan, *_Arguments], _Answer],
    company: Company,
    *arguments: *_Arguments,
    plans: int = 1,
    urgent: bool = False,
) -> _Answer:
    """Call `function(plan, *arguments)` with the company's plan; `plans`: about how many plans it makes itself.

    Raises the function's errors, `Conflict` where there is no plan, and `Unavailable`. The function must be defined at
    the top of a module and return plain values.
    """
    return ask_company(_apply_to_plan, company, function, arguments, plans=plans, urgent=urgent)


def ask_company(
    function: Callable[[Company, *_Arguments], _Answer],
    company: Company,
    *arguments: *_Arguments,
    plans: int = 1,
    urgent: bool = False,
) -> _Answer:
    """Call `function(company, *arguments)`; otherwise as `ask_plan`."""
    if not _processes or problem_size(company) * plans <= INLINE_SIZE:
        return function(company, *arguments)
    answer: _Answer = _processes[-1][urgent].ask(function, company, *arguments)
    return answer


def _apply_to_plan(company: Company, function: Callable[..., _Answer], arguments: Sequence[Any]) -> _Answer:
    return function(cached_plan(company), *arguments)


def problem_size(company: Company) -> int:
    """The size of the search: workloads times possible places."""
    built = sum(len(site.hardware) for site in company.sites.values()) * len(company.models)
    return len(company.workloads) * (len(company.deployments) + built)


def cached_plan(company: Company) -> CompanyPlan:
    """The plan of a company, planned once for the same facts; concurrent callers wait for it."""
    facts = hashlib.sha256(repr(company).encode()).digest()
    with _plan_lock:
        found = _plans.get(facts)
        if found is None:
            found = _plans[facts] = plan_company(company)
            while len(_plans) > 1 and (
                len(_plans) > _MAX_PLANS or sum(map(_candidate_count, _plans.values())) > _MAX_CANDIDATES
            ):
                _plans.popitem(last=False)
        _plans.move_to_end(facts)
        return found


def _candidate_count(plan: CompanyPlan) -> int:
    return sum(map(len, plan.framed.candidates.by_workload.values()))
