"""Control frameworks that a company holds itself to: shipped ones by name, or its own; to which workloads they apply,
and what is left out with the reason. Which evidence satisfies a control is governance's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import LIST, Date, Line, Lines, Name, Names, PersonRef

ControlId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}$")]


class OwnControl(Strict):
    """A control of the company's own."""

    id: ControlId
    title: Line
    needs: Annotated[Lines, Field(min_length=1)]
    """Checks by name (`groundplan controls checks` lists them), or `document`: evidence that a person gives."""


class Exclusion(Strict):
    """A control that does not apply."""

    control: ControlId
    reason: Line


class Amended(Strict):
    """The law or norm is another from a day on: what people showed before counts no longer, and controls re-open."""

    on: Date
    what: Line
    source: Line
    """Source of the change, such as the law's number and article."""
    controls: Annotated[tuple[ControlId, ...], LIST] = ()
    """Left out: all of the framework."""


class FrameworkDoc(Strict):
    """A control framework that holds here."""

    kind: Literal["framework"] = "framework"
    name: Name
    """nist-ai-rmf | nist-ai-600-1 | eu-ai-act | iso-42001 | owasp-llm-2025, or a name of your own."""
    title: Line | None = None
    owner: PersonRef
    """Who answers for it."""
    profile: Name | None = None
    """A part of a shipped framework, such as tier-1; left out: all of it."""
    workloads: Names = ()
    """Workloads to which it applies; left out: all that are served."""
    excluded: Annotated[tuple[Exclusion, ...], LIST] = ()
    controls: Annotated[tuple[OwnControl, ...], LIST] = ()
    """Further controls, or all of a framework of your own."""
    amended: Annotated[tuple[Amended, ...], LIST] = ()
    """Changes of the law or norm that are not shipped."""
