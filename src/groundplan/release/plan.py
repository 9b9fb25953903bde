"""What an apply would do: differences, priced placements, needed approvals and refusals. Pure and repeatable.

Content that needs an approval is held: it stays as it is served now, or is left out. The result is verified by
`placement.solve.verify` before anybody may serve it. Storing, signing and people are `service`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.check import check
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem, Where
from groundplan.economics.price import has_listed_price
from groundplan.governance import approved_parts, decide
from groundplan.governance.approved_parts import Lapse
from groundplan.governance.model import Standing
from groundplan.governance.policy import declared
from groundplan.placement.solve import verify
from groundplan.release import extras, units
from groundplan.release.compile.budgets import charged_twice
from groundplan.release.compile.draft import compile_draft, declared_caps, declared_owners
from groundplan.release.compile.governance import notes
from groundplan.release.compile.placing import NOTHING, Observed
from groundplan.release.compile.pricing import Prices, dated
from groundplan.release.difference import changed, differences, fields, shown
from groundplan.release.model import Current, Draft, Pending, Plan, approval_terms, at, in_force
from groundplan.release.owners import Left, overdue
from groundplan.release.warnings import collect

_PEOPLE_KINDS = ("person", "group", "team")
_PEOPLE = "Undo this and use `groundplan people leave`, or `groundplan groups join` and `leave`."
_TEAMS = (
    "Write a team's name here, and a title, without members, includes and lead; its people come by `groundplan groups"
    " add NAME --type team` and `groundplan groups join`."
)
_STILL_COMPILES = frozenset(
    {
        "budget_twice",
        "context_unbounded",
        "deployment_twice",
        "grace_restricted",
        "image_unbounded",
        "missing_duties",
        "no_budget",
        "no_business_owner",
        "no_deployment",
        "outside_residency",
        "place_not_for_purpose",
        "price_missing",
        "price_twice",
        "prompt_version",
        "search_unbounded",
        "site_not_trusted",
        "solo_with_others",
        "source_too_sensitive",
        "url_endpoint",
    }
)
"""Problems of a workspace whose names all resolve, so that prices and differences can still be shown beside them."""


def plan(
    workspace: Workspace,
    current: Current | None,
    *,
    today: date,
    standing: Standing | None = None,
    prices: Prices = dated,
    demo: bool = False,
    left: Left = MappingProxyType({}),
    seen: Observed = NOTHING,
) -> Plan:
    """Compare a workspace with what is served. Without `current` this is genesis.

    `standing` tells which content is approved or revoked; `left` are owners who are gone; `seen` is what the gateways
    saw, for placement.
    """
    standing = standing or Standing()
    problems = [
        *check(workspace, known_price=lambda model: has_listed_price(model, today)),
        *declared.problems(workspace),
    ]
    if any(problem.code not in _STILL_COMPILES for problem in problems):
        return Plan((), (), (), tuple(problems), None)
    served = current.blueprint if current else None
    held = _company(workspace, current, standing)
    draft = compile_draft(workspace, served, held.caps, held.owners, today=today, prices=prices, seen=seen)
    blueprint = msgspec.structs.replace(draft.blueprint, approved_parts=held.kinds, approval_terms=held.terms)
    draft = Draft(blueprint, draft.refusals)
    problems += _new(draft.refusals, problems)
    problems += _settled_at_genesis(workspace, current)
    problems += extras.missing(workspace)
    problems += overdue(workspace, draft.blueprint, served, left, today)
    lapses = {item.name: approved_parts.lapses(draft.blueprint, item, standing.parts, held.kinds, today)
              for item in draft.blueprint.workloads}  # fmt: skip
    pending, refused = _decide(workspace, draft, served, standing, today, lapses)
    problems += refused
    every = (*held.pending, *pending)
    served_now = _select(draft.blueprint, served, {item.subject: item for item in every}, standing)
    served_now = msgspec.structs.replace(served_now, number=served.number + 1 if served else 1, demo=demo)
    if not problems:
        problems += verify(served_now)
    return Plan(
        differences=differences(served, draft.blueprint),
        placements=tuple(draft.blueprint.placements),
        pending=every,
        refusals=tuple(problems),
        blueprint=None if problems else served_now,
        notes=(
            *notes(served, draft.blueprint),
            *charged_twice(served, draft.blueprint),
            *_refused_calls(workspace, served_now, lapses),
        ),
        warnings=collect.of_placed(workspace, draft.blueprint.deployments, draft.blueprint.placements),
        lapses=tuple((name, lapse) for name, found in lapses.items() for lapse in found),
    )


def _refused_calls(
    workspace: Workspace, served: bp.Blueprint, lapses: Mapping[str, tuple[Lapse, ...]]
) -> tuple[str, ...]:
    """Of what is served: what gateways will refuse, since an approval that it rests on does not hold."""
    return tuple(
        f"workload/{item.name}: gateways refuse it: {problem.message}{f' ({problem.where})' if problem.where else ''}"
        for item in served.workloads
        for problem in _told(workspace, served, item, lapses.get(item.name, ()))
    )


def _told(
    workspace: Workspace, blueprint: bp.Blueprint, workload: bp.Workload, lapses: Iterable[Lapse]
) -> tuple[Problem, ...]:
    """What is said to each; of a price that is above its band where that is written."""
    rates = {item.name: item.rates for item in blueprint.deployments}
    found: list[Problem] = []
    for lapse in lapses:
        problem = approved_parts.told(lapse, workload.name, workload.owners)
        if lapse.why == "price":
            name = max(lapse.part.deployments, key=lambda each: (rates[each].input + rates[each].output, each))
            problem = at(problem, _priced_at(workspace, name))
        found.append(problem)
    return tuple(found)


def _priced_at(workspace: Workspace, deployment: str) -> Where:
    """Where the price of a deployment is declared: there, at its model, or by naming a model of the price list."""
    item = workspace.deployments[deployment]
    described = workspace.models.get(item.model)
    if not item.price and described is not None and described.price:
        return workspace.where("model", described.name, "price")
    return workspace.where("deployment", deployment, "price" if item.price else "model")


def _new(found: Iterable[Problem], known: list[Problem]) -> list[Problem]:
    """Problems that the catalog has not told already about the same thing."""
    codes = {problem.code for problem in known}
    places = {(problem.code, str(problem.where)) for problem in known}
    told = bool(codes & {"outside_residency", "site_not_trusted", "place_not_for_purpose", "no_deployment"})
    return [
        problem
        for problem in found
        if (problem.code, str(problem.where)) not in places and not (told and problem.code.startswith("placement_"))
    ]


@dataclass(frozen=True, slots=True)
class _Held:
    """What holds for the company as a whole while a change of it waits, and that change, if there is one."""

    caps: bp.Caps
    owners: dict[str, list[str]]
    kinds: list[str]
    """Of what is approved by itself."""
    terms: bp.ApprovalTerms
    pending: tuple[Pending, ...] = ()


def _company(workspace: Workspace, current: Current | None, standing: Standing) -> _Held:
    """As declared, but where that takes approvals: then the stricter of both, and the owners of now."""
    rules = workspace.company.approvals
    new = _Held(declared_caps(workspace), declared_owners(workspace), sorted(rules.parts), approval_terms(workspace))
    if current is None:
        return new
    served, had = current.blueprint, in_force(current)
    fewer = bool(set(served.approved_parts) - set(new.kinds))
    looser = decide.looser(had, new.terms)
    digest = units.company_digest(
        new.caps, new.owners, new.kinds if fewer else None, new.terms if looser else None
    )  # fmt: skip
    loosened = fewer or looser or new.owners != served.owners
    decision = decide.decide_company(digest, served.caps, new.caps, loosened=loosened, standing=standing)
    if not decision.needs:
        return new
    what = fields(shown(served.caps), shown(new.caps)) + fields(
        {f"owners.{duty}": ", ".join(people) for duty, people in served.owners.items()},
        {f"owners.{duty}": ", ".join(people) for duty, people in new.owners.items()},
    )
    if fewer:
        what += fields(
            {"approvals.parts": ", ".join(served.approved_parts)},
            {"approvals.parts": ", ".join(new.kinds) or "none"},
        )
    if looser:
        before, after = (
            {f"approvals.{name}": value for name, value in shown(each).items()} for each in (had, new.terms)
        )
        what += fields(before, after)
    return _Held(
        decide.lower_of(served.caps, new.caps), served.owners, sorted({*served.approved_parts, *new.kinds}),
        decide.stricter(had, new.terms), (Pending("company", digest, decision.needs, what),),
    )  # fmt: skip


def _decide(
    workspace: Workspace,
    draft: Draft,
    served: bp.Blueprint | None,
    standing: Standing,
    today: date,
    lapses: Mapping[str, tuple[Lapse, ...]],
) -> tuple[list[Pending], list[Problem]]:
    pending: list[Pending] = []
    refused: list[Problem] = []
    new = draft.blueprint
    before = {item.name: item for item in served.workloads} if served else {}
    for workload in new.workloads:
        subject = units.workload_subject(workload.name)
        old = before.get(workload.name)
        after = units.terms(new, workload)
        now = units.terms(served, old) if served and old else None
        missing = _told(workspace, new, workload, lapses[workload.name])
        by = Standing(revoked=standing.revoked) if missing else standing  # approved alone does not let it in
        decision = decide.decide_workload(now, after, caps=new.caps, standing=by, today=today, genesis=served is None)
        where = workspace.where("workload", workload.name, "limits", "expires")
        refused += [at(problem, where) for problem in decision.refusals]
        if decision.needs:
            pending.append(Pending(subject, after.digest, decision.needs, changed(old, workload), missing))
    return pending + _budgets(new, served, standing) + _rules(new, served, standing), refused


def _budgets(new: bp.Blueprint, served: bp.Blueprint | None, standing: Standing) -> list[Pending]:
    """Shared budgets of which a raise, that they hold for less, or that they are gone, waits."""
    pending: list[Pending] = []
    before = {item.name: item for item in served.budgets} if served else {}
    for budget in new.budgets:
        old = before.get(budget.name)
        if not units.is_shared(budget) or old is None:
            continue
        subject, digest = units.budget_subject(budget.name), units.budget_digest(budget)
        decision = decide.decide_budget(
            subject, digest, units.monthly_limit(old), units.monthly_limit(budget), standing=standing,
            looser=units.is_looser(old, budget),
        )  # fmt: skip
        if decision.needs:
            pending.append(Pending(subject, digest, decision.needs, fields(shown(old), shown(budget))))
    shared = {item.name for item in new.budgets if units.is_shared(item)}
    gone = (item for item in before.values() if units.is_shared(item) and item.name not in shared)
    return pending + [each for item in gone if (each := _removed(new, item, standing)) is not None]


def _removed(new: bp.Blueprint, budget: bp.Budget, standing: Standing) -> Pending | None:
    """A shared budget that is not there any more, where it would refuse anything."""
    subject, digest = units.budget_subject(budget.name), units.removed_budget_digest(budget.name)
    looser = budget.hard and any(units.charged_to(each, [budget]) != each for each in new.workloads)
    decision = decide.decide_budget(subject, digest, units.monthly_limit(budget), 0, standing=standing, looser=looser)
    return Pending(subject, digest, decision.needs, fields(shown(budget), {})) if decision.needs else None


def _rules(new: bp.Blueprint, served: bp.Blueprint | None, standing: Standing) -> list[Pending]:
    """Company rules that are enforced now, and whose change or removal waits."""
    pending: list[Pending] = []
    after = {item.name: item for item in new.policies}
    for old in served.policies if served else []:
        rule = after.get(old.name)
        subject, digest = units.rule_subject(old.name), units.rule_digest(rule, old.name)
        decision = decide.decide_rule(subject, digest, enforced=old.enforced, same=rule == old, standing=standing)
        if decision.needs:
            what = fields(shown(old), shown(rule) if rule is not None else {})
            pending.append(Pending(subject, digest, decision.needs, what))
    return pending


def _select(
    draft: bp.Blueprint,
    served: bp.Blueprint | None,
    held: dict[str, Pending],
    standing: Standing,
) -> bp.Blueprint:
    """The draft with every held unit as it is served now, or without it; only what the workloads use of sources."""
    kept = _kept(served, held, standing) if served else []
    names = {workload.name for workload in kept}
    workloads = [
        workload
        for workload in draft.workloads
        if units.workload_subject(workload.name) not in held and workload.name not in names
    ]
    pinned = _pins(served, kept, held) if served else {}
    shared = [item for item in pinned.get("budgets", []) if units.is_shared(item)]
    workloads = [units.charged_to(item, shared) for item in sorted([*workloads, *kept], key=lambda item: item.name)]
    sources = {name for item in workloads if item.grounding for name in item.grounding.sources}
    placed = {item.name for item in workloads}
    own = {units.workload_subject(name) for name in placed}
    placements = {item.workload: item for item in draft.placements if item.workload in placed}
    if served:
        placements |= {item.workload: item for item in served.placements if item.workload in names}
    return msgspec.structs.replace(
        draft,
        sites=_merged(draft.sites, pinned.get("sites", [])),
        deployments=_merged(draft.deployments, pinned.get("deployments", [])),
        sources=[item for item in _merged(draft.sources, pinned.get("sources", [])) if item.name in sources],
        workloads=workloads,
        budgets=[
            item
            for item in _merged(draft.budgets, pinned.get("budgets", []))
            if units.is_shared(item) or item.covers in own
        ],
        placements=[placements[name] for name in sorted(placements)],
        policies=_merged(draft.policies, pinned.get("policies", [])),
    )


def _kept(served: bp.Blueprint, held: dict[str, Pending], standing: Standing) -> list[bp.Workload]:
    """Held workloads that go on as they are served now, unless what is served was revoked."""
    return [
        workload
        for workload in served.workloads
        if (subject := units.workload_subject(workload.name)) in held
        and not standing.forbids(
            subject, units.workload_digest(served, workload), *units.former_digests(served, workload)
        )
    ]


def _pins(served: bp.Blueprint, kept: list[bp.Workload], held: dict[str, Pending]) -> dict[str, list[Any]]:
    """Parts that stay as they are served now: what kept workloads consist of, and shared budgets whose raise waits."""
    deployments = {name for item in kept for name in item.places}
    places = {item.site for item in served.deployments if item.name in deployments}
    sources = {name for item in kept if item.grounding for name in item.grounding.sources}
    own = {units.workload_subject(item.name) for item in kept}
    return {
        "deployments": [item for item in served.deployments if item.name in deployments],
        "sites": [item for item in served.sites if item.name in places],
        "sources": [item for item in served.sources if item.name in sources],
        "policies": [item for item in served.policies if units.rule_subject(item.name) in held],
        "budgets": [item for item in served.budgets if item.covers in own or units.budget_subject(item.name) in held],
    }


def _merged(new: list[Any], pinned: list[Any]) -> list[Any]:
    by_name = {item.name: item for item in new} | {item.name: item for item in pinned}
    return [by_name[name] for name in sorted(by_name)]


def _people_of(document: doc.Strict | None) -> tuple[object, ...] | None:
    """What of a document is live in the database; a title and a job are not. That there is a team, to which workloads
    and budgets belong, is declared like them, so that work can go to another one."""
    match document:
        case doc.PersonDoc():
            return document.email, document.full_name
        case doc.GroupDoc():
            return document.members, document.includes
        case doc.TeamDoc():
            people = document.members, document.includes, document.lead
            return people if any(people) else None
    return None


def _settled_at_genesis(workspace: Workspace, current: Current | None) -> list[Problem]:
    """People and their groups are read from files once; so is the step from one person to several."""
    if current is None:
        return []
    found: list[Problem] = []
    for kind in _PEOPLE_KINDS:
        old = {name: doc for (k, name), (doc, _) in current.workspace.documents.items() if k == kind}
        new = {name: doc for (k, name), (doc, _) in workspace.documents.items() if k == kind}
        for name in sorted({*old, *new}):
            if _people_of(old.get(name)) == _people_of(new.get(name)):
                continue
            where = workspace.where(kind, name) if name in new else None
            found.append(
                Problem(
                    f"the {kind} {name} was changed here, but people are kept in the database since the first start",
                    "people_are_live",
                    _TEAMS if kind == "team" else _PEOPLE,
                    where,
                )
            )
    if current.blueprint.separation == "enforced" and workspace.company.separation == "solo":
        where = workspace.where("company", workspace.company.name, "separation")
        found.append(
            Problem(
                "separation cannot go back from enforced to solo",
                "separation_weaker",
                "Keep separation: enforced.",
                where,
            )
        )
    return found


def without(blueprint: bp.Blueprint, name: str) -> bp.Blueprint:
    """The same blueprint less one workload, its own budgets and what only it used; numbered one higher.

    Nothing is compiled anew, so that taking something out can never be held up by anything else.
    """
    workloads = [item for item in blueprint.workloads if item.name != name]
    used = {source for item in workloads if item.grounding for source in item.grounding.sources}
    return msgspec.structs.replace(
        blueprint,
        number=blueprint.number + 1,
        rollback_of=None,
        workloads=workloads,
        sources=[item for item in blueprint.sources if item.name in used],
        budgets=[item for item in blueprint.budgets if not units.is_own(item, name)],
        placements=[item for item in blueprint.placements if item.workload != name],
    )
