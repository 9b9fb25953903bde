"""The register of AI systems and their parts, from the workspace and the blueprint in force. Pure.

What is not declared is listed as missing. `overlaps` finds what several teams have twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from groundplan.blueprint import model as bp
from groundplan.blueprint.artifact import with_large_integers_as_text
from groundplan.catalog.workspace import Workspace
from groundplan.core.canonical import canonical, digest

KINDS = ("workload", "model", "deployment", "provider", "prompt", "integration", "tool", "source")
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the register."""

    kind: str
    name: str
    title: str = ""
    owner: str = ""
    version: str = ""
    digest: str = ""
    """SHA-256 of its declaration"""
    licence: str = ""
    origin: str = ""
    """Where it is from: provider, system, path"""
    used_by: tuple[str, ...] = ()
    """Workloads"""
    sensitivity: str = ""
    stage: str = ""
    terms: str = ""
    known_limits: tuple[str, ...] = ()
    review_by: str = ""
    """Day by which it has to be reviewed, when the acceptance of its risk or its approval ends"""
    evaluations: tuple[str, ...] = ()
    """Measurements and evidence of its quality, in sentences"""
    missing: tuple[str, ...] = ()
    """What should be declared and is not"""
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def build_register(
    workspace: Workspace,
    blueprint: bp.Blueprint,
    *,
    evaluated: Mapping[str, tuple[str, ...]] = NOTHING,
    ends: Mapping[str, date] = NOTHING,
) -> list[Entry]:
    """All entries, by kind and name. `evaluated`: evidence of quality by name of the workload, in sentences; `ends`:
    last day of the approval of `model/NAME`, `prompt/NAME` or `source/NAME`."""
    placed = _users_by_item((each.name, each.all_deployments) for each in blueprint.workloads)
    found = [
        *_workloads(workspace, blueprint),
        *_models(workspace, blueprint, placed),
        *_deployments(workspace, blueprint, placed),
        *_providers(blueprint, placed),
        *_prompts(workspace),
        *_integrations(workspace),
        *_tools(workspace),
        *_sources(workspace),
    ]
    found = [_with_evaluations(each, evaluated, ends) for each in found]
    return sorted(found, key=lambda each: (KINDS.index(each.kind), each.name))


def _with_evaluations(each: Entry, evaluated: Mapping[str, tuple[str, ...]], ends: Mapping[str, date]) -> Entry:
    """The entry with evaluations (for a model those of the workloads that use it) and the day of its next review."""
    end = ends.get(f"{each.kind}/{each.name}")
    review = each.review_by or (end.isoformat() if end is not None else "")
    named = each.kind == "model"
    results = [
        f"{user}: {result}" if named else result
        for user in (each.used_by if each.kind in ("workload", "model") else ())
        for result in evaluated.get(user, ())
    ]
    return replace(each, review_by=review, evaluations=(*each.evaluations, *results))


def overlaps(entries: list[Entry], teams: Mapping[str, str] = NOTHING) -> list[dict[str, Any]]:
    """Systems that several integrations or tools connect to, and functions that several servers offer:
    `[{"system", "integrations", "tools", "workloads", "teams"}]`. `teams`: of workloads, by name."""
    by_system: dict[str, list[Entry]] = defaultdict(list)
    for each in entries:
        if each.kind in ("integration", "tool") and each.origin:
            by_system[each.origin.casefold()].append(each)
        for function in each.detail.get("tools", ()) if each.kind == "tool" else ():
            by_system[f"function {function}"].append(each)
    return [
        _overlap(same[0].origin if system == same[0].origin.casefold() else system, same, teams)
        for system, same in sorted(by_system.items())
        if len(same) > 1
    ]


def _overlap(system: str, same: list[Entry], teams: Mapping[str, str]) -> dict[str, Any]:
    users = sorted({name for each in same for name in each.used_by})
    return {
        "system": system,
        "integrations": [each.name for each in same if each.kind == "integration"],
        "tools": [each.name for each in same if each.kind == "tool"],
        "workloads": users,
        "teams": sorted({teams[name] for name in users if name in teams}),
    }


def _digest(doc: Any) -> str:
    return digest(canonical(with_large_integers_as_text(doc.model_dump(mode="json"))))


def _missing(**needed: object) -> tuple[str, ...]:
    return tuple(name for name, value in needed.items() if not value)


Users = Mapping[str, Sequence[str]]
"""Workloads by what they use."""


def _users_by_item(used: Iterable[tuple[str, Iterable[str]]]) -> Users:
    """Workloads by item, from (workload, items that it uses): one pass, since searching thousands of workloads for each
    item takes seconds."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, things in used:
        for each in set(things):
            found[each].append(name)
    return {each: sorted(names) for each, names in found.items()}


def _users(users: Users, used: str) -> tuple[str, ...]:
    return tuple(users.get(used, ()))


def _users_of(users: Users, served: list[bp.Deployment]) -> tuple[str, ...]:
    return tuple(sorted({user for each in served for user in users.get(each.name, ())}))


def _terms(terms: bp.ProviderTerms | None) -> str:
    if terms is None:
        return ""
    return f"training {'yes' if terms.training else 'no'}, kept {terms.retention_days} d"


def _workloads(workspace: Workspace, blueprint: bp.Blueprint) -> Iterator[Entry]:
    served = {each.name for each in blueprint.workloads}
    for name, doc in workspace.workloads.items():
        owners = doc.owners.business
        risk = doc.risk
        yield Entry(
            kind="workload", name=name, title=doc.title or doc.purpose,
            owner=", ".join(workspace.email_of(each) for each in owners), digest=_digest(doc), stage=doc.stage,
            sensitivity=doc.sensitivity, origin=doc.pattern, used_by=(name,),
            known_limits=tuple(risk.known_limits) if risk else (),
            review_by=risk.until.isoformat() if risk and risk.until else "",
            missing=_missing(owner=owners, risk=risk, support=doc.support, value=doc.value),
            detail={"served": name in served, "effect": doc.effect, "audience": doc.audience},
        )  # fmt: skip


def _models(workspace: Workspace, blueprint: bp.Blueprint, placed: Users) -> Iterator[Entry]:
    by_model: dict[str, list[bp.Deployment]] = defaultdict(list)
    for each in blueprint.deployments:
        by_model[each.model].append(each)
    for name in sorted({*by_model, *workspace.models}):
        doc = workspace.models.get(name)
        served = by_model.get(name, [])
        terms = any(each.terms for each in served)
        provider = doc.provider if doc and doc.provider else name.partition("/")[0] if "/" in name else ""
        licence = doc.licence if doc and doc.licence else ""
        yield Entry(
            kind="model", name=name, title=doc.title if doc and doc.title else name, licence=licence, origin=provider,
            digest=_digest(doc) if doc else "", used_by=_users_of(placed, served),
            version=", ".join(sorted({each.upstream_model for each in served})),
            evaluations=tuple(f"{each.task} {each.score} (declared)" for each in doc.quality) if doc else (),
            terms="declared" if terms else "", missing=_missing(licence_or_terms=licence or terms),
            detail={"deployments": [each.name for each in served]},
        )  # fmt: skip


def _deployments(workspace: Workspace, blueprint: bp.Blueprint, placed: Users) -> Iterator[Entry]:
    sites = {each.name: each for each in blueprint.sites}
    for each in blueprint.deployments:
        site = sites.get(each.site)
        doc = workspace.deployments.get(each.name)
        owner = workspace.sites[each.site].owner if each.site in workspace.sites else None
        terms = each.terms
        yield Entry(
            kind="deployment", name=each.name, title=each.model, owner=workspace.email_of(owner) if owner else "",
            version=each.upstream_model, digest=_digest(doc) if doc else "", origin=each.site,
            used_by=_users(placed, each.name), sensitivity=site.holds or "" if site else "",
            terms=_terms(terms),
            missing=_missing(owner=owner, terms=terms is not None or (site is not None and site.type != "cloud")),
            detail={"jurisdiction": site.jurisdiction if site else "", "price": each.rates.source},
        )  # fmt: skip


def _providers(blueprint: bp.Blueprint, placed: Users) -> Iterator[Entry]:
    by_name: dict[str, list[bp.Deployment]] = defaultdict(list)
    for each in blueprint.deployments:
        by_name[each.model.partition("/")[0] if "/" in each.model else each.site].append(each)
    for name, served in by_name.items():
        told = [each for each in served if each.terms is not None]
        processors = sorted({who for each in told if each.terms for who in each.terms.subprocessors})
        yield Entry(
            kind="provider", name=name, title=name, used_by=_users_of(placed, served),
            terms=f"{len(told)} of {len(served)} deployments", missing=_missing(terms=len(told) == len(served)),
            detail={"deployments": [each.name for each in served], "subprocessors": processors},
        )  # fmt: skip


def _prompts(workspace: Workspace) -> Iterator[Entry]:
    users = _users_by_item((n, [w.prompt.partition("@")[0]]) for n, w in workspace.workloads.items() if w.prompt)
    for name, doc in workspace.prompts.items():
        yield Entry(
            kind="prompt", name=name, title=f"version {doc.version}", version=str(doc.version), digest=_digest(doc),
            owner=workspace.email_of(doc.owner) if doc.owner else "", used_by=_users(users, name),
            missing=_missing(owner=doc.owner), detail={"characters": len(doc.text)},
        )  # fmt: skip


def _integrations(workspace: Workspace) -> Iterator[Entry]:
    users = _users_by_item((n, w.integrations) for n, w in workspace.workloads.items())
    for name, doc in workspace.integrations.items():
        yield Entry(
            kind="integration", name=name, title=doc.title or name, origin=doc.system or "", digest=_digest(doc),
            owner=workspace.email_of(doc.owner) if doc.owner else "", used_by=_users(users, name),
            missing=_missing(owner=doc.owner), detail={"direction": doc.direction, "contact": doc.contact},
        )  # fmt: skip


def _tools(workspace: Workspace) -> Iterator[Entry]:
    for name, doc in workspace.tools.items():
        yield Entry(
            kind="tool", name=name, title=doc.title or name, origin=urlsplit(str(doc.url)).netloc,
            owner=workspace.email_of(doc.owner), digest=_digest(doc), used_by=tuple(sorted(doc.workloads)),
            detail={"tools": list(doc.tools), "dangerous": list(doc.dangerous)},
        )  # fmt: skip


def _sources(workspace: Workspace) -> Iterator[Entry]:
    users = _users_by_item((n, w.sources) for n, w in workspace.workloads.items())
    for name, doc in workspace.sources.items():
        yield Entry(
            kind="source", name=name, title=doc.title or name, owner=workspace.email_of(doc.owner), digest=_digest(doc),
            origin=str(doc.path), used_by=_users(users, name), sensitivity=doc.sensitivity,
            missing=_missing(review_every=doc.review_every), detail={"readers": list(doc.readers)},
        )  # fmt: skip
