"""What a workload asks of a place, and how the company weighs places. Types only; everything has a default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import LIST, Duration, Lines, ModelName, Name, Path, Percent, Size, list_schema
from groundplan.catalog.hosting import HourPrice, RegionName, TonnePrice
from groundplan.catalog.model_specs import Needs

ModelNames = Annotated[tuple[ModelName, ...], LIST, list_schema({"type": "string", "examples": ["acme/llama-3.1-8b"]})]
Shares = dict[RegionName, Percent]


class DataGravity(Strict):
    """Data that the workload reads besides its prompts, and where it lies."""

    site: Name
    per_call: Size = 0
    """Read for each call, and moved where the workload runs elsewhere."""
    stored: Size = 0
    """Copied to where the workload runs."""


class RampRule(Strict):
    """A change of place goes over in steps of traffic, each a blueprint of its own. A step does not follow while calls
    fail at the new place."""

    steps: Annotated[tuple[Percent, ...], LIST] = (0.1, 0.5)
    """Shares of the calls that go to the new place, rising; after the last one all do."""
    every: Duration = 86_400_000
    """How long each step holds, a minute at least."""

    @model_validator(mode="after")
    def _rises(self) -> RampRule:
        shares = [round(100 * each) for each in self.steps]
        if not shares or shares[0] < 1 or shares[-1] > 99 or sorted(set(shares)) != shares:
            raise ValueError("steps rise between 1% and 99%, such as [10%, 50%]")
        if self.every < 60_000:
            raise ValueError("a step holds a minute at least")
        return self


class PlacementRule(Strict):
    """What placement needs to know of a workload. Everything has a default."""

    order: Literal["declared", "planned"] = "declared"
    """declared: `deployments` are asked in their order; planned: they may serve it, and the plan orders them."""
    users: Shares = Field(default_factory=dict)
    """Region -> share: {eu-north: 80%, us-east: 20%}. Default: beside the site."""
    curve: Literal["steady", "business-hours", "spiky", "campaign", "burst", "seen"] = "business-hours"
    """How calls spread over the week; `traffic.peak` is the height. seen: as they came to the gateways in the last four
    weeks, and as many where `traffic` is left out; business-hours until there are seven days of them."""
    trace: Path | None = None
    """CSV with calls of each hour, instead of a curve."""
    per_token: Duration | None = None
    """Longest mean time between tokens."""
    certifications: Lines = ()
    """Each must be held where it runs."""
    needs: Needs = ()
    models: ModelNames = ()
    """Model documents that may be built for it; empty: those whose quality is enough."""
    upload: Size = 0
    """Sent with each call besides its tokens, such as a picture."""
    data: DataGravity | None = None
    offline: bool = False
    """It must go on without a connection: only a site beside its users, which is `data.site` or an edge."""
    fallback: Literal["wanted", "required", "none"] = "wanted"
    """wanted: another failure domain takes what it has room for; required: one with room for all of it."""
    burst: Literal["allowed", "never"] = "allowed"
    """Whether its peaks may go elsewhere than its base load."""
    spot: Literal["never", "allowed"] = "never"
    """Whether it may run on rented hardware that its provider may take away."""
    availability: Literal["expected", "required"] = "expected"
    """required: `objectives.availability` is a rule that the place keeps, alone or with a fallback in another failure
    domain that has room for all of it; expected: what is short of it is said."""
    budget: Literal["expected", "required"] = "expected"
    """required: no place is taken at which its tokens cost more than its own hard budgets; expected: that is said."""
    today: Name | None = None
    """Site where it runs today. Default: where the last blueprint has it."""
    move: Annotated[float, Field(ge=0, le=10_000, strict=False)] = 16.0
    """Hours of people that a move takes."""
    ramp: RampRule | None = None
    """How a change of its place goes over. Default: all calls at once."""


class PlacementPolicy(Strict):
    """How the company weighs places. Hard rules are never traded, whatever this says."""

    people: HourPrice = 75 * 10**12
    """Of an hour of those who run sites."""
    carbon: TonnePrice = 0
    """Price of a tonne of CO2 in the comparison."""
    payback: Duration = 180 * 86_400_000
    """A move must pay for itself within this."""
    headroom: Percent = 0.2
    """Of own capacity that stays free at the peak."""
    latency: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.0
    """Worth of a second of waiting for a thousand calls, in USD; 0: only objectives count."""
    spread: Annotated[int, Field(ge=1)] | None = None
    """Most production workloads with their primary in one failure domain."""
    moves: Annotated[int, Field(ge=0)] | None = None
    """Most workloads that one plan moves; those that may not stay where they are do not count. Default: any number."""
    licences: Lines = ()
    """Of models that may be built, as `licence` of their documents says it, such as Apache-2.0. Default: any."""
    commit: Duration = 365 * 86_400_000
    """The longest term of reserved hardware that a plan signs for."""
