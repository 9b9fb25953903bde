"""The plan of an apply: differences, priced placements, required approvals and refusals. Pure and repeatable.

Content that needs an approval is held: it stays as it is served now, or is left out. `placement.solve` verifies the
resulting blueprint before it may be served. Storing, signing and people are not done here: see `service`.
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
from groundplan.governance.model import ApprovalStatus
from groundplan.governance.policy import declared
from groundplan.placement.solve import verify_blueprint
from groundplan.release import extras, units
from groundplan.release.compile.budgets import double_charge_notes, restart_notes
from groundplan.release.compile.draft import compile_draft, declared_caps, declared_owners
from groundplan.release.compile.governance import delay_notes
from groundplan.release.compile.placing import NO_OBSERVATIONS, Observations
from groundplan.release.compile.pricing import Prices, rates_with_successors
from groundplan.release.difference import differences, field_differences, field_texts, struct_differences
from groundplan.release.model import Current, Draft, PendingChange, Plan, declared_terms, effective_terms, with_location
from groundplan.release.owners import SuccessionDeadlines, overdue_owners
from groundplan.release.warnings import collect

_PEOPLE_KINDS = ("person", "group", "team")
_PEOPLE_HINT = "Undo this and use `groundplan people leave`, or `groundplan groups join` and `leave`."
_TEAM_HINT = (
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
    standing: ApprovalStatus | None = None,
    prices: Prices = rates_with_successors,
    demo: bool = False,
    departed: SuccessionDeadlines = MappingProxyType({}),
    observed: Observations = NO_OBSERVATIONS,
) -> Plan:
    """Compare a workspace with what is served and return the plan. Without `current` this is genesis.

    `standing` says which content is approved or revoked, `departed` which owners have left, and `observed` what the
    gateways measured, for placement.
    """
    standing = standing or ApprovalStatus()
    problems = [
        *check(workspace, known_price=lambda model: has_listed_price(model, today)),
        *declared.problems(workspace),
    ]
    if any(problem.code not in _STILL_COMPILES for problem in problems):
        return Plan((), (), (), tuple(problems), None)
    served = current.blueprint if current else None
    company = _company_terms(workspace, current, standing)
    draft = compile_draft(workspace, served, company.caps, company.owners, today=today, prices=prices, seen=observed)
    blueprint = msgspec.structs.replace(
        draft.blueprint, approved_parts=company.approved_parts, approval_terms=company.approval_terms
    )
    draft = Draft(blueprint, draft.refusals)
    problems += _unreported(draft.refusals, problems)
    problems += _genesis_only_changes(workspace, current)
    problems += extras.missing_extras(workspace)
    problems += overdue_owners(workspace, draft.blueprint, served, departed, today)
    kinds = company.approved_parts
    lapses = {item.name: approved_parts.find_lapses(draft.blueprint, item, standing.parts, kinds, today)
              for item in draft.blueprint.workloads}  # fmt: skip
    pending, refused = _decide_units(workspace, draft, served, standing, today, lapses)
    problems += refused
    all_pending = (*company.pending, *pending)
    served_now = _with_held_units(draft.blueprint, served, {item.subject: item for item in all_pending}, standing)
    served_now = msgspec.structs.replace(served_now, number=served.number + 1 if served else 1, demo=demo)
    if not problems:
        problems += verify_blueprint(served_now)
    return Plan(
        differences=differences(served, draft.blueprint),
        placements=tuple(draft.blueprint.placements),
        pending=all_pending,
        refusals=tuple(problems),
        blueprint=None if problems else served_now,
        notes=(
            *delay_notes(served, draft.blueprint),
            *double_charge_notes(served, draft.blueprint),
            *restart_notes(served, draft.blueprint),
            *_refusal_notes(workspace, served_now, lapses),
        ),
        warnings=collect.placed_warnings(workspace, draft.blueprint.deployments, draft.blueprint.placements),
        lapses=tuple((name, lapse) for name, found in lapses.items() for lapse in found),
    )


def _refusal_notes(
    workspace: Workspace, served: bp.Blueprint, lapses: Mapping[str, tuple[Lapse, ...]]
) -> tuple[str, ...]:
    """Notes on served workloads whose calls the gateways will refuse, since a required approval does not hold."""
    return tuple(
        f"workload/{item.name}: gateways refuse it: {problem.message}{f' ({problem.where})' if problem.where else ''}"
        for item in served.workloads
        for problem in _lapse_problems(workspace, served, item, lapses.get(item.name, ()))
    )


def _lapse_problems(
    workspace: Workspace, blueprint: bp.Blueprint, workload: bp.Workload, lapses: Iterable[Lapse]
) -> tuple[Problem, ...]:
    """One problem for each lapse; a price above its band is reported where that price is declared."""
    rates = {item.name: item.rates for item in blueprint.deployments}
    problems: list[Problem] = []
    for lapse in lapses:
        problem = approved_parts.lapse_problem(lapse, workload.name, workload.owners)
        if lapse.reason == "price":
            name = max(lapse.part.deployments, key=lambda each: (rates[each].input + rates[each].output, each))
            problem = with_location(problem, _price_location(workspace, name))
        problems.append(problem)
    return tuple(problems)


def _price_location(workspace: Workspace, deployment: str) -> Where:
    """Where the price of a deployment is declared: at the deployment, at its model, or by a model of the price list."""
    item = workspace.deployments[deployment]
    described = workspace.models.get(item.model)
    if not item.price and described is not None and described.price:
        return workspace.where("model", described.name, "price")
    return workspace.where("deployment", deployment, "price" if item.price else "model")


def _unreported(found: Iterable[Problem], known: list[Problem]) -> list[Problem]:
    """The problems that the catalog has not reported already about the same subject."""
    codes = {problem.code for problem in known}
    places = {(problem.code, str(problem.where)) for problem in known}
    placement_reported = bool(
        codes & {"outside_residency", "site_not_trusted", "place_not_for_purpose", "no_deployment"}
    )
    return [
        problem
        for problem in found
        if (problem.code, str(problem.where)) not in places
        and not (placement_reported and problem.code.startswith("placement_"))
    ]


@dataclass(frozen=True, slots=True)
class _CompanyTerms:
    """Company-wide settings that apply while a change of them waits, and that change, if there is one."""

    caps: bp.Caps
    owners: dict[str, list[str]]
    approved_parts: list[str]
    """The kinds of parts that need an approval of their own."""
    approval_terms: bp.ApprovalTerms
    pending: tuple[PendingChange, ...] = ()


def _company_terms(workspace: Workspace, current: Current | None, standing: ApprovalStatus) -> _CompanyTerms:
    """The declared settings; while a change of them needs approval, the stricter of both and the present owners."""
    rules = workspace.company.approvals
    declared = _CompanyTerms(
        declared_caps(workspace), declared_owners(workspace), sorted(rules.parts), declared_terms(workspace)
    )
    if current is None:
        return declared
    served, terms_in_force = current.blueprint, effective_terms(current)
    fewer_parts = bool(set(served.approved_parts) - set(declared.approved_parts))
    looser_terms = decide.is_looser(terms_in_force, declared.approval_terms)
    digest = units.company_digest(
        declared.caps,
        declared.owners,
        declared.approved_parts if fewer_parts else None,
        declared.approval_terms if looser_terms else None,
    )
    loosened = fewer_parts or looser_terms or declared.owners != served.owners
    decision = decide.decide_company(digest, served.caps, declared.caps, loosened=loosened, standing=standing)
    if not decision.needs:
        return declared
    differences = field_differences(field_texts(served.caps), field_texts(declared.caps)) + field_differences(
        {f"owners.{duty}": ", ".join(people) for duty, people in served.owners.items()},
        {f"owners.{duty}": ", ".join(people) for duty, people in declared.owners.items()},
    )
    if fewer_parts:
        differences += field_differences(
            {"approvals.parts": ", ".join(served.approved_parts)},
            {"approvals.parts": ", ".join(declared.approved_parts) or "none"},
        )
    if looser_terms:
        before, after = (
            {f"approvals.{name}": value for name, value in field_texts(each).items()}
            for each in (terms_in_force, declared.approval_terms)
        )
        differences += field_differences(before, after)
    return _CompanyTerms(
        decide.lower_caps(served.caps, declared.caps),
        served.owners,
        sorted({*served.approved_parts, *declared.approved_parts}),
        decide.stricter_terms(terms_in_force, declared.approval_terms),
        (PendingChange("company", digest, decision.needs, differences),),
    )


def _decide_units(
    workspace: Workspace,
    draft: Draft,
    served: bp.Blueprint | None,
    standing: ApprovalStatus,
    today: date,
    lapses: Mapping[str, tuple[Lapse, ...]],
) -> tuple[list[PendingChange], list[Problem]]:
    pending: list[PendingChange] = []
    refused: list[Problem] = []
    new = draft.blueprint
    before = {item.name: item for item in served.workloads} if served else {}
    for workload in new.workloads:
        subject = units.workload_subject(workload.name)
        old = before.get(workload.name)
        after = units.terms(new, workload)
        now = units.terms(served, old) if served and old else None
        unapproved = _lapse_problems(workspace, new, workload, lapses[workload.name])
        counted_standing = (
            ApprovalStatus(revoked=standing.revoked) if unapproved else standing
        )  # approved alone does not let it in
        decision = decide.decide_workload(
            now, after, caps=new.caps, standing=counted_standing, today=today, genesis=served is None
        )
        where = workspace.where("workload", workload.name, "limits", "expires")
        refused += [with_location(problem, where) for problem in decision.refusals]
        if decision.needs:
            pending.append(
                PendingChange(subject, after.digest, decision.needs, struct_differences(old, workload), unapproved)
            )
    return pending + _pending_budgets(new, served, standing) + _pending_rules(new, served, standing), refused


def _pending_budgets(new: bp.Blueprint, served: bp.Blueprint | None, standing: ApprovalStatus) -> list[PendingChange]:
    """Changes of shared budgets that wait for approval: a raise, a looser scope or period, a removal."""
    pending: list[PendingChange] = []
    before = {item.name: item for item in served.budgets} if served else {}
    for budget in new.budgets:
        old = before.get(budget.name)
        if not units.is_shared(budget) or old is None:
            continue
        subject, digest = units.budget_subject(budget.name), units.budget_digest(budget)
        decision = decide.decide_budget(
            subject, digest, units.monthly_limit(old), units.monthly_limit(budget), standing=standing,
            loosened=units.is_looser(old, budget),
        )  # fmt: skip
        if decision.needs:
            pending.append(
                PendingChange(subject, digest, decision.needs, field_differences(field_texts(old), field_texts(budget)))
            )
    shared = {item.name for item in new.budgets if units.is_shared(item)}
    removed = (item for item in before.values() if units.is_shared(item) and item.name not in shared)
    return pending + [each for item in removed if (each := _pending_removal(new, item, standing)) is not None]


def _pending_removal(new: bp.Blueprint, budget: bp.Budget, standing: ApprovalStatus) -> PendingChange | None:
    """The pending removal of a shared budget, where that budget could refuse any call."""
    subject, digest = units.budget_subject(budget.name), units.removed_budget_digest(budget.name)
    looser = budget.hard and any(units.with_shared_budgets(each, [budget]) != each for each in new.workloads)
    decision = decide.decide_budget(subject, digest, units.monthly_limit(budget), 0, standing=standing, loosened=looser)
    return (
        PendingChange(subject, digest, decision.needs, field_differences(field_texts(budget), {}))
        if decision.needs
        else None
    )


def _pending_rules(new: bp.Blueprint, served: bp.Blueprint | None, standing: ApprovalStatus) -> list[PendingChange]:
    """Changes and removals of enforced company rules that wait for approval."""
    pending: list[PendingChange] = []
    after = {item.name: item for item in new.policies}
    for old in served.policies if served else []:
        rule = after.get(old.name)
        subject, digest = units.rule_subject(old.name), units.rule_digest(rule, old.name)
        decision = decide.decide_rule(subject, digest, enforced=old.enforced, same=rule == old, standing=standing)
        if decision.needs:
            differences = field_differences(field_texts(old), field_texts(rule) if rule is not None else {})
            pending.append(PendingChange(subject, digest, decision.needs, differences))
    return pending


def _with_held_units(
    draft: bp.Blueprint,
    served: bp.Blueprint | None,
    held: dict[str, PendingChange],
    standing: ApprovalStatus,
) -> bp.Blueprint:
    """The draft with every held unit as it is served now, or without it; sources only as far as workloads use them."""
    kept = _kept_workloads(served, held, standing) if served else []
    names = {workload.name for workload in kept}
    workloads = [
        workload
        for workload in draft.workloads
        if units.workload_subject(workload.name) not in held and workload.name not in names
    ]
    pinned = _pinned_parts(served, kept, held) if served else {}
    shared = [item for item in pinned.get("budgets", []) if units.is_shared(item)]
    workloads = [
        units.with_shared_budgets(item, shared) for item in sorted([*workloads, *kept], key=lambda item: item.name)
    ]
    sources = {name for item in workloads if item.grounding for name in item.grounding.sources}
    placed = {item.name for item in workloads}
    own = {units.workload_subject(name) for name in placed}
    placements = {item.workload: item for item in draft.placements if item.workload in placed}
    if served:
        placements |= {item.workload: item for item in served.placements if item.workload in names}
    return msgspec.structs.replace(
        draft,
        sites=_merge_by_name(draft.sites, pinned.get("sites", [])),
        deployments=_merge_by_name(draft.deployments, pinned.get("deployments", [])),
        sources=[item for item in _merge_by_name(draft.sources, pinned.get("sources", [])) if item.name in sources],
        workloads=workloads,
        budgets=[
            item
            for item in _merge_by_name(draft.budgets, pinned.get("budgets", []))
            if units.is_shared(item) or item.covers in own
        ],
        placements=[placements[name] for name in sorted(placements)],
        policies=_merge_by_name(draft.policies, pinned.get("policies", [])),
    )


def _kept_workloads(
    served: bp.Blueprint, held: dict[str, PendingChange], standing: ApprovalStatus
) -> list[bp.Workload]:
    """Held workloads that stay as they are served now, unless what is served was revoked."""
    return [
        workload
        for workload in served.workloads
        if (subject := units.workload_subject(workload.name)) in held
        and not standing.is_revoked(
            subject, units.workload_digest(served, workload), *units.former_digests(served, workload)
        )
    ]


def _pinned_parts(
    served: bp.Blueprint, kept: list[bp.Workload], held: dict[str, PendingChange]
) -> dict[str, list[Any]]:
    """Parts that stay as they are served now: those that kept workloads use, and those whose own change waits."""
    deployments = {name for item in kept for name in item.all_deployments}
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


def _merge_by_name(new: list[Any], pinned: list[Any]) -> list[Any]:
    by_name = {item.name: item for item in new} | {item.name: item for item in pinned}
    return [by_name[name] for name in sorted(by_name)]


def _live_people(document: doc.Strict | None) -> tuple[object, ...] | None:
    """The fields of a document that live in the database once it has started; a title and a job do not. The existence
    of a team is declared, like the workloads and budgets that belong to it, so that work can move to another team."""
    match document:
        case doc.PersonDoc():
            return document.email, document.full_name
        case doc.GroupDoc():
            return document.members, document.includes
        case doc.TeamDoc():
            people = document.members, document.includes, document.lead
            return people if any(people) else None
    return None


def _genesis_only_changes(workspace: Workspace, current: Current | None) -> list[Problem]:
    """Problems for changes that only genesis reads from files: people, their groups, and separation back to solo."""
    if current is None:
        return []
    problems: list[Problem] = []
    for kind in _PEOPLE_KINDS:
        old = {name: doc for (k, name), (doc, _) in current.workspace.documents.items() if k == kind}
        new = {name: doc for (k, name), (doc, _) in workspace.documents.items() if k == kind}
        for name in sorted({*old, *new}):
            if _live_people(old.get(name)) == _live_people(new.get(name)):
                continue
            where = workspace.where(kind, name) if name in new else None
            problems.append(
                Problem(
                    f"the {kind} {name} was changed here, but people are kept in the database since the first start",
                    "people_are_live",
                    _TEAM_HINT if kind == "team" else _PEOPLE_HINT,
                    where,
                )
            )
    if current.blueprint.separation == "enforced" and workspace.company.separation == "solo":
        where = workspace.where("company", workspace.company.name, "separation")
        problems.append(
            Problem(
                "separation cannot go back from enforced to solo",
                "separation_weaker",
                "Keep separation: enforced.",
                where,
            )
        )
    return problems


def without_workload(blueprint: bp.Blueprint, name: str) -> bp.Blueprint:
    """The blueprint without one workload, its own budgets and the sources that only it used; numbered one higher.

    Nothing is compiled anew, so that no other problem can hold up the removal.
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
