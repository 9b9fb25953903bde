"""Resolves the governance of documents in one run over their source, with the names that they deny looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Source
from groundplan.knowledge.intake.settle import (
    DocumentGovernance,
    resolve_governance,
    restrict_unknown_names,
    source_values,
)
from groundplan.knowledge.sources.model import FolderRules
from groundplan.knowledge.store import unknown_readers


class SourceGovernance:
    """The governance of one source's documents; each name is looked up once. `review_days`: as the source declares
    it."""

    def __init__(self, conn: Connection[Any], source: Source, review_days: int | None) -> None:
        self._conn = conn
        self._source = source
        self._values = source_values(source, review_days)
        self._is_unknown_name: dict[str, bool] = {}

    def resolve(
        self,
        folder_rules: Sequence[FolderRules],
        declared_values: Mapping[str, Mapping[str, Any]],
        decisions: Mapping[str, Any],
        digest: str,
        modified: datetime | None,
        held_by: str | None,
    ) -> DocumentGovernance:
        """As `resolve_governance`, restricted where it denies unknown names. Raises `Invalid` (front_matter)."""
        found = resolve_governance(
            self._source, self._values, folder_rules, declared_values, decisions, digest, modified, held_by
        )
        return restrict_unknown_names(found, self._unknown_names(found.readers.deny - {"public"}))

    def _unknown_names(self, names: frozenset[str]) -> list[str]:
        """The names that are no group, no team and no person, sorted."""
        new = names - self._is_unknown_name.keys()
        if new:
            unknown = unknown_readers(self._conn, new)
            self._is_unknown_name.update((name, name in unknown) for name in new)
        return sorted(name for name in names if self._is_unknown_name[name])
