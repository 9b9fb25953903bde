"""Machines from other tools, grouped into sites; shared by the imports of infrastructure.

Facts about instance types and products are in `accelerators`. Nothing beyond them is guessed: what only people know
becomes a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from groundplan.catalog.imports.providers import UNKNOWN as UNKNOWN_JURISDICTION
from groundplan.catalog.imports.providers import jurisdiction_of
from groundplan.catalog.imports.verdict import CARRIED, NEEDED, STATES, Finding
from groundplan.catalog.imports.yaml_text import Value, document
from groundplan.core.errors import Invalid, Where
from groundplan.core.words import quantity

MAX_BYTES = 32 << 20
MAX_MACHINES = 100_000
UNKNOWN = "XX"
"""Placeholder for a jurisdiction that has to be filled in"""


@dataclass(frozen=True, slots=True)
class Machine:
    """Units of one type of hardware at a site. Prices in USD, as text with all their digits."""

    site: str
    type: str
    """cloud | private | edge"""
    hardware: str
    count: int
    where: Where
    region: str | None = None
    jurisdiction: str | None = None
    memory_gb: float | None = None
    hour_usd: str | None = None
    purchase_usd: str | None = None
    life_days: int | None = None
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class ImportedSites:
    """The result of an import of infrastructure."""

    text: str
    """YAML of the documents"""
    findings: tuple[Finding, ...]
    sites: int
    units: int
    others: dict[str, int] = field(default_factory=dict)
    """What was skipped -> how often"""

    def summary(self) -> str:
        passed = ", ".join(f"{count} {what}" for what, count in sorted(self.others.items()))
        found = f"{quantity(self.sites, 'site')}, {quantity(self.units, 'unit')}"
        return f"{found}; passed over: {passed}" if passed else found

    def body(self) -> dict[str, object]:
        told = [finding.body() for finding in self.findings]
        return {
            "summary": self.summary(),
            "sites": self.sites,
            "units": self.units,
            "findings": told,
            "yaml": self.text,
        }


def region_jurisdiction(region: str | None) -> str | None:
    """Jurisdiction of a provider's region (`aws:eu-north-1`), if its name tells; else None."""
    found = jurisdiction_of((region or "").partition(":")[2] or region or "")
    return None if found == UNKNOWN_JURISDICTION else found


def build_sites(
    machines: Sequence[Machine], findings: Iterable[Finding], others: dict[str, int], from_: str
) -> ImportedSites:
    """Sites with their hardware, and findings about what is missing. Raises `Invalid` if there are no machines."""
    if not machines:
        raise Invalid(
            f"{from_} contains no machine with a known accelerator",
            code="import_empty",
            hint="See with --json what was skipped, or declare the site by hand.",
        )
    told = list(findings)
    by_site: dict[str, list[Machine]] = {}
    for each in machines:
        by_site.setdefault(each.site, []).append(each)
    parts = []
    for name, group in sorted(by_site.items()):
        first = group[0]
        law = next((m.jurisdiction for m in group if m.jurisdiction), None) or region_jurisdiction(first.region)
        if law is None:
            todo = f"Write whose law holds at {name} instead of {UNKNOWN}."
            told.append(Finding(NEEDED, f"site {name}", "its jurisdiction is not known", todo, first.where))
        hosting: dict[str, Value] = {"region": first.region} if first.region else {}
        hosting["hardware"] = [_hardware(group, kind) for kind in sorted({m.hardware for m in group})]
        body: dict[str, Value] = {
            "kind": "site", "name": name, "type": first.type, "jurisdiction": law or UNKNOWN, "hosting": hosting,
        }  # fmt: skip
        parts.append(document(body, [f"from {from_}"]))
        told.append(Finding(CARRIED, f"site {name}", f"{sum(m.count for m in group)} units", "", first.where))
    ordered = sorted(told, key=lambda f: (STATES.index(f.state), f.where.file, f.where.line, f.what))
    return ImportedSites("".join(parts), tuple(ordered), len(by_site), sum(m.count for m in machines), others)


def _hardware(group: Sequence[Machine], kind: str) -> dict[str, Value]:
    same = [each for each in group if each.hardware == kind]
    found: dict[str, Value] = {"type": kind, "count": sum(each.count for each in same)}
    memory = next((each.memory_gb for each in same if each.memory_gb), None)
    if memory:
        found["memory"] = f"{memory:g} GB"
    watts = next((each.watts for each in same if each.watts), None)
    if watts:
        found["power"] = f"{watts:g} W"
    price = next((each.hour_usd for each in same if each.hour_usd), None)
    if price:
        found["on_demand"] = f"{price} USD/hour"
    bought = next((each for each in same if each.purchase_usd), None)
    if bought is not None:
        found["owned"] = {"purchase": f"{bought.purchase_usd} USD", "life": f"{bought.life_days or 1460}d"}
    return found


def line_of(text: str, needle: str) -> int:
    """The line of the first occurrence of a text; 1 if there is none."""
    at = text.find(needle)
    return text.count("\n", 0, at) + 1 if at >= 0 else 1
