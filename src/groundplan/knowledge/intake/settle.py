"""Resolve the governance of a document from its source, its folders and itself: its values and its readers. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from groundplan.blueprint.model import Source
from groundplan.catalog.fields import is_email
from groundplan.knowledge.governance.inherit import (
    DOCUMENT_KEYS,
    DOCUMENT_ORIGINS,
    DeclaredValues,
    EffectiveValues,
    Level,
    effective_values,
    keep_hold,
    parse_declared,
    retained_until,
)
from groundplan.knowledge.model import Readers, by_grant
from groundplan.knowledge.sources.model import FolderRules

FRONT, BESIDE = "front", "beside"


@dataclass(frozen=True, slots=True)
class DocumentGovernance:
    """Governed values and readers of a document. `row` has the columns of `intake_store.GOVERNANCE_COLUMNS`."""

    row: Mapping[str, Any]
    readers: Readers
    own: Sequence[DeclaredValues]


def source_values(source: Source, review_days: int | None) -> dict[str, Any]:
    """The governed values that a source declares for its documents."""
    rule = source.governed
    return {
        "owner": source.owner,
        "steward": rule.steward,
        "licence": rule.licence,
        "state": rule.state,
        "sensitivity": source.sensitivity,
        "purposes": list(rule.purposes) or None,
        "workloads": list(rule.workloads) or None,
        "residency": list(rule.residency) or None,
        "review_days": review_days,
        "retain_days": rule.retain_days,
        "legal_hold": rule.legal_hold,
    }


def declared_values(front: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a document declares about itself, to be stored: governed keys, and keys that look like one."""
    return {
        FRONT: {key: value for key, value in front.items() if _is_kept(key)},
        BESIDE: {key: value for key, value in beside.items() if _is_kept(key)},
    }


def _is_kept(key: str) -> bool:
    return key in DOCUMENT_KEYS or (not key.startswith(("page_", "sent_")) and len(key) <= 40)


def resolve_governance(
    source: Source,
    values: Mapping[str, Any],
    folder_rules: Sequence[FolderRules],
    declared_values: Mapping[str, Mapping[str, Any]],
    decisions: Mapping[str, Any],
    digest: str,
    modified_at: datetime | None,
    held_by: str | None = None,
) -> DocumentGovernance:
    """The governance of a document; `held_by`: what put it under a legal hold before. Raises `Invalid` (front_matter)
    where it cannot be determined for certain."""
    outer = [(each, parse_declared(each.values, f"folder file ({each.origin})")) for each in folder_rules]
    front, beside = (
        parse_declared(declared_values.get(FRONT, {}), "front matter"),
        parse_declared(declared_values.get(BESIDE, {}), "sidecar"),
    )
    levels = [Level(f"source/{source.name}", values)]
    levels += [Level(each.origin, word.values) for each, word in outer]
    levels += [Level(origin, word.values) for origin, word in zip(DOCUMENT_ORIGINS, (front, beside), strict=True)]
    resolved = keep_hold(effective_values(levels, decisions, digest), held_by, decisions)
    readers = _readers(source, outer, (front, beside))
    row = _row(resolved, modified_at, front.review_by or beside.review_by)
    mark = json.dumps([row, sorted(readers.allow), sorted(readers.deny)], default=str, sort_keys=True)
    row["declared"] = {
        **declared_values,
        "unknown": {key: near for each in (front, beside) for key, near in each.unknown.items()},
        "ignored": [text for origin in resolved.origins.values() for text in origin.get("ignored", ())],
        "strangers": [],
        "named": sorted((readers.allow | readers.deny) - {*source.readers, by_grant(source.name)}),
    }
    row["settled"] = hashlib.sha256(mark.encode()).hexdigest()
    return DocumentGovernance(row, readers, (front, beside))


def restrict_unknown_names(governance: DocumentGovernance, unknown_names: Sequence[str]) -> DocumentGovernance:
    """The governance of a document that denies `unknown_names`. The name of a group may be misspelt, so that nobody
    knows who is meant: then nobody reads the document. An address is that of a person who left or is yet to join."""
    if not unknown_names:
        return governance
    readers = governance.readers
    if not all(map(is_email, unknown_names)):
        readers = Readers(frozenset(), readers.deny | {"public"})
    mark = json.dumps([governance.row["settled"], *unknown_names])
    row = {
        **governance.row,
        "declared": {**governance.row["declared"], "strangers": list(unknown_names)},
        "settled": hashlib.sha256(mark.encode()).hexdigest(),
    }
    return replace(governance, row=row, readers=readers)


def _readers(
    source: Source, outer: Sequence[tuple[FolderRules, DeclaredValues]], own: Sequence[DeclaredValues]
) -> Readers:
    """The readers: the nearest level that allows somebody decides, denials add up."""
    allow = frozenset({*source.readers, by_grant(source.name)})
    deny: frozenset[str] = frozenset()
    for each, word in outer:
        if each.readers is not None:
            allow = each.readers.allow if each.is_access_list else each.readers.allow or allow
            deny |= each.readers.deny
        allow = word.readers if word.readers is not None else allow
        deny |= word.deny
    for word in own:
        allow = word.readers if word.readers is not None else allow
        deny |= word.deny
    return Readers(allow, deny)


def _row(resolved: EffectiveValues, modified_at: datetime | None, review_by: Any) -> dict[str, Any]:
    row = {name: value for name, value in resolved.values.items() if name != "retain_days"}
    row["retain_until"] = retained_until(modified_at or datetime.now(UTC), resolved.values["retain_days"])
    row["origins"] = dict(resolved.origins)
    row["review_by"] = review_by
    return row


def superseded_paths(key: str, own: Sequence[DeclaredValues]) -> list[str]:
    """The paths that a document says it replaces: as written, and relative to its folder."""
    folder = PurePosixPath(key).parent
    named = [name.removeprefix("./") for word in own for name in word.supersedes]
    return sorted({path for name in named for path in (name, (folder / name).as_posix())} - {key})
