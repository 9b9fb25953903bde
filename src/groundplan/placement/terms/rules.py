"""The hard rules, each in a few words: `outside EU`, `1.9 s > 800 ms`. They are never traded against cost.

Pure. Where a workload declares deployments, these are a rule too: others are not used.
"""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog.workspace import satisfies_residency
from groundplan.placement.model import purpose_rule
from groundplan.placement.terms import site_defaults
from groundplan.placement.terms.capacity import SizedHardware
from groundplan.placement.terms.facts import (
    SENSITIVITIES,
    Company,
    DeploymentFacts,
    HardwareFacts,
    ModelFacts,
    SiteFacts,
    Times,
    WorkloadFacts,
)

NOT_DECLARED = "not declared for it"
LONG_CONTEXT_TOKENS = 32_000
"""the context length that the need `long-context` requires of a deployment, in tokens"""


def site_rules(company: Company, w: WorkloadFacts, site: SiteFacts) -> Iterator[str]:
    """Rules that a site breaks: residency, sensitivity, purposes, offline, unknown latency."""
    if not satisfies_residency(site.jurisdiction, w.residency):
        yield f"outside {' and '.join(w.residency)}"
    if SENSITIVITIES.index(w.sensitivity) > SENSITIVITIES.index(site.holds):
        yield f"{w.sensitivity} data, the site holds at most {site.holds}"
    if w.offline and site.name != w.data_site and site.type != "edge":
        yield "it must go on without a connection"
    if w.availability is not None and site.offline_hours and not _is_local(w, site):
        share = 1 - site.offline_hours / 730
        if share < w.availability:
            yield f"offline {site.offline_hours:g} hours a month"
    for users in sorted(w.users):
        if (w.first_token or w.complete) and site_defaults.round_trip(site, users) is None:
            yield f"no way is known from users in {users}"
    yield from _purpose_rules(company, w, "site", site.name, site.purposes)


def _purpose_rules(company: Company, w: WorkloadFacts, kind: str, name: str, allowed: frozenset[str]) -> Iterator[str]:
    """The rule that purposes break, with the place of its declaration."""
    rule = purpose_rule(allowed, w.purposes, kind)
    if rule is not None:
        where = company.where.get(f"{kind}/{name}")
        yield f"{rule} ({where})" if where else rule


def _is_local(w: WorkloadFacts, site: SiteFacts) -> bool:
    return w.data_site == site.name or site.name in w.users


def model_rules(company: Company, w: WorkloadFacts, model: ModelFacts | None) -> Iterator[str]:
    """Rules that a model breaks: purposes, and quality and abilities where they are known."""
    if model is None:
        return
    yield from _purpose_rules(company, w, "model", model.name, model.purposes)
    for task, floor in sorted(w.quality.items()):
        score = model.quality.get(task)
        if score is not None and score < floor:
            yield f"{task} {100 * score:.4g}% < {100 * floor:.4g}%"
    for need in sorted(w.needs - model.abilities) if model.abilities else ():
        yield f"no {need}"


def deployment_rules(w: WorkloadFacts, d: DeploymentFacts, model: ModelFacts | None) -> tuple[str, ...]:
    """Rules that a deployment breaks: declared order, certifications, training, images, quota, context, model."""
    found: list[str] = []
    named = (*w.declared, *w.declared_fallbacks)
    if named and d.name not in named:
        found.append(NOT_DECLARED)
    found += [f"not certified {each}" for each in sorted(w.certifications - d.certifications)]
    if d.trains and w.sensitivity in ("confidential", "restricted"):
        found.append("its provider may train on what it is sent")
    if "vision" in w.needs and "image" not in d.accepts and not (model and "vision" in model.abilities):
        found.append("takes no images")
    tokens = w.peak_second * 60 * (w.prompt + w.output)
    if d.quota_tokens_minute is not None and tokens > d.quota_tokens_minute:
        found.append(f"{tokens:,.0f} tokens a minute at the peak > its quota of {d.quota_tokens_minute:,.0f}")
    if d.context is not None:
        long = max(LONG_CONTEXT_TOKENS if "long-context" in w.needs else 0, round(w.prompt + w.output))
        if long > d.context:
            found.append(f"takes {d.context:,} tokens at once, {long:,} are needed")
    if w.models and d.model not in w.models and not named:
        found.append("another model than those named for it")
    return tuple(found)


def build_rules(
    company: Company,
    w: WorkloadFacts,
    site: SiteFacts,
    model: ModelFacts,
    sized: SizedHardware,
    hardware: HardwareFacts,
) -> tuple[str, ...]:
    """Rules that serving a model on this hardware breaks: certifications, sites, licences, units, declared order."""
    found = [f"not certified {each}" for each in sorted(w.certifications - site.certifications)]
    if model.sites and site.name not in model.sites:
        found.append("the weights may not lie there")
    if company.policy.licences and model.licence not in company.policy.licences:
        found.append(f"the licence {model.licence or '(none is said)'} is not among those that may be used")
    if sized.units > sized.available:
        found.append(f"{sized.units:.3g} {hardware.type} needed at the peak, {sized.available:g} can be had")
    if (w.declared or w.declared_fallbacks) and not w.is_planned:
        found.append(NOT_DECLARED)
    return tuple(found)


def budget_rules(w: WorkloadFacts, tokens_usd: float) -> Iterator[str]:
    """The rule broken if tokens cost more a month than the workload's own hard budgets, where these are required."""
    if w.requires_budget and w.budget_usd is not None and tokens_usd > w.budget_usd:
        yield f"${tokens_usd:,.2f} of tokens a month > its budget of ${w.budget_usd:,.2f}"


def latency_rules(w: WorkloadFacts, times: Times) -> Iterator[str]:
    """Latency objectives that the expected times break."""
    for name, expected, most in (
        ("first token", times.first_token, w.first_token),
        ("each token", times.per_token, w.per_token),
        ("whole answer", times.complete, w.complete),
    ):
        if most is not None and expected > most:
            yield f"{name} {format_ms(expected)} > {format_ms(most)}"


def format_ms(ms: float) -> str:
    """`1.9 s`, `800 ms`."""
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"
