"""The plan of a company, made once for the same facts, and what is asked of it: here where the company is small, else
in a process of its own, which keeps the plan: what comes back is plain.
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

_KEPT, _CANDIDATES = 8, 200_000
"""Plans that are remembered, and the candidates of all of them but the newest: each takes a kilobyte of memory."""
_plans: OrderedDict[bytes, CompanyPlan] = OrderedDict()
_solving = Lock()

AT_ONCE = 10_000
"""Workloads times places of a company that is planned here: a tenth of a second"""
_asides: list[tuple[ComputeProcess, ComputeProcess]] = []


@contextmanager
def aside(logs: Path, modules: Sequence[str]) -> Iterator[tuple[ComputeProcess, ComputeProcess]]:
    """Meanwhile large companies are planned in processes of their own: one for questions, and one for what must not
    wait for these. `modules`: of the functions that are asked."""
    names = ("planning.log", "planning-urgent.log")
    questions, urgent = (ComputeProcess(logs / name, (__name__, *modules)) for name in names)
    _asides.append((questions, urgent))
    try:
        yield questions, urgent
    finally:
        _asides.remove((questions, urgent))
        questions.close()
        urgent.close()


def told(
    function: Callable[[CompanyPlan, *_Arguments], _Answer],
    company: Company,
    *arguments: *_Arguments,
    plans: int = 1,
    urgent: bool = False,
) -> _Answer:
    """What `function` says of the company's plan; `plans`: about how many it makes itself. Raises what it raises,
    `Conflict` where there is no plan, and `Unavailable`. Functions are those of modules, and answer in plain values.
    """
    return asked(_of_plan, company, function, arguments, plans=plans, urgent=urgent)


def asked(
    function: Callable[[Company, *_Arguments], _Answer],
    company: Company,
    *arguments: *_Arguments,
    plans: int = 1,
    urgent: bool = False,
) -> _Answer:
    """As `told`, of the company itself."""
    if not _asides or size(company) * plans <= AT_ONCE:
        return function(company, *arguments)
    answer: _Answer = _asides[-1][urgent].ask(function, company, *arguments)
    return answer


def _of_plan(company: Company, function: Callable[..., _Answer], arguments: Sequence[Any]) -> _Answer:
    return function(solved(company), *arguments)


def size(company: Company) -> int:
    """Workloads times places: what a plan looks through."""
    built = sum(len(site.hardware) for site in company.sites.values()) * len(company.models)
    return len(company.workloads) * (len(company.deployments) + built)


def solved(company: Company) -> CompanyPlan:
    """The plan of a company, solved once for the same facts: whoever asks meanwhile waits for it."""
    facts = hashlib.sha256(repr(company).encode()).digest()
    with _solving:
        found = _plans.get(facts)
        if found is None:
            found = _plans[facts] = plan_company(company)
            while len(_plans) > 1 and (len(_plans) > _KEPT or sum(map(_candidates, _plans.values())) > _CANDIDATES):
                _plans.popitem(last=False)
        _plans.move_to_end(facts)
        return found


def _candidates(plan: CompanyPlan) -> int:
    return sum(map(len, plan.framed.offered.by_workload.values()))
