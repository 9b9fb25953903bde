"""What a site costs and can do: hardware, energy, network, certifications and what must be run there. Types only.

Everything has a default, which placement says when it used it. Units that only sites need are parsed here.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import LIST, Count, Date, Duration, Lines, Name, Percent, Size, Usd
from groundplan.catalog.units import usd

YEAR_MS = 365 * 86_400_000


def _price(unit: str) -> BeforeValidator:
    """Picodollars for each `unit` of `2.95 USD/hour`."""

    def read(value: object) -> int:
        amount, _, per = value.partition("/") if isinstance(value, str) else ("", "", "")
        if per.strip() != unit:
            raise ValueError(f"write a price like 1.25 USD/{unit}")
        return usd(amount)

    return BeforeValidator(read)


def _price_schema(unit: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^[0-9.]+ USD/{unit}$", "examples": [f"1.25 USD/{unit}"]})


def _measure(units: dict[str, int], example: str) -> BeforeValidator:
    """A number with one of these units, in the smallest of them."""
    pattern = re.compile(rf"([0-9]{{1,12}}(?:\.[0-9]{{1,6}})?) ?({'|'.join(map(re.escape, units))})", re.ASCII)

    def read(value: object) -> float:
        match = pattern.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"write a value like {example}")
        return float(Decimal(match[1]) * units[match[2]])

    return BeforeValidator(read)


def _measure_schema(units: dict[str, int], example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^[0-9.]+ ?({'|'.join(units)})$", "examples": [example]})


_WATTS = {"W": 1, "kW": 1000}
_BANDWIDTH = {"kbit/s": 1, "Mbit/s": 1000, "Gbit/s": 1_000_000}
HourPrice = Annotated[int, _price("hour"), _price_schema("hour")]
EnergyPrice = Annotated[int, _price("kWh"), _price_schema("kWh")]
GigabytePrice = Annotated[int, _price("GB"), _price_schema("GB")]
MonthPrice = Annotated[int, _price("month"), _price_schema("month")]
TonnePrice = Annotated[int, _price("tonne"), _price_schema("tonne")]
Watts = Annotated[float, _measure(_WATTS, "700 W"), _measure_schema(_WATTS, "700 W")]
Bandwidth = Annotated[float, _measure(_BANDWIDTH, "100 Mbit/s"), _measure_schema(_BANDWIDTH, "100 Mbit/s")]
Grams = Annotated[float, _measure({"g/kWh": 1}, "45 g/kWh"), _measure_schema({"g/kWh": 1}, "45 g/kWh")]
RegionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9:._-]{0,62}$")]
"""Such as azure:swedencentral, aws:eu-north-1, gcp:europe-north1, or a name of your own."""
Ratio = Annotated[float, Field(ge=1, le=3, strict=False)]
Hours = Annotated[float, Field(ge=0, le=10_000, strict=False)]


class Owned(Strict):
    """Purchased hardware. Its monthly cost is the purchase spread over its life, whether it is used or not."""

    purchase: Usd
    """Price of one unit, with its share of the machine."""
    life: Duration = 4 * YEAR_MS
    bought: Date | None = None

    @model_validator(mode="after")
    def _lives(self) -> Owned:
        if not YEAR_MS // 12 <= self.life <= 20 * YEAR_MS:
            raise ValueError("life is from a month to 20 years, such as 1460d")
        return self


class Reserved(Strict):
    """Hardware reserved for a term: cheaper by the hour, and paid whether it is used or not."""

    price: HourPrice
    term: Duration = YEAR_MS


class HardwareDoc(Strict):
    """Accelerators or machines of one type at a site."""

    type: Name
    """Such as h100-sxm, h200-sxm, b200-sxm, l4, a10g, cpu, jetson-orin: what is measured of it is looked up."""
    count: Annotated[Count, Field(ge=0)] = 0
    """Units that exist now. `most` limits what can be rented."""
    memory: Size | None = None
    """Memory of one unit. Default: what is known of its type."""
    power: Watts | None = None
    """Power of one unit under load. Default: what is known of its type."""
    owned: Owned | None = None
    on_demand: HourPrice | None = None
    """Price of one unit. Default in a cloud: the reference price of its type, if there is one."""
    spot: HourPrice | None = None
    interruption: Percent = 0.05
    """Probability in an hour that a spot unit is reclaimed."""
    reserved: Annotated[tuple[Reserved, ...], LIST] = ()
    most: Count = 64
    """Maximum number of rented units: the quota."""


class PowerRule(Strict):
    """Energy of own hardware: power x PUE x tariff."""

    tariff: EnergyPrice | None = None
    """Default: the reference tariff of its jurisdiction."""
    pue: Ratio | None = None
    """Power usage effectiveness: energy of the site per energy of its machines. Default: 1.56 private, 1.0 edge."""


class Connectivity(Strict):
    """How a site is reached."""

    bandwidth: Bandwidth | None = None
    """Upstream bandwidth. Default: not limiting."""
    offline: Hours = 0.0
    """Hours a month without connection."""
    latency: dict[RegionName, Duration] = Field(default_factory=dict)
    """Round trip from users in a region, where it was measured: {eu-north: 18ms}."""


class BurdenRule(Strict):
    """Work to operate a site, in hours; `company.placement.people` has the cost of an hour."""

    hours: Hours | None = None
    """Hours per month once anything runs there. Default by type, with the source in docs/placement.md."""
    hours_per_deployment: Hours | None = None
    """Hours per month for each model that is served there."""
    skills: Literal["existing", "new"] = "existing"
    """new: nobody in the company has operated such a site; its first year takes half as much again."""
    rack: MonthPrice = 0
    """Space, network and contracts of the site."""
    setup: Usd = 0
    """One-time cost before anything runs there."""


class HostingRule(Strict):
    """Facts about a site for placement. Everything has a default."""

    region: RegionName | None = None
    """Such as azure:swedencentral, aws:eu-north-1, gcp:europe-north1: latency, egress and carbon are looked up."""
    certifications: Lines = ()
    """Such as ISO27001, C5, HIPAA."""
    hardware: Annotated[tuple[HardwareDoc, ...], LIST] = ()
    power: PowerRule = PowerRule()
    egress: GigabytePrice | None = None
    """Price of outgoing data. Default: the reference price of its provider; own sites: none."""
    egress_to: dict[RegionName, GigabytePrice] = Field(default_factory=dict)
    """By destination, where it differs: a site, or a region of users: {rack-1: 0 USD/GB, us-east: 0.12 USD/GB}.
    Default: to a site of the same provider its reference price between regions, else `egress`."""
    storage: GigabytePrice | None = None
    """Price of storage per month. Default: 0.023 USD/GB in a cloud, none elsewhere."""
    domain: Name | None = None
    """Failure domain; sites of one domain fail together. Default: the site itself."""
    availability: Percent | None = None
    """Default: cloud 99.9%, private 99.5%, edge 99%."""
    connectivity: Connectivity = Connectivity()
    carbon: Grams | None = None
    """Default: the reference intensity of its region, else of its jurisdiction."""
    burden: BurdenRule = BurdenRule()
