"""A CSV inventory of machines -> sites. Columns: site, type, jurisdiction, region, hardware, count, and, where known,
memory_gb, watts, purchase_usd, life_years, usd_hour. Reads text only."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping

from groundplan.catalog.imports.accelerators import instance_accelerators, product_accelerator
from groundplan.catalog.imports.machines import MAX_MACHINES, ImportedSites, Machine, build_sites
from groundplan.catalog.imports.naming import slug
from groundplan.core.errors import Invalid, Problem, Where

COLUMNS = (
    "site", "type", "jurisdiction", "region", "hardware", "count", "memory_gb", "watts", "purchase_usd", "life_years",
    "usd_hour",
)  # fmt: skip
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)


def import_inventory(text: str, name: str) -> ImportedSites:
    """Every row is so many units of one type. Raises `Invalid` with every wrong row."""
    reader = csv.DictReader(text.splitlines())
    missing = [column for column in ("site", "hardware", "count") if column not in (reader.fieldnames or ())]
    if missing:
        raise Invalid(
            f"{name} lacks the columns {', '.join(missing)}",
            code="import_inventory",
            hint=f"Its first line names columns: {', '.join(COLUMNS)}.",
            where=f"{name}:1",
        )
    machines: list[Machine] = []
    problems: list[Problem] = []
    for row in reader:
        line = reader.line_num
        wrong = _row_problem(row)
        if wrong:
            problems.append(Problem(wrong, "import_inventory", "Write plain numbers.", Where(name, line)))
        elif len(machines) < MAX_MACHINES:
            machines.append(_machine(row, Where(name, line)))
    if problems:
        raise Invalid(
            f"{len(problems)} rows of {name} cannot be read", code="import_inventory",
            hint="Correct them, or leave them out.", problems=tuple(problems[:100]),
        )  # fmt: skip
    return build_sites(machines, (), {}, name)


def _row_problem(row: Mapping[str, str | None]) -> str:
    """What is wrong with a row; empty: nothing."""
    if not (row.get("site") or "").strip() or not (row.get("hardware") or "").strip():
        return "a machine has a site and a type of hardware"
    if (row.get("type") or "private").strip() not in ("cloud", "private", "edge"):
        return "type is cloud, private or edge"
    law = (row.get("jurisdiction") or "").strip()
    if law and not re.fullmatch(r"[A-Z][A-Z0-9-]{1,9}", law):
        return "jurisdiction is in capitals, such as EU or SE"
    if not re.fullmatch(r"[0-9]{1,6}", (row.get("count") or "").strip()):
        return "count is a whole number"
    for column in ("memory_gb", "watts", "purchase_usd", "life_years", "usd_hour"):
        value = (row.get(column) or "").strip()
        if value and not _NUMBER.fullmatch(value):
            return f"{column} is a number"
    return ""


def _machine(row: Mapping[str, str | None], where: Where) -> Machine:
    def text(column: str) -> str | None:
        return (row.get(column) or "").strip() or None

    def number(column: str) -> float | None:
        value = text(column)
        return float(value) if value else None

    hardware = text("hardware") or ""
    known = instance_accelerators(hardware)
    life = number("life_years")
    return Machine(
        site=slug(text("site") or "", "site"),
        type=text("type") or "private",
        hardware=known[0] if known else product_accelerator(hardware) or slug(hardware, "hardware"),
        count=int(text("count") or "0") * (known[1] if known else 1),
        where=where,
        region=_region(text("region")),
        jurisdiction=text("jurisdiction"),
        memory_gb=number("memory_gb"),
        hour_usd=text("usd_hour"),
        purchase_usd=text("purchase_usd"),
        life_days=round(life * 365) if life else None,
        watts=number("watts"),
    )


def _region(value: str | None) -> str | None:
    return None if value is None else re.sub(r"[^a-z0-9:._-]", "", value.lower())[:63] or None
