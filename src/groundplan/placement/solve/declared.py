"""Where a workload runs: every declared deployment is judged by the hard rules and priced, then the order is chosen.

Pure, and complete: all alternatives are enumerated, so the gap to the optimum is zero; of many the `nearest` are
told. `verify` checks a finished blueprint by its own reading of the rules. Capacity, measured latency and shared costs
are not considered yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from decimal import ROUND_CEILING, Decimal
from itertools import pairwise

from msgspec import structs

from groundplan.blueprint.model import (
    Alternative,
    Blueprint,
    Deployment,
    Placement,
    Ramp,
    Rates,
    Site,
    Source,
    Workload,
)
from groundplan.catalog.workspace import satisfies_residency
from groundplan.core.errors import Problem
from groundplan.placement.model import EEA, EU, SENSITIVITY_ORDER, Demand, purpose_rule

MOST = 40
"""Alternatives that a blueprint tells of a workload: of two thousand workloads all of three hundred are 60 MB."""
SERVING = 10
"""Of them those that serve it first."""


def holds(site: Site) -> str:
    """The most sensitive data that may be processed at a site."""
    return site.holds or ("confidential" if site.type == "cloud" else "restricted")


def monthly(rates: Rates, demand: Demand) -> int:
    """Picodollars a month at the declared traffic, rounded up."""
    tokens = demand.prompt_tokens * rates.input + demand.completion_tokens * rates.output
    each = Decimal(tokens) / 1_000_000 + rates.request
    return int((each * demand.calls_per_month).to_integral_value(ROUND_CEILING))


def reasons_against(demand: Demand, site: Site, model: Sequence[str] = ()) -> list[str]:
    """Every hard rule that keeps the workload away from the site, and from a model for these purposes, in words."""
    reasons: list[str] = []
    if not satisfies_residency(site.jurisdiction, demand.residency):
        reasons.append(f"outside {' and '.join(demand.residency)}")
    if SENSITIVITY_ORDER.index(demand.sensitivity) > SENSITIVITY_ORDER.index(holds(site)):
        reasons.append(f"{demand.sensitivity} data, the site holds at most {holds(site)}")
    told = (purpose_rule(site.purposes, demand.purposes, "site"), purpose_rule(model, demand.purposes, "model"))
    return [*reasons, *(each for each in told if each is not None)]


def solve(demand: Demand, deployments: Sequence[Deployment], sites: Mapping[str, Site]) -> Placement:
    """Judge, price and order all chat deployments for one workload.

    Declared deployments and fallbacks come in their declared order, where nothing is declared the cheapest comes first.
    A declared deployment that a rule forbids is left out here and refused by `refused`.
    """
    options = {item.deployment: item for item in _judged(demand, deployments, sites)}
    by_price = sorted((o for o in options.values() if o.allowed), key=lambda o: (o.monthly or 0, o.deployment))
    later = [name for name in demand.fallbacks if name in options and options[name].allowed]
    if demand.preferred:
        first = [name for name in demand.preferred if name in options and options[name].allowed]
    else:
        cheapest = [option.deployment for option in by_price if option.deployment not in later]
        first = cheapest[:1] if later else cheapest
    order = list(dict.fromkeys([*first, *later]))
    return Placement(
        workload=demand.workload,
        primary=order[0] if order else None,
        fallbacks=order[1:],
        alternatives=list(options.values()),
        binding=_binding(demand, options, len(by_price)),
    )


def _judged(demand: Demand, deployments: Sequence[Deployment], sites: Mapping[str, Site]) -> Iterator[Alternative]:
    """Each chat deployment, by name. Of hundreds many have the same site and the same price."""
    against: dict[tuple[str, ...], list[str]] = {}
    prices: dict[tuple[int, int, int], int] = {}
    for item in sorted(deployments, key=lambda item: item.name):
        if item.kind != "chat":
            continue
        where, rates = (item.site, *item.purposes), (item.rates.input, item.rates.output, item.rates.request)
        if where not in against:
            against[where] = reasons_against(demand, sites[item.site], item.purposes)
        if rates not in prices:
            prices[rates] = monthly(item.rates, demand)
        reasons = against[where]
        yield Alternative(
            deployment=item.name, site=item.site, allowed=not reasons, reasons=reasons, monthly=prices[rates]
        )


def nearest(placement: Placement) -> Placement:
    """With `MOST` alternatives at most, for a company with hundreds of deployments and thousands of workloads: those
    that serve, the cheapest at each site, and then the cheapest of all, what is allowed before what is not."""
    every = placement.alternatives
    if len(every) <= MOST:
        return placement
    serving = {name: place for place, name in enumerate([placement.primary, *placement.fallbacks])}
    by_price = sorted(every, key=lambda o: (not o.allowed, o.monthly or 0, o.deployment))
    of_site = {option.site: option for option in reversed(by_price)}
    first = [option for option in every if option.deployment in serving]
    first.sort(key=lambda option: serving[option.deployment])
    ranked = {option.deployment: option for option in (*first[:SERVING], *of_site.values(), *by_price)}
    kept = set(list(ranked)[:MOST])
    return structs.replace(
        placement,
        alternatives=[option for option in every if option.deployment in kept],
        binding=f"{placement.binding}; {MOST} of {len(every)} are listed",
    )


def refused(demand: Demand, placement: Placement) -> list[Problem]:
    """Declared deployments that a rule forbids, and a workload that nothing may serve."""
    options = {option.deployment: option for option in placement.alternatives}
    found = [
        Problem(
            message=f"{demand.workload} may not run on {name}: {'; '.join(option.reasons)}",
            code="placement_forbidden",
            hint="Name a deployment at another site, or change residency, sensitivity or purposes of the workload.",
        )
        for name in dict.fromkeys([*demand.preferred, *demand.fallbacks])
        if (option := options.get(name)) is not None and not option.allowed
    ]
    if placement.primary is None and demand.chats and not found:
        why = "; ".join(f"{option.deployment}: {', '.join(option.reasons)}" for option in placement.alternatives)
        found.append(
            Problem(
                message=f"no declared deployment may serve {demand.workload}" + (f" ({why})" if why else ""),
                code="placement_none",
                hint="Declare a deployment at a site that its residency, sensitivity and purposes allow.",
            )
        )
    return found


def verify(blueprint: Blueprint) -> list[Problem]:
    """Check a finished blueprint against the hard rules, without using anything that made it. Empty: all hold."""
    sites = {site.name: site for site in blueprint.sites}
    deployments = {deployment.name: deployment for deployment in blueprint.deployments}
    sources = {source.name: source for source in blueprint.sources}
    budgets = {budget.name for budget in blueprint.budgets}
    ramps = {each.workload: each.ramp for each in blueprint.placements if each.ramp is not None}
    found: list[Problem] = []
    for workload in blueprint.workloads:
        for name in workload.places:
            place = deployments.get(name)
            site = sites.get(place.site) if place else None
            if site is None:
                found.append(_broken(workload, f"{name} is not a deployment at a known site"))
                continue
            if workload.residency and not _lawful(site.jurisdiction, workload.residency):
                found.append(_broken(workload, f"{name} is outside {', '.join(workload.residency)}"))
            most = site.holds if site.holds is not None else {"cloud": "confidential"}.get(site.type, "restricted")
            if not _at_most(workload.sensitivity, most):
                found.append(_broken(workload, f"{workload.sensitivity} data on {name}, whose site holds {most}"))
            for allowed in (site.purposes, place.purposes if place else []):
                if allowed and (not workload.needs.purposes or set(workload.needs.purposes) - set(allowed)):
                    found.append(_broken(workload, f"{name} may be used for {', '.join(allowed)} only"))
        found += _verify_data(workload, sources, budgets)
        found += _verify_sent(blueprint, workload)
        found += _verify_ramp(workload, ramps.get(workload.name))
    return found


def _verify_ramp(workload: Workload, ramp: Ramp | None) -> list[Problem]:
    """A change of place in steps: between two places that may serve it, in shares that rise and end."""
    if ramp is None:
        return []
    shares = [ramp.share, *ramp.steps]
    found: list[Problem] = []
    if workload.deployments[:1] != [ramp.to]:
        found.append(_broken(workload, f"its calls go over to {ramp.to}, which is not its first place"))
    if ramp.origin == ramp.to or ramp.origin not in workload.deployments:
        found.append(_broken(workload, f"its calls go over from {ramp.origin}, which may not serve it"))
    if shares[0] < 1 or shares[-1] > 99 or any(a >= b for a, b in pairwise(shares)) or ramp.every_s < 1:
        found.append(_broken(workload, f"its calls go over in steps of {shares} %, which do not rise to the end"))
    return found


def _verify_data(workload: Workload, sources: Mapping[str, Source], budgets: Set[str]) -> list[Problem]:
    """Sources, budgets and owner of one workload."""
    found: list[Problem] = []
    for name in workload.grounding.sources if workload.grounding else []:
        if name not in sources:
            found.append(_broken(workload, f"its source {name} is not in the blueprint"))
        elif not _at_most(sources[name].sensitivity, workload.sensitivity):
            found.append(_broken(workload, f"its source {name} is {sources[name].sensitivity}"))
    if not workload.budgets or any(name not in budgets for name in workload.budgets):
        found.append(_broken(workload, "it has no budget"))
    if not workload.owners.get("business"):
        found.append(_broken(workload, "it has no business owner"))
    if not workload.places:
        found.append(_broken(workload, "it has no deployment"))
    return found


def _verify_sent(blueprint: Blueprint, workload: Workload) -> list[Problem]:
    """What is sent of it to workloads that embed and rerank: they may see it, where it may be seen."""
    if workload.grounding is None:
        return []
    asked = {each.workload for each in (blueprint.index.embedding, workload.grounding.rerank) if each is not None}
    found: list[Problem] = []
    for other in (each for each in blueprint.workloads if each.name in asked):
        if not _at_most(workload.sensitivity, other.sensitivity):
            found.append(_broken(workload, f"{workload.sensitivity} data to {other.name}, which may see less"))
        there = bool(other.residency) and all(_lawful(each, workload.residency) for each in other.residency)
        if workload.residency and not there:
            found.append(_broken(workload, f"{other.name}, which is sent some of it, may run elsewhere"))
    return found


def _lawful(jurisdiction: str, residency: list[str]) -> bool:
    unions = [union for union, members in (("EU", EU), ("EEA", EEA)) if jurisdiction in members]
    return any(name in residency for name in [jurisdiction, *unions])


def _at_most(value: str, limit: str) -> bool:
    order = {"public": 0, "internal": 1, "confidential": 2, "restricted": 3}
    return order[value] <= order[limit]


def _broken(workload: Workload, what: str) -> Problem:
    return Problem(
        message=f"workload {workload.name}: {what}",
        code="placement_invalid",
        hint="The blueprint breaks a rule that no declaration can waive; it is not served.",
    )


def _binding(demand: Demand, options: Mapping[str, Alternative], allowed: int) -> str:
    """What decided, in one phrase."""
    assumed = ", at an assumed 100 calls a day" if demand.assumed else ""
    if allowed == 0:
        return "nothing is allowed" if demand.chats else "no chat model is allowed, and none is needed"
    if demand.preferred:
        return f"declared order, {allowed} of {len(options)} allowed{assumed}"
    if allowed == 1 and len(options) > 1:
        rules = [f"residency {' and '.join(demand.residency)}"] if demand.residency else []
        every = dict.fromkeys(reason for option in options.values() for reason in option.reasons)
        limited = [reason for reason in every if reason.startswith(("the site is for", "the model is for"))]
        rules = [*rules, f"{demand.sensitivity} data", *limited]
        return f"only one is allowed: {', '.join(rules)}{assumed}"
    return f"cheapest of {allowed} allowed{assumed}"
