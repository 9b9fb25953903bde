"""Company rules about calls, in Cedar: written out, or a ready template with its values; and the terms of providers.

What a rule says is read and checked by governance; these are only the documents.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import LIST, Duration, Line, Lines, Name, PersonRef, list_schema

TemplateName = Literal[
    "models", "provider-terms", "regions", "review-required", "tools", "hours", "user-groups", "stages"
]
Value = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:/@+-]{0,127}$")]
"""What may stand in a rule that is made from a template: no quotes, nothing that Cedar would read otherwise."""
Fact = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
Values = Annotated[tuple[Value, ...], LIST, list_schema({"type": "string"})]


class ProviderTerms(Strict):
    """What the provider of a deployment does with what it is sent, by contract."""

    training: bool
    """Whether it may train on it."""
    retention: Duration
    """How long it keeps it; 0d: not at all."""
    subprocessors: Lines = ()
    """Who else gets it."""


class TemplateValues(Strict):
    """The values of a template. Each template says which it needs."""

    sensitivity: Literal["public", "internal", "confidential", "restricted"] | None = None
    """Applies to workloads with data of this sensitivity or higher; left out: to all."""
    purposes: Values = ()
    """Applies to workloads with one of these purposes (`needs: {purposes: ...}`); left out: to all."""
    workloads: Values = ()
    """Applies to these workloads; left out: to all."""
    models: Values = ()
    providers: Values = ()
    max_retention: Duration | None = None
    subprocessors: Values = ()
    jurisdictions: Values = ()
    tools: Values = ()
    from_hour: Annotated[int, Field(ge=0, le=23)] | None = None
    """UTC"""
    to_hour: Annotated[int, Field(ge=1, le=24)] | None = None
    """UTC; the hour itself is no longer in it."""
    weekdays: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], LIST, list_schema({"type": "string"})
    ] = ()
    groups: Values = ()
    stages: Values = ()
    effects: Values = ()
    """informs, recommends, decides"""


class PolicyExample(Strict):
    """One call and how the rule is to decide it; tried by `groundplan policy test`."""

    name: Line | None = None
    expect: Literal["allowed", "refused"]
    tool: Line | None = None
    """The example is the use of this tool, instead of a call."""
    groups: Values = ()
    """Of the person who asks; nobody in particular without them."""
    given: dict[Fact, bool | int | str | list[str]] = Field(default_factory=dict)
    """Facts that differ from an ordinary call: `sensitivity`, `stage`, `model`, `jurisdiction`, `hour` ..."""


class PolicyDoc(Strict):
    """A company rule about calls, in Cedar."""

    kind: Literal["policy"] = "policy"
    name: Name
    title: Line | None = None
    owner: PersonRef
    """Who answers questions about it and requests for exceptions."""
    hint: Line | None = None
    """Hint in refusals: what to do instead."""
    mode: Literal["shadow", "enforce"] = "shadow"
    """shadow: it refuses nothing; `groundplan policy shadow` says what it would have refused."""
    template: TemplateName | None = None
    values: TemplateValues = TemplateValues()
    """Of the template."""
    cedar: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    """The rule written out: `forbid (principal, action == Action::"call", resource) when { ... };`"""
    closed: bool = False
    """true: calls that no `permit` of an enforced policy allows are refused, instead of allowed."""
    examples: Annotated[tuple[PolicyExample, ...], LIST] = ()
