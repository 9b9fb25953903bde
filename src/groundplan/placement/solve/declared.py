"""Where a workload runs: judge every declared deployment by the hard rules, price it, and choose the order.

Pure, and complete: all alternatives are enumerated, so the gap to the optimum is zero; `limit_alternatives` keeps a
list of at most `MAX_ALTERNATIVES`. `verify_blueprint` checks a finished blueprint by its own implementation of the
rules. Capacity, measured latency and shared costs are not considered.
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

MAX_ALTERNATIVES = 40
"""Alternatives that a blueprint lists for a workload: 300 for each of 2,000 workloads would be 60 MB."""
MAX_SERVING = 10
"""How many of these are places that serve the workload, in their order."""


def max_sensitivity(site: Site) -> str:
    """The most sensitive class of data that may be processed at a site."""
    return site.holds or ("confidential" if site.type == "cloud" else "restricted")


def monthly_cost(rates: Rates, demand: Demand) -> int:
    """The cost of the declared traffic in picodollars a month, rounded up."""
    tokens = demand.prompt_tokens * rates.input + demand.completion_tokens * rates.output
    each = Decimal(tokens) / 1_000_000 + rates.request
    return int((each * demand.calls_per_month).to_integral_value(ROUND_CEILING))


def reasons_against(demand: Demand, site: Site, model: Sequence[str] = ()) -> list[str]:
    """Every hard rule that excludes the workload from the site, or from a model for the purposes `model`, in words."""
    reasons: list[str] = []
    if not satisfies_residency(site.jurisdiction, demand.residency):
        reasons.append(f"outside {' and '.join(demand.residency)}")
    if SENSITIVITY_ORDER.index(demand.sensitivity) > SENSITIVITY_ORDER.index(max_sensitivity(site)):
        reasons.append(f"{demand.sensitivity} data, the site holds at most {max_sensitivity(site)}")
    purpose_rules = (
        purpose_rule(site.purposes, demand.purposes, "site"),
        purpose_rule(model, demand.purposes, "model"),
    )
    return [*reasons, *(each for each in purpose_rules if each is not None)]


def place_workload(demand: Demand, deployments: Sequence[Deployment], sites: Mapping[str, Site]) -> Placement:
    """Judge, price and order all chat deployments for one workload.

    Declared deployments and fallbacks keep their declared order; where nothing is declared the cheapest comes first.
    A declared deployment that a rule forbids is left out here and reported by `find_refusals`.
    """
    options = {item.deployment: item for item in _judge_deployments(demand, deployments, sites)}
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
        binding=_describe_binding(demand, options, len(by_price)),
    )


def _judge_deployments(
    demand: Demand, deployments: Sequence[Deployment], sites: Mapping[str, Site]
) -> Iterator[Alternative]:
    """Each chat deployment, by name. Rules and prices are cached: of hundreds many share a site and a price."""
    against: dict[tuple[str, ...], list[str]] = {}
    prices: dict[tuple[int, int, int], int] = {}
    for item in sorted(deployments, key=lambda item: item.name):
        if item.kind != "chat":
            continue
        where, rates = (item.site, *item.purposes), (item.rates.input, item.rates.output, item.rates.request)
        if where not in against:
            against[where] = reasons_against(demand, sites[item.site], item.purposes)
        if rates not in prices:
            prices[rates] = monthly_cost(item.rates, demand)
        reasons = against[where]
        yield Alternative(
            deployment=item.name, site=item.site, allowed=not reasons, reasons=reasons, monthly=prices[rates]
        )


def limit_alternatives(placement: Placement) -> Placement:
    """The placement with at most `MAX_ALTERNATIVES` alternatives, for companies with hundreds of deployments: those
    that serve, the cheapest at each site, then the cheapest of all; allowed ones before forbidden ones."""
    every = placement.alternatives
    if len(every) <= MAX_ALTERNATIVES:
        return placement
    serving = {name: place for place, name in enumerate([placement.primary, *placement.fallbacks])}
    by_price = sorted(every, key=lambda o: (not o.allowed, o.monthly or 0, o.deployment))
    of_site = {option.site: option for option in reversed(by_price)}
    first = [option for option in every if option.deployment in serving]
    first.sort(key=lambda option: serving[option.deployment])
    ranked = {option.deployment: option for option in (*first[:MAX_SERVING], *of_site.values(), *by_price)}
    kept = set(list(ranked)[:MAX_ALTERNATIVES])
    return structs.replace(
        placement,
        alternatives=[option for option in every if option.deployment in kept],
        binding=f"{placement.binding}; {MAX_ALTERNATIVES} of {len(every)} are listed",
    )


def find_refusals(demand: Demand, placement: Placement) -> list[Problem]:
    """Problems: each declared deployment that a rule forbids, or that no deployment may serve the workload."""
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


def verify_blueprint(blueprint: Blueprint) -> list[Problem]:
    """Check a finished blueprint against the hard rules, sharing no code with what made it. Empty: all hold."""
    sites = {site.name: site for site in blueprint.sites}
    deployments = {deployment.name: deployment for deployment in blueprint.deployments}
    sources = {source.name: source for source in blueprint.sources}
    budgets = {budget.name for budget in blueprint.budgets}
    ramps = {each.workload: each.ramp for each in blueprint.placements if each.ramp is not None}
    found: list[Problem] = []
    for workload in blueprint.workloads:
        for name in workload.all_deployments:
            place = deployments.get(name)
            site = sites.get(place.site) if place else None
            if site is None:
                found.append(_violation(workload, f"{name} is not a deployment at a known site"))
                continue
            if workload.residency and not _satisfies_residency(site.jurisdiction, workload.residency):
                found.append(_violation(workload, f"{name} is outside {', '.join(workload.residency)}"))
            site_limit = (
                site.holds if site.holds is not None else {"cloud": "confidential"}.get(site.type, "restricted")
            )
            if not _at_most(workload.sensitivity, site_limit):
                found.append(
                    _violation(workload, f"{workload.sensitivity} data on {name}, whose site holds {site_limit}")
                )
            for allowed in (site.purposes, place.purposes if place else []):
                if allowed and (not workload.needs.purposes or set(workload.needs.purposes) - set(allowed)):
                    found.append(_violation(workload, f"{name} may be used for {', '.join(allowed)} only"))
        found += _verify_data(workload, sources, budgets)
        found += _verify_data_sent(blueprint, workload)
        found += _verify_ramp(workload, ramps.get(workload.name))
    return found


def _verify_ramp(workload: Workload, ramp: Ramp | None) -> list[Problem]:
    """Violations of a change of place in steps: between two places that may serve it, in rising shares below 100."""
    if ramp is None:
        return []
    shares = [ramp.share, *ramp.steps]
    found: list[Problem] = []
    if workload.deployments[:1] != [ramp.to]:
        found.append(_violation(workload, f"its calls go over to {ramp.to}, which is not its first place"))
    if ramp.origin == ramp.to or ramp.origin not in workload.deployments:
        found.append(_violation(workload, f"its calls go over from {ramp.origin}, which may not serve it"))
    if shares[0] < 1 or shares[-1] > 99 or any(a >= b for a, b in pairwise(shares)) or ramp.every_s < 1:
        found.append(_violation(workload, f"its calls go over in steps of {shares} %, which do not rise to the end"))
    return found


def _verify_data(workload: Workload, sources: Mapping[str, Source], budgets: Set[str]) -> list[Problem]:
    """Violations by the sources, budgets, owner and places of one workload."""
    found: list[Problem] = []
    for name in workload.grounding.sources if workload.grounding else []:
        if name not in sources:
            found.append(_violation(workload, f"its source {name} is not in the blueprint"))
        elif not _at_most(sources[name].sensitivity, workload.sensitivity):
            found.append(_violation(workload, f"its source {name} is {sources[name].sensitivity}"))
    if not workload.budgets or any(name not in budgets for name in workload.budgets):
        found.append(_violation(workload, "it has no budget"))
    if not workload.owners.get("business"):
        found.append(_violation(workload, "it has no business owner"))
    if not workload.all_deployments:
        found.append(_violation(workload, "it has no deployment"))
    return found


def _verify_data_sent(blueprint: Blueprint, workload: Workload) -> list[Problem]:
    """Violations by data sent to the workloads that embed and rerank: their sensitivity and residency must allow it."""
    if workload.grounding is None:
        return []
    data_receivers = {
        each.workload for each in (blueprint.index.embedding, workload.grounding.rerank) if each is not None
    }
    found: list[Problem] = []
    for other in (each for each in blueprint.workloads if each.name in data_receivers):
        if not _at_most(workload.sensitivity, other.sensitivity):
            found.append(_violation(workload, f"{workload.sensitivity} data to {other.name}, which may see less"))
        there = bool(other.residency) and all(
            _satisfies_residency(each, workload.residency) for each in other.residency
        )
        if workload.residency and not there:
            found.append(_violation(workload, f"{other.name}, which is sent some of it, may run elsewhere"))
    return found


def _satisfies_residency(jurisdiction: str, residency: list[str]) -> bool:
    unions = [union for union, members in (("EU", EU), ("EEA", EEA)) if jurisdiction in members]
    return any(name in residency for name in [jurisdiction, *unions])


def _at_most(value: str, limit: str) -> bool:
    order = {"public": 0, "internal": 1, "confidential": 2, "restricted": 3}
    return order[value] <= order[limit]


def _violation(workload: Workload, what: str) -> Problem:
    return Problem(
        message=f"workload {workload.name}: {what}",
        code="placement_invalid",
        hint="The blueprint breaks a rule that no declaration can waive; it is not served.",
    )


def _describe_binding(demand: Demand, options: Mapping[str, Alternative], allowed: int) -> str:
    """What decided the placement, in one phrase."""
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
