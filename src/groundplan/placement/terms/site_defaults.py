"""Default values of sites from reference data: latency, egress, carbon, energy, burden, availability, prices. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from groundplan.placement.reference.store import load_reference, reference_origins
from groundplan.placement.terms.facts import SiteFacts


def area_of(region: str | None) -> str | None:
    """The area of a provider's region, or the area itself; None: not known."""
    if region is None:
        return None
    facts = load_reference("latency")
    return region if region in facts["areas"] else facts["regions"].get(region)


def provider_of(region: str | None) -> str:
    return (region or "").partition(":")[0]


def round_trip(site: SiteFacts, users: str) -> float | None:
    """Milliseconds between users in a region and a site, their last mile included; None: not known."""
    if users in site.latency_ms:
        return float(site.latency_ms[users])
    if users == site.name:
        return 1.0
    facts = load_reference("latency")
    theirs = area_of(users)
    if theirs is None or site.area is None:
        return None
    between = facts["same"] if theirs == site.area else facts["rtt"][theirs].get(site.area)
    return None if between is None else float(between + facts["last_mile"])


def egress(region: str | None, type_: str) -> float:
    """USD for a GB that leaves."""
    found = load_reference("egress")["providers"].get(provider_of(region))
    if found is not None:
        return float(found["internet"])
    return 0.09 if type_ == "cloud" else 0.0


def egress_between(region: str | None) -> float | None:
    """USD for a GB to another region of the same provider; None: not known."""
    found = load_reference("egress")["providers"].get(provider_of(region))
    return None if found is None else float(found["between"])


def egress_price(site: SiteFacts, to: SiteFacts | str) -> float:
    """USD for a GB from a site to another one, or to users in a region."""
    if isinstance(to, str):
        return float(site.egress_to.get(to, site.egress_usd_gb))
    for name in (to.name, to.region):
        if name is not None and name in site.egress_to:
            return float(site.egress_to[name])
    same = provider_of(site.region) == provider_of(to.region) and site.egress_between is not None
    return float(site.egress_between or 0.0) if same else float(site.egress_usd_gb)


def carbon(region: str | None, jurisdiction: str) -> float:
    """Grams of CO2e for a kWh."""
    facts, area = load_reference("carbon"), area_of(region)
    found = facts["regions"].get(region or "", facts["areas"].get(area or ""))
    return float(found if found is not None else facts["jurisdictions"].get(jurisdiction, facts["default"]))


def tariff(jurisdiction: str) -> float:
    """USD for a kWh."""
    facts = load_reference("energy")
    return float(facts["tariff"].get(jurisdiction, facts["default"]))


def pue(type_: str) -> float:
    return float(load_reference("energy")["pue"][type_])


def burden(what: str, type_: str, end: str = "hours") -> float:
    """Hours a month of a `site` or a `model`: the sum of the tasks that are listed. `end`: `low` or `high` of their
    ranges."""
    tasks: Mapping[str, Mapping[str, float]] = load_reference("burden")[what][type_]
    return float(sum(each[end] for each in tasks.values()))


def new_skills_factor() -> float:
    """Times the hours where nobody has run such a site before."""
    return float(load_reference("burden")["new_skills"]["times"])


def availability(type_: str) -> float:
    return float(load_reference("availability")["types"][type_])


def prices(region: str | None, hardware: str) -> tuple[float | None, float | None, float | None]:
    """(on demand, spot, reserved for a year) in USD an hour and unit."""
    facts, provider = load_reference("prices"), provider_of(region)
    found = facts["hour"].get(provider, {}).get(hardware)
    if found is None:
        return None, None, None
    discount = facts["reserved"].get(provider, {}).get("1y")
    return found[0], found[1], None if discount is None else round(found[0] * (1 - discount), 6)


def stale_references(today: date) -> tuple[str, ...]:
    """Reference data that is older than its validity, in words."""
    return tuple(
        f"reference {each.name} is of {each.as_of}, it was taken to hold until {each.until}: {each.source}"
        for each in reference_origins()
        if each.is_stale(today)
    )
