"""Governed data, prompts, and the systems around: sources, prompts, integrations.

One pydantic model per kind; text with units is parsed on the way in. The sentence below a field describes it in
the JSON Schema. Rules between documents are `check`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import (
    LIST,
    Duration,
    Line,
    Lines,
    Name,
    Path,
    PersonRef,
)
from groundplan.catalog.governed import CheckRule, ConnectorRule, GovernedRule
from groundplan.catalog.index import ChunkingRule, ReadingRule
from groundplan.catalog.levels import Sensitivity


class SourceDoc(Strict):
    """Governed data that answers may be drawn from."""

    kind: Literal["source"] = "source"
    name: Name
    title: Line | None = None
    path: Path | None = None
    """Folder of documents inside the workspace; left out where there is a connector."""
    connector: ConnectorRule | None = None
    sensitivity: Sensitivity
    owner: PersonRef
    readers: Lines
    """Groups, teams or people who may read every document, unless one says otherwise. `everyone` is every
    active person, `public` also a call that carries no person."""
    review_every: Duration | None = None
    """How old a document may become before its owner is asked to look at it."""
    governed: GovernedRule = GovernedRule()
    checks: Annotated[tuple[CheckRule, ...], LIST] = ()
    """Of the columns of its tables."""
    chunking: ChunkingRule = ChunkingRule()
    reading: ReadingRule = ReadingRule()

    @model_validator(mode="after")
    def _from_somewhere(self) -> Self:
        if (self.path is None) == (self.connector is None):
            raise ValueError("write the path of a folder, or a connector")
        return self


class PromptDoc(Strict):
    """A versioned system prompt."""

    kind: Literal["prompt"] = "prompt"
    name: Name
    version: Annotated[int, Field(ge=1)] = 1
    text: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
    owner: PersonRef | None = None


class IntegrationDoc(Strict):
    """A system that calls a workload, or that a workload acts on."""

    kind: Literal["integration"] = "integration"
    name: Name
    title: Line | None = None
    direction: Literal["caller", "downstream"]
    system: Line | None = None
    owner: PersonRef | None = None
    contact: Line | None = None
