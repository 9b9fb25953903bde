"""What a workload declares about model `auto`: which of its deployments takes a call."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from groundplan.catalog.base import Strict
from groundplan.catalog.cascade import CascadeRule
from groundplan.catalog.fields import Count, Duration, Line, Name, Percent, Usd
from groundplan.catalog.risk import Level

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}@[1-9][0-9]*$")]


class RouteRule(Strict):
    """A readable rule: a call that meets everything it names goes to its deployment. The first that fits holds."""

    name: Name
    use: Name
    """Deployment that takes the call."""
    words: Annotated[tuple[Line, ...], Field(max_length=100, strict=False)] = ()
    """One of them is in the question, whole and in whatever case."""
    longer: Count | None = None
    """Characters that the question has at least."""
    shorter: Count | None = None
    """Characters that it has at most."""
    messages: Count | None = None
    """Messages that the conversation has at least."""


class RoutingRule(Strict):
    """How a call that asks for model `auto` finds its deployment, within those that placement allows."""

    by: Literal["order", "rules", "learned"] = "order"
    """order: as placement has them. rules: the first rule that fits. learned: rules first, then the learned router."""
    rules: Annotated[tuple[RouteRule, ...], Field(max_length=50, strict=False)] = ()
    router: Version | None = None
    """Learned router and version, such as `support@3`."""
    digest: Digest | None = None
    """SHA-256 of that router, as `groundplan routing train` and `routing list` tell it: no gateway takes other bytes,
    so what is approved is what decides."""
    keep: Annotated[Percent, Field(ge=0.5)] = 0.99
    """Share of the strongest model's quality that routed calls keep together: one of those that it was trained for,
    else the next stricter one."""
    floor: Percent = 0.0
    """Least expected quality of a single call that a smaller model takes."""
    sticky: bool | Literal["priced"] = True
    """A conversation stays with its model, whose cache of prompts knows it. priced: as long as that cache is worth more
    than what another model saves."""
    cascade: CascadeRule | None = None
    """A cheaper deployment is tried first, for calls that no rule takes and of which the learned router is not sure."""
    within: Duration | None = None
    """Nobody takes a call who lately took longer to the first token, in nineteen of twenty calls."""
    risk: Level | None = None
    """Highest assessed risk of a model that takes a call; one that is not assessed takes none."""
    second: Usd = 0
    """What a second of waiting costs, weighed beside the price of a call."""
