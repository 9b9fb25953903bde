"""The register of everything that AI is made of here, from the workspace and the blueprint that is served. Pure.

Nothing is asked of anybody: what is not declared is shown as missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from groundplan.blueprint import model as bp
from groundplan.catalog.workspace import Workspace
from groundplan.core.canonical import canonical, digest

KINDS = ("workload", "model", "deployment", "provider", "prompt", "integration", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in the register."""

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
    """Day by which somebody is to look at it again"""
    missing: tuple[str, ...] = ()
    """What ought to be declared and is not"""
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def register(workspace: Workspace, blueprint: bp.Blueprint) -> list[Entry]:
    """All entries, by kind and name."""
    found = [
        *_workloads(workspace, blueprint),
        *_models(workspace, blueprint),
        *_deployments(workspace, blueprint),
        *_providers(blueprint),
        *_prompts(workspace),
        *_integrations(workspace),
        *_sources(workspace),
    ]
    return sorted(found, key=lambda each: (KINDS.index(each.kind), each.name))


def overlaps(entries: list[Entry]) -> list[dict[str, Any]]:
    """Systems that several integrations connect to: `[{"system", "integrations", "workloads"}]`."""
    by_system: dict[str, list[Entry]] = defaultdict(list)
    for each in entries:
        if each.kind == "integration" and each.origin:
            by_system[each.origin.casefold()].append(each)
    return [
        {
            "system": same[0].origin,
            "integrations": [each.name for each in same],
            "workloads": sorted({name for each in same for name in each.used_by}),
        }
        for _, same in sorted(by_system.items())
        if len(same) > 1
    ]


def _digest(doc: Any) -> str:
    return digest(canonical(doc.model_dump(mode="json")))


def _missing(**needed: object) -> tuple[str, ...]:
    return tuple(name for name, value in needed.items() if not value)


def _users(blueprint: bp.Blueprint, deployment: str) -> tuple[str, ...]:
    return tuple(sorted(each.name for each in blueprint.workloads if deployment in each.places))


def _users_of(blueprint: bp.Blueprint, served: list[bp.Deployment]) -> tuple[str, ...]:
    return tuple(sorted({user for each in served for user in _users(blueprint, each.name)}))


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
            owner=", ".join(workspace.email(each) for each in owners), digest=_digest(doc), stage=doc.stage,
            sensitivity=doc.sensitivity, origin=doc.pattern, used_by=(name,),
            known_limits=tuple(risk.known_limits) if risk else (),
            review_by=risk.until.isoformat() if risk and risk.until else "",
            missing=_missing(owner=owners, risk=risk, support=doc.support, value=doc.value),
            detail={"served": name in served, "effect": doc.effect, "audience": doc.audience},
        )  # fmt: skip


def _models(workspace: Workspace, blueprint: bp.Blueprint) -> Iterator[Entry]:
    for name in sorted({each.model for each in blueprint.deployments} | set(workspace.models)):
        doc = workspace.models.get(name)
        served = [each for each in blueprint.deployments if each.model == name]
        terms = any(each.terms for each in served)
        provider = doc.provider if doc and doc.provider else name.partition("/")[0] if "/" in name else ""
        licence = doc.licence if doc and doc.licence else ""
        yield Entry(
            kind="model", name=name, title=doc.title if doc and doc.title else name, licence=licence, origin=provider,
            digest=_digest(doc) if doc else "", used_by=_users_of(blueprint, served),
            terms="declared" if terms else "", missing=_missing(licence_or_terms=licence or terms),
            detail={"deployments": [each.name for each in served]},
        )  # fmt: skip


def _deployments(workspace: Workspace, blueprint: bp.Blueprint) -> Iterator[Entry]:
    sites = {each.name: each for each in blueprint.sites}
    for each in blueprint.deployments:
        site = sites.get(each.site)
        doc = workspace.deployments.get(each.name)
        owner = workspace.sites[each.site].owner if each.site in workspace.sites else None
        terms = each.terms
        yield Entry(
            kind="deployment", name=each.name, title=each.model, owner=workspace.email(owner) if owner else "",
            version=each.upstream_model, digest=_digest(doc) if doc else "", origin=each.site,
            used_by=_users(blueprint, each.name), sensitivity=site.holds or "" if site else "",
            terms=_terms(terms),
            missing=_missing(owner=owner, terms=terms is not None or (site is not None and site.type != "cloud")),
            detail={"jurisdiction": site.jurisdiction if site else "", "price": each.rates.source},
        )  # fmt: skip


def _providers(blueprint: bp.Blueprint) -> Iterator[Entry]:
    by_name: dict[str, list[bp.Deployment]] = defaultdict(list)
    for each in blueprint.deployments:
        by_name[each.model.partition("/")[0] if "/" in each.model else each.site].append(each)
    for name, served in by_name.items():
        told = [each for each in served if each.terms is not None]
        processors = sorted({who for each in told if each.terms for who in each.terms.subprocessors})
        yield Entry(
            kind="provider", name=name, title=name, used_by=_users_of(blueprint, served),
            terms=f"{len(told)} of {len(served)} deployments", missing=_missing(terms=len(told) == len(served)),
            detail={"deployments": [each.name for each in served], "subprocessors": processors},
        )  # fmt: skip


def _prompts(workspace: Workspace) -> Iterator[Entry]:
    for name, doc in workspace.prompts.items():
        users = tuple(
            sorted(n for n, w in workspace.workloads.items() if w.prompt and w.prompt.partition("@")[0] == name)
        )
        yield Entry(
            kind="prompt", name=name, title=f"version {doc.version}", version=str(doc.version), digest=_digest(doc),
            owner=workspace.email(doc.owner) if doc.owner else "", used_by=users, missing=_missing(owner=doc.owner),
            detail={"characters": len(doc.text)},
        )  # fmt: skip


def _integrations(workspace: Workspace) -> Iterator[Entry]:
    for name, doc in workspace.integrations.items():
        users = tuple(sorted(n for n, w in workspace.workloads.items() if name in w.integrations))
        yield Entry(
            kind="integration", name=name, title=doc.title or name, origin=doc.system or "", digest=_digest(doc),
            owner=workspace.email(doc.owner) if doc.owner else "", used_by=users, missing=_missing(owner=doc.owner),
            detail={"direction": doc.direction, "contact": doc.contact},
        )  # fmt: skip


def _sources(workspace: Workspace) -> Iterator[Entry]:
    for name, doc in workspace.sources.items():
        users = tuple(sorted(n for n, w in workspace.workloads.items() if name in w.sources))
        yield Entry(
            kind="source", name=name, title=doc.title or name, owner=workspace.email(doc.owner), digest=_digest(doc),
            origin=str(doc.path), used_by=users, sensitivity=doc.sensitivity,
            missing=_missing(review_every=doc.review_every), detail={"readers": list(doc.readers)},
        )  # fmt: skip
