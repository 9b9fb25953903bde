"""The frozen types of editions: their settings for cutting and embedding, and their state. Nothing is stored or decided
here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import msgspec

from groundplan.blueprint.model import Index, Source
from groundplan.knowledge.chunk import MAX_CHARS
from groundplan.knowledge.model import DIMENSION

State = Literal["building", "ready", "switching", "serving", "kept", "dropped"]
HELD_STATES: Final[tuple[State, ...]] = ("serving", "ready", "switching")
"""States of the editions that search services hold in memory."""
COMPLETE_STATES: Final[tuple[State, ...]] = ("serving", "ready", "switching", "kept")
"""States of the editions that have all documents; every change of a document keeps them complete."""


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """An embedding by a declared deployment, requested from the gateway for a workload; `model` is the deployment's."""

    workload: str
    deployment: str
    model: str
    dimension: int


class IndexSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How documents are cut and embedded. Two editions with equal settings are the same for a search."""

    characters: int = MAX_CHARS
    """Longest passage, in characters."""
    sources: dict[str, int] = {}
    """Longest passage for single sources."""
    embedding: Embedding | None = None
    """None: the embedded model is used."""

    def limit(self, source: str) -> int:
        """The longest passage of a source, in characters."""
        return self.sources.get(source, self.characters)

    @property
    def dimension(self) -> int:
        """The length of the edition's vectors."""
        return DIMENSION if self.embedding is None else self.embedding.dimension


@dataclass(frozen=True, slots=True)
class Edition:
    """An edition as it is stored. `until`: when a kept edition is removed. `declined`: somebody went back from it, so
    it is not switched to automatically again."""

    id: int
    settings: IndexSettings
    state: State
    created_at: datetime
    served_at: datetime | None = None
    until: datetime | None = None
    declined: bool = False
    compared: dict[str, object] | None = None


def declared_settings(index: Index, sources: Iterable[Source], models: dict[str, str]) -> IndexSettings:
    """The settings that a blueprint declares. `models`: deployment -> the model that it serves."""
    rule = index.embedding
    return IndexSettings(
        characters=index.characters,
        sources={
            source.name: source.characters
            for source in sorted(sources, key=lambda one: one.name)
            if source.characters is not None and source.characters != index.characters
        },
        embedding=None
        if rule is None
        else Embedding(
            workload=rule.workload,
            deployment=rule.deployment,
            model=models.get(rule.deployment, ""),
            dimension=rule.dimensions,
        ),
    )


def serving_edition(editions: Sequence[Edition]) -> Edition:
    """The edition that is searched; there is always exactly one."""
    return next(one for one in editions if one.state == "serving")


def describe(settings: IndexSettings) -> tuple[str, str]:
    """(model, chunking) as text for people."""
    own = settings.embedding
    model = "all-minilm-l6-v2" if own is None else f"{own.deployment} ({own.model or 'model not declared'})"
    chunking = f"sections of at most {settings.characters} characters"
    if settings.sources:
        chunking += "; " + ", ".join(f"{name} {limit}" for name, limit in settings.sources.items())
    return model, chunking
