"""What if: the same company with other prices, loads or sites, solved again, and compared with the present plan.

A change refers to sites, workloads and deployments by their declared names, which must exist. Pure; nothing is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from groundplan.core.errors import Invalid
from groundplan.placement.explain.why import place_json
from groundplan.placement.explain.words import format_usd
from groundplan.placement.fixed_plan import plan_after_loss
from groundplan.placement.planner import DEFAULT_LIMIT, CompanyPlan, describe_proof, plan_company
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.facts import SENSITIVITIES, Company

MAX_CHANGES = 50
_SITE_FIELDS = {
    "power_price": ("energy_usd_kwh", 0.0, 100.0),
    "pue": ("pue", 1.0, 3.0),
    "carbon": ("carbon_g_kwh", 0.0, 5000.0),
    "egress": ("egress_usd_gb", 0.0, 100.0),
    "availability": ("availability", 0.0, 1.0),
    "hours": ("burden_hours", 0.0, 10_000.0),
    "rack": ("rack_usd", 0.0, 1e7),
    "bandwidth": ("bandwidth_kbit", 1.0, 1e9),
    "offline": ("offline_hours", 0.0, 730.0),
}
_WORKLOAD_FIELDS = {
    "calls_month": ("calls_month", 0.0, 1e12),
    "peak": ("peak", 1.0, 1000.0),
    "prompt_tokens": ("prompt", 0.0, 1e7),
    "completion_tokens": ("output", 0.0, 1e7),
    "first_token": ("first_token", 1.0, 1e7),
    "per_token": ("per_token", 0.1, 1e5),
    "complete": ("complete", 1.0, 1e8),
    "availability": ("availability", 0.0, 1.0),
    "growth": ("growth", 0.0, 10.0),
}
SPOT_VALUES = ("allowed", "never")
_POLICY_FIELDS = {
    "people": ("people_usd", 0.0, 10_000.0),
    "carbon": ("carbon_usd_tonne", 0.0, 100_000.0),
    "payback": ("payback_months", 0.03, 1200.0),
    "headroom": ("headroom", 0.0, 0.9),
    "latency": ("latency_usd", 0.0, 1000.0),
}
_FACTOR = re.compile(r"x(?P<times>[0-9]+(?:\.[0-9]+)?)|(?P<percent>[+-][0-9]+(?:\.[0-9]+)?)%")


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes to try."""

    sets: Mapping[str, str] = field(default_factory=dict)
    """`sites.eu-private.power_price` -> `0.4`"""
    drop_sites: tuple[str, ...] = ()
    demand: Mapping[str, float] = field(default_factory=dict)
    """workload -> factor on its calls; `all` is every workload"""
    prices: Mapping[str, float] = field(default_factory=dict)
    """deployment, model or site -> factor on the prices of its tokens and hardware"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two plans and their differences."""

    before: CompanyPlan
    after: CompanyPlan
    flips: tuple[Mapping[str, Any], ...]
    others_moved: int | None = None
    """where only sites are lost: the least number of workloads that used none of them and must move nevertheless"""


def parse_factor(text: str) -> float:
    """`x3` -> 3, `-30%` -> 0.7, `+10%` -> 1.1. Raises `Invalid`."""
    found = _FACTOR.fullmatch(text.strip())
    value = -1.0 if found is None else float(found["times"]) if found["times"] else 1 + float(found["percent"]) / 100
    if not 0 <= value <= 1e6:
        raise Invalid(
            f"'{text[:40]}' is not a factor", code="what_if_factor", hint="Write x3, +20% or -30%, not below -100%."
        )
    return value


def parse_changes(
    sets: Iterable[str], drop_sites: Iterable[str], demand: Iterable[str], prices: Iterable[str]
) -> Changes:
    """From NAME=VALUE texts. Raises `Invalid`."""
    found = Changes(
        sets=dict(_parse_pair(text, "sites.rack.power_price=0.4") for text in sets),
        drop_sites=tuple(drop_sites),
        demand={name: parse_factor(value) for name, value in (_parse_pair(text, "support=x3") for text in demand)},
        prices={name: parse_factor(value) for name, value in (_parse_pair(text, "gpt-eu=-30%") for text in prices)},
    )
    if len(found.sets) + len(found.drop_sites) + len(found.demand) + len(found.prices) > MAX_CHANGES:
        raise Invalid("too many changes at once", code="what_if_many", hint=f"At most {MAX_CHANGES}.")
    return found


def apply_changes(company: Company, changes: Changes) -> Company:
    """The company with the changes. Raises `Invalid` for an unknown name or a number out of range."""
    company = _apply_sets(company, changes.sets)
    sites, workloads, deployments = dict(company.sites), dict(company.workloads), dict(company.deployments)
    for name, times in changes.demand.items():
        if name != "all" and name not in workloads:
            raise _unknown_name(name, workloads)
        for each in workloads if name == "all" else (name,):
            workloads[each] = replace(workloads[each], calls_month=workloads[each].calls_month * times)
    for name, times in changes.prices.items():
        _scale_prices(sites, deployments, name, times)
    for name in changes.drop_sites:
        if name not in sites:
            raise _unknown_name(name, sites)
        del sites[name]
    kept = {n: d for n, d in deployments.items() if d.site in sites}
    return replace(company, sites=sites, workloads=workloads, deployments=kept)


def _apply_sets(company: Company, sets: Mapping[str, str]) -> Company:
    sites, workloads, policy = dict(company.sites), dict(company.workloads), company.policy
    for path, value in sets.items():
        kind, _, rest = path.partition(".")
        name, _, key = rest.rpartition(".")
        if kind == "sites" and name in sites:
            sites[name] = _set_number(sites[name], _SITE_FIELDS, key, value, path)
        elif kind == "workloads" and name in workloads:
            workloads[name] = _set_workload_field(workloads[name], key, value, path)
        elif kind == "policy":
            policy = _set_number(policy, _POLICY_FIELDS, rest, value, path)
        else:
            raise _unknown_name(
                path, [f"sites.{n}" for n in sites] + [f"workloads.{n}" for n in workloads] + ["policy"]
            )
    return replace(company, sites=sites, workloads=workloads, policy=policy)


def _set_workload_field(facts: Any, key: str, value: str, path: str) -> Any:
    if key == "sensitivity":
        if value not in SENSITIVITIES:
            raise _unknown_name(value, SENSITIVITIES)
        return replace(facts, sensitivity=value)
    if key == "spot":
        if value not in SPOT_VALUES:
            raise _unknown_name(value, SPOT_VALUES)
        return replace(facts, spot=value == "allowed")
    if key == "residency":
        return replace(facts, residency=tuple(each for each in value.split(",") if each))
    found = _set_number(facts, _WORKLOAD_FIELDS, key, value, path)
    if key == "peak" and max(facts.curve) > 1:
        steeper = (found.peak - 1) / (max(facts.curve) - 1)
        found = replace(found, curve=tuple(max(0.0, 1 + (each - 1) * steeper) for each in facts.curve))
    return found


def _set_number(facts: Any, keys: Mapping[str, tuple[str, float, float]], key: str, value: str, path: str) -> Any:
    if key not in keys:
        raise _unknown_name(path, keys)
    name, lowest, highest = keys[key]
    try:
        number = float(value)
    except ValueError:
        number = lowest - 1
    if not lowest <= number <= highest:
        raise Invalid(
            f"{path}={value[:40]} is not a number from {lowest:g} to {highest:g}",
            code="what_if_value",
            hint="Write a plain number: USD a kWh, milliseconds, a share from 0 to 1.",
        )
    return replace(facts, **{name: number})


def _scale_prices(sites: dict[str, Any], deployments: dict[str, Any], name: str, times: float) -> None:
    """Multiply the token prices of a deployment or of a model's deployments, or the hardware prices of a site."""
    deployments_named = [n for n, d in deployments.items() if name in (n, d.model)]
    for each in deployments_named:
        d = deployments[each]
        prices = {key: round(getattr(d, key) * times) for key in ("input", "output", "request")}
        deployments[each] = replace(d, **prices)
    if name in sites:
        hardware = tuple(
            replace(
                h,
                **{
                    key: None if getattr(h, key) is None else getattr(h, key) * times
                    for key in ("owned_month", "on_demand", "spot", "reserved")
                },
                terms=tuple((months, price * times) for months, price in h.terms),
            )
            for h in sites[name].hardware
        )
        sites[name] = replace(sites[name], hardware=hardware)
    elif not deployments_named:
        raise _unknown_name(name, [*deployments, *sites])


def _parse_pair(text: str, example: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise Invalid(f"'{text[:60]}' lacks its value", code="what_if_form", hint=f"Write NAME=VALUE like {example}.")
    return name, value


def _unknown_name(name: str, known: Iterable[str]) -> Invalid:
    return Invalid(
        f"nothing is called '{name[:80]}'",
        code="what_if_unknown",
        hint=f"There are: {', '.join(sorted(known))[:600]}.",
    )


def compare(before: CompanyPlan, changes: Changes, limit: WorkLimit = DEFAULT_LIMIT) -> Comparison:
    """Plan the changed company and find the differences; where only sites are lost, only workloads that must move do.
    Raises `Invalid`, `Conflict`."""
    company, others_moved = apply_changes(before.company, changes), None
    if changes.drop_sites and not (changes.sets or changes.demand or changes.prices):
        after, others_moved = plan_after_loss(before, company, changes.drop_sites, limit)
    else:
        after = plan_company(company, limit)
    return Comparison(before, after, tuple(find_flips(before, after)), others_moved)


def find_flips(before: CompanyPlan, after: CompanyPlan) -> list[Mapping[str, Any]]:
    """Workloads whose place, burst or fallback differs between the plans."""
    found: list[Mapping[str, Any]] = []
    for name in sorted({*before.placements, *after.placements}):
        old, new = before.placements.get(name), after.placements.get(name)
        old_json, new_json = (None if each is None else place_json(each) for each in (old, new))
        keys = ("site", "config", "burst", "fallback", "level")
        same = (
            old_json is not None
            and new_json is not None
            and all(_comparable_value(old_json, key) == _comparable_value(new_json, key) for key in keys)
        )
        if not same:
            found.append({"workload": name, "before": old_json, "after": new_json})
    return found


def _comparable_value(place: Mapping[str, Any], key: str) -> Any:
    """A configuration to build counts as the same whatever its number of units."""
    value = place[key]
    return value.partition(" on ")[0] if key == "config" else value


def to_json(found: Comparison) -> dict[str, Any]:
    """Both plans side by side."""
    names = sorted({*found.before.placements, *found.after.placements})

    def cost(plan: CompanyPlan, name: str) -> float | None:
        return round(plan.placements[name].usd, 2) if name in plan.placements else None

    def head(plan: CompanyPlan) -> dict[str, Any]:
        return {
            "usd_month": round(plan.usd, 2),
            "proven": describe_proof(plan),
            "carbon_kg": round(plan.carbon_kg, 2),
            "hours": round(plan.hours, 1),
            "homeless": dict(plan.unplaceable),
        }

    return {
        "before": head(found.before),
        "after": head(found.after),
        "difference_usd_month": round(found.after.usd - found.before.usd, 2),
        "workloads": [
            {"workload": n, "before_usd_month": cost(found.before, n), "after_usd_month": cost(found.after, n)}
            for n in names
        ],
        "flips": list(found.flips),
        "others_moved": found.others_moved,
        "words": list(describe(found)),
    }


def describe(found: Comparison) -> Sequence[str]:
    """The comparison in sentences."""
    difference = found.after.usd - found.before.usd
    lines = [
        f"{format_usd(found.before.usd)} a month becomes {format_usd(found.after.usd)}, {format_usd(abs(difference))} "
        f"{'more' if difference >= 0 else 'less'}; {describe_proof(found.after)}."
    ]
    for each in found.flips:
        old, new = each["before"], each["after"]
        name = each["workload"]
        if new is None:
            lines.append(f"{name} has no place any more: {found.after.unplaceable.get(name, 'it is not there')}.")
        elif old is None:
            lines.append(f"{name} gets a place: {new['config']} at {new['site']}.")
        elif (old["site"], old["config"]) != (new["site"], new["config"]):
            lines.append(f"{name} moves from {old['config']} at {old['site']} to {new['config']} at {new['site']}.")
        else:
            standby = f"{_describe_standby(old)} becomes {_describe_standby(new)}"
            lines.append(f"{name} stays and changes what stands beside it: {standby}.")
    if found.others_moved is not None:
        sentence = (
            f"{found.others_moved} others must move too, with fewer nothing fits"
            if found.others_moved
            else "Nothing else moves"
        )
        lines.append(f"{sentence}.")
    return lines if found.flips else [*lines, "No decision changes."]


def _describe_standby(place: Mapping[str, Any]) -> str:
    burst = f"bursts to {place['burst']}" if place["burst"] else "no burst"
    return f"{burst}, falls back to {place['fallback'] or 'nothing'}"
