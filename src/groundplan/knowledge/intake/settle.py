"""From what source, folders and document say to one row: what holds for the document, and who may read it. Pure."""

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
    ITS_OWN,
    OWN,
    Holds,
    Level,
    Said,
    holds,
    retained_until,
    said,
    still_held,
)
from groundplan.knowledge.model import Readers, by_grant
from groundplan.knowledge.sources.model import Around

FRONT, BESIDE = "front", "beside"


@dataclass(frozen=True, slots=True)
class Settled:
    """`row` has the columns of `intake_store.HELD`."""

    row: Mapping[str, Any]
    readers: Readers
    own: Sequence[Said]


def source_values(source: Source, review_days: int | None) -> dict[str, Any]:
    """What the source says of its documents."""
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


def declared(front: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a document says of itself, to be kept: the keys that mean something, and those that look as if they did."""
    return {
        FRONT: {key: value for key, value in front.items() if _kept(key)},
        BESIDE: {key: value for key, value in beside.items() if _kept(key)},
    }


def _kept(key: str) -> bool:
    return key in OWN or (not key.startswith(("page_", "sent_")) and len(key) <= 40)


def settle(
    source: Source,
    values: Mapping[str, Any],
    around: Sequence[Around],
    says: Mapping[str, Mapping[str, Any]],
    decided: Mapping[str, Any],
    digest: str,
    modified_at: datetime | None,
    held_by: str | None = None,
) -> Settled:
    """What holds for a document; `held_by`: what put it under a legal hold before. Raises `Invalid` (front_matter)
    where it cannot be known for certain."""
    outer = [(each, said(each.told, f"folder file ({each.origin})")) for each in around]
    front, beside = said(says.get(FRONT, {}), "front matter"), said(says.get(BESIDE, {}), "sidecar")
    levels = [Level(f"source/{source.name}", values)]
    levels += [Level(each.origin, word.values) for each, word in outer]
    levels += [Level(origin, word.values) for origin, word in zip(ITS_OWN, (front, beside), strict=True)]
    found = still_held(holds(levels, decided, digest), held_by, decided)
    readers = _readers(source, outer, (front, beside))
    row = _row(found, modified_at, front.review_by or beside.review_by)
    mark = json.dumps([row, sorted(readers.allow), sorted(readers.deny)], default=str, sort_keys=True)
    row["declared"] = {
        **says,
        "unknown": {key: near for each in (front, beside) for key, near in each.unknown.items()},
        "ignored": [text for origin in found.origins.values() for text in origin.get("ignored", ())],
        "strangers": [],
        "named": sorted((readers.allow | readers.deny) - {*source.readers, by_grant(source.name)}),
    }
    row["settled"] = hashlib.sha256(mark.encode()).hexdigest()
    return Settled(row, readers, (front, beside))


def closed(settled: Settled, strangers: Sequence[str]) -> Settled:
    """The same, where a document refuses names that nobody has (`strangers`). A group of that name may be misspelt: who
    is meant is not known, so nobody reads it. A plain address is that of a person who left, or is still to come."""
    if not strangers:
        return settled
    readers = settled.readers
    if not all(map(is_email, strangers)):
        readers = Readers(frozenset(), readers.deny | {"public"})
    mark = json.dumps([settled.row["settled"], *strangers])
    row = {
        **settled.row,
        "declared": {**settled.row["declared"], "strangers": list(strangers)},
        "settled": hashlib.sha256(mark.encode()).hexdigest(),
    }
    return replace(settled, row=row, readers=readers)


def _readers(source: Source, outer: Sequence[tuple[Around, Said]], own: Sequence[Said]) -> Readers:
    """The nearest word about who may read; refusals add up."""
    allow = frozenset({*source.readers, by_grant(source.name)})
    deny: frozenset[str] = frozenset()
    for each, word in outer:
        if each.readers is not None:
            allow = each.readers.allow if each.complete else each.readers.allow or allow
            deny |= each.readers.deny
        allow = word.readers if word.readers is not None else allow
        deny |= word.deny
    for word in own:
        allow = word.readers if word.readers is not None else allow
        deny |= word.deny
    return Readers(allow, deny)


def _row(found: Holds, modified_at: datetime | None, review_by: Any) -> dict[str, Any]:
    row = {name: value for name, value in found.values.items() if name != "retain_days"}
    row["retain_until"] = retained_until(modified_at or datetime.now(UTC), found.values["retain_days"])
    row["origins"] = dict(found.origins)
    row["review_by"] = review_by
    return row


def superseded_paths(key: str, own: Sequence[Said]) -> list[str]:
    """The paths that a document says it replaces: as written, and as seen from its folder."""
    folder = PurePosixPath(key).parent
    named = [name.removeprefix("./") for word in own for name in word.supersedes]
    return sorted({path for name in named for path in (name, (folder / name).as_posix())} - {key})
