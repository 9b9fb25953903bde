"""Sources, terms and the index of a blueprint. Pure; documents are not looked at."""

from __future__ import annotations

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.index import IndexRule, RerankRule
from groundplan.catalog.retention import DAY_MS
from groundplan.catalog.workspace import Workspace
from groundplan.release.compile.grants import compile_grants, subject_name

_MAX_DAYS = 365_000
"""What is kept longer is kept as long as this: no calendar has a day so far away."""


def index(rule: IndexRule) -> bp.Index:
    """How documents are cut and embedded."""
    own = rule.embedding
    return bp.Index(
        characters=rule.characters,
        embedding=None
        if own is None
        else bp.IndexEmbedding(workload=own.workload, deployment=own.deployment, dimensions=own.dimensions),
        by_hand=rule.switch == "by-hand",
        keep_days=_days(rule.keep) or 0,
        questions=rule.questions,
    )


def rerank(rule: RerankRule | None) -> bp.Rerank | None:
    """Who puts passages in order."""
    if rule is None:
        return None
    return bp.Rerank(workload=rule.workload, deployment=rule.deployment, passages=rule.passages, within_ms=rule.within)


def source(workspace: Workspace, item: doc.SourceDoc) -> bp.Source:
    """A declared source, with who may read it and what governs it."""
    return bp.Source(
        name=item.name,
        path=item.path or "",
        sensitivity=item.sensitivity,
        owner=workspace.email_of(item.owner),
        readers=sorted(subject_name(workspace, reader) for reader in item.readers),
        read=compile_grants(workspace, "read", f"source/{item.name}"),
        governed=_governed(workspace, item),
        connector=bp.Connector(type=item.connector.type, settings=item.connector.settings(), acl=item.connector.acl)
        if item.connector
        else None,
        checks=[check.model_dump(mode="json", exclude_defaults=True) for check in item.checks],
        characters=item.chunking.characters,
        pdf=item.reading.pdf,
    )


def _governed(workspace: Workspace, item: doc.SourceDoc) -> bp.Governed:
    rule = item.governed
    return bp.Governed(
        steward=workspace.email_of(rule.steward) if rule.steward else None,
        state=rule.state,
        purposes=sorted(rule.purposes),
        workloads=sorted(rule.workloads),
        residency=sorted(rule.residency),
        licence=rule.licence,
        retain_days=_days(rule.retain),
        legal_hold=rule.legal_hold,
        erase_days=_days(rule.erase_within) or 0,
    )


def _days(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else max(0, min(milliseconds // DAY_MS, _MAX_DAYS))


def term(workspace: Workspace, item: doc.TermDoc) -> bp.Term:
    """A word of the glossary."""
    return bp.Term(
        name=item.name,
        title=item.title,
        meaning=item.meaning,
        synonyms=sorted(item.synonyms),
        forbidden=sorted(item.forbidden),
        owner=workspace.email_of(item.owner) if item.owner else None,
    )


def review_days(workspace: Workspace, used: set[str]) -> dict[str, int]:
    """Of sources that something uses and that are to be looked at again."""
    return {
        name: days
        for name, item in workspace.sources.items()
        if name in used and (days := _days(item.review_every)) is not None
    }
